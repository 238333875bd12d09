"""Replays on a real server: what the model foretells is confirmed, what it gets wrong is refuted, and nothing is left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import psycopg
import pytest

from lockmodel.checker import check
from lockmodel.errors import ReplayError
from lockmodel.overrides import apply, parse_overrides
from lockmodel.parser import load, parse
from lockmodel.replay.driver import Driver
from lockmodel.replay.replayer import (
    ReplayOutcome,
    SchedulesReplay,
    TraceReplay,
    prepare,
    replay_schedules,
    replay_trace,
)
from lockmodel.replay.sandbox import COMMENT
from lockmodel.replay.script import Outcome, from_trace
from lockmodel.replay.server import EmbeddedServer
from lockmodel.semantics import crew

pytestmark = pytest.mark.postgres

SPECS = Path(__file__).parent.parent / "specs"


def replay(text: str, dsn: str) -> TraceReplay:
    """Check the spec in `text` and replay the trace that violates it."""
    spec = parse(text)
    result = check(spec)
    assert result.trace is not None, result.verdict
    return replay_trace(prepare(spec), result.trace, dsn)


def schedules(text: str, dsn: str, workers: int = 3, count: int = 15) -> SchedulesReplay:
    """Replay random schedules of the spec in `text`."""
    prepared = prepare(parse(text))
    return replay_schedules(prepared, crew(prepared.compilation.system, workers), count, seed=1, dsn=dsn)


def remains(dsn: str) -> list[object]:
    """Whatever a replay may have left on the server: schemas, connections, advisory locks."""
    with psycopg.connect(dsn) as connection:
        return [
            *connection.execute("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'lockmodel%'").fetchall(),
            *connection.execute(
                "SELECT application_name FROM pg_stat_activity WHERE application_name LIKE 'lockmodel%'"
            ),
            *connection.execute("SELECT classid, objid FROM pg_locks WHERE locktype = 'advisory'").fetchall(),
        ]


@pytest.mark.parametrize("name", ["deadlock-demo", "striped-old-claim", "awa/old-striped-claim", "awa/deadlock-demo"])
def test_the_deadlocks_of_the_shipped_specs_are_confirmed(name: str, dsn: str) -> None:
    """Postgres answers 40P01, and names the workers of the trace's cycle."""
    spec = load(SPECS / f"{name}.yaml")
    result = check(spec)
    assert result.trace and result.view
    done = replay_trace(prepare(spec), result.trace, dsn)
    assert done.outcome is ReplayOutcome.CONFIRMED, done.performance
    assert done.performance and done.performance.deadlock
    assert done.performance.deadlock.workers == set(result.view.cycle)
    assert done.performance.deadlock.victim == done.script.victim  # type: ignore[union-attr]
    assert remains(dsn) == []


@pytest.mark.parametrize("overrides", [["stripe=3"], ["stripe=5", "slot=1"]])
def test_a_replay_follows_overridden_sets(overrides: list[str], dsn: str) -> None:
    """The SQL of the steps speaks of the elements that the sets have now."""
    spec = apply(load(SPECS / "striped-old-claim.yaml"), parse_overrides(overrides, []))
    result = check(spec)
    assert result.trace
    assert replay_trace(prepare(spec), result.trace, dsn).outcome is ReplayOutcome.CONFIRMED


def test_safe_schedules_of_the_striped_queue_do_not_deadlock(dsn: str) -> None:
    """Workers are seen waiting for each other, as foretold, and all go on in the end."""
    prepared = prepare(load(SPECS / "striped.yaml"))
    done = replay_schedules(prepared, crew(prepared.compilation.system, 3), 25, seed=7, dsn=dsn)
    assert done.outcome is ReplayOutcome.CONFIRMED, done.runs[-1].performance
    assert len(done.runs) == 25
    assert done.deadlocks == 0
    assert done.waits > 20
    assert remains(dsn) == []


def test_the_same_seed_gives_the_same_schedules(dsn: str) -> None:
    """A finding can be repeated from its seed alone."""
    prepared = prepare(load(SPECS / "striped.yaml"))
    workers = crew(prepared.compilation.system, 3)
    first, again, other = (replay_schedules(prepared, workers, 3, seed=s, dsn=dsn) for s in (5, 5, 6))
    assert [run.script for run in first.runs] == [run.script for run in again.runs]
    assert [run.script for run in first.runs] != [run.script for run in other.runs]


THREE = """
name: three philosophers
sets: {seat: 3}
resources: {fork: {kind: advisory, per: [seat]}}
transactions:
  eat:
    choose: {s: seat}
    steps:
      - fork[s]: EXCLUSIVE
      - fork[(s + 1) % 3]: EXCLUSIVE
workers: 3
expect: deadlock
"""


def test_a_cycle_of_three_is_confirmed_with_all_its_members(dsn: str) -> None:
    """The DETAIL that Postgres gives has a line for each of the three."""
    done = replay(THREE, dsn)
    assert done.outcome is ReplayOutcome.CONFIRMED
    assert done.performance and done.performance.deadlock
    assert len(done.performance.deadlock.waits) == 3


UPGRADE = """
name: upgrade
resources: {t: {kind: table}}
transactions:
  change:
    steps:
      - t: SHARE
      - t: ROW EXCLUSIVE
workers: 2
expect: deadlock
"""


def test_a_deadlock_that_postgres_reports_at_once_is_confirmed(dsn: str) -> None:
    """Two upgrades of one lock are refused before deadlock_timeout; the replay does not insist on seeing the wait."""
    done = replay(UPGRADE, dsn)
    assert done.outcome is ReplayOutcome.CONFIRMED, done.performance


REAL_TABLES = """
name: rows with tables
resources:
  jobs: {kind: table}
  job: {kind: row, per: [id], table: jobs}
sets: {id: 2}
transactions:
  work:
    steps:
      - for: {i: id}
        do: [{"job[i]": FOR UPDATE}]
  maintain:
    steps:
      - job[1]: FOR NO KEY UPDATE
        table mode: ROW EXCLUSIVE
      - jobs: SHARE ROW EXCLUSIVE
workers: 2
expect: deadlock
"""


def test_a_statement_that_takes_a_table_and_a_row_is_one_statement(dsn: str) -> None:
    """The trace has two locks for it, the replay one statement."""
    done = replay(REAL_TABLES, dsn)
    assert done.outcome is ReplayOutcome.CONFIRMED, done.performance
    assert done.script
    assert any(" + " in command.text for command in done.script.commands)
    assert schedules(REAL_TABLES, dsn).outcome is ReplayOutcome.CONFIRMED


MULTI = """
name: one statement, several rows
sets: {k: 3}
resources: {row: {kind: row, per: [k]}}
transactions:
  up:
    steps:
      - for: {i: k}
        do: [{"row[i]": FOR UPDATE}]
        sql: SELECT id FROM (SELECT id FROM r ORDER BY id) s JOIN r USING (id) ORDER BY id FOR UPDATE OF r
  down:
    steps:
      - for: {i: k}
        order: reverse
        do:
          - row[i]: FOR UPDATE
            sql: SELECT id FROM r WHERE id = {i} FOR UPDATE
workers: 2
expect: deadlock
schema: |
  CREATE TABLE r (id int PRIMARY KEY);
  INSERT INTO r VALUES (0), (1), (2);
"""


def test_a_trace_that_ends_inside_a_statement_is_reordered(dsn: str) -> None:
    """`up` takes row 0 and waits for a later row within one SELECT, which therefore runs last."""
    done = replay(MULTI, dsn)
    assert done.outcome is ReplayOutcome.CONFIRMED, (done.performance, done.reason)
    assert done.script and done.script.reordered


NOT_REALIZABLE = """
name: between the locks of one statement
variables: {phase: {values: [a, b, c]}}
sets: {k: 2}
resources:
  row: {kind: row, per: [k]}
  other: {kind: row}
transactions:
  both:
    start when: phase == a
    steps:
      - for: {i: k}
        sql: SELECT * FROM r FOR UPDATE
        do: [{"row[i]": FOR UPDATE}]
  watcher:
    steps:
      - row[1]: FOR UPDATE
        sql: SELECT * FROM r WHERE id = 1 FOR UPDATE
workers: 2
never:
  both halves: count(w.transaction == both and w.holds(row[0]) and not w.holds(row[1])) == 1 and count(w.transaction == watcher and w.holds(row[1])) == 0
expect: {violated: both halves}
schema: CREATE TABLE r (id int)
"""


def test_a_trace_inside_a_statement_is_said_to_be_not_realizable(dsn: str) -> None:
    """A state between two locks of one statement can't be held by sending statements."""
    done = replay(NOT_REALIZABLE, dsn)
    assert done.outcome is ReplayOutcome.NOT_REALIZABLE
    assert "inside a statement" in done.reason


LIES = """
name: lies
resources:
  a: {kind: row}
  b: {kind: row}
transactions:
  one:
    steps:
      - a: FOR UPDATE
        sql: SELECT * FROM t WHERE id = 'a' FOR UPDATE
      - b: FOR UPDATE
        sql: SELECT * FROM t WHERE id = 'b' FOR UPDATE
  two:
    steps:
      - b: FOR UPDATE
        sql: SELECT * FROM t WHERE id = 'b' FOR KEY SHARE
      - a: FOR UPDATE
        sql: SELECT * FROM t WHERE id = 'a' FOR UPDATE
workers: 2
expect: deadlock
schema: |
  CREATE TABLE t (id text PRIMARY KEY);
  INSERT INTO t VALUES ('a'), ('b');
"""


def test_a_lock_that_the_sql_takes_more_weakly_is_refuted_as_granted(dsn: str) -> None:
    """The model says FOR UPDATE, the SQL takes FOR KEY SHARE, and so the other's FOR NO KEY UPDATE does not wait."""
    text = LIES.replace("WHERE id = 'b' FOR UPDATE", "WHERE id = 'b' FOR NO KEY UPDATE")
    done = replay(text, dsn)
    assert done.outcome is ReplayOutcome.REFUTED
    assert done.performance and "is granted, where the model says that it waits" in str(done.performance.difference)


def test_a_lock_that_the_sql_takes_too_early_is_refuted_as_waiting(dsn: str) -> None:
    """The SQL of a step locks another row than the model says; another worker waits where the model lets it go on."""
    text = LIES.replace("WHERE id = 'a' FOR UPDATE", "FOR UPDATE", 1)
    done = replay(text, dsn)
    assert done.outcome is ReplayOutcome.REFUTED
    assert done.performance and "waits for worker" in str(done.performance.difference)


def test_a_statement_that_fails_is_refuted_with_its_sqlstate(dsn: str) -> None:
    """A division by zero is not a deadlock."""
    done = replay(LIES.replace("SELECT * FROM t WHERE id = 'a' FOR UPDATE", "SELECT 1/0", 1), dsn)
    assert done.outcome is ReplayOutcome.REFUTED
    assert done.performance and "22012" in str(done.performance.difference)


POLITE = """
name: never waits
sets: {k: 2}
resources:
  row: {kind: row, per: [k]}
  job: {kind: row}
  leader: {kind: advisory}
  t: {kind: table}
transactions:
  work:
    steps:
      - row[0]: FOR UPDATE NOWAIT
      - job: FOR UPDATE SKIP LOCKED
        else: [rollback]
      - t: ROW EXCLUSIVE
  lead:
    steps:
      - leader: EXCLUSIVE TRY
        else: [rollback]
      - savepoint: before
      - row[1]: FOR SHARE
      - rollback to: before
      - t: SHARE
  reverse:
    steps:
      - job: FOR UPDATE
      - row[1]: FOR UPDATE
      - row[0]: FOR UPDATE
workers: 3
"""


def test_refusals_are_seen_as_foretold(dsn: str) -> None:
    """NOWAIT fails with 55P03, SKIP LOCKED returns no row, a try function returns false."""
    done = schedules(POLITE, dsn, count=40)
    assert done.outcome is ReplayOutcome.CONFIRMED, done.runs[-1].performance
    refused = [c.text for run in done.runs for c in run.script.commands if c.outcome is Outcome.REFUSED]
    assert any("NOWAIT" in text for text in refused)
    assert any("SKIP LOCKED" in text for text in refused)
    assert any("TRY" in text for text in refused)


EVERYTHING = """
name: every kind
sets: {k: 2}
resources:
  row: {kind: row, per: [k]}
  t: {kind: table, per: [k]}
  session: {kind: advisory, scope: session}
  email: {kind: key, per: [k]}
  abstract: {kind: lock, per: [k]}
transactions:
  first:
    choose: {i: k}
    take at start: {"abstract[0]": SHARED}
    steps:
      - row[i]: FOR KEY SHARE
      - session: SHARED
      - email[i]: INSERT
      - release: session
        mode: SHARED
      - t[i]: SHARE UPDATE EXCLUSIVE
  second:
    choose: {i: k}
    steps:
      - for: {j: k}
        order: any
        do: [{"row[j]": FOR NO KEY UPDATE}]
      - either:
          - [{"t[i]": ACCESS SHARE}]
          - [{"abstract[i]": EXCLUSIVE}]
      - session: EXCLUSIVE
      - email[0]: INSERT
      - release: session
workers: 3
expect: deadlock
"""


def test_statements_of_lockmodels_own_lock_what_the_model_says(dsn: str) -> None:
    """A spec without any SQL is replayed with statements that take just its locks, of every kind but pools."""
    done = schedules(EVERYTHING, dsn, count=40)
    assert done.outcome is ReplayOutcome.CONFIRMED, (done.runs[-1].performance, done.runs[-1].script)
    assert done.deadlocks > 0
    assert remains(dsn) == []


def test_sql_for_some_steps_on_a_resource_only_is_an_error() -> None:
    """A lock of the spec's own tables would never meet one of lockmodel's."""
    text = LIES.replace("        sql: SELECT * FROM t WHERE id = 'b' FOR UPDATE\n", "")
    with pytest.raises(ReplayError, match=r"<spec>:\d+: this step on 'b' has no sql, but the one at <spec>:\d+ has"):
        prepare(parse(text))


def test_schema_sql_that_fails_is_an_error_and_leaves_nothing(dsn: str) -> None:
    """The user reads what Postgres said, in one line."""
    with pytest.raises(ReplayError, match=r"the spec's schema SQL fails: .*syntax error"):
        replay(LIES.replace("CREATE TABLE t", "CREATE TABBLE t"), dsn)
    assert remains(dsn) == []


def test_a_server_that_is_not_there_is_an_error() -> None:
    """The message is psycopg's, on one line."""
    with pytest.raises(ReplayError, match="can't connect to Postgres"):
        replay(LIES, "host=/nonexistent port=1")


@pytest.fixture
def limited(dsn: str) -> str:
    """A role that may log in and nothing else, on the test server."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS lockmodel_test_limited")
        connection.execute("CREATE ROLE lockmodel_test_limited LOGIN")
        yield psycopg.conninfo.make_conninfo(dsn, user="lockmodel_test_limited")  # type: ignore[misc]
        database = connection.info.dbname
        connection.execute(f'REVOKE ALL ON DATABASE "{database}" FROM lockmodel_test_limited')
        connection.execute("DROP ROLE lockmodel_test_limited")


def test_a_user_who_may_not_create_a_schema_is_told_so(limited: str) -> None:
    """The replay refuses before it touches anything."""
    with pytest.raises(ReplayError, match="may not create a schema in database"):
        replay(LIES, limited)


def test_an_ordinary_user_can_replay(limited: str, dsn: str) -> None:
    """Without a superuser's settings the victim is Postgres's choice, and the deadlock is confirmed all the same."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f'GRANT CREATE ON DATABASE "{connection.info.dbname}" TO lockmodel_test_limited')
    assert replay(LIES.replace("FOR KEY SHARE", "FOR UPDATE"), limited).outcome is ReplayOutcome.CONFIRMED
    assert remains(dsn) == []


def test_what_a_killed_run_left_is_removed_by_the_next(dsn: str) -> None:
    """A schema whose maker is gone is swept; one whose maker lives, and one that only looks like it, stay."""
    living, orphan, foreign = "lockmodel_00000001", "lockmodel_00000002", "lockmodel_00000003"
    with psycopg.connect(dsn, autocommit=True) as maker:
        maker.execute("SELECT pg_advisory_lock(4292, 1)")
        for name in (living, orphan, foreign):
            maker.execute(f"CREATE SCHEMA {name}")  # type: ignore[arg-type]
        for name in (living, orphan):
            maker.execute(f"COMMENT ON SCHEMA {name} IS '{COMMENT}'")  # type: ignore[arg-type]
        try:
            replay(LIES.replace("FOR KEY SHARE", "FOR UPDATE"), dsn)
            left = maker.execute(
                "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'lockmodel%' ORDER BY 1"
            ).fetchall()
            assert [name for (name,) in left] == [living, foreign]
        finally:
            for name in (living, orphan, foreign):
                maker.execute(f"DROP SCHEMA IF EXISTS {name}")  # type: ignore[arg-type]


def test_a_server_killed_during_the_replay_is_an_error_in_one_line() -> None:
    """The replay ends soon, says what happened, and the embedded server's files are gone."""
    prepared = prepare(load(SPECS / "striped.yaml"))
    workers = crew(prepared.compilation.system, 3)
    with EmbeddedServer.start() as server:
        kill = server.pid

        def at(number: int) -> None:
            if number == 2:
                os.kill(kill, signal.SIGKILL)

        started = time.monotonic()
        with pytest.raises(ReplayError, match=r"server went away|can't connect") as caught:
            replay_schedules(prepared, workers, 1000, seed=1, dsn=server.dsn, progress=at)
        assert "\n" not in str(caught.value)
        assert time.monotonic() - started < 60
        directory = server.data_dir
    assert not Path(directory).exists()


SLEEPY = LIES.replace("SELECT * FROM t WHERE id = 'a' FOR UPDATE", "SELECT pg_sleep(60)", 1)


@pytest.mark.parametrize("seconds", [0.02, 0.3])
def test_an_interrupted_replay_cleans_up(seconds: float, dsn: str) -> None:
    """A cancelled task ends its backends and drops its schema before it is done, at whatever moment that comes."""
    spec = parse(SLEEPY)
    prepared, trace = prepare(spec), check(spec).trace
    assert trace
    script = from_trace(prepared.compilation, prepared.statements, trace)

    async def interrupted() -> None:
        async with Driver(dsn) as driver:
            task = asyncio.create_task(driver.perform(script, prepared.setup))
            await asyncio.sleep(seconds)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(interrupted())
    assert remains(dsn) == []


CROWD = """
name: a queue at one row
sets: {k: 2}
resources: {row: {kind: row, per: [k]}}
transactions:
  up: {steps: [{"row[0]": FOR UPDATE}, {"row[1]": FOR UPDATE}]}
  down: {steps: [{"row[1]": FOR UPDATE}, {"row[0]": FOR UPDATE}]}
  one: {steps: [{"row[1]": FOR UPDATE}]}
workers: 3
expect: deadlock
"""

IMPATIENT = """
name: an error gives the locks back at once
sets: {k: 2}
resources: {row: {kind: row, per: [k]}}
transactions:
  impatient: {steps: [{"row[1]": FOR UPDATE}, {"row[0]": FOR UPDATE NOWAIT, else: [rollback]}]}
  hasty: {steps: [{"row[1]": FOR UPDATE}, {"row[0]": FOR UPDATE NOWAIT}]}
  holder: {steps: [{"row[0]": FOR UPDATE}]}
workers: 4
"""


@pytest.mark.parametrize("text", [CROWD, IMPATIENT])
def test_schedules_end_before_the_order_of_a_queue_would_matter(text: str, dsn: str) -> None:
    """Neither a waiter that others queue behind, nor the moment at which an error frees its locks, is taken for a difference."""
    done = schedules(text, dsn, workers=4, count=40)
    assert done.outcome is ReplayOutcome.CONFIRMED, done.runs[-1].performance
