"""lock_timeout: who gives up, and whether before a deadlock is reported."""

from __future__ import annotations

from pathlib import Path

import pytest
from leftovers import remains

from lockmodel.checker import check
from lockmodel.parser import parse
from lockmodel.replay.replayer import ReplayOutcome, prepare, replay_schedules, replay_trace
from lockmodel.replay.script import Outcome as Expected
from lockmodel.report.json import report
from lockmodel.report.trace_file import read_trace
from lockmodel.semantics import crew
from lockmodel.timeouts import milliseconds
from lockmodel.verdict import Outcome

CROSSED = """
name: crossed
resources: {{a: {{kind: row}}, b: {{kind: row}}}}
transactions:
  one:
    lock_timeout: {one}
    steps: [a: FOR UPDATE, b: FOR UPDATE]
  two:
    lock_timeout: {two}
    steps: [b: FOR UPDATE, a: FOR UPDATE]
roles: {{first: {{count: 1, runs: [one]}}, second: {{count: 1, runs: [two]}}}}
{more}
"""


def crossed(one: str = "0", two: str = "0", more: str = "") -> str:
    return CROSSED.format(one=one, two=two, more=more)


@pytest.mark.parametrize(("text", "expected"), [
    (200, 200), ("200", 200), ("200ms", 200), ("2s", 2000), ("1.5 s", 1500), ("1min", 60_000), ("1h", 3_600_000), ("1d", 86_400_000),
    ("500us", 0.5), ("0", 0), ("2 weeks", None), ("-1s", None), ("", None), ("s", None), ("1S", None),
])  # fmt: skip
def test_durations_are_those_of_postgres(text: int | str, expected: float | None) -> None:
    assert milliseconds(text) == expected


@pytest.mark.parametrize(("one", "two", "more", "outcome"), [
    ("0", "0", "", Outcome.VIOLATED),
    ("200ms", "0", "", Outcome.HOLDS),
    ("0", "999ms", "", Outcome.HOLDS),
    ("1s", "0", "", Outcome.VIOLATED),
    ("1min", "5s", "", Outcome.VIOLATED),
    ("1min", "5s", "deadlock_timeout: 10s", Outcome.HOLDS),
    ("50ms", "0", "deadlock_timeout: 50ms", Outcome.VIOLATED),
])  # fmt: skip
def test_whoever_gives_up_before_the_deadlock_timeout_is_in_no_deadlock(
    one: str, two: str, more: str, outcome: Outcome
) -> None:
    """One member of the circle is enough; the searches and the proof agree."""
    result = check(parse(crossed(one, two, more)))
    assert result.verdict.outcome is outcome
    anybody = crossed(one, two, more).partition("roles:")[0] + more
    assert check(parse(anybody)).verdict.outcome is (Outcome.VIOLATED if outcome is Outcome.VIOLATED else Outcome.HOLDS)


def test_a_step_has_its_own_timeout() -> None:
    """Zero takes the transaction's away."""
    text = crossed("200ms").replace("b: FOR UPDATE]\n  two", "{b: FOR UPDATE, lock_timeout: 0}]\n  two")
    assert check(parse(text)).verdict.outcome is Outcome.VIOLATED
    text = crossed().replace("a: FOR UPDATE]\nroles", "{a: FOR UPDATE, lock_timeout: 100}]\nroles")
    assert check(parse(text)).verdict.outcome is Outcome.HOLDS


GIVES_UP = """
name: gives up
resources: {{jobs: {{kind: table}}, a: {{kind: row, table: jobs}}}}
transactions:
  dump: {{steps: [jobs: ACCESS SHARE]}}
  migrate:
    lock_timeout: 150ms
    steps: {steps}
roles: {{backup: {{count: 1, runs: [dump]}}, migration: {{count: 1, runs: [migrate]}}}}
never: {{gave up: {formula}}}
expect: {{violated: gave up}}
"""


@pytest.mark.postgres
@pytest.mark.parametrize(("steps", "formula"), [
    ("[jobs: ACCESS EXCLUSIVE]", "count(w.status == aborted) >= 1"),
    ("[savepoint: s, {jobs: ACCESS EXCLUSIVE, else: [rollback to: s, a: FOR SHARE]}]", "count(w.transaction == migrate and w.holds(a)) >= 1"),
])  # fmt: skip
def test_postgres_ends_the_wait_with_55p03(steps: str, formula: str, dsn: str) -> None:
    """The statement is seen waiting and fails by its timeout; then the transaction is over, or goes on from its savepoint."""
    spec = parse(GIVES_UP.format(steps=steps, formula=formula))
    result = check(spec)
    assert result.trace is not None
    done = replay_trace(prepare(spec), result.trace, dsn)
    assert done.outcome is ReplayOutcome.CONFIRMED, done.performance
    assert done.script is not None and done.performance is not None
    (timed,) = [one for one in done.performance.done if one.command.outcome is Expected.TIMES_OUT]
    assert "SET LOCAL lock_timeout = '150ms'" in timed.command.sql
    assert timed.seconds >= 0.15
    assert remains(dsn) == []


@pytest.mark.postgres
def test_random_schedules_of_transactions_that_give_up(dsn: str) -> None:
    """The circle of the two rows comes up, and ends by 55P03, never by 40P01."""
    prepared = prepare(parse(crossed("100ms")))
    done = replay_schedules(prepared, crew(prepared.compilation.system, 1), 12, seed=3, dsn=dsn)
    assert done.outcome is ReplayOutcome.CONFIRMED, done.runs[-1].performance
    ends = [one.command.outcome for run in done.runs for one in run.performance.done]
    assert Expected.TIMES_OUT in ends and done.deadlocks == 0


@pytest.mark.postgres
def test_a_timeout_that_the_sql_does_not_wait_for_is_refuted(dsn: str) -> None:
    """The model says that it waits until its timeout; the SQL takes another lock and is granted."""
    text = GIVES_UP.format(steps="[{jobs: ACCESS EXCLUSIVE, sql: SELECT 1}]", formula="count(w.status == aborted) >= 1")
    text = text.replace("dump: {steps: [jobs: ACCESS SHARE]}", "dump: {steps: [{jobs: ACCESS SHARE, sql: SELECT 2}]}")
    text = text.replace(", a: {kind: row, table: jobs}", "")
    spec = parse(text)
    result = check(spec)
    assert result.trace is not None
    done = replay_trace(prepare(spec), result.trace, dsn)
    assert done.outcome is ReplayOutcome.REFUTED
    assert done.performance is not None and "is granted, where the model says that it waits" in str(
        done.performance.difference
    )


def test_a_trace_that_gives_up_is_read_back(tmp_path: Path) -> None:
    """From the JSON report, like any other."""
    spec_file = tmp_path / "s.yaml"
    spec_file.write_text(GIVES_UP.format(steps="[jobs: ACCESS EXCLUSIVE]", formula="count(w.status == aborted) >= 1"))
    result = check(parse(spec_file.read_text(), str(spec_file)))
    loaded = read_trace(report([result]))
    assert loaded.trace == result.trace
