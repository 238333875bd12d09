"""The locks that a backend really holds, read from Postgres while it stands between two statements.

Tables and advisory locks come from `pg_locks`; row locks, which Postgres keeps in the rows themselves, from the contrib module
`pgrowlocks`. Rows are known by their primary key. What a transaction has inserted itself is not seen as locked: nobody else can see it.

A row that a transaction has changed (UPDATE, DELETE) is told from one that it has only locked: INSERT … ON CONFLICT DO NOTHING waits
for the one and not for the other. Such a change is a `SeenLock` of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from psycopg import AsyncConnection, errors, sql

from lockmodel.errors import Position, ReplayError, SpecError, one_line, quote

_TABLE_MODES = {
    "AccessShareLock": "ACCESS SHARE",
    "RowShareLock": "ROW SHARE",
    "RowExclusiveLock": "ROW EXCLUSIVE",
    "ShareUpdateExclusiveLock": "SHARE UPDATE EXCLUSIVE",
    "ShareLock": "SHARE",
    "ShareRowExclusiveLock": "SHARE ROW EXCLUSIVE",
    "ExclusiveLock": "EXCLUSIVE",
    "AccessExclusiveLock": "ACCESS EXCLUSIVE",
}
# pgrowlocks says "For …" of a lock and leaves the word out of an update; to others both are the same.
_ROW_MODES = {
    "key share": "FOR KEY SHARE",
    "share": "FOR SHARE",
    "no key update": "FOR NO KEY UPDATE",
    "update": "FOR UPDATE",
}


@dataclass(frozen=True, order=True)
class SeenLock:
    """A lock as Postgres has it: `kind` is table, row, change (of a row) or advisory; `name` the relation or the key.

    `row` is the primary key, or nothing for a row without one.
    """

    kind: str
    name: str
    mode: str
    row: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        row = "".join(f" {column}={value}" for column, value in self.row)
        return f"{self.name}{row} {self.mode}"


class Observer:
    """Looks at the locks in one schema from the connection `monitor`."""

    def __init__(self, monitor: AsyncConnection[Any], schema: str) -> None:
        self.monitor = monitor
        self.schema = schema
        self._keys: dict[str, tuple[str, ...]] = {}
        self._pgrowlocks = sql.Identifier(schema, "pgrowlocks")

    async def set_up(self) -> None:
        """Make `pgrowlocks` available, in the schema if it is not there. Raises ReplayError."""
        try:
            found = await self._rows(
                "SELECT nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace"
                " WHERE extname = 'pgrowlocks'"
            )
            if found:
                self._pgrowlocks = sql.Identifier(found[0][0], "pgrowlocks")
            else:
                query = sql.SQL("CREATE EXTENSION pgrowlocks SCHEMA {}").format(sql.Identifier(self.schema))
                await self.monitor.execute(query)
        except errors.Error as error:
            raise ReplayError(
                f"row locks can't be read without the extension pgrowlocks ({one_line(str(error), 120)}); "
                "it is in postgresql-contrib, and a superuser must create it"
            ) from None

    async def blocking_pids(self, pid: int) -> tuple[int, ...]:
        """The backends that `pid` waits for; empty if it does not wait."""
        rows = await self._rows("SELECT unnest(pg_blocking_pids(%s))", (pid,))
        return tuple(dict.fromkeys(row[0] for row in rows))

    async def held(self, pid: int, row_tables: Mapping[str, Position] | None = None) -> frozenset[SeenLock]:
        """All table and advisory locks of `pid` in the schema, and its row locks in `row_tables`: each with where the spec names it.

        Raises SpecError for one of these tables that is not there or has no primary key.
        """
        found = await self._table_locks(pid)
        found |= {
            SeenLock("advisory", str(key), "SHARED" if mode == "ShareLock" else "EXCLUSIVE")
            for key, mode in await self._rows(
                "SELECT CASE objsubid WHEN 1 THEN ((classid::bigint << 32) | objid::bigint)::text"
                " ELSE classid::bigint || ',' || objid::bigint END, mode"
                " FROM pg_locks WHERE pid = %s AND granted AND locktype = 'advisory'",
                (pid,),
            )
        }
        exclusive = await self._closed_tables()
        for table, position in (row_tables or {}).items():
            if not await self._primary_key(table):
                missing = (
                    f"there is no table {quote(table)} in the schema of the replay, which the resource stands for; "
                )
                mend = "name another, or make it there (with the search path, or the schema that a target is given)"
                there = await self._is_there(table)
                message = f"the rows of {table} have no primary key to know them by" if there else missing + mend
                raise SpecError(position, message)
            if table not in exclusive:
                found |= await self._row_locks(pid, table)
        return frozenset(found)

    async def held_rows_included(self, pid: int) -> frozenset[SeenLock]:
        """As `held`, with the row locks in every table that `pid` has a lock on at all."""
        found = set(await self.held(pid))
        tables = await self._rows(
            "SELECT DISTINCT c.relname FROM pg_locks l JOIN pg_class c ON c.oid = l.relation"
            " JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE l.pid = %s AND l.granted AND n.nspname = %s AND c.relkind = 'r'",
            (pid, self.schema),
        )
        for table in {name for (name,) in tables} - await self._closed_tables():
            found |= await self._row_locks(pid, table)
        return frozenset(found)

    async def _table_locks(self, pid: int) -> set[SeenLock]:
        return {
            SeenLock("table", name, _TABLE_MODES[mode])
            for name, mode in await self._rows(
                "SELECT c.relname, l.mode FROM pg_locks l JOIN pg_class c ON c.oid = l.relation"
                " JOIN pg_namespace n ON n.oid = c.relnamespace"
                " WHERE l.pid = %s AND l.granted AND l.locktype = 'relation' AND n.nspname = %s"
                " AND c.relkind IN ('r', 'p')"
                " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())",
                (pid, self.schema),
            )
        }

    async def _closed_tables(self) -> frozenset[str]:
        """The tables that can't be read now, since somebody holds ACCESS EXCLUSIVE on them or on an index: their rows are not looked at."""
        rows = await self._rows(
            "SELECT t.relname FROM pg_locks l LEFT JOIN pg_index i ON i.indexrelid = l.relation"
            " JOIN pg_class t ON t.oid = coalesce(i.indrelid, l.relation) JOIN pg_namespace n ON n.oid = t.relnamespace"
            # Who waits for a row has a lock on its tuple, of the same mode.
            " WHERE n.nspname = %s AND l.mode = 'AccessExclusiveLock' AND l.locktype = 'relation'",
            (self.schema,),
        )
        return frozenset(name for (name,) in rows)

    async def _row_locks(self, pid: int, table: str) -> set[SeenLock]:
        relation = sql.Identifier(self.schema, table)
        key = await self._primary_key(table) or ("ctid",)
        columns = sql.SQL(", ").join(sql.SQL("t.{}::text").format(sql.Identifier(column)) for column in key)
        query = sql.SQL(
            "SELECT u.mode, {columns} FROM {pgrowlocks}({name}) r"
            " CROSS JOIN LATERAL unnest(r.modes, r.pids, r.xids) AS u (mode, pid, xid)"
            " JOIN {relation} t ON t.ctid = r.locked_row"
            # A savepoint's own transaction has no process in pgrowlocks, but a lock on itself.
            " WHERE u.pid = %s OR u.pid = 0 AND EXISTS (SELECT FROM pg_locks l WHERE l.pid = %s"
            " AND l.locktype = 'transactionid' AND l.mode = 'ExclusiveLock' AND l.transactionid = u.xid)"
        ).format(
            columns=columns,
            pgrowlocks=self._pgrowlocks,
            name=sql.Literal(relation.as_string(self.monitor)),
            relation=relation,
        )
        found = set()
        try:
            locked = await self._rows(query, (pid, pid))
        except (errors.UndefinedFunction, errors.InvalidSchemaName):
            raise ReplayError(
                "pgrowlocks went away: another replay on this database had made it, and is over; "
                "run one at a time, or create the extension for good"
            ) from None
        for mode, *values in locked:
            row = tuple(zip(key, values, strict=True))
            canonical = _ROW_MODES[mode.lower().removeprefix("for ")]
            found.add(SeenLock("row", table, canonical, row))
            if not mode.lower().startswith(("for ", "key share", "share")):
                found.add(SeenLock("change", table, "EXCLUSIVE", row))
        return found

    async def _primary_key(self, table: str) -> tuple[str, ...]:
        if table not in self._keys:
            rows = await self._rows(
                "SELECT a.attname FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey)"
                " WHERE i.indrelid = to_regclass(%s) AND i.indisprimary ORDER BY array_position(i.indkey, a.attnum)",
                (sql.Identifier(self.schema, table).as_string(self.monitor),),
            )
            self._keys[table] = tuple(name for (name,) in rows)
        return self._keys[table]

    async def _is_there(self, table: str) -> bool:
        name = sql.Identifier(self.schema, table).as_string(self.monitor)
        return bool(await self._rows("SELECT WHERE to_regclass(%s) IS NOT NULL", (name,)))

    async def _rows(self, query: Any, parameters: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        cursor = await self.monitor.execute(query, parameters)
        return await cursor.fetchall()
