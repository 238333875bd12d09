"""A schema of our own in somebody's database, and nothing else there.

Every replay works in a new schema `lockmodel_<8 hex digits>`, the only one on its search path, and drops it at the end. While it lives,
the connection that made it holds an advisory lock named after it. So a schema whose lock is free was left by a run that was
killed, or by a server that went away: the next replay on that database removes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar, overload

import psycopg
from psycopg import AsyncConnection, sql

from lockmodel.errors import ReplayError, one_line

PREFIX = "lockmodel_"
POLL_SECONDS = 0.003
LOCK_CLASS = 0x10C4
"""First key of the advisory locks that mark living schemas."""
COMMENT = "made by lockmodel replay; removed at its end"
_OWN_NAME = re.compile(rf"^{PREFIX}[0-9a-f]{{8}}$")


Connection = TypeVar("Connection", bound=AsyncConnection[Any])


@overload
async def connect(dsn: str, name: str) -> AsyncConnection[tuple[object, ...]]: ...
@overload
async def connect(dsn: str, name: str, kind: type[Connection]) -> Connection: ...
async def connect(dsn: str, name: str, kind: type[AsyncConnection[Any]] = AsyncConnection) -> AsyncConnection[Any]:
    """A connection in autocommit mode, of the class `kind`. Raises ReplayError if there is none to be had."""
    connecting = asyncio.create_task(_connected(dsn, name, kind))
    try:
        return await asyncio.shield(connecting)
    except asyncio.CancelledError:
        # A connection given up halfway would leave its backend to find out by itself.
        with contextlib.suppress(psycopg.Error):
            await (await connecting).close()
        raise
    except psycopg.Error as error:
        raise ReplayError(f"can't connect to Postgres: {one_line(str(error))}") from None


async def _connected(dsn: str, name: str, kind: type[AsyncConnection[Any]]) -> AsyncConnection[Any]:
    # Whatever the database and the environment say, text is text (SQL_ASCII would give bytes).
    connection = await kind.connect(
        dsn, autocommit=True, application_name=name, connect_timeout=10, client_encoding="UTF8"
    )
    await without_limits(connection)
    return connection


async def without_limits(connection: AsyncConnection[Any]) -> None:
    """Take away what a role's or a database's own settings would end: a wait that is looked at, or the removal of the schema."""
    for setting in ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout"):
        await connection.execute("SELECT set_config(%s, '0', false)", (setting,))


class Sandbox:
    """The schema of one replay, on the connection `monitor`, which must stay open as long as it lives."""

    def __init__(self, monitor: AsyncConnection[tuple[object, ...]]) -> None:
        self.monitor = monitor
        self.schema = ""

    async def check(self) -> None:
        """Refuse a database that a replay can't work in. Raises ReplayError."""
        row = await self._row(
            "SELECT pg_is_in_recovery(), current_setting('default_transaction_read_only')::boolean,"
            " has_database_privilege(current_database(), 'CREATE'), current_database(), current_user"
        )
        standby, read_only, may_create, database, user = row
        if standby or read_only:
            raise ReplayError(f"the database {database} is read-only; a replay needs a schema of its own")
        if not may_create:
            raise ReplayError(
                f"user {user} may not create a schema in database {database}; GRANT CREATE, or use another"
            )

    async def create(self) -> str:
        """Make a new schema and return its name."""
        token = secrets.token_hex(4)
        await self._lock(token)
        self.schema = PREFIX + token
        await self.monitor.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(self.schema)))
        comment = sql.SQL("COMMENT ON SCHEMA {} IS {}").format(sql.Identifier(self.schema), sql.Literal(COMMENT))
        await self.monitor.execute(comment)
        return self.schema

    async def wait_until_gone(self, pids: Sequence[int]) -> None:
        """Wait until none of the backends `pids` is left; they have been told to end."""
        while pids:
            cursor = await self.monitor.execute("SELECT 1 FROM pg_stat_activity WHERE pid = ANY(%s)", (list(pids),))
            if await cursor.fetchone() is None:
                return
            await asyncio.sleep(POLL_SECONDS)

    async def regain(self, dsn: str) -> None:
        """Have a monitor that answers, if there is one to be had: an interruption or an administrator may have ended its connection."""
        with contextlib.suppress(psycopg.Error):
            if not self.monitor.closed:
                await self.monitor.execute("SELECT 1")
                return
        with contextlib.suppress(ReplayError):
            self.monitor = await connect(dsn, "lockmodel monitor")

    async def leave(self, dsn: str, pids: Sequence[int], close: Callable[[], Awaitable[object]]) -> None:
        """End the backends `pids`, `close` our side of them, and drop the schema, if need be on a new connection.

        `close` is called whatever happens. Raises ReplayError if a server that is there does not let the schema be removed.
        """
        await self.regain(dsn)
        try:
            try:
                for pid in pids:
                    await self.monitor.execute("SELECT pg_terminate_backend(%s)", (pid,))
            finally:
                await close()
            await self.wait_until_gone(pids)
            await self.drop()
        except psycopg.Error as error:
            if not self.monitor.closed:
                raise ReplayError(f"schema {self.schema} could not be removed: {one_line(str(error))}") from None
        finally:
            await self.monitor.close()

    async def drop(self) -> None:
        """Remove the schema and all in it. Waits for nobody: all workers must be gone."""
        if self.schema:
            await self.monitor.execute("SET lock_timeout = '10s'")
            await self.monitor.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(self.schema)))
            await self._unlock(self.schema.removeprefix(PREFIX))
            self.schema = ""

    async def sweep(self) -> list[str]:
        """Remove what earlier runs left behind when they were killed; returns the names."""
        cursor = await self.monitor.execute(
            "SELECT nspname FROM pg_namespace WHERE pg_has_role(nspowner, 'USAGE')"
            " AND obj_description(oid, 'pg_namespace') = %s",
            (COMMENT,),
        )
        removed = []
        for (found,) in await cursor.fetchall():
            name = str(found)
            if not _OWN_NAME.match(name):
                continue
            token = name.removeprefix(PREFIX)
            (free,) = await self._row("SELECT pg_try_advisory_lock(%s, %s)", (LOCK_CLASS, _key(token)))
            if free:
                await self.monitor.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(name)))
                await self._unlock(token)
                removed.append(name)
        return removed

    async def _lock(self, token: str) -> None:
        await self.monitor.execute("SELECT pg_advisory_lock(%s, %s)", (LOCK_CLASS, _key(token)))

    async def _unlock(self, token: str) -> None:
        await self.monitor.execute("SELECT pg_advisory_unlock(%s, %s)", (LOCK_CLASS, _key(token)))

    async def _row(self, query: str, parameters: tuple[object, ...] = ()) -> tuple[object, ...]:
        cursor = await self.monitor.execute(query, parameters)
        row = await cursor.fetchone()
        assert row is not None
        return row


def _key(token: str) -> int:
    """The token's 32 bits as Postgres's signed integer."""
    value = int(token, 16)
    return value - (1 << 32) if value >= 1 << 31 else value
