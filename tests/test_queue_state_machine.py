"""Random operations on a real queue and on a plain model of it: every answer and every table must agree after each."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from queue_model import Lab, Model, lab, tables

from lockmodel.queue import Claim, Job, Ring

pytestmark = pytest.mark.postgres

T = TypeVar("T")
QUEUES = st.sampled_from(["mail", "sms"])
JOBS = st.builds(
    Job,
    queue=QUEUES,
    priority=st.sampled_from([1, 2]),
    unique_key=st.none() | st.sampled_from(["a", "b", "c"]),
    payload=st.integers(0, 9),
)
PICKS = st.lists(st.integers(0, 30), min_size=1, max_size=5)
"""Which of the claims so far, counted from the latest."""
IDS = st.lists(st.integers(1, 25), min_size=1, max_size=4)


class QueueMachine(RuleBasedStateMachine):
    """A queue, its model, and every claim that anybody ever got, stale ones included."""

    dsn = ""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.claims: list[Claim] = []

    @initialize(stripes=st.integers(1, 3), attempts_max=st.none() | st.integers(1, 2), delay=st.booleans())
    def install(self, stripes: int, attempts_max: int | None, delay: bool) -> None:
        options = {"stripes": stripes, "attempts_max": attempts_max, "rescue_delay_s": 1000.0 if delay else 0.0}
        self.context = lab(self.dsn, **options)
        self.lab: Lab = self.run(self.context.__aenter__())
        self.queue = self.lab.queue
        self.model = Model(stripes, attempts_max, delay)

    def run(self, operation: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(operation)

    def teardown(self) -> None:
        if hasattr(self, "lab"):
            self.run(self.context.__aexit__(None, None, None))
        self.runner.close()

    def pick(self, picks: list[int]) -> list[Claim]:
        return [self.claims[-1 - number % len(self.claims)] for number in picks]

    @rule(jobs=st.lists(JOBS, max_size=8), copy=st.booleans())
    def enqueue(self, jobs: list[Job], copy: bool) -> None:
        assert self.run(self.queue.enqueue(jobs, copy=copy)) == self.model.enqueue(jobs)

    @rule(queue=QUEUES, limit=st.integers(1, 6), expires=st.booleans())
    def claim(self, queue: str, limit: int, expires: bool) -> None:
        batch = self.run(self.queue.claim(queue, limit, deadline_s=1e-6 if expires else None))
        expected = self.model.claim(queue, limit, expires)
        assert [(c.claim_slot, c.job_id, c.run_lease, c.attempt) for c in batch] == [
            (c.slot, c.job_id, c.run_lease, c.attempt) for c in expected
        ]
        self.claims += batch

    @precondition(lambda self: self.claims)
    @rule(picks=PICKS)
    def complete(self, picks: list[int]) -> None:
        chosen = self.pick(picks)
        assert [c.job_id for c in self.run(self.queue.complete(chosen))] == self.model.complete(chosen)

    @precondition(lambda self: self.claims)
    @rule(picks=PICKS, by_job=st.booleans())
    def heartbeat(self, picks: list[int], by_job: bool) -> None:
        chosen = self.pick(picks)
        alive = self.run(self.queue.heartbeat(chosen, by_job=by_job))
        assert [c.job_id for c in alive] == self.model.heartbeat(chosen)

    @precondition(lambda self: self.claims)
    @rule(picks=PICKS)
    def ensure_running(self, picks: list[int]) -> None:
        chosen = self.pick(picks)
        assert [c.job_id for c in self.run(self.queue.ensure_running(chosen))] == self.model.ensure_running(chosen)

    @precondition(lambda self: self.claims)
    @rule(pick=st.integers(0, 30))
    def fail(self, pick: int) -> None:
        [claim] = self.pick([pick])
        assert self.run(self.queue.fail(claim, "no")) == self.model.fail(claim)

    @precondition(lambda self: self.claims)
    @rule(pick=st.integers(0, 30), due=st.booleans())
    def snooze(self, pick: int, due: bool) -> None:
        [claim] = self.pick([pick])
        assert self.run(self.queue.snooze(claim, 0 if due else 1000)) == self.model.snooze(claim, due)

    @rule(ids=IDS, one_transaction=st.booleans())
    def cancel(self, ids: list[int], one_transaction: bool) -> None:
        expected = [job_id for job_id in sorted(set(ids)) if self.model.cancel(job_id)]
        assert self.run(self.queue.cancel_many(ids, one_transaction=one_transaction)) == expected

    @rule(ids=IDS, one_transaction=st.booleans())
    def retry(self, ids: list[int], one_transaction: bool) -> None:
        expected = [job_id for job_id in sorted(set(ids)) if self.model.retry(job_id)]
        assert self.run(self.queue.retry_many(ids, one_transaction=one_transaction)) == expected

    @rule(stale=st.booleans())
    def rescue(self, stale: bool) -> None:
        wanted = [claim for claim in self.model.claims.values() if not claim.closed and (stale or claim.expired)]
        rescued = self.run(self.queue.rescue_stale(0) if stale else self.queue.rescue_expired())
        fates = self.model.rescue(wanted)
        for fate in ("ready", "deferred", "failed"):
            assert list(getattr(rescued, fate)) == fates[fate]

    @rule()
    def promote(self) -> None:
        assert self.run(self.queue.promote()) == self.model.promote()

    @rule(ring=st.sampled_from(Ring), times=st.integers(1, 2))
    def rotate(self, ring: Ring, times: int) -> None:
        for _ in range(times):
            rotation = self.run(self.queue.rotate(ring))
            assert (rotation.slot, rotation.rotated) == self.model.rotate(ring)

    @rule(ring=st.sampled_from(Ring))
    def prune(self, ring: Ring) -> None:
        pruning = self.run(self.queue.prune(ring))
        assert (pruning.outcome, pruning.slot, pruning.live) == self.model.prune(ring)

    @invariant()
    def every_table_holds_what_it_must(self) -> None:
        assert self.run(tables(self.lab)) == self.model.tables()

    @rule(queue=QUEUES)
    def counts(self, queue: str) -> None:
        assert vars(self.run(self.queue.counts(queue))) == self.model.counts(queue)


def test_a_queue_does_what_its_model_does(dsn: str) -> None:
    """Some forty runs of up to forty operations."""
    machine = type("Machine", (QueueMachine,), {"dsn": dsn})
    chosen = settings(max_examples=40, stateful_step_count=40, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(machine, settings=chosen)
