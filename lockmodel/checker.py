"""`check`: from a spec to a verdict. It proves, looks for circles of waits and searches, and compares the outcome with what the spec expects.

- For any number of workers: first the proof on the program, which does not look at the sizes of the sets; if it answers all that the
  spec asks, nothing is compiled. Else the waits of the compiled system, which for transactions that only take locks decide. Else
  searches with few workers.
- For a fixed number, the search: its counts are part of the answer. It is left out where it would be hopeless and the proof answers, or
  where it may be long and a circle of waits is a deadlock of fewer workers.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from lockmodel.compiler import compile_program
from lockmodel.deadlocks import DeadlockGroup, Deadlocks, deadlocks, group_of
from lockmodel.engines import EngineOptions, search
from lockmodel.errors import LockmodelError, SpecError, TooLarge
from lockmodel.expectations import DeadlockExpected
from lockmodel.explanation import explain
from lockmodel.exploration import INTERRUPTED, Exploration, Limits, Progress
from lockmodel.lift import SIZES, lift, smaller
from lockmodel.overrides import Overrides, apply
from lockmodel.places import places_of
from lockmodel.program import Program
from lockmodel.prover import Certificate, Examination, examine, most_places, most_states, prove_program, surely_compiles
from lockmodel.prover.queues import QueueExamination, examine_queues
from lockmodel.resolver import resolve
from lockmodel.semantics import Crew, crew
from lockmodel.spec import Spec
from lockmodel.system import NO_DEADLOCK, NO_STALL, System
from lockmodel.trace import Trace
from lockmodel.verdict import CheckResult, Lifted, Outcome, Verdict, compare

ANY_COUNTS = (2, 3, 4)
"""The numbers of workers that a search tries where the spec says `any`."""
HOPELESS_STATES = 10**8
"""A search of more states than this is left out if a proof answers for any number of workers."""
LONG_STATES = 10**7
"""A search that may have more states (as an upper bound) is left out if some of the workers can already be brought into a deadlock."""
LIFTED_STATES = 100_000
"""Of a search with smaller sets, which is only an attempt."""
MANY_PLACES = 2_000
HOPELESS_PLACES = 10**7
"""With more places (as an upper bound) smaller sets are tried before the spec is compiled: many, where a search for counts would be long."""
ENDLESS_STATES = 10**10
"""A search of more is not begun by itself, where the spec says `any` and fewer workers have been searched; only within limits."""


def check(
    spec: Spec,
    overrides: Overrides | None = None,
    limits: Limits | None = None,
    *,
    engine: EngineOptions | None = None,
    progress: Callable[[Progress], None] | None = None,
    every: bool = False,
) -> CheckResult:
    """Decide whether all properties of `spec` hold.

    With `every`, all deadlocks are looked for, not only the shortest. An `engine` that is asked for by name searches even what is proved.
    Raises SpecError and UsageError for what is wrong with the spec or the overrides.
    """
    overrides = overrides or Overrides()
    options = engine or EngineOptions()
    return _Check(apply(spec, overrides), overrides, limits or Limits(), options, progress, every).run()


@dataclass(frozen=True)
class _Answer:
    """What a check found out."""

    verdict: Verdict
    system: System | None = None
    explorations: tuple[Exploration, ...] = ()
    certificate: Certificate | None = None
    trace: Trace | None = None
    queues: QueueExamination | None = None
    lifted: Lifted | None = None


class _Check:
    def __init__(
        self,
        spec: Spec,
        overrides: Overrides,
        limits: Limits,
        engine: EngineOptions,
        progress: Callable[[Progress], None] | None,
        every: bool,
    ) -> None:
        self.started = time.monotonic()
        self.spec = spec
        self.overrides = overrides
        self.limits = limits
        self.engine = engine
        self.progress = progress
        self.every = every

    def run(self) -> CheckResult:
        program = resolve(self.spec)
        open_number = any(role.count is None for role in program.roles)
        certificate = prove_program(program)
        if certificate is not None and self._needs_no_search(program, certificate, open_number):
            answer = _Answer(Verdict(Outcome.HOLDS, certificate.workers), certificate=certificate)
        else:
            answer = self._compiled(program, certificate, open_number)
        view = explain(answer.system, answer.trace) if answer.system is not None and answer.trace is not None else None
        unmet = compare(self.spec, answer.verdict, answer.trace, view)
        every = self._all_deadlocks(answer) if self.every else None
        if unmet is not None and every is not None and self._is_among(every, answer):
            unmet = None
        elif unmet is not None and every is None and _of_another_shape(self.spec, answer.verdict):
            unmet += " (--all compares it with every kind of deadlock)"
        return CheckResult(
            spec=self.spec,
            overrides=self.overrides,
            system=answer.system,
            verdict=answer.verdict,
            unmet=unmet,
            explorations=answer.explorations,
            certificate=answer.certificate,
            lifted=answer.lifted,
            queues=answer.queues if self.spec.no_stall else None,
            trace=answer.trace,
            view=view,
            seconds=time.monotonic() - self.started,
            deadlocks=every,
        )

    def _is_among(self, found: Deadlocks, answer: _Answer) -> bool:
        """Whether the deadlock that the spec expects is one of those found, though not the shortest."""
        if answer.verdict.violated != NO_DEADLOCK or answer.system is None:
            return False
        traces = [group.trace for group in found.groups]
        return any(compare(self.spec, answer.verdict, trace, explain(answer.system, trace)) is None for trace in traces)

    def _needs_no_search(self, program: Program, certificate: Certificate, open_number: bool) -> bool:
        """Whether the proof on the program is all that is needed, so that nothing is compiled."""
        if not _settles(certificate, self.spec) or not surely_compiles(program) or self.engine != EngineOptions():
            return False
        return open_number or most_states(program, 1) > HOPELESS_STATES

    def _compiled(self, program: Program, certificate: Certificate | None, open_number: bool) -> _Answer:
        long = open_number or most_states(program, 1) > LONG_STATES
        many = most_places(program) > (MANY_PLACES if long else HOPELESS_PLACES)
        if certificate is None and many and not self.every and self._only_deadlocks():
            found = self._lifted(program)
            if found is not None and self._will_do(found):
                return found
        try:
            system = compile_program(program)
        except SpecError as error:
            if certificate is None and isinstance(error, TooLarge) and (found := self._lifted(program)) is not None:
                return found
            if certificate is None or not surely_compiles(program) or self.engine != EngineOptions():
                raise
            # Nothing is wrong with the spec but its size, and the answer is known, or a part of it.
            if _settles(certificate, self.spec):
                return _Answer(Verdict(Outcome.HOLDS, certificate.workers), certificate=certificate)
            reason = f"no deadlock is possible, but the rest can't be searched: {error}"
            return _Answer(Verdict(Outcome.UNDECIDED, reason=reason), certificate=certificate)
        return self._open(system, certificate) if open_number else self._fixed(system, certificate)

    def _lifted(self, program: Program) -> _Answer | None:
        """A deadlock that is found with smaller sets and comes about with the sets as they are."""
        if self.engine != EngineOptions():
            return None  # An engine asked for by name searches, or says why it can't.
        for size in SIZES:
            overrides = smaller(self.spec, program, size)
            if overrides is None:
                return None
            few = min(self.limits.max_states or LIFTED_STATES, LIFTED_STATES)
            limits = replace(self.limits, max_states=few, spent_seconds=self._spent())
            try:
                found = check(self.spec, overrides, limits, engine=self.engine, progress=self.progress)
            except LockmodelError:
                return None  # An element that is named in the spec is not there any more.
            if found.trace is None or found.verdict.violated != NO_DEADLOCK:
                continue
            if (lifted := lift(program, found.compiled, found.trace)) is not None:
                compilation, trace = lifted
                sizes = dict.fromkeys(overrides.sets, size)
                return replace(_deadlock(compilation.system, trace, ()), lifted=Lifted(compilation, sizes))
        return None

    def _open(self, system: System, certificate: Certificate | None) -> _Answer:
        """The answer for any number of workers."""
        examined = Examination(certificate) if certificate is not None else examine(system)
        certificate = examined.certificate
        # A step that may have no meaning is an error only where it is reached, which a search finds out.
        asked = self.engine != EngineOptions() or _may_fail(system)
        queues = examine_queues(system) if self.spec.no_stall else QueueExamination(proved=True)
        settled = certificate is not None and _settles(certificate, self.spec, queues)
        if certificate is not None and settled and not asked:
            return _Answer(Verdict(Outcome.HOLDS, certificate.workers), system, (), certificate, queues=queues)
        if certificate is not None and queues.trace is not None and not _has_formulas(self.spec) and not asked:
            return _stall(system, queues, certificate)
        if examined.trace is not None and examined.straight and not _has_formulas(self.spec) and not asked:
            return _deadlock(system, examined.trace, ())
        explorations: list[Exploration] = []
        endless = None
        for count in ANY_COUNTS:
            workers = crew(system, count)
            if explorations and self._is_endless(system, workers):
                endless = workers
                break
            explorations.append(self._search(system, workers))
            latest = explorations[-1]
            if latest.violation or not latest.complete or settled:
                break
        if latest.violation is not None:
            return _violation(system, tuple(explorations), certificate)
        if examined.trace is not None:
            return _deadlock(system, examined.trace, tuple(explorations))
        if certificate is not None and settled:
            verdict = Verdict(Outcome.HOLDS, certificate.workers)
        else:
            why = examined.reason or queues.reason
            verdict = Verdict(Outcome.UNDECIDED, reason=_open_reason(explorations, why, endless))
        return _Answer(verdict, system, tuple(explorations), certificate, queues=queues)

    def _is_endless(self, system: System, workers: Crew) -> bool:
        bounded = self.limits.max_states is not None or self.limits.timeout_seconds is not None
        return not bounded and _combinations(system, workers) > ENDLESS_STATES

    def _fixed(self, system: System, certificate: Certificate | None) -> _Answer:
        """The answer for the number of workers that the spec has."""
        workers = crew(system, 1)
        asked = self.engine != EngineOptions() or _may_fail(system) or not self._only_deadlocks()
        if certificate is None and not asked and _combinations(system, workers) > LONG_STATES:
            circle = examine(system).trace
            if circle is not None and self._will_do(without := _deadlock(system, circle, ())):
                return without
        found = self._search(system, workers)
        if found.violation is not None:
            return _violation(system, (found,), certificate)
        # A proof for more workers, or a circle of waits that the search did not come to.
        interrupted = found.stopped == INTERRUPTED
        examined = Examination(certificate) if certificate is not None or interrupted else examine(system)
        proof = examined.certificate
        queues = examine_queues(system) if self.spec.no_stall else QueueExamination(proved=True)
        settled = proof is not None and _settles(proof, self.spec, queues)
        if proof is not None and settled and not (found.complete and proof.single_roles):
            verdict = Verdict(Outcome.HOLDS, proof.workers)
        elif found.complete:
            verdict = Verdict(Outcome.HOLDS, how_many(found.crew))
        elif examined.trace is not None:
            return _deadlock(system, examined.trace, (found,))
        else:
            verdict = Verdict(Outcome.UNDECIDED, reason=_stopped(found))
        return _Answer(verdict, system, (found,), proof, queues=queues)

    def _spent(self) -> float:
        """Seconds of the time limit."""
        return self.limits.spent_seconds + time.monotonic() - self.started

    def _only_deadlocks(self) -> bool:
        """Whether nothing else is asked for, of which there may be a violation with a shorter trace."""
        return not (_has_formulas(self.spec) or self.spec.no_stall or self.spec.no_global_stall)

    def _will_do(self, found: _Answer) -> bool:
        """Whether a deadlock that was found without a search is enough: it may be another one than the spec expects, or not the shortest."""
        if not _of_another_shape(self.spec, found.verdict):
            return True
        assert found.system is not None and found.trace is not None
        return compare(self.spec, found.verdict, found.trace, explain(found.system, found.trace)) is None

    def _search(self, system: System, workers: Crew) -> Exploration:
        left = replace(self.limits, spent_seconds=self._spent())
        return search(system, workers, left, options=self.engine, progress=self.progress)

    def _all_deadlocks(self, answer: _Answer) -> Deadlocks:
        own: tuple[DeadlockGroup, ...] = ()
        if answer.verdict.violated == NO_DEADLOCK and answer.system is not None and answer.trace is not None:
            own = (group_of(answer.system, answer.trace),)
        if answer.lifted is not None:
            return Deadlocks(own, "the spec is too large to search")
        if answer.certificate is not None or answer.system is None:
            return Deadlocks()
        found = deadlocks(answer.system, replace(self.limits, spent_seconds=self._spent()))
        return found if found.groups else replace(found, groups=own)


def _settles(certificate: Certificate, spec: Spec, queues: QueueExamination | None = None) -> bool:
    """Whether a certificate, and what is known of the queues, answer all that the spec asks."""
    if spec.no_stall and (queues is None or not queues.proved):
        return False
    return not _has_formulas(spec) and (certificate.covers_stall or not spec.no_global_stall)


def _has_formulas(spec: Spec) -> bool:
    return bool(spec.never or spec.always)


def _combinations(system: System, workers: Crew) -> int:
    """Of the values of the variables and everybody's places: no search has more states."""
    return len(system.valuations) * math.prod(map(len, places_of(system, workers)))


def _may_fail(system: System) -> bool:
    return any(edge.faults for location in system.locations for edge in location.edges)


def _of_another_shape(spec: Spec, verdict: Verdict) -> bool:
    """Whether a deadlock was expected and found, though perhaps not the same."""
    return isinstance(spec.expect, DeadlockExpected) and verdict.violated == NO_DEADLOCK


def _violation(system: System, explorations: tuple[Exploration, ...], certificate: Certificate | None) -> _Answer:
    latest = explorations[-1]
    assert latest.violation is not None
    assert certificate is None or latest.violation.property != NO_DEADLOCK, (
        "a deadlock was found that the proof excludes"
    )
    verdict = Verdict(Outcome.VIOLATED, how_many(latest.crew), latest.violation.property)
    return _Answer(verdict, system, explorations, certificate, latest.violation.trace)


def _deadlock(system: System, trace: Trace, explorations: tuple[Exploration, ...]) -> _Answer:
    verdict = Verdict(Outcome.VIOLATED, how_many(trace.crew), NO_DEADLOCK)
    return _Answer(verdict, system, explorations, None, trace)


def _stall(system: System, queues: QueueExamination, certificate: Certificate) -> _Answer:
    assert queues.trace is not None
    verdict = Verdict(Outcome.VIOLATED, how_many(queues.trace.crew), NO_STALL)
    return _Answer(verdict, system, (), certificate, queues.trace, queues)


def _open_reason(explorations: list[Exploration], why_open: str, endless: Crew | None) -> str:
    """Why it is not known for any number of workers."""
    latest = explorations[-1]
    covered = [exploration for exploration in explorations if exploration.complete]
    if not latest.complete:
        return _stopped(latest) + (f"; holds for {how_many(covered[-1].crew)}" if covered else "")
    why = f": {why_open}" if why_open else ""
    more = f" ({how_many(endless)} may have too many states: give a --timeout to search them)" if endless else ""
    return f"holds for up to {how_many(latest.crew)}{more}, but is not proved for any number{why}"


def _stopped(exploration: Exploration) -> str:
    if exploration.stopped == INTERRUPTED:
        return f"interrupted while searching {how_many(exploration.crew)}"
    return f"{exploration.stopped} with {how_many(exploration.crew)}"


def how_many(workers: Crew) -> str:
    """`2 workers`, or with roles `1 producer and 3 consumers`-like counts: `producer 1, consumer 3`."""
    roles = list(dict.fromkeys(workers.roles))
    if roles == ["worker"]:
        return f"{len(workers)} worker" + ("s" if len(workers) != 1 else "")
    return ", ".join(f"{workers.roles.count(role)} {role}" for role in roles)
