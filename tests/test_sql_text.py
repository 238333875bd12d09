"""How the SQL of a step takes the table: by its words, whatever stands around them."""

from __future__ import annotations

import pytest

from lockmodel.checker import check
from lockmodel.compiler import Compilation
from lockmodel.parser import parse
from lockmodel.replay.comparison import runs
from lockmodel.replay.plain_conformance import conform_plain
from lockmodel.replay.replayer import run_to_the_end
from lockmodel.resolver import resolve
from lockmodel.sql_text import table_modes
from lockmodel.verdict import Outcome

WRITES, LOCKS = ("ROW EXCLUSIVE",), ("ROW SHARE",)
CASES = {
    "SELECT id FROM jobs FOR UPDATE": LOCKS,
    "UPDATE jobs SET state = 1": WRITES,
    "-- which\nUPDATE jobs SET state = 1": WRITES,
    "/* a /* b */ c */ DELETE FROM ONLY public.jobs": WRITES,
    "(SELECT id FROM jobs FOR UPDATE)": LOCKS,
    "EXPLAIN (ANALYZE, COSTS OFF) UPDATE jobs SET state = 1": WRITES,
    "EXPLAIN ANALYZE VERBOSE DELETE FROM jobs": WRITES,
    "SELECT 1; UPDATE jobs SET state = 1": WRITES,
    "WITH l AS (SELECT 1 AS id) UPDATE jobs SET state = 1 FROM l": WRITES,
    "WITH gone AS MATERIALIZED (DELETE FROM jobs RETURNING *) SELECT * FROM gone": WRITES,
    "WITH RECURSIVE a (i) AS (SELECT 1) SEARCH DEPTH FIRST BY i SET o UPDATE jobs SET state = 1": WRITES,
    "INSERT INTO jobs VALUES (1) ON CONFLICT (id) DO UPDATE SET state = 1": WRITES,
    "WITH l AS (SELECT id FROM jobs FOR UPDATE SKIP LOCKED) UPDATE jobs SET state = 1 FROM l": (*LOCKS, *WRITES),
    "UPDATE jobs SET state = 1 WHERE id IN (SELECT id FROM jobs FOR NO KEY UPDATE)": (*WRITES, *LOCKS),
    "UPDATE lanes SET n = 1 WHERE id IN (SELECT lane FROM jobs FOR UPDATE)": LOCKS,
    "INSERT INTO log SELECT * FROM jobs AS j, lanes FOR UPDATE OF j": LOCKS,
    "INSERT INTO jobs SELECT * FROM log, jobs FOR SHARE OF log": WRITES,
    "SELECT 'UPDATE jobs', E'\\'; UPDATE jobs' FROM jobs FOR UPDATE": LOCKS,
    "SELECT $a$; UPDATE jobs $a$ FROM jobs FOR UPDATE": LOCKS,
    'SELECT "x"" ; update jobs " FROM jobs FOR UPDATE': LOCKS,
    "SELECT update, jobs.delete FROM jobs FOR UPDATE": LOCKS,
    "SELECT id FROM jobs -- ; UPDATE jobs\nFOR UPDATE": LOCKS,
    "SELECT id FROM jobs /* unclosed": LOCKS,
}


@pytest.mark.parametrize("sql", CASES)
def test_the_words_of_a_statement_tell_the_modes_of_its_table(sql: str) -> None:
    """In the order of the text."""
    assert table_modes(sql, {"jobs"}) == CASES[sql]


def test_a_table_that_is_called_otherwise_is_taken_in_all_modes_of_the_statement() -> None:
    """Rather one too many."""
    sql = "UPDATE a SET x = 1 WHERE id IN (SELECT id FROM b FOR UPDATE)"
    assert table_modes(sql, {"jobs"}) == (*WRITES, *LOCKS)


RESOURCES = """\
name: claims
sets: {job: 2}
resources:
  job: {kind: row, per: [job], table: jobs, stands for: {relation: jobs, row: {id: "{job}"}}}
  jobs: {kind: table, stands for: {relation: jobs}}
  leader: {kind: advisory}
"""
SCHEMA = "schema: CREATE TABLE jobs (id int PRIMARY KEY, state text); INSERT INTO jobs VALUES (0, 'x'), (1, 'x')\n"
CLAIMS = {
    "WITH l AS (SELECT id FROM jobs ORDER BY id FOR UPDATE SKIP LOCKED) UPDATE jobs SET state = 'r' FROM l WHERE jobs.id = l.id": (
        *LOCKS,
        *WRITES,
    ),
    "UPDATE jobs SET state = 'r' WHERE id IN (SELECT id FROM jobs ORDER BY id FOR UPDATE SKIP LOCKED)": (
        *WRITES,
        *LOCKS,
    ),
    "/* claim */ UPDATE jobs SET id = id": WRITES,
}


def claim(sql: str) -> str:
    return (
        f"{RESOURCES}transactions:\n  fetch:\n    steps:\n      - for: {{j: job}}\n        sql: {sql}\n"
        "        do: ['job[j]': FOR UPDATE SKIP LOCKED]\n"
    )


@pytest.mark.parametrize("sql", CLAIMS)
def test_a_step_takes_its_table_in_all_modes_of_its_statement_once(sql: str) -> None:
    """A later row of the same statement finds the table held."""
    (run,) = runs(Compilation(resolve(parse(claim(sql)))), "fetch", {})
    rows = ["job[0] FOR UPDATE", "job[1] FOR UPDATE"]
    assert [str(one) for one in run.taken] == [*(f"jobs {mode}" for mode in CLAIMS[sql]), *rows]


@pytest.mark.postgres
@pytest.mark.parametrize("sql", [sql for sql in CLAIMS if "SKIP" in sql])
def test_postgres_takes_both_modes(sql: str, dsn: str) -> None:
    """No more and no fewer."""
    found, _ = run_to_the_end(lambda: conform_plain(parse(claim(sql) + SCHEMA), dsn))
    assert found and all(one.conforms for one in found)


@pytest.mark.parametrize("sql", CLAIMS)
def test_who_writes_the_table_deadlocks_with_who_makes_an_index(sql: str) -> None:
    """CREATE INDEX lets ROW SHARE by, and not ROW EXCLUSIVE."""
    leader = "      - leader: EXCLUSIVE\n"
    fetch = claim(sql).replace("    steps:\n", f"    steps:\n{leader}")
    assert outcome(f"{fetch}  reindex:\n    steps:\n      - create index: jobs\n{leader}") is Outcome.VIOLATED


def outcome(text: str) -> Outcome:
    return check(parse(text)).verdict.outcome
