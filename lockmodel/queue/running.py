"""Keeping attempts alive: heartbeats, and turning a claim into a lease.

Lock order of heartbeat:

1.  SELECT … FOR UPDATE of the claims, as complete does, in the order (claim_slot, job_id, run_lease); read their closures (ACCESS SHARE
    on the partitions of lease_claim_closures);
2.  INSERT … ON CONFLICT DO UPDATE into attempt_state (ROW EXCLUSIVE; the rows, in the same order);
3.  at a claim's first heartbeat, UPDATE of its row in lease_claims (ROW EXCLUSIVE on the partition).

`by_job` keeps the historical order, (job_id, run_lease), in one SELECT (ROW SHARE on lease_claims and all its partitions). That is another
order than that of complete where a batch spans claim slots, so the two can deadlock: specs/queue/heartbeat-by-job.yaml.

Lock order of ensure_running:

1.  SELECT … FOR UPDATE of the claims, as complete does; read their closures (ACCESS SHARE on the partitions);
2.  read lease_ring_state (ACCESS SHARE) and INSERT into the current partition of leases (ROW EXCLUSIVE on that partition alone);
3.  UPDATE lease_claims (ROW EXCLUSIVE on the partitions; the rows, held already).
"""

from __future__ import annotations

from collections.abc import Sequence

from lockmodel.queue.catalog import Catalog, Connection, rows
from lockmodel.queue.closing import Held, by_slot, columns, lock, still_open
from lockmodel.queue.jobs import Claim

_LOCK_BY_JOB = """
    SELECT claim.claim_slot, claim.job_id, claim.run_lease, claim.ready_slot, claim.queue, claim.priority,
           claim.lane_seq, claim.attempt, claim.has_state, claim.lease_slot
    FROM {lease_claims} AS claim
    JOIN unnest(%(slots)s::integer[], %(ids)s::bigint[], %(run_leases)s::bigint[])
         AS wanted (claim_slot, job_id, run_lease)
      ON claim.claim_slot = wanted.claim_slot AND claim.job_id = wanted.job_id AND claim.run_lease = wanted.run_lease
    ORDER BY claim.job_id, claim.run_lease FOR UPDATE OF claim
"""

_BEAT = """
    INSERT INTO {attempt_state} (job_id, run_lease, heartbeat_at)
    SELECT wanted.job_id, wanted.run_lease, statement_timestamp()
    FROM unnest(%(ids)s::bigint[], %(run_leases)s::bigint[]) AS wanted (job_id, run_lease)
    ON CONFLICT (job_id, run_lease) DO UPDATE SET heartbeat_at = EXCLUDED.heartbeat_at
"""

_MARK = """
    UPDATE {lease_claims_k} AS claim SET has_state = true
    FROM unnest(%(ids)s::bigint[], %(run_leases)s::bigint[]) AS wanted (job_id, run_lease)
    WHERE claim.claim_slot = %(slot)s AND claim.job_id = wanted.job_id AND claim.run_lease = wanted.run_lease
"""

_LEASE_SLOT = "SELECT current_slot FROM {lease_ring_state}"

_LEASE = """
    INSERT INTO {leases_k} (lease_slot, job_id, run_lease, ready_slot, queue, priority, lane_seq)
    SELECT %(slot)s::integer, wanted.job_id, wanted.run_lease, wanted.ready_slot, wanted.queue, wanted.priority,
           wanted.lane_seq
    FROM unnest(%(ids)s::bigint[], %(run_leases)s::bigint[], %(ready_slots)s::integer[], %(queues)s::text[],
                %(priorities)s::smallint[], %(seqs)s::bigint[])
         AS wanted (job_id, run_lease, ready_slot, queue, priority, lane_seq)
"""

_MATERIALIZE = """
    UPDATE {lease_claims_k} AS claim SET lease_slot = %(lease_slot)s
    FROM unnest(%(ids)s::bigint[], %(run_leases)s::bigint[]) AS wanted (job_id, run_lease)
    WHERE claim.claim_slot = %(slot)s AND claim.job_id = wanted.job_id AND claim.run_lease = wanted.run_lease
"""


async def heartbeat(
    connection: Connection, catalog: Catalog, claims: Sequence[Claim], *, by_job: bool = False
) -> list[Held]:
    """Note that `claims` are alive; returns those that are still open."""
    held = await (_lock_by_job if by_job else lock)(connection, catalog, claims)
    alive = await still_open(connection, catalog, held)
    if alive:
        await rows(connection, catalog.statement(_BEAT), columns([(each.job_id, each.run_lease) for each in alive]))
    for slot, first in by_slot(
        (each.claim_slot, (each.job_id, each.run_lease)) for each in alive if not each.has_state
    ):
        await rows(connection, catalog.statement(_MARK, claim_slot=slot), {"slot": slot, **columns(first)})
    return alive


async def _lock_by_job(connection: Connection, catalog: Catalog, claims: Sequence[Claim]) -> list[Held]:
    keys = sorted({(claim.job_id, claim.run_lease, claim.claim_slot) for claim in claims})
    parameters = {**columns([key[:2] for key in keys]), "slots": [key[2] for key in keys]}
    return [Held(*row) for row in await rows(connection, catalog.statement(_LOCK_BY_JOB), parameters)]


async def ensure_running(connection: Connection, catalog: Catalog, claims: Sequence[Claim]) -> list[Held]:
    """Give `claims` a lease where they have none; returns those that are still open."""
    alive = await still_open(connection, catalog, await lock(connection, catalog, claims))
    without = [each for each in alive if each.lease_slot is None]
    if not without:
        return alive
    [(lease_slot,)] = await rows(connection, catalog.statement(_LEASE_SLOT))
    parameters = {
        "slot": lease_slot,
        **columns([(each.job_id, each.run_lease) for each in without]),
        "ready_slots": [each.ready_slot for each in without],
        "queues": [each.queue for each in without],
        "priorities": [each.priority for each in without],
        "seqs": [each.lane_seq for each in without],
    }
    await rows(connection, catalog.statement(_LEASE, lease_slot=lease_slot), parameters)
    for slot, members in by_slot((each.claim_slot, (each.job_id, each.run_lease)) for each in without):
        parameters = {"slot": slot, "lease_slot": lease_slot, **columns(members)}
        await rows(connection, catalog.statement(_MATERIALIZE, claim_slot=slot), parameters)
    return alive
