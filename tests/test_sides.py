"""Where a replay of plain SQL parts from the model, both sides' locks are told."""

from __future__ import annotations

import secrets
from dataclasses import replace

import psycopg
import pytest
from leftovers import remains
from psycopg import sql
from psycopg.conninfo import make_conninfo

from lockmodel.checker import check
from lockmodel.parser import parse
from lockmodel.replay.comparison import Taken
from lockmodel.replay.replayer import (
    ReplayOutcome,
    SchedulesReplay,
    TraceReplay,
    prepare,
    replay_schedules,
    replay_trace,
)
from lockmodel.replay.sides import Foretold, Seen, SideLine, WorkerSides, compare_sides
from lockmodel.report.page import Page
from lockmodel.report.replay import schedules_report, trace_report
from lockmodel.semantics import crew

TOLD = """
name: transfers
sets: {account: 2}
resources:
  account: {kind: row, per: [account], stands for: {relation: account, row: {id: "{account}"}}}
  books: {kind: advisory, stands for: {key: "42"}}
  audit: {kind: table, stands for: {relation: audit}}
transactions:
  up:
    steps:
      - books: SHARED
        sql: SELECT pg_advisory_xact_lock_shared(42)
      - account[0]: FOR UPDATE
        sql: SELECT FROM account WHERE id = 0 FOR UPDATE
      - account[1]: FOR UPDATE
        sql: SELECT FROM account WHERE id = 1 FOR UPDATE
  down:
    steps:
      - audit: ROW EXCLUSIVE
        sql: INSERT INTO audit VALUES (1)
      - account[1]: FOR UPDATE
        sql: SELECT FROM account WHERE id = 1
      - account[0]: FOR UPDATE
        sql: SELECT FROM account WHERE id = 0 FOR UPDATE
workers: 2
expect: deadlock
schema: |
  CREATE TABLE account (id int PRIMARY KEY, balance int);
  INSERT INTO account VALUES (0, 0), (1, 0);
  CREATE TABLE audit (account int);
"""
"""The model says that `down` locks account 1, but its SELECT only reads it."""

UNTOLD = "\n".join(line.split(", stands for")[0] + "}" if "stands for" in line else line for line in TOLD.splitlines())


def lock(text: str) -> Taken:
    return Taken(*text.split(" ", 1))


def pair(model: set[str], postgres: set[str], **options: bool) -> list[tuple[str, str, bool]]:
    """The lines for one worker that holds `model` by the model and `postgres` in reality; all resources are told."""
    seen = Seen(frozenset(map(lock, postgres)), rows=options.get("rows", True))
    told = {lock(text).resource for text in model | postgres if options.get("told", True)}
    found = compare_sides("w", Foretold(frozenset(map(lock, model))), seen, told, complete=options.get("told", True))
    return [(line.model, line.postgres, line.differs) for line in found.lines]


def test_equal_locks_stand_beside_each_other_and_what_differs_is_marked() -> None:
    """A lock of another mode is missing on the one side and too much on the other."""
    assert pair({"a FOR SHARE", "b SHARE"}, {"a FOR UPDATE", "b SHARE"}) == [
        ("holds b SHARE", "holds b SHARE", False),
        ("holds a FOR SHARE", "", True),
        ("", "holds a FOR UPDATE", True),
    ]
    assert pair(set(), set()) == [("holds nothing", "holds nothing", False)]


def test_a_row_that_is_held_more_strongly_too_is_seen_once() -> None:
    """Postgres shows the strongest mode; if the model has both, nothing differs."""
    assert not any(differs for *_, differs in pair({"a FOR SHARE", "a FOR UPDATE"}, {"a FOR UPDATE"}))
    assert any(differs for *_, differs in pair({"t SHARE", "t EXCLUSIVE"}, {"t EXCLUSIVE"}))


def test_what_is_not_told_or_cannot_be_seen_is_no_difference() -> None:
    """Each side is listed in its own words."""
    assert pair({"a FOR SHARE"}, {"x SHARE"}, told=False) == [("holds a FOR SHARE", "holds x SHARE", False)]
    assert pair({"a FOR SHARE"}, set(), rows=False) == [("holds a FOR SHARE", "", False)]


@pytest.mark.parametrize(
    ("wants", "blockers", "found", "differs"),
    [
        ("a SHARE", ("v",), ("v",), False),
        ("a SHARE", ("v", "x"), ("x",), False),
        ("a SHARE", ("v",), ("x",), True),
        ("a SHARE", ("v",), (), True),
        (None, (), ("v",), True),
    ],
)
def test_a_wait_agrees_if_it_is_for_a_worker_that_the_model_names(
    wants: str | None, blockers: tuple[str, ...], found: tuple[str, ...], differs: bool
) -> None:
    """Only one side waiting, or for somebody else, is a difference."""
    model = Foretold(wants=lock(wants) if wants else None, blockers=blockers)
    *_, line = compare_sides("w", model, Seen(blockers=found), (), complete=True).lines
    assert line.differs is differs


def replayed(text: str, dsn: str) -> TraceReplay:
    spec = parse(text)
    trace = check(spec).trace
    assert trace is not None
    done = replay_trace(prepare(spec), trace, dsn)
    assert done.outcome is ReplayOutcome.REFUTED
    assert remains(dsn) == []
    return done


DIFFERS = [
    WorkerSides(
        "worker 1",
        (
            SideLine("holds account[0] FOR UPDATE", "holds account[0] FOR UPDATE", differs=False),
            SideLine("holds books SHARED", "holds books SHARED", differs=False),
            SideLine("", "holds account[1] FOR UPDATE", differs=True),
            SideLine("waits for account[1] FOR UPDATE, held by worker 2", "does not wait", differs=True),
        ),
    ),
    WorkerSides(
        "worker 2",
        (
            SideLine("holds audit ROW EXCLUSIVE", "holds audit ROW EXCLUSIVE", differs=False),
            SideLine("holds account[1] FOR UPDATE", "", differs=True),
        ),
    ),
]


@pytest.mark.postgres
def test_a_refuted_trace_shows_both_sides_locks(dsn: str) -> None:
    """At the step where they part: the first worker is granted what the second should have held."""
    done = replayed(TOLD, dsn)
    assert list(done.sides) == DIFFERS
    page = trace_report("transfers.yaml", "deadlock", done, Page())
    assert [line.split("│")[1].strip() for line in page.splitlines() if line.endswith("!")] == [
        "",
        "waits for account[1] FOR UPDATE,",
        "holds account[1] FOR UPDATE",
    ]
    assert all(len(line) <= 80 for line in page.splitlines())


@pytest.mark.postgres
def test_what_the_spec_does_not_tell_is_in_the_words_of_postgres(dsn: str) -> None:
    """Only the wait can be compared, and the report says so."""
    done = replayed(UNTOLD, dsn)
    assert [line.postgres for line in done.sides[0].lines] == [
        "holds advisory 42 SHARED",
        "holds row account id=0 FOR UPDATE",
        "holds row account id=1 FOR UPDATE",
        "does not wait",
    ]
    assert [line.differs for one in done.sides for line in one.lines] == [False] * 3 + [True] + [False] * 2
    assert "(stands for) can't be compared" in trace_report("transfers.yaml", "deadlock", done, Page())


@pytest.mark.postgres
def test_a_refuted_schedule_shows_both_sides_locks(dsn: str) -> None:
    """Also in the middle of a random schedule, whichever comes first (seed 3)."""
    spec = parse(TOLD)
    prepared = prepare(spec)
    done = replay_schedules(prepared, crew(prepared.compilation.system, 2), 30, 3, dsn)
    assert isinstance(done, SchedulesReplay) and done.outcome is ReplayOutcome.REFUTED
    lines = [line for one in done.runs[-1].sides for line in one.lines]
    assert any(line.differs for line in lines) and any(line.model == line.postgres != "" for line in lines)
    assert "(!: here they differ)" in schedules_report("transfers.yaml", done, Page(), "again")


@pytest.mark.postgres
def test_without_the_right_to_make_an_extension_row_locks_are_left_out(dsn: str) -> None:
    """What else there is to be seen is shown, and the report says what could not be looked at."""
    role = f"plain_{secrets.token_hex(4)}"
    name = sql.Identifier(role)
    with psycopg.connect(dsn, autocommit=True) as admin:
        database = sql.Identifier(admin.info.dbname)
        admin.execute(sql.SQL("CREATE ROLE {} LOGIN").format(name))
        admin.execute(sql.SQL("GRANT CREATE ON DATABASE {} TO {}").format(database, name))
        try:
            done = replayed(TOLD, make_conninfo(dsn, user=role))
        finally:
            admin.execute(sql.SQL("REVOKE CREATE ON DATABASE {} FROM {}").format(database, name))
            admin.execute(sql.SQL("DROP ROLE {}").format(name))
    assert not any(one.rows for one in done.sides)
    assert SideLine("holds books SHARED", "holds books SHARED", differs=False) in done.sides[0].lines
    assert "needs the extension pgrowlocks" in trace_report("transfers.yaml", "deadlock", done, Page())


@pytest.mark.postgres
def test_pgrowlocks_is_found_in_whatever_schema_it_is(dsn: str) -> None:
    """A database of its own, where an administrator has put the extension elsewhere."""
    name = f"elsewhere_{secrets.token_hex(4)}"
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            there = make_conninfo(dsn, dbname=name)
            with psycopg.connect(there, autocommit=True) as made:
                made.execute("CREATE SCHEMA tools")
                made.execute("CREATE EXTENSION pgrowlocks SCHEMA tools")
            assert list(replayed(TOLD, there).sides) == DIFFERS
        finally:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def test_a_lock_in_lockmodels_own_statements_is_known() -> None:
    """Where the spec has no SQL, each resource has a place of lockmodel's own making."""
    text = """
name: bare
sets: {n: 2}
resources: {a: {kind: table}, b: {kind: row, per: [n]}, c: {kind: lock}, k: {kind: key}}
transactions: {t: {steps: [{a: SHARE}, {"b[1]": FOR UPDATE}, {c: SHARED}, {k: INSERT}]}}
"""
    prepared = prepare(parse(text))
    assert prepared.bindings.told == {"a", "b[0]", "b[1]", "c"}


@pytest.mark.postgres
def test_a_replay_that_does_as_foretold_has_no_sides(dsn: str) -> None:
    """They are for what differs."""
    spec = parse(TOLD.replace("WHERE id = 1\n", "WHERE id = 1 FOR UPDATE\n"))
    trace = check(spec).trace
    assert trace is not None
    done = replay_trace(prepare(spec), trace, dsn)
    assert (done.outcome, done.sides) == (ReplayOutcome.CONFIRMED, ())
    assert done.performance is not None
    assert replace(done.performance, done=()).seen == ()


@pytest.mark.postgres
def test_a_savepoints_lock_is_its_own_workers_alone(dsn: str) -> None:
    """pgrowlocks knows no process for it; both workers have a savepoint, and each is shown what it has locked itself."""
    text = TOLD.replace(
        "      - account[1]: FOR UPDATE\n", "      - savepoint: inner\n      - account[1]: FOR UPDATE\n"
    )
    text = text.replace(
        "      - account[0]: FOR UPDATE\n", "      - savepoint: outer\n      - account[0]: FOR UPDATE\n"
    )
    [first, second] = replayed(text, dsn).sides
    assert [line.postgres for line in first.lines if line.postgres.startswith("holds account")] == [
        "holds account[0] FOR UPDATE",
        "holds account[1] FOR UPDATE",
    ]
    assert not any(line.postgres.startswith("holds account") for line in second.lines)
