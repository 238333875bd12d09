"""What the tests of the queue share: a queue in a schema of its own (`Lab`), and a plain model of what a queue does (`Model`).

The model knows nothing of SQL: it is lists and dictionaries, and says after each operation what every table must hold.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import AsyncConnection, pq, sql

from lockmodel.queue import Claim, Job, Ring, Settings, StripedQueue, choose_stripe, physical_name

TEST_SECONDS = 100
"""How long a test may take; they take seconds, so this is for a machine under load."""
SLOTS = {Ring.QUEUE: 4, Ring.LEASE: 2, Ring.CLAIM: 2}
SMALL: dict[str, Any] = {f"{ring}_slots": count for ring, count in SLOTS.items()}

Row = tuple[Any, ...]


class Lab:
    """A queue in a new schema. `connect` is a small pool; `monitor` a connection of its own, in autocommit mode."""

    def __init__(self, dsn: str, schema: str, monitor: AsyncConnection[Row], settings: dict[str, Any]) -> None:
        self.dsn = dsn
        self.schema = schema
        self.monitor = monitor
        self.prepare: list[str] = []
        self.autocommit = True
        self._settings = settings
        self._idle: list[AsyncConnection[Any]] = []
        self.queue = self.another()

    def another(self, **settings: Any) -> StripedQueue:
        """The same queue as another process may see it, with other settings and counters."""
        chosen = Settings(**{**SMALL, **self._settings, **settings})
        return StripedQueue(self.connect, schema=self.schema, settings=chosen)

    @contextlib.asynccontextmanager
    async def connect(self) -> AsyncIterator[AsyncConnection[Any]]:
        """A connection of the pool."""
        connection = self._idle.pop() if self._idle else await self.open()
        try:
            yield connection
        finally:
            if connection.info.transaction_status == pq.TransactionStatus.IDLE:
                self._idle.append(connection)
            else:
                await connection.close()

    async def open(self, factory: type[AsyncConnection[Any]] = AsyncConnection) -> AsyncConnection[Any]:
        """A new connection, prepared like those of the pool."""
        connection = await factory.connect(self.dsn, autocommit=self.autocommit)
        for statement in self.prepare:
            await connection.execute(statement)  # type: ignore[call-overload]
        return connection

    async def sql(self, query: str, *parameters: Any) -> list[Row]:
        """The rows that `query` returns to the monitor, whose search path is the queue's schema."""
        cursor = await self.monitor.execute(query, parameters or None)  # type: ignore[call-overload]
        return await cursor.fetchall() if cursor.description else []

    async def one(self, query: str, *parameters: Any) -> Any:
        """The one value that `query` returns."""
        [(value,)] = await self.sql(query, *parameters)
        return value

    async def until(self, query: str, *parameters: Any) -> Any:
        """Ask until `query` returns something true, and return that."""
        async with asyncio.timeout(20):
            while True:
                if (found := await self.sql(query, *parameters)) and found[0][0]:
                    return found[0][0]
                await asyncio.sleep(0.005)

    async def enqueue(self, count: int, queue: str = "mail", **options: Any) -> list[int]:
        """Enqueue `count` plain jobs in one batch."""
        return await self.queue.enqueue([Job(queue=queue, payload=n, **options) for n in range(count)])

    async def prepare_with(self, *statements: str) -> None:
        """Have all connections begin with `statements` from now on."""
        self.prepare = list(statements)
        while self._idle:
            await self._idle.pop().close()

    async def close(self) -> None:
        await self.prepare_with()
        await self.monitor.execute("SET lock_timeout = '10s'")
        await self.monitor.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(self.schema)))
        await self.monitor.close()


@contextlib.asynccontextmanager
async def lab(dsn: str, *, schema: str | None = None, install: bool = True, **settings: Any) -> AsyncIterator[Lab]:
    """A lab whose schema is dropped in the end."""
    schema = schema or f"queue_{secrets.token_hex(4)}"
    monitor: AsyncConnection[Row] = await AsyncConnection.connect(dsn, autocommit=True)
    await monitor.execute("SELECT set_config('search_path', %s, false)", ('"{}"'.format(schema.replace('"', '""')),))
    made = Lab(dsn, schema, monitor, settings)
    try:
        if install:
            assert await made.queue.install()
        yield made
    finally:
        await made.close()


def run(dsn: str, body: Callable[[Lab], Awaitable[None]], *, seconds: float = TEST_SECONDS, **options: Any) -> None:
    """Run an asynchronous test in a lab of its own, for `seconds` at most."""

    async def main() -> None:
        async with lab(dsn, **options) as made, asyncio.timeout(seconds):
            await body(made)

    asyncio.run(main())


async def drain(queue: StripedQueue, name: str, limit: int = 50) -> list[Claim]:
    """Claim and complete until nothing is left; no other claimer may be at work."""
    done: list[Claim] = []
    empty = 0
    while empty < 2:
        batch = await queue.claim(name, limit)
        assert batch.error is None
        assert await queue.complete(batch) == batch.claims
        done += batch
        empty = 0 if batch else empty + 1
    return done


# ---- the model


Lane = tuple[str, int]


@dataclass
class ModelJob:
    """A job: `state` is ready, running, deferred, done, failed or cancelled; `seq` and `slot` are of its ready row."""

    job_id: int
    lane: Lane
    state: str = "ready"
    seq: int = 0
    slot: int = 0
    attempt: int = 0
    run_lease: int = 0
    due: bool = False


@dataclass
class ModelClaim:
    """A row of lease_claims."""

    slot: int
    job_id: int
    run_lease: int
    attempt: int
    expired: bool
    closed: bool = False
    beaten: bool = False
    lease_slot: int | None = None


@dataclass
class ModelRing:
    """A ring: its current slot, and how old each slot is."""

    count: int
    current: int = 0
    generation: int = 0
    opened: dict[int, int] = field(default_factory=lambda: {0: 0})

    @property
    def oldest(self) -> int | None:
        """The slot to be pruned."""
        others = {generation: slot for slot, generation in self.opened.items() if slot != self.current}
        return others[min(others)] if others else None


class Model:
    """What a queue does, one operation at a time."""

    def __init__(self, stripes: int, attempts_max: int | None, delay: bool) -> None:
        self.stripes = stripes
        self.attempts_max = attempts_max
        self.delay = delay
        self.visits: Counter[str] = Counter()
        self.jobs: dict[int, ModelJob] = {}
        self.next_seq: Counter[Lane] = Counter()
        self.claim_seq: Counter[Lane] = Counter()
        self.lanes: set[Lane] = set()
        self.ready: dict[tuple[int, str, int, int], int] = {}
        """(slot, lane, seq) of each ready row: its job."""
        self.done: dict[tuple[int, str, int, int], str] = {}
        """(slot, lane, seq) of each done row: its state."""
        self.claims: dict[tuple[int, int, int], ModelClaim] = {}
        self.pruned: Counter[tuple[str, str]] = Counter()
        self.rings = {ring: ModelRing(count) for ring, count in SLOTS.items()}
        self.last_id = 0

    def append(self, jobs: Iterable[ModelJob]) -> None:
        """Put jobs at the end of their lanes."""
        for job in jobs:
            self.lanes.add(job.lane)
            job.state, job.seq, job.slot = "ready", self.next_seq[job.lane], self.rings[Ring.QUEUE].current
            self.next_seq[job.lane] += 1
            self.jobs[job.job_id] = job
            self.ready[(job.slot, *job.lane, job.seq)] = job.job_id

    def enqueue(self, jobs: list[Job]) -> list[int]:
        made = []
        for index, job in enumerate(jobs):
            queue = physical_name(job.queue, choose_stripe(index, job.key_bytes, self.stripes), self.stripes)
            made.append(ModelJob(self.last_id + 1 + index, (queue, job.priority)))
        self.last_id += len(jobs)
        self.append(made)
        return [job.job_id for job in made]

    def waiting(self, lane: Lane) -> list[ModelJob]:
        """The jobs of a lane that are to be claimed, in order."""
        members = [job for job in self.jobs.values() if job.lane == lane and job.state == "ready"]
        return sorted(members, key=lambda job: job.seq)

    def claim(self, queue: str, limit: int, expired: bool) -> list[ModelClaim]:
        claims: list[ModelClaim] = []
        first = self.visits[queue]
        self.visits[queue] += 1
        for offset in range(self.stripes):
            physical = physical_name(queue, (first + offset) % self.stripes, self.stripes)
            lanes = sorted(lane for lane in self.lanes if lane[0] == physical and self.waiting(lane))
            if lanes and len(claims) < limit:
                claims += self._claim_lane(lanes[0], limit - len(claims), expired)
        return claims

    def _claim_lane(self, lane: Lane, limit: int, expired: bool) -> list[ModelClaim]:
        jobs = self.waiting(lane)[:limit]
        self.claim_seq[lane] = jobs[-1].seq + 1 if len(jobs) == limit else self.next_seq[lane]
        claims = []
        for job in jobs:
            job.state, job.attempt, job.run_lease = "running", job.attempt + 1, job.run_lease + 1
            slot = self.rings[Ring.CLAIM].current
            claim = ModelClaim(slot, job.job_id, job.run_lease, job.attempt, expired)
            self.claims[slot, job.job_id, job.run_lease] = claim
            claims.append(claim)
        return claims

    def open(self, handles: Iterable[Claim]) -> list[ModelClaim]:
        """Those of `handles` that are open, each once."""
        keys = dict.fromkeys((handle.claim_slot, handle.job_id, handle.run_lease) for handle in handles)
        return [self.claims[key] for key in keys if key in self.claims and not self.claims[key].closed]

    def finish(self, job: ModelJob, state: str, *, keeps_ready: bool) -> None:
        """The job is over; `keeps_ready`: its ready row stays beside its done row."""
        where = (job.slot, *job.lane, job.seq)
        if not keeps_ready:
            del self.ready[where]
        self.done[where] = job.state = state

    def close(self, claim: ModelClaim) -> ModelJob:
        claim.closed = True
        return self.jobs[claim.job_id]

    def complete(self, handles: Iterable[Claim]) -> list[int]:
        closed = self.open(handles)
        for claim in closed:
            self.finish(self.close(claim), "done", keeps_ready=True)
        return [claim.job_id for claim in closed]

    def fail(self, handle: Claim) -> bool:
        closed = self.open([handle])
        for claim in closed:
            self.finish(self.close(claim), "failed", keeps_ready=False)
        return bool(closed)

    def defer(self, job: ModelJob, attempt: int, due: bool) -> None:
        del self.ready[(job.slot, *job.lane, job.seq)]
        job.state, job.attempt, job.due = "deferred", attempt, due

    def snooze(self, handle: Claim, due: bool) -> bool:
        closed = self.open([handle])
        for claim in closed:
            job = self.close(claim)
            self.defer(job, job.attempt - 1, due)
        return bool(closed)

    def heartbeat(self, handles: Iterable[Claim]) -> list[int]:
        alive = self.open(handles)
        for claim in alive:
            claim.beaten = True
        return [claim.job_id for claim in alive]

    def ensure_running(self, handles: Iterable[Claim]) -> list[int]:
        alive = self.open(handles)
        for claim in alive:
            if claim.lease_slot is None:
                claim.lease_slot = self.rings[Ring.LEASE].current
        return [claim.job_id for claim in alive]

    def cancel(self, job_id: int) -> bool:
        job = self.jobs.get(job_id)
        if job is None or job.state not in ("ready", "running", "deferred"):
            return False
        if job.state == "deferred":
            job.slot = self.rings[Ring.QUEUE].current
            self.done[(job.slot, *job.lane, job.seq)] = job.state = "cancelled"
            return True
        for claim in self.claims.values():
            if claim.job_id == job_id and not claim.closed:
                claim.closed = True
        self.finish(job, "cancelled", keeps_ready=job.state == "running")
        return True

    def retry(self, job_id: int) -> bool:
        job = self.jobs.get(job_id)
        where = (job.slot, *job.lane, job.seq) if job else (0, "", 0, 0)
        if job is None or job.state != "failed" or where not in self.done:
            return False
        del self.done[where]
        job.attempt = 0
        self.append([job])
        return True

    def rescue(self, claims: Iterable[ModelClaim]) -> dict[str, list[int]]:
        fates: dict[str, list[int]] = defaultdict(list)
        again = []
        for claim in sorted(claims, key=lambda claim: claim.job_id):
            job = self.close(claim)
            if self.attempts_max is not None and job.attempt >= self.attempts_max:
                self.finish(job, "failed", keeps_ready=False)
                fates["failed"].append(job.job_id)
            elif self.delay:
                self.defer(job, job.attempt, False)
                fates["deferred"].append(job.job_id)
            else:
                del self.ready[(job.slot, *job.lane, job.seq)]
                again.append(job)
                fates["ready"].append(job.job_id)
        self.append(again)
        return fates

    def promote(self) -> list[int]:
        due = sorted((job for job in self.jobs.values() if job.state == "deferred" and job.due), key=lambda j: j.job_id)
        self.append(due)
        return [job.job_id for job in due]

    def in_use(self, ring: Ring, slot: int) -> bool:
        """Whether any row is in a slot."""
        if ring is Ring.QUEUE:
            return any(key[0] == slot for key in (*self.ready, *self.done))
        if ring is Ring.LEASE:
            return any(claim.lease_slot == slot and not claim.closed for claim in self.claims.values())
        return any(key[0] == slot for key in self.claims)

    def live(self, ring: Ring, slot: int) -> int:
        """How many rows of a slot are needed."""
        if ring is Ring.CLAIM:
            return sum(claim.slot == slot and not claim.closed for claim in self.claims.values())
        open_leases = [claim for claim in self.claims.values() if claim.lease_slot is not None and not claim.closed]
        if ring is Ring.LEASE:
            return sum(claim.lease_slot == slot for claim in open_leases)
        leased = sum(self.jobs[claim.job_id].slot == slot for claim in open_leases)
        return leased + sum(key[0] == slot and key not in self.done for key in self.ready)

    def rotate(self, ring: Ring) -> tuple[int, bool]:
        state = self.rings[ring]
        slot = (state.current + 1) % state.count
        if self.in_use(ring, slot):
            return slot, False
        state.current, state.generation = slot, state.generation + 1
        state.opened[slot] = state.generation
        return slot, True

    def prune(self, ring: Ring) -> tuple[str, int | None, int]:
        slot = self.rings[ring].oldest
        if slot is None:
            return "empty", None, 0
        if live := self.live(ring, slot):
            return "live", slot, live
        if not self.in_use(ring, slot):
            return "empty", slot, 0
        if ring is Ring.QUEUE:
            for key, state in list(self.done.items()):
                if key[0] == slot:
                    self.pruned[key[1].partition("#")[0], state] += 1
                    del self.done[key]
            self.ready = {key: job for key, job in self.ready.items() if key[0] != slot}
        elif ring is Ring.CLAIM:
            self.claims = {key: claim for key, claim in self.claims.items() if key[0] != slot}
        return "pruned", slot, 0

    def counts(self, queue: str) -> dict[str, int]:
        states = Counter(job.state for job in self.jobs.values() if job.lane[0].partition("#")[0] == queue)
        return {state: states[state] for state in ("ready", "running", "deferred", "done", "failed", "cancelled")}

    def tables(self) -> dict[str, set[Row]]:
        """What every table must hold."""
        open_claims = [claim for claim in self.claims.values() if not claim.closed]
        pruned: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
        for (queue, state), count in self.pruned.items():
            pruned[queue][("done", "failed", "cancelled").index(state)] += count
        return {
            "lanes": {
                (*lane, len(self.waiting(lane)), self.next_seq[lane], self.claim_seq[lane]) for lane in self.lanes
            },
            "ready": {(*key, job) for key, job in self.ready.items()},
            "done": {(*key, state) for key, state in self.done.items()},
            "claims": {(*key, claim.attempt) for key, claim in self.claims.items()},
            "closures": {key for key, claim in self.claims.items() if claim.closed},
            "leases": {(c.lease_slot, c.job_id, c.run_lease) for c in open_claims if c.lease_slot is not None},
            "attempts": {(claim.job_id, claim.run_lease) for claim in open_claims if claim.beaten},
            "deferred": {(j.job_id, j.attempt, j.run_lease) for j in self.jobs.values() if j.state == "deferred"},
            "rings": {(ring.value, state.current, state.generation) for ring, state in self.rings.items()},
            "rollups": {(queue, *counts) for queue, counts in pruned.items()},
        }


TABLES = {
    "lanes": "SELECT queue, priority, available_count, next_seq, claim_seq"
    " FROM queue_lanes JOIN queue_enqueue_heads USING (queue, priority) JOIN queue_claim_heads USING (queue, priority)",
    "ready": "SELECT ready_slot, queue, priority, lane_seq, job_id FROM ready_entries",
    "done": "SELECT ready_slot, queue, priority, lane_seq, state FROM done_entries",
    "claims": "SELECT claim_slot, job_id, run_lease, attempt FROM lease_claims",
    "closures": "SELECT claim_slot, job_id, run_lease FROM lease_claim_closures",
    "leases": "SELECT lease_slot, job_id, run_lease FROM leases",
    "attempts": "SELECT job_id, run_lease FROM attempt_state",
    "deferred": "SELECT job_id, attempt, run_lease FROM deferred_jobs",
    "rings": "SELECT 'queue', current_slot, generation FROM queue_ring_state"
    " UNION SELECT 'lease', current_slot, generation FROM lease_ring_state"
    " UNION SELECT 'claim', current_slot, generation FROM claim_ring_state",
    "rollups": "SELECT split_part(queue, '#', 1), sum(done_count)::int, sum(failed_count)::int, sum(cancelled_count)::int"
    " FROM queue_terminal_rollups GROUP BY 1",
}


async def tables(made: Lab) -> dict[str, set[Row]]:
    """What every table holds."""
    found = {}
    for name, query in TABLES.items():
        rows = await made.sql(query)
        found[name] = set(rows)
        assert len(found[name]) == len(rows), name
    return found


def sqlstate(error: BaseException | None) -> str | None:
    """The SQLSTATE of a Postgres error."""
    return error.sqlstate if isinstance(error, psycopg.Error) else None
