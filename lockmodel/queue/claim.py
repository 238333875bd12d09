"""Claiming jobs: from one lane of one stripe in one transaction, and from one stripe after another.

Whoever holds a lane's claim head has the lane to itself; the others pass it over. The jobs themselves are never locked or changed: the head
moves past them, and a claim is a new row.

Lock order of the claim of one stripe:

1.  pick the lane (one statement): ROW SHARE on queue_claim_heads, ACCESS SHARE on queue_enqueue_heads, on ready_entries and all its
    partitions and on claim_ring_state, then the row of queue_claim_heads FOR UPDATE SKIP LOCKED, to commit;
2.  read the lane's next jobs (ACCESS SHARE on ready_entries and all its partitions, held already);
3.  UPDATE queue_claim_heads: the row, held already;
4.  INSERT into the current partition of lease_claims (ROW EXCLUSIVE on that partition alone);
5.  UPDATE queue_lanes: the row, to commit. This alone can wait for another transaction's row.

With `per_stripe` that is a transaction, so none holds the rows of two lanes. With `all_stripes` one transaction does it for stripe after
stripe, from a stripe that each claim chooses anew: it holds queue_lanes of one and waits for queue_lanes of the next, while an enqueue
may hold that and wait for this one.
"""

from __future__ import annotations

from collections.abc import Sequence

from lockmodel.queue.catalog import Catalog, Connection, Transaction, rows
from lockmodel.queue.jobs import Claim, ClaimedBatch
from lockmodel.queue.lanes import take

# The lane's first job is looked for in a scalar subquery and not in a join: when another claimer has just moved the head, Postgres evaluates
# the subquery again for the new head, whereas it would only ask whether the job that it had joined is still good.
_PICK = """
    SELECT head.priority, head.claim_seq, enqueued.next_seq, ring.current_slot
    FROM {queue_claim_heads} AS head
    JOIN {queue_enqueue_heads} AS enqueued ON enqueued.queue = head.queue AND enqueued.priority = head.priority
    CROSS JOIN {claim_ring_state} AS ring
    WHERE head.queue = %(queue)s AND head.claim_seq < enqueued.next_seq
      AND (SELECT true FROM {ready_entries} AS ready
           WHERE ready.queue = head.queue AND ready.priority = head.priority AND ready.lane_seq >= head.claim_seq
           LIMIT 1)
    ORDER BY head.priority LIMIT 1
    FOR UPDATE OF head SKIP LOCKED
"""

_READ = """
    SELECT job_id, run_lease + 1, ready_slot, lane_seq, attempt + 1, payload, unique_key, enqueued_at
    FROM {ready_entries}
    WHERE queue = %(queue)s AND priority = %(priority)s AND lane_seq >= %(claim_seq)s AND lane_seq < %(next_seq)s
    ORDER BY lane_seq LIMIT %(limit)s
"""

_ADVANCE = (
    "UPDATE {queue_claim_heads} SET claim_seq = %(claim_seq)s WHERE queue = %(queue)s AND priority = %(priority)s"
)

_INSERT = """
    INSERT INTO {lease_claims_k} (claim_slot, job_id, run_lease, ready_slot, queue, priority, lane_seq, attempt,
                                  claimed_at, deadline_at)
    SELECT %(slot)s::integer, job.job_id, job.run_lease, job.ready_slot, %(queue)s, %(priority)s, job.lane_seq,
           job.attempt, statement_timestamp(), statement_timestamp() + %(deadline_s)s::float8 * interval '1 second'
    FROM unnest(%(ids)s::bigint[], %(run_leases)s::bigint[], %(ready_slots)s::integer[], %(seqs)s::bigint[],
                %(attempts)s::integer[])
         AS job (job_id, run_lease, ready_slot, lane_seq, attempt)
    RETURNING deadline_at
"""


async def claim_lane(
    connection: Connection, catalog: Catalog, queue: str, limit: int, deadline_s: float | None
) -> list[Claim]:
    """Claim up to `limit` jobs of the best free lane of the physical queue, in the caller's transaction."""
    picked = await rows(connection, catalog.statement(_PICK), {"queue": queue})
    if not picked:
        return []
    [(priority, claim_seq, next_seq, slot)] = picked
    lane = {"queue": queue, "priority": priority}
    jobs = await rows(
        connection, catalog.statement(_READ), {**lane, "claim_seq": claim_seq, "next_seq": next_seq, "limit": limit}
    )
    # The numbers in between belonged to jobs that were cancelled.
    claim_seq = jobs[-1][3] + 1 if len(jobs) == limit else next_seq
    await rows(connection, catalog.statement(_ADVANCE), {**lane, "claim_seq": claim_seq})
    if not jobs:
        return []
    ids, run_leases, ready_slots, seqs, attempts, *_ = zip(*jobs, strict=True)
    parameters = {
        **lane,
        "slot": slot,
        "deadline_s": deadline_s,
        "ids": list(ids),
        "run_leases": list(run_leases),
        "ready_slots": list(ready_slots),
        "seqs": list(seqs),
        "attempts": list(attempts),
    }
    [(deadline_at,), *_] = await rows(connection, catalog.statement(_INSERT, claim_slot=slot), parameters)
    await take(connection, catalog, queue, priority, len(jobs))
    return [
        Claim(
            job_id=job_id,
            run_lease=run_lease,
            claim_slot=slot,
            queue=queue,
            priority=priority,
            lane_seq=lane_seq,
            attempt=attempt,
            payload=payload,
            unique_key=unique_key,
            enqueued_at=enqueued_at,
            deadline_at=deadline_at,
        )
        for job_id, run_lease, _, lane_seq, attempt, payload, unique_key, enqueued_at in jobs
    ]


async def claim_per_stripe(
    transaction: Transaction, catalog: Catalog, queues: Sequence[str], limit: int, deadline_s: float | None
) -> ClaimedBatch:
    """Claim up to `limit` jobs from `queues`, each visited once in a transaction of its own.

    A claim that is committed is never dropped: where a later stripe fails, the batch is what has been claimed by then.
    """
    claims: list[Claim] = []
    for queue in queues:
        try:
            async with transaction() as connection:
                more = await claim_lane(connection, catalog, queue, limit - len(claims), deadline_s)
        except Exception as error:
            if not claims:
                raise
            return ClaimedBatch(tuple(claims), error)
        # Only now, after the commit, are they ours.
        claims += more
        if len(claims) == limit:
            break
    return ClaimedBatch(tuple(claims))


async def claim_all_stripes(
    transaction: Transaction, catalog: Catalog, queues: Sequence[str], limit: int, deadline_s: float | None
) -> ClaimedBatch:
    """Claim up to `limit` jobs from `queues` in one transaction, which keeps the lanes of all of them locked."""
    claims: list[Claim] = []
    async with transaction() as connection:
        for queue in queues:
            claims += await claim_lane(connection, catalog, queue, limit - len(claims), deadline_s)
            if len(claims) == limit:
                break
    return ClaimedBatch(tuple(claims))
