"""The tables of a queue: made, recognised and removed.

Three rings of partitions (jobs, leases, claims) are written in their current slot and emptied by TRUNCATE once everything in an old slot
is over, so that nothing that a finished job leaves behind has to be deleted row by row. There are no foreign keys: each would take locks
of its own. The hot rows (lanes, heads, ring states) leave room in their pages for their next version.

A queue's schema is its own. `install` makes the schema or uses an empty one; what it made it recognises by a comment on
queue_ring_state, and `uninstall` removes that and nothing else.

Lock order of `install` and `uninstall`: an advisory lock on the schema's name, then ACCESS EXCLUSIVE on each table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import LiteralString

from psycopg import errors, sql

from lockmodel.errors import quote
from lockmodel.queue.catalog import PARTITIONED, Catalog, Connection, rows
from lockmodel.queue.errors import InstallationError
from lockmodel.queue.jobs import Ring
from lockmodel.queue.settings import Settings

_MARK = "lockmodel queue, layout 1"
_MARK_OWN_SCHEMA = f"{_MARK}, in a schema that it made"

# Queue names are compared byte by byte, so that Postgres sorts lanes as Python does.
_TABLES: dict[str, LiteralString] = {
    **{
        f"{ring}_ring_state": """
            singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
            current_slot integer NOT NULL,
            generation bigint NOT NULL,
            slot_count integer NOT NULL
        ) WITH (fillfactor = 50"""
        for ring in Ring
    },
    **{
        f"{ring}_ring_slots": """
            slot integer PRIMARY KEY,
            generation bigint NOT NULL DEFAULT -1  -- -1: never used
        """
        for ring in Ring
    },
    "queue_lanes": """
        queue text COLLATE "C" NOT NULL,
        priority smallint NOT NULL,
        available_count bigint NOT NULL DEFAULT 0,  -- ready_entries from claim_seq on
        PRIMARY KEY (queue, priority)
        ) WITH (fillfactor = 50""",
    "queue_enqueue_heads": """
        queue text COLLATE "C" NOT NULL,
        priority smallint NOT NULL,
        next_seq bigint NOT NULL DEFAULT 0,  -- of the next job enqueued
        PRIMARY KEY (queue, priority)
        ) WITH (fillfactor = 50""",
    "queue_claim_heads": """
        queue text COLLATE "C" NOT NULL,
        priority smallint NOT NULL,
        claim_seq bigint NOT NULL DEFAULT 0,  -- all before this are claimed, or gone
        PRIMARY KEY (queue, priority)
        ) WITH (fillfactor = 50""",
    "ready_entries": """
        ready_slot integer NOT NULL,
        queue text COLLATE "C" NOT NULL,
        priority smallint NOT NULL,
        lane_seq bigint NOT NULL,
        job_id bigint NOT NULL,
        attempt integer NOT NULL,  -- how many there have been
        run_lease bigint NOT NULL,  -- of the latest claim, 0: never claimed
        unique_key bytea,
        payload json NOT NULL,
        enqueued_at timestamptz NOT NULL,
        PRIMARY KEY (ready_slot, queue, priority, lane_seq)
        ) PARTITION BY LIST (ready_slot""",
    "done_entries": """
        ready_slot integer NOT NULL,
        queue text COLLATE "C" NOT NULL,
        priority smallint NOT NULL,
        lane_seq bigint NOT NULL,
        job_id bigint NOT NULL,
        state text NOT NULL CHECK (state IN ('done', 'failed', 'cancelled')),
        attempt integer NOT NULL,
        run_lease bigint NOT NULL,
        error text,
        unique_key bytea,
        payload json,  -- where the ready row is gone
        enqueued_at timestamptz,  -- likewise
        finished_at timestamptz NOT NULL DEFAULT statement_timestamp(),
        PRIMARY KEY (ready_slot, queue, priority, lane_seq)
        ) PARTITION BY LIST (ready_slot""",
    "leases": """
        lease_slot integer NOT NULL,
        job_id bigint NOT NULL,
        run_lease bigint NOT NULL,
        ready_slot integer NOT NULL,
        queue text COLLATE "C" NOT NULL,
        priority smallint NOT NULL,
        lane_seq bigint NOT NULL,
        leased_at timestamptz NOT NULL DEFAULT statement_timestamp(),
        PRIMARY KEY (lease_slot, job_id, run_lease)
        ) PARTITION BY LIST (lease_slot""",
    "lease_claims": """
        claim_slot integer NOT NULL,
        job_id bigint NOT NULL,
        run_lease bigint NOT NULL,
        ready_slot integer NOT NULL,
        queue text COLLATE "C" NOT NULL,
        priority smallint NOT NULL,
        lane_seq bigint NOT NULL,
        attempt integer NOT NULL,
        claimed_at timestamptz NOT NULL,
        deadline_at timestamptz,
        has_state boolean NOT NULL DEFAULT false,  -- whether there is an attempt_state
        lease_slot integer,  -- of its lease, if it has one
        PRIMARY KEY (claim_slot, job_id, run_lease)
        ) PARTITION BY LIST (claim_slot""",
    "lease_claim_closures": """
        claim_slot integer NOT NULL,
        job_id bigint NOT NULL,
        run_lease bigint NOT NULL,
        outcome text NOT NULL,
        closed_at timestamptz NOT NULL DEFAULT statement_timestamp(),
        PRIMARY KEY (claim_slot, job_id, run_lease)
        ) PARTITION BY LIST (claim_slot""",
    "attempt_state": """
        job_id bigint NOT NULL,
        run_lease bigint NOT NULL,
        heartbeat_at timestamptz NOT NULL,
        PRIMARY KEY (job_id, run_lease)
        ) WITH (fillfactor = 50""",
    "deferred_jobs": """
        job_id bigint PRIMARY KEY,
        queue text COLLATE "C" NOT NULL,
        priority smallint NOT NULL,
        lane_seq bigint NOT NULL,  -- the latest it had
        attempt integer NOT NULL,
        run_lease bigint NOT NULL,
        unique_key bytea,
        payload json NOT NULL,
        enqueued_at timestamptz NOT NULL,
        run_at timestamptz NOT NULL
        """,
    "queue_terminal_rollups": """
        queue text COLLATE "C" NOT NULL,
        priority smallint NOT NULL,
        done_count bigint NOT NULL,
        failed_count bigint NOT NULL,
        cancelled_count bigint NOT NULL,
        PRIMARY KEY (queue, priority)
        """,
}

_INDEXES: tuple[LiteralString, ...] = (
    "CREATE INDEX ON {ready_entries} (queue, priority, lane_seq)",
    "CREATE INDEX ON {ready_entries} (job_id)",
    "CREATE INDEX ON {done_entries} (job_id)",
    "CREATE INDEX ON {leases} (job_id)",
    "CREATE INDEX ON {lease_claims} (job_id)",
    "CREATE INDEX ON {deferred_jobs} (run_at)",
)


@dataclass(frozen=True)
class _Found:
    """What there is in a schema."""

    exists: bool
    mark: str | None
    relations: tuple[str, ...]


async def install(connection: Connection, catalog: Catalog, settings: Settings) -> bool:
    """Make the tables, in a transaction of the caller's. False: they were there already, with these slot counts.

    Raises InstallationError if the schema has something else in it, or a queue with other slot counts.
    """
    found = await _look(connection, catalog)
    slots = {Ring.QUEUE: settings.queue_slots, Ring.LEASE: settings.lease_slots, Ring.CLAIM: settings.claim_slots}
    if found.mark is not None:
        await _compare(connection, catalog, slots)
        return False
    if found.relations:
        raise InstallationError(
            f"schema {quote(catalog.schema)} has something else in it ({_some(found.relations)}); "
            "a queue needs a schema of its own"
        )
    statements: list[sql.Composable] = []
    if not found.exists:
        statements.append(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(catalog.schema)))
    statements.append(sql.SQL("CREATE SEQUENCE {}").format(sql.Identifier(catalog.schema, "job_ids")))
    for table, columns in _TABLES.items():
        name = sql.Identifier(catalog.schema, table)
        statements.append(sql.SQL("CREATE TABLE {} ({})").format(name, sql.SQL(columns)))
        if table in PARTITIONED:
            partition = sql.SQL("CREATE TABLE {} PARTITION OF {} FOR VALUES IN ({})")
            count = slots[PARTITIONED[table]]
            statements += [partition.format(catalog.partition(table, k), name, sql.Literal(k)) for k in range(count)]
    names = {table: sql.Identifier(catalog.schema, table) for table in _TABLES}
    statements += [sql.SQL(index).format(**names) for index in _INDEXES]
    for ring, count in slots.items():
        state, ring_slots = names[f"{ring}_ring_state"], names[f"{ring}_ring_slots"]
        statements.append(
            sql.SQL(
                "INSERT INTO {} (current_slot, generation, slot_count) VALUES (0, 0, {count});"
                " INSERT INTO {} (slot) SELECT generate_series(0, {count} - 1); UPDATE {} SET generation = 0 WHERE slot = 0"
            ).format(state, ring_slots, ring_slots, count=sql.Literal(count))
        )
    mark = _MARK if found.exists else _MARK_OWN_SCHEMA
    statements.append(sql.SQL("COMMENT ON TABLE {} IS {}").format(names["queue_ring_state"], sql.Literal(mark)))
    await connection.execute(sql.SQL(";\n").join(statements))
    return True


async def uninstall(connection: Connection, catalog: Catalog) -> bool:
    """Remove the tables with all jobs in them, and the schema if `install` made it and nothing else is in it now.

    False: there was nothing to remove. Raises InstallationError if what is there is not a queue's.
    """
    found = await _look(connection, catalog)
    if found.mark is None:
        if found.relations:
            raise InstallationError(
                f"schema {quote(catalog.schema)} is not a queue's ({_some(found.relations)}); nothing was removed"
            )
        return False
    names = sql.SQL(", ").join(sql.Identifier(catalog.schema, table) for table in _TABLES)
    await connection.execute(sql.SQL("DROP TABLE {}").format(names))
    await connection.execute(sql.SQL("DROP SEQUENCE {}").format(sql.Identifier(catalog.schema, "job_ids")))
    if found.mark == _MARK_OWN_SCHEMA:
        try:
            async with connection.transaction():
                await connection.execute(sql.SQL("DROP SCHEMA {}").format(sql.Identifier(catalog.schema)))
        except errors.DependentObjectsStillExist:
            pass  # Somebody put something of theirs there.
    return True


async def _look(connection: Connection, catalog: Catalog) -> _Found:
    """What there is in the schema; one at a time, so that it stays so until the transaction ends."""
    key = {"key": f"lockmodel queue {catalog.schema}"}
    await rows(connection, sql.SQL("SELECT pg_advisory_xact_lock(hashtextextended(%(key)s, 0))").format(), key)
    found = await rows(
        connection,
        sql.SQL(
            """
            SELECT ARRAY(SELECT relname::text FROM pg_class WHERE relnamespace = namespace.oid ORDER BY relname),
                   (SELECT obj_description(oid, 'pg_class') FROM pg_class
                    WHERE relnamespace = namespace.oid AND relname = 'queue_ring_state')
            FROM pg_namespace AS namespace WHERE nspname = %(schema)s
            """
        ).format(),
        {"schema": catalog.schema},
    )
    if not found:
        return _Found(False, None, ())
    [(relations, mark)] = found
    if mark is not None and mark.startswith("lockmodel queue") and mark not in (_MARK, _MARK_OWN_SCHEMA):
        raise InstallationError(f"schema {quote(catalog.schema)} holds {quote(mark)}, this is {quote(_MARK)}")
    return _Found(True, mark if mark in (_MARK, _MARK_OWN_SCHEMA) else None, tuple(relations))


async def _compare(connection: Connection, catalog: Catalog, slots: dict[Ring, int]) -> None:
    [counts] = await rows(
        connection,
        catalog.statement(
            "SELECT (SELECT slot_count FROM {queue_ring_state}), (SELECT slot_count FROM {lease_ring_state}),"
            " (SELECT slot_count FROM {claim_ring_state})"
        ),
    )
    if counts != tuple(slots.values()):
        there, wanted = ("/".join(str(count) for count in each) for each in (counts, slots.values()))
        raise InstallationError(
            f"the queue in schema {quote(catalog.schema)} has {there} queue/lease/claim slots, the settings say {wanted}"
        )


def _some(relations: tuple[str, ...]) -> str:
    shown = ", ".join(relations[:3])
    return shown if len(relations) <= 3 else f"{shown}, …"
