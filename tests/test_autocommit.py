"""Transactions without a transaction block, and statements that wait for other transactions' end."""

from __future__ import annotations

import time
from pathlib import Path

import psycopg
import pytest
from leftovers import remains

from lockmodel.checker import check
from lockmodel.compiler import compile_spec
from lockmodel.errors import ReplayError, SpecError
from lockmodel.parser import load, parse
from lockmodel.replay.plain_conformance import conform_plain
from lockmodel.replay.replayer import (
    ReplayOutcome,
    SchedulesReplay,
    prepare,
    replay_schedules,
    replay_trace,
    run_to_the_end,
)
from lockmodel.replay.script import Outcome as Wanted
from lockmodel.semantics import crew
from lockmodel.verdict import Outcome

ROOT = Path(__file__).parent.parent
HEAD = """
name: x
resources:
  jobs: {kind: table}
  a: {kind: row}
  b: {kind: row}
  gate: {kind: advisory, scope: session}
  snapshots: {kind: lock}
transactions:
"""


def spec(*transactions: str, block: bool = False) -> str:
    """A spec of transactions, given by their steps."""
    found = HEAD
    for number, steps in enumerate(transactions, start=1):
        body = "".join(f"      {line}\n" for line in steps.strip().splitlines())
        found += f"  t{number}:\n    block: {str(block).lower()}\n    steps:\n{body}"
    return found


def schedules(text: str, dsn: str, count: int = 15) -> SchedulesReplay:
    prepared = prepare(parse(text))
    return replay_schedules(prepared, crew(prepared.compilation.system, 3), count, 1, dsn)


TWO_ORDERS = ("- a: FOR UPDATE\n- b: FOR UPDATE", "- b: FOR UPDATE\n- a: FOR UPDATE")


def test_without_a_block_each_statement_gives_its_locks_back() -> None:
    """Two orders deadlock in a transaction block, and not without one."""
    assert check(parse(spec(*TWO_ORDERS, block=True) + "workers: 2\n")).verdict.outcome is Outcome.VIOLATED
    result = check(parse(spec(*TWO_ORDERS)))
    assert result.verdict.outcome is Outcome.HOLDS and result.verdict.scope.startswith("any number")


def test_one_statement_of_several_locks_can_still_deadlock() -> None:
    """It keeps the first while it waits for the second."""
    both = [f"- statement: SELECT 1\n  takes: [{{{x}: FOR UPDATE}}, {{{y}: FOR UPDATE}}]" for x, y in ("ab", "ba")]
    result = check(parse(spec(*both) + "expect: {deadlock: {between: [t1, t2], on: [a, b], workers: 2, states: 5}}\n"))
    assert result.exit_code == 0, result.unmet


def test_session_locks_stay() -> None:
    """They belong to the session."""
    system = compile_spec(parse(spec("- gate: EXCLUSIVE\n- a: FOR UPDATE\n- release: gate") + "workers: 1\n"))
    held = [{system.resources[hold.resource].name for hold in location.held} for location in system.locations]
    assert {"gate"} in held and not any("a" in names for names in held)


def test_a_lock_that_is_only_waited_for_is_not_held() -> None:
    """`until: granted` waits for who has it, and nobody waits for it."""
    waits = "- jobs: SHARE UPDATE EXCLUSIVE\n- jobs: SHARE\n  until: granted\n- a: FOR UPDATE"
    system = compile_spec(parse(spec(waits, block=True) + "workers: 1\n"))
    modes = {hold.mode for location in system.locations for hold in location.held}
    assert modes == {"SHARE UPDATE EXCLUSIVE", "FOR UPDATE"}
    writes = "- a: FOR UPDATE\n- jobs: ROW EXCLUSIVE"
    assert check(parse(spec(waits, writes, block=True))).verdict.outcome is Outcome.HOLDS
    kept = waits.replace("\n  until: granted", "")
    assert check(parse(spec(kept, writes, block=True))).verdict.outcome is Outcome.VIOLATED


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ("- savepoint: s\n- a: FOR UPDATE", "a savepoint needs a transaction block; drop it, or `block: false`"),
        ("- gate: EXCLUSIVE\n  until: granted", "a session lock can't be waited for without taking it; drop this key"),
        ("- a: FOR UPDATE\n  until: statement", "until"),
    ],
)
def test_what_has_no_meaning_without_a_block_is_one_line(steps: str, said: str) -> None:
    with pytest.raises(SpecError) as caught:
        check(parse(spec(steps)))
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_nothing_is_held_from_the_start_on_without_a_block() -> None:
    text = spec("- a: FOR UPDATE").replace("    steps:", "    take at start: {b: FOR UPDATE}\n    steps:")
    with pytest.raises(SpecError, match="without a transaction block nothing is held from the start on"):
        check(parse(text))


def test_a_lock_that_is_only_waited_for_needs_sql_in_a_replay() -> None:
    with pytest.raises(
        ReplayError, match="no statement of its own that waits without taking anything; give this step sql"
    ):
        prepare(parse(spec("- jobs: SHARE\n  until: granted", block=True)))


@pytest.mark.postgres
def test_statements_of_lockmodels_own_run_without_a_block_too(dsn: str) -> None:
    """Rows, tables (LOCK TABLE needs a block), advisory locks of the session."""
    steps = "- a: FOR UPDATE\n- jobs: SHARE\n- gate: EXCLUSIVE\n- b: FOR UPDATE NOWAIT\n- release: gate"
    blocked = "- b: FOR UPDATE\n- a: FOR UPDATE"
    text = spec(steps, blocked).replace("  t2:\n    block: false", "  t2:\n    block: true")
    done = schedules(text, dsn)
    assert done.outcome is ReplayOutcome.CONFIRMED, done.runs[-1].performance
    assert done.waits > 5
    assert remains(dsn) == []


@pytest.mark.postgres
def test_schedules_of_statements_that_wait_for_others_end(dsn: str) -> None:
    """CREATE INDEX, REINDEX, DROP INDEX CONCURRENTLY and VACUUM beside writers, readers and a snapshot."""
    prepared = prepare(load(ROOT / "specs" / "concurrently.yaml"))
    done = replay_schedules(prepared, crew(prepared.compilation.system, 3), 40, 1, dsn)
    assert done.outcome is ReplayOutcome.CONFIRMED, done.runs[-1].performance
    assert done.waits > 20 and done.deadlocks == 0
    assert remains(dsn) == []


@pytest.mark.postgres
def test_a_forgotten_wait_is_refuted(dsn: str) -> None:
    """Without the wait for snapshots the model says that CREATE INDEX CONCURRENTLY goes on."""
    text = (ROOT / "specs" / "concurrently.yaml").read_text(encoding="utf-8")
    for wait in ("          - snapshots: EXCLUSIVE      # and for all who have a snapshot\n            until: granted\n",
                 "          - snapshots: EXCLUSIVE\n            until: granted\n"):  # fmt: skip
        assert wait in text
        text = text.replace(wait, "")
    prepared = prepare(parse(text))
    done = replay_schedules(prepared, crew(prepared.compilation.system, 3), 40, 1, dsn)
    assert done.outcome is ReplayOutcome.REFUTED
    assert "where the model says that nobody is in the way" in str(done.runs[-1].performance.difference)


@pytest.mark.postgres
def test_conform_leaves_out_what_a_statement_gives_back(dsn: str) -> None:
    """What CREATE INDEX CONCURRENTLY locked can't be seen when it has ended; the session lock can."""
    found, _ = run_to_the_end(lambda: conform_plain(load(ROOT / "specs" / "real" / "mas-migrations.yaml"), dsn))
    ((line,),) = [one.comparisons[0].lines for one in found]
    assert str(line.planned) == str(line.observed) == "migrations EXCLUSIVE"


@pytest.mark.postgres
def test_sql_that_needs_to_be_alone_is_refused_in_a_block(dsn: str) -> None:
    """One line with the step's place, as before."""
    text = (ROOT / "specs" / "real" / "mas-migrations.yaml").read_text(encoding="utf-8")
    found = parse(text.replace("    block: false", "    block: true"))
    trace = check(found).trace
    assert trace is not None
    with pytest.raises(ReplayError, match="25001 CREATE INDEX CONCURRENTLY cannot run inside a transaction block"):
        replay_trace(prepare(found), trace, dsn)
    assert remains(dsn) == []


HOLDERS = {
    "writer": ("BEGIN", "INSERT INTO p VALUES (1)"),
    "reader": ("BEGIN", "SELECT count(*) FROM p"),
    "snapshot": ("BEGIN ISOLATION LEVEL REPEATABLE READ", "SELECT 1"),
    "between statements": ("BEGIN", "SELECT 1"),
}
WAITS = {
    "CREATE INDEX CONCURRENTLY ON p1 (id)": {"writer", "snapshot"},
    "REINDEX INDEX CONCURRENTLY p1_pkey": {"writer", "reader", "snapshot"},
    "DROP INDEX CONCURRENTLY p1_extra": {"writer", "reader"},
    "ALTER TABLE p DETACH PARTITION p1 CONCURRENTLY": {"writer", "reader"},
    "VACUUM p1": set(),
}
"""For whom a statement waits: the table of docs/language.md, "Waiting for others' end"."""


@pytest.mark.postgres
@pytest.mark.parametrize("holder", HOLDERS)
@pytest.mark.parametrize("statement", WAITS)
def test_for_whom_a_statement_waits(statement: str, holder: str, dsn: str) -> None:
    """On the real server, with pg_blocking_pids; the holder's transaction is idle, and touches a partition or nothing."""
    with psycopg.connect(dsn, autocommit=True) as other, psycopg.connect(dsn, autocommit=True) as monitor:
        monitor.execute("CREATE SCHEMA lockmodel_facts")
        try:
            for one in (monitor, other):
                one.execute("SET search_path TO lockmodel_facts")
            monitor.execute(
                "CREATE TABLE p (id integer PRIMARY KEY) PARTITION BY RANGE (id);"
                "CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);"
                "CREATE INDEX p1_extra ON p1 (id)"
            )
            for sql in HOLDERS[holder]:
                other.execute(sql.encode())
            assert waits_for(statement, other, monitor, dsn) is (holder in WAITS[statement])
        finally:
            other.execute("ROLLBACK")
            monitor.execute("DROP SCHEMA lockmodel_facts CASCADE")


def waits_for(statement: str, other: psycopg.Connection, monitor: psycopg.Connection, dsn: str) -> bool:
    """Whether `statement`, on a connection of its own, is seen waiting for `other` before it ends; then `other` is let go."""
    with psycopg.connect(dsn, autocommit=True) as runner:
        runner.execute("SET search_path TO lockmodel_facts")
        pid = runner.info.backend_pid
        runner.pgconn.send_query(statement.encode())
        end = time.monotonic() + 20
        waits = False
        while runner.pgconn.is_busy() and not waits and time.monotonic() < end:
            (blockers,) = monitor.execute("SELECT pg_blocking_pids(%s)", (pid,)).fetchone() or ([],)
            waits = other.info.backend_pid in blockers
            runner.pgconn.consume_input()
        other.execute("ROLLBACK")
        while result := runner.pgconn.get_result():
            assert result.error_message == b"", result.error_message
        return waits


IMPATIENT = """
name: an impatient index
resources:
  jobs: {kind: table}
  job: {kind: row, table: jobs}
transactions:
  write:
    steps:
      - job: FOR NO KEY UPDATE
        sql: UPDATE jobs SET state = 'done' WHERE id = 1
  create index:
    block: false
    lock_timeout: 200ms
    steps:
      - statement: CREATE INDEX CONCURRENTLY ON jobs (state)
        takes:
          - jobs: SHARE UPDATE EXCLUSIVE
          - jobs: SHARE
            until: granted
schema: |
  CREATE TABLE jobs (id integer PRIMARY KEY, state text);
  INSERT INTO jobs VALUES (1, 'new');
"""


@pytest.mark.postgres
def test_a_lock_timeout_ends_such_a_statement_too(dsn: str) -> None:
    """Set outside of the statement's text, since two statements in one text are a block."""
    done = schedules(IMPATIENT, dsn)
    assert done.outcome is ReplayOutcome.CONFIRMED, done.runs[-1].performance
    timed_out = [c for run in done.runs for c in run.script.commands if c.outcome is Wanted.TIMES_OUT]
    assert timed_out and all(c.shown.startswith("SET lock_timeout = '200ms'; CREATE INDEX") for c in timed_out)
    assert remains(dsn) == []


@pytest.mark.parametrize(("waits", "stalls"), [("", True), ("            until: granted\n", False)])
def test_nobody_waits_behind_who_only_waits(waits: str, stalls: bool) -> None:
    """A request for SHARE holds up the writers that come later; CREATE INDEX CONCURRENTLY does not."""
    text = IMPATIENT.replace("    lock_timeout: 200ms\n", "").replace("            until: granted\n", waits)
    result = check(parse(text + f"no stall: true\nexpect: {'stall' if stalls else 'no deadlock'}\n"))
    assert (result.verdict.outcome is Outcome.VIOLATED) is stalls, result.verdict


@pytest.mark.postgres
@pytest.mark.parametrize(
    ("statement", "queues"), [("CREATE INDEX ON t (id)", True), ("CREATE INDEX CONCURRENTLY ON t (id)", False)]
)
def test_in_postgres_nobody_waits_behind_it(statement: str, queues: bool, dsn: str) -> None:
    """A writer goes on while CREATE INDEX CONCURRENTLY waits for another one; behind CREATE INDEX it waits."""
    with (
        psycopg.connect(dsn, autocommit=True) as monitor,
        psycopg.connect(dsn, autocommit=True) as first,
        psycopg.connect(dsn, autocommit=True) as index,
        psycopg.connect(dsn, autocommit=True) as second,
    ):
        monitor.execute("CREATE SCHEMA lockmodel_facts")
        try:
            for one in (monitor, first, index, second):
                one.execute("SET search_path TO lockmodel_facts")
            monitor.execute("CREATE TABLE t (id integer)")
            first.execute("BEGIN; INSERT INTO t VALUES (1)")
            index.pgconn.send_query(statement.encode())
            while monitor.execute("SELECT pg_blocking_pids(%s)", (index.info.backend_pid,)).fetchone() == ([],):
                index.pgconn.consume_input()
                assert index.pgconn.is_busy()
            second.execute("SET lock_timeout = '300ms'")
            if queues:
                with pytest.raises(psycopg.errors.LockNotAvailable):
                    second.execute("INSERT INTO t VALUES (2)")
            else:
                second.execute("INSERT INTO t VALUES (2)")
        finally:
            first.execute("ROLLBACK")
            while index.pgconn.get_result():
                pass
            monitor.execute("DROP SCHEMA lockmodel_facts CASCADE")
