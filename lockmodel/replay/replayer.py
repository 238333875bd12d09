"""From a spec to a replay's verdict: the trace of a deadlock, or random schedules that the model calls safe.

Raises ReplayError (or SpecError) for what keeps a replay from being carried out.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from lockmodel.compiler import Compilation
from lockmodel.replay.driver import Driver
from lockmodel.replay.performance import Performance
from lockmodel.replay.schedules import random_schedule, schedule_seeds
from lockmodel.replay.script import Ask, NotRealizable, Outcome, Script, from_trace
from lockmodel.replay.server import EmbeddedServer
from lockmodel.replay.sides import WorkerSides, compare_sides, seen
from lockmodel.replay.statements import SchemaSql, Statements, schema_of
from lockmodel.replay.target import Bindings
from lockmodel.resolver import resolve
from lockmodel.semantics import Crew
from lockmodel.spec import Spec
from lockmodel.system import System
from lockmodel.trace import Trace

Result = TypeVar("Result")


class ReplayOutcome(StrEnum):
    CONFIRMED = "CONFIRMED"
    REFUTED = "REFUTED"
    NOT_REALIZABLE = "NOT REALIZABLE"


@dataclass(frozen=True)
class TraceReplay:
    """The replay of one trace. `script` and `performance` are None if it is not realizable, for `reason`."""

    outcome: ReplayOutcome
    server: str
    seconds: float
    script: Script | None = None
    performance: Performance | None = None
    reason: str = ""
    synthetic: frozenset[str] = frozenset()
    """The resources whose statements are lockmodel's own, since the spec gives none."""
    sides: tuple[WorkerSides, ...] = ()
    """Where Postgres did otherwise: each worker's locks, as the model has them and as they were."""


@dataclass(frozen=True)
class ScheduleRun:
    """The replay of one random schedule."""

    number: int
    script: Script
    performance: Performance
    sides: tuple[WorkerSides, ...] = ()

    @property
    def as_foretold(self) -> bool:
        """Whether Postgres did what the model said, the deadlock that it may end in included."""
        return self.performance.difference is None


@dataclass(frozen=True)
class SchedulesReplay:
    """The replay of random schedules with one seed, up to the first difference."""

    outcome: ReplayOutcome
    server: str
    seconds: float
    seed: int
    asked: int
    runs: tuple[ScheduleRun, ...]
    synthetic: frozenset[str] = frozenset()
    can_wait: bool = True
    """Whether anybody of the crew can ever have to wait."""

    @property
    def statements(self) -> int:
        """How many commands Postgres was sent."""
        return sum(len(run.performance.done) for run in self.runs)

    @property
    def waits(self) -> int:
        """How many statements were seen waiting."""
        return sum(done.command.outcome is Outcome.WAITS for run in self.runs for done in run.performance.done)

    @property
    def without_row(self) -> int:
        """How many statements would have locked rows, and found none."""
        return sum(done.no_row for run in self.runs for done in run.performance.done)

    @property
    def deadlocks(self) -> int:
        """How many schedules ended in a 40P01, or in a deadlock that goes through a pool."""
        return sum(run.performance.deadlocked for run in self.runs)


@dataclass(frozen=True)
class Prepared:
    """A spec ready to be replayed."""

    compilation: Compilation
    statements: Statements
    bindings: Bindings
    """What the resources are in the replay's schema, as far as that is known."""

    @property
    def setup(self) -> list[SchemaSql]:
        return list(self.statements.setup())

    def sides(self, script: Script, performance: Performance) -> tuple[WorkerSides, ...]:
        """Both sides' locks where Postgres did otherwise; none if it did not, or they could not be looked at."""
        command = performance.failed
        if command is None or not performance.seen:
            return ()
        resources = self.compilation.system.resources
        complete = all(resource.name in self.bindings.told for resource in resources)
        return tuple(
            compare_sides(name, model, seen(observed, self.bindings), self.bindings.told, complete=complete)
            for name, model, observed in zip(script.workers, command.foretold, performance.seen, strict=True)
        )


def prepare(spec: Spec, compilation: Compilation | None = None) -> Prepared:
    """Compile `spec` (overrides applied), if that has not been done, and find the SQL of its steps."""
    compilation = compilation or Compilation(resolve(spec))
    # Advisory keys are shared by the whole database, so those of each replay are its own.
    advisory_class = secrets.randbelow(2**31)
    statements = Statements(compilation.program, compilation.system.resources, schema_of(spec), advisory_class)
    resources = compilation.system.resources
    places = {resource.name: place for resource in resources if (place := statements.own_place(resource))}
    return Prepared(compilation, statements, Bindings(spec, compilation.program, resources, own=places))


def replay_trace(prepared: Prepared, trace: Trace, dsn: str | None = None, asks: Sequence[Ask] = ()) -> TraceReplay:
    """Replay `trace` on the server behind `dsn` (None: an embedded one, for this replay alone); `asks`: see `from_trace`."""
    started = time.monotonic()
    synthetic = prepared.statements.synthetic
    try:
        script = from_trace(prepared.compilation, prepared.statements, trace, asks)
    except NotRealizable as error:
        seconds = time.monotonic() - started
        return TraceReplay(ReplayOutcome.NOT_REALIZABLE, "", seconds, reason=str(error), synthetic=synthetic)

    async def run(driver: Driver) -> TraceReplay:
        performance = await driver.perform(script, prepared.setup)
        outcome = ReplayOutcome.CONFIRMED if performance.difference is None else ReplayOutcome.REFUTED
        seconds = time.monotonic() - started
        sides = prepared.sides(script, performance)
        return TraceReplay(outcome, driver.server_version, seconds, script, performance, "", synthetic, sides)

    return _on_server(dsn, run)


def replay_schedules(
    prepared: Prepared,
    crew: Crew,
    count: int,
    seed: int,
    dsn: str | None = None,
    progress: Callable[[int], None] | None = None,
) -> SchedulesReplay:
    """Replay `count` random schedules of `crew`; stops at the first in which Postgres does otherwise than foretold."""
    started = time.monotonic()

    async def run(driver: Driver) -> SchedulesReplay:
        runs: list[ScheduleRun] = []
        for number, one in enumerate(schedule_seeds(seed, count), start=1):
            script = random_schedule(prepared.compilation, prepared.statements, crew, one)
            performance = await driver.perform(script, prepared.setup)
            runs.append(ScheduleRun(number, script, performance, prepared.sides(script, performance)))
            if progress:
                progress(number)
            if not runs[-1].as_foretold:
                break
        outcome = ReplayOutcome.CONFIRMED if runs[-1].as_foretold else ReplayOutcome.REFUTED
        seconds = time.monotonic() - started
        synthetic = prepared.statements.synthetic
        can_wait = _can_wait(prepared.compilation.system, crew)
        return SchedulesReplay(outcome, driver.server_version, seconds, seed, count, tuple(runs), synthetic, can_wait)

    return _on_server(dsn, run)


def _can_wait(system: System, crew: Crew) -> bool:
    """Whether some lock that a worker asks for conflicts with one that another may hold."""
    requests = {location.request for location in system.locations if location.request is not None and location.waits}
    held = {hold for location in system.locations for hold in location.held}
    pools = any(system.resources[request.resource].capacity is not None for request in requests)
    return len(crew) > 1 and (pools or any(system.conflicts(hold, request) for hold in held for request in requests))


def default_dsn() -> str | None:
    """The server that libpq's environment variables name, or None for an embedded one."""
    named = ("PGHOST", "PGHOSTADDR", "PGSERVICE", "PGDATABASE")
    return "" if any(os.environ.get(name) for name in named) else None


@contextmanager
def server(dsn: str | None) -> Iterator[str]:
    """The server behind `dsn`, or an embedded one that lives as long as the context."""
    if dsn is not None:
        yield dsn
        return
    with EmbeddedServer.start() as embedded:
        yield embedded.dsn


def _on_server(dsn: str | None, run: Callable[[Driver], Coroutine[object, object, Result]]) -> Result:
    with server(dsn) as address:

        async def session() -> Result:
            async with Driver(address) as driver:
                return await run(driver)

        return run_to_the_end(session)


def run_to_the_end(main: Callable[[], Coroutine[object, object, Result]]) -> Result:
    """Run `main`; SIGINT, SIGTERM and SIGHUP (a closed terminal) cancel it once, and then it is given the time to clean up, however often they come.

    Raises KeyboardInterrupt after SIGINT, SystemExit(128 + the signal) after the others; further ones are ignored from then on.
    """
    received: list[int] = []
    cancel: list[Callable[[], object]] = []

    def interrupt(number: int, _frame: object) -> None:
        received.append(number)
        if len(received) == 1 and cancel:
            cancel[0]()

    async def cancellable() -> Result:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None
        cancel.append(lambda: loop.call_soon_threadsafe(task.cancel))
        if received:
            task.cancel()
        return await main()

    # Only the main thread may handle signals; elsewhere they are somebody else's concern.
    mine = threading.current_thread() is threading.main_thread()
    # What whoever started us ignores (`nohup`, a shell's background job) stays ignored.
    heard = [
        one
        for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if mine and signal.getsignal(one) is not signal.SIG_IGN
    ]
    before = {number: signal.signal(number, interrupt) for number in heard}
    try:
        return asyncio.run(cancellable())
    except asyncio.CancelledError:
        if received and received[0] != signal.SIGINT:
            raise SystemExit(128 + received[0]) from None
        raise KeyboardInterrupt from None
    finally:
        for number, handler in before.items():
            # Ignored for good after the first, also while the interpreter ends: there is nothing more to interrupt.
            signal.signal(number, signal.SIG_IGN if received else handler)
