"""How many jobs are in each state, as of one moment: one statement, which takes ACCESS SHARE on every table that jobs are in."""

from __future__ import annotations

from lockmodel.queue.catalog import Catalog, Connection, rows
from lockmodel.queue.jobs import Counts

# Stripes that the settings no longer name are counted too: their jobs are still there.
_COUNTS = """
    WITH stripe AS MATERIALIZED (
        SELECT queue, sum(available_count) AS available FROM {queue_lanes}
        WHERE queue = %(name)s
           OR (starts_with(queue, %(name)s || '#') AND substr(queue, length(%(name)s) + 2) ~ '^[0-9]+$')
        GROUP BY queue
    ), terminal AS MATERIALIZED (
        SELECT count(*) FILTER (WHERE state = 'done') AS done, count(*) FILTER (WHERE state = 'failed') AS failed,
               count(*) FILTER (WHERE state = 'cancelled') AS cancelled
        FROM {done_entries} WHERE queue IN (SELECT queue FROM stripe)
    ), pruned AS MATERIALIZED (
        SELECT coalesce(sum(done_count), 0) AS done, coalesce(sum(failed_count), 0) AS failed,
               coalesce(sum(cancelled_count), 0) AS cancelled
        FROM {queue_terminal_rollups} WHERE queue IN (SELECT queue FROM stripe)
    )
    SELECT (SELECT coalesce(sum(available), 0) FROM stripe)::bigint,
           (SELECT count(*) FROM {lease_claims} AS claim WHERE queue IN (SELECT queue FROM stripe)
            AND NOT EXISTS (SELECT FROM {lease_claim_closures} AS closure WHERE closure.claim_slot = claim.claim_slot
                            AND closure.job_id = claim.job_id AND closure.run_lease = claim.run_lease)),
           (SELECT count(*) FROM {deferred_jobs} WHERE queue IN (SELECT queue FROM stripe)),
           (terminal.done + pruned.done)::bigint, (terminal.failed + pruned.failed)::bigint,
           (terminal.cancelled + pruned.cancelled)::bigint
    FROM terminal, pruned
"""


async def counts(connection: Connection, catalog: Catalog, name: str) -> Counts:
    """The counts of the logical queue `name`; all zero for one that never had a job."""
    [found] = await rows(connection, catalog.statement(_COUNTS), {"name": name})
    return Counts(*found)
