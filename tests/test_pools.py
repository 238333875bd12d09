"""Pools in replay: a real psycopg_pool for each, waits in the client, deadlocks that Postgres can't see."""

from __future__ import annotations

import asyncio
import random
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from generated import to_yaml
from leftovers import remains
from replaying import interrupt

from lockmodel.checker import check
from lockmodel.errors import ReplayError, SpecError
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
from lockmodel.replay.schedules import random_schedule
from lockmodel.replay.script import Outcome, Script, from_trace
from lockmodel.report.page import Page
from lockmodel.report.replay import schedules_report, trace_report
from lockmodel.report.replay_json import Replayed, replay_report
from lockmodel.semantics import crew
from lockmodel.verdict import Outcome as Verdict

SPECS = Path(__file__).parent.parent / "specs"
TABLE = "schema: |\n  CREATE TABLE t (id text PRIMARY KEY);\n  INSERT INTO t VALUES ('a'), ('b');\n"


def spec(steps: str, size: int = 2, more: str = "") -> str:
    """A transaction on connections of a pool; its rows are a and b."""
    body = "".join(f"      {line}\n" for line in steps.strip().splitlines())
    return (
        f"name: x\nresources: {{pool: {{kind: pool, size: {size}}}, a: {{kind: row}}, b: {{kind: row}}}}\n"
        f"transactions:\n  t:\n    steps:\n{body}{more}{TABLE}"
    )


def row(name: str, more: str = "") -> str:
    return f"- {name}: FOR UPDATE\n  sql: SELECT FROM t WHERE id = '{name}' FOR UPDATE\n{more}"


SECOND = f"- pool: TAKE\n{row('a')}- pool: TAKE\n{row('b')}"
"""A row locked on one connection, the next one on another."""


def replay(text: str, dsn: str) -> TraceReplay:
    found = parse(text)
    trace = check(found).trace
    assert trace is not None
    return replay_trace(prepare(found), trace, dsn)


def schedules(text: str, dsn: str, count: int = 10, seed: int = 1, workers: int = 3) -> SchedulesReplay:
    prepared = prepare(parse(text))
    return replay_schedules(prepared, crew(prepared.compilation.system, workers), count, seed, dsn)


@pytest.mark.postgres
def test_a_starved_pool_is_seen_as_what_it_is(dsn: str) -> None:
    """One waits in the pool, the other in Postgres; nobody goes on, there is no 40P01, and nothing is left."""
    done = replay(spec(SECOND), dsn)
    assert done.outcome is ReplayOutcome.CONFIRMED and done.performance and done.script
    assert done.performance.deadlock is None
    seen = done.performance.standstill
    assert seen is not None and seen.seconds >= 1.0
    assert seen.in_pool == ((0, "pool", (0, 1)),)
    assert seen.in_postgres == ((1, (0,)),)
    said = " ".join(trace_report("s.yaml", "deadlock", done, Page()).split())
    assert "getconn() of pool; BEGIN" in said
    assert "waits in the pool, whose connections worker 1 and worker 2" in re.sub(r"[│ ]+", " ", said)
    assert "Postgres reported no deadlock" in said and "worker 2 waits in Postgres for worker 1." in said
    document = replay_report([Replayed("s.yaml", "x", done, "deadlock", None, 0, "")], [])
    assert '"in_pool"' in document and '"holders"' in document
    assert remains(dsn) == []


@pytest.mark.postgres
def test_a_worker_can_wait_for_its_own_connection(dsn: str) -> None:
    """Alone, with a pool of one."""
    done = replay(spec(SECOND, size=1), dsn)
    assert done.outcome is ReplayOutcome.CONFIRMED and done.performance and done.performance.standstill
    assert done.performance.standstill.in_pool == ((0, "pool", (0,)),)
    assert done.performance.standstill.in_postgres == ()


def script_of(text: str) -> tuple[Script, Any]:
    found = parse(text)
    prepared, trace = prepare(found), check(found).trace
    assert trace is not None
    return from_trace(prepared.compilation, prepared.statements, trace), prepared


@pytest.mark.postgres
def test_a_pool_that_gives_a_connection_refutes_it(dsn: str) -> None:
    """A pool that is larger than the model says."""
    script, prepared = script_of(spec(SECOND))

    async def perform() -> Any:
        async with Driver(dsn) as driver:
            return await driver.perform(replace(script, pools=(("pool", 3),)), prepared.setup)

    done = asyncio.run(perform())
    assert done.standstill is None
    assert (
        done.difference and "is granted, where the model says that it waits for worker 1, worker 2" in done.difference
    )
    assert done.failed and done.failed.takes_connection
    assert remains(dsn) == []


@pytest.mark.postgres
def test_a_pool_with_nothing_left_refutes_it_too(dsn: str) -> None:
    """A pool that is smaller than the model says."""
    script, prepared = script_of(spec(SECOND, size=3))

    async def perform() -> Any:
        async with Driver(dsn) as driver:
            return await driver.perform(replace(script, pools=(("pool", 2),)), prepared.setup)

    done = asyncio.run(perform())
    assert done.difference == "waits in the pool, where the model says that a connection is left"
    assert remains(dsn) == []


@pytest.mark.postgres
@pytest.mark.parametrize("seconds", [0.05, 0.4, 1.0])
def test_an_interruption_leaves_nothing(seconds: float, dsn: str) -> None:
    """While connections are made, while workers wait in the pool and in Postgres."""
    script, prepared = script_of(spec(SECOND))

    interrupt(script, prepared, seconds, dsn)
    assert remains(dsn) == []


@pytest.mark.postgres
def test_schedules_wait_in_the_pool_and_go_on(dsn: str) -> None:
    """Three workers, two connections: the third is given one when another ends."""
    done = schedules(spec(f"- pool: TAKE\n{row('a')}{row('b')}"), dsn)
    assert done.outcome is ReplayOutcome.CONFIRMED, done.runs[-1].performance
    waited = [c for run in done.runs for c in run.script.commands if c.takes_connection and c.outcome is Outcome.WAITS]
    assert waited and done.deadlocks == 0
    assert remains(dsn) == []


@pytest.mark.postgres
def test_schedules_may_end_in_a_starved_pool(dsn: str) -> None:
    """Which is counted and shown as a deadlock."""
    done = schedules(spec(SECOND), dsn, count=4)
    assert done.outcome is ReplayOutcome.CONFIRMED, done.runs[-1].performance
    assert done.deadlocks > 0
    said = " ".join(schedules_report("s.yaml", done, Page(), "again").split())
    assert f"{done.deadlocks} deadlocked, all as foretold" in said
    assert "waits for a connection of pool" in said


@pytest.mark.postgres
def test_a_request_that_does_not_wait_is_refused(dsn: str) -> None:
    """TRY goes on without, NOWAIT without `else` ends the transaction."""
    steps = f"- pool: TAKE\n- pool: TAKE TRY\n  then:\n{_indented(row('a'))}{row('b')}"
    done = schedules(spec(steps), dsn)
    assert done.outcome is ReplayOutcome.CONFIRMED, done.runs[-1].performance
    asked = {c.outcome for run in done.runs for c in run.script.commands if c.takes_connection and c.conditional}
    assert asked == {Outcome.COMPLETES, Outcome.REFUSED}
    done = schedules(spec(f"- pool: TAKE NOWAIT\n{row('a')}", size=1), dsn)
    assert done.outcome is ReplayOutcome.CONFIRMED, done.runs[-1].performance


def _indented(text: str) -> str:
    return "".join(f"    {line}\n" for line in text.splitlines())


@pytest.mark.postgres
def test_a_step_says_on_which_connection_it_runs(dsn: str) -> None:
    """On the last one taken, or on the one whose number it gives; a second connection waits for the first as for anybody."""
    steps = f"- pool: TAKE\n{row('a')}- pool: TAKE\n{row('b')}{row('a', '  on connection: 1')}"
    done = schedules(spec(steps), dsn, workers=1)
    assert done.outcome is ReplayOutcome.CONFIRMED, done.runs[-1].performance
    numbers = [c.pooled.number for c in done.runs[0].script.commands if c.pooled and "id = 'a'" in c.sql]
    assert set(numbers) == {None, 1}
    refuted = schedules(spec(steps.replace("  on connection: 1", "")), dsn, workers=1)
    assert refuted.outcome is ReplayOutcome.REFUTED
    assert "waits for another connection of its own" in str(refuted.runs[-1].performance.difference)


@pytest.mark.postgres
@pytest.mark.parametrize("seed", range(4))
def test_postgres_and_the_pool_do_what_the_model_foretells(seed: int, dsn: str) -> None:
    """Random transactions on pools of random sizes."""
    for number in range(seed * 3, seed * 3 + 3):
        rnd = random.Random(number)
        text = to_yaml(generated(rnd))
        done = schedules(text, dsn, count=2, seed=number + 1, workers=rnd.choice((2, 3)))
        assert done.outcome is ReplayOutcome.CONFIRMED, (number, text, done.runs[-1].performance)
    assert remains(dsn) == []


def generated(rnd: random.Random) -> dict[str, Any]:
    """A spec whose transactions begin with a connection, and then take locks and more connections."""
    resources: dict[str, Any] = {
        "pool": {"kind": "pool", "size": rnd.choice((1, 2, 3))},
        "other": {"kind": "pool", "size": rnd.choice((1, 2))},
        "lane": {"kind": "row", "per": ["n"]},
        "jobs": {"kind": "table"},
        "gate": {"kind": "advisory"},
    }

    def lock() -> dict[str, str]:
        return rnd.choice(
            (
                {f"lane[{rnd.randrange(2)}]": rnd.choice(("FOR UPDATE", "FOR SHARE"))},
                {"jobs": rnd.choice(("SHARE", "ROW EXCLUSIVE"))},
                {"gate": rnd.choice(("EXCLUSIVE", "SHARED"))},
                {"gate": "EXCLUSIVE TRY"},
                {rnd.choice(("pool", "other")): rnd.choice(("TAKE", "TAKE", "TAKE TRY"))},
            )
        )

    # A worker that locks one thing on two connections waits for itself, of which the model says nothing.
    def steps() -> list[dict[str, str]]:
        chosen = [lock() for _ in range(3)]
        taken = [next(iter(one)) for one in chosen]
        return [
            one
            for index, one in enumerate(chosen)
            if taken[index] in ("pool", "other") or taken[index] not in taken[:index]
        ]

    transactions = {
        name: {"block": rnd.random() < 0.8, "steps": [{"pool": "TAKE"}, *steps()]} for name in ("first", "second")
    }
    return {"name": "generated", "sets": {"n": 2}, "resources": resources, "transactions": transactions}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (spec(f"{row('a')}- pool: TAKE"), ":6: this runs before its transaction has a connection; take a unit of the pool first"),
        (spec(f"- pool: TAKE\n{row('a', '  on connection: 2')}"), ":7: connection 2 is not there: the transaction has taken 1 by then"),
        (spec(f"- pool: TAKE\n- savepoint: s\n{row('a')}"), ":7: a transaction on connections of a pool can't be replayed with savepoints"),
        (spec(f"- statement: SELECT FROM t\n  takes:\n    - pool: TAKE\n{row('a')}"), "is taken by the client, not by a statement"),
    ],
)  # fmt: skip
def test_what_can_not_be_replayed_is_said_with_its_line(text: str, said: str) -> None:
    """Where there is no connection for a statement to run on."""
    prepared = prepare(parse(text))
    with pytest.raises(ReplayError) as caught:
        random_schedule(prepared.compilation, prepared.statements, crew(prepared.compilation.system, 1), "1")
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("  sql: SELECT FROM t WHERE id = 'a' FOR UPDATE\n", "  sql: SELECT 1\n      on connection: 0\n", "on connection"),
        ("- pool: TAKE\n      - a", "- pool: TAKE\n        until: granted\n      - a", "a unit of a pool can't be waited for without taking it"),
    ],
)  # fmt: skip
def test_a_wrong_word_is_one_line(old: str, new: str, said: str) -> None:
    text = spec(f"- pool: TAKE\n{row('a')}")
    assert old in text
    with pytest.raises(SpecError) as caught:
        check(parse(text.replace(old, new.replace("      on", "        on"))))
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        (row("a", "  on connection: 1"), ":6: the transaction takes no unit of a pool, so it has one connection; drop `on connection`"),
        ("- pool: TAKE\n  sql: SELECT 1", ":7: a unit of pool is taken by the client, not by a statement; drop the sql"),
    ],
)  # fmt: skip
def test_what_can_not_be_meant_is_refused(steps: str, said: str) -> None:
    """Rather than ignored."""
    with pytest.raises(SpecError) as caught:
        check(parse(spec(steps)))
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.postgres
def test_more_connections_than_the_server_has_are_refused(dsn: str) -> None:
    with pytest.raises(ReplayError, match=r"pool: 5,000 connections are more than the \d+ that the server has left"):
        schedules(spec(f"- pool: TAKE\n{row('a')}", size=5000), dsn)
    assert remains(dsn) == []


@pytest.mark.postgres
def test_without_psycopg_pool_the_extra_is_named(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg_pool", None)
    with pytest.raises(ReplayError, match=r"install psycopg_pool: pip install 'lockmodel\[replay\]'"):
        schedules(spec(f"- pool: TAKE\n{row('a')}"), dsn)
    assert remains(dsn) == []


def test_pools_are_proved_for_any_number_of_workers() -> None:
    """A connection is taken before all locks, and no second one: then the order of the locks decides."""
    assert check(load(SPECS / "real" / "digdag-pool-fixed.yaml")).verdict.outcome is Verdict.HOLDS
    pool_first = check(parse(spec(f"- pool: TAKE\n{row('a')}{row('b')}")))
    assert pool_first.verdict.outcome is Verdict.HOLDS and pool_first.verdict.scope.startswith("any number")
    row_first = check(parse(spec("- a: FOR UPDATE\n- pool: TAKE\n- b: FOR UPDATE")))
    assert row_first.verdict.outcome is Verdict.HOLDS and row_first.verdict.scope.startswith("any number")


@pytest.mark.parametrize(
    ("steps", "size", "count"),
    [("- pool: TAKE\n- pool: TAKE", 1, 1), ("- pool: TAKE\n- pool: TAKE", 2, 2), ("- pool: TAKE\n- pool: TAKE\n- pool: TAKE", 2, 1)],
)  # fmt: skip
def test_a_worker_that_waits_for_its_own_units_is_not_overlooked(steps: str, size: int, count: int) -> None:
    """Also if it is the only one of its role."""
    roles = f"roles: {{only: {{count: {count}, runs: [t]}}}}\nexpect: deadlock\n"
    assert check(parse(spec(steps, size, roles))).verdict.outcome is Verdict.VIOLATED
