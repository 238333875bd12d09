"""The queue as the target of replays: its own methods, unmodified, with jobs prepared for them to work on.

`set_up` installs the queue and puts its jobs into every state that an operation starts from. After that, what an operation locks is what
`StripedQueue` locks; there is no SQL here.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from lockmodel.queue.catalog import Connection
from lockmodel.queue.jobs import Claim, Job, Ring
from lockmodel.queue.settings import ClaimStrategy, Settings
from lockmodel.queue.striped import StripedQueue

QUEUE = "q"
READY_PER_STRIPE = 4
SHORT_S = 0.000_001
"""A deadline that is past by the next statement."""
Connect = Callable[[], AbstractAsyncContextManager[Connection]]


class QueueTarget:
    """The operations of a `StripedQueue` in `schema` with `stripes` stripes, least slot counts and one logical queue, `q`.

    `claim` is the claim strategy, per_stripe or all_stripes. `all_done`: every job is done and every ring has moved on, so
    that there is something to prune. `one_transaction`: whether bulk operations are one transaction or one for each job.
    `by_job`: whether heartbeats go by job or by claim slot. `two_slots`: the claimed jobs are two of one stripe, the later
    one in claim slot 0 and the earlier one in claim slot 1. `deferred`: besides, two jobs of each stripe are put aside, and
    are due again.
    """

    def __init__(
        self,
        schema: str,
        stripes: int = 2,
        claim: str = "per_stripe",
        all_done: bool = False,
        one_transaction: bool = True,
        by_job: bool = False,
        two_slots: bool = False,
        deferred: bool = False,
    ) -> None:
        self.schema = schema
        self.settings = Settings(
            stripes=stripes, queue_slots=4, lease_slots=2, claim_slots=2, claim_strategy=ClaimStrategy(claim)
        )
        self.all_done = all_done
        self.one_transaction = one_transaction
        self.by_job = by_job
        self.two_slots = two_slots
        self.with_deferred = deferred
        self.claimed: tuple[Claim, ...] = ()
        self.ready: list[int] = []
        self.failed: list[int] = []
        self.deferred: list[int] = []

    def _queue(self, connect: Connect) -> StripedQueue:
        return StripedQueue(connect, schema=self.schema, settings=self.settings)

    async def set_up(self, connect: Connect) -> None:
        """Install; then on every stripe two failed jobs, two claimed ones and some that are ready."""
        queue = self._queue(connect)
        stripes = self.settings.stripes
        await queue.install()
        await queue.enqueue([Job(queue=QUEUE) for _ in range(2 * stripes)])
        for claim in await queue.claim(QUEUE, 2 * stripes):
            await queue.fail(claim, "made to fail")
            self.failed.append(claim.job_id)
        self.failed.sort()
        if self.with_deferred:
            await self._defer(queue)
        if self.two_slots:
            await self._claim_in_two_slots(queue)
        else:
            await self._claim_two_of_each_stripe(queue)
        if self.all_done:
            await self._finish(queue)

    async def _claim_two_of_each_stripe(self, queue: StripedQueue) -> None:
        stripes = self.settings.stripes
        self.ready = await queue.enqueue([Job(queue=QUEUE) for _ in range((2 + READY_PER_STRIPE) * stripes)])
        claimed: list[Claim] = []
        for stripe in range(stripes):
            # Two from each stripe, whatever the strategy: a batch of its own begins at each.
            claimed += await queue.claim(QUEUE, 2, first_stripe=stripe, deadline_s=SHORT_S)
        self.claimed = tuple(claimed)
        taken = {claim.job_id for claim in claimed}
        self.ready = [job for job in self.ready if job not in taken]

    async def _defer(self, queue: StripedQueue) -> None:
        self.deferred = await queue.enqueue([Job(queue=QUEUE) for _ in range(2 * self.settings.stripes)])
        while batch := await queue.claim(QUEUE):
            for claim in batch:
                await queue.snooze(claim, 0)

    async def _claim_in_two_slots(self, queue: StripedQueue) -> None:
        """The less urgent job is enqueued first and claimed last, after the claims' ring has moved on."""
        await queue.enqueue([Job(queue=QUEUE, priority=2)])
        await queue.enqueue([Job(queue=QUEUE, priority=1)])
        urgent = await queue.claim(QUEUE, 1, first_stripe=0)
        await queue.rotate(Ring.CLAIM)
        self.claimed = (*urgent, *await queue.claim(QUEUE, 1, first_stripe=0))

    async def _finish(self, queue: StripedQueue) -> None:
        await queue.ensure_running(self.claimed)
        await queue.complete(self.claimed)
        while batch := await queue.claim(QUEUE):
            await queue.complete(batch)
        for ring in Ring:
            await queue.rotate(ring)

    async def enqueue(self, connect: Connect, copy: bool = False) -> None:
        """A batch with one job for every stripe."""
        await self._queue(connect).enqueue([Job(queue=QUEUE) for _ in range(self.settings.stripes)], copy=copy)

    async def claim(self, connect: Connect, first: int = 0, limit: int = 8) -> None:
        """A batch that needs the jobs of two stripes, beginning at stripe `first`."""
        await self._queue(connect).claim(QUEUE, limit, first_stripe=first)

    async def complete(self, connect: Connect) -> None:
        """All claimed jobs in one batch."""
        await self._queue(connect).complete(self.claimed)

    async def fail(self, connect: Connect) -> None:
        await self._queue(connect).fail(self.claimed[0], "made to fail")

    async def heartbeat(self, connect: Connect) -> None:
        await self._queue(connect).heartbeat(self.claimed, by_job=self.by_job)

    async def snooze(self, connect: Connect) -> None:
        await self._queue(connect).snooze(self.claimed[0], 60)

    async def ensure_running(self, connect: Connect) -> None:
        await self._queue(connect).ensure_running(self.claimed)

    async def cancel_ready(self, connect: Connect) -> None:
        """A job of stripe 0 that nobody has claimed."""
        await self._queue(connect).cancel(self.ready[0])

    async def cancel_running(self, connect: Connect) -> None:
        await self._queue(connect).cancel(self.claimed[0].job_id)

    async def cancel_deferred(self, connect: Connect) -> None:
        await self._queue(connect).cancel(self.deferred[0])

    async def promote(self, connect: Connect) -> None:
        """All deferred jobs, which are due."""
        await self._queue(connect).promote()

    async def retry(self, connect: Connect) -> None:
        await self._queue(connect).retry(self.failed[0])

    async def retry_many(self, connect: Connect, first: int = 0) -> None:
        """Failed jobs of all stripes, in the order of their ids, the lowest of stripe `first`."""
        await self._queue(connect).retry_many(self._from(self.failed, first), one_transaction=self.one_transaction)

    async def cancel_many(self, connect: Connect, first: int = 0) -> None:
        """Ready jobs of all stripes, in the order of their ids, the lowest of stripe `first`."""
        await self._queue(connect).cancel_many(self._from(self.ready, first), one_transaction=self.one_transaction)

    async def retry_lane(self, connect: Connect) -> None:
        """Both failed jobs of stripe 0."""
        jobs = sorted(self.failed)[:: self.settings.stripes]
        await self._queue(connect).retry_many(jobs, one_transaction=self.one_transaction)

    def _from(self, jobs: list[int], first: int) -> list[int]:
        """One job for each stripe; jobs were enqueued to the stripes in turn, so `first` further on begins at that stripe."""
        return sorted(jobs)[first : first + self.settings.stripes]

    async def rescue(self, connect: Connect) -> None:
        """Every claim counts as stale."""
        await self._queue(connect).rescue_stale(0.000_001)

    async def rescue_expired(self, connect: Connect) -> None:
        """Every claim is past its deadline."""
        await self._queue(connect).rescue_expired()

    async def counts(self, connect: Connect) -> None:
        await self._queue(connect).counts(QUEUE)

    async def rotate(self, connect: Connect, ring: str) -> None:
        await self._queue(connect).rotate(Ring(ring))

    async def prune(self, connect: Connect, ring: str) -> None:
        await self._queue(connect).prune(Ring(ring))
