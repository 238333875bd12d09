"""Performs scripts on real connections: one for each worker, and a monitor that sees who waits for whom.

Here everything is made ready before a script runs, and removed after it, however it ends; `performer` runs it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import psycopg
from psycopg import errors, sql

from lockmodel.errors import ReplayError, one_line
from lockmodel.replay.judgement import said
from lockmodel.replay.observe import Observer, SeenLock
from lockmodel.replay.performance import Performance
from lockmodel.replay.performer import Performer
from lockmodel.replay.pools import Pools
from lockmodel.replay.sandbox import Sandbox, connect, without_limits
from lockmodel.replay.script import Script
from lockmodel.replay.session import Connection, Session, deadlock_timeout
from lockmodel.replay.sides import Observation
from lockmodel.replay.statements import SchemaSql


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
            performance = await Performer(self._monitor, sessions, script, pools).run()
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
            f"; if schema {self._sandbox.schema} is still there, the next replay removes it"
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
            raise ReplayError(f"the spec's schema SQL fails: {said(error)}; mend it", place) from None

    async def _configure(self, connection: Connection, script: Script, number: int | None) -> None:
        """Make `connection` ready for worker `number` (None: for a pool, whose worker is not known yet)."""
        await connection.execute(sql.SQL("SET search_path TO {}").format(sql.Identifier(self._sandbox.schema)))
        # Only a superuser may set these; without them the victim is Postgres's choice, and messages are in its language.
        for setting, value in (("deadlock_timeout", deadlock_timeout(script, number)), ("lc_messages", "C")):
            try:
                await connection.execute("SELECT set_config(%s, %s, false)", (setting, value))
            except errors.InsufficientPrivilege:
                self._chooses_victim = False
        await without_limits(connection)

    async def _clean(self, sessions: Sequence[Session], pools: Pools) -> None:
        """End every worker's backend, wait until it is gone, and drop the schema."""
        pids = [pid for session in sessions for pid in session.pids]
        try:
            await self._sandbox.regain(self.dsn)
            self._monitor = self._sandbox.monitor
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


def _number(text: str | None) -> int | None:
    return int(text) if text else None
