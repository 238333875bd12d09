"""A schedule that a test writes down: named sessions, their statements in a fixed order, and who must wait for whom.

    with ControlledSchedule(dsn) as schedule:
        schedule.setup("CREATE TABLE account (id integer PRIMARY KEY, …); …")
        alice, bob = schedule.sessions("alice", "bob")
        alice.run("BEGIN")
        …
        alice.waits_for(bob, "UPDATE account … WHERE id = 2")
        bob.deadlocks("UPDATE account … WHERE id = 1")

Like the driver of a replay, it never sleeps "long enough": a step ends when Postgres shows what became of the statement. There is no
thread either. All connections belong to one event loop, which runs only while a step is under way; a statement that waits in Postgres
goes on waiting there meanwhile.

What Postgres does otherwise than the test says is an AssertionError that tells the schedule so far. The error of a statement is raised as
psycopg raised it. Whatever keeps the schedule from being carried out is a ReplayError.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn, Self, TypeVar

import psycopg
from psycopg import AsyncConnection, errors, sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from lockmodel.errors import ReplayError, one_line, quote
from lockmodel.replay.deadlock import read_report
from lockmodel.replay.sandbox import POLL_SECONDS, Sandbox, connect

STEP_SECONDS = 15.0
"""How long a statement may take. Steps take milliseconds, so this is for a machine under load."""
GRACE_SECONDS = 1.0
"""How long a statement must be seen waiting before that counts as a wait that nobody foresaw: some waits end by themselves."""
VICTIM_TIMEOUT = "50ms"
"""The deadlock_timeout of the session that is to be aborted."""
OTHERS_TIMEOUT = "1h"
DEADLOCK = "40P01"

Parameters = Sequence[Any] | Mapping[str, Any] | None
Row = tuple[Any, ...]
Result = TypeVar("Result")


class _Otherwise(Exception):
    """Postgres did something else than the test says; `str()` says what."""


@dataclass(frozen=True)
class _Step:
    """One line of the story that a failure tells."""

    session: str
    statement: str
    outcome: str = "…"


class ControlledSchedule:
    """Sessions in a schema of their own in the database behind `dsn`; a context manager.

    However it is left, no connection, schema, lock or waiting statement remains. Not for use inside a running event loop.
    """

    def __init__(self, dsn: str) -> None:
        self.schema = ""
        self._server = dsn
        self._sessions: dict[str, Session] = {}
        self._story: list[_Step] = []
        self._chooses_victim = True
        self._runner: asyncio.Runner | None = None
        self._monitor: AsyncConnection[tuple[object, ...]]
        self._sandbox: Sandbox

    def __enter__(self) -> Self:
        self._runner = asyncio.Runner()
        try:
            self._wait(self._open())
        except BaseException:
            self._runner.close()
            self._runner = None
            raise
        return self

    def __exit__(self, *_: object) -> None:
        assert self._runner is not None
        try:
            self._wait(self._close())
        finally:
            self._runner.close()
            self._runner = None

    @property
    def dsn(self) -> str:
        """A conninfo for other connections to the same schema, such as the application's own. They are ended with the schedule."""
        known = conninfo_to_dict(self._server)
        options = f"{known.get('options') or ''} -csearch_path={self.schema}".strip()
        return make_conninfo(self._server, options=options, application_name=self.schema)

    def setup(self, statements: str) -> None:
        """Run SQL in the schema: make the tables, insert the rows. Raises psycopg's error."""
        __tracebackhide__ = True
        try:
            self._wait(self._set_up(statements))
        except psycopg.Error as error:
            raise error.with_traceback(None) from None

    def session(self, name: str) -> Session:
        """Open a session; it has a connection of its own, in autocommit mode, so a transaction begins with BEGIN."""
        if not name or name in self._sessions:
            what = f"there is a session {quote(name)} already" if name else "a session needs a name"
            raise ReplayError(f"{what}; give each its own name")
        self._sessions[name] = self._wait(self._connect(name))
        return self._sessions[name]

    def sessions(self, *names: str) -> tuple[Session, ...]:
        """Open several, in this order."""
        return tuple(self.session(name) for name in names)

    def waiting(self) -> dict[str, tuple[str, ...]]:
        """Who waits for whom now, by name, as pg_blocking_pids says. Who does not wait is left out."""
        return self._wait(self._all_waiting())

    def story(self) -> str:
        """The schedule so far: a line for each statement, with what became of it."""
        who = max((len(step.session) for step in self._story), default=0)
        what = max((len(step.statement) for step in self._story), default=0)
        return "\n".join(
            f"  {number:>2}  {step.session:<{who}}  {step.statement:<{what}}  {step.outcome}"
            for number, step in enumerate(self._story, start=1)
        )

    # Opening and closing

    async def _open(self) -> None:
        self._monitor = await connect(self._server, "lockmodel monitor")
        try:
            self._sandbox = Sandbox(self._monitor)
            await self._sandbox.check()
            await self._sandbox.sweep()
            self.schema = await self._sandbox.create()
        except BaseException as error:
            await self._monitor.close()
            if isinstance(error, psycopg.Error):
                raise ReplayError(one_line(str(error))) from None
            raise

    async def _close(self) -> None:
        """End every backend that works in the schema, wait until it is gone, and drop the schema."""
        try:
            if self._monitor.closed:
                self._monitor = self._sandbox.monitor = await connect(self._server, "lockmodel monitor")
            pids = [session.pid for session in self._sessions.values()]
            cursor = await self._monitor.execute(
                "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE (pid = ANY(%s) OR application_name = %s) AND pid <> pg_backend_pid()",
                (pids, self.schema),
            )
            ended = [int(str(pid)) for pid, _ in await cursor.fetchall()]
            for session in self._sessions.values():
                await session._close()
            await self._sandbox.wait_until_gone(ended)
            await self._sandbox.drop()
        except psycopg.OperationalError as error:
            raise ReplayError(f"schema {self.schema} could not be removed: {one_line(str(error))}") from None
        finally:
            for session in self._sessions.values():
                await session._close()
            await self._monitor.close()

    async def _set_up(self, statements: str) -> None:
        await self._monitor.execute(self._search_path())
        try:
            await self._monitor.execute(statements)
        finally:
            if not self._monitor.broken:
                await self._monitor.execute("ROLLBACK")
                await self._monitor.execute("RESET search_path")

    async def _connect(self, name: str) -> Session:
        connection = await connect(self._server, f"lockmodel {name}")
        try:
            await connection.execute(self._search_path())
            # Only who may set these chooses the victim; else `deadlocks` sees to the order of the timeouts.
            for setting, value in (("deadlock_timeout", OTHERS_TIMEOUT), ("lc_messages", "C")):
                try:
                    await connection.execute("SELECT set_config(%s, %s, false)", (setting, value))
                except errors.InsufficientPrivilege:
                    self._chooses_victim = self._chooses_victim and setting != "deadlock_timeout"
            for setting in ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout"):
                await connection.execute("SELECT set_config(%s, '0', false)", (setting,))
            # If we are killed, a backend in the middle of a statement finds out by itself. Some platforms can't.
            with contextlib.suppress(errors.InvalidParameterValue, errors.UndefinedObject):
                await connection.execute("SELECT set_config('client_connection_check_interval', '1s', false)")
        except BaseException:
            await connection.close()
            raise
        return Session(self, name, connection)

    def _search_path(self) -> sql.Composed:
        return sql.SQL("SET search_path TO {}").format(sql.Identifier(self.schema))

    def _wait(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run the event loop until `work` is done."""
        __tracebackhide__ = True
        problem = ""
        if self._runner is None:
            problem = "the schedule is closed; use it inside its `with` block"
        with contextlib.suppress(RuntimeError):
            asyncio.get_running_loop()
            problem = "a controlled schedule can't be used inside a running event loop; make the test a plain function"
        if self._runner is None or problem:
            work.close()
            raise ReplayError(problem)
        return self._runner.run(work)

    # Looking

    async def _blockers(self, pid: int) -> tuple[str, ...]:
        """The names of those who are in the way of process `pid`."""
        cursor = await self._monitor.execute("SELECT pg_blocking_pids(%s)", (pid,))
        row = await cursor.fetchone()
        assert row is not None and isinstance(row[0], list)
        names = {session.pid: name for name, session in self._sessions.items()}
        return tuple(dict.fromkeys(names.get(one, f"process {one}") for one in row[0]))

    async def _all_waiting(self) -> dict[str, tuple[str, ...]]:
        found = {name: await self._blockers(session.pid) for name, session in self._sessions.items()}
        return {name: blockers for name, blockers in found.items() if blockers}


class Session:
    """One named session of a schedule. `pid` is its process in Postgres."""

    def __init__(
        self, schedule: ControlledSchedule, name: str, connection: AsyncConnection[tuple[object, ...]]
    ) -> None:
        """Not for callers, who use `ControlledSchedule.session`."""
        self.name = name
        self.pid = connection.info.backend_pid
        self._schedule = schedule
        self._connection = connection
        self._task: asyncio.Task[list[Row]] | None = None
        self._step = 0
        self._since = 0.0

    def __repr__(self) -> str:
        return f"<session {self.name}>"

    def run(self, statement: str, parameters: Parameters = None) -> list[Row]:
        """Run a statement that nobody is in the way of; its rows. Raises AssertionError if it waits, psycopg's error if it fails."""
        __tracebackhide__ = True
        return self._do(self._completes(statement, parameters))

    def waits_for(self, others: Session | Sequence[Session], statement: str, parameters: Parameters = None) -> None:
        """Send a statement, and return when it waits for exactly these. Raises AssertionError if it does anything else."""
        __tracebackhide__ = True
        wanted = (others,) if isinstance(others, Session) else tuple(others)
        self._do(self._blocks(tuple(other.name for other in wanted), statement, parameters))

    def finishes(self) -> list[Row]:
        """The rows of the statement that waited, which must go on by now. Raises as `run` does."""
        __tracebackhide__ = True
        return self._do(self._goes_on())

    def deadlocks(self, statement: str, parameters: Parameters = None) -> frozenset[str]:
        """Run a statement that closes a circle of waits, for which Postgres must abort this session with 40P01.

        Returns the names of the circle's members, as Postgres reports it. Raises AssertionError if it does anything else.
        """
        __tracebackhide__ = True
        return self._do(self._closes_circle(statement, parameters))

    def fails(self, sqlstate: str, statement: str | None = None, parameters: Parameters = None) -> psycopg.Error:
        """Run a statement (None: the one that waits) that must fail with this SQLSTATE, such as 55P03; the error."""
        __tracebackhide__ = True
        return self._do(self._is_refused(sqlstate, statement, parameters))

    def _do(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run a step. Its errors come without the frames of the event loop, which tell a reader nothing."""
        __tracebackhide__ = True
        told = ""
        failure: psycopg.Error | None = None
        try:
            return self._schedule._wait(work)
        except _Otherwise as other:
            told = f"{self.name} {other}\n\n{self._schedule.story()}"
        except psycopg.Error as error:
            failure = error
        if failure is not None:
            raise failure.with_traceback(None) from None
        raise AssertionError(told)

    # What a step does

    async def _completes(self, statement: str, parameters: Parameters) -> list[Row]:
        self._send(statement, parameters)
        await self._until_done("should go on")
        return self._rows("ok")

    async def _goes_on(self) -> list[Row]:
        self._must_be_waiting()
        self._since = time.monotonic()
        await self._until_done("should have gone on")
        return self._rows("ok, after it waited")

    async def _blocks(self, wanted: tuple[str, ...], statement: str, parameters: Parameters) -> None:
        self._send(statement, parameters)
        names = _listed(wanted)
        while not self._running.done():
            blockers = await self._schedule._blockers(self.pid)
            if set(blockers) == set(wanted):
                self._became(f"waits for {names}")
                return
            if self._seconds() > (GRACE_SECONDS if blockers else STEP_SECONDS):
                self._otherwise(f"waits for {_listed(blockers)}, but should wait for {names}")
            await asyncio.wait({self._running}, timeout=POLL_SECONDS)
        error = self._error()
        self._otherwise(f"{_ended(error)}, but should wait for {names}")

    async def _closes_circle(self, statement: str, parameters: Parameters) -> frozenset[str]:
        patience = await self._become_victim()
        self._send(statement, parameters)
        await self._until_done("no deadlock is reported", patience)
        error = self._error()
        if not isinstance(error, errors.DeadlockDetected):
            others = [one.name for one in self._schedule._sessions.values() if one is not self and one._was_victim()]
            instead = f"; {_listed(others)} got the 40P01" if others else ""
            self._otherwise(f"{_ended(error)}, but should get 40P01{instead}")
        members = list(self._schedule._sessions.values())
        names = [one.name for one in members]
        numbers = {one.pid: number for number, one in enumerate(members)}
        report = read_report(names.index(self.name), error, numbers, names, seen_waiting=True)
        circle = frozenset(names[worker] for worker in report.workers)
        self._became(f"40P01 deadlock detected: {_listed(sorted(circle))}")
        self._task = None
        return circle

    async def _is_refused(self, sqlstate: str, statement: str | None, parameters: Parameters) -> psycopg.Error:
        if statement is None:
            self._must_be_waiting()
            self._since = time.monotonic()
        else:
            self._send(statement, parameters)
        # A lock_timeout is a wait at first, so a wait alone is no surprise.
        await self._until_done(f"should fail with {sqlstate}", STEP_SECONDS)
        error = self._error()
        if error is None or error.sqlstate != sqlstate:
            self._otherwise(f"{_ended(error)}, but should fail with {sqlstate}")
        self._became(_ended(error))
        self._task = None
        return error

    async def _become_victim(self) -> float:
        """See to it that Postgres aborts this session and no other; the seconds in which it must have done so."""
        if self._schedule._chooses_victim:
            await self._connection.execute("SELECT set_config('deadlock_timeout', %s, false)", (VICTIM_TIMEOUT,))
            return GRACE_SECONDS
        # Each waiter looks for a deadlock once, deadlock_timeout after it began to wait. The others must have done so before.
        cursor = await self._connection.execute("SELECT setting FROM pg_settings WHERE name = 'deadlock_timeout'")
        row = await cursor.fetchone()
        assert row is not None
        timeout = int(str(row[0])) / 1000
        for other in self._schedule._sessions.values():
            if other is not self and other._task is not None and not other._task.done():
                await asyncio.sleep(other._since + timeout + GRACE_SECONDS / 4 - time.monotonic())
        return timeout + GRACE_SECONDS

    # The statement that is under way

    def _send(self, statement: str, parameters: Parameters) -> None:
        if self._task is not None:
            raise ReplayError(f"{self.name} still has a statement that waits; call {self.name}.finishes() first")
        self._schedule._story.append(_Step(self.name, one_line(statement, 70)))
        self._step = len(self._schedule._story) - 1
        self._since = time.monotonic()
        self._task = asyncio.get_running_loop().create_task(self._execute(statement, parameters))

    async def _execute(self, statement: str, parameters: Parameters) -> list[Row]:
        cursor = await self._connection.execute(statement, parameters)
        # Of several statements in one text, the last says what came of it.
        while cursor.nextset():
            pass
        return await cursor.fetchall() if cursor.description is not None else []

    @property
    def _running(self) -> asyncio.Task[list[Row]]:
        assert self._task is not None
        return self._task

    def _must_be_waiting(self) -> None:
        if self._task is None:
            raise ReplayError(f"{self.name} has no statement that waits; begin one with {self.name}.waits_for(…)")

    async def _until_done(self, instead: str, patience: float = GRACE_SECONDS) -> None:
        """Wait for the end of the statement; a wait of `patience` seconds is one too long, where `instead` is what should be."""
        while not self._running.done():
            await asyncio.wait({self._running}, timeout=POLL_SECONDS)
            if self._running.done():
                return
            if self._seconds() > min(patience, STEP_SECONDS):
                if blockers := await self._schedule._blockers(self.pid):
                    self._otherwise(f"waits for {_listed(blockers)}, but {instead}")
                if self._seconds() > STEP_SECONDS:
                    self._otherwise(f"did not come back within {STEP_SECONDS:g} s")

    def _rows(self, outcome: str) -> list[Row]:
        """The rows of the statement, which has ended."""
        error, running = self._error(), self._running
        self._became(_ended(error) if error is not None else outcome)
        self._task = None
        if error is not None:
            raise error
        return running.result()

    def _error(self) -> psycopg.Error | None:
        error = self._running.exception()
        if error is not None and not isinstance(error, psycopg.Error):
            raise error
        return error

    def _was_victim(self) -> bool:
        return self._task is not None and self._task.done() and isinstance(self._error(), errors.DeadlockDetected)

    def _seconds(self) -> float:
        return time.monotonic() - self._since

    def _became(self, outcome: str) -> None:
        story = self._schedule._story
        story[self._step] = replace(story[self._step], outcome=outcome)

    def _otherwise(self, message: str) -> NoReturn:
        self._became(message)
        if self._running.done():
            self._task = None
        raise _Otherwise(message)

    async def _close(self) -> None:
        """Close the connection; its backend has been told to end, so the statement ends by itself."""
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=STEP_SECONDS)
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        await self._connection.close()


def _ended(error: psycopg.Error | None) -> str:
    if error is None:
        return "went on"
    return f"fails with {error.sqlstate or 'a lost connection'} ({one_line(error.diag.message_primary or str(error), 160)})"


def _listed(names: Sequence[str]) -> str:
    return " and ".join(names) if names else "nobody"
