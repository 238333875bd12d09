"""Who waits for whom: each operation against somebody who holds a row that it comes to, or may not come to.

`lockmodel conform` compares which locks an operation takes, one after another; here is what it does when it can't have one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from itertools import count
from typing import Any

import pytest
from psycopg import AsyncConnection, AsyncCursor, errors
from queue_model import Lab, run

from lockmodel.queue import Claim, PruneOutcome, Ring, StripedQueue

pytestmark = pytest.mark.postgres

Attempt = Callable[[Lab, list[Claim], list[int]], Awaitable[object]]
Operation = Callable[[StripedQueue], Awaitable[object]]

BLOCKED = "SELECT pid FROM pg_stat_activity WHERE %s = ANY(pg_blocking_pids(pid))"

HOLD = {
    "the claim head": "SELECT FROM queue_claim_heads WHERE queue = 'mail#0' FOR UPDATE",
    "the enqueue head": "SELECT FROM queue_enqueue_heads WHERE queue = 'mail#0' FOR UPDATE",
    "the lane": "SELECT FROM queue_lanes WHERE queue = 'mail#0' FOR UPDATE",
    "an update of the claim head": "UPDATE queue_claim_heads SET claim_seq = claim_seq WHERE queue = 'mail#0'",
    "an update of the lane": "UPDATE queue_lanes SET queue = queue WHERE queue = 'mail#0'",
    "the claims": "SELECT FROM lease_claims FOR UPDATE",
    "the ready rows": "SELECT FROM ready_entries FOR UPDATE",
    "the done rows": "SELECT FROM done_entries FOR UPDATE",
    "the queue's ring": "SELECT FROM queue_ring_state FOR UPDATE",
    "the claims' ring": "SELECT FROM claim_ring_state FOR UPDATE",
}

OPERATIONS: dict[str, Attempt] = {
    "enqueue": lambda made, _, __: made.enqueue(2),
    "claim": lambda made, _, __: made.queue.claim("mail", 1, first_stripe=0),
    "complete": lambda made, claims, _: made.queue.complete(claims),
    "fail": lambda made, claims, _: made.queue.fail(claims[0], "no"),
    "heartbeat": lambda made, claims, _: made.queue.heartbeat(claims),
    "ensure running": lambda made, claims, _: made.queue.ensure_running(claims),
    "cancel ready": lambda made, _, ready: made.queue.cancel(ready[0]),
    "cancel running": lambda made, claims, _: made.queue.cancel(claims[0].job_id),
    "snooze": lambda made, claims, _: made.queue.snooze(claims[0], 0),
    "rescue": lambda made, _, __: made.queue.rescue_stale(0),
    "retry": lambda made, _, __: made.queue.retry(1),
    "rotate": lambda made, _, __: made.queue.rotate(Ring.QUEUE),
    "counts": lambda made, _, __: made.queue.counts("mail"),
}

WAITS = {
    "enqueue": {"the enqueue head", "the lane", "an update of the claim head", "an update of the lane"},
    "claim": {"the lane", "an update of the lane"},
    "complete": {"the claims"},
    "fail": {"the claims", "the ready rows"},
    "heartbeat": {"the claims"},
    "ensure running": {"the claims"},
    "cancel ready": {"the lane", "an update of the lane"},
    "cancel running": set[str](),
    "snooze": {"the claims", "the ready rows"},
    "rescue": {
        "the ready rows",
        "the enqueue head",
        "the lane",
        "an update of the claim head",
        "an update of the lane",
    },
    "retry": {"the enqueue head", "the lane", "an update of the claim head", "an update of the lane"},
    "rotate": {"the queue's ring"},
    "counts": set[str](),
}
"""What each operation waits for; all else it skips, or does not come to."""


@asynccontextmanager
async def somebody(made: Lab, *statements: str) -> Any:
    """A connection that has executed `statements` and does not commit."""
    connection = await AsyncConnection.connect(made.dsn)
    try:
        await connection.execute(f"SET search_path = {made.schema}")  # type: ignore[arg-type]
        for statement in statements:
            await connection.execute(statement)  # type: ignore[arg-type]
        yield connection
    finally:
        await connection.close()


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_waits_for_these_rows_and_no_others(name: str, dsn: str) -> None:
    """On stripe 0, where there are a failed job (1), a running one (3) and a ready one (5)."""

    async def waits(made: Lab, held: str, claims: list[Claim], ready: list[int]) -> bool:
        async with somebody(made, HOLD[held]) as holder:
            task = asyncio.ensure_future(OPERATIONS[name](made, claims, ready))
            while not task.done():
                await asyncio.wait({task}, timeout=0.01)
                if not task.done() and await made.sql(BLOCKED, holder.info.backend_pid):
                    await holder.rollback()
                    await task
                    return True
            await task
            return False

    async def body(made: Lab) -> None:
        found = set()
        for held in HOLD:
            await made.queue.install()
            await made.enqueue(6)
            for claim in await made.queue.claim("mail", 1, first_stripe=0):
                await made.queue.fail(claim, "no")
            claims = [*await made.queue.claim("mail", 1, first_stripe=0)]
            if await waits(made, held, claims, [5]):
                found.add(held)
            await made.queue.uninstall()
        assert found == WAITS[name]

    run(dsn, body, install=False, stripes=2)


@pytest.mark.parametrize("stripes", [2, 3])
def test_enqueue_locks_the_lanes_in_their_order(stripes: int, dsn: str) -> None:
    """Whatever order their rows have in the table: stopped at one lane, it holds those before it and none after it."""

    async def body(made: Lab) -> None:
        await made.enqueue(stripes)
        for stripe in reversed(range(stripes)):  # The newest version of a row comes last in the table.
            await made.sql("UPDATE queue_lanes SET queue = queue WHERE queue = %s", f"mail#{stripe}")
        for stopped in range(stripes):
            lane = f"SELECT FROM queue_lanes WHERE queue = 'mail#{stopped}' FOR UPDATE"
            async with somebody(made, lane) as holder:
                task = asyncio.create_task(made.enqueue(stripes))
                await made.until(BLOCKED, holder.info.backend_pid)
                free = await made.sql("SELECT queue FROM queue_lanes ORDER BY queue FOR UPDATE SKIP LOCKED")
                assert [name for (name,) in free] == [f"mail#{stripe}" for stripe in range(stopped + 1, stripes)]
                await holder.rollback()
                await task

    run(dsn, body, stripes=stripes)


def test_the_claim_passes_over_a_lane_that_is_taken(dsn: str) -> None:
    """It takes the next best one of the same stripe."""

    async def body(made: Lab) -> None:
        await made.enqueue(1, priority=1)
        [second] = await made.enqueue(1, priority=2)
        async with somebody(made, "SELECT FROM queue_claim_heads WHERE priority = 1 FOR UPDATE"):
            assert [claim.job_id for claim in await made.queue.claim("mail")] == [second]
            assert [*await made.queue.claim("mail")] == []
        assert len(await made.queue.claim("mail")) == 1

    run(dsn, body)


def test_readers_do_not_wait_for_the_leader_and_the_leader_not_for_long(dsn: str) -> None:
    """A claim that has begun keeps prune off; prune gives up after 50 ms, its locks go, and the slot is as it was."""

    async def body(made: Lab) -> None:
        await made.enqueue(2)
        assert (await made.queue.rotate(Ring.QUEUE)).rotated
        lane = "UPDATE queue_lanes SET queue = queue"
        async with somebody(made, lane) as holder:
            claim = asyncio.create_task(made.queue.claim("mail"))
            await made.until(BLOCKED, holder.info.backend_pid)
            assert (await made.queue.prune(Ring.QUEUE)).outcome is PruneOutcome.BLOCKED
            await holder.rollback()
            assert len(await claim) == 2

    run(dsn, body)


class Gate:
    """Stops the operation of one connection before the first statement for which `stop` holds, until `open` is set."""

    def __init__(self, stop: Callable[[str], bool]) -> None:
        self.stop = stop
        self.reached = asyncio.Event()
        self.open = asyncio.Event()

    def queue(self, made: Lab, connection: AsyncConnection[Any]) -> StripedQueue:
        """The queue on `connection`, which stops at this gate."""
        gate = self

        class Cursor(AsyncCursor[Any]):
            async def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
                if not gate.reached.is_set() and gate.stop(query.as_string(self)):
                    gate.reached.set()
                    await gate.open.wait()
                return await super().execute(query, params, **options)

        connection.cursor_factory = Cursor
        return StripedQueue(lambda: nullcontext(connection), schema=made.schema, settings=made.queue.settings)


async def cross(made: Lab, gate: Gate, gated: Operation, crossing: Operation) -> list[BaseException]:
    """Run `gated` to its gate, `crossing` until it waits for it, then `gated` to its end; returns the errors of both."""
    async with made.connect() as connection, made.connect() as other:
        await other.execute("SET deadlock_timeout = '1h'")
        first = asyncio.ensure_future(gated(gate.queue(made, connection)))
        await gate.reached.wait()
        second = asyncio.ensure_future(crossing(Gate(lambda _: False).queue(made, other)))
        await made.until(BLOCKED, connection.info.backend_pid)
        gate.open.set()
        answers = await asyncio.gather(first, second, return_exceptions=True)
    return [answer for answer in answers if isinstance(answer, BaseException)]


def test_a_bulk_retry_in_one_transaction_can_deadlock_with_a_claim_of_the_same_lane(dsn: str) -> None:
    """When the retry ensures the lane for its second job, it holds queue_lanes for its first.

    A claim may have moved the claim head by then, which the ensuring waits for, and wait for queue_lanes. So one stripe is
    enough.
    """

    async def body(made: Lab) -> None:
        await made.prepare_with("SET deadlock_timeout = '50ms'")
        ids = await made.enqueue(3)
        for claim in await made.queue.claim("mail", 2):
            await made.queue.fail(claim, "no")
        number = count()
        gate = Gate(lambda text: "WITH found" in text and next(number) == 1)
        retry: Operation = lambda queue: queue.retry_many(ids, one_transaction=True)  # noqa: E731
        [error] = await cross(made, gate, retry, lambda queue: queue.claim("mail"))
        assert isinstance(error, errors.DeadlockDetected)

    run(dsn, body)


def test_a_bulk_retry_of_a_transaction_for_each_job_holds_nothing_in_between(dsn: str) -> None:
    """At the same place, the same claim does not wait for it."""

    async def body(made: Lab) -> None:
        ids = await made.enqueue(3)
        for claim in await made.queue.claim("mail", 2):
            await made.queue.fail(claim, "no")
        number = count()
        gate = Gate(lambda text: "WITH found" in text and next(number) == 1)
        async with made.connect() as connection:
            retry = asyncio.create_task(gate.queue(made, connection).retry_many(ids, one_transaction=False))
            await gate.reached.wait()
            assert [claim.job_id for claim in await made.queue.claim("mail", 9)] == [ids[2], ids[0]]
            gate.open.set()
            assert await retry == ids[:2]

    run(dsn, body)


async def batch_in_two_slots(made: Lab) -> list[Claim]:
    """Two claims: of the first job in claim slot 1, of the second in claim slot 0."""
    await made.enqueue(1, priority=2)
    await made.enqueue(1, priority=1)
    [late] = await made.queue.claim("mail", 1)
    assert (await made.queue.rotate(Ring.CLAIM)).rotated
    [early] = await made.queue.claim("mail", 1)
    assert (late.job_id, late.claim_slot, early.job_id, early.claim_slot) == (2, 0, 1, 1)
    return [early, late]


SECOND_SLOT = "lease_claims_1"


@pytest.mark.parametrize("by_job", [True, False])
def test_a_heartbeat_by_job_can_deadlock_with_a_completion_of_the_same_batch(by_job: bool, dsn: str) -> None:
    """One goes by job, the other by claim slot: in a batch that spans two slots these are two orders. By slot it only waits."""

    async def body(made: Lab) -> None:
        await made.prepare_with("SET deadlock_timeout = '50ms'")
        batch = await batch_in_two_slots(made)
        gate = Gate(lambda text: "FOR UPDATE" in text and SECOND_SLOT in text)
        beat: Operation = lambda queue: queue.heartbeat(batch, by_job=by_job)  # noqa: E731
        found = await cross(made, gate, lambda queue: queue.complete(batch), beat)
        assert [type(error) for error in found] == ([errors.DeadlockDetected] if by_job else [])
        # Whoever was the victim, the jobs are completed once.
        assert await made.queue.complete(batch) == (tuple(batch) if by_job else ())

    run(dsn, body)


@pytest.mark.parametrize("by_job", [True, False])
def test_a_heartbeat_returns_what_is_still_open_in_either_order(by_job: bool, dsn: str) -> None:
    """One of two claims in two slots is over."""

    async def body(made: Lab) -> None:
        early, late = await batch_in_two_slots(made)
        assert await made.queue.heartbeat([early, late], by_job=by_job) == (early, late)
        assert await made.queue.complete([early]) == (early,)
        assert await made.queue.heartbeat([early, late], by_job=by_job) == (late,)
        assert await made.sql("SELECT job_id FROM attempt_state") == [(2,)]

    run(dsn, body)
