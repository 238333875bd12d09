"""Rotating and pruning: what is live is never dropped, what is over goes, and whoever is busy is left alone."""

from __future__ import annotations

import pytest
from queue_model import Lab, drain, run

from lockmodel.queue import Counts, PruneOutcome, Pruning, Ring, Rotation

pytestmark = pytest.mark.postgres


async def turn(made: Lab, ring: Ring = Ring.QUEUE, times: int = 1) -> None:
    """Rotate `ring`, which must be possible."""
    for _ in range(times):
        assert (await made.queue.rotate(ring)).rotated


async def outcome(made: Lab, ring: Ring = Ring.QUEUE) -> tuple[str, int | None, int]:
    pruning = await made.queue.prune(ring)
    return str(pruning.outcome), pruning.slot, pruning.live


def test_a_slot_is_pruned_when_its_last_job_is_over(dsn: str) -> None:
    """Ready, running and done beside each other: nothing goes before all are over, then everything; the counts stay."""

    async def body(made: Lab) -> None:
        await made.enqueue(4)
        assert await outcome(made) == ("empty", None, 0)
        await turn(made)
        assert await outcome(made) == ("live", 0, 4)
        first, second, third = await made.queue.claim("mail", 3)
        assert await outcome(made) == ("live", 0, 4)
        await made.queue.complete([first, second])
        assert await outcome(made) == ("live", 0, 2)
        await made.queue.fail(third, "no")
        assert await outcome(made) == ("live", 0, 1)
        [fourth] = await made.queue.claim("mail")
        await made.queue.ensure_running([fourth])
        assert await outcome(made) == ("live", 0, 2)  # the job, and its lease
        assert await made.queue.cancel(fourth.job_id)
        assert await made.queue.counts("mail") == Counts(done=2, failed=1, cancelled=1)
        assert await outcome(made) == ("pruned", 0, 0)
        assert await outcome(made) == ("empty", 0, 0)
        assert await made.queue.counts("mail") == Counts(done=2, failed=1, cancelled=1)
        assert not await made.queue.retry(third.job_id)

    run(dsn, body)


def test_jobs_that_went_elsewhere_hold_no_slot(dsn: str) -> None:
    """Rescued, snoozed and retried jobs are in a newer slot or in none; none of them is lost."""

    async def body(made: Lab) -> None:
        ids = await made.enqueue(3)
        rescued, snoozed, failed = await made.queue.claim("mail")
        await turn(made)
        await made.queue.fail(failed, "no")
        await made.queue.snooze(snoozed, 0)
        assert await outcome(made) == ("live", 0, 1)
        assert (await made.queue.rescue_stale(0)).ready == (rescued.job_id,)
        assert await made.queue.retry(failed.job_id)
        assert await outcome(made) == ("empty", 0, 0)
        await turn(made)
        assert await made.queue.promote() == [snoozed.job_id]
        assert sorted(claim.job_id for claim in await drain(made.queue, "mail")) == ids
        assert await outcome(made) == ("empty", 0, 0)
        await turn(made)
        await turn(made)  # to slot 0, which is empty, so that slot 1 is now the oldest
        assert await outcome(made) == ("pruned", 1, 0)

    run(dsn, body)


def test_rotation_skips_a_slot_that_has_something_in_it(dsn: str) -> None:
    """In each of the rings, live or not, until it is pruned."""

    async def body(made: Lab) -> None:
        await made.enqueue(1)
        [claim] = await made.queue.claim("mail")
        await made.queue.ensure_running([claim])
        for ring, slots in ((Ring.QUEUE, 4), (Ring.LEASE, 2), (Ring.CLAIM, 2)):
            await turn(made, ring, slots - 1)
            assert await made.queue.rotate(ring) == Rotation(ring, 0, False)
            assert (await made.queue.prune(ring)).outcome is PruneOutcome.LIVE
        await made.queue.complete([claim])
        for ring, result in (("queue", "pruned"), ("lease", "empty"), ("claim", "pruned")):
            assert (await made.queue.prune(Ring(ring))).outcome == result
            assert await made.queue.rotate(Ring(ring)) == Rotation(Ring(ring), 0, True)

    run(dsn, body)


def test_a_slot_in_use_is_left_for_another_time(dsn: str) -> None:
    """A reader's or writer's lock on the partition outlasts the 50 ms, nothing is lost and nobody is held up for long."""

    async def body(made: Lab) -> None:
        await made.enqueue(1)
        await drain(made.queue, "mail")
        for ring in (Ring.QUEUE, Ring.CLAIM):
            await turn(made, ring)
        holder = await made.open()
        await holder.execute(f"SET search_path = {made.schema}")
        for ring, table in ((Ring.QUEUE, "done_entries_0"), (Ring.CLAIM, "lease_claims_0")):
            async with holder.transaction():
                await holder.execute(f"LOCK TABLE {table} IN ACCESS SHARE MODE")  # type: ignore[arg-type]
                assert await made.queue.prune(ring) == Pruning(ring, PruneOutcome.BLOCKED, 0)
            assert await made.queue.prune(ring) == Pruning(ring, PruneOutcome.PRUNED, 0)
        await holder.close()
        assert await made.queue.counts("mail") == Counts(done=1)

    run(dsn, body)


def test_what_is_written_into_an_old_slot_is_kept(dsn: str) -> None:
    """An enqueue that read the ring before it turned puts its jobs into a slot that was pruned meanwhile: they are done all the same."""

    async def body(made: Lab) -> None:
        await made.enqueue(1)
        await drain(made.queue, "mail")
        await turn(made)
        holder = await made.open()
        await holder.execute(f"SET search_path = {made.schema}")
        # An enqueue that stands between reading the ring's state and inserting is one that finds the old state.
        async with holder.transaction():
            await holder.execute("UPDATE queue_ring_state SET current_slot = 0")
            await holder.execute("SELECT 1")
        ids = await made.enqueue(2)
        async with holder.transaction():
            await holder.execute("UPDATE queue_ring_state SET current_slot = 1")
        await holder.close()
        assert await outcome(made) == ("live", 0, 2)
        await turn(made, times=2)
        assert not (await made.queue.rotate(Ring.QUEUE)).rotated
        assert [claim.job_id for claim in await drain(made.queue, "mail")] == ids
        assert await outcome(made) == ("pruned", 0, 0)
        await turn(made)

    run(dsn, body)


def test_rounds_of_maintenance_keep_the_tables_small(dsn: str) -> None:
    """Hundreds of jobs go through a few slots; in the end nothing is left of them but the counts."""

    async def body(made: Lab) -> None:
        for _ in range(20):
            await made.enqueue(10)
            await drain(made.queue, "mail")
            await made.queue.maintain()
        for _ in range(4):
            await made.queue.maintain()
        for table in ("ready_entries", "done_entries", "lease_claims", "lease_claim_closures", "leases"):
            assert await made.one(f"SELECT count(*) FROM {table}") == 0, table
        assert await made.queue.counts("mail") == Counts(done=200)

    run(dsn, body, stripes=2)
