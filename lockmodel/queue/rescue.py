"""Taking jobs from workers that are dead, or over their deadline.

A worker that is alive after all finds its claim closed: its completion is ignored, and its heartbeat says so.

Lock order:

1.  SELECT … FOR UPDATE SKIP LOCKED of the claims without a closure (ROW SHARE on lease_claims and all its partitions, ACCESS SHARE on
    lease_claim_closures and all of its, and on attempt_state; the rows, to commit);
2.  INSERT into the same partitions of lease_claim_closures (ROW EXCLUSIVE), of those that had no heartbeat meanwhile;
3.  DELETE the ready rows (ROW EXCLUSIVE on their partitions of ready_entries; the rows), and write done rows for those that have used up
    their attempts (ROW EXCLUSIVE on the partitions of done_entries);
4.  only for claims that had a heartbeat or a lease: DELETE from attempt_state and leases (ROW EXCLUSIVE);
5.  INSERT into deferred_jobs (ROW EXCLUSIVE), or `lanes.append`.
"""

from __future__ import annotations

from typing import LiteralString

from lockmodel.queue.catalog import Catalog, Connection, rows
from lockmodel.queue.closing import Held, by_slot, close, defer, done_row, forget, take_jobs, write_done
from lockmodel.queue.jobs import Rescued
from lockmodel.queue.lanes import append
from lockmodel.queue.settings import Settings

_STALE = """
    SELECT statement_timestamp() - %(timeout_s)s::float8 * interval '1 second',
           claim.claim_slot, claim.job_id, claim.run_lease, claim.ready_slot, claim.queue, claim.priority,
           claim.lane_seq, claim.attempt, claim.has_state, claim.lease_slot
    FROM {lease_claims} AS claim
    LEFT JOIN {attempt_state} AS state ON state.job_id = claim.job_id AND state.run_lease = claim.run_lease
    WHERE coalesce(state.heartbeat_at, claim.claimed_at)
          < statement_timestamp() - %(timeout_s)s::float8 * interval '1 second'
      AND NOT EXISTS (SELECT FROM {lease_claim_closures} AS closure WHERE closure.claim_slot = claim.claim_slot
                      AND closure.job_id = claim.job_id AND closure.run_lease = claim.run_lease)
    ORDER BY claim.claim_slot, claim.job_id, claim.run_lease LIMIT %(limit)s
    FOR UPDATE OF claim SKIP LOCKED
"""

_EXPIRED = """
    SELECT NULL,
           claim.claim_slot, claim.job_id, claim.run_lease, claim.ready_slot, claim.queue, claim.priority,
           claim.lane_seq, claim.attempt, claim.has_state, claim.lease_slot
    FROM {lease_claims} AS claim
    WHERE claim.deadline_at < statement_timestamp()
      AND NOT EXISTS (SELECT FROM {lease_claim_closures} AS closure WHERE closure.claim_slot = claim.claim_slot
                      AND closure.job_id = claim.job_id AND closure.run_lease = claim.run_lease)
    ORDER BY claim.claim_slot, claim.job_id, claim.run_lease LIMIT %(limit)s
    FOR UPDATE OF claim SKIP LOCKED
"""


async def rescue_stale(connection: Connection, catalog: Catalog, settings: Settings, timeout_s: float) -> Rescued:
    """Rescue the jobs of claims that gave no sign of life for `timeout_s` seconds."""
    return await _rescue(connection, catalog, settings, _STALE, "stale", "no heartbeat", timeout_s)


async def rescue_expired(connection: Connection, catalog: Catalog, settings: Settings) -> Rescued:
    """Rescue the jobs of claims whose deadline is past."""
    return await _rescue(connection, catalog, settings, _EXPIRED, "expired", "deadline exceeded", 0)


async def _rescue(
    connection: Connection,
    catalog: Catalog,
    settings: Settings,
    statement: LiteralString,
    outcome: str,
    reason: str,
    timeout_s: float,
) -> Rescued:
    parameters = {"timeout_s": timeout_s, "limit": settings.rescue_batch}
    found = await rows(connection, catalog.statement(statement), parameters)
    if not found:
        return Rescued()
    cutoff = found[0][0]
    held = [Held(*row[1:]) for row in found]
    closed = await close(connection, catalog, held, outcome, cutoff=cutoff)
    jobs = await take_jobs(connection, catalog, closed)
    most = settings.attempts_max
    spent = [(each, entry) for each, entry in jobs if most is not None and each.attempt >= most]
    alive = [(each, entry) for each, entry in jobs if most is None or each.attempt < most]
    for slot, members in by_slot((each.ready_slot, (each, entry)) for each, entry in spent):
        failed = [done_row(each, "failed", f"{reason} in attempt {each.attempt}", entry) for each, entry in members]
        await write_done(connection, catalog, slot, failed)
    await forget(connection, catalog, closed)
    ids = tuple(sorted(each.job_id for each, _ in alive))
    gone = tuple(sorted(each.job_id for each, _ in spent))
    if settings.rescue_delay_s:
        aside = [(each, entry, each.attempt) for each, entry in alive]
        await defer(connection, catalog, aside, settings.rescue_delay_s)
        return Rescued(deferred=ids, failed=gone)
    await append(connection, catalog, sorted((entry for _, entry in alive), key=lambda entry: entry.job_id or 0))
    return Rescued(ready=ids, failed=gone)
