"""Schedules as a test for PostgreSQL's own isolationtester: sessions, their steps, and each schedule as a permutation.

The statements are those of a replay, in the same order. A step that the model says waits has no mark that would make isolationtester
say so: where it prints `<waiting ...>`, Postgres really made the step wait. See src/test/isolation/README in PostgreSQL's sources.
`isolation_text` writes the file.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from lockmodel.compiler import Compilation
from lockmodel.errors import UsageError
from lockmodel.replay.patience import VICTIM_TIMEOUT_MS
from lockmodel.replay.schedules import random_schedule, schedule_seeds
from lockmodel.replay.script import Command, NotRealizable, Outcome, Script, from_trace
from lockmodel.replay.statements import SchemaSql, Statements, schema_of
from lockmodel.resolver import resolve
from lockmodel.semantics import crew
from lockmodel.spec import Spec
from lockmodel.trace import Trace

DEFAULT_WORKERS = 3
"""How many workers a random schedule has where the spec says any, as in a replay."""


@dataclass(frozen=True)
class Step:
    """A statement of worker `worker`. `text` says what it is in the model's words; `command` is the first that it carries out."""

    name: str
    worker: int
    sql: str
    text: str
    command: Command | None = None


@dataclass(frozen=True)
class Planned:
    """One place in a permutation: a step, what must come of it, and that in words.

    `after`: the step before whose end this one, which waits, is not to be reported as completed; the two end at the same moment.
    """

    step: Step
    outcome: Outcome
    text: str
    after: Step | None = None


@dataclass(frozen=True)
class Permutation:
    """A schedule, with the steps that end it. `closing`: the step that closes a circle of waits, and gets the deadlock."""

    planned: tuple[Planned, ...]
    closing: Step | None = None


@dataclass(frozen=True)
class IsolationTest:
    """A whole test; `setup` is the SQL that fills its schema before each permutation.

    `own_sql_for`: the resources whose statements are lockmodel's own, since the spec gives none.
    """

    workers: tuple[str, ...]
    steps: tuple[Step, ...]
    permutations: tuple[Permutation, ...]
    setup: tuple[SchemaSql, ...]
    own_sql_for: tuple[str, ...]


def isolation_of_trace(spec: Spec, trace: Trace, compilation: Compilation | None = None) -> IsolationTest:
    """The test that runs `trace`, a trace of `spec` (overrides applied); `compilation` is that of the trace, where the spec is too large.

    Raises UsageError for a trace that can't be run by whole statements, ReplayError where a step has no SQL.
    """
    compilation, statements = _statements(spec, compilation)
    try:
        script = from_trace(compilation, statements, trace)
    except NotRealizable as error:
        raise UsageError(
            f"{spec.source.file}: the trace can't be followed by sending whole statements: {error}"
        ) from None
    return _test([script], compilation, statements)


def isolation_of_schedules(spec: Spec, count: int, seed: int) -> IsolationTest:
    """The test that runs `count` random schedules of `spec` (overrides applied), those that `replay --seed` runs, too.

    Raises ReplayError where a step has no SQL.
    """
    compilation, statements = _statements(spec)
    workers = crew(compilation.system, DEFAULT_WORKERS)
    scripts = [random_schedule(compilation, statements, workers, one) for one in schedule_seeds(seed, count)]
    return _test(scripts, compilation, statements)


def _statements(spec: Spec, compilation: Compilation | None = None) -> tuple[Compilation, Statements]:
    compilation = Compilation(resolve(spec)) if compilation is None else compilation
    # Advisory keys are shared by the whole database: those of different specs should differ, those of one spec stay.
    advisory_class = zlib.crc32(spec.name.encode("utf-8", "surrogatepass")) >> 1
    return compilation, Statements(compilation.program, compilation.system.resources, schema_of(spec), advisory_class)


def _test(scripts: Sequence[Script], compilation: Compilation, statements: Statements) -> IsolationTest:
    scripts = [script for script in scripts if script.commands]
    file = compilation.program.position.file
    if not scripts:
        raise UsageError(f"{file}: the trace has no statement, so there is nothing for isolationtester to run")
    if any(command.pooled is not None for script in scripts for command in script.commands):
        raise UsageError(f"{file}: isolationtester can't take connections from a pool; lockmodel replay can")
    plan = _Plan(scripts[0].workers, session_locks=any(one.session for one in compilation.system.resources))
    permutations = tuple(plan.permutation(script) for script in scripts)
    own = tuple(sorted(statements.synthetic))
    return IsolationTest(plan.workers, tuple(plan.steps.values()), permutations, tuple(statements.setup()), own)


class _Plan:
    """Turns scripts into permutations, and collects the steps that they need."""

    def __init__(self, workers: tuple[str, ...], *, session_locks: bool) -> None:
        self.workers = workers
        self.session_locks = session_locks
        self.steps: dict[tuple[int, str], Step] = {}

    def permutation(self, script: Script) -> Permutation:
        planned: list[Planned] = []
        for number, command in enumerate(script.commands, start=1):
            if script.cycle and number == len(script.commands):
                setting = f"SET deadlock_timeout = '{VICTIM_TIMEOUT_MS:g}ms'"
                planned.append(self._own(command.worker, setting, "is the one to find the deadlock"))
            planned += self._carried_out(command, script)
        closing = planned[-1].step if script.cycle else None
        if closing is not None:
            freed = {w for w in script.cycle if _in_the_way(script)[w] & {script.workers[closing.worker]}}
            planned = [
                replace(one, after=closing) if one.outcome is Outcome.WAITS and one.step.worker in freed else one
                for one in planned
            ]
        return Permutation((*planned, *self._ending(script)), closing)

    def _carried_out(self, command: Command, script: Script) -> Iterator[Planned]:
        """The step that sends `command`; one that times out with those that see to it that it has when the next step is taken."""
        planned = Planned(self._step(command), command.outcome, _words(command, script))
        if command.outcome is not Outcome.TIMES_OUT:
            yield planned
        elif command.in_block:
            yield planned
            # A session takes no step before its last one has come back. This one does nothing, also in a transaction that has failed.
            yield self._own(command.worker, "-- after the lock_timeout", "has waited until the lock_timeout")
        else:
            setting = f"SET lock_timeout = '{command.timeout_ms:g}ms'"
            yield self._own(command.worker, setting, "waits no longer than that")
            yield planned
            yield self._own(command.worker, "SET lock_timeout = 0", "has waited until the lock_timeout")

    def _step(self, command: Command) -> Step:
        """The step of the worker that sends this SQL: the one it has, or a new one, named as Postgres's own tests name theirs."""
        key = (command.worker, command.sql)
        if key not in self.steps:
            number = sum(worker == command.worker for worker, _ in self.steps)
            name = f"s{command.worker + 1}{_letters(number)}"
            self.steps[key] = Step(name, command.worker, command.sql, command.text, command)
        return self.steps[key]

    def _own(self, worker: int, sql: str, text: str) -> Planned:
        step = self._step(Command(worker, sql, text))
        return Planned(step, Outcome.COMPLETES, f"{self.workers[worker]}: {text}")

    def _ending(self, script: Script) -> Iterator[Planned]:
        """Ends what is still open, whoever is in the way of others first; else the test could not drop its schema."""
        opened = _open_transactions(script)
        left = [worker for worker in range(len(self.workers)) if worker in opened or self.session_locks]
        in_the_way = _in_the_way(script)
        ended: set[str] = set()
        while left:
            # The victim of a deadlock waits no more.
            free = [worker for worker in left if worker == script.victim or in_the_way[worker] <= ended]
            worker = (free or left)[0]
            left.remove(worker)
            ended.add(self.workers[worker])
            if worker in opened:
                yield self._own(worker, "ROLLBACK", "rollback")
            if self.session_locks:
                yield self._own(worker, "SELECT pg_advisory_unlock_all()", "gives back session locks")


def _letters(number: int) -> str:
    """a, b, …, z, aa, ab, …"""
    letters = ""
    number += 1
    while number:
        number, digit = divmod(number - 1, 26)
        letters = chr(ord("a") + digit) + letters
    return letters


def _words(command: Command, script: Script) -> str:
    what = {
        Outcome.COMPLETES: "",
        Outcome.REFUSED: ": refused",
        Outcome.TIMES_OUT: ": times out",
        Outcome.WAITS: ": waits",
    }[command.outcome]
    if command.outcome is Outcome.WAITS:
        what += f" for {', '.join(script.workers[worker] for worker in command.blockers)}"
    # The model's words for what is refused may say so already.
    return f"{script.workers[command.worker]}: {command.text.removesuffix(': refused')}{what}"


def _open_transactions(script: Script) -> set[int]:
    """The workers that have begun a transaction which the script does not end."""
    opened: set[int] = set()
    for command in script.commands:
        if command.sql == "BEGIN":
            opened.add(command.worker)
        elif command.sql in ("COMMIT", "ROLLBACK"):
            opened.discard(command.worker)
    return opened


def _in_the_way(script: Script) -> list[set[str]]:
    """For each worker the names of those that it waits for after the last command."""
    return [set(worker.blockers) for worker in script.commands[-1].foretold]
