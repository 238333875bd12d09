"""Real connection pools for a replay: each pool of the spec is a `psycopg_pool.AsyncConnectionPool`, one of its units is a connection.

Who asks for a connection when none is left waits in the client. Postgres sees nothing of that wait, so the pool itself is asked who waits.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import psycopg
from psycopg import AsyncConnection

from lockmodel.errors import ReplayError, one_line

if TYPE_CHECKING:
    from psycopg_pool import AsyncConnectionPool

Connection = AsyncConnection[tuple[object, ...]]
Configure = Callable[[Connection], Awaitable[None]]

OPEN_SECONDS = 20.0
WAIT_SECONDS = 3600.0
"""How long a worker would wait for a connection: longer than any replay, so that it is the replay that ends the wait."""


class PoolEmpty(Exception):
    """No connection was free for a request that does not wait."""


class Pools:
    """The pools `sizes` (name, size), whose connections are made by `configure`. Close them in the end."""

    def __init__(self, dsn: str, sizes: Sequence[tuple[str, int]], configure: Configure) -> None:
        self.dsn = dsn
        self.sizes = dict(sizes)
        self.pids: set[int] = set()
        """The backends of all connections that were ever made."""
        self._configure = configure
        self._pools: dict[str, AsyncConnectionPool[Connection]] = {}

    async def open(self) -> None:
        """Make all connections. Raises ReplayError if the server has not enough, or psycopg_pool is not installed."""
        if not self.sizes:
            return
        try:
            from psycopg_pool import AsyncConnectionPool, PoolTimeout
        except ImportError:
            raise ReplayError("to replay pools, install psycopg_pool: pip install 'lockmodel[replay]'") from None
        await self._check_room()
        for name, size in self.sizes.items():
            self._pools[name] = pool = AsyncConnectionPool(
                self.dsn,
                min_size=size,
                max_size=size,
                open=False,
                name=f"lockmodel {name}",
                kwargs={
                    "autocommit": True,
                    "application_name": f"lockmodel {name}",
                    "connect_timeout": 10,
                    "client_encoding": "UTF8",
                },
                configure=self._made,
                timeout=WAIT_SECONDS,
                max_lifetime=WAIT_SECONDS,
                max_idle=WAIT_SECONDS,
            )
            try:
                await pool.open(wait=True, timeout=OPEN_SECONDS)
            except PoolTimeout as error:
                raise ReplayError(
                    f"the pool {name} of {size} connections can't be made: {one_line(str(error))}"
                ) from None

    async def take(self, name: str, *, waits: bool) -> Connection:
        """A connection of the pool `name`, as soon as there is one. Raises PoolEmpty if it can't wait for it."""
        pool = self._pools[name]
        # A timeout of zero would refuse a connection that is there.
        if not waits and not pool.get_stats().get("pool_available", 0):
            raise PoolEmpty
        return await pool.getconn()

    async def give_back(self, name: str, connection: Connection) -> None:
        await self._pools[name].putconn(connection)

    def waiting(self, name: str) -> int:
        """How many wait for a connection of the pool `name`."""
        return self._pools[name].get_stats().get("requests_waiting", 0)

    async def close(self) -> None:
        """Close what is in the pools; those who still wait get an error."""
        for pool in self._pools.values():
            await pool.close(timeout=OPEN_SECONDS)

    async def _made(self, connection: Connection) -> None:
        self.pids.add(connection.info.backend_pid)
        await self._configure(connection)

    async def _check_room(self) -> None:
        """Refuse pools that the server has no connections for, instead of waiting for them."""
        async with await psycopg.AsyncConnection.connect(self.dsn, autocommit=True) as connection:
            cursor = await connection.execute(
                "SELECT current_setting('max_connections')::int - count(*) FROM pg_stat_activity"
                " WHERE backend_type = 'client backend'"
            )
            row = await cursor.fetchone()
        wanted, free = sum(self.sizes.values()), row[0] if row else 0
        if wanted > free:
            names = ", ".join(self.sizes)
            message = f"{names}: {wanted:,} connections are more than the {free} that the server has left; make the size smaller"
            raise ReplayError(message)
