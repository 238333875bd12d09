"""The verdict in sentences: what was found, between whom, why nobody can go on, why none can be found. Plain text, no layout."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Sequence

from lockmodel.checker import how_many
from lockmodel.deadlocks import DeadlockGroup, Deadlocks
from lockmodel.explanation import Ends, Lock, StallView, TraceView, WorkerView, explain
from lockmodel.exploration import INTERRUPTED, Exploration
from lockmodel.overrides import arguments
from lockmodel.prover import Certificate, Harmless, OutOfOrder
from lockmodel.prover.order import Group, Order
from lockmodel.semantics import Crew
from lockmodel.spec import Spec
from lockmodel.system import NO_DEADLOCK, NO_GLOBAL_STALL, NO_STALL, ActionKind, Edge, Status, System
from lockmodel.trace import Trace
from lockmodel.verdict import CheckResult, Outcome

_SHOWN = 4
"""How many names a list shows before it says `and 9 more`."""
_REASONS = 6
"""How many reasons a certificate gives in words."""


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
    proved_, left = [NO_DEADLOCK], [f"never {name}" for name in spec.never] + [f"always {name}" for name in spec.always]
    if spec.no_global_stall:
        (proved_ if certificate.covers_stall else left).append(NO_GLOBAL_STALL)
    if spec.no_stall:
        (proved_ if result.queues is not None and result.queues.proved else left).append(NO_STALL)
    verb = "is" if len(proved_) == 1 else "are"
    return f"{listed(left)}: {result.verdict.reason} ({listed(proved_)} {verb} proved)"


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


def _all_properties(result: CheckResult) -> str:
    spec = result.spec
    names = [NO_DEADLOCK] + [NO_GLOBAL_STALL] * spec.no_global_stall + [NO_STALL] * spec.no_stall
    names += [f"never {name}" for name in spec.never] + [f"always {name}" for name in spec.always]
    return listed(names) if len(names) <= _SHOWN else f"all {len(names)} properties"


# Why nobody can go on


def standstill(system: System, view: TraceView, violated: str) -> str | None:
    """Why the workers in the last state of `view` don't go on; None if a formula is violated, and they may."""
    if violated == NO_DEADLOCK:
        return cycle_sentences(system, view)
    if violated == NO_GLOBAL_STALL:
        return stall_sentences(system, view)
    return queue_sentences(system, view) if violated == NO_STALL else None


def queue_claim(view: TraceView, stall: StallView) -> str:
    """`of query behind migrate`."""
    return f"of {listed(stall.transactions)} behind {view.final[stall.waiter].transaction}, on {stall.resource}"


def queue_sentences(system: System, view: TraceView) -> str:
    """Who is held up behind whom, how many can be, and what ends it."""
    stall = view.stall
    assert stall is not None
    waiter = view.final[stall.waiter]
    assert waiter.wants is not None
    lines = [f"{_who(waiter)} {waits(system, view, waiter)}."]
    for worker in (view.final[number] for number in stall.delayed):
        assert worker.wants is not None
        lines.append(
            f"{_who(worker)} asks for {worker.wants}, which nobody's locks forbid, but comes later and waits behind {waiter.name}."
        )
    if stall.convoy:
        number = "any number of workers" if stall.most is None else f"up to {plural(stall.most, 'worker')}"
        lines.append(f"{number[0].upper()}{number[1:]} in {listed(stall.transactions)} can pile up there.")
    holders = listed(_who(view.final[worker]) for worker in stall.holders)
    if stall.ends is Ends.REARRANGED:
        lines.append("After deadlock_timeout Postgres lets past who is held up: the holder waits for one of them.")
    else:
        verb = "ends" if len(stall.holders) == 1 else "end"
        lines.append(
            f"It ends when {holders} {verb}, or with a lock_timeout in {waiter.transaction}; Postgres reports nothing."
        )
    return " ".join(lines)


def members(system: System, view: TraceView) -> tuple[int, ...]:
    """The workers of the deadlock: those of the cycle, and where it waits for a pool all who hold its units for ever."""
    found = list(view.cycle)
    for worker in found:
        wants = view.final[worker].wants
        if wants and _capacity(system, wants):
            stuck = [b.worker for b in view.final[worker].blockers if view.final[b.worker].stuck]
            found.extend(other for other in stuck if other not in found)
    return tuple(found)


def _capacity(system: System, lock: Lock) -> int | None:
    return next((resource.capacity for resource in system.resources if resource.name == lock.resource), None)


def cycle_sentences(system: System, view: TraceView) -> str:
    """Who holds what and waits for whom, round the cycle."""
    workers = [view.final[worker] for worker in members(system, view)]
    if not workers:
        return ""
    pools = [worker for worker in workers if worker.wants and _capacity(system, worker.wants)]
    lines = [_pool_members(system, view, workers, pools)] if pools else [_round(workers)]
    # Who has a pool's units is said once, whoever waits for it.
    lines += [_shares(system, view, one) for one in {w.wants.resource: w for w in pools if w.wants}.values()]
    ends = {1: "It can never go on.", 2: "Neither can go on."}
    return " ".join([*lines, ends.get(len(workers), f"None of the {len(workers)} can go on.")])


def _pool_members(system: System, view: TraceView, workers: Sequence[WorkerView], pools: Sequence[WorkerView]) -> str:
    """What each waits for, those who hold a pool's units left to `_shares`."""
    said = [f"waits for {_wanted(system, w)}" if w in pools else waits(system, view, w) for w in workers[:_SHOWN]]
    clauses = [f"{_who(worker)} {what}" for worker, what in zip(workers, said, strict=False)]
    if len(workers) > _SHOWN:
        clauses.append(f"{len(workers) - _SHOWN} more wait likewise")
    return "; ".join(clauses) + "."


def _round(workers: Sequence[WorkerView]) -> str:
    """Each worker waits for the next, the last for the first."""
    if len(workers) > _SHOWN:
        chain = " → ".join([*map(_who, workers), workers[0].name])
        return f"Each waits for the next: {chain}."
    wants = [worker.wants for worker in workers if worker.wants]
    # `kept[i]`: what worker i + 1 has that worker i waits for.
    kept = [
        next(blocker.locks[0] for blocker in worker.blockers if blocker.worker == following.worker)
        for worker, following in zip(workers, [*workers[1:], workers[0]], strict=True)
    ]
    # Where all modes are the same one, saying it again and again hides the rest.
    modes = len({lock.mode for lock in (*wants, *kept)}) > 1
    clauses = []
    for index, worker in enumerate(workers):
        wanted = str(wants[index]) if modes else wants[index].resource
        mode = f" {kept[index].mode}" if modes else ""
        if index == 0:
            first = str(kept[-1]) if modes else kept[-1].resource
            clause = f"{_who(worker)} holds {first} and waits for {wanted}"
        else:
            clause = f"{worker.name} waits for {wanted}"
        if index < len(workers) - 1:
            clause += f", which {_who(workers[index + 1])} holds{mode}"
        clauses.append(clause)
    return "; ".join(clauses) + "."


def waits(system: System, view: TraceView, worker: WorkerView) -> str:
    """`waits for lane[1] FOR UPDATE, held by worker 2`; empty if `worker` does not wait."""
    if worker.wants is None:
        return ""
    if worker.behind:
        ahead = [f"{view.workers[one.worker]} ({one.locks[0].mode})" for one in worker.behind]
        return f"waits for {worker.wants}, behind {listed(ahead)}"
    holders = []
    for blocker in worker.blockers:
        modes = listed(dict.fromkeys(lock.mode for lock in blocker.locks if lock.mode != worker.wants.mode))
        holders.append(view.workers[blocker.worker] + (f" ({modes})" if modes else ""))
    return f"waits for {_wanted(system, worker)}, held by {listed(holders)}"


def _wanted(system: System, worker: WorkerView) -> str:
    """`lane[1] FOR UPDATE`, or of a pool `one more unit of connections`."""
    assert worker.wants is not None
    if not _capacity(system, worker.wants):
        return str(worker.wants)
    return f"{'one more unit' if worker.wants in worker.holds else 'a unit'} of {worker.wants.resource}"


def _shares(system: System, view: TraceView, worker: WorkerView) -> str:
    """Who has the units of the pool that `worker` waits for: `Of 2 units of conn, worker 1 has 1 and worker 2 has 1.`"""
    assert worker.wants is not None
    had = [f"{view.workers[blocker.worker]} has {len(blocker.locks)}" for blocker in worker.blockers]
    units = plural(_capacity(system, worker.wants) or 0, "unit")
    return f"Of {units} of {worker.wants.resource}, {listed(had)}."


def stall_sentences(system: System, view: TraceView) -> str:
    """Who waits for whom where every running worker waits."""
    waiting = [worker for worker in view.final if worker.wants]
    clauses = [f"{_who(worker)} {waits(system, view, worker)}" for worker in waiting]
    rest = sorted({b.worker for w in waiting for b in w.blockers if view.final[b.worker].status is not Status.RUNNING})
    notes = [f"{view.workers[worker]} is {view.final[worker].status} and keeps its lock" for worker in rest]
    return f"Every running worker waits: {'; '.join([*clauses, *notes])}."


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


def assignments(values: Iterable[tuple[str, object]]) -> str:
    return ", ".join(f"{name} = {str(value).lower() if isinstance(value, bool) else value}" for name, value in values)


def _who(worker: WorkerView) -> str:
    return f"{worker.name} ({worker.transaction or worker.status})"


# The steps of a trace


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


def holdings(system: System, worker: WorkerView) -> str:
    """What `worker` holds: `lane[0] FOR UPDATE, 2 units of connections`."""
    words = []
    for lock, count in Counter(worker.holds).items():
        words.append(f"{_units(count)} of {lock.resource}" if _capacity(system, lock) else str(lock))
    return ", ".join(words)


def _units(count: int) -> str:
    return "a unit" if count == 1 else f"{count} units"


# How it is known


def searched(exploration: Exploration) -> str:
    """One search: with how many workers, what it saw, whether that is all."""
    counts = (
        f"{plural(exploration.states, 'state')}, {plural(exploration.transitions, 'transition')}, "
        f"depth {exploration.depth}, {exploration.seconds:.2f} s"
    )
    end = "complete" if exploration.complete else exploration.stopped
    engine = ", ".join([f"{exploration.engine} engine", *(f"reduced by {word}" for word in exploration.reductions)])
    note = f" {sentence(exploration.note)}" if exploration.note else ""
    return f"Searched {_crew(exploration.crew)}: {counts}; {end} ({engine}).{note}"


def _crew(workers: Crew) -> str:
    """`2 workers`; with a few roles, `3 workers (1 producer, 2 consumer)`."""
    roles = set(workers.roles)
    return plural(len(workers), "worker") + (f" ({how_many(workers)})" if 1 < len(roles) <= _SHOWN else "")


def no_queue(requests: int) -> str:
    """That nobody is held up by a queue alone."""
    what = (
        f"of the {plural(requests, 'way')} to stand in a lock's queue"
        if requests
        else "nobody stands in a lock's queue"
    )
    if not requests:
        return f"No stall with any number of workers is proved: {what}."
    return f"No stall with any number of workers is proved: {what}, none is behind one that waits without end and free of what that one waits for."


def _excluded(certificate: Certificate) -> list[str]:
    """What keeps apart those who look as if they could wait in a circle, one reason a line."""
    if not certificate.refuted:
        return []
    lines = ["What looks like a circle can't come about:"]
    for one in certificate.refuted[:_SHOWN]:
        who = listed(one.transactions) if len(one.transactions) > 1 else f"two workers in {one.transactions[0]}"
        lines.append(f"- {one.lock} keeps {who} apart, who hold it in conflicting modes ({plural(one.cases, 'case')}).")
    if len(certificate.refuted) > _SHOWN:
        lines.append(f"- {plural(len(certificate.refuted) - _SHOWN, 'more reason')}, which the JSON report has.")
    return lines


def proved(certificate: Certificate, sets: bool = True) -> list[str]:
    """Why no number of workers can deadlock, one paragraph an entry; `sets`: whether the spec has any."""
    claim = f"No deadlock with {certificate.workers} is proved{_sizes(certificate) if sets else ''}:"
    if not certificate.requests:
        return [f"{claim} nobody ever waits for a lock while holding another one."]
    if certificate.order is None:
        situations = plural(certificate.requests, "way")
        said = (
            f"{claim} there is no single lock order, but of the {situations} to wait for a lock while holding others, "
            f"each can wait only for certain others ({plural(certificate.waits, 'pair')}), and never in a circle."
        )
        return [said, *_excluded(certificate)]
    if not certificate.order.groups:
        return [f"{claim} nobody waits for a lock of somebody who waits."]
    order = order_words(certificate.order)
    if certificate.relevant_only:
        order += " (requests that never wait, and locks that nobody waits for, are left out)"
    if not certificate.out_of_order:
        return [f"{claim} whoever waits for a lock holds only earlier ones in one order, {order}."]
    lines = [
        f"{claim} whoever waits for a lock holds only earlier ones in the order {order}, but for some waits that close no circle:"
    ]
    waits: dict[tuple[str, str], list[str]] = {}
    for one in certificate.out_of_order:
        verb = "waits" if len(one.transactions) == 1 else "wait"
        who = f"{listed(one.transactions)} {verb} with {one.held} held"
        waits.setdefault((_harmless(one), who), []).append(one.wanted)
    reasons: dict[str, list[str]] = {}
    for (why, who), wanted in waits.items():
        reasons.setdefault(why, []).append(f"{who} for {listed(wanted)}")
    shown = sorted(reasons.items(), key=lambda item: -len(item[1]))
    lines += [f"- {'; '.join(told)}: {why}." for why, told in shown[:_REASONS]]
    rest = sum(len(told) for _, told in shown[_REASONS:])
    return [*lines, *([f"- {rest} more, which the JSON report has."] if rest else [])]


def _sizes(certificate: Certificate) -> str:
    """For which sizes of the sets."""
    if not certificate.every_size:
        return ", for the sets as they are"
    if certificate.as_declared:
        return f", for sets of any size but {listed(certificate.as_declared)}, which must be as declared"
    return ", for sets of any size"


def order_words(order: Order) -> str:
    """`lane (ascending) < ready < claims`; families that a loop takes in turn, `(for each slot, ascending: ready < done)`."""
    return " < ".join(map(_group_words, order.groups))


def _group_words(group: Group) -> str:
    if group.index is None:
        return listed(group.families)
    directions = {str(visit) for _, visit in group.index.visits}
    words = directions.pop() if len(directions) == 1 else ""
    if not group.index.visits:
        pairs = [f"{before.value} before {after.value}" for before, after in sorted(group.index.steps, key=str)]
        words = listed(pairs)
    words = words or "in one order"
    if len(group.families) > 1:
        inner = f": {order_words(group.inner)}" if group.inner is not None else f": {listed(group.families)}"
        return f"(by {group.index.of}, {words}{inner})"
    then = ""
    if group.inner is not None:
        indices = [f"{index.of} {next(iter({str(v) for _, v in index.visits}), '')}" for index in group.inner.indices()]
        then = f", then by {', '.join(text.strip() for text in indices)}"
    by = f"by {group.index.of} " if then else ""
    return f"{group.families[0]} ({by}{words}{then})"


def _harmless(one: OutOfOrder) -> str:
    """Why waiting out of order closes no circle."""
    match one.why:
        case Harmless.WAITERS_HOLD_NOTHING:
            return "whoever waits for the lock held holds nothing"
        case Harmless.BLOCKERS_GO_ON:
            return "whoever is in the way waits for nothing more"
        case Harmless.KEPT_APART:
            return f"whoever could be in the way is kept away by {listed(one.names)}, held by both"
        case Harmless.NO_WAY_BACK:
            verb = "waits" if len(one.names) == 1 else "wait"
            return f"only {listed(one.names)} {verb} for the lock held, and no chain of waits leads from there back"


def by_circle(result: CheckResult) -> str:
    """How a deadlock was found that no search came to; empty for what a search found, or nobody."""
    searched_ = any(exploration.violation for exploration in result.explorations)
    if searched_ or result.view is None or result.verdict.violated != NO_DEADLOCK:
        return ""
    if result.lifted is not None:
        sizes = listed(f"{name} of {size}" for name, size in result.lifted.sizes.items())
        return f"The spec is large: the deadlock was found with a smaller {sizes}, and then followed step by step in the whole."
    if result.explorations:
        return "Found as a circle of waits, which the search did not come to."
    circle = len(result.view.cycle)
    counts = [role.count for role in result.compiled.roles]
    fixed = 0 if None in counts else sum(count or 0 for count in counts)
    members = f"{circle} of the {fixed} workers" if fixed > circle else plural(circle, "worker")
    return f"Found without a search: the shortest circle of waits, with {members}, which run one after another."


def all_deadlocks(found: Deadlocks) -> str:
    """How many kinds of deadlocks there are, and whether these are all."""
    kinds = f"{plural(len(found.groups), 'kind')} of deadlock" if found.groups else "No deadlock"
    return f"{kinds} found; there may be more: {found.incomplete}." if found.incomplete else f"{kinds} in all."


def group_title(number: int, group: DeadlockGroup) -> str:
    """`1. between enqueue and claim, on lane: 2 workers, in 4 ways`."""
    who = between(group.transactions)
    return f"{number}. {who}, on {listed(group.families)} ({plural(group.ways, 'way')}; {plural(len(group.trace), 'state')})"


def advice(result: CheckResult) -> str:
    """How to decide what is undecided; empty for what is decided."""
    if result.verdict.outcome is not Outcome.UNDECIDED:
        return ""
    if all(exploration.complete for exploration in result.explorations):
        return "With --workers N it is decided for N workers."
    interrupted = any(exploration.stopped == INTERRUPTED for exploration in result.explorations)
    return "" if interrupted else "With a larger --max-states, --timeout or --memory the search goes on."


def replay_command(result: CheckResult) -> str:
    """The command that replays the trace on a real Postgres, quoted for a shell."""
    file = result.spec.source.file
    # `<stdin>` is no file, and `-x.yaml` would be an option.
    file = "-" if file == "<stdin>" else f"./{file}" if file.startswith("-") else file
    words = ["lockmodel", "replay", file, *arguments(result.overrides)]
    return shlex.join(words)


# Small words


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def listed(names: Iterable[str]) -> str:
    """`a, b and c`; what is too many to read, `a, b, c, d and 9 more`."""
    words = list(names)
    if len(words) > _SHOWN + 1:
        words = [*words[:_SHOWN], f"{len(words) - _SHOWN} more"]
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def sentence(words: str) -> str:
    """`words` with a capital and a full stop."""
    return words[:1].upper() + words[1:] + ("" if words.endswith((".", "!", "?")) else ".")
