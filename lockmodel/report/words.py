"""A verdict and its trace in sentences: what was found, between whom, step by step. Plain text, no layout.

Why nobody can go on is told by `standstill`, how all this is known by `grounds`.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from lockmodel.checker import how_many
from lockmodel.deadlocks import DeadlockGroup, Deadlocks
from lockmodel.explanation import StallView, explain
from lockmodel.overrides import arguments
from lockmodel.report.grammar import SHOWN, assignments, listed, plural, sentence
from lockmodel.report.standstill import members, queue_claim
from lockmodel.spec import Spec
from lockmodel.system import NO_DEADLOCK, NO_GLOBAL_STALL, NO_STALL, ActionKind, Edge, Status, System
from lockmodel.trace import Trace
from lockmodel.verdict import CheckResult, Outcome


def verdict_word(result: CheckResult) -> str:
    """`HOLDS`, `DEADLOCK`, `STALL`, `CONVOY`, `GLOBAL STALL`, `VIOLATED` or `UNDECIDED`."""
    verdict = result.verdict
    if verdict.outcome is not Outcome.VIOLATED:
        return str(verdict.outcome)
    if verdict.violated == NO_STALL and result.view is not None and result.view.stall is not None:
        return stall_word(result.view.stall)
    return {NO_DEADLOCK: "DEADLOCK", NO_GLOBAL_STALL: "GLOBAL STALL"}.get(verdict.violated or "", "VIOLATED")


def stall_word(stall: StallView) -> str:
    """`STALL`, or `CONVOY` where more than one worker can be held up."""
    return "CONVOY" if stall.convoy else "STALL"


def headline(result: CheckResult) -> str:
    """What stands behind the verdict's word."""
    verdict, view = result.verdict, result.view
    if verdict.outcome is Outcome.UNDECIDED:
        return _undecided(result)
    if verdict.outcome is Outcome.HOLDS:
        scope = verdict.scope
        return f"{_all_properties(result)}, {'for' if scope.startswith('any') else 'with'} {scope}"
    if verdict.violated == NO_GLOBAL_STALL:
        return f"with {verdict.scope}"
    if verdict.violated == NO_STALL and view is not None and view.stall is not None:
        return queue_claim(view, view.stall)
    if verdict.violated == NO_DEADLOCK and view is not None:
        return between([view.final[worker].transaction or "" for worker in members(result.compiled, view)])
    return f"{'always' if verdict.violated in result.spec.always else 'never'} {verdict.violated}"


def _undecided(result: CheckResult) -> str:
    """What is not known; where a part of it is, which part: `never crowd: holds for up to 3 workers, … (no deadlock is proved)`."""
    certificate, spec = result.certificate, result.spec
    if certificate is None:
        return result.verdict.reason
    proved, left = [NO_DEADLOCK], [f"never {name}" for name in spec.never] + [f"always {name}" for name in spec.always]
    if spec.no_global_stall:
        (proved if certificate.covers_stall else left).append(NO_GLOBAL_STALL)
    if spec.no_stall:
        (proved if result.queues is not None and result.queues.proved else left).append(NO_STALL)
    verb = "is" if len(proved) == 1 else "are"
    return f"{listed(left)}: {result.verdict.reason} ({listed(proved)} {verb} proved)"


def _all_properties(result: CheckResult) -> str:
    spec = result.spec
    names = [NO_DEADLOCK] + [NO_GLOBAL_STALL] * spec.no_global_stall + [NO_STALL] * spec.no_stall
    names += [f"never {name}" for name in spec.never] + [f"always {name}" for name in spec.always]
    return listed(names) if len(names) <= SHOWN else f"all {len(names)} properties"


def expectation(result: CheckResult) -> str | None:
    """What was expected and what was found instead, as a sentence; None if they agree."""
    return None if result.unmet is None else sentence(result.unmet)


def between(transactions: Sequence[str]) -> str:
    """`between enqueue and claim`; for workers that all run the same, `between 2 workers in send`."""
    if len(transactions) == 1:
        return f"of {transactions[0]} with itself"
    if len(set(transactions)) == 1:
        return f"between {len(transactions)} workers in {transactions[0]}"
    return f"between {listed(transactions)}"


def all_deadlocks(found: Deadlocks) -> str:
    """How many kinds of deadlocks there are, and whether these are all."""
    kinds = f"{plural(len(found.groups), 'kind')} of deadlock" if found.groups else "No deadlock"
    return f"{kinds} found; there may be more: {found.incomplete}." if found.incomplete else f"{kinds} in all."


def group_title(number: int, group: DeadlockGroup) -> str:
    """`1. between enqueue and claim, on lane: 2 workers, in 4 ways`."""
    who = between(group.transactions)
    return f"{number}. {who}, on {listed(group.families)} ({plural(group.ways, 'way')}; {plural(len(group.trace), 'state')})"


def formula_sentences(system: System, trace: Trace, name: str) -> tuple[str, str]:
    """That the `never` or `always` formula `name` is violated in the last state, and the formula."""
    prop = next(prop for prop in system.properties if prop.name == name)
    known = _variables(system, trace)
    where = f"In the last state{f', where {known},' if known else ''}"
    what = "is false, and it must always be true:" if prop.always else "is true, and it must never be:"
    return f"{where} '{name}' {what}", prop.expression.text


def _variables(system: System, trace: Trace) -> str:
    """The shared variables in the last state: `authority = ledger`."""
    return assignments(zip(system.variables, system.valuations[trace.last.valuation], strict=True))


# Traces


def trace_claim(spec: Spec, system: System, trace: Trace, violated: str | None) -> str:
    """What `trace` shows: `deadlock between enqueue and claim`, `violated never NAME`."""
    if violated is None:
        return "a schedule"
    if violated == NO_DEADLOCK:
        shown = explain(system, trace)
        return f"deadlock {between([shown.final[worker].transaction or '' for worker in members(system, shown)])}"
    if violated == NO_GLOBAL_STALL:
        return f"global stall with {how_many(trace.crew)}"
    if violated == NO_STALL:
        queued = explain(system, trace)
        return f"stall {queue_claim(queued, queued.stall)}" if queued.stall is not None else "stall"
    return f"violated {'always' if violated in spec.always else 'never'} {violated}"


def step_sentences(system: System, trace: Trace) -> list[str]:
    """Each transition as what its worker does: `starts claim (s=1)`, `takes lane[1] FOR UPDATE`."""
    return [step_sentence(system, action.edge) for action in trace.actions]


def step_sentence(system: System, edge: Edge) -> str:
    """What a worker does that takes `edge`: `takes lane[1] FOR UPDATE`."""
    label = edge.label
    if edge.requests and system.resources[edge.requests[0].resource].capacity:
        label = f"a unit of {label.replace(' TAKE', '', 1)}"
    match edge.action:
        case ActionKind.START:
            taken = [f"{system.resources[request.resource].name} {request.mode}" for request in edge.requests]
            return f"starts {edge.label}" + (f", takes {listed(taken)}" if taken else "")
        case ActionKind.ACQUIRE:
            return f"takes {label}"
        case ActionKind.REFUSE:
            ends = system.locations[edge.target].status is Status.ABORTED
            return f"does not get {label}, {'rolls back' if ends else 'goes on without'}"
        case ActionKind.TEST:
            return f"tests {label.removeprefix('if ')}"
        case ActionKind.SET:
            return f"sets {label.removeprefix('set ')}"
        case ActionKind.RELEASE:
            return label.replace("release ", "releases ", 1)
        case ActionKind.SAVEPOINT:
            return f"sets {label}"
        case ActionKind.ROLLBACK_TO:
            return label.replace("rollback", "rolls back", 1)
        case ActionKind.COMMIT:
            return "commits"
        case ActionKind.ROLLBACK:
            return "rolls back"
        case ActionKind.RECYCLE:
            return "is idle again"
    raise AssertionError(edge.action)


def replay_command(result: CheckResult) -> str:
    """The command that replays the trace on a real Postgres, quoted for a shell."""
    file = result.spec.source.file
    # `<stdin>` is no file, and `-x.yaml` would be an option.
    file = "-" if file == "<stdin>" else f"./{file}" if file.startswith("-") else file
    words = ["lockmodel", "replay", file, *arguments(result.overrides)]
    return shlex.join(words)
