"""The queue's one class: each operation is a transaction (or several) on a connection that the user's callable gives.

What each does, and in which order it takes its locks, is told where it is done: `claim`, `closing`, `running`, `cancel`, `retry`, `rescue`,
`rings` and `lanes`. Nothing here opens a connection, starts a task or remembers a job.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from psycopg import IsolationLevel, errors, pq

from lockmodel.errors import quote
from lockmodel.queue import cancel, claim, closing, retry, rings, running, schema
from lockmodel.queue.catalog import Catalog, Connection
from lockmodel.queue.closing import Held
from lockmodel.queue.counts import counts
from lockmodel.queue.errors import InstallationError, JobError, QueueError
from lockmodel.queue.jobs import Claim, ClaimedBatch, Counts, Job, Maintenance, Pruning, Rescued, Ring, Rotation
from lockmodel.queue.lanes import Entry, append
from lockmodel.queue.rescue import rescue_expired, rescue_stale
from lockmodel.queue.settings import BIGINT_MAX, ClaimStrategy, Settings, check_count, check_seconds
from lockmodel.queue.stripes import check_queue_name, choose_stripe, physical_name

SCHEMA_DEFAULT = "lockmodel_queue"

_BUSY = (pq.TransactionStatus.INTRANS, pq.TransactionStatus.INERROR, pq.TransactionStatus.ACTIVE)


class StripedQueue:
    """A job queue in the Postgres schema `schema`, whose logical queues are spread over `settings.stripes` physical ones.

    `connect` is called for every transaction, and gives an async context manager of a psycopg connection that is in no
    transaction: `psycopg_pool.AsyncConnectionPool.connection`, for one. Its isolation level must be READ COMMITTED.

    A job is done at least once. It is claimed by one worker at a time, and again only after a rescue; a worker that was
    taken for dead can't complete what somebody else has been given.

    Maintenance (`rescue_stale`, `rescue_expired`, `promote`, `rotate`, `prune`, or all of them: `maintain`) is to be run
    regularly, by one process at a time.

    Raises SettingsError for a schema that can't be called so. Any operation may raise QueueError and psycopg.Error; its
    transaction has been rolled back then.
    """

    def __init__(
        self,
        connect: Callable[[], AbstractAsyncContextManager[Connection]],
        *,
        schema: str = SCHEMA_DEFAULT,
        settings: Settings | None = None,
    ) -> None:
        self.settings = settings or Settings()
        self._connect = connect
        self._catalog = Catalog(schema)
        self._counters: dict[str, Iterator[int]] = defaultdict(itertools.count)

    @property
    def schema(self) -> str:
        """The schema that the queue's tables are in."""
        return self._catalog.schema

    def physical_queues(self, queue: str) -> tuple[str, ...]:
        """The stripes of the logical `queue`. Raises SettingsError for a name that can't be one's."""
        check_queue_name(queue)
        stripes = self.settings.stripes
        return tuple(physical_name(queue, stripe, stripes) for stripe in range(stripes))

    # ---- installation

    async def install(self) -> bool:
        """Make the tables, and the schema if there is none. False: they were there already.

        Raises InstallationError if the schema has something else in it, or a queue with other slot counts.
        """
        async with self._transaction() as connection:
            return await schema.install(connection, self._catalog, self.settings)

    async def uninstall(self) -> bool:
        """Remove the tables, all jobs included, and the schema if `install` made it. False: there was nothing to remove.

        Waits for running transactions. Raises InstallationError if what is in the schema is not a queue.
        """
        async with self._transaction() as connection:
            return await schema.uninstall(connection, self._catalog)

    # ---- producers

    async def enqueue(self, jobs: Sequence[Job], *, copy: bool = False) -> list[int]:
        """Put a batch of jobs into their queues, all or none; returns their ids, in their order.

        A job goes to stripe hash(unique key) mod N if it has a key, else (its index in the batch) mod N.
        `copy`: by COPY rather than INSERT, which is faster for hundreds of jobs. Raises JobError for too large a batch.
        """
        most, stripes = self.settings.enqueue_batch_max, self.settings.stripes
        if len(jobs) > most:
            raise JobError(f"a batch has at most {most} jobs (enqueue_batch_max), this one has {len(jobs)}")
        entries = []
        for index, job in enumerate(jobs):
            queue = physical_name(job.queue, choose_stripe(index, job.key_bytes, stripes), stripes)
            entries.append(Entry(queue, job.priority, job.payload_text, job.key_bytes))
        if not entries:
            return []
        async with self._transaction() as connection:
            return await append(connection, self._catalog, entries, copy=copy)

    # ---- workers

    async def claim(
        self, queue: str, limit: int | None = None, *, deadline_s: float | None = None, first_stripe: int | None = None
    ) -> ClaimedBatch:
        """Claim up to `limit` jobs of the logical `queue` (default: `settings.claim_batch`).

        The stripes are visited once each, cyclically from `first_stripe`, by default one further on with every call. Each
        gives jobs of one lane: its most urgent that no other claimer holds. So a short batch, even an empty one, does not
        mean that nothing is left. `deadline_s`: how long the jobs may run, by default `settings.deadline_s`.

        What has been claimed when a later stripe fails is returned, with the error in it. A call that is cancelled loses
        what it has claimed: those jobs wait for a rescue.
        """
        limit = self.settings.claim_batch if limit is None else check_count("limit", limit, 1)
        deadline_s = (
            self.settings.deadline_s if deadline_s is None else check_seconds("deadline_s", deadline_s, zero=False)
        )
        queues = self.physical_queues(queue)
        if first_stripe is None:
            first_stripe = next(self._counters[queue])
        start = check_count("first_stripe", first_stripe, 0) % len(queues)
        visited = queues[start:] + queues[:start]
        per_stripe = self.settings.claim_strategy is ClaimStrategy.PER_STRIPE
        visit = claim.claim_per_stripe if per_stripe else claim.claim_all_stripes
        return await visit(self._transaction, self._catalog, visited, limit, deadline_s)

    async def complete(self, claims: Iterable[Claim]) -> tuple[Claim, ...]:
        """Say that the jobs of `claims` are done; returns those that were still open, and so are done now."""
        wanted = tuple(claims)
        if not wanted:
            return ()
        async with self._transaction() as connection:
            held = await closing.complete(connection, self._catalog, wanted)
        return _matching(wanted, held)

    async def fail(self, claim: Claim, error: str) -> bool:
        """End the job of `claim` for good, with the text of its error. False: the claim was not open any more.

        Until its slot of the queue's ring is pruned, the job can be retried.
        """
        # What Postgres has no place for in text is shown escaped.
        text = str(error).encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
        async with self._transaction() as connection:
            return await closing.fail(connection, self._catalog, claim, text)

    async def snooze(self, claim: Claim, delay_s: float) -> bool:
        """Put the job of `claim` aside for `delay_s` seconds; the attempt does not count. False: it was not open any more."""
        delay_s = check_seconds("delay_s", delay_s, zero=True)
        async with self._transaction() as connection:
            return await closing.snooze(connection, self._catalog, claim, delay_s)

    async def heartbeat(self, claims: Iterable[Claim], *, by_job: bool = False) -> tuple[Claim, ...]:
        """Say that the workers of `claims` are alive; returns those that are still open: stop working on the others.

        `by_job`: lock the claims in the order of their jobs, as awa's queue does. Beside a `complete` of the same claims that
        can deadlock (40P01; try again) if they are of several claim slots: see specs/queue/heartbeat-by-job.yaml.
        """
        wanted = tuple(claims)
        if not wanted:
            return ()
        async with self._transaction() as connection:
            held = await running.heartbeat(connection, self._catalog, wanted, by_job=by_job)
        return _matching(wanted, held)

    async def ensure_running(self, claims: Iterable[Claim]) -> tuple[Claim, ...]:
        """Turn `claims` into leases where they are none yet; returns those that are still open."""
        wanted = tuple(claims)
        if not wanted:
            return ()
        async with self._transaction() as connection:
            held = await running.ensure_running(connection, self._catalog, wanted)
        return _matching(wanted, held)

    # ---- operators

    async def cancel(self, job_id: int) -> bool:
        """Cancel a job that is ready, running or deferred.

        False: there is no such job, it is over, or somebody has hold of it this very moment. The worker of a running
        job learns of it by its next heartbeat.
        """
        check_count("job_id", job_id, 1, BIGINT_MAX)
        async with self._transaction() as connection:
            return await cancel.cancel(connection, self._catalog, job_id)

    async def cancel_many(self, job_ids: Iterable[int], *, one_transaction: bool = False) -> list[int]:
        """Cancel several jobs, in the order of ids; returns those that were.

        Each job has a transaction of its own, so an error leaves those before it cancelled. With `one_transaction` all are
        cancelled or none, but that can deadlock with an enqueue (40P01; try again): see specs/queue/bulk-cancel.yaml.
        """
        return await self._each(cancel.cancel, job_ids, one_transaction)

    async def retry(self, job_id: int) -> bool:
        """Make a failed job ready again, as if never attempted. False: no such job has failed (or it is pruned)."""
        check_count("job_id", job_id, 1, BIGINT_MAX)
        async with self._transaction() as connection:
            return await retry.retry(connection, self._catalog, job_id)

    async def retry_many(self, job_ids: Iterable[int], *, one_transaction: bool = False) -> list[int]:
        """Retry several failed jobs, in the order of ids; returns those that were.

        Each job has a transaction of its own, so an error leaves those before it retried. With `one_transaction` all are
        retried or none, but that can deadlock with an enqueue or a claim (40P01; try again): see specs/queue/bulk-retry.yaml
        and bulk-retry-one-lane.yaml.
        """
        return await self._each(retry.retry, job_ids, one_transaction)

    async def counts(self, queue: str) -> Counts:
        """How many jobs of the logical `queue` are in each state."""
        check_queue_name(queue)
        async with self._transaction() as connection:
            return await counts(connection, self._catalog, queue)

    # ---- maintenance, by one process at a time

    async def rescue_stale(self, timeout_s: float | None = None) -> Rescued:
        """Take jobs from workers that gave no sign of life for `timeout_s` (default: `settings.heartbeat_timeout_s`)."""
        default = self.settings.heartbeat_timeout_s
        timeout_s = default if timeout_s is None else check_seconds("timeout_s", timeout_s, zero=True)
        async with self._transaction() as connection:
            return await rescue_stale(connection, self._catalog, self.settings, timeout_s)

    async def rescue_expired(self) -> Rescued:
        """Take jobs from workers that are over their deadline."""
        async with self._transaction() as connection:
            return await rescue_expired(connection, self._catalog, self.settings)

    async def promote(self) -> list[int]:
        """Make deferred jobs ready whose time has come; returns their ids."""
        async with self._transaction() as connection:
            return await retry.promote(connection, self._catalog, self.settings.promote_batch)

    async def rotate(self, ring: Ring) -> Rotation:
        """Move `ring` on to its next slot, if that is empty."""
        async with self._transaction() as connection:
            return await rings.rotate(connection, self._catalog, Ring(ring))

    async def prune(self, ring: Ring) -> Pruning:
        """Empty the oldest slot of `ring`, if nothing in it is needed any more."""
        return await rings.prune(self._transaction, self._catalog, Ring(ring))

    async def maintain(self) -> Maintenance:
        """One round of all maintenance, each part in a transaction of its own."""
        return Maintenance(
            stale=await self.rescue_stale(),
            expired=await self.rescue_expired(),
            promoted=tuple(await self.promote()),
            prunings=tuple([await self.prune(ring) for ring in Ring]),
            rotations=tuple([await self.rotate(ring) for ring in Ring]),
        )

    # ---- transactions

    async def _each(
        self,
        operation: Callable[[Connection, Catalog, int], Awaitable[bool]],
        job_ids: Iterable[int],
        one_transaction: bool,
    ) -> list[int]:
        ids = sorted({check_count("job_id", job_id, 1, BIGINT_MAX) for job_id in job_ids})
        if not ids:
            return []
        if one_transaction:
            async with self._transaction() as connection:
                return [job_id for job_id in ids if await operation(connection, self._catalog, job_id)]
        changed = []
        for job_id in ids:
            async with self._transaction() as connection:
                if await operation(connection, self._catalog, job_id):
                    changed.append(job_id)
        return changed

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Connection]:
        """A transaction on a connection of the user's; committed when this returns, rolled back if it raises."""
        async with self._connect() as connection:
            if connection.info.transaction_status in _BUSY:
                raise QueueError("connect() gave a connection that is inside a transaction; the queue needs its own")
            if connection.isolation_level not in (None, IsolationLevel.READ_COMMITTED):
                level = connection.isolation_level.name.replace("_", " ")
                raise QueueError(f"connect() gave a connection with isolation level {level}; it must be READ COMMITTED")
            try:
                async with connection.transaction():
                    yield connection
            except (errors.UndefinedTable, errors.InvalidSchemaName) as error:
                raise InstallationError(
                    f"there is no queue in schema {quote(self.schema)}; call install() first"
                ) from error


def _matching(claims: Iterable[Claim], held: Iterable[Held]) -> tuple[Claim, ...]:
    """Those of `claims` that are among `held`, each once and in their order."""
    keys = {each.key for each in held}
    found = {(c.claim_slot, c.job_id, c.run_lease): c for c in claims}
    return tuple(claim for key, claim in found.items() if key in keys)
