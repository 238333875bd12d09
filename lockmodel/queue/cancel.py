"""Cancelling a job, wherever it is: ready, running or deferred.

Lock order, of a ready job:

1.  DELETE of the ready row, picked together with the lane's queue_claim_heads row FOR UPDATE SKIP LOCKED (ROW EXCLUSIVE on ready_entries
    and all its partitions, ROW SHARE on queue_claim_heads; both rows, to commit): a lane that a claimer holds is left to it;
2.  INSERT into the same slot's partition of done_entries (ROW EXCLUSIVE);
3.  UPDATE queue_lanes: the row, to commit.

Of a running job, after step 1 has found nothing:

1.  SELECT … FOR UPDATE SKIP LOCKED of the claim without a closure (ROW SHARE on lease_claims and all its partitions, ACCESS SHARE on
    lease_claim_closures and all of its; the row, to commit), and once more whether it has a closure by now;
2.  INSERT into the partition of done_entries that belongs to its ready row (ROW EXCLUSIVE);
3.  INSERT into the claim's partition of lease_claim_closures (ROW EXCLUSIVE);
4.  DELETE from leases (ROW EXCLUSIVE on it and all its partitions); of attempt_state too if it had a heartbeat.

Of a deferred job, after both have found nothing: DELETE from deferred_jobs, SKIP LOCKED (ROW EXCLUSIVE); read queue_ring_state (ACCESS
SHARE); INSERT into the current partition of done_entries (ROW EXCLUSIVE).

In bulk these follow one another in one transaction, in the order of ids. It then holds queue_lanes of one lane and waits for that of
another, as an enqueue does in an order of its own: the two can deadlock.
"""

from __future__ import annotations

from dataclasses import replace

from lockmodel.queue.catalog import Catalog, Connection, rows
from lockmodel.queue.closing import Done, Held, close, done_row, forget, still_open, write_done
from lockmodel.queue.lanes import take

_TAKE_READY = """
    WITH found AS MATERIALIZED (
        SELECT ready.ready_slot, ready.queue, ready.priority, ready.lane_seq
        FROM {ready_entries} AS ready
        JOIN {queue_claim_heads} AS head ON head.queue = ready.queue AND head.priority = ready.priority
        WHERE ready.job_id = %(job_id)s AND ready.lane_seq >= head.claim_seq
        FOR UPDATE SKIP LOCKED
    )
    DELETE FROM {ready_entries} AS ready USING found
    WHERE ready.ready_slot = found.ready_slot AND ready.queue = found.queue AND ready.priority = found.priority
      AND ready.lane_seq = found.lane_seq
    RETURNING ready.ready_slot, ready.queue, ready.priority, ready.lane_seq, ready.attempt, ready.run_lease,
              ready.unique_key, ready.payload::text, ready.enqueued_at
"""

_LOCK_RUNNING = """
    SELECT claim.claim_slot, claim.job_id, claim.run_lease, claim.ready_slot, claim.queue, claim.priority,
           claim.lane_seq, claim.attempt, claim.has_state, claim.lease_slot
    FROM {lease_claims} AS claim
    WHERE claim.job_id = %(job_id)s
      AND NOT EXISTS (SELECT FROM {lease_claim_closures} AS closure WHERE closure.claim_slot = claim.claim_slot
                      AND closure.job_id = claim.job_id AND closure.run_lease = claim.run_lease)
    ORDER BY claim.run_lease DESC LIMIT 1
    FOR UPDATE OF claim SKIP LOCKED
"""

_DELETE_LEASE = "DELETE FROM {leases} WHERE job_id = %(job_id)s AND run_lease = %(run_lease)s"

_TAKE_DEFERRED = """
    DELETE FROM {deferred_jobs}
    WHERE job_id IN (SELECT job_id FROM {deferred_jobs} WHERE job_id = %(job_id)s FOR UPDATE SKIP LOCKED)
    RETURNING queue, priority, lane_seq, attempt, run_lease, unique_key, payload::text, enqueued_at
"""

_QUEUE_SLOT = "SELECT current_slot FROM {queue_ring_state}"


async def cancel(connection: Connection, catalog: Catalog, job_id: int) -> bool:
    """Cancel one job, in the caller's transaction. False: there is no such live job that nobody else has hold of."""
    if taken := await rows(connection, catalog.statement(_TAKE_READY), {"job_id": job_id}):
        [(slot, queue, priority, seq, attempt, run_lease, key, payload, enqueued_at)] = taken
        done = Done(queue, priority, seq, job_id, "cancelled", attempt, run_lease, None, key, payload, enqueued_at)
        await write_done(connection, catalog, slot, [done])
        await take(connection, catalog, queue, priority, 1)
        return True
    held = [Held(*row) for row in await rows(connection, catalog.statement(_LOCK_RUNNING), {"job_id": job_id})]
    if held := await still_open(connection, catalog, held):
        [claim] = held
        await write_done(connection, catalog, claim.ready_slot, [done_row(claim, "cancelled")])
        await close(connection, catalog, held, "cancelled")
        await rows(connection, catalog.statement(_DELETE_LEASE), {"job_id": job_id, "run_lease": claim.run_lease})
        await forget(connection, catalog, [replace(claim, lease_slot=None)])
        return True
    if taken := await rows(connection, catalog.statement(_TAKE_DEFERRED), {"job_id": job_id}):
        [(queue, priority, seq, attempt, run_lease, key, payload, enqueued_at)] = taken
        [(slot,)] = await rows(connection, catalog.statement(_QUEUE_SLOT))
        done = Done(queue, priority, seq, job_id, "cancelled", attempt, run_lease, None, key, payload, enqueued_at)
        await write_done(connection, catalog, slot, [done])
        return True
    return False
