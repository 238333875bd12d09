"""The end of an attempt: a closure beside its claim, and the job done, failed or put elsewhere.

A claim is open while it has no closure. Whoever wants to end an attempt, or keep it alive, first holds the claim's row; so of a worker and a
rescue only one gets to write the closure, and the other finds it written. This is looked up in a statement after the one that locked: a
statement that had to wait for the row still sees the closures of before.

A ready row stays in its partition until that is pruned, and a done row beside it says that it is over. Where the job goes on elsewhere
(deferred, ready again) or keeps what it needs to be retried (failed), the ready row is deleted instead. So a ready row without a done row is
one that is still needed.

Lock order of complete, fail and snooze:

1.  SELECT … FOR UPDATE of the claims (ROW SHARE on the partitions of lease_claims that they are in; the rows, to commit, waiting if need
    be), in the order (claim_slot, job_id, run_lease);
2.  INSERT … ON CONFLICT DO NOTHING into the same partitions of lease_claim_closures (ROW EXCLUSIVE);
3.  fail and snooze: DELETE the ready row (ROW EXCLUSIVE on that partition of ready_entries; the row);
4.  complete and fail: INSERT into the partitions of done_entries that belong to the ready rows (ROW EXCLUSIVE), in the order of slots;
5.  only for claims that had a heartbeat or a lease: DELETE from attempt_state, and from the lease's partition of leases (ROW EXCLUSIVE;
    the rows, which nobody can hold without holding the claim);
6.  snooze: INSERT into deferred_jobs (ROW EXCLUSIVE).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeVar

from lockmodel.queue.catalog import Catalog, Connection, Row, rows
from lockmodel.queue.jobs import Claim
from lockmodel.queue.lanes import Entry

_T = TypeVar("_T")

_LOCK = """
    SELECT claim.claim_slot, claim.job_id, claim.run_lease, claim.ready_slot, claim.queue, claim.priority,
           claim.lane_seq, claim.attempt, claim.has_state, claim.lease_slot
    FROM {lease_claims_k} AS claim
    JOIN unnest(%(ids)s::bigint[], %(run_leases)s::bigint[]) AS wanted (job_id, run_lease)
      ON claim.job_id = wanted.job_id AND claim.run_lease = wanted.run_lease
    WHERE claim.claim_slot = %(slot)s
    ORDER BY claim.job_id, claim.run_lease FOR UPDATE OF claim
"""

_STILL_OPEN = """
    SELECT wanted.job_id, wanted.run_lease
    FROM unnest(%(ids)s::bigint[], %(run_leases)s::bigint[]) AS wanted (job_id, run_lease)
    WHERE NOT EXISTS (SELECT FROM {lease_claim_closures_k} AS closure WHERE closure.claim_slot = %(slot)s
                      AND closure.job_id = wanted.job_id AND closure.run_lease = wanted.run_lease)
"""

_CLOSE = """
    INSERT INTO {lease_claim_closures_k} (claim_slot, job_id, run_lease, outcome)
    SELECT %(slot)s::integer, wanted.job_id, wanted.run_lease, %(outcome)s
    FROM unnest(%(ids)s::bigint[], %(run_leases)s::bigint[]) AS wanted (job_id, run_lease)
    ON CONFLICT DO NOTHING
    RETURNING job_id, run_lease
"""

_CLOSE_STALE = """
    INSERT INTO {lease_claim_closures_k} (claim_slot, job_id, run_lease, outcome)
    SELECT %(slot)s::integer, wanted.job_id, wanted.run_lease, %(outcome)s
    FROM unnest(%(ids)s::bigint[], %(run_leases)s::bigint[]) AS wanted (job_id, run_lease)
    WHERE NOT EXISTS (SELECT FROM {attempt_state} AS state WHERE state.job_id = wanted.job_id
                      AND state.run_lease = wanted.run_lease AND state.heartbeat_at >= %(cutoff)s)
    ON CONFLICT DO NOTHING
    RETURNING job_id, run_lease
"""

_TAKE_READY = """
    DELETE FROM {ready_entries_k} AS ready
    USING unnest(%(queues)s::text[], %(priorities)s::smallint[], %(seqs)s::bigint[]) AS wanted (queue, priority, lane_seq)
    WHERE ready.ready_slot = %(slot)s AND ready.queue = wanted.queue AND ready.priority = wanted.priority
      AND ready.lane_seq = wanted.lane_seq
    RETURNING ready.job_id, ready.payload::text, ready.unique_key, ready.enqueued_at
"""

_DONE = """
    INSERT INTO {done_entries_k} (ready_slot, queue, priority, lane_seq, job_id, state, attempt, run_lease,
                                  error, unique_key, payload, enqueued_at)
    SELECT %(slot)s::integer, done.queue, done.priority, done.lane_seq, done.job_id, done.state, done.attempt,
           done.run_lease, done.error, done.unique_key, done.payload::json, done.enqueued_at
    FROM unnest(%(queues)s::text[], %(priorities)s::smallint[], %(seqs)s::bigint[], %(ids)s::bigint[],
                %(states)s::text[], %(attempts)s::integer[], %(run_leases)s::bigint[], %(errors)s::text[],
                %(keys)s::bytea[], %(payloads)s::text[], %(times)s::timestamptz[])
         AS done (queue, priority, lane_seq, job_id, state, attempt, run_lease, error, unique_key, payload, enqueued_at)
"""

_FORGET_STATE = """
    DELETE FROM {attempt_state} AS state
    USING unnest(%(ids)s::bigint[], %(run_leases)s::bigint[]) AS wanted (job_id, run_lease)
    WHERE state.job_id = wanted.job_id AND state.run_lease = wanted.run_lease
"""

_FORGET_LEASES = """
    DELETE FROM {leases_k} AS lease
    USING unnest(%(ids)s::bigint[], %(run_leases)s::bigint[]) AS wanted (job_id, run_lease)
    WHERE lease.job_id = wanted.job_id AND lease.run_lease = wanted.run_lease
"""

_DEFER = """
    INSERT INTO {deferred_jobs} (job_id, queue, priority, lane_seq, attempt, run_lease, unique_key, payload,
                                 enqueued_at, run_at)
    SELECT job.job_id, job.queue, job.priority, job.lane_seq, job.attempt, job.run_lease, job.unique_key,
           job.payload::json, job.enqueued_at, statement_timestamp() + %(delay_s)s::float8 * interval '1 second'
    FROM unnest(%(ids)s::bigint[], %(queues)s::text[], %(priorities)s::smallint[], %(seqs)s::bigint[],
                %(attempts)s::integer[], %(run_leases)s::bigint[], %(keys)s::bytea[], %(payloads)s::text[],
                %(times)s::timestamptz[])
         AS job (job_id, queue, priority, lane_seq, attempt, run_lease, unique_key, payload, enqueued_at)
"""


@dataclass(frozen=True)
class Held:
    """A claim whose row this transaction has locked, as the row says."""

    claim_slot: int
    job_id: int
    run_lease: int
    ready_slot: int
    queue: str
    priority: int
    lane_seq: int
    attempt: int
    has_state: bool
    lease_slot: int | None

    @property
    def key(self) -> tuple[int, int, int]:
        return self.claim_slot, self.job_id, self.run_lease


@dataclass(frozen=True)
class Done:
    """A terminal row to be written; `payload` (JSON text) and `enqueued_at` only where the ready row is gone."""

    queue: str
    priority: int
    lane_seq: int
    job_id: int
    state: str
    attempt: int
    run_lease: int
    error: str | None = None
    unique_key: bytes | None = None
    payload: str | None = None
    enqueued_at: datetime | None = None


async def complete(connection: Connection, catalog: Catalog, claims: Iterable[Claim]) -> list[Held]:
    """Complete those of `claims` that are still open; returns them."""
    closed = await close(connection, catalog, await lock(connection, catalog, claims), "completed")
    for slot, members in by_slot((held.ready_slot, held) for held in closed):
        await write_done(connection, catalog, slot, [done_row(held, "done") for held in members])
    await forget(connection, catalog, closed)
    return closed


async def fail(connection: Connection, catalog: Catalog, claim: Claim, error: str) -> bool:
    """End the job of `claim` for good with `error`. False: the claim was not open any more."""
    closed = await close(connection, catalog, await lock(connection, catalog, [claim]), "failed")
    for held, entry in await take_jobs(connection, catalog, closed):
        await write_done(connection, catalog, held.ready_slot, [done_row(held, "failed", error, entry)])
    await forget(connection, catalog, closed)
    return bool(closed)


async def snooze(connection: Connection, catalog: Catalog, claim: Claim, delay_s: float) -> bool:
    """Defer the job of `claim`, whose attempt does not count. False: the claim was not open any more."""
    closed = await close(connection, catalog, await lock(connection, catalog, [claim]), "snoozed")
    jobs = await take_jobs(connection, catalog, closed)
    await forget(connection, catalog, closed)
    await defer(connection, catalog, [(held, entry, held.attempt - 1) for held, entry in jobs], delay_s)
    return bool(closed)


async def lock(connection: Connection, catalog: Catalog, claims: Iterable[Claim]) -> list[Held]:
    """Lock the rows of `claims` in the order (claim_slot, job_id, run_lease), waiting for each; those that there are."""
    held = []
    for slot, keys in by_slot((claim.claim_slot, (claim.job_id, claim.run_lease)) for claim in claims):
        unique = sorted(set(keys))
        found = await rows(connection, catalog.statement(_LOCK, claim_slot=slot), _pairs(slot, unique))
        held += [Held(*row) for row in found]
    return held


async def still_open(connection: Connection, catalog: Catalog, held: Sequence[Held]) -> list[Held]:
    """Those of the `held` claims that have no closure."""
    kept = set()
    for slot, members in by_slot((each.claim_slot, each) for each in held):
        keys = _pairs(slot, [(each.job_id, each.run_lease) for each in members])
        kept |= {(slot, *row) for row in await rows(connection, catalog.statement(_STILL_OPEN, claim_slot=slot), keys)}
    return [each for each in held if each.key in kept]


async def close(
    connection: Connection, catalog: Catalog, held: Sequence[Held], outcome: str, *, cutoff: datetime | None = None
) -> list[Held]:
    """Write the closures of the `held` claims and return those that had none; with `cutoff`, only of those without a heartbeat since."""
    statement = _CLOSE if cutoff is None else _CLOSE_STALE
    closed = set()
    for slot, members in by_slot((each.claim_slot, each) for each in held):
        keys = _pairs(slot, [(each.job_id, each.run_lease) for each in members])
        parameters = {**keys, "outcome": outcome, **({} if cutoff is None else {"cutoff": cutoff})}
        closed |= {
            (slot, *row) for row in await rows(connection, catalog.statement(statement, claim_slot=slot), parameters)
        }
    return [each for each in held if each.key in closed]


async def take_jobs(connection: Connection, catalog: Catalog, closed: Sequence[Held]) -> list[tuple[Held, Entry]]:
    """Delete the ready rows of `closed` and return what was in them, ready to be put elsewhere."""
    found: dict[int, Row] = {}
    for slot, members in by_slot((held.ready_slot, held) for held in closed):
        parameters = {
            "slot": slot,
            "queues": [held.queue for held in members],
            "priorities": [held.priority for held in members],
            "seqs": [held.lane_seq for held in members],
        }
        for job_id, *content in await rows(connection, catalog.statement(_TAKE_READY, queue_slot=slot), parameters):
            found[job_id] = tuple(content)
    jobs = []
    for held in closed:
        payload, key, enqueued_at = found[held.job_id]
        lease = (held.job_id, held.attempt, held.run_lease)
        jobs.append((held, Entry(held.queue, held.priority, payload, key, *lease, enqueued_at)))
    return jobs


async def write_done(connection: Connection, catalog: Catalog, slot: int, done: Sequence[Done]) -> None:
    """Insert `done` into partition `slot` of done_entries."""
    parameters = {
        "slot": slot,
        "queues": [row.queue for row in done],
        "priorities": [row.priority for row in done],
        "seqs": [row.lane_seq for row in done],
        "ids": [row.job_id for row in done],
        "states": [row.state for row in done],
        "attempts": [row.attempt for row in done],
        "run_leases": [row.run_lease for row in done],
        "errors": [row.error for row in done],
        "keys": [row.unique_key for row in done],
        "payloads": [row.payload for row in done],
        "times": [row.enqueued_at for row in done],
    }
    await rows(connection, catalog.statement(_DONE, queue_slot=slot), parameters)


def done_row(held: Held, state: str, error: str | None = None, entry: Entry | None = None) -> Done:
    """The terminal row of a claim's job; `entry` if its ready row is gone."""
    done = Done(
        queue=held.queue,
        priority=held.priority,
        lane_seq=held.lane_seq,
        job_id=held.job_id,
        state=state,
        attempt=held.attempt,
        run_lease=held.run_lease,
        error=error,
    )
    if entry is None:
        return done
    return replace(done, unique_key=entry.unique_key, payload=entry.payload, enqueued_at=entry.enqueued_at)


async def forget(connection: Connection, catalog: Catalog, closed: Sequence[Held]) -> None:
    """Delete the heartbeats and leases of `closed`, if they have any."""
    if with_state := [(held.job_id, held.run_lease) for held in closed if held.has_state]:
        await rows(connection, catalog.statement(_FORGET_STATE), columns(with_state))
    leased = [(held.lease_slot, (held.job_id, held.run_lease)) for held in closed if held.lease_slot is not None]
    for slot, members in by_slot(leased):
        await rows(connection, catalog.statement(_FORGET_LEASES, lease_slot=slot), columns(members))


async def defer(
    connection: Connection, catalog: Catalog, jobs: Sequence[tuple[Held, Entry, int]], delay_s: float
) -> None:
    """Put `jobs`, each with the number of attempts to remember, aside for `delay_s` seconds."""
    if not jobs:
        return
    parameters = {
        "delay_s": delay_s,
        "ids": [held.job_id for held, _, _ in jobs],
        "queues": [held.queue for held, _, _ in jobs],
        "priorities": [held.priority for held, _, _ in jobs],
        "seqs": [held.lane_seq for held, _, _ in jobs],
        "attempts": [attempt for _, _, attempt in jobs],
        "run_leases": [held.run_lease for held, _, _ in jobs],
        "keys": [entry.unique_key for _, entry, _ in jobs],
        "payloads": [entry.payload for _, entry, _ in jobs],
        "times": [entry.enqueued_at for _, entry, _ in jobs],
    }
    await rows(connection, catalog.statement(_DEFER), parameters)


def by_slot(members: Iterable[tuple[int, _T]]) -> list[tuple[int, list[_T]]]:
    """The members of each slot in their order, slots ascending."""
    groups: dict[int, list[_T]] = defaultdict(list)
    for slot, member in members:
        groups[slot].append(member)
    return sorted(groups.items(), key=lambda group: group[0])


def columns(pairs: Sequence[tuple[int, int]]) -> dict[str, list[int]]:
    """(job_id, run_lease) pairs as the parameters `ids` and `run_leases`."""
    return {"ids": [job_id for job_id, _ in pairs], "run_leases": [run_lease for _, run_lease in pairs]}


def _pairs(slot: int, pairs: Sequence[tuple[int, int]]) -> dict[str, object]:
    return {"slot": slot, **columns(pairs)}
