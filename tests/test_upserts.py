"""INSERT … ON CONFLICT DO UPDATE inserts a row or updates one that is there: the locks of both."""

from __future__ import annotations

from typing import Any

import pytest
from leftovers import remains

from lockmodel.checker import check
from lockmodel.compiler import Compilation
from lockmodel.errors import SpecError
from lockmodel.parser import parse
from lockmodel.replay.comparison import runs
from lockmodel.replay.plain_conformance import conform_plain
from lockmodel.replay.replayer import run_to_the_end
from lockmodel.resolver import resolve
from lockmodel.verdict import Outcome

RESOURCES = """\
name: upserts
sets: {k: 2}
resources:
  ukey: {kind: key, per: [k]}
  jobs: {kind: table, stands for: {relation: jobs}}
  queues: {kind: table, stands for: {relation: queues}}
  job: {kind: row, per: [k], table: jobs, stands for: {relation: jobs, row: {id: "{k}"}}}
  queue: {kind: row, table: queues, stands for: {relation: queues, row: {id: 1}}}
  leader: {kind: advisory}
"""
SCHEMA = """\
schema: |
  CREATE TABLE queues (id int PRIMARY KEY);
  INSERT INTO queues VALUES (1);
  CREATE TABLE jobs (id int PRIMARY KEY, queue_id int REFERENCES queues, n int NOT NULL DEFAULT 0);
"""
UNIQUE = "relations: {jobrel: {row: job, unique: ['ukey[k]']}}\n"
FOREIGN = "relations: {jobrel: {row: job%s, foreign keys: [{columns: [queue_id], references: queue}]}}\n"
SEED = "  INSERT INTO jobs VALUES (0, 1), (1, 1);\n"


def insert(number: int, how: str, options: str = "") -> str:
    set_n = " SET n = jobs.n + 1" if how == "do update" else ""
    sql = f"INSERT INTO jobs (id, queue_id) VALUES ({number}, 1) ON CONFLICT (id) {how.upper()}{set_n}"
    return f"{{insert: 'job[{number}]', on conflict: {how}{options}, sql: '{sql}'}}"


def transactions(**steps: list[str]) -> str:
    return "transactions:\n" + "".join(f"  {name}: {{steps: [{', '.join(these)}]}}\n" for name, these in steps.items())


LEADER = "{leader: EXCLUSIVE, sql: SELECT pg_advisory_xact_lock(7)}"
QUEUE = "{select: queue, for: UPDATE, sql: SELECT 1 FROM queues WHERE id = 1 FOR UPDATE}"


def mixed(options: str = "") -> str:
    """An upsert of two keys, and an INSERT … DO NOTHING of both the other way round."""
    forwards = [insert(0, "do update", options), insert(1, "do update", options)]
    return RESOURCES + UNIQUE + transactions(a=forwards, b=[insert(1, "do nothing"), insert(0, "do nothing")]) + SCHEMA


def with_foreign_key(options: str = "") -> str:
    """An upsert into a table that refers to a row that somebody locks."""
    there = [LEADER, insert(0, "do update", options)]
    return RESOURCES + FOREIGN % "" + transactions(enqueue=there, pause=[QUEUE, LEADER]) + SCHEMA


def outcome(text: str) -> Outcome:
    return check(parse(text)).verdict.outcome


def taken(text: str, transaction: str) -> set[tuple[str, ...]]:
    """What each way of a transaction takes, without tables."""
    found = runs(Compilation(resolve(parse(text))), transaction, {})
    return {tuple(str(one) for one in run.taken if not one.mode.startswith("ROW ")) for run in found}


def test_both_forms_of_on_conflict_wait_for_each_other_by_the_key() -> None:
    """Whether the row is new or there: who inserts the key waits for the new entry, or for the change of the row."""
    for options in ("", ", exists: false", ", exists: true"):
        assert outcome(mixed(options)) is Outcome.VIOLATED


def test_a_row_that_may_be_new_has_its_foreign_keys_checked() -> None:
    """One that is known to be there has not: its key does not change."""
    assert outcome(with_foreign_key()) is Outcome.VIOLATED
    assert outcome(with_foreign_key(", exists: false")) is Outcome.VIOLATED
    assert outcome(with_foreign_key(", exists: true")) is Outcome.HOLDS


def test_a_way_has_its_own_events() -> None:
    """The triggers of the INSERT or those of the UPDATE; with several rows any of both."""
    relations = (
        "relations:\n  jobrel:\n    row: job\n    triggers:\n      i: {after: insert, do: [leader: EXCLUSIVE]}\n"
        "      u: {after: update, do: [update: queue]}\n"
    )
    one = RESOURCES + relations + "transactions: {t: {steps: [{insert: 'job[0]', on conflict: do update}]}}\n"
    row = "job[0] FOR NO KEY UPDATE"
    assert taken(one, "t") == {(row, "leader EXCLUSIVE"), (row, "queue FOR NO KEY UPDATE")}
    many = one.replace("job[0]", "job[i]").replace("do update", "do update, rows: {i: k}")
    rows = (row, "job[1] FOR NO KEY UPDATE")
    both = {("leader EXCLUSIVE", "queue FOR NO KEY UPDATE"), ("queue FOR NO KEY UPDATE", "leader EXCLUSIVE")}
    assert taken(many, "t") == {(*rows, *more) for more in (*both, ("leader EXCLUSIVE",), ("queue FOR NO KEY UPDATE",))}


def test_what_waits_for_the_commit_has_to_be_told() -> None:
    """A deferred foreign key is checked for a new row only."""
    text = with_foreign_key().replace("references: queue}", "references: queue, deferred: true}")
    with pytest.raises(SpecError, match="write `exists: true` or `exists: false`"):
        resolve(parse(text))
    assert outcome(text.replace("do update,", "do update, exists: true,")) is Outcome.HOLDS


def test_exists_is_about_do_update() -> None:
    """DO NOTHING takes nothing of a row that is there."""
    with pytest.raises(SpecError, match="drop this key"):
        resolve(parse(mixed().replace("do nothing", "do nothing, exists: true")))


@pytest.mark.postgres
@pytest.mark.parametrize("seed", ["", SEED])
def test_conform_accepts_the_way_that_the_rows_decide(seed: str, dsn: str) -> None:
    """Also where the spec leaves it open."""
    text = RESOURCES + FOREIGN % ", unique: ['ukey[k]']" + transactions(t=[insert(0, "do update")]) + SCHEMA + seed
    found, _ = run_to_the_end(lambda: conform_plain(parse(text), dsn))
    assert found and all(one.conforms for one in found)
    told = text.replace("do update,", f"do update, exists: {str(not seed).lower()},")
    found, _ = run_to_the_end(lambda: conform_plain(parse(told), dsn))
    assert not any(one.conforms for one in found), "the rows are not as the spec says"
    assert remains(dsn) == []


KEY = "INSERT INTO jobs (id, queue_id) VALUES (0, 1)"
UPSERT, NOTHING = f"{KEY} ON CONFLICT (id) DO UPDATE SET n = jobs.n + 1", f"{KEY} ON CONFLICT (id) DO NOTHING"


@pytest.mark.postgres
@pytest.mark.parametrize("seed", ["", SEED])
@pytest.mark.parametrize("second", [UPSERT, NOTHING])
def test_postgres_waits_for_an_upsert_of_the_same_key(lockmodel_schedule: Any, seed: str, second: str) -> None:
    """What both ways stand on: an upsert holds its key, whether it has inserted the row or updated it."""
    schedule = lockmodel_schedule
    schedule.setup(SCHEMA.partition("\n")[2] + seed)
    a, b = schedule.sessions("a", "b")
    a.run("BEGIN")
    a.run(UPSERT)
    b.run("BEGIN")
    b.waits_for(a, second)
