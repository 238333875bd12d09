"""Rotating and pruning the three rings.

A ring is written in its current slot. Rotate moves on to the next one, if that is empty; prune empties the oldest one that is not current,
if nothing in it is needed any more. A writer reads which slot is current without a lock, so it may write into one that has just stopped
being so; that is why prune looks again once it has the partitions to itself, and rotate does not trust a slot to be empty.

Lock order of rotate: the row of the ring's state FOR UPDATE; read the partitions of the next slot (ACCESS SHARE); UPDATE the ring's state
(the row, held already), then the slot's row of the ring's slots.

Lock order of prune: the row of the ring's state FOR UPDATE; the oldest slot's row of the ring's slots FOR UPDATE; SET LOCAL lock_timeout =
'50ms'; LOCK TABLE … ACCESS EXCLUSIVE of the slot's partitions (ready_entries before done_entries, lease_claims before
lease_claim_closures); read what they hold (queue: leases and all its partitions too, ACCESS SHARE); TRUNCATE; queue: upsert
queue_terminal_rollups (ROW EXCLUSIVE; the rows, in the order of lanes). Where 50 ms are not enough the slot is left for another time.
"""

from __future__ import annotations

from typing import LiteralString

from psycopg import errors, sql

from lockmodel.queue.catalog import Catalog, Connection, Transaction, rows
from lockmodel.queue.jobs import PruneOutcome, Pruning, Ring, Rotation

_STATE: dict[Ring, LiteralString] = {
    Ring.QUEUE: "SELECT current_slot, generation, slot_count FROM {queue_ring_state} FOR UPDATE",
    Ring.LEASE: "SELECT current_slot, generation, slot_count FROM {lease_ring_state} FOR UPDATE",
    Ring.CLAIM: "SELECT current_slot, generation, slot_count FROM {claim_ring_state} FOR UPDATE",
}
_IN_USE: dict[Ring, LiteralString] = {
    Ring.QUEUE: "SELECT EXISTS (SELECT FROM {ready_entries_k}) OR EXISTS (SELECT FROM {done_entries_k})",
    Ring.LEASE: "SELECT EXISTS (SELECT FROM {leases_k})",
    Ring.CLAIM: "SELECT EXISTS (SELECT FROM {lease_claims_k}) OR EXISTS (SELECT FROM {lease_claim_closures_k})",
}
_TURN: dict[Ring, LiteralString] = {
    Ring.QUEUE: "UPDATE {queue_ring_state} SET current_slot = %(slot)s, generation = %(generation)s",
    Ring.LEASE: "UPDATE {lease_ring_state} SET current_slot = %(slot)s, generation = %(generation)s",
    Ring.CLAIM: "UPDATE {claim_ring_state} SET current_slot = %(slot)s, generation = %(generation)s",
}
_OPEN_SLOT: dict[Ring, LiteralString] = {
    Ring.QUEUE: "UPDATE {queue_ring_slots} SET generation = %(generation)s WHERE slot = %(slot)s",
    Ring.LEASE: "UPDATE {lease_ring_slots} SET generation = %(generation)s WHERE slot = %(slot)s",
    Ring.CLAIM: "UPDATE {claim_ring_slots} SET generation = %(generation)s WHERE slot = %(slot)s",
}
_OLDEST: dict[Ring, LiteralString] = {
    Ring.QUEUE: """SELECT slot FROM {queue_ring_slots} WHERE generation >= 0 AND slot <> %(current)s
                   ORDER BY generation LIMIT 1 FOR UPDATE""",
    Ring.LEASE: """SELECT slot FROM {lease_ring_slots} WHERE generation >= 0 AND slot <> %(current)s
                   ORDER BY generation LIMIT 1 FOR UPDATE""",
    Ring.CLAIM: """SELECT slot FROM {claim_ring_slots} WHERE generation >= 0 AND slot <> %(current)s
                   ORDER BY generation LIMIT 1 FOR UPDATE""",
}
_LOCK: dict[Ring, LiteralString] = {
    Ring.QUEUE: "LOCK TABLE {ready_entries_k}, {done_entries_k} IN ACCESS EXCLUSIVE MODE",
    Ring.LEASE: "LOCK TABLE {leases_k} IN ACCESS EXCLUSIVE MODE",
    Ring.CLAIM: "LOCK TABLE {lease_claims_k}, {lease_claim_closures_k} IN ACCESS EXCLUSIVE MODE",
}
_LIVE: dict[Ring, LiteralString] = {
    Ring.QUEUE: """
        SELECT (SELECT count(*) FROM {leases} WHERE ready_slot = %(slot)s)
             + (SELECT count(*) FROM {ready_entries_k} AS ready
                WHERE NOT EXISTS (SELECT FROM {done_entries_k} AS done WHERE done.ready_slot = ready.ready_slot
                                  AND done.queue = ready.queue AND done.priority = ready.priority
                                  AND done.lane_seq = ready.lane_seq))""",
    Ring.LEASE: "SELECT count(*) FROM {leases_k}",
    Ring.CLAIM: """
        SELECT count(*) FROM {lease_claims_k} AS claim
        WHERE NOT EXISTS (SELECT FROM {lease_claim_closures_k} AS closure WHERE closure.claim_slot = claim.claim_slot
                          AND closure.job_id = claim.job_id AND closure.run_lease = claim.run_lease)""",
}
_TRUNCATE: dict[Ring, LiteralString] = {
    Ring.QUEUE: "TRUNCATE {ready_entries_k}, {done_entries_k}",
    Ring.LEASE: "TRUNCATE {leases_k}",
    Ring.CLAIM: "TRUNCATE {lease_claims_k}, {lease_claim_closures_k}",
}

_SET_TIMEOUT = "SET LOCAL lock_timeout = '50ms'"

_TERMINAL = """
    SELECT queue, priority, count(*) FILTER (WHERE state = 'done'), count(*) FILTER (WHERE state = 'failed'),
           count(*) FILTER (WHERE state = 'cancelled')
    FROM {done_entries_k} GROUP BY queue, priority ORDER BY queue, priority
"""

_ROLL_UP = """
    INSERT INTO {queue_terminal_rollups} AS rollup (queue, priority, done_count, failed_count, cancelled_count)
    SELECT * FROM unnest(%(queues)s::text[], %(priorities)s::smallint[], %(done)s::bigint[], %(failed)s::bigint[],
                         %(cancelled)s::bigint[])
    ON CONFLICT (queue, priority) DO UPDATE
    SET done_count = rollup.done_count + EXCLUDED.done_count,
        failed_count = rollup.failed_count + EXCLUDED.failed_count,
        cancelled_count = rollup.cancelled_count + EXCLUDED.cancelled_count
"""


async def rotate(connection: Connection, catalog: Catalog, ring: Ring) -> Rotation:
    """Make the next slot of `ring` the current one, unless there is something in it."""
    [(current, generation, count)] = await rows(connection, catalog.statement(_STATE[ring]))
    slot = (current + 1) % count
    [(in_use,)] = await rows(connection, _at(catalog, _IN_USE[ring], slot))
    if in_use:
        return Rotation(ring, slot, False)
    parameters = {"slot": slot, "generation": generation + 1}
    await rows(connection, catalog.statement(_TURN[ring]), parameters)
    await rows(connection, catalog.statement(_OPEN_SLOT[ring]), parameters)
    return Rotation(ring, slot, True)


async def prune(transaction: Transaction, catalog: Catalog, ring: Ring) -> Pruning:
    """Empty the oldest slot of `ring` that is not current, unless something in it is needed or somebody uses it."""
    slot = None
    try:
        async with transaction() as connection:
            [(current, _, _)] = await rows(connection, catalog.statement(_STATE[ring]))
            oldest = await rows(connection, catalog.statement(_OLDEST[ring]), {"current": current})
            if not oldest:
                return Pruning(ring, PruneOutcome.EMPTY)
            [(slot,)] = oldest
            await rows(connection, catalog.statement(_SET_TIMEOUT))
            await rows(connection, _at(catalog, _LOCK[ring], slot))
            return await _empty(connection, catalog, ring, slot)
    except errors.LockNotAvailable:
        return Pruning(ring, PruneOutcome.BLOCKED, slot)


async def _empty(connection: Connection, catalog: Catalog, ring: Ring, slot: int) -> Pruning:
    """Truncate the locked partitions of `slot` if nothing in them is needed."""
    [(live,)] = await rows(connection, _at(catalog, _LIVE[ring], slot), {"slot": slot})
    if live:
        return Pruning(ring, PruneOutcome.LIVE, slot, live)
    [(in_use,)] = await rows(connection, _at(catalog, _IN_USE[ring], slot))
    if not in_use:
        return Pruning(ring, PruneOutcome.EMPTY, slot)
    terminal = await rows(connection, _at(catalog, _TERMINAL, slot)) if ring is Ring.QUEUE else []
    await rows(connection, _at(catalog, _TRUNCATE[ring], slot))
    if terminal:
        queues, priorities, done, failed, cancelled = (list(column) for column in zip(*terminal, strict=True))
        parameters = {"queues": queues, "priorities": priorities, "done": done}
        await rows(connection, catalog.statement(_ROLL_UP), {**parameters, "failed": failed, "cancelled": cancelled})
    return Pruning(ring, PruneOutcome.PRUNED, slot)


def _at(catalog: Catalog, template: LiteralString, slot: int) -> sql.Composed:
    """`template`, which names partitions of one ring only."""
    return catalog.statement(template, queue_slot=slot, lease_slot=slot, claim_slot=slot)
