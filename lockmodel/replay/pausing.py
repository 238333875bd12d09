"""Connections whose code stops before each statement until the script says go.

Whatever psycopg sends goes through `AsyncConnection.wait`: statements, BEGIN, COMMIT, COPY. A `PausingConnection` waits there for its
gate. So code that was never written for it (a queue's methods, an application's) runs unmodified, one statement at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Self

import psycopg
from psycopg import AsyncConnection, AsyncCursor

from lockmodel.errors import one_line
from lockmodel.replay.patience import STEP_SECONDS
from lockmodel.replay.sandbox import POLL_SECONDS, connect

_SEEN_WAITING = 4
"""How many polls in a row must see a statement wait, so that a lock released this moment is not taken for a wait."""


class Gate:
    """Where a worker's code stands: before a statement (`pending` is its text), or on its way to the next."""

    def __init__(self) -> None:
        self.pending: str | None = None
        self.closed = False
        """Open while a connection is being set up; closed, each statement waits for `go`."""
        self._arrived = asyncio.Event()
        self._go = asyncio.Event()

    async def pass_through(self, statement: str) -> None:
        """Called by the code: stop here until `go`."""
        if not self.closed:
            return
        self.pending = statement
        self._go.clear()
        self._arrived.set()
        await self._go.wait()

    def go(self) -> None:
        """Let the code send the statement that it stands before."""
        self.pending = None
        self._arrived.clear()
        self._go.set()

    async def arrival(self) -> None:
        """Wait until the code stands before a statement."""
        await self._arrived.wait()


class PausingCursor(AsyncCursor[Any]):
    """Notes the text of each statement for the gate."""

    async def execute(self, query: Any, params: Any = None, **options: Any) -> Self:
        self._note(query, params)
        return await super().execute(query, params, **options)

    async def executemany(self, query: Any, params_seq: Any, **options: Any) -> None:
        self._note(query)
        await super().executemany(query, params_seq, **options)

    def copy(self, statement: Any, params: Any = None, **options: Any) -> Any:
        self._note(statement, params)
        return super().copy(statement, params, **options)

    def _note(self, query: Any, params: Any = None) -> None:
        connection = self.connection
        assert isinstance(connection, PausingConnection)
        if params:
            # As a person would write it; what is sent is the code's own, with its parameters apart.
            with contextlib.suppress(psycopg.Error):
                query = psycopg.AsyncClientCursor(connection).mogrify(query, params)
        text = (
            query
            if isinstance(query, str)
            else query.as_string(connection)
            if hasattr(query, "as_string")
            else str(query)
        )
        connection.statement = one_line(text, 2_000)


class PausingConnection(AsyncConnection[Any]):
    """A connection that stops at `gate` before whatever it sends."""

    gate: Gate | None = None
    statement = ""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.failures: list[psycopg.Error] = []

    async def wait(self, gen: Any, *args: Any, **options: Any) -> Any:
        text, self.statement = self.statement, ""
        if self.gate is not None:
            await self.gate.pass_through(text or _own_statement(gen))
        try:
            return await super().wait(gen, *args, **options)
        except psycopg.Error as error:
            # The code may handle it; who watches the code wants to know all the same.
            self.failures.append(error)
            raise


def _own_statement(gen: Any) -> str:
    """What psycopg sends of its own, without a cursor."""
    name = getattr(gen, "__name__", "").strip("_").removesuffix("_gen")
    known = {"commit": "COMMIT", "rollback": "ROLLBACK", "enter": "BEGIN", "exit": "COMMIT or ROLLBACK"}
    return known.get(name, f"({name.replace('_', ' ')})")


@dataclass(frozen=True)
class Paused:
    """The code stands before `statement`."""

    statement: str


@dataclass(frozen=True)
class Blocked:
    """The statement waits for the backends in `blockers`."""

    blockers: tuple[int, ...]


@dataclass(frozen=True)
class Ended:
    """The code is done; `error` is what it raised, if anything."""

    error: BaseException | None


Standing = Paused | Blocked | Ended


@dataclass
class CodeWorker:
    """One worker of a replay of real code: a connection that pauses, and the operation that runs on it."""

    name: str
    connection: PausingConnection
    pid: int
    gate: Gate = field(default_factory=Gate)
    task: asyncio.Task[object] | None = None
    sent: list[str] = field(default_factory=list)

    @classmethod
    async def open(cls, name: str, dsn: str) -> CodeWorker:
        """Connect; the gate stays open until `start`. Raises ReplayError."""
        connection = await connect(dsn, f"lockmodel {name}", PausingConnection)
        connection.cursor_factory = PausingCursor
        return cls(name, connection, connection.info.backend_pid)

    def start(self, operation: Callable[[], Awaitable[object]]) -> None:
        """Begin `operation`, which stops before its first statement."""
        self.connection.gate = self.gate
        self.gate.closed = True

        async def run() -> object:
            return await operation()

        self.task = asyncio.create_task(run())

    async def settle(self, blocking_pids: Callable[[int], Awaitable[tuple[int, ...]]]) -> Standing:
        """Wait until the code stands before a statement, is done, or its statement waits for a lock.

        Raises TimeoutError after STEP_SECONDS without any of these.
        """
        assert self.task is not None
        arrival = asyncio.create_task(self.gate.arrival())
        seen = 0
        try:
            async with asyncio.timeout(STEP_SECONDS):
                while True:
                    await asyncio.wait({arrival, self.task}, timeout=POLL_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                    if self.task.done():
                        return Ended(None if self.task.cancelled() else self.task.exception())
                    if arrival.done() and self.gate.pending is not None:
                        return Paused(self.gate.pending)
                    blockers = await blocking_pids(self.pid)
                    seen = seen + 1 if blockers else 0
                    if seen >= _SEEN_WAITING:
                        return Blocked(blockers)
        finally:
            arrival.cancel()

    async def step(self, blocking_pids: Callable[[int], Awaitable[tuple[int, ...]]]) -> Standing:
        """Send the statement that the code stands before, and wait until it stands somewhere again."""
        assert self.gate.pending is not None
        self.sent.append(self.gate.pending)
        self.gate.go()
        return await self.settle(blocking_pids)

    async def close(self) -> None:
        """End the code (its backend has been terminated, so whatever it does fails) and the connection."""
        self.gate.closed = False
        self.gate.go()
        if self.task is not None:
            await asyncio.wait({self.task}, timeout=STEP_SECONDS)
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)
        await self.connection.close()
