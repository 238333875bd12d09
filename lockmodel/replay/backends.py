"""The backends of a controlled schedule: opened in a schema of their own, made to run or to wait, and ended.

All is asynchronous and belongs to one event loop, which whoever calls runs (`controlled`). It never sleeps "long enough": a step ends when
Postgres shows what became of the statement. A statement that waits in Postgres goes on waiting there between two steps.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import psycopg
from psycopg import AsyncConnection, errors, sql

from lockmodel.errors import ReplayError, one_line
from lockmodel.replay.deadlock import read_report
from lockmodel.replay.patience import OTHERS_TIMEOUT, STEP_SECONDS
from lockmodel.replay.sandbox import POLL_SECONDS, Sandbox, connect

GRACE_SECONDS = 1.0
"""How long a statement must be seen waiting before that counts as a wait that nobody foresaw: some waits end by themselves."""
VICTIM_TIMEOUT = "50ms"
"""The deadlock_timeout of the session that is to be aborted. It has been seen waiting by then, so it is shorter than a replay's."""

Parameters = Sequence[Any] | Mapping[str, Any] | None
Row = tuple[Any, ...]


class Otherwise(Exception):
    """Postgres did something else than the test says; `str()` says what."""


@dataclass(frozen=True)
class Line:
    """One line of the story that a failure tells."""

    session: str
    statement: str
    outcome: str = "…"


class Backends:
    """All backends of one schedule, by the names of their sessions (`members`), and its `story` so far."""

    def __init__(self, server: str) -> None:
        self.schema = ""
        self.members: dict[str, Backend] = {}
        self.story: list[Line] = []
        self.chooses_victim = True
        self._server = server
        self._monitor: AsyncConnection[tuple[object, ...]]
        self._sandbox: Sandbox

    async def open(self) -> None:
        """Make the schema. Raises ReplayError if the server can't be had."""
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

    async def close(self) -> None:
        """End every backend that works in the schema, wait until it is gone, and drop the schema."""
        try:
            if self._monitor.closed:
                self._monitor = self._sandbox.monitor = await connect(self._server, "lockmodel monitor")
            pids = [one.pid for one in self.members.values()]
            cursor = await self._monitor.execute(
                "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE (pid = ANY(%s) OR application_name = %s) AND pid <> pg_backend_pid()",
                (pids, self.schema),
            )
            ended = [int(str(pid)) for pid, _ in await cursor.fetchall()]
            for one in self.members.values():
                await one.close()
            await self._sandbox.wait_until_gone(ended)
            await self._sandbox.drop()
        except psycopg.OperationalError as error:
            raise ReplayError(f"schema {self.schema} could not be removed: {one_line(str(error))}") from None
        finally:
            for one in self.members.values():
                await one.close()
            await self._monitor.close()

    async def set_up(self, statements: str) -> None:
        """Run SQL in the schema, outside of all sessions."""
        await self._monitor.execute(self._search_path())
        try:
            await self._monitor.execute(statements)
        finally:
            if not self._monitor.broken:
                await self._monitor.execute("ROLLBACK")
                await self._monitor.execute("RESET search_path")

    async def connect(self, name: str) -> Backend:
        """A new member, in autocommit mode."""
        connection = await connect(self._server, f"lockmodel {name}")
        try:
            await connection.execute(self._search_path())
            # Only who may set these chooses the victim; else `_become_victim` sees to the order of the timeouts.
            for setting, value in (("deadlock_timeout", OTHERS_TIMEOUT), ("lc_messages", "C")):
                try:
                    await connection.execute("SELECT set_config(%s, %s, false)", (setting, value))
                except errors.InsufficientPrivilege:
                    self.chooses_victim = self.chooses_victim and setting != "deadlock_timeout"
            for setting in ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout"):
                await connection.execute("SELECT set_config(%s, '0', false)", (setting,))
            # If we are killed, a backend in the middle of a statement finds out by itself. Some platforms can't.
            with contextlib.suppress(errors.InvalidParameterValue, errors.UndefinedObject):
                await connection.execute("SELECT set_config('client_connection_check_interval', '1s', false)")
        except BaseException:
            await connection.close()
            raise
        self.members[name] = Backend(self, name, connection)
        return self.members[name]

    def _search_path(self) -> sql.Composed:
        return sql.SQL("SET search_path TO {}").format(sql.Identifier(self.schema))

    async def blockers(self, pid: int) -> tuple[str, ...]:
        """The names of those who are in the way of process `pid`."""
        cursor = await self._monitor.execute("SELECT pg_blocking_pids(%s)", (pid,))
        row = await cursor.fetchone()
        assert row is not None and isinstance(row[0], list)
        names = {one.pid: name for name, one in self.members.items()}
        return tuple(dict.fromkeys(names.get(blocker, f"process {blocker}") for blocker in row[0]))

    async def waiting(self) -> dict[str, tuple[str, ...]]:
        """Who waits, and for whom."""
        found = {name: await self.blockers(one.pid) for name, one in self.members.items()}
        return {name: blockers for name, blockers in found.items() if blockers}


class Backend:
    """One backend, and the statement that it runs, if any. `pid` is its process in Postgres."""

    def __init__(self, group: Backends, name: str, connection: AsyncConnection[tuple[object, ...]]) -> None:
        self.name = name
        self.pid = connection.info.backend_pid
        self._group = group
        self._connection = connection
        self._task: asyncio.Task[list[Row]] | None = None
        self._line = 0
        self._since = 0.0

    # What a step does. Each raises Otherwise where Postgres does something else, and psycopg's error where that is what came of it.

    async def completes(self, statement: str, parameters: Parameters) -> list[Row]:
        self._send(statement, parameters)
        await self._until_done("should go on")
        return self._rows("ok")

    async def goes_on(self) -> list[Row]:
        self._must_be_waiting()
        self._since = time.monotonic()
        await self._until_done("should have gone on")
        return self._rows("ok, after it waited")

    async def blocks(self, wanted: tuple[str, ...], statement: str, parameters: Parameters) -> None:
        self._send(statement, parameters)
        names = _listed(wanted)
        while not self._running.done():
            blockers = await self._group.blockers(self.pid)
            if set(blockers) == set(wanted):
                self._became(f"waits for {names}")
                return
            if self._seconds() > (GRACE_SECONDS if blockers else STEP_SECONDS):
                self._otherwise(f"waits for {_listed(blockers)}, but should wait for {names}")
            await asyncio.wait({self._running}, timeout=POLL_SECONDS)
        error = self._error()
        self._otherwise(f"{_ended(error)}, but should wait for {names}")

    async def closes_circle(self, statement: str, parameters: Parameters) -> frozenset[str]:
        patience = await self._become_victim()
        self._send(statement, parameters)
        await self._until_done("no deadlock is reported", patience)
        error = self._error()
        if not isinstance(error, errors.DeadlockDetected):
            others = [one.name for one in self._group.members.values() if one is not self and one._was_victim()]
            instead = f"; {_listed(others)} got the 40P01" if others else ""
            self._otherwise(f"{_ended(error)}, but should get 40P01{instead}")
        members = list(self._group.members.values())
        names = [one.name for one in members]
        numbers = {one.pid: number for number, one in enumerate(members)}
        report = read_report(names.index(self.name), error, numbers, names, seen_waiting=True)
        circle = frozenset(names[worker] for worker in report.workers)
        self._became(f"40P01 deadlock detected: {_listed(sorted(circle))}")
        self._task = None
        return circle

    async def is_refused(self, sqlstate: str, statement: str | None, parameters: Parameters) -> psycopg.Error:
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
        if self._group.chooses_victim:
            await self._connection.execute("SELECT set_config('deadlock_timeout', %s, false)", (VICTIM_TIMEOUT,))
            return GRACE_SECONDS
        # Each waiter looks for a deadlock once, deadlock_timeout after it began to wait. The others must have done so before.
        cursor = await self._connection.execute("SELECT setting FROM pg_settings WHERE name = 'deadlock_timeout'")
        row = await cursor.fetchone()
        assert row is not None
        timeout = int(str(row[0])) / 1000
        for other in self._group.members.values():
            if other is not self and other._task is not None and not other._task.done():
                await asyncio.sleep(other._since + timeout + GRACE_SECONDS / 4 - time.monotonic())
        return timeout + GRACE_SECONDS

    # The statement that is under way

    def _send(self, statement: str, parameters: Parameters) -> None:
        if self._task is not None:
            raise ReplayError(f"{self.name} still has a statement that waits; call {self.name}.finishes() first")
        self._group.story.append(Line(self.name, one_line(statement, 70)))
        self._line = len(self._group.story) - 1
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
                if blockers := await self._group.blockers(self.pid):
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
        story = self._group.story
        story[self._line] = replace(story[self._line], outcome=outcome)

    def _otherwise(self, message: str) -> NoReturn:
        self._became(message)
        if self._running.done():
            self._task = None
        raise Otherwise(message)

    async def close(self) -> None:
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
