"""Putting jobs into their lanes: the way of every job into ready_entries, whether new, retried, promoted or rescued.

A lane is one priority of one physical queue. Its jobs are numbered by its enqueue head without gaps, and in the order of their commits,
since whoever has reserved numbers holds the head to the end of the transaction. So a claimer that has read the head knows that all jobs
before it are there to be seen.

Lock order, lanes in the order of (physical queue, priority), byte by byte:

1.  for each lane: INSERT … ON CONFLICT DO NOTHING into queue_lanes, queue_enqueue_heads and queue_claim_heads (ROW EXCLUSIVE; a row only
    if it is new, but the statement waits for whoever has an uncommitted update of it), then
    UPDATE queue_enqueue_heads: the row, to commit;
2.  read queue_ring_state (ACCESS SHARE), and take ids from the sequence;
3.  INSERT or COPY into the current partition of ready_entries (ROW EXCLUSIVE on that partition alone);
4.  one UPDATE of queue_lanes: the rows of all lanes, to commit, in the order of lanes.

An UPDATE of several rows visits them as its plan happens to. So the UPDATE of step 4 has a subquery lock its rows in order first. Two of
these transactions could not deadlock there anyway, as whoever comes second waits at step 1; one that comes from elsewhere could.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg import sql

from lockmodel.queue.catalog import Catalog, Connection, rows

_ENSURE = (
    "INSERT INTO {queue_lanes} (queue, priority) VALUES (%(queue)s, %(priority)s) ON CONFLICT DO NOTHING",
    "INSERT INTO {queue_enqueue_heads} (queue, priority) VALUES (%(queue)s, %(priority)s) ON CONFLICT DO NOTHING",
    "INSERT INTO {queue_claim_heads} (queue, priority) VALUES (%(queue)s, %(priority)s) ON CONFLICT DO NOTHING",
)

_RESERVE = """
    UPDATE {queue_enqueue_heads} SET next_seq = next_seq + %(count)s
    WHERE queue = %(queue)s AND priority = %(priority)s
    RETURNING next_seq - %(count)s
"""

_PLACE = """
    SELECT current_slot, ARRAY(SELECT nextval(%(sequence)s::text::regclass) FROM generate_series(1, %(count)s::integer)),
           statement_timestamp()
    FROM {queue_ring_state}
"""

_COPY = sql.SQL(
    "COPY {} (ready_slot, queue, priority, lane_seq, job_id, attempt, run_lease, unique_key, payload, enqueued_at)"
    " FROM STDIN"
)

_INSERT = """
    INSERT INTO {ready_entries_k}
           (ready_slot, queue, priority, lane_seq, job_id, attempt, run_lease, unique_key, payload, enqueued_at)
    SELECT %(slot)s::integer, job.queue, job.priority, job.lane_seq, job.job_id, job.attempt, job.run_lease,
           job.unique_key, job.payload::json, job.enqueued_at
    FROM unnest(%(queues)s::text[], %(priorities)s::smallint[], %(seqs)s::bigint[], %(ids)s::bigint[],
                %(attempts)s::integer[], %(run_leases)s::bigint[], %(keys)s::bytea[], %(payloads)s::text[],
                %(times)s::timestamptz[])
         AS job (queue, priority, lane_seq, job_id, attempt, run_lease, unique_key, payload, enqueued_at)
"""

_COUNT = """
    WITH batch AS MATERIALIZED (
        SELECT * FROM unnest(%(queues)s::text[], %(priorities)s::smallint[], %(counts)s::bigint[])
                      AS batch (queue, priority, added)
    ), locked AS MATERIALIZED (
        SELECT lane.queue, lane.priority, batch.added
        FROM {queue_lanes} AS lane JOIN batch ON lane.queue = batch.queue AND lane.priority = batch.priority
        ORDER BY lane.queue, lane.priority FOR UPDATE OF lane
    )
    UPDATE {queue_lanes} AS lane SET available_count = lane.available_count + locked.added
    FROM locked WHERE lane.queue = locked.queue AND lane.priority = locked.priority
"""

_TAKE = """
    UPDATE {queue_lanes} SET available_count = available_count - %(count)s
    WHERE queue = %(queue)s AND priority = %(priority)s
"""


@dataclass(frozen=True)
class Entry:
    """A job on its way into a lane; `job_id` and `enqueued_at` are None for a new one, `payload` is JSON text."""

    queue: str
    priority: int
    payload: str
    unique_key: bytes | None
    job_id: int | None = None
    attempt: int = 0
    run_lease: int = 0
    enqueued_at: datetime | None = None


async def append(
    connection: Connection, catalog: Catalog, entries: Sequence[Entry], *, copy: bool = False
) -> list[int]:
    """Put `entries` at the end of their lanes, in the caller's transaction; returns the ids of their jobs, in their order.

    `copy`: by COPY rather than INSERT, which is faster for hundreds of jobs.
    """
    if not entries:
        return []
    lanes: dict[tuple[str, int], list[int]] = defaultdict(list)
    for index, entry in enumerate(entries):
        lanes[entry.queue, entry.priority].append(index)
    ordered = sorted(lanes)
    seqs = [0] * len(entries)
    for queue, priority in ordered:
        lane = {"queue": queue, "priority": priority}
        for ensure in _ENSURE:
            await rows(connection, catalog.statement(ensure), lane)
        members = lanes[queue, priority]
        [(first,)] = await rows(connection, catalog.statement(_RESERVE), {**lane, "count": len(members)})
        for offset, index in enumerate(members):
            seqs[index] = first + offset

    count = sum(entry.job_id is None for entry in entries)
    [(slot, new, now)] = await rows(
        connection, catalog.statement(_PLACE), {"sequence": catalog.sequence, "count": count}
    )
    fresh = iter(new)
    ids = [next(fresh) if entry.job_id is None else entry.job_id for entry in entries]
    times = [entry.enqueued_at or now for entry in entries]
    if copy:
        statement = _COPY.format(catalog.partition("ready_entries", slot))
        async with connection.cursor().copy(statement) as stream:
            for entry, seq, job_id, time in zip(entries, seqs, ids, times, strict=True):
                key, payload = entry.unique_key, entry.payload
                lease = (job_id, entry.attempt, entry.run_lease)
                await stream.write_row((slot, entry.queue, entry.priority, seq, *lease, key, payload, time))
    else:
        parameters = {
            "slot": slot,
            "queues": [entry.queue for entry in entries],
            "priorities": [entry.priority for entry in entries],
            "seqs": seqs,
            "ids": ids,
            "attempts": [entry.attempt for entry in entries],
            "run_leases": [entry.run_lease for entry in entries],
            "keys": [entry.unique_key for entry in entries],
            "payloads": [entry.payload for entry in entries],
            "times": times,
        }
        await rows(connection, catalog.statement(_INSERT, queue_slot=slot), parameters)

    counts = [len(lanes[lane]) for lane in ordered]
    parameters = {"queues": [q for q, _ in ordered], "priorities": [p for _, p in ordered], "counts": counts}
    await rows(connection, catalog.statement(_COUNT), parameters)
    return ids


async def take(connection: Connection, catalog: Catalog, queue: str, priority: int, count: int) -> None:
    """Note that `count` jobs of a lane are no longer waiting in it."""
    await rows(connection, catalog.statement(_TAKE), {"queue": queue, "priority": priority, "count": count})
