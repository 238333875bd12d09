"""The lock manager against a real Postgres, statement by statement (see docs/agreement.md)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import lock_schedules
import pytest
from lock_schedules import Picture, Server, Tally, compare_many, compare_written

from lockmodel.lock_manager import backends, manager, row_locks, rows, table

pytestmark = pytest.mark.postgres

# Each is about one rule; "alert" are the sessions whose deadlock check comes. All begin a transaction.
WRITTEN: dict[str, tuple[str, tuple[int, ...]]] = {
    "behind an earlier request": ("0: lock t0 ACCESS SHARE; 1: lock t0 ACCESS EXCLUSIVE; 2: lock t0 ACCESS SHARE", ()),
    "who holds goes first": ("0: lock t0 SHARE; 1: lock t0 EXCLUSIVE; 0: lock t0 ROW SHARE", ()),
    "who holds goes first, and waits": (
        "0: lock t0 ROW SHARE; 1: lock t0 ACCESS SHARE; 2: lock t0 ACCESS EXCLUSIVE; 1: lock t0 EXCLUSIVE",
        (),
    ),
    "who holds goes first, but not past a request in its way": (
        "0: lock t0 ROW EXCLUSIVE; 1: lock t0 ACCESS SHARE; 2: lock t0 SHARE; 3: lock t0 ACCESS EXCLUSIVE; 1: lock t0 ROW EXCLUSIVE",
        (),
    ),
    "an upgrade deadlocks at once": (
        "0: lock t0 SHARE; 1: lock t0 SHARE; 0: lock t0 ROW EXCLUSIVE; 1: lock t0 ROW EXCLUSIVE",
        (),
    ),
    "NOWAIT past the queue": ("0: lock t0 SHARE; 1: lock t0 EXCLUSIVE; 0: lock t0 ROW SHARE NOWAIT", ()),
    "NOWAIT where it would deadlock at once": (
        "0: lock t0 SHARE; 1: lock t0 SHARE; 0: lock t0 ROW EXCLUSIVE; 1: lock t0 ROW EXCLUSIVE NOWAIT",
        (),
    ),
    "who gives up lets others pass": (
        "0: lock t0 ACCESS SHARE; 1: lock t0 ACCESS EXCLUSIVE; 2: lock t0 ACCESS SHARE; 1: cancel",
        (),
    ),
    "a circle that the check undoes": (
        "0: advisory 1 SHARED; 2: advisory 2 EXCLUSIVE; 1: advisory 1 EXCLUSIVE; 2: advisory 1 SHARED; 0: advisory 2 SHARED",
        (0,),
    ),
    "a circle that stays until somebody looks": (
        (
            "0: advisory 1 SHARED; 2: advisory 2 EXCLUSIVE; 1: advisory 1 EXCLUSIVE; 2: advisory 1 SHARED; 0: advisory 2 SHARED;"
            "3: advisory 2 EXCLUSIVE; 1: cancel"
        ),
        (3,),
    ),
    "a circle in two queues": (
        (
            "2: advisory 1 SHARED; 3: advisory 2 SHARED; 0: advisory 1 EXCLUSIVE; 1: advisory 2 EXCLUSIVE;"
            "3: advisory 1 SHARED; 2: advisory 2 SHARED"
        ),
        (2,),
    ),
    "a circle of held locks": (
        (
            "0: advisory 1 SHARED; 2: advisory 2 EXCLUSIVE; 1: lock t0 EXCLUSIVE; 1: advisory 1 EXCLUSIVE; 2: lock t0 SHARE;"
            "0: advisory 2 SHARED"
        ),
        (0,),
    ),
    "the victim is who looks": (
        "0: row t0.1 FOR UPDATE; 1: row t0.2 FOR UPDATE; 1: row t0.1 FOR UPDATE; 0: row t0.2 FOR UPDATE",
        (0,),
    ),
    "a row's queue": (
        "0: row t0.1 FOR UPDATE; 1: row t0.1 FOR UPDATE; 2: row t0.1 FOR UPDATE; 3: row t0.1 FOR SHARE; 0: commit",
        (0, 1, 2, 3),
    ),
    "past a row's queue": ("0: row t0.1 FOR SHARE; 1: row t0.1 FOR UPDATE; 2: row t0.1 FOR SHARE", ()),
    "the holders one after the other": (
        "1: row t0.2 FOR SHARE; 0: row t0.1 FOR SHARE; 1: row t0.1 FOR SHARE; 2: row t0.1 FOR UPDATE; 1: commit",
        (2,),
    ),
    "three holders in the order of their ids": (
        (
            "2: row t0.2 FOR KEY SHARE; 1: row t0.2 FOR KEY SHARE; 0: row t0.1 FOR SHARE; 1: row t0.1 FOR SHARE; 2: row t0.1 FOR SHARE;"
            "3: row t0.1 FOR UPDATE; 2: commit; 1: commit; 0: commit"
        ),
        (3,),
    ),
    "an upgrade does not queue": (
        "0: row t0.1 FOR SHARE; 1: row t0.1 FOR SHARE; 2: row t0.1 FOR UPDATE; 0: row t0.1 FOR UPDATE; 1: commit",
        (),
    ),
    "past a holder that has gone": (
        "0: row t0.1 FOR KEY SHARE; 1: row t0.1 FOR SHARE; 1: commit; 2: row t0.1 FOR UPDATE; 3: row t0.1 FOR NO KEY UPDATE",
        (),
    ),
    "a queue without a holder": (
        "3: row t0.1 FOR KEY SHARE; 0: row t0.1 FOR NO KEY UPDATE; 1: row t0.1 FOR UPDATE; 2: row t0.1 FOR SHARE; 0: commit",
        (),
    ),
    "NOWAIT in a queue without a holder": (
        (
            "3: row t0.1 FOR KEY SHARE; 0: row t0.1 FOR NO KEY UPDATE; 1: row t0.1 FOR UPDATE; 0: commit;"
            "2: row t0.1 FOR SHARE NOWAIT"
        ),
        (),
    ),
    "a cycle through a row's queue": (
        "0: row t0.1 FOR UPDATE; 1: row t0.2 FOR UPDATE; 2: row t0.1 FOR UPDATE; 1: row t0.1 FOR UPDATE; 0: row t0.2 FOR UPDATE",
        (0,),
    ),
    "an update is followed": ("0: update t0.1; 1: row t0.1 FOR UPDATE; 0: commit; 2: update t0.1; 1: commit", ()),
    "an upgrade on a row that was updated": (
        "0: update t0.1; 1: row t0.1 FOR KEY SHARE; 1: row t0.1 FOR UPDATE; 0: commit; 2: row t0.1 FOR KEY SHARE",
        (1,),
    ),
    "a key that changes": ("0: update t0.1 key; 1: row t0.1 FOR KEY SHARE; 0: rollback", ()),
    "KEY SHARE on all versions": (
        "0: update t0.1; 1: row t0.1 FOR KEY SHARE; 0: commit; 2: delete t0.1; 1: commit",
        (),
    ),
    "a deleted row": ("0: delete t0.1; 1: row t0.1 FOR UPDATE; 2: update t0.1; 0: commit; 3: row t0.1 FOR SHARE", ()),
    "a savepoint rolled back": (
        (
            "0: savepoint a; 0: row t0.1 FOR UPDATE; 0: advisory 1 EXCLUSIVE; 1: row t0.1 FOR UPDATE; 2: advisory 1 SHARED;"
            "0: rollback to a"
        ),
        (1,),
    ),
    "an upgrade rolled back": (
        (
            "0: row t0.1 FOR SHARE; 0: savepoint a; 0: row t0.1 FOR UPDATE; 0: rollback to a; 1: row t0.1 FOR SHARE;"
            "2: row t0.1 FOR UPDATE"
        ),
        (),
    ),
    "a released savepoint": (
        (
            "0: savepoint a; 0: savepoint b; 0: row t0.1 FOR UPDATE; 1: row t0.1 FOR UPDATE; 0: release b; 0: rollback to a;"
            "2: row t0.1 FOR UPDATE; 0: commit"
        ),
        (),
    ),
    "an error in a savepoint": (
        (
            "3: row t0.1 FOR UPDATE; 0: lock t0 ROW SHARE; 0: savepoint a; 0: lock t1 SHARE; 1: lock t0 EXCLUSIVE;"
            "2: lock t1 EXCLUSIVE; 0: row t0.1 FOR UPDATE NOWAIT; 0: rollback to a; 0: commit"
        ),
        (),
    ),
    "session keys": (
        (
            "0: advisory 1 EXCLUSIVE session; 0: advisory 1 EXCLUSIVE session; 0: rollback; 1: advisory 1 SHARED;"
            "0: unlock 1 EXCLUSIVE; 0: unlock 1 EXCLUSIVE; 0: unlock 1 EXCLUSIVE"
        ),
        (),
    ),
    "a key inserted twice": ("0: insert t0.9; 1: insert t0.9; 2: insert t0.9 do nothing; 0: rollback", (1, 2)),
    "a key inserted twice, and committed": (
        "0: insert t0.9; 1: insert t0.9; 2: insert t0.9 do nothing; 0: commit",
        (1, 2),
    ),
    # Differences that random schedules have found.
    "found: a version of an update that was rolled back is not the successor": (
        "1: update t0.1 key; 0: update t0.1 key; 2: row t0.1 FOR UPDATE; 1: rollback; 0: update t0.1 key",
        (0, 1),
    ),
    "found: a lock that only its own session knows of hides a deadlock at once": (
        (
            "0: lock t0 ROW EXCLUSIVE; 1: lock t0 SHARE UPDATE EXCLUSIVE; 0: lock t0 SHARE UPDATE EXCLUSIVE;"
            "1: lock t0 SHARE ROW EXCLUSIVE"
        ),
        (),
    ),
    "found: who waited for a row that is deleted has no transaction id": (
        "0: delete t0.1; 1: row t0.1 FOR SHARE; 0: commit",
        (),
    ),
}


@pytest.fixture(scope="module")
def server(dsn: str) -> Iterator[Server]:
    with Server(dsn) as server:
        yield server


def lines(schedule: str) -> str:
    """One line for each statement, after a BEGIN of every session."""
    statements = [statement.strip() for statement in schedule.split(";")]
    sessions = sorted({statement[0] for statement in statements})
    return "\n".join([*(f"{session}: begin" for session in sessions), *statements])


def compared(server: Server, name: str) -> tuple[list[Picture], str]:
    """What was seen on the server in a written schedule, and the difference to the model."""
    schedule, alert = WRITTEN[name]
    pictures, difference = compare_written(server, lines(schedule), alert)
    return pictures, str(difference or "")


@pytest.mark.parametrize("name", WRITTEN)
def test_the_server_does_what_the_lock_manager_says(server: Server, name: str) -> None:
    """In schedules that are written out, one for each rule, and for each difference there ever was."""
    assert compared(server, name)[1] == ""


@pytest.mark.parametrize("part", range(4))
def test_random_schedules_agree(server: Server, part: int) -> None:
    """2,000 in all. The seeds are fixed; python -m tests.lock_schedules runs others, and as many as one likes."""
    tally = Tally()
    differences = [str(difference) for difference in compare_many(server, 1 + 500 * part, 500, tally)]
    assert not differences, "\n\n".join(differences)
    assert tally.schedules == 500
    # They are worth something only if much happens in them.
    assert tally.lines > 8000
    assert tally.outcomes["waits"] > 500
    assert min(tally.outcomes[outcome] for outcome in ("deadlock", "refused", "skipped", "cancelled")) > 20
    assert tally.findings["cycle"] > 20
    assert tally.findings["rearrangement"] > 0


def _without_past_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    request = table.Waiter

    def forgetful(session: int, obj: Any, mode: str, held: frozenset[str]) -> table.Waiter:
        return request(session, obj, mode, frozenset())

    monkeypatch.setattr(table, "Waiter", forgetful)


def _without_deadlock_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manager, "look", lambda *_: None)


def _without_top_transaction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends.TransactionLog, "runs", lambda log, xid: log.top(xid) == xid and _runs(log, xid))


_runs = backends.TransactionLog.runs


def _without_rows_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    def at_once(*_: object) -> Iterator[None]:
        return True
        yield

    monkeypatch.setattr(row_locks._Attempt, "_join_queue", at_once)


def _without_kept_members(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows.Heap, "add", lambda _heap, _xmax, new: rows.Xmax((new,), multi=False))


@pytest.mark.parametrize(
    ("spoil", "name"),
    [
        (_without_past_the_queue, "who holds goes first"),
        (_without_deadlock_check, "the victim is who looks"),
        (_without_deadlock_check, "a circle that the check undoes"),
        (_without_top_transaction, "a released savepoint"),
        (_without_rows_queue, "a row's queue"),
        (_without_kept_members, "an upgrade rolled back"),
    ],
)
def test_a_wrong_model_is_seen(server: Server, monkeypatch: pytest.MonkeyPatch, spoil: Any, name: str) -> None:
    """The comparison looks at enough to notice a rule that is missing."""
    monkeypatch.setattr(lock_schedules, "COURSES_MAX", 50)
    spoil(monkeypatch)
    assert "in the model" in compared(server, name)[1]


def test_the_rule_for_nowait_depends_on_the_version(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server of this run is on one side of it; a model of the other side is wrong here."""
    monkeypatch.setattr(server, "version", 15 if server.version >= 17 else 18)
    assert "NOWAIT" in compared(server, "NOWAIT past the queue")[1]
