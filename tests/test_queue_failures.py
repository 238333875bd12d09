"""A stripe that fails while another has been claimed from already: nothing of that is lost."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest
from psycopg import errors
from queue_model import Lab, drain, run, sqlstate

from lockmodel.queue import ClaimedBatch, Counts, Job

pytestmark = pytest.mark.postgres

LANE_1 = "UPDATE queue_lanes SET available_count = available_count WHERE queue = 'mail#1'"
HEAD_1 = "UPDATE queue_claim_heads SET claim_seq = claim_seq WHERE queue = 'mail#1'"


class Trouble:
    """Somebody who holds the second stripe's queue_lanes row, so that a claim waits there, and then makes it fail in `way`."""

    def __init__(self, made: Lab, way: str) -> None:
        self.made = made
        self.way = way

    async def claim(self, limit: int, **options: Any) -> ClaimedBatch:
        """A claim into which the trouble comes."""
        # On the sessions that claim: whoever looks for a deadlock first is its victim.
        settings = ["SET deadlock_timeout = '50ms'"]
        if self.way == "timeout":
            settings.append("SET statement_timeout = '300ms'")
        await self.made.prepare_with(*settings)
        holder = await psycopg.AsyncConnection.connect(self.made.dsn)
        await holder.execute(f"SET search_path = {self.made.schema}")  # type: ignore[arg-type]
        await holder.execute("SET deadlock_timeout = '1h'")
        await holder.execute(LANE_1)
        claim = asyncio.create_task(self.made.queue.claim("mail", limit, **options))
        blocked = "SELECT pid FROM pg_stat_activity WHERE %s = ANY(pg_blocking_pids(pid))"
        pid = await self.made.until(blocked, holder.info.backend_pid)
        if self.way == "terminated":
            await self.made.sql("SELECT pg_terminate_backend(%s)", pid)
        elif self.way == "cancelled":
            await self.made.sql("SELECT pg_cancel_backend(%s)", pid)
        elif self.way == "deadlock":
            await holder.execute(HEAD_1)  # which the claim holds: it waits for us, and we for it
        try:
            return await claim
        finally:
            await holder.rollback()
            await holder.close()
            await self.made.prepare_with()


WAYS = {"terminated": "57P01", "deadlock": "40P01", "timeout": "57014", "cancelled": "57014"}


@pytest.mark.parametrize("way", WAYS)
def test_what_is_claimed_is_returned_when_the_second_stripe_fails(way: str, dsn: str) -> None:
    """With the error; the jobs can be completed, those of the second stripe are claimed by the next call, each once."""

    async def body(made: Lab) -> None:
        ids = await made.enqueue(12)
        batch = await Trouble(made, way).claim(8)
        assert sqlstate(batch.error) == WAYS[way], batch.error
        assert [claim.job_id for claim in batch] == ids[0:12:3][:4]
        assert {claim.queue for claim in batch} == {"mail#0"}
        assert await made.queue.counts("mail") == Counts(ready=8, running=4)
        assert await made.queue.complete(batch) == batch.claims
        rest = await drain(made.queue, "mail")
        assert sorted(claim.job_id for claim in (*batch, *rest)) == ids
        assert {claim.attempt for claim in rest} == {1}

    run(dsn, body, stripes=3)


@pytest.mark.parametrize("way", WAYS)
def test_the_error_is_the_callers_when_nothing_is_claimed(way: str, dsn: str) -> None:
    """The failing stripe comes first, or those before it are empty."""

    async def body(made: Lab) -> None:
        ids = await made.enqueue(2)
        [first] = await made.queue.claim("mail", 1, first_stripe=0)
        await made.queue.complete([first])
        for start in (1, 0):
            with pytest.raises(psycopg.Error) as caught:
                await Trouble(made, way).claim(8, first_stripe=start)
            assert sqlstate(caught.value) == WAYS[way]
        assert await made.queue.counts("mail") == Counts(ready=1, done=1)
        assert [claim.job_id for claim in await drain(made.queue, "mail")] == ids[1:]

    run(dsn, body, stripes=2)


@pytest.mark.parametrize("way", WAYS)
def test_the_historical_claim_gives_back_everything(way: str, dsn: str) -> None:
    """Its one transaction is rolled back: no job is claimed, and the error is the caller's."""

    async def body(made: Lab) -> None:
        ids = await made.enqueue(6)
        with pytest.raises(psycopg.Error) as caught:
            await Trouble(made, way).claim(8)
        assert sqlstate(caught.value) == WAYS[way]
        assert await made.queue.counts("mail") == Counts(ready=6)
        assert sorted(claim.job_id for claim in await drain(made.queue, "mail")) == ids

    run(dsn, body, stripes=3, claim_strategy="all_stripes")


def test_a_pool_that_has_no_connection_for_the_second_stripe_loses_nothing(dsn: str) -> None:
    """It need not be Postgres that fails."""

    async def body(made: Lab) -> None:
        ids = await made.enqueue(4)
        connect, calls = made.connect, 0

        def sometimes() -> Any:
            nonlocal calls
            calls += 1
            if calls == 2:
                raise TimeoutError("no connection within 30 s")
            return connect()

        made.connect = sometimes  # type: ignore[method-assign]
        batch = await made.another().claim("mail", 4)
        assert [claim.job_id for claim in batch] == ids[::2]
        assert isinstance(batch.error, TimeoutError)

    run(dsn, body, stripes=2)


def test_an_enqueue_that_fails_has_put_in_nothing(dsn: str) -> None:
    """All lanes or none, and the numbers that it had reserved are given back."""

    async def body(made: Lab) -> None:
        jobs = [Job(queue="mail") for _ in range(4)]
        await made.queue.enqueue(jobs)
        await made.sql("CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$")
        await made.sql(
            "CREATE TRIGGER no BEFORE UPDATE ON queue_lanes FOR EACH ROW WHEN (new.queue = 'mail#1')"
            f" EXECUTE FUNCTION {made.schema}.no()"
        )
        for copy in (False, True):
            with pytest.raises(errors.RaiseException):
                await made.queue.enqueue(jobs, copy=copy)
        await made.sql("DROP TRIGGER no ON queue_lanes")
        assert await made.queue.counts("mail") == Counts(ready=4)
        await made.queue.enqueue(jobs)
        assert [claim.lane_seq for claim in await drain(made.queue, "mail")] == [0, 1, 2, 3, 0, 1, 2, 3]

    run(dsn, body, stripes=2)
