"""Statements that foretell locks of rows and find none: refuted in a trace, counted in random schedules."""

from __future__ import annotations

import re

import pytest
from replaying import LIES, replay, schedules

from lockmodel.replay.no_row import tells_of_rows
from lockmodel.replay.replayer import ReplayOutcome
from lockmodel.report.page import Page
from lockmodel.report.replay import schedules_report, schedules_sentence, statement_rows

pytestmark = pytest.mark.postgres

GATE = """
name: gate
resources:
  gate: {kind: advisory}
  job: {kind: row}
transactions:
  claim:
    steps:
      - gate: EXCLUSIVE
        sql: SELECT pg_advisory_xact_lock(1)
      - job: FOR UPDATE
        sql: UPDATE jobs SET state = 'taken' WHERE id = 0 AND state = 'free'
schema: |
  CREATE TABLE jobs (id int PRIMARY KEY, state text);
  INSERT INTO jobs VALUES (0, 'free');
"""


def test_schedules_count_the_statements_that_find_no_row(dsn: str) -> None:
    """Of nine claims of one job the first finds it; that is said, for people and for programs."""
    done = schedules(GATE, dsn)
    assert done.outcome is ReplayOutcome.CONFIRMED
    claims = sum(one.command.sql.startswith("UPDATE") for run in done.runs for one in run.performance.done)
    assert done.without_row == claims - len(done.runs) > 0
    assert f"But {done.without_row} statements found no row to lock" in schedules_sentence(done)
    kept = schedules(GATE.replace("state = 'taken'", "state = 'free'"), dsn)
    assert kept.without_row == 0 and "found no row" not in schedules_sentence(kept)


def test_a_granted_step_of_a_trace_that_finds_no_row_is_refuted(dsn: str) -> None:
    """Before the deadlock, at the statement that locks nothing: the deadlock itself would come about all the same."""
    text = LIES.replace("FOR KEY SHARE", "FOR UPDATE").replace("resources:", "resources:\n  c: {kind: row}")
    first = "      - a: FOR UPDATE\n        sql: SELECT * FROM t WHERE id = 'a' FOR UPDATE\n      - b"
    assert first in text
    text = text.replace(first, f"      - c: FOR UPDATE\n        sql: DELETE FROM t WHERE id = 'c'\n{first}")
    done = replay(text, dsn)
    assert done.outcome is ReplayOutcome.REFUTED and done.performance is not None
    assert done.performance.failed is not None and done.performance.failed.sql.startswith("DELETE")
    assert "it found no row to lock" in str(done.performance.difference)
    there = text.replace("('b');", "('b'), ('c');")
    assert there != text and replay(there, dsn).outcome is ReplayOutcome.CONFIRMED


@pytest.mark.parametrize(
    ("sql", "schema", "told"),
    [
        ("UPDATE t SET a = 'FOR UPDATE; x' WHERE id = 1 -- FOR UPDATE", "", True),
        ("SELECT 1 FROM t WHERE a IN (SELECT 2) ORDER BY id FOR NO KEY UPDATE", "", True),
        ("SET LOCAL x = 1; DELETE FROM t", "CREATE TABLE t (id int)", True),
        ("INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING", "", True),
        ("INSERT INTO t VALUES (1) ON CONFLICT (id) DO UPDATE SET a = 1 WHERE false", "", False),
        ("SELECT 1 FROM t FOR UPDATE OFFSET 1", "", False),
        ("SELECT * FROM claim()", "", False),
        ("UPDATE t SET a = 1 WHERE id = (SELECT id FROM u FOR UPDATE)", "", False),
        ("SELECT 1 FROM (SELECT 1 FROM t FOR UPDATE) x WHERE false", "", False),
        ("WITH x AS (DELETE FROM t) SELECT 1 WHERE false", "", False),
        (r"SELECT 1 FROM t WHERE a = E'\\' OR b = ' FOR UPDATE'", "", False),
        ("/* a /* b */ FOR UPDATE */ DELETE FROM t", "", True),
        ("DO $$ BEGIN DELETE FROM t; END $$", "", False),
        ("DELETE FROM t", "CREATE OR REPLACE TRIGGER x BEFORE DELETE ON t EXECUTE FUNCTION f()", False),
    ],
)
def test_what_no_rows_tells(sql: str, schema: str, told: bool) -> None:
    """Only where nothing else in the statement could have locked a row."""
    assert tells_of_rows(sql, schema) is told


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO t VALUES ('a') ON CONFLICT (id) DO UPDATE SET id = 'a' WHERE false",
        "SELECT 1 FROM t WHERE id = 'a' FOR UPDATE OFFSET 1",
        "SELECT 1 FROM (SELECT 1 FROM t WHERE id = 'a' FOR UPDATE OFFSET 0) x WHERE random() < 0",
    ],
)
def test_statements_that_lock_rows_and_report_none_are_no_difference(sql: str, dsn: str) -> None:
    """Postgres locks the row all the same, as the other worker's wait shows."""
    text = LIES.replace("FOR KEY SHARE", "FOR UPDATE")
    first = "sql: SELECT * FROM t WHERE id = 'a' FOR UPDATE"
    done = replay(text.replace(first, f'sql: "{sql}"', 1), dsn)
    assert done.outcome is ReplayOutcome.CONFIRMED, done.performance


EATEN = """
name: eaten
resources:
  a: {kind: row}
transactions:
  delete:
    steps:
      - a: FOR UPDATE
        sql: DELETE FROM t WHERE id = 'a'
schema: |
  CREATE TABLE t (id text PRIMARY KEY);
"""


def test_who_should_have_been_in_the_way_is_named_where_it_found_no_row(dsn: str) -> None:
    """Not the statement that did not wait for it; and of a long schedule it is said that only its end is shown."""
    done = next(
        one for one in (schedules(EATEN, dsn, seed=seed) for seed in range(1, 9)) if not one.runs[-1].as_foretold
    )
    difference = str(done.runs[-1].performance.difference)
    assert re.search(r"statement \d+, with which worker \d would have locked rows, had found none", difference)
    long = next(
        one
        for one in (schedules(GATE.replace("pg_advisory_xact_lock(1)", "1"), dsn, seed=seed) for seed in range(1, 99))
        if not one.runs[-1].as_foretold and len(statement_rows(one.runs[-1].script, one.runs[-1].performance)) > 12
    )
    last = long.runs[-1]
    rows = len(statement_rows(last.script, last.performance))
    assert f"The last 12 of {rows} statements:" in schedules_report("x.yaml", long, Page(), "again")
