"""One worker of a replay: its connections, and the statement that it is running."""

from __future__ import annotations

import asyncio
import contextlib
from typing import NamedTuple

from psycopg import AsyncConnection, errors

from lockmodel.replay.patience import OTHERS_TIMEOUT, STEP_SECONDS, VICTIM_TIMEOUT_MS
from lockmodel.replay.pools import Pools
from lockmodel.replay.script import Command, Script

Connection = AsyncConnection[tuple[object, ...]]


class Answer(NamedTuple):
    """What a statement came back with: the number of rows and the first value (None if there is none) of the last one in its text.

    `empty`: whether none of them had a row.
    """

    rows: int = -1
    value: object = None
    empty: bool = False


def deadlock_timeout(script: Script, worker: int | None) -> str:
    """The deadlock_timeout of a worker's connections. Where no deadlock is foreseen, one that comes all the same must be seen.

    A lock_timeout in the script has to come first, as the spec says that it does.
    """
    if not script.unseen and script.victim not in (None, worker):
        return OTHERS_TIMEOUT
    first = max((command.timeout_ms or 0 for command in script.commands), default=0)
    return f"{max(VICTIM_TIMEOUT_MS, 2 * first):g}ms"


class Session:
    """One worker's connections, and the statement that it is running.

    `own` is there from the beginning; `units` are those that it has taken from pools.
    """

    def __init__(self, worker: int, own: Connection, pools: Pools, script: Script) -> None:
        self.worker = worker
        self.own = own
        self.pools = pools
        self.timeout = deadlock_timeout(script, worker)
        self.units: list[tuple[str, Connection]] = []
        self.connection = own
        """The one that runs the statement."""
        # Asked for now, since a connection that is broken doesn't tell any more.
        self._pids = {own: own.info.backend_pid}
        self.running: asyncio.Task[Answer] | None = None
        self.sent: Command | None = None
        """What was sent last."""
        self.waited = False
        """Whether that was seen waiting."""

    def send(self, command: Command) -> asyncio.Task[Answer]:
        """Begin with `command`; the task is done when it is."""
        self.sent, self.waited = command, False
        self.running = asyncio.create_task(self._perform(command))
        return self.running

    @property
    def pids(self) -> list[int]:
        """The backends of its connections."""
        return [self._pids[connection] for connection in (self.own, *(unit for _, unit in self.units))]

    @property
    def pid(self) -> int:
        """The backend that runs the statement."""
        return self._pids[self.connection]

    @property
    def asks(self) -> str | None:
        """The pool that it is asking for a connection, if it is."""
        if self.running is None or self.running.done() or self.sent is None or self.sent.pooled is None:
            return None
        return self.sent.pooled.take

    async def _perform(self, command: Command) -> Answer:
        """Run the command on the connection that it is for."""
        pooled = command.pooled
        if pooled is None:
            self.connection = self.own
        elif pooled.take is not None:
            unit = await self.pools.take(pooled.take, waits=not command.conditional)
            self._pids[unit] = unit.info.backend_pid
            self.units.append((pooled.take, unit))
            self.connection = unit
            with contextlib.suppress(errors.InsufficientPrivilege):
                await unit.execute("SELECT set_config('deadlock_timeout', %s, false)", (self.timeout,))
        elif pooled.give_back:
            return await self._give_back(command.sql)
        else:
            _, self.connection = self.units[-1 if pooled.number is None else pooled.number - 1]
        if command.timeout_ms is not None and not command.in_block:
            return await self._execute_within(command.timeout_ms, command.sql)
        return await self._execute(command.sql) if command.sql else Answer()

    async def _execute_within(self, timeout_ms: float, statement: str) -> Answer:
        """As `_execute`, with a lock_timeout; on its own, for a statement that can't run inside a transaction block."""
        await self._execute(f"SET lock_timeout = '{timeout_ms:g}ms'")
        try:
            return await self._execute(statement)
        finally:
            if not self.connection.broken:
                await self._execute("SET lock_timeout = 0")

    async def _give_back(self, end: str) -> Answer:
        while self.units:
            pool, self.connection = self.units[-1]
            if end:
                await self._execute(end)
            self.units.pop()
            await self.pools.give_back(pool, self.connection)
        self.connection = self.own
        return Answer()

    async def _execute(self, statement: str) -> Answer:
        cursor = await self.connection.execute(statement)
        value: object = None
        counts = [cursor.rowcount]
        # Of several statements in one text, the last says what happened.
        while cursor.nextset():
            counts.append(cursor.rowcount)
        if cursor.description is not None and (row := await cursor.fetchone()):
            value = row[0] if row else None
        return Answer(cursor.rowcount, value, empty=max(counts) == 0)

    async def leave_pool(self) -> None:
        """Don't wait for a connection any longer."""
        if self.asks is not None and self.running is not None:
            self.running.cancel()
            await asyncio.gather(self.running, return_exceptions=True)

    async def close(self) -> None:
        if self.running is not None:
            # Its backend has been terminated, so the statement ends by itself; cancelling it would only send a signal after it.
            await asyncio.wait({self.running}, timeout=STEP_SECONDS)
            self.running.cancel()
            await asyncio.gather(self.running, return_exceptions=True)
        for connection in (self.own, *(unit for _, unit in self.units)):
            await connection.close()
