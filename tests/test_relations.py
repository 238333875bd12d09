"""Statements on relations take the locks that Postgres takes for them, in its order."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from leftovers import remains
from psycopg import AsyncConnection, sql
from relation_cases import CASES, Case
from relation_schemas import random_case

from lockmodel.checker import check
from lockmodel.compiler import Compilation
from lockmodel.errors import SpecError
from lockmodel.modes import KINDS
from lockmodel.parser import parse
from lockmodel.replay.comparison import Taken, runs
from lockmodel.replay.observe import Observer
from lockmodel.replay.plain_conformance import conform_plain
from lockmodel.replay.replayer import Prepared, prepare, run_to_the_end
from lockmodel.replay.sandbox import Sandbox, connect
from lockmodel.report.locks import report
from lockmodel.report.page import Page
from lockmodel.resolver import resolve
from lockmodel.verdict import Outcome

ROOT = Path(__file__).parent.parent


def planned(text: str) -> list[str]:
    """What the one transaction of a spec takes, in order."""
    compilation = Compilation(resolve(parse(text)))
    (run,) = runs(compilation, "t", {})
    return [str(taken) for taken in run.taken]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_statement_takes_its_locks_in_order(case: Case) -> None:
    """As the case has them."""
    assert planned(case.spec)[-len(case.locks) :] == case.locks


@pytest.mark.postgres
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_postgres_takes_the_same_locks(case: Case, dsn: str) -> None:
    """No more and no fewer, of all tables and rows."""
    found, _ = run_to_the_end(lambda: conform_plain(parse(case.spec), dsn))
    for one in found:
        assert one.conforms, one.comparisons[0].lines
    assert remains(dsn) == []


def blocking(lock: Taken, earlier: list[Taken], case: Case) -> str | None:
    """A statement whose lock is in the way of `lock` and of none of `earlier`; None if there is none."""
    spec = parse(case.spec)
    family, _, inside = lock.resource.partition("[")
    resource = spec.resources[family]
    told = resource.stands_for
    assert told is not None
    kind = KINDS[resource.kind]
    table = family if resource.kind == "table" else resource.table
    for mode in kind.modes:
        others = [one.mode for one in earlier if one.resource == lock.resource]
        if not kind.conflict(mode, lock.mode) or any(kind.conflict(mode, other) for other in others):
            continue
        if resource.kind == "table":
            return f"LOCK TABLE ONLY {told.relation} IN {mode} MODE"
        on_table = [one.mode for one in earlier if one.resource == table]
        if any(KINDS["table"].conflict("ROW SHARE", other) for other in on_table):
            return None
        elements = dict(zip(resource.per, inside.rstrip("]").split(", "), strict=True))
        where = " AND ".join(f"{column} = {str(value).format(**elements)}" for column, value in told.row.items())
        return f"SELECT FROM {told.relation} WHERE {where} {mode}"
    return None


@asynccontextmanager
async def schema_of(
    prepared: Prepared, dsn: str
) -> AsyncIterator[tuple[Observer, AsyncConnection[Any], AsyncConnection[Any]]]:
    """A schema with the tables of a spec: who observes it, and two sessions in it."""
    monitor = await connect(dsn, "lockmodel monitor")
    sandbox = Sandbox(monitor)
    schema = await sandbox.create()
    observer = Observer(monitor, schema)
    await observer.set_up()
    worker, other = await connect(dsn, "lockmodel worker"), await connect(dsn, "lockmodel other")
    try:
        for session in (worker, other):
            await session.execute(sql.SQL("SET search_path = {}").format(sql.Identifier(schema)))
        for statement in prepared.setup:
            await worker.execute(statement.sql.encode())
        yield observer, worker, other
    finally:
        pids = [session.info.backend_pid for session in (worker, other)]
        await worker.close()
        await other.close()
        await sandbox.wait_until_gone(pids)
        await sandbox.drop()
        await monitor.close()


async def held_when_it_waits(prepared: Prepared, statements: list[str], blocker: str, dsn: str) -> set[str] | None:
    """What a transaction holds when one of its statements waits for `blocker`'s lock; None if none comes to wait."""
    async with schema_of(prepared, dsn) as (observer, worker, other):
        await worker.execute("BEGIN")
        await other.execute("BEGIN")
        await other.execute(blocker.encode())
        for statement in statements:
            running = asyncio.create_task(worker.execute(statement.encode()))
            while not running.done() and not await observer.blocking_pids(worker.info.backend_pid):
                await asyncio.sleep(0.002)
            if not running.done():
                break
            await running
        else:
            return None
        seen = await observer.held(worker.info.backend_pid, prepared.bindings.row_tables)
        await other.execute("ROLLBACK")
        await running
        taken = (prepared.bindings.taken(lock) for lock in seen)
        return {str(one) for one in taken if one is not None and one.resource in prepared.bindings.told}


def statements_of(case: Case) -> list[str]:
    """The SQL of a case, in order."""
    steps: list[Any] = parse(case.spec).transactions["t"].steps
    names = ("SAVEPOINT", "savepoint"), ("ROLLBACK TO", "rollback_to")
    found = [
        getattr(step, "sql", None) or next(f"{word} {getattr(step, key)}" for word, key in names if hasattr(step, key))
        for step in steps
    ]
    return [*found, "SET CONSTRAINTS ALL IMMEDIATE"] if "DEFERRED" in case.ddl else found


@pytest.mark.postgres
@pytest.mark.parametrize("case", [case for case in CASES if case.ordered], ids=lambda case: case.name)
def test_postgres_takes_them_in_the_same_order(case: Case, dsn: str) -> None:
    """Another session is in the way of one lock after another: then just the locks before it are held."""
    prepared = prepare(parse(case.spec))
    (run,) = runs(prepared.compilation, "t", {})
    locks = list(run.taken)
    blocked = 0
    for number in range(len(locks) - len(case.locks), len(locks)):
        blocker = blocking(locks[number], locks[:number], case)
        if blocker is None:
            continue
        held = asyncio.run(held_when_it_waits(prepared, statements_of(case), blocker, dsn))
        assert held == {str(lock) for lock in locks[:number]}, (str(locks[number]), blocker)
        blocked += 1
    assert blocked
    assert remains(dsn) == []


def agree(plan: Iterable[str], seen: Iterable[str]) -> bool:
    """Whether these are the same locks. Of a row that is locked twice, Postgres shows one mode only."""
    planned, found = set(plan), set(seen)
    rows = [{lock.partition(" FOR ")[0] for lock in locks if " FOR " in lock} for locks in (planned, found)]
    tables = [{lock for lock in locks if " FOR " not in lock} for locks in (planned, found)]
    return rows[0] == rows[1] and tables[0] == tables[1] and found <= planned


@pytest.mark.postgres
def test_random_foreign_keys_and_triggers_lock_as_postgres_does(dsn: str) -> None:
    """Random schemas and statements: all locks, and just those before the one that somebody else has."""
    compared = blocked = 0
    for seed in range(60):
        case = random_case(seed)
        try:
            prepared = prepare(parse(case.spec))
        except SpecError as error:  # A trigger that fires itself; a row that may have been written before.
            assert "without end" in str(error) or "`again: " in str(error)
            continue
        (run,) = runs(prepared.compilation, "t", {})
        ((found,), _) = run_to_the_end(lambda case=case: conform_plain(parse(case.spec), dsn))  # type: ignore[misc]
        seen = [str(lock) for statement in found.comparisons[0].statements for lock in statement.taken]
        locks = [str(lock) for lock in run.taken]
        assert agree(locks, seen), f"seed {seed}\n{case.spec}"
        compared += 1
        number = seed % len(locks)
        if blocker := blocking(run.taken[number], list(run.taken[:number]), case):
            held = asyncio.run(held_when_it_waits(prepared, statements_of(case), blocker, dsn))
            assert held is not None and agree(locks[:number], held), f"seed {seed}: {blocker}\n{case.spec}"
            blocked += 1
    assert compared >= 20 and blocked >= 15
    assert remains(dsn) == []


# What is told without a server


def locks(relations: str, steps: str, resources: str = "", sets: str = "{a: 2, b: [1, 2]}") -> list[str]:
    """What one transaction takes in order; resources `p` per a, `c` per a and b, `d`, and a table `t`."""
    text = (
        f"name: x\nsets: {sets}\nresources:\n"
        "  p: {kind: row, per: [a]}\n  c: {kind: row, per: [a, b]}\n  d: {kind: row}\n  t: {kind: table}\n"
        f"{resources}relations: {relations}\ntransactions: {{t: {{steps: {steps}}}}}\n"
    )
    return planned(text)


CHILD = "{cs: {row: c, foreign keys: [{columns: [a], references: 'p[a]'}]}}"
SHARE = "FOR KEY SHARE"
NO_KEY = "FOR NO KEY UPDATE"


def test_a_row_that_the_transaction_inserted_is_checked_again_when_it_is_updated() -> None:
    """RI_FKey_fk_upd_check_required: the old version is the transaction's own."""
    deferred = CHILD.replace("'}", "', deferred: true}")
    once = locks(CHILD, "[{update: 'c[0, 1]'}]")
    twice = locks(CHILD, "[{update: 'c[0, 1]'}, {update: 'c[0, 1]'}]")
    assert (once, twice) == ([f"c[0, 1] {NO_KEY}"], [f"c[0, 1] {NO_KEY}", f"p[0] {SHARE}"])
    assert locks(CHILD, "[{insert: 'c[1, 1]'}, {update: 'c[1, 1]'}]") == [f"p[1] {SHARE}", f"c[1, 1] {NO_KEY}"]
    assert locks(deferred, "[{update: 'c[0, 1]'}, {update: 'c[0, 1]'}, {update: d}]")[-1] == f"p[0] {SHARE}"


def test_other_rows_are_known_to_be_others() -> None:
    """By their elements, and by the parameter of a loop that comes to each of them once."""
    assert locks(CHILD, "[{update: 'c[0, 1]'}, {update: 'c[0, 2]'}]") == [f"c[0, 1] {NO_KEY}", f"c[0, 2] {NO_KEY}"]
    assert locks(CHILD, "[{for: {i: b}, do: [{update: 'c[1, i]'}]}]") == [f"c[1, 1] {NO_KEY}", f"c[1, 2] {NO_KEY}"]


def test_again_says_what_the_steps_do_not_tell() -> None:
    """In both directions."""
    steps = "[{for: {i: b}, do: [{update: 'c[1, i]'}]}, {update: 'c[1, 1]', again: %s}]"
    assert f"p[1] {SHARE}" in locks(CHILD, steps % "true")
    assert f"p[1] {SHARE}" not in locks(CHILD, steps % "false")


def test_after_branches_a_row_is_written_if_every_one_of_them_did() -> None:
    """One that ends in both has been written for sure."""
    both = "[{either: [[{update: 'c[0, 1]'}], [{update: 'c[0, 1]', columns: [x]}]]}, {update: 'c[0, 1]'}]"
    assert locks(CHILD, both)[-1] == f"p[0] {SHARE}"


def test_without_a_transaction_block_no_row_was_written_before_and_nothing_waits_for_a_commit() -> None:
    """Each statement is a transaction of its own."""
    text = (
        "name: x\nsets: {a: 1, b: [1]}\nresources: {p: {kind: row, per: [a]}, c: {kind: row, per: [a, b]}, d: {kind: row}}\n"
        "relations: {cs: {row: c, foreign keys: [{columns: [a], references: 'p[a]', deferred: true}]}}\n"
        "transactions: {t: {block: false, steps: [{insert: 'c[0, 1]'}, {update: d}, {update: 'c[0, 1]'}]}}\n"
    )
    system = Compilation(resolve(parse(text))).system
    labels = [edge.label for location in system.locations for edge in location.edges if edge.requests]
    assert labels == [f"foreign key: p[0] {SHARE}", f"d {NO_KEY}", f"c[0, 1] {NO_KEY}"]


def test_a_cascade_reaches_the_rows_that_its_pattern_fits() -> None:
    """An argument that is an expression becomes a condition; what is free becomes a loop."""
    shifted = "{cs: {row: c, foreign keys: [{columns: [a], references: 'p[(a + 1) % 2]', on delete: cascade, order: forward}]}}"
    assert set(locks(shifted, "[{delete: 'p[0]'}]")) == {"p[0] FOR UPDATE", "c[1, 1] FOR UPDATE", "c[1, 2] FOR UPDATE"}


def test_a_cascade_into_a_smaller_set_finds_no_rows_for_the_others() -> None:
    """An element of the parent's set that the child's has not is no error."""
    sets = "{a: 2, b: [1, 2], few: [0]}"
    resources = "  e: {kind: row, per: [few]}\n"
    relations = "{es: {row: e, foreign keys: [{columns: [few], references: 'p[few]', on delete: cascade}]}}"
    steps = "[{for: {i: a}, do: [{delete: 'p[i]'}]}]"
    assert locks(relations, steps, resources, sets) == ["p[0] FOR UPDATE", "e[0] FOR UPDATE", "p[1] FOR UPDATE"]


def test_names_in_a_trigger_are_never_mixed_up_with_those_of_the_transaction() -> None:
    """A loop there may have the name of a parameter here, which the row's own name stands for."""
    relations = "{ps: {row: p, triggers: {t: {after: update, do: [{for: {i: b}, do: [{update: 'c[a, i]'}]}]}}}}"
    expected = [f"p[1] {NO_KEY}", f"c[1, 1] {NO_KEY}", f"c[1, 2] {NO_KEY}"]
    assert locks(relations, "[{update: 'p[i]'}], choose: {i: one}", sets="{a: 2, b: [1, 2], one: [1]}") == expected


def test_a_cascade_leaves_the_names_of_the_transaction_alone() -> None:
    """Its loops have names of their own, also inside a trigger with a loop of that name."""
    cascade = "cs: {row: c, foreign keys: [{columns: [a], references: 'p[a]', on delete: cascade, order: forward}]}"
    gone = ["p[1] FOR UPDATE", "c[1, 1] FOR UPDATE", "c[1, 2] FOR UPDATE"]
    steps = "[{delete: 'p[1]'}, {update: 'c[0, b]'}], choose: {b: one}"
    assert locks(f"{{{cascade}}}", steps, sets="{a: 2, b: [1, 2], one: [1]}") == [*gone, f"c[0, 1] {NO_KEY}"]
    loop = "{for: {b: one}, do: [{delete: 'p[1]'}, {update: 'c[0, b]'}]}"
    trigger = f"ds: {{row: d, triggers: {{t: {{after: update, do: [{loop}]}}}}}}"
    expected = [f"d {NO_KEY}", *gone, f"c[0, 1] {NO_KEY}"]
    assert locks(f"{{{cascade}, {trigger}}}", "[{update: d}]", sets="{a: 2, b: [1, 2], one: [1]}") == expected


def test_a_value_may_be_an_expression_of_the_transaction() -> None:
    """And a trigger may decide by it."""
    relations = (
        "{ms: {values: {who: a}, foreign keys: [{columns: [x], references: 'p[who]'}],"
        " triggers: {t: {after: insert, do: [{if: who == 1, then: [{update: d}]}]}}}}"
    )
    steps = "[{insert: ms, values: {who: '(i + 1) % 2'}}], choose: {i: one}"
    assert locks(relations, steps, sets="{a: 2, b: 2, one: [0]}") == [f"p[1] {SHARE}", f"d {NO_KEY}"]
    assert locks(relations, steps, sets="{a: 2, b: 2, one: [1]}") == [f"p[0] {SHARE}"]


def test_what_is_deferred_in_a_loop_comes_in_its_order_at_the_commit() -> None:
    """Also at a commit that is a step."""
    relations = CHILD.replace("'}", "', deferred: true}").replace("row: c", "row: c, table: t")
    steps = "[{for: {i: a}, order: reverse, do: [{insert: 'c[i, 1]'}]}, {update: d}%s]"
    for end in ("", ", commit"):
        assert locks(relations, steps % end) == ["t ROW EXCLUSIVE", f"d {NO_KEY}", f"p[1] {SHARE}", f"p[0] {SHARE}"]
    assert locks(relations, steps % ", rollback") == ["t ROW EXCLUSIVE", f"d {NO_KEY}"]


def test_a_unique_key_is_taken_by_every_insert_and_the_row_by_an_upsert_of_one_that_is_there() -> None:
    """Kind key, which nobody sees in Postgres's tables."""
    relations = "{ps: {row: p, unique: ['k[a]']}}"
    resources = "  k: {kind: key, per: [a]}\n"
    assert locks(relations, "[{insert: 'p[1]'}]", resources) == ["k[1] INSERT"]
    assert locks(relations, "[{insert: 'p[1]', on conflict: do nothing}]", resources) == ["k[1] INSERT"]
    upsert = "[{insert: 'p[1]', on conflict: do update, exists: %s}]"
    assert locks(relations, upsert % "true", resources) == ["k[1] INSERT", f"p[1] {NO_KEY}"]
    assert locks(relations, upsert % "false", resources) == ["k[1] INSERT"]


def test_a_foreign_key_is_part_of_a_proof_for_sets_of_any_size() -> None:
    """Expanded are steps with parameters, not elements."""
    text = (
        "name: x\nsets: {a: 1000}\nresources: {p: {kind: row, per: [a]}, u: {kind: row, per: [a]}}\n"
        "relations: {m: {values: {who: a}, foreign keys: [{columns: [x], references: 'p[who]'}],"
        " triggers: {u: {after: insert, do: [{update: 'u[who]'}]}}}}\n"
        "transactions: {send: {choose: {i: a}, steps: [{insert: m, values: {who: i}}, {select: 'p[i]', for: NO KEY UPDATE}]}}\n"
    )
    result = check(parse(text))
    assert result.verdict.outcome is Outcome.HOLDS
    assert result.verdict.scope.startswith("any number")


def test_lock_timeouts_are_those_of_the_transaction_and_of_steps_in_a_trigger() -> None:
    """Both give the locks of a statement a way out, so that nobody is in a deadlock."""
    text = (
        "name: x\nresources: {{p: {{kind: row}}, u: {{kind: row}}}}\n"
        "relations: {{ps: {{row: p, triggers: {{t: {{after: update, do: [{{u: FOR UPDATE{step}}}]}}}}}}}}\n"
        "transactions: {{there: {{steps: [{{update: p}}]{transaction}}}, back: {{steps: [{{u: FOR UPDATE}}, {{p: FOR UPDATE}}]}}}}\n"
    )
    assert check(parse(text.format(step="", transaction=""))).verdict.outcome is Outcome.VIOLATED
    for step, transaction in ((", lock_timeout: 100ms", ""), ("", ", lock_timeout: 100ms")):
        assert check(parse(text.format(step=step, transaction=transaction))).verdict.outcome is not Outcome.VIOLATED


def test_a_trace_says_why_a_lock_is_taken() -> None:
    """Foreign key and trigger, or the label of the statement."""
    relations = "{cs: {row: c, foreign keys: [{columns: [a], references: 'p[a]'}], triggers: {'{t}': {after: [insert, update], do: [{update: d}]}}}}"
    text = (
        "name: x\nsets: {a: 1, b: [1]}\nresources: {p: {kind: row, per: [a]}, c: {kind: row, per: [a, b]}, d: {kind: row}}\n"
        f"relations: {relations}\ntransactions: {{t: {{steps: [{{update: 'c[0, 1]', columns: [a], label: 'the {{s}}'}}], choose: {{s: b}}}}}}\n"
    )
    system = Compilation(resolve(parse(text))).system
    labels = [edge.label for location in system.locations for edge in location.edges if edge.requests]
    assert labels == [
        "the 1: c[0, 1] FOR NO KEY UPDATE",
        "foreign key: p[0] FOR KEY SHARE",
        "trigger {t}: d FOR NO KEY UPDATE",
    ]


def test_lockmodel_locks_prints_statements_with_their_locks() -> None:
    """With a reason for each that foreign keys and triggers add."""
    command = [sys.executable, "-m", "lockmodel", "locks", "specs/real/e2a-sends.yaml", "nowhere.yaml"]
    answer = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert answer.returncode == 2
    assert answer.stderr == "nowhere.yaml: No such file or directory\n"
    lines = [line.split() for line in answer.stdout.splitlines() if "FOR" in line]
    assert lines[0] == ["agent", "FOR", "KEY", "SHARE", "foreign", "key"]
    assert lines[1] == ["usage", "FOR", "NO", "KEY", "UPDATE", "trigger", "usage"]


def test_lockmodel_locks_prints_every_kind_of_step() -> None:
    """Loops, branches, refusals, conditions; a statement without SQL as the file has it."""
    text = """\
name: x
sets: {a: 2}
variables: {v: {values: 2}}
resources: {p: {kind: row, per: [a], table: t}, t: {kind: table}, s: {kind: advisory, scope: session}}
transactions:
  t:
    let: {x: 0}
    steps:
      - for: {i: a}
        order: any
        do: [update: "p[i]"]
      - either: [[{t: SHARE}], []]
      - s: EXCLUSIVE TRY
        then: [release: s]
        else: [rollback]
      - if: v == 0
        then: [set: {x: 1}]
        else: [commit]
      - savepoint: here
      - rollback to: here
"""
    spec = parse(text)
    assert (
        report("x.yaml", spec, resolve(spec), Page())
        == """\
x.yaml

  t
    for i in a, in any order:
      do: [update: "p[i]"]
        t ROW EXCLUSIVE
        p[i] FOR NO KEY UPDATE
    either:
      t SHARE
    or:
      nothing
    s EXCLUSIVE TRY
      release s
    else:
      rollback
    if v == 0:
      set x = 1
    else:
      commit
    savepoint here
    rollback to here
"""
    )
