"""The rules of Postgres's lock manager, one schedule each. tests/test_server_agreement.py has a real server say the same."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from lock_schedules import Course, Line, Model

from lockmodel.compiler import compile_spec
from lockmodel.lock_manager import (
    Advisory,
    Cycle,
    Key,
    LockManager,
    Outcome,
    Rearrangement,
    Row,
    RowVersion,
    Table,
    Transaction,
)
from lockmodel.modes import KINDS
from lockmodel.parser import parse
from lockmodel.semantics import Action, Semantics, State, crew
from lockmodel.system import ActionKind, Edge, Status


def after(schedule: str, alert: Sequence[int] = (), server_version: int = 18, course: Sequence[int] = ()) -> Model:
    """The model after a schedule such as "0: lock t0 SHARE; 1: row t0.1 FOR UPDATE"; every session has begun a transaction."""
    lines = [Line.parse(line) for line in schedule.split(";")]
    sessions = sorted({line.session for line in lines})
    model = Model(sessions, frozenset(alert), Course(course), server_version)
    for session in sessions:
        model.perform(Line.parse(f"{session}: begin"))
    for line in lines:
        model.perform(line)
    return model


def blockers(schedule: str) -> dict[int, tuple[int, ...]]:
    """Whom each waiting session waits for, after a schedule."""
    model = after(schedule)
    return {s: model.manager.blockers(s) for s in model.sessions if model.manager.waits(s)}


def courses(schedule: str, alert: Sequence[int] = ()) -> Iterator[Model]:
    """The model after a schedule, in every course of events."""
    left = [Course()]
    while left:
        model = after(schedule, alert, course=left.pop().prefix)
        left.extend(model.course.others())
        yield model


# The queue of one object


def test_a_request_waits_behind_an_earlier_request_that_conflicts() -> None:
    """Nobody holds what is in its way; the reader stands behind the DDL, which stands behind the first reader."""
    model = after("0: lock t0 ACCESS SHARE; 1: lock t0 ACCESS EXCLUSIVE; 2: lock t0 ACCESS SHARE")
    assert model.manager.blockers(1) == model.manager.holders(1) == (0,)
    assert model.manager.blockers(2) == (1,)
    assert model.manager.holders(2) == ()
    assert model.manager.queue(Table("t0")) == (1, 2)


def test_a_request_that_conflicts_with_nobody_does_not_wait_behind_others() -> None:
    assert blockers("0: lock t0 ROW EXCLUSIVE; 1: lock t0 SHARE; 2: lock t0 ACCESS SHARE") == {1: (0,)}


def test_who_holds_a_lock_on_the_object_goes_before_those_who_wait_for_it() -> None:
    """Session 0 would make session 1 wait anyway, so it doesn't wait for it."""
    model = after(
        "0: advisory 1 SHARED; 1: advisory 1 EXCLUSIVE; 0: lock t0 SHARE; 2: lock t0 EXCLUSIVE; 0: lock t0 ROW SHARE"
    )
    assert model.manager.outcome(0) == Outcome.GRANTED


def test_who_goes_before_a_waiter_may_have_to_wait_itself() -> None:
    model = after("0: lock t0 ROW SHARE; 1: lock t0 ACCESS SHARE; 2: lock t0 ACCESS EXCLUSIVE; 1: lock t0 EXCLUSIVE")
    assert model.manager.queue(Table("t0")) == (1, 2)
    assert model.manager.blockers(1) == (0,)


def test_who_goes_before_a_waiter_stays_behind_an_earlier_one_that_is_in_its_way() -> None:
    """1 makes 3 wait, and not 2."""
    model = after(
        "0: lock t0 ROW EXCLUSIVE; 1: lock t0 ACCESS SHARE; 2: lock t0 SHARE; 3: lock t0 ACCESS EXCLUSIVE; 1: lock t0 ROW EXCLUSIVE"
    )
    assert model.manager.queue(Table("t0")) == (2, 1, 3)


def test_two_who_upgrade_one_lock_deadlock_at_once() -> None:
    """Without any deadlock check: the queue itself shows it."""
    model = after("0: lock t0 SHARE; 1: lock t0 SHARE; 0: lock t0 ROW EXCLUSIVE; 1: lock t0 ROW EXCLUSIVE")
    assert model.manager.outcome(1) == Outcome.DEADLOCK
    assert model.manager.outcome(0) == Outcome.GRANTED


@pytest.mark.parametrize(
    ("server_version", "outcome"), [(15, Outcome.REFUSED), (16, Outcome.REFUSED), (17, Outcome.GRANTED)]
)
def test_nowait_goes_past_the_queue_from_postgres_17_on(server_version: int, outcome: Outcome) -> None:
    """Where a waiting request would be granted at once, as it goes before those who wait for its session."""
    model = after("0: lock t0 SHARE; 1: lock t0 EXCLUSIVE; 0: lock t0 ROW SHARE NOWAIT", server_version=server_version)
    assert model.manager.outcome(0) == outcome


def test_a_release_wakes_all_up_to_the_first_that_conflicts() -> None:
    model = after(
        "0: advisory 1 EXCLUSIVE; 1: advisory 1 SHARED; 2: advisory 1 SHARED; 3: advisory 1 EXCLUSIVE;"
        "4: advisory 1 SHARED; 0: commit"
    )
    assert [model.manager.waits(session) for session in range(5)] == [False, False, False, True, True]
    assert model.manager.blockers(3) == (1, 2)
    assert model.manager.blockers(4) == (3,)


def test_who_gives_up_lets_those_behind_it_pass() -> None:
    model = after("0: lock t0 ACCESS SHARE; 1: lock t0 ACCESS EXCLUSIVE; 2: lock t0 ACCESS SHARE; 1: cancel")
    assert (model.manager.outcome(1), model.manager.outcome(2)) == (Outcome.CANCELLED, Outcome.GRANTED)


# Deadlocks


def test_the_check_of_a_member_finds_the_cycle_and_aborts_that_member() -> None:
    model = after("0: advisory 1 EXCLUSIVE; 1: advisory 2 EXCLUSIVE; 0: advisory 2 EXCLUSIVE; 1: advisory 1 EXCLUSIVE")
    assert model.manager.deadlock(0) == Cycle((0, 1))
    assert model.manager.outcome(0) == Outcome.DEADLOCK
    assert model.manager.outcome(1) == Outcome.GRANTED


def test_who_waits_for_a_cycle_without_being_in_it_finds_nothing() -> None:
    model = after(
        "0: advisory 1 EXCLUSIVE; 1: advisory 2 EXCLUSIVE; 0: advisory 2 EXCLUSIVE; 1: advisory 1 EXCLUSIVE;"
        "2: advisory 1 SHARED"
    )
    assert model.manager.deadlock(2) is None
    assert model.manager.waits(2)


def test_the_check_lets_a_later_request_past_an_earlier_one_to_undo_a_circle() -> None:
    """2 waits behind the request of 1, which waits for 0, which waits for 2. Reordered, 2 has its lock at once."""
    model = after(
        "0: advisory 1 SHARED; 2: advisory 2 EXCLUSIVE; 1: advisory 1 EXCLUSIVE; 2: advisory 1 SHARED; 0: advisory 2 SHARED"
    )
    assert model.manager.holders(2) == ()
    assert model.manager.deadlock(0) == Rearrangement({Advisory(1): (2, 1)})
    assert model.manager.outcome(2) == Outcome.GRANTED
    assert model.manager.blockers(1) == (0, 2)


def test_a_circle_that_no_order_undoes_is_a_deadlock() -> None:
    """2 can't pass 1, who holds what it wants."""
    model = after(
        "0: advisory 1 SHARED; 2: advisory 2 EXCLUSIVE; 1: lock t0 EXCLUSIVE; 1: advisory 1 EXCLUSIVE; 2: lock t0 SHARE;"
        "0: advisory 2 SHARED"
    )
    finding = model.manager.deadlock(0)
    assert finding == Cycle((0, 2, 1))


def test_a_circle_with_two_queues_is_undone_in_one_of_them() -> None:
    """Both waits in it are only behind requests: 2 behind 1 for the first key, 3 behind 0 for the second."""
    model = after(
        "2: advisory 1 SHARED; 3: advisory 2 SHARED; 0: advisory 1 EXCLUSIVE; 1: advisory 2 EXCLUSIVE;"
        "3: advisory 1 SHARED; 2: advisory 2 SHARED"
    )
    assert (model.manager.holders(2), model.manager.holders(3)) == ((), ())
    finding = model.manager.deadlock(2)
    assert finding == Rearrangement({Advisory(1): (3, 0)})
    assert model.manager.outcome(3) == Outcome.GRANTED
    assert model.manager.waits(2)


# Rows


def test_only_the_head_of_a_rows_queue_waits_for_its_holder() -> None:
    model = after("0: row t0.1 FOR UPDATE; 1: row t0.1 FOR UPDATE; 2: row t0.1 FOR UPDATE; 3: row t0.1 FOR UPDATE")
    assert [model.manager.blockers(session) for session in (1, 2, 3)] == [(0,), (1,), (1, 2)]
    assert [model.manager.holders(session) for session in (1, 2, 3)] == [(0,)] * 3
    assert isinstance(model.manager.awaited(1).object, Transaction)  # type: ignore[union-attr]
    assert isinstance(model.manager.awaited(2).object, RowVersion)  # type: ignore[union-attr]


def test_a_compatible_lock_on_a_row_is_taken_past_its_queue() -> None:
    """So a row that is always shared by somebody can starve who wants it alone."""
    assert blockers("0: row t0.1 FOR SHARE; 1: row t0.1 FOR UPDATE; 2: row t0.1 FOR SHARE") == {1: (0,)}


def test_a_request_may_wait_in_a_rows_queue_without_any_holder_in_its_way() -> None:
    """The 0 that made it incompatible has gone, but 2 had gone to the queue because of it, and 1 stands before it there."""
    model = after(
        "3: row t0.1 FOR KEY SHARE; 0: row t0.1 FOR NO KEY UPDATE; 1: row t0.1 FOR UPDATE; 2: row t0.1 FOR SHARE; 0: commit"
    )
    assert model.manager.blockers(1) == (3,)
    assert model.manager.blockers(2) == (1,)
    assert model.manager.holders(2) == ()


def test_the_holders_of_a_shared_row_are_waited_for_one_after_the_other() -> None:
    """In the order in which they got their transaction ids."""
    shared = "1: row t0.2 FOR SHARE; 0: row t0.1 FOR SHARE; 1: row t0.1 FOR SHARE; 2: row t0.1 FOR UPDATE"
    assert blockers(shared) == {2: (1,)}
    assert blockers(f"{shared}; 0: commit") == {2: (1,)}
    assert blockers(f"{shared}; 1: commit") == {2: (0,)}


@pytest.mark.parametrize(("standby", "first"), [(True, 1), (False, 0)])
def test_an_access_exclusive_lock_takes_an_id_where_standby_servers_must_know_of_it(standby: bool, first: int) -> None:
    """So 1 has the lower id, though it is the second to share the row, unless wal_level is minimal."""
    manager = LockManager(standby=standby)
    for session in (0, 1, 2):
        manager.begin(session)
    manager.request(1, Table("t"), "ACCESS EXCLUSIVE")
    for session in (0, 1):
        manager.request(session, Row(1), "FOR SHARE")
    manager.request(2, Row(1), "FOR UPDATE")
    assert manager.blockers(2) == (first,)


def test_who_has_a_weaker_lock_on_the_row_does_not_queue_for_a_stronger_one() -> None:
    """0 waits for 1 only, and gets the row before 2, who was first in the queue."""
    schedule = "0: row t0.1 FOR SHARE; 1: row t0.1 FOR SHARE; 2: row t0.1 FOR UPDATE; 0: row t0.1 FOR UPDATE"
    assert blockers(schedule) == {0: (1,), 2: (0,)}
    assert blockers(f"{schedule}; 1: commit") == {2: (0,)}


def test_two_who_upgrade_one_row_deadlock() -> None:
    model = after(
        "0: row t0.1 FOR SHARE; 1: row t0.1 FOR SHARE; 0: row t0.1 FOR UPDATE; 1: row t0.1 FOR UPDATE", alert=(0, 1)
    )
    assert (model.manager.outcome(0), model.manager.outcome(1)) == (Outcome.GRANTED, Outcome.DEADLOCK)


def test_the_last_of_several_holders_upgrades_without_waiting() -> None:
    assert blockers("0: row t0.1 FOR SHARE; 1: row t0.1 FOR SHARE; 1: commit; 0: row t0.1 FOR UPDATE") == {}


@pytest.mark.parametrize(("way", "outcome"), [("NOWAIT", Outcome.REFUSED), ("SKIP LOCKED", Outcome.SKIPPED)])
def test_nowait_and_skip_locked_speak_of_the_row_and_not_of_its_table(way: str, outcome: Outcome) -> None:
    held = after(f"0: row t0.1 FOR UPDATE; 1: row t0.1 FOR UPDATE {way}")
    assert held.manager.outcome(1) == outcome
    assert after(f"0: lock t0 EXCLUSIVE; 1: row t0.1 FOR UPDATE {way}").manager.waits(1)


def test_nowait_fails_where_only_the_queue_is_in_the_way() -> None:
    """As above: the row itself is free for FOR SHARE, but what is written in it sends the request to the queue."""
    model = after(
        "3: row t0.1 FOR KEY SHARE; 0: row t0.1 FOR NO KEY UPDATE; 1: row t0.1 FOR UPDATE; 0: commit;"
        "2: row t0.1 FOR SHARE NOWAIT"
    )
    assert model.manager.outcome(2) == Outcome.REFUSED


def test_after_an_update_the_next_one_goes_on_with_the_new_version() -> None:
    """Who waited second now queues at the new version, behind the one who has it."""
    model = after("0: update t0.1; 1: update t0.1; 2: update t0.1; 0: commit")
    assert model.manager.outcome(1) == Outcome.GRANTED
    assert model.manager.blockers(2) == (1,)
    assert model.manager.awaited(2).object == Transaction(2)  # type: ignore[union-attr]


def test_after_an_update_the_second_in_the_queue_may_be_first_at_the_new_version() -> None:
    """The queue belongs to a version: who leaves it to follow the update lets the next one run as well."""
    found = courses("0: update t0.1; 1: update t0.1; 2: update t0.1; 0: commit")
    outcomes = {(model.manager.outcome(1), model.manager.outcome(2)) for model in found}
    assert outcomes == {(Outcome.GRANTED, Outcome.WAITS), (Outcome.WAITS, Outcome.GRANTED)}


def test_a_deadlock_check_may_come_before_the_cycle_is_closed() -> None:
    """0 and 1 are woken together. If 1 is slow to ask for what 0 has, the check of 0 is over by then, and 1 has none."""
    schedule = "3: row t0.1 FOR SHARE; 1: row t0.1 FOR SHARE; 0: row t0.1 FOR SHARE; 1: update t0.1; 0: update t0.1 key; 3: commit"
    assert after(schedule, alert=(0,)).manager.outcome(0) == Outcome.DEADLOCK
    outcomes = {model.manager.outcome(0) for model in courses(schedule, alert=(0,))}
    assert outcomes == {Outcome.DEADLOCK, Outcome.WAITS}


def test_a_row_whose_key_changes_makes_a_foreign_key_check_wait_and_another_update_does_not() -> None:
    assert blockers("0: update t0.1; 1: row t0.1 FOR KEY SHARE") == {}
    assert blockers("0: update t0.1 key; 1: row t0.1 FOR KEY SHARE") == {1: (0,)}


def test_key_share_on_an_old_version_holds_on_the_new_one() -> None:
    assert blockers("0: update t0.1; 1: row t0.1 FOR KEY SHARE; 0: commit; 2: delete t0.1") == {2: (1,)}


def test_a_deleted_row_is_skipped() -> None:
    model = after("0: delete t0.1; 1: row t0.1 FOR UPDATE; 2: update t0.1; 0: commit; 3: row t0.1 FOR SHARE")
    assert [model.manager.outcome(session) for session in (1, 2, 3)] == [Outcome.SKIPPED] * 3


# Transactions and savepoints


def test_what_was_locked_since_a_savepoint_is_free_when_it_is_rolled_back() -> None:
    schedule = (
        "0: savepoint a; 0: row t0.1 FOR UPDATE; 0: advisory 1 EXCLUSIVE; 1: row t0.1 FOR UPDATE; 2: advisory 1 SHARED"
    )
    assert blockers(schedule) == {1: (0,), 2: (0,)}
    assert blockers(f"{schedule}; 0: rollback to a") == {}


def test_a_lock_taken_before_the_savepoint_too_stays() -> None:
    schedule = "0: lock t0 SHARE; 0: savepoint a; 0: lock t0 SHARE; 0: rollback to a; 1: lock t0 EXCLUSIVE"
    assert blockers(schedule) == {1: (0,)}


def test_an_upgrade_that_is_rolled_back_leaves_the_weaker_lock() -> None:
    schedule = "0: row t0.1 FOR SHARE; 0: savepoint a; 0: row t0.1 FOR UPDATE; 0: rollback to a"
    assert blockers(f"{schedule}; 1: row t0.1 FOR SHARE") == {}
    assert blockers(f"{schedule}; 1: row t0.1 FOR UPDATE") == {1: (0,)}


def test_the_locks_of_a_released_savepoint_are_those_of_what_is_around_it() -> None:
    schedule = "0: savepoint a; 0: savepoint b; 0: row t0.1 FOR UPDATE; 0: release b; 1: row t0.1 FOR UPDATE"
    assert blockers(schedule) == {1: (0,)}
    assert (
        blockers(
            "0: savepoint a; 0: savepoint b; 0: row t0.1 FOR UPDATE; 0: release b; 0: rollback to a; 1: update t0.1"
        )
        == {}
    )


def test_who_waited_for_a_savepoint_that_is_released_waits_for_the_whole_transaction() -> None:
    """Even if the row is free again before: another session gets it, the one that waits does not."""
    schedule = (
        "0: savepoint a; 0: savepoint b; 0: row t0.1 FOR UPDATE; 1: row t0.1 FOR UPDATE; 0: release b; 0: rollback to a"
    )
    model = after(f"{schedule}; 2: row t0.1 FOR UPDATE")
    assert model.manager.awaited(1).object == Transaction(1)  # type: ignore[union-attr]
    assert (model.manager.blockers(1), model.manager.holders(1)) == ((0,), (2,))
    assert model.manager.outcome(2) == Outcome.GRANTED


def test_an_error_gives_back_what_was_locked_since_the_savepoint() -> None:
    schedule = "0: lock t0 SHARE; 0: savepoint a; 0: lock t1 SHARE; 1: lock t0 EXCLUSIVE; 2: lock t1 EXCLUSIVE"
    assert blockers(schedule) == {1: (0,), 2: (0,)}
    assert blockers(f"3: row t0.1 FOR UPDATE; {schedule}; 0: row t0.1 FOR UPDATE NOWAIT") == {1: (3, 0)}


def test_an_error_without_savepoint_gives_everything_back() -> None:
    assert blockers("0: lock t0 SHARE; 1: lock t0 EXCLUSIVE; 2: lock t1 SHARE; 0: lock t1 EXCLUSIVE NOWAIT") == {}


def test_a_session_key_outlives_its_transaction_and_is_given_back_as_often_as_it_was_taken() -> None:
    taken = "0: advisory 1 EXCLUSIVE session; 0: advisory 1 EXCLUSIVE session; 0: rollback; 1: advisory 1 SHARED"
    assert blockers(taken) == {1: (0,)}
    assert blockers(f"{taken}; 0: unlock 1 EXCLUSIVE") == {1: (0,)}
    assert blockers(f"{taken}; 0: unlock 1 EXCLUSIVE; 0: unlock 1 EXCLUSIVE") == {}


def test_a_statement_without_transaction_gives_its_locks_back_when_it_is_done() -> None:
    manager = LockManager()
    assert manager.request(0, Row(1), "FOR UPDATE") == Outcome.GRANTED
    assert manager.request(1, Row(1), "FOR UPDATE") == Outcome.GRANTED


def test_the_second_to_insert_a_key_waits_for_the_first_transaction() -> None:
    for commit, outcome in ((True, Outcome.DUPLICATE), (False, Outcome.GRANTED)):
        manager = LockManager()
        manager.begin(0)
        manager.insert(0, Key("k"))
        assert manager.insert(1, Key("k")) == Outcome.WAITS
        assert (manager.blockers(1), manager.holders(1)) == ((0,), (0,))
        manager.end(0, commit)
        assert manager.outcome(1) == outcome


def test_on_conflict_do_nothing_waits_too_and_then_does_nothing() -> None:
    model = after("0: insert t0.9; 1: insert t0.9 do nothing; 0: commit; 0: begin; 0: insert t0.9 do nothing")
    assert (model.manager.outcome(0), model.manager.outcome(1)) == (Outcome.SKIPPED, Outcome.SKIPPED)


# The model that users check knows held locks only


RESOURCES = {"t": Table("t"), "u": Table("u"), "a": Advisory("a"), "b": Advisory("b"), "r": Row("r"), "q": Row("q")}
KIND_OF = {"t": "table", "u": "table", "a": "advisory", "b": "advisory", "r": "row", "q": "row"}


def random_spec(chance: random.Random) -> str:
    """Three or four workers that each run a transaction of their own, which takes a few of few locks."""
    names = chance.sample(sorted(RESOURCES), 2)
    transactions = []
    for worker in range(chance.choice((3, 4))):
        steps = [
            f"{name}: {chance.choice(KINDS[KIND_OF[name]].modes)}"
            for name in chance.choices(names, k=chance.randint(1, 3))
        ]
        transactions.append(f"  w{worker}: {{steps: [{', '.join(f'{{{step}}}' for step in steps)}]}}")
    roles = "".join(f"  w{worker}: {{count: 1, runs: [w{worker}]}}\n" for worker in range(len(transactions)))
    resources = "".join(f"  {name}: {{kind: {KIND_OF[name]}}}\n" for name in names)
    return f"name: x\nresources:\n{resources}transactions:\n" + "\n".join(transactions) + f"\nroles:\n{roles}"


class Walk:
    """One schedule of a spec in `Semantics` and in the lock manager: a worker asks for the lock of its location, waits, goes on."""

    def __init__(self, spec: str) -> None:
        self.system = compile_spec(parse(spec))
        self.semantics = Semantics(self.system, crew(self.system, 1))
        self.state: State = self.semantics.initial
        self.manager = LockManager()
        self.asked: set[int] = set()

    def ready(self) -> list[int]:
        return [w for w in range(len(self.semantics.crew)) if w not in self.asked and self.edge(w) is not None]

    def edge(self, worker: int) -> Edge | None:
        """The next step of a worker; None once it has committed."""
        location = self.semantics.location(self.state, worker)
        if location.status is Status.COMMITTED:
            return None
        (edge,) = (e for e in location.edges if e.transaction in (None, *self.semantics.crew.transactions[worker]))
        return edge

    def waiting(self) -> list[int]:
        return [worker for worker in sorted(self.asked) if self.manager.waits(worker)]

    def aborted(self) -> bool:
        return any(self.manager.outcome(worker) == Outcome.DEADLOCK for worker in self.asked)

    def undo_circles(self) -> bool:
        """Let those deadlock checks come that find a circle which another order of the queues undoes."""
        if self.semantics.stuck(self.state):
            return False
        findings = [self.manager.deadlock(worker) for worker in self.waiting()]
        self.go_on()
        return any(isinstance(finding, Rearrangement) for finding in findings)

    def step(self, worker: int) -> None:
        edge = self.edge(worker)
        assert edge is not None
        if edge.action is ActionKind.START:
            self.manager.begin(worker)
        elif edge.action is ActionKind.COMMIT:
            self.manager.end(worker)
        else:
            (request,) = edge.requests
            self.asked.add(worker)
            self.manager.request(worker, RESOURCES[self.system.resources[request.resource].name], request.mode)
        if edge.action is not ActionKind.ACQUIRE:
            self.state = self.semantics.after(self.state, Action(worker, edge))
        self.go_on()

    def go_on(self) -> None:
        """Take all who have got their lock on to what follows it; after a deadlock the schedule is over."""
        if self.aborted():
            return
        for other in [other for other in sorted(self.asked) if self.manager.outcome(other) == Outcome.GRANTED]:
            got = self.edge(other)
            assert got is not None
            assert self.semantics.enabled(self.state, other, got), "the lock manager grants what somebody else holds"
            self.asked.remove(other)
            self.state = self.semantics.after(self.state, Action(other, got))


def test_the_model_of_a_spec_waits_where_a_lock_is_held_and_only_there() -> None:
    """Where only the queue makes a request wait, the spec's model says that it could be granted: a delay, not a blocker.

    At the end all have committed, or there is a deadlock, in both; circles through queues are undone by the deadlock check.
    """
    seen: Counter[str] = Counter()
    for seed in range(700):
        chance = random.Random(seed)
        walk = Walk(random_spec(chance))
        while ready := walk.ready():
            walk.step(chance.choice(ready))
            if walk.aborted():
                break
            for worker in walk.waiting():
                request = walk.semantics.location(walk.state, worker).request
                assert request is not None
                holders = walk.semantics.blockers(walk.state, worker, request)
                assert sorted(walk.manager.holders(worker)) == holders, f"seed {seed}"
                seen["behind a lock" if holders else "behind a request"] += 1
                if not holders and KIND_OF[walk.system.resources[request.resource].name] != "row":
                    # What `no stall` asks for: somebody is held up by the queue alone.
                    assert walk.semantics.delayed(walk.state), f"seed {seed}"
                    seen["stall"] += 1
            if not walk.ready():
                seen["undone"] += walk.undo_circles()
        stuck = walk.semantics.stuck(walk.state)
        assert bool(stuck) == bool(walk.asked), f"seed {seed}"
        if stuck and not walk.aborted():
            # The check of one who only waits for the circle's members finds nothing.
            assert any(isinstance(walk.manager.deadlock(worker), Cycle) for worker in sorted(stuck)), f"seed {seed}"
            seen["deadlock"] += 1
    assert seen["behind a lock"] > 1000
    assert seen["behind a request"] > 20
    assert seen["stall"] > 10
    assert seen["deadlock"] > 20
    assert seen["undone"] > 1


def test_the_example_in_the_document_is_true(capsys: pytest.CaptureFixture[str]) -> None:
    """It prints what its comments say."""
    text = (Path(__file__).parent.parent / "docs" / "agreement.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(compile(example, "agreement.md", "exec"), {})
    said = [line.partition("#")[2].strip() for line in example.splitlines() if line.startswith("print(")]
    assert capsys.readouterr().out.splitlines() == said
