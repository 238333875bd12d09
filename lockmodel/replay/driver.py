"""Performs a script on real connections: one for each worker, and a monitor that sees who waits for whom.

A statement that must complete is awaited while the monitor watches `pg_blocking_pids`; one that must wait is seen waiting there before the
script goes on. Nothing rests on sleeping "long enough": each step ends when Postgres shows what became of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import psycopg
from psycopg import errors, sql
from psycopg.pq import TransactionStatus

from lockmodel.errors import ReplayError, one_line
from lockmodel.replay.deadlock import Deadlock, read_report
from lockmodel.replay.observe import Observer, SeenLock
from lockmodel.replay.pools import PoolEmpty, Pools
from lockmodel.replay.sandbox import POLL_SECONDS, Sandbox, connect
from lockmodel.replay.script import Command, Outcome, Script
from lockmodel.replay.session import STEP_SECONDS, Connection, Session, deadlock_timeout
from lockmodel.replay.sides import Observation
from lockmodel.replay.statements import SchemaSql

STANDSTILL_SECONDS = 1.0
"""How long nobody may go on before a deadlock that Postgres can't see counts as one: some times the deadlock_timeout of all."""

_LOCK_OUTCOMES = (errors.DeadlockDetected, errors.LockNotAvailable, errors.SerializationFailure)
"""Errors by which Postgres says what became of a lock; all others are the statement's own."""


@dataclass(frozen=True)
class Done:
    """What became of one command: `seconds` from sending it until this was known; `waits_for`: workers in its way."""

    command: Command
    seconds: float
    waits_for: tuple[int, ...] = ()


@dataclass(frozen=True)
class Standstill:
    """A deadlock that goes through a pool, or a stall, as it was seen: for `seconds` nobody of it went on, and Postgres reported nothing.

    `in_pool`: who waits for a connection, the pool, and who has its connections; `in_postgres`: who waits for whose locks.
    """

    seconds: float
    in_pool: tuple[tuple[int, str, tuple[int, ...]], ...]
    in_postgres: tuple[tuple[int, tuple[int, ...]], ...]
    queue: bool = False
    """Whether it is a stall."""


@dataclass(frozen=True)
class Performance:
    """A script performed: all that was done, and where Postgres did otherwise (`difference` at `failed`)."""

    done: tuple[Done, ...]
    deadlock: Deadlock | None = None
    failed: Command | None = None
    difference: str | None = None
    seen: tuple[Observation, ...] = ()
    """Each worker's locks where Postgres did otherwise, unless they could not be looked at."""
    waiting: Command | None = None
    """The statement that did otherwise, if it was one that had waited and went on after `failed`."""
    victim_chosen: bool = True
    """Whether the replay could choose which worker Postgres aborts; only a superuser may."""
    standstill: Standstill | None = None
    """Instead of `deadlock`, where a pool is part of the cycle."""

    @property
    def deadlocked(self) -> bool:
        """Whether it ended in a deadlock, reported by Postgres or not."""
        return self.deadlock is not None or (self.standstill is not None and not self.standstill.queue)


class Otherwise(Exception):
    """Postgres did something else than the script says; `str()` says what.

    `waiting`: the statement that did, if it is not the one that was just sent.
    """

    def __init__(self, message: str, waiting: Command | None = None) -> None:
        self.waiting = waiting
        super().__init__(message)


class Driver:
    """Performs scripts in the database behind `dsn`, each in a schema of its own.

    Use as an asynchronous context manager: however it is left, no connection, schema or lock remains.
    Raises ReplayError for what keeps a replay from being performed at all.
    """

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.server_version = ""
        self.swept: list[str] = []
        self._chooses_victim = True
        self._monitor: Connection
        self._sandbox: Sandbox

    async def __aenter__(self) -> Driver:
        self._monitor = await connect(self.dsn, "lockmodel monitor")
        try:
            self._sandbox = Sandbox(self._monitor)
            await self._sandbox.check()
            self.swept = await self._sandbox.sweep()
            # Debian's goes on with its own number in parentheses.
            self.server_version = (self._monitor.info.parameter_status("server_version") or "?").split()[0]
        except BaseException as error:
            await self._monitor.close()
            if isinstance(error, psycopg.Error):
                raise ReplayError(one_line(str(error))) from None
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._monitor.close()

    async def perform(self, script: Script, setup: Sequence[SchemaSql]) -> Performance:
        """Run `setup` in a new schema, then `script`; everything is removed again before this returns."""
        sessions: list[Session] = []
        pools = Pools(self.dsn, script.pools, lambda connection: self._configure(connection, script, None))
        try:
            schema = await self._sandbox.create()
            await self._set_up(setup, schema)
            await pools.open()
            for number, name in enumerate(script.workers):
                sessions.append(Session(number, await connect(self.dsn, f"lockmodel {name}"), pools, script))
                await self._configure(sessions[-1].own, script, number)
            performance = await _Performance(self._monitor, sessions, script, pools).run()
            performance = replace(performance, victim_chosen=self._chooses_victim)
            if performance.difference is None:
                return performance
            return replace(performance, seen=await self._look(sessions, script))
        except psycopg.OperationalError as error:
            if self._monitor.broken or any(session.connection.broken for session in sessions):
                raise ReplayError(self._gone(error)) from None
            raise ReplayError(one_line(str(error))) from None
        finally:
            await asyncio.shield(self._clean(sessions, pools))

    async def _look(self, sessions: Sequence[Session], script: Script) -> tuple[Observation, ...]:
        """Every worker's locks as they are now. What is not to be had is left out: it only illustrates the difference."""
        observer = Observer(self._monitor, self._sandbox.schema)
        names = {pid: script.workers[session.worker] for session in sessions for pid in session.pids}
        found = []
        try:
            await self._monitor.execute("SET lock_timeout = '2s'")
            rows = await self._can_look_at_rows(observer, sessions)
            for session in sessions:
                look = observer.held_rows_included if rows else observer.held
                held = frozenset[SeenLock]().union(*[await look(pid) for pid in session.pids])
                blockers = [other for pid in session.pids for other in await observer.blocking_pids(pid)]
                found.append(Observation(held, tuple(names.get(pid, f"process {pid}") for pid in blockers), rows))
            await self._monitor.execute("RESET lock_timeout")
        except (psycopg.Error, ReplayError):
            return ()
        return tuple(found)

    async def _can_look_at_rows(self, observer: Observer, sessions: Sequence[Session]) -> bool:
        try:
            await observer.set_up()
            for session in sessions:
                await observer.held_rows_included(session.own.info.backend_pid)
        except (psycopg.Error, ReplayError):
            return False
        return True

    def _gone(self, error: psycopg.Error) -> str:
        left = (
            f"; if its data survived, the next replay removes schema {self._sandbox.schema}"
            if self._sandbox.schema
            else ""
        )
        return f"the server went away during the replay ({one_line(str(error), 120)}){left}"

    async def _set_up(self, setup: Sequence[SchemaSql], schema: str) -> None:
        path = sql.SQL("SET search_path TO {}").format(sql.Identifier(schema))
        await self._monitor.execute(path)
        try:
            for statement in setup:
                await self._set_up_one(statement)
        finally:
            if not self._monitor.broken:
                await self._monitor.execute("ROLLBACK")
                await self._monitor.execute("RESET search_path")

    async def _set_up_one(self, statement: SchemaSql) -> None:
        try:
            await self._monitor.execute(statement.sql)
        except psycopg.Error as error:
            if self._monitor.broken:
                raise
            place = statement.at(_number(error.diag.statement_position))
            raise ReplayError(f"the spec's schema SQL fails: {_said(error)}; mend it", place) from None

    async def _configure(self, connection: Connection, script: Script, number: int | None) -> None:
        """Make `connection` ready for worker `number` (None: for a pool, whose worker is not known yet)."""
        await connection.execute(sql.SQL("SET search_path TO {}").format(sql.Identifier(self._sandbox.schema)))
        # Only a superuser may set these; without them the victim is Postgres's choice, and messages are in its language.
        for setting, value in (("deadlock_timeout", deadlock_timeout(script, number)), ("lc_messages", "C")):
            try:
                await connection.execute("SELECT set_config(%s, %s, false)", (setting, value))
            except errors.InsufficientPrivilege:
                self._chooses_victim = False
        for setting in ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout"):
            await connection.execute("SELECT set_config(%s, '0', false)", (setting,))

    async def _clean(self, sessions: Sequence[Session], pools: Pools) -> None:
        """End every worker's backend, wait until it is gone, and drop the schema."""
        pids = [pid for session in sessions for pid in session.pids]
        try:
            if self._monitor.closed:
                # An interruption at a bad moment costs us the connection, but not the server.
                with contextlib.suppress(ReplayError):
                    self._monitor = self._sandbox.monitor = await connect(self.dsn, "lockmodel monitor")
            for session in sessions:
                await session.leave_pool()
            for pid in pids:
                if not self._monitor.closed:
                    await self._monitor.execute("SELECT pg_terminate_backend(%s)", (pid,))
            for session in sessions:
                await session.close()
            await pools.close()
            if not self._monitor.closed:
                await self._sandbox.wait_until_gone([*pids, *pools.pids])
                await self._sandbox.drop()
        except psycopg.OperationalError as error:
            if not self._monitor.closed:
                raise ReplayError(
                    f"schema {self._sandbox.schema} could not be removed: {one_line(str(error))}"
                ) from None


class _Performance:
    """The run of one script."""

    def __init__(
        self, monitor: Connection, sessions: Sequence[Session], script: Script, pools: Pools | None = None
    ) -> None:
        self.monitor = monitor
        self.sessions = sessions
        self.script = script
        self.pools = pools
        self.done: list[Done] = []

    @property
    def workers(self) -> dict[int, int]:
        """Worker numbers by process number."""
        return {pid: session.worker for session in self.sessions for pid in session.pids}

    async def run(self) -> Performance:
        current: Command | None = None
        deadlock: Deadlock | None = None
        try:
            for index, command in enumerate(self.script.commands):
                current = command
                closes = bool(self.script.cycle) and index == len(self.script.commands) - 1
                deadlock = await self._step(command, closes)
            if self.script.watched:
                return Performance(tuple(self.done), standstill=await self._stand_still())
            if self.script.cycle and deadlock is None:
                deadlock = await self._await_deadlock()
        except Otherwise as difference:
            return Performance(tuple(self.done), None, current, str(difference), waiting=difference.waiting)
        if deadlock is not None and not frozenset(self.script.cycle) <= deadlock.workers:
            found = (
                ", ".join(self.script.workers[worker] for worker in sorted(deadlock.workers)) or "none of the workers"
            )
            return Performance(
                tuple(self.done), deadlock, current, f"the cycle that Postgres reports is another one: {found}"
            )
        return Performance(tuple(self.done), deadlock)

    async def _step(self, command: Command, closes: bool) -> Deadlock | None:
        started = time.monotonic()
        session = self.sessions[command.worker]
        session.send(command)
        waits_for: tuple[int, ...] = ()
        deadlock = None
        if command.outcome is Outcome.WAITS:
            deadlock, waits_for = await self._until_waiting(command, started, closes)
        else:
            await self._until_complete(session, command, started)
            for worker in command.resumes:
                await self._goes_on(self.sessions[worker], started)
            for worker, blockers in command.then_waits:
                await self._waits_again(self.sessions[worker], blockers, started)
        self.done.append(Done(command, time.monotonic() - started, waits_for))
        return deadlock

    async def _until_complete(self, session: Session, command: Command | None, started: float) -> None:
        """Wait for `session`'s statement; `command` is None for one that was waiting and must go on now."""
        assert session.running is not None
        blocked = 0
        while not session.running.done():
            await asyncio.wait({session.running}, timeout=POLL_SECONDS)
            if session.running.done():
                break
            blockers = await self._blockers(session)
            in_pool = self._waits_in_pool(session)
            blocked = blocked + 1 if blockers or in_pool else 0
            # Seen twice, so that a lock released this very moment is not taken for a wait.
            session.waited = session.waited or bool(blockers)
            may_wait = command is None or command.outcome is Outcome.TIMES_OUT
            if blocked > 3 and (ours := [pid for pid in blockers if pid in self.workers]) and not may_wait:
                raise Otherwise(
                    f"waits for {self._names(ours, session)}, where the model says that nobody is in the way"
                )
            if blocked > 3 and in_pool and command is not None:
                raise Otherwise("waits in the pool, where the model says that a connection is left")
            if time.monotonic() - started > STEP_SECONDS:
                raise Otherwise(self._overdue(blockers))
        self._judge(session, command)

    async def _goes_on(self, session: Session, started: float) -> None:
        """Wait for a statement that waited, and must now come to its end."""
        try:
            await self._until_complete(session, None, started)
        except Otherwise as other:
            raise Otherwise(str(other), session.sent) from None

    async def _waits_again(self, session: Session, blockers: Sequence[int], started: float) -> None:
        """Wait until a statement that waited has taken what it waited for, and waits for one of `blockers`.

        Until then what it is about to take could still be taken by others.
        """
        assert session.running is not None
        wanted = self._workers(blockers)
        while not session.running.done():
            pids = await self._blockers(session)
            if {self.workers.get(pid) for pid in pids} & set(blockers):
                return
            if time.monotonic() - started > STEP_SECONDS:
                still = f"waits for {self._names(pids)}" if pids else "waits for nobody"
                raise Otherwise(f"{still}, where the model says that it goes on and waits for {wanted}", session.sent)
            await asyncio.wait({session.running}, timeout=POLL_SECONDS)
        try:
            self._judge(session, None)
        except Otherwise as other:
            raise Otherwise(str(other), session.sent) from None
        raise Otherwise(f"is granted, where the model says that it goes on and waits for {wanted}", session.sent)

    def _overdue(self, blockers: Sequence[int]) -> str:
        if outside := [pid for pid in blockers if pid not in self.workers]:
            return f"waits for process {outside[0]}, which is not part of the replay"
        if blockers:
            return f"still waits for {self._names(blockers)}, where the model says that it goes on"
        return f"did not come back within {STEP_SECONDS:g} s"

    def _judge(self, session: Session, command: Command | None) -> None:
        """Whether the finished statement did what was expected. Raises Otherwise."""
        assert session.running is not None
        refused, rows = False, -1
        try:
            rows, value = session.running.result()
            refused = command is not None and command.conditional and (rows == 0 or value is False)
        except (errors.LockNotAvailable, PoolEmpty):
            refused = True
        except errors.DeadlockDetected as error:
            raise Otherwise(f"deadlock detected (40P01): {one_line(error.diag.message_detail or '')}") from None
        except errors.SerializationFailure as error:
            raise Otherwise(f"fails: {_said(error)}") from None
        except psycopg.Error as error:
            if session.connection.broken:
                raise
            raise self._fails(session, error) from None
        self._check_transaction(session)
        must_be = command is not None and command.outcome in (Outcome.REFUSED, Outcome.TIMES_OUT)
        if command is not None and refused is not must_be:
            what = "is refused" if refused else "is granted"
            raise Otherwise(f"{what}, where the model says that it {command.outcome}{_no_row(command, rows)}")
        if command is None and refused:
            raise Otherwise("is refused (55P03), where the model says that it goes on")

    async def _until_waiting(
        self, command: Command, started: float, closes: bool
    ) -> tuple[Deadlock | None, tuple[int, ...]]:
        """Wait until the statement is seen to wait for the right worker (or, closing the cycle, is aborted at once)."""
        session = self.sessions[command.worker]
        assert session.running is not None
        while not session.running.done():
            pids = await self._blockers(session)
            waits_for = tuple(self.workers[pid] for pid in pids if pid in self.workers)
            session.waited = session.waited or bool(pids)
            if set(waits_for) & {*command.blockers, *command.behind}:
                return None, waits_for
            if self._waits_in_pool(session):
                return None, self._holders(session.asks)
            if waits_for and time.monotonic() - started > 1.0:
                wanted = self._workers(command.blockers)
                raise Otherwise(f"waits for {self._names(pids)}, where the model says for {wanted}")
            if time.monotonic() - started > STEP_SECONDS:
                raise Otherwise(self._overdue(pids))
            await asyncio.wait({session.running}, timeout=POLL_SECONDS)
        if closes and isinstance(error := session.running.exception(), errors.DeadlockDetected):
            return self._deadlock(command.worker, error, seen_waiting=False), command.blockers
        if session.running.exception() is None:
            if closes and (deadlock := self._already_reported()) is not None:
                return deadlock, command.blockers
            wanted = self._workers(command.blockers)
            rows, _ = session.running.result()
            raise Otherwise(f"is granted, where the model says that it waits for {wanted}{_no_row(command, rows)}")
        self._judge(session, command)
        raise Otherwise("ended without waiting")

    def _waits_in_pool(self, session: Session) -> bool:
        """Whether `session` is seen to wait for a connection: all who ask that pool for one are in its queue."""
        pool = session.asks
        if pool is None or self.pools is None:
            return False
        return self.pools.waiting(pool) >= sum(one.asks == pool for one in self.sessions)

    def _holders(self, pool: str | None) -> tuple[int, ...]:
        return tuple(one.worker for one in self.sessions if any(name == pool for name, _ in one.units))

    async def _stand_still(self) -> Standstill:
        """Watch those of a cycle that goes through a pool, or of a stall, for a while: none may go on, and Postgres must say nothing."""
        members = [self.sessions[worker] for worker in self.script.watched]
        tasks = {session.running: session for session in members if session.running is not None}
        started = time.monotonic()
        finished, _ = await asyncio.wait(list(tasks), timeout=STANDSTILL_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        for task in finished:
            command = tasks[task].sent
            if (error := task.exception()) is not None:
                raise Otherwise(f"fails: {one_line(str(error), 160)}", command)
            given = command is not None and command.takes_connection
            goes_on = "goes on, and there is no stall" if self.script.queued else "goes on, and there is no deadlock"
            raise Otherwise("is given a connection" if given else goes_on, command)
        in_pool, in_postgres = [], []
        for session in members:
            if (pool := session.asks) is not None:
                in_pool.append((session.worker, pool, self._holders(pool)))
            else:
                pids = await self._blockers(session)
                in_postgres.append((session.worker, tuple(self.workers[pid] for pid in pids if pid in self.workers)))
        seconds, queue = time.monotonic() - started, bool(self.script.queued)
        return Standstill(seconds, tuple(in_pool), tuple(in_postgres), queue)

    async def _await_deadlock(self) -> Deadlock:
        """Wait until Postgres aborts one of the cycle's members."""
        running = {self.sessions[worker].running: worker for worker in self.script.cycle}
        tasks = {task for task in running if task is not None}
        finished, others = await asyncio.wait(tasks, timeout=STEP_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if finished and others:
            # The victim's end lets the next one go on, and either answer may reach us first.
            finished |= (await asyncio.wait(others, timeout=1.0))[0]
        for task in finished:
            if isinstance(error := task.exception(), errors.DeadlockDetected):
                return self._deadlock(running[task], error, seen_waiting=True)
        for task in finished:
            if (error := task.exception()) is None:
                raise Otherwise(f"no deadlock: the statement of {self.script.workers[running[task]]} went on")
            if isinstance(error, psycopg.OperationalError) and self.sessions[running[task]].connection.broken:
                raise error
            if isinstance(error, psycopg.Error) and not isinstance(error, _LOCK_OUTCOMES):
                raise self._fails(self.sessions[running[task]], error)
            raise Otherwise(f"no deadlock: {self.script.workers[running[task]]} fails with {one_line(str(error), 160)}")
        raise Otherwise(f"no deadlock was reported within {STEP_SECONDS:g} s, though all members of the cycle wait")

    def _deadlock(self, victim: int, error: errors.DeadlockDetected, *, seen_waiting: bool) -> Deadlock:
        return read_report(victim, error, self.workers, self.script.workers, seen_waiting=seen_waiting)

    def _already_reported(self) -> Deadlock | None:
        """The deadlock, if another of its members was aborted before the last one was seen waiting.

        That can be where the replay may not choose the victim.
        """
        for worker in self.script.cycle:
            task = self.sessions[worker].running
            if task is not None and task.done() and isinstance(error := task.exception(), errors.DeadlockDetected):
                return self._deadlock(worker, error, seen_waiting=True)
        return None

    def _fails(self, session: Session, error: psycopg.Error) -> ReplayError:
        """That a statement failed for a reason of its own: nothing is known of the locks then, and the SQL is to be mended."""
        command, name = session.sent, self.script.workers[session.worker]
        position = command.position if command is not None else None
        advice = "mend the sql"
        if isinstance(error, errors.UniqueViolation):
            # Postgres does as it should: the key is taken for good once the transaction that inserted it has committed.
            whose = "that of the transaction it waited for" if session.waited else "that of an earlier transaction"
            advice = f"the row is {whose}; let the step delete it again (INSERT …; DELETE …), or insert another value"
        return ReplayError(f"the statement of this step fails in {name}: {_said(error)}; {advice}", position)

    def _check_transaction(self, session: Session) -> None:
        """Refuse a statement that ended the transaction it is in. Raises ReplayError."""
        command = session.sent
        if command is None or not command.in_block or command.takes_connection:
            return
        ended = session.connection.info.transaction_status is TransactionStatus.IDLE
        if ended and command.sql not in ("COMMIT", "ROLLBACK"):
            message = "the sql of this step ends the transaction; write a step, commit or rollback, for that"
            raise ReplayError(message, command.position)

    def _workers(self, workers: Sequence[int]) -> str:
        return ", ".join(self.script.workers[worker] for worker in workers)

    async def _blockers(self, session: Session) -> list[int]:
        cursor = await self.monitor.execute("SELECT pg_blocking_pids(%s)", (session.pid,))
        row = await cursor.fetchone()
        assert row is not None
        return list(row[0])  # type: ignore[call-overload, no-any-return]  # A column of integer[].

    def _names(self, pids: Sequence[int], waiter: Session | None = None) -> str:
        """The workers of `pids`; of `waiter` itself it is another connection."""
        workers = [self.workers[pid] for pid in pids if pid in self.workers]
        own = None if waiter is None else waiter.worker
        return ", ".join("another connection of its own" if one == own else self.script.workers[one] for one in workers)


def _said(error: psycopg.Error) -> str:
    """What Postgres said: `23505 duplicate key value violates unique constraint "t_pkey" (Key (id)=(1) already exists.)`."""
    diag = error.diag
    detail = f" ({diag.message_detail})" if diag.message_detail else ""
    return one_line(f"{error.sqlstate} {diag.message_primary or error}{detail}", 300)


def _number(text: str | None) -> int | None:
    return int(text) if text else None


def _no_row(command: Command, rows: int) -> str:
    """A hint for a statement that found no row, and so could lock none."""
    if rows != 0:
        return ""
    if command.sql.lstrip().lower().startswith("insert"):
        return "; it inserted nothing, for the key is there already: let the step delete its row again (INSERT …; DELETE …)"
    return "; it found no row to lock: does the schema's SQL insert it?"
