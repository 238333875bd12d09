"""The way of a job through the queue on a real server: enqueued, claimed, done, failed, cancelled, rescued."""

from __future__ import annotations

import asyncio
import dataclasses
from contextlib import nullcontext
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row
from queue_model import SMALL, Lab, drain, lab, run

from lockmodel.queue import (
    Counts,
    InstallationError,
    Job,
    JobError,
    QueueError,
    Settings,
    SettingsError,
    StripedQueue,
)

pytestmark = pytest.mark.postgres


@pytest.mark.parametrize("schema", ["plain", "MixedCase", 'we"ird %s {x} ; --', "ünïcode", "a" * 63, "select", "a.b'"])
def test_a_queue_lives_in_any_schema(schema: str, dsn: str) -> None:
    """Whatever Postgres takes as a name, quoted where need be; and uninstall leaves nothing."""

    async def body(made: Lab) -> None:
        assert not await made.queue.install()
        ids = await made.enqueue(3, unique_key="k") + await made.queue.enqueue([Job(queue="mail")] * 3, copy=True)
        assert sorted(claim.job_id for claim in await drain(made.queue, "mail")) == ids
        assert await made.queue.counts("mail") == Counts(done=6)
        assert await made.queue.uninstall()
        assert not await made.queue.uninstall()
        assert await made.sql("SELECT 1 FROM pg_namespace WHERE nspname = %s", schema) == []

    run(dsn, body, schema=schema, stripes=2)


def test_without_install_every_operation_says_so(dsn: str) -> None:
    """No undefined table, but what to do."""

    async def body(made: Lab) -> None:
        for operation in (made.enqueue(1), made.queue.claim("mail"), made.queue.counts("mail"), made.queue.maintain()):
            with pytest.raises(InstallationError, match=r"no queue in schema '.*'; call install\(\) first"):
                await operation

    run(dsn, body, install=False)


def test_install_and_uninstall_keep_off_what_is_not_theirs(dsn: str) -> None:
    """A schema with other tables is refused; an empty one is used, and outlives the queue; so do a user's additions."""

    async def body(made: Lab) -> None:
        await made.sql(f"CREATE SCHEMA {made.schema}")
        await made.sql("CREATE TABLE accounts (id int)")
        for operation in (made.queue.install(), made.queue.uninstall()):
            with pytest.raises(InstallationError, match="accounts"):
                await operation
        await made.sql("DROP TABLE accounts")
        assert await made.queue.install()
        with pytest.raises(InstallationError, match="4/2/2 queue/lease/claim slots, the settings say 16/2/2"):
            await made.another(queue_slots=16).install()
        await made.sql("CREATE TABLE accounts (id int)")
        assert await made.queue.uninstall()
        assert await made.sql("SELECT count(*) FROM accounts") == [(0,)]
        await made.sql("DROP TABLE accounts")
        assert await made.queue.install() and await made.queue.uninstall()
        assert await made.one("SELECT count(*) FROM pg_namespace WHERE nspname = %s", made.schema) == 1

    run(dsn, body, install=False)


def test_two_processes_may_install_at_once(dsn: str) -> None:
    """One makes the tables, the other finds them."""

    async def body(made: Lab) -> None:
        assert sorted(await asyncio.gather(*(made.another().install() for _ in range(4)))) == [
            False,
            False,
            False,
            True,
        ]

    run(dsn, body, install=False)


@pytest.mark.parametrize("copy", [False, True])
def test_what_goes_in_comes_out(copy: bool, dsn: str) -> None:
    """Payloads, keys, priorities; by INSERT and by COPY."""
    payloads: list[Any] = [None, 0, "", 'a"\\N\t\n%s\0\ud800', [1, {"x": []}], {"é": 1.5e300}, "x" * 20_000]

    async def body(made: Lab) -> None:
        jobs = [Job(queue="mail", payload=payload, unique_key=b"\0\xff\\") for payload in payloads]
        ids = await made.queue.enqueue(jobs, copy=copy)
        batch = await made.queue.claim("mail")
        assert [claim.payload for claim in batch] == payloads
        assert [claim.job_id for claim in batch] == ids
        assert {(claim.unique_key, claim.attempt, claim.run_lease) for claim in batch} == {(b"\0\xff\\", 1, 1)}
        assert batch[0].enqueued_at.tzinfo is not None and batch[0].deadline_at is None
        assert batch.error is None and batch[:2] == batch.claims[:2]

    run(dsn, body)


@pytest.mark.parametrize("copy", [False, True])
def test_a_batch_is_spread_over_the_stripes(copy: bool, dsn: str) -> None:
    """By index; jobs with a key all in one place, and an empty batch nowhere."""

    async def body(made: Lab) -> None:
        assert await made.queue.enqueue([], copy=copy) == []
        jobs = [Job(queue="mail") for _ in range(7)] + [Job(queue="mail", unique_key="k") for _ in range(4)]
        await made.queue.enqueue([*jobs, Job(queue="sms", priority=1)], copy=copy)
        lanes = await made.sql("SELECT queue, priority, available_count FROM queue_lanes ORDER BY 1")
        expected = {"mail#0": 3, "mail#1": 2, "mail#2": 2}
        [key_stripe] = {lane for lane, _, count in lanes if count - expected.get(lane, 0) == 4}
        assert lanes == [
            *((lane, 100, count + 4 * (lane == key_stripe)) for lane, count in expected.items()),
            ("sms#2", 1, 1),
        ]

    run(dsn, body, stripes=3)


def test_too_large_a_batch_is_refused_as_a_whole(dsn: str) -> None:
    """The setting's name is in the line."""

    async def body(made: Lab) -> None:
        with pytest.raises(JobError, match=r"at most 3 jobs \(enqueue_batch_max\), this one has 4"):
            await made.enqueue(4)
        assert await made.queue.counts("mail") == Counts()

    run(dsn, body, enqueue_batch_max=3)


def test_lanes_are_claimed_by_priority_and_in_order(dsn: str) -> None:
    """One lane a claim and stripe; within it the order of enqueueing, whatever was enqueued in between."""

    async def body(made: Lab) -> None:
        late = await made.enqueue(3, priority=9)
        soon = await made.enqueue(2, priority=-1)
        late += await made.enqueue(3, priority=9)
        claimed = [[claim.job_id for claim in await made.queue.claim("mail", 4)] for _ in range(4)]
        assert claimed == [soon, late[:4], late[4:], []]

    run(dsn, body)


def test_stripes_are_visited_in_turn(dsn: str) -> None:
    """Each call begins one stripe further on, and asks each stripe for what is still lacking."""

    async def body(made: Lab) -> None:
        await made.enqueue(12)
        batches = [await made.queue.claim("mail", 5) for _ in range(3)]
        assert [[claim.queue[-1] for claim in batch] for batch in batches] == [list("00001"), list("11122"), list("22")]
        with pytest.raises(SettingsError, match="limit must be"):
            await made.queue.claim("mail", 0)
        with pytest.raises(SettingsError, match="called like a stripe"):
            await made.queue.claim("mail#0", 1)

    run(dsn, body, stripes=3)


def test_a_completed_job_is_done_once(dsn: str) -> None:
    """A second completion of the same claim changes nothing, nor does one of a claim that never was."""

    async def body(made: Lab) -> None:
        await made.enqueue(3)
        batch = await made.queue.claim("mail", 2)
        strange = dataclasses.replace(batch[0], run_lease=7)
        assert await made.queue.complete([batch[1], strange, batch[0], batch[1]]) == (batch[1], batch[0])
        assert await made.queue.complete(batch) == ()
        assert (
            await made.queue.complete([]) == await made.queue.heartbeat([]) == await made.queue.ensure_running([]) == ()
        )
        assert await made.queue.counts("mail") == Counts(ready=1, done=2)

    run(dsn, body)


def test_a_failed_job_keeps_its_error_and_can_be_retried(dsn: str) -> None:
    """Its attempts begin anew, its run_lease does not: the first worker can't touch it any more."""

    async def body(made: Lab) -> None:
        [job] = await made.queue.enqueue([Job(queue="mail", payload={"n": 1}, unique_key="k")])
        [first] = await made.queue.claim("mail")
        assert await made.queue.fail(first, "no route\0 to \ud800 host")
        assert not await made.queue.fail(first, "again")
        assert await made.one("SELECT error FROM done_entries") == "no route\\x00 to \\ud800 host"
        assert await made.queue.counts("mail") == Counts(failed=1)
        assert not await made.queue.retry(job + 1)
        assert await made.queue.retry(job)
        assert not await made.queue.retry(job)
        [second] = await made.queue.claim("mail")
        assert (second.job_id, second.payload, second.unique_key) == (job, {"n": 1}, b"k")
        assert (second.attempt, second.run_lease, second.enqueued_at) == (1, 2, first.enqueued_at)
        assert await made.queue.complete([first]) == ()
        assert await made.queue.complete([second]) == (second,)

    run(dsn, body)


@pytest.mark.parametrize("one_transaction", [True, False])
def test_many_jobs_are_retried_in_the_order_of_their_ids(one_transaction: bool, dsn: str) -> None:
    """Whatever order they are named in, and however often."""

    async def body(made: Lab) -> None:
        ids = await made.enqueue(5)
        claims = [*await made.queue.claim("mail", 5)]
        for claim in claims:
            await made.queue.fail(claim, "no")
        asked = [ids[4], ids[0], ids[2], ids[0], 999]
        assert await made.queue.retry_many(asked, one_transaction=one_transaction) == [ids[0], ids[2], ids[4]]
        assert await made.queue.retry_many([], one_transaction=one_transaction) == []
        again = await made.queue.claim("mail", 5, first_stripe=0)
        assert [claim.job_id for claim in again if claim.queue.endswith("0")] == [ids[0], ids[2], ids[4]]

    run(dsn, body, stripes=2)


@pytest.mark.parametrize("one_transaction", [True, False])
def test_ready_running_and_deferred_jobs_can_be_cancelled(one_transaction: bool, dsn: str) -> None:
    """A cancelled job is not claimed; the worker of a running one learns of it by its heartbeat."""

    async def body(made: Lab) -> None:
        ids = await made.enqueue(5)
        running, deferred, done = await made.queue.claim("mail", 3)
        assert await made.queue.ensure_running([running]) == (running,)
        assert await made.queue.snooze(deferred, 100)
        assert await made.queue.complete([done])
        assert await made.queue.counts("mail") == Counts(ready=2, running=1, deferred=1, done=1)
        assert await made.queue.cancel(ids[3])
        rest = [ids[0], ids[1]]
        assert await made.queue.cancel_many([*ids, 999], one_transaction=one_transaction) == [*rest, ids[4]]
        assert not await made.queue.cancel(ids[3]) and not await made.queue.cancel(999)
        assert await made.queue.heartbeat([running]) == () == await made.queue.complete([running])
        assert await made.queue.counts("mail") == Counts(done=1, cancelled=4)
        assert await made.queue.promote() == [] == [*await made.queue.claim("mail")]
        assert await made.one("SELECT count(*) FROM leases") == 0
        [new] = await made.enqueue(1)
        assert [claim.job_id for claim in await made.queue.claim("mail")] == [new]

    run(dsn, body)


def test_a_snoozed_job_waits_without_using_up_an_attempt(dsn: str) -> None:
    """It comes back when it is due, under a new run_lease."""

    async def body(made: Lab) -> None:
        await made.enqueue(2)
        first, second = await made.queue.claim("mail", 2)
        assert await made.queue.snooze(first, 0) and await made.queue.snooze(second, 3600)
        assert not await made.queue.snooze(first, 0)
        assert await made.queue.promote() == [first.job_id]
        [again] = await made.queue.claim("mail")
        assert (again.job_id, again.attempt, again.run_lease, again.payload) == (first.job_id, 1, 2, first.payload)
        with pytest.raises(SettingsError, match="delay_s"):
            await made.queue.snooze(again, -1)

    run(dsn, body)


def test_a_live_worker_keeps_its_jobs_and_a_dead_one_loses_them(dsn: str) -> None:
    """Rescue by heartbeat: a new attempt under a new run_lease, and the old worker's completion is ignored."""

    async def body(made: Lab) -> None:
        await made.enqueue(2)
        dead, alive = await made.queue.claim("mail", 2)
        assert not await made.queue.rescue_stale()
        await made.sql("UPDATE lease_claims SET claimed_at = now() - interval '1 hour'")
        await made.sql("UPDATE attempt_state SET heartbeat_at = now() - interval '1 hour'")
        assert await made.queue.heartbeat([alive]) == (alive,)
        assert (await made.queue.rescue_stale()).ready == (dead.job_id,)
        assert await made.queue.heartbeat([dead, alive]) == (alive,)
        [again] = await made.queue.claim("mail")
        assert (again.job_id, again.attempt, again.run_lease) == (dead.job_id, 2, 2)
        assert await made.queue.complete([dead, again, alive]) == (again, alive)
        assert await made.queue.counts("mail") == Counts(done=2)
        assert await made.one("SELECT count(*) FROM attempt_state") == 0

    run(dsn, body)


def test_a_heartbeat_between_being_found_stale_and_being_closed_counts(dsn: str) -> None:
    """Rescue looks again once it holds the claim's row."""

    async def body(made: Lab) -> None:
        await made.enqueue(1)
        [claim] = await made.queue.claim("mail")
        await made.sql("UPDATE lease_claims SET claimed_at = now() - interval '1 hour'")
        async with await psycopg.AsyncConnection.connect(made.dsn) as other:
            # A heartbeat that has locked nothing: what one looks like that commits just before the rescue's lock.
            await other.execute(f"SET search_path = {made.schema}")
            await other.execute("LOCK TABLE lease_claim_closures_0 IN EXCLUSIVE MODE")
            rescue = asyncio.create_task(made.queue.rescue_stale())
            await made.until("SELECT count(*) > 0 FROM pg_locks WHERE NOT granted")
            await other.execute("INSERT INTO attempt_state VALUES (%s, 1, now())", (claim.job_id,))
            await other.commit()
            assert not await rescue
        assert await made.queue.complete([claim]) == (claim,)

    run(dsn, body)


def test_a_job_over_its_deadline_is_taken_away_heartbeats_or_not(dsn: str) -> None:
    """The deadline is of the claim, or of the settings."""

    async def body(made: Lab) -> None:
        await made.enqueue(2)
        [late] = await made.queue.claim("mail", 1, deadline_s=0.000_001)
        [early] = await made.queue.claim("mail", 1)
        assert late.deadline_at is not None and early.deadline_at is not None and late.deadline_at < early.deadline_at
        assert await made.queue.heartbeat([late, early]) == (late, early)
        assert (await made.queue.rescue_expired()).ready == (late.job_id,)
        assert not await made.queue.rescue_expired()
        assert await made.queue.complete([late, early]) == (early,)

    run(dsn, body, deadline_s=3600.0)


def test_rescued_jobs_may_be_deferred_and_may_run_out_of_attempts(dsn: str) -> None:
    """With rescue_delay_s they wait; after attempts_max they have failed, with the reason."""

    async def body(made: Lab) -> None:
        [job] = await made.enqueue(1)
        await made.queue.claim("mail")
        assert (await made.queue.rescue_stale(0)).deferred == (job,)
        assert await made.queue.counts("mail") == Counts(deferred=1)
        await made.sql("UPDATE deferred_jobs SET run_at = now()")
        assert await made.queue.promote() == [job]
        [claim] = await made.queue.claim("mail")
        assert claim.attempt == 2
        assert (await made.queue.rescue_stale(0)).failed == (job,)
        assert await made.one("SELECT error FROM done_entries") == "no heartbeat in attempt 2"
        assert await made.queue.retry(job)
        assert [claim.attempt for claim in await made.queue.claim("mail")] == [1]

    run(dsn, body, rescue_delay_s=60.0, attempts_max=2)


def test_a_killed_worker_costs_nothing_but_an_attempt(dsn: str) -> None:
    """Its backend is terminated after the claim; another worker does its jobs."""

    async def body(made: Lab) -> None:
        ids = await made.enqueue(6)
        doomed = await made.open()
        batch = await StripedQueue(lambda: nullcontext(doomed), schema=made.schema, settings=Settings(**SMALL)).claim(
            "mail", 4
        )
        await made.sql("SELECT pg_terminate_backend(%s)", doomed.info.backend_pid)
        await doomed.close()
        assert len(await made.queue.claim("mail", 1)) == 1
        assert (await made.queue.rescue_stale(0)).ready == tuple(ids[:5])
        done = await drain(made.queue, "mail")
        assert sorted(claim.job_id for claim in done) == ids
        assert [claim.attempt for claim in sorted(done, key=lambda claim: claim.job_id)] == [2] * 5 + [1]
        assert await made.queue.complete(batch) == ()

    run(dsn, body)


@pytest.mark.parametrize("autocommit", [True, False])
def test_any_connection_will_do(autocommit: bool, dsn: str) -> None:
    """With or without autocommit, and whatever its row factory makes of rows."""

    async def body(made: Lab) -> None:
        made.autocommit = autocommit
        async with made.connect() as connection:
            connection.row_factory = dict_row
        await made.enqueue(3)
        assert len(await drain(made.queue, "mail")) == 3

    run(dsn, body)


def test_a_connection_that_is_busy_or_repeats_its_reads_is_refused(dsn: str) -> None:
    """In a transaction of the caller's nothing would be committed; in REPEATABLE READ later statements would not see more."""

    async def body(made: Lab) -> None:
        connection = await made.open()
        queue = StripedQueue(lambda: nullcontext(connection), schema=made.schema, settings=Settings(**SMALL))
        async with connection.transaction():
            await connection.execute("SELECT 1")
            with pytest.raises(QueueError, match="inside a transaction"):
                await queue.claim("mail")
        await connection.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
        with pytest.raises(QueueError, match="isolation level REPEATABLE READ; it must be READ COMMITTED"):
            await queue.claim("mail")
        await connection.close()

    run(dsn, body)


def test_jobs_of_stripes_that_are_no_longer_named_are_still_counted(dsn: str) -> None:
    """And of no other queue, however alike its name."""

    async def body(made: Lab) -> None:
        await made.enqueue(5)
        await made.enqueue(1, queue="mail#x")
        await made.enqueue(1, queue="mai")
        assert await made.another(stripes=1).counts("mail") == Counts(ready=5)
        assert await made.another(stripes=1).counts("mail_") == Counts()

    run(dsn, body, stripes=3)


def test_labs_leave_nothing_behind(dsn: str) -> None:
    """The tests' own promise."""

    async def main() -> str:
        async with lab(dsn) as made:
            await made.enqueue(1)
            return made.schema

    schema = asyncio.run(main())
    with psycopg.connect(dsn) as connection:
        assert connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (schema,)).fetchall() == []
