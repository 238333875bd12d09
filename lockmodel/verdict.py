"""What a check came to, and whether that is what the spec expects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from lockmodel.compiler import Compilation
from lockmodel.deadlocks import Deadlocks
from lockmodel.expectations import DeadlockExpected, StallExpectation, StallExpected, ViolationExpected
from lockmodel.explanation import TraceView
from lockmodel.exploration import Exploration
from lockmodel.overrides import Overrides
from lockmodel.prover import Certificate
from lockmodel.prover.queues import QueueExamination
from lockmodel.spec import Spec
from lockmodel.system import NO_DEADLOCK, NO_GLOBAL_STALL, NO_STALL, System
from lockmodel.trace import Trace


class Outcome(StrEnum):
    HOLDS = "HOLDS"
    VIOLATED = "VIOLATED"
    UNDECIDED = "UNDECIDED"


@dataclass(frozen=True)
class Verdict:
    """The answer to "do all properties hold?".

    `scope` says for which workers a HOLDS is proved; `violated` names the property that does not hold; `reason` says why an UNDECIDED is one.
    """

    outcome: Outcome
    scope: str = ""
    violated: str | None = None
    reason: str = ""


@dataclass(frozen=True)
class Lifted:
    """That a spec is too large to compile, and its deadlock was found with smaller sets (`sizes`) and followed in the whole.

    `compilation` knows only the places on the way.
    """

    compilation: Compilation
    sizes: Mapping[str, int]


@dataclass(frozen=True)
class CheckResult:
    """Everything a report needs to know about the check of one spec."""

    spec: Spec
    overrides: Overrides
    system: System | None
    """None where a proof on the program answered, so that nothing was compiled."""
    verdict: Verdict
    unmet: str | None
    """Why this is not what the spec expects; None if it is, or if that is undecided."""
    explorations: tuple[Exploration, ...]
    certificate: Certificate | None
    trace: Trace | None
    view: TraceView | None
    seconds: float
    lifted: Lifted | None = None
    """Set if `system` is only a part of the compiled spec."""
    queues: QueueExamination | None = None
    """What is known of stalls for any number of workers; None if they were not asked for, or by then something else was found."""
    deadlocks: Deadlocks | None = None
    """All deadlocks; None if they were not asked for."""

    @property
    def compiled(self) -> System:
        """The compiled system, which every result with a trace has."""
        assert self.system is not None, "nothing was compiled"
        return self.system

    @property
    def exit_code(self) -> int:
        """0 as expected, 1 not, 3 undecided."""
        if self.verdict.outcome is Outcome.UNDECIDED:
            return 3
        return 0 if self.unmet is None else 1


def compare(spec: Spec, verdict: Verdict, trace: Trace | None, view: TraceView | None) -> str | None:
    """Why `verdict` is not what `spec` expects, or None."""
    if verdict.outcome is Outcome.UNDECIDED:
        return None
    expect = spec.expect
    found = describe(verdict)
    match expect:
        case "no deadlock":
            return None if verdict.outcome is Outcome.HOLDS else f"expected no deadlock, found: {found}"
        case "deadlock":
            return None if verdict.violated == NO_DEADLOCK else f"expected a deadlock, found: {found}"
        case "global stall":
            return None if verdict.violated == NO_GLOBAL_STALL else f"expected a global stall, found: {found}"
        case "stall":
            return None if verdict.violated == NO_STALL else f"expected a stall, found: {found}"
        case "convoy":
            return _other_stall(verdict, view, StallExpectation.model_validate({}), convoy=True)
        case StallExpected():
            return _other_stall(verdict, view, expect.shape, convoy=expect.convoy is not None)
        case ViolationExpected():
            if verdict.violated == expect.violated:
                return None
            return f"expected a violation of '{expect.violated}', found: {found}"
        case DeadlockExpected():
            if verdict.violated != NO_DEADLOCK or trace is None or view is None:
                return f"expected a deadlock, found: {found}"
            return _other_shape(expect, trace, view)
    raise AssertionError(expect)


def describe(verdict: Verdict) -> str:
    """The verdict in two or three words."""
    if verdict.outcome is Outcome.HOLDS:
        return "no violation"
    if verdict.violated == NO_DEADLOCK:
        return "a deadlock"
    if verdict.violated == NO_GLOBAL_STALL:
        return "a global stall"
    if verdict.violated == NO_STALL:
        return "a stall"
    return f"a violation of '{verdict.violated}'" if verdict.violated else "nothing decided"


def _other_shape(expect: DeadlockExpected, trace: Trace, view: TraceView) -> str | None:
    wanted = expect.deadlock
    found = view.cycle_transactions
    # `between: [send]` may stand for a cycle of two that both run `send`.
    if wanted.between is not None and sorted(wanted.between) not in (sorted(found), sorted(set(found))):
        return f"expected a deadlock between {_list(wanted.between)}, found one between {_list(found)}"
    waited = {wants.resource for worker in view.cycle if (wants := view.final[worker].wants)}
    families = {name.partition("[")[0] for name in waited}
    if wanted.on is not None and set(wanted.on) != families:
        return f"expected a deadlock on {_list(wanted.on)}, found one on {_list(sorted(families))}"
    if wanted.workers is not None and wanted.workers != len(view.cycle):
        return f"expected a deadlock of {wanted.workers} workers, found one of {len(view.cycle)}"
    if wanted.states is not None and wanted.states != len(trace):
        return f"expected a shortest trace of {wanted.states} states, found one of {len(trace)}"
    return None


def _other_stall(verdict: Verdict, view: TraceView | None, wanted: StallExpectation, *, convoy: bool) -> str | None:
    what = "a convoy" if convoy else "a stall"
    if verdict.violated != NO_STALL or view is None or view.stall is None:
        return f"expected {what}, found: {describe(verdict)}"
    stall = view.stall
    if convoy and not stall.convoy:
        return "expected a convoy, found a stall of one worker"
    holders = sorted({view.final[worker].transaction or "" for worker in stall.holders})
    if wanted.holder is not None and wanted.holder not in holders:
        return f"expected {what} behind what {wanted.holder} holds, found one behind {_list(holders)}"
    waiter = view.final[stall.waiter].transaction
    if wanted.waiter is not None and wanted.waiter != waiter:
        return f"expected {what} behind {wanted.waiter}, which waits; found one behind {waiter}"
    if wanted.delayed is not None and set(wanted.delayed) != set(stall.transactions):
        return f"expected {what} of {_list(wanted.delayed)}, found one of {_list(stall.transactions)}"
    if wanted.on is not None and wanted.on != stall.resource.partition("[")[0]:
        return f"expected {what} on {wanted.on}, found one on {stall.resource}"
    return None


def _list(names: Iterable[str]) -> str:
    words = list(names)
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
