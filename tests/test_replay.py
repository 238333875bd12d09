"""Replays on a real server: what the model foretells is confirmed, what it gets wrong is refuted, and nothing is left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from leftovers import remains
from replaying import LIES, interrupt, replay, schedules

from lockmodel.checker import check
from lockmodel.errors import ReplayError, SpecError
from lockmodel.overrides import apply, parse_overrides
from lockmodel.parser import load, parse
from lockmodel.replay.driver import Driver
from lockmodel.replay.performance import Performance
from lockmodel.replay.replayer import (
    ReplayOutcome,
    prepare,
    replay_schedules,
    replay_trace,
)
from lockmodel.replay.sandbox import COMMENT
from lockmodel.replay.script import Command, Outcome, Script, from_trace
from lockmodel.replay.server import EmbeddedServer
from lockmodel.report.page import Page
from lockmodel.report.replay import trace_report, unmet_line
from lockmodel.semantics import crew

pytestmark = pytest.mark.postgres

SPECS = Path(__file__).parent.parent / "specs"


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


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("SELECT 1/0", "22012 division by zero; mend the sql"),
        ("SELECT nothing FROM t", '42703 column "nothing" does not exist; mend the sql'),
        ("VACUUM t", "25001 VACUUM cannot run inside a transaction block; mend the sql"),
        ("SELECT pg_cancel_backend(pg_backend_pid())", "57014 "),
    ],
)
def test_a_statement_that_fails_by_itself_is_an_error(sql: str, said: str, dsn: str) -> None:
    """A division by zero says nothing about locks: neither confirmed nor refuted, but a line to mend."""
    text = LIES.replace("SELECT * FROM t WHERE id = 'a' FOR UPDATE", sql, 1)
    line = text[: text.index(sql)].count("\n")
    with pytest.raises(ReplayError) as caught:
        replay(text, dsn)
    assert str(caught.value).startswith(f"<spec>:{line}: the statement of this step fails in worker ")
    assert said in str(caught.value)
    assert remains(dsn) == []


def test_a_serialization_failure_is_a_difference(dsn: str) -> None:
    """Under another isolation level Postgres says by an error of its own what became of a lock."""
    text = LIES.replace("FOR KEY SHARE", "FOR UPDATE")
    text = text.replace("workers: 2\nexpect: deadlock", "workers: 1")
    update = "SET default_transaction_isolation = 'repeatable read'; UPDATE t SET id = id WHERE id = 'a'"
    text = text.replace("SELECT * FROM t WHERE id = 'a' FOR UPDATE", update)
    text = text.replace("SELECT * FROM t WHERE id = 'b' FOR UPDATE", "UPDATE t SET id = id WHERE id = 'b'")
    done = schedules(text.replace("workers: 1", "workers: 3"), dsn, count=40)
    assert done.outcome is ReplayOutcome.REFUTED
    assert "40001" in str(done.runs[-1].performance.difference)


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
    text = LIES.replace("INSERT INTO t", "INSERTT INTO t")
    line = text[: text.index("INSERTT")].count("\n") + 1
    with pytest.raises(ReplayError, match=rf"^<spec>:{line}: the spec's schema SQL fails: 42601 syntax error"):
        replay(text, dsn)
    assert remains(dsn) == []


@pytest.mark.parametrize("schema", ["schema: CREATE TABBLE t ()", "schema: >\n  SELECT 1;\n  CREATE TABBLE t ()"])
def test_the_place_of_schema_sql_that_is_folded_is_its_key(schema: str, dsn: str) -> None:
    """Its lines are not those of the file."""
    text = LIES[: LIES.index("schema:")] + schema
    line = text[: text.index("schema:")].count("\n") + 1
    with pytest.raises(ReplayError, match=rf"^<spec>:{line}: the spec's schema SQL fails: 42601"):
        replay(text, dsn)


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

    interrupt(script, prepared, seconds, dsn)
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


BULK = """
name: one statement, several rows, and then another
sets: {k: 3}
resources: {row: {kind: row, per: [k]}}
transactions:
  all:
    steps:
      - for: {i: k}
        do: [{"row[i]": FOR UPDATE}]
        sql: SELECT id FROM r ORDER BY id FOR UPDATE
  two:
    choose: {i: k, j: k}
    steps:
      - row[i]: FOR UPDATE
        sql: SELECT id FROM r WHERE id = {i} FOR UPDATE
      - row[j]: FOR SHARE
        sql: SELECT id FROM r WHERE id = {j} FOR SHARE
workers: 4
expect: deadlock
schema: |
  CREATE TABLE r (id int PRIMARY KEY);
  INSERT INTO r VALUES (0), (1), (2);
"""


def test_a_statement_that_goes_on_and_waits_again_is_waited_for(dsn: str) -> None:
    """Woken by a commit, it takes rows that another worker asks for next: the schedule goes on only when it has them."""
    done = schedules(BULK, dsn, workers=4, count=60)
    assert done.outcome is ReplayOutcome.CONFIRMED, done.runs[-1].performance
    assert any(command.then_waits for run in done.runs for command in run.script.commands)


WAITS_AGAIN = """
name: a model that is wrong about the second wait
sets: {k: 2}
resources: {row: {kind: row, per: [k]}}
transactions:
  all:
    steps:
      - for: {i: k}
        do: [{"row[i]": FOR UPDATE}]
        sql: SELECT id FROM r WHERE id = 0 FOR UPDATE
  one:
    choose: {i: k}
    steps:
      - row[i]: FOR UPDATE
        sql: SELECT id FROM r WHERE id = {i} FOR UPDATE
workers: 3
schema: |
  CREATE TABLE r (id int PRIMARY KEY);
  INSERT INTO r VALUES (0), (1);
"""


def test_a_statement_that_does_not_wait_again_is_named(dsn: str) -> None:
    """Not the worker whose commit woke it."""
    prepared = prepare(parse(WAITS_AGAIN))
    begin = [Command(worker, "BEGIN", "start") for worker in range(3)]
    row = "SELECT id FROM r WHERE id = 0 FOR UPDATE"
    script = Script(
        ("a", "b", "c"),
        (
            *begin,
            Command(0, row, "row[0]"),
            Command(1, row, "row[0] + row[1]", Outcome.WAITS, (0,)),
            Command(0, "COMMIT", "commit", then_waits=((1, (2,)),)),
        ),
    )

    async def perform() -> Performance:
        async with Driver(dsn) as driver:
            return await driver.perform(script, prepared.setup)

    performance = asyncio.run(perform())
    assert performance.difference == "is granted, where the model says that it goes on and waits for c"
    assert performance.failed and performance.failed.worker == 0
    assert performance.waiting and performance.waiting.worker == 1


KEYS = """
name: an insert that stays
resources: {email: {kind: key}}
transactions:
  add:
    steps:
      - email: INSERT
        sql: INSERT INTO t VALUES (1)
workers: 2
schema: CREATE TABLE t (id int PRIMARY KEY)
"""
DELETED = "INSERT INTO t VALUES (1); DELETE FROM t WHERE id = 1"


def test_an_insert_that_meets_a_committed_one_is_an_error_of_its_own_step(dsn: str) -> None:
    """A unique violation after the other's commit is what Postgres does; the line says how such a step is written."""
    said = "".join(
        str(caught.value)
        for seed in range(1, 9)
        if (caught := raised(lambda seed=seed: schedules(KEYS, dsn, workers=2, seed=seed)))  # type: ignore[misc]
    )
    assert "<spec>:7: the statement of this step fails in worker " in said
    assert "23505 duplicate key value violates unique constraint" in said
    assert "the row is that of the transaction it waited for; let the step delete it again (INSERT …; DELETE …)" in said
    assert "the row is that of an earlier transaction; let the step delete it again" in said
    assert ".." not in said
    assert remains(dsn) == []


def raised(run: Callable[[], object]) -> pytest.ExceptionInfo[ReplayError]:
    with pytest.raises(ReplayError) as caught:
        run()
    return caught


def test_an_insert_whose_row_goes_again_is_confirmed(dsn: str) -> None:
    """What the line advises, and what DO NOTHING alone leads to."""
    assert schedules(KEYS.replace("INSERT INTO t VALUES (1)", DELETED), dsn).outcome is ReplayOutcome.CONFIRMED
    done = schedules(KEYS.replace("(1)", "(1) ON CONFLICT DO NOTHING"), dsn)
    assert done.outcome is ReplayOutcome.REFUTED
    assert "it inserted nothing, for the key is there already" in str(done.runs[-1].performance.difference)


def test_a_row_that_is_missing_is_hinted_at(dsn: str) -> None:
    """A statement that finds no row is granted, and locks nothing."""
    done = replay(LIES.replace("('a'), ('b')", "('a')").replace("FOR KEY SHARE", "FOR UPDATE"), dsn)
    assert done.outcome is ReplayOutcome.REFUTED
    difference = str(done.performance and done.performance.difference)
    assert difference.endswith("it found no row to lock: does the schema's SQL insert it?")


def test_a_statement_that_ends_its_transaction_is_an_error(dsn: str) -> None:
    """A word that reading the SQL could take for something else is seen when it is run."""
    with pytest.raises(
        ReplayError, match=r"^<spec>:7: the sql of this step ends the transaction; write a step, commit"
    ):
        schedules(KEYS.replace("INSERT INTO t VALUES (1)", f"{DELETED}; END"), dsn)


def test_a_victim_that_could_not_be_chosen_is_reported(limited: str, dsn: str) -> None:
    """Only a superuser may set deadlock_timeout; whoever is aborted, it is the same deadlock."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f'GRANT CREATE ON DATABASE "{connection.info.dbname}" TO lockmodel_test_limited')
    done = replay(LIES.replace("FOR KEY SHARE", "FOR UPDATE"), limited)
    assert done.outcome is ReplayOutcome.CONFIRMED
    assert done.performance and done.performance.deadlock and not done.performance.victim_chosen
    assert done.script and done.performance.deadlock.victim in done.script.cycle
    said = trace_report("s.yaml", "deadlock", done, Page())
    explained = "only a superuser may set deadlock_timeout" in " ".join(said.split())
    assert explained is (done.performance.deadlock.victim != done.script.victim)
    chosen = replay(LIES.replace("FOR KEY SHARE", "FOR UPDATE"), dsn)
    assert chosen.performance and chosen.performance.victim_chosen


DEEP = """
name: a session lock taken again and again
resources: {s: {kind: advisory, scope: session}}
transactions:
  nest:
    steps:
      - s: EXCLUSIVE
      - s: EXCLUSIVE
workers: 1
"""


def test_a_session_lock_nested_too_deep_is_the_same_error_in_schedules(dsn: str) -> None:
    """What a check refuses, a replay does not confirm."""
    with pytest.raises(SpecError) as checked:
        check(parse(DEEP))
    with pytest.raises(SpecError) as replayed:
        schedules(DEEP, dsn, workers=1)
    assert str(replayed.value) == str(checked.value)
    assert "more than 4 times" in str(checked.value)


LIMIT_ONE = """
name: a claim of the first row that is free
sets: {id: 2}
resources:
  jobs: {kind: table}
  job: {kind: row, per: [id], table: jobs}
  lane: {kind: row}
transactions:
  claim:
    let: {got: false}
    steps:
      - for: {i: id}
        sql: SELECT id FROM job ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED
        do:
          - if: not got
            then:
              - job[i]: FOR UPDATE SKIP LOCKED
                then: [set: {got: true}]
      - lane: FOR UPDATE
        sql: SELECT id FROM lane FOR UPDATE
  last first:
    steps:
      - lane: FOR UPDATE
        sql: SELECT id FROM lane FOR UPDATE
      - job[1]: FOR UPDATE
        sql: SELECT id FROM job WHERE id = 1 FOR UPDATE
workers: 3
expect: {deadlock: {between: [claim, last first]}}
schema: |
  CREATE TABLE job (id int PRIMARY KEY);
  CREATE TABLE lane (id int PRIMARY KEY);
  INSERT INTO job VALUES (0), (1);
  INSERT INTO lane VALUES (0);
"""


def test_a_statement_that_skips_a_row_and_takes_the_next_is_one_statement(dsn: str) -> None:
    """The trace has a refusal and a grant for it; Postgres is sent one SELECT … LIMIT 1, which comes back with the second row."""
    done = replay(LIMIT_ONE, dsn)
    assert done.outcome is ReplayOutcome.CONFIRMED, (done.performance, done.reason)
    assert done.script
    claims = [command for command in done.script.commands if "SKIP LOCKED" in command.sql]
    assert len(claims) == 2
    assert all(command.outcome is Outcome.COMPLETES for command in claims)
    assert claims[1].text == "job[1] FOR UPDATE SKIP LOCKED"


def test_schedules_of_such_claims_find_the_next_row_or_none(dsn: str) -> None:
    """Refused only if all rows are locked."""
    text = (
        LIMIT_ONE[: LIMIT_ONE.index("      - lane: FOR UPDATE")]
        + "workers: 3\n"
        + LIMIT_ONE[LIMIT_ONE.index("schema:") :]
    )
    done = schedules(text.replace("  lane: {kind: row}\n", ""), dsn, count=30)
    assert done.outcome is ReplayOutcome.CONFIRMED, done.runs[-1].performance
    claims = [c for run in done.runs for c in run.script.commands if "SKIP LOCKED" in c.sql]
    assert {command.outcome for command in claims} == {Outcome.COMPLETES, Outcome.REFUSED}
    assert any(command.text.startswith("job[1]") for command in claims)
    assert schedules(LIMIT_ONE, dsn, count=30).outcome is ReplayOutcome.CONFIRMED


IMPATIENT_BULK = """
name: a statement that fails at its second row
sets: {id: 2}
resources: {job: {kind: row, per: [id]}}
transactions:
  hasty:
    steps:
      - for: {i: id}
        sql: SELECT id FROM job ORDER BY id FOR UPDATE NOWAIT
        do: [{"job[i]": FOR UPDATE NOWAIT}]
  one:
    choose: {i: id}
    steps:
      - job[i]: FOR UPDATE
        sql: SELECT id FROM job WHERE id = {i} FOR UPDATE
workers: 3
schema: |
  CREATE TABLE job (id int PRIMARY KEY);
  INSERT INTO job VALUES (0), (1);
"""


def test_a_statement_that_fails_at_a_later_row_is_refused_as_a_whole(dsn: str) -> None:
    """NOWAIT takes the first row and fails at the second, which gives the first one back."""
    done = schedules(IMPATIENT_BULK, dsn, count=40)
    assert done.outcome is ReplayOutcome.CONFIRMED, done.runs[-1].performance
    refused = [c.text for run in done.runs for c in run.script.commands if c.outcome is Outcome.REFUSED]
    assert "job[0] FOR UPDATE NOWAIT + job[1] FOR UPDATE NOWAIT" in refused
    assert "job[0] FOR UPDATE NOWAIT" in refused


def test_what_a_spec_expects_is_wrapped_like_all_else() -> None:
    """A long list of transactions does not run out of the page."""
    lines = unmet_line("Expected a deadlock " + "between one and another " * 8, Page()).splitlines()
    assert len(lines) > 1 and all(line.startswith("  ") and len(line) <= 80 for line in lines)
