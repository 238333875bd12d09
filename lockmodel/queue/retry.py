"""Bringing jobs back into their lanes: failed ones on request, deferred ones when they are due.

Lock order of retry: DELETE of the failed job's done row, picked FOR UPDATE SKIP LOCKED (ROW EXCLUSIVE on done_entries and all its
partitions; the row), then `lanes.append`. In bulk one job follows another in one transaction, in the order of ids. It then holds
queue_lanes of one lane and waits for the heads of the next, which an enqueue may hold that waits for queue_lanes; and a claim may have
moved the next one's claim head (which makes INSERT … ON CONFLICT wait) and wait for queue_lanes: both can deadlock.

Lock order of promote: DELETE of the due rows of deferred_jobs, picked FOR UPDATE SKIP LOCKED (ROW EXCLUSIVE; the rows), then
`lanes.append` of all together.
"""

from __future__ import annotations

from lockmodel.queue.catalog import Catalog, Connection, rows
from lockmodel.queue.lanes import Entry, append

_TAKE_FAILED = """
    WITH found AS MATERIALIZED (
        SELECT ready_slot, queue, priority, lane_seq FROM {done_entries}
        WHERE job_id = %(job_id)s AND state = 'failed'
        FOR UPDATE SKIP LOCKED
    )
    DELETE FROM {done_entries} AS done USING found
    WHERE done.ready_slot = found.ready_slot AND done.queue = found.queue AND done.priority = found.priority
      AND done.lane_seq = found.lane_seq
    RETURNING done.queue, done.priority, done.payload::text, done.unique_key, done.run_lease, done.enqueued_at
"""

_TAKE_DUE = """
    DELETE FROM {deferred_jobs}
    WHERE job_id IN (SELECT job_id FROM {deferred_jobs} WHERE run_at <= statement_timestamp()
                     ORDER BY run_at, job_id LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
    RETURNING queue, priority, payload::text, unique_key, job_id, attempt, run_lease, enqueued_at
"""


async def retry(connection: Connection, catalog: Catalog, job_id: int) -> bool:
    """Make a failed job ready again, its attempts forgotten. False: there is no such job that has failed."""
    taken = await rows(connection, catalog.statement(_TAKE_FAILED), {"job_id": job_id})
    for queue, priority, payload, key, run_lease, enqueued_at in taken:
        entry = Entry(queue, priority, payload, key, job_id, 0, run_lease, enqueued_at)
        await append(connection, catalog, [entry])
    return bool(taken)


async def promote(connection: Connection, catalog: Catalog, limit: int) -> list[int]:
    """Make up to `limit` deferred jobs ready whose time has come; returns their ids, ascending."""
    taken = await rows(connection, catalog.statement(_TAKE_DUE), {"limit": limit})
    entries = sorted((Entry(*row) for row in taken), key=lambda entry: entry.job_id or 0)
    return await append(connection, catalog, entries)
