"""The tables of one installation by name, and the SQL that names them.

Statements are templates: `{queue_lanes}` is the table in the queue's schema, `{ready_entries_k}` one partition of
`ready_entries`, whose number is given beside the template. Every value goes as a parameter, never into the text.
"""

from __future__ import annotations

import string
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, LiteralString

from psycopg import AsyncConnection, sql
from psycopg.rows import tuple_row

from lockmodel.errors import one_line, quote
from lockmodel.queue.errors import SettingsError
from lockmodel.queue.jobs import Ring

Connection = AsyncConnection[Any]
Row = tuple[Any, ...]
Transaction = Callable[[], AbstractAsyncContextManager[Connection]]
"""Opens a transaction of its own on a connection of the user's."""

PARTITIONED = {
    "ready_entries": Ring.QUEUE,
    "done_entries": Ring.QUEUE,
    "leases": Ring.LEASE,
    "lease_claims": Ring.CLAIM,
    "lease_claim_closures": Ring.CLAIM,
}
"""The partitioned tables, and the ring that each one's partitions belong to."""

_NAME_BYTES_MAX = 63


class Catalog:
    """The names in `schema`. Raises SettingsError if no schema can be called so."""

    def __init__(self, schema: str) -> None:
        self.schema = _check_schema(schema)
        self._statements: dict[tuple[str, int, int, int], sql.Composed] = {}
        self.sequence = '"{}".job_ids'.format(schema.replace('"', '""'))
        """The sequence of job ids, to be cast to regclass."""

    def statement(
        self, template: LiteralString, *, queue_slot: int = -1, lease_slot: int = -1, claim_slot: int = -1
    ) -> sql.Composed:
        """`template` with names; a `_k` is partition number `queue_slot`, `lease_slot` or `claim_slot` of its ring.

        To be executed with parameters, be they none: a `%` in the schema's name is doubled.
        """
        key = (template, queue_slot, lease_slot, claim_slot)
        if key not in self._statements:
            slots = {Ring.QUEUE: queue_slot, Ring.LEASE: lease_slot, Ring.CLAIM: claim_slot}
            schema = self.schema.replace("%", "%%")
            names = {}
            for _, field, _, _ in string.Formatter().parse(template):
                if field is not None:
                    table = field.removesuffix("_k")
                    ending = f"_{slots[PARTITIONED[table]]}" if field.endswith("_k") else ""
                    names[field] = sql.Identifier(schema, table + ending)
            self._statements[key] = sql.SQL(template).format(**names)
        return self._statements[key]

    def partition(self, table: str, slot: int) -> sql.Identifier:
        """Partition number `slot` of `table`, for a statement that takes no parameters."""
        return sql.Identifier(self.schema, f"{table}_{slot}")


async def rows(connection: Connection, statement: sql.Composed, parameters: dict[str, Any] | None = None) -> list[Row]:
    """Execute `statement` and return its rows as tuples, whatever row factory the connection has."""
    cursor = connection.cursor(row_factory=tuple_row)
    await cursor.execute(statement, parameters or {})
    return await cursor.fetchall() if cursor.description is not None else []


def _check_schema(schema: object) -> str:
    if not isinstance(schema, str) or not schema:
        raise SettingsError(f"the schema must be a string with something in it, not {one_line(repr(schema), 60)}")
    if "\0" in schema or any("\ud800" <= char <= "\udfff" for char in schema):
        raise SettingsError(f"schema {one_line(repr(schema), 60)}: Postgres has no NUL and no surrogates in names")
    if (length := len(schema.encode())) > _NAME_BYTES_MAX:
        raise SettingsError(f"schema {quote(schema)} is {length} bytes long; Postgres cuts names at {_NAME_BYTES_MAX}")
    if schema.startswith("pg_"):
        raise SettingsError(f"schema {quote(schema)}: names that begin with pg_ are Postgres's own")
    if schema == "information_schema":
        raise SettingsError("schema 'information_schema' is Postgres's own")
    return schema
