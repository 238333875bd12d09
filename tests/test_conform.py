"""Specs against real code: `lockmodel conform` compares their locks, `lockmodel replay` runs a deadlock on the code itself."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from leftovers import remains

from lockmodel.checker import check
from lockmodel.compiler import Compilation
from lockmodel.errors import LockmodelError, ReplayError, SpecError, UsageError
from lockmodel.parser import parse
from lockmodel.replay.code import CodeReplay, replay_code
from lockmodel.replay.comparison import ROW_MODES, Comparison, Observed, Relation, Run, Taken, compare
from lockmodel.replay.conformance import Conformance, conform
from lockmodel.replay.plain_conformance import conform_plain
from lockmodel.replay.replayer import run_to_the_end
from lockmodel.report.conform import proposal
from lockmodel.resolver import resolve

HERE = Path(__file__).parent

BANK = """
name: bank
sets: {account: 2}
resources:
  account: {kind: row, per: [account], stands for: {relation: account, row: {id: "{account}"}}}
  audit: {kind: table, stands for: {relation: audit}}
  books: {kind: advisory, stands for: {key: "42"}}
transactions:
  transfer:
    choose: {a: account}
    call: {operation: transfer, arguments: {source: "{a}", target: 1}}
    steps:
      - account[a]: FOR NO KEY UPDATE
      - account[1]: FOR NO KEY UPDATE
      - audit: ROW EXCLUSIVE
  close books:
    call: {operation: close_books}
    steps:
      - either:
          - - books: EXCLUSIVE
            - account[0]: FOR SHARE
            - account[1]: FOR SHARE
          - - audit: ACCESS EXCLUSIVE
workers: 2
replay: {target: "bank:Bank"}
"""

TRANSFERS = """
name: two transfers
sets: {account: 2}
resources:
  account: {kind: row, per: [account], stands for: {relation: account, row: {id: "{account}"}}}
  audit: {kind: table, stands for: {relation: audit}}
transactions:
  up:
    call: {operation: transfer, arguments: {source: 0, target: 1}}
    steps:
      - account[0]: FOR NO KEY UPDATE
      - account[1]: FOR NO KEY UPDATE
      - audit: ROW EXCLUSIVE
  down:
    call: {operation: transfer, arguments: {source: 1, target: 0}}
    steps:
      - account[1]: FOR NO KEY UPDATE
      - account[0]: FOR NO KEY UPDATE
      - audit: ROW EXCLUSIVE
workers: 2
expect: deadlock
replay: {target: "bank:Bank", options: {ordered: false}}
"""


def taken(*words: str) -> tuple[Taken, ...]:
    return tuple(Taken(*word.split(" ", 1)) for word in words)


def observed(*statements: list[str]) -> list[Observed]:
    return [Observed(f"statement {n}", frozenset(taken(*words))) for n, words in enumerate(statements, 1)]


PLAN = Run("t", taken("a X", "b X", "c S"))


def relations(*statements: list[str]) -> list[str]:
    return [str(line.relation) for line in compare([PLAN], observed(*statements)).lines]


def test_locks_of_one_statement_have_no_order_among_themselves() -> None:
    """What one UPDATE locks may be planned in any order; what two statements lock may not."""
    assert compare([PLAN], observed(["b X", "a X"], ["c S"])).conforms
    assert not compare([PLAN], observed(["b X"], ["a X"], ["c S"])).conforms


def test_each_kind_of_difference_is_named() -> None:
    """Missing in the model, not seen in reality, other mode, other order."""
    assert relations(["a X"], ["b X"], ["d X"], ["c S"]).count(Relation.MISSING) == 1
    assert relations(["a X"], ["c S"]).count(Relation.UNSEEN) == 1
    assert relations(["a X"], ["b S"], ["c S"]).count(Relation.OTHER_MODE) == 1
    assert Relation.OTHER_ORDER in relations(["b X"], ["a X"], ["c S"])


def test_the_closest_way_is_shown_where_none_fits() -> None:
    """Of two branches, the one that has more in common."""
    other = Run("u", taken("x X"))
    found = compare([other, PLAN], observed(["a X"], ["b X"]))
    assert found.run == PLAN and not found.conforms


def conformed(text: str, dsn: str) -> tuple[Conformance, ...]:
    return asyncio.run(conform(parse(text), dsn))[0]


@pytest.fixture(autouse=True)
def bank_is_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The target is found from the current folder, as a user's own package is."""
    monkeypatch.chdir(HERE)


@pytest.mark.postgres
def test_a_spec_that_says_what_the_code_locks_conforms(dsn: str) -> None:
    """Rows, tables and advisory locks; each call with each parameter; each database transaction of a call."""
    found = conformed(BANK, dsn)
    assert [(one.transaction, dict(one.arguments), len(one.comparisons)) for one in found] == [
        ("transfer", {"a": 0}, 1),
        ("transfer", {"a": 1}, 1),
        ("close books", {}, 2),
    ]
    assert all(one.conforms for one in found)
    assert remains(dsn) == []


@pytest.mark.postgres
@pytest.mark.parametrize(
    ("old", "new", "relation"),
    [
        ("      - audit: ROW EXCLUSIVE\n", "", Relation.MISSING),
        ("      - account[1]: FOR NO KEY UPDATE\n", "      - account[1]: FOR UPDATE\n", Relation.OTHER_MODE),
        ("      - audit: ROW EXCLUSIVE\n", "      - audit: ROW EXCLUSIVE\n      - books: SHARED\n", Relation.UNSEEN),
        (
            "      - account[a]: FOR NO KEY UPDATE\n      - account[1]: FOR NO KEY UPDATE\n",
            "      - account[1]: FOR NO KEY UPDATE\n      - account[a]: FOR NO KEY UPDATE\n",
            Relation.OTHER_ORDER,
        ),
    ],
)
def test_a_spec_that_drifts_from_the_code_is_told_where(old: str, new: str, relation: Relation, dsn: str) -> None:
    """And `--write` proposes steps that agree."""
    assert old in BANK
    text = BANK.replace(old, new)
    found = conformed(text, dsn)
    assert relation in [line.relation for one in found for comparison in one.comparisons for line in comparison.lines]
    steps = proposal(found)
    assert "account[a]: FOR NO KEY UPDATE" in steps or "account[1]: FOR NO KEY UPDATE" in steps


@pytest.mark.postgres
def test_a_table_that_the_spec_leaves_out_is_missing_unless_ignored(dsn: str) -> None:
    """What is left out on purpose is said so in the spec."""
    text = (
        BANK.replace("  audit: {kind: table, stands for: {relation: audit}}\n", "")
        .replace("      - audit: ROW EXCLUSIVE\n", "")
        .replace("          - - audit: ACCESS EXCLUSIVE\n", "")
    )
    lines = [line for one in conformed(text, dsn) for comparison in one.comparisons for line in comparison.lines]
    assert "table audit ROW EXCLUSIVE" in [str(line.observed) for line in lines]
    ignoring = text.replace('"bank:Bank"', '"bank:Bank", ignore: [aud*]')
    assert all(one.conforms for one in conformed(ignoring, dsn))


def replayed(text: str, dsn: str) -> CodeReplay:
    spec = parse(text)
    trace = check(spec).trace
    assert trace is not None
    return asyncio.run(replay_code(spec, Compilation(resolve(spec)), trace, dsn))


@pytest.mark.postgres
def test_a_deadlock_is_confirmed_on_the_unmodified_code(dsn: str) -> None:
    """Two transfers in opposite directions, stopped where the trace needs them."""
    done = replayed(TRANSFERS, dsn)
    assert done.difference is None
    assert done.deadlock is not None and done.deadlock.workers == {0, 1}
    assert remains(dsn) == []


@pytest.mark.postgres
def test_the_fix_in_the_code_refutes_the_old_trace(dsn: str) -> None:
    """With the accounts in one order, the second transfer never holds what the trace says."""
    done = replayed(TRANSFERS.replace("ordered: false", "ordered: true"), dsn)
    assert done.deadlock is None
    assert done.difference is not None and "without account[1]" in done.difference


@pytest.mark.postgres
def test_a_statement_that_takes_two_locks_of_the_trace_is_sent_last(dsn: str) -> None:
    """One SELECT … FOR SHARE takes both rows; it gets the first and waits for the second, which closes the cycle."""
    text = """
name: look and pay
sets: {account: 2}
resources:
  account: {kind: row, per: [account], stands for: {relation: account, row: {id: "{account}"}}}
  audit: {kind: table, stands for: {relation: audit}}
  books: {kind: advisory, stands for: {key: "42"}}
transactions:
  look:
    call: {operation: close_books}
    steps: [{books: EXCLUSIVE}, {"account[0]": FOR SHARE}, {"account[1]": FOR SHARE}]
  down:
    call: {operation: transfer, arguments: {source: 1, target: 0}}
    steps: [{"account[1]": FOR NO KEY UPDATE}, {"account[0]": FOR NO KEY UPDATE}, {audit: ROW EXCLUSIVE}]
workers: 2
expect: deadlock
replay: {target: "bank:Bank"}
"""
    done = replayed(text, dsn)
    assert done.difference is None
    assert done.deadlock is not None and done.deadlock.workers == {0, 1}


CROSSED = """
name: changes crossed
sets: {account: 2}
resources:
  account: {kind: row, per: [account], stands for: {relation: account, row: {id: "{account}"}}}
  change: {kind: lock, per: [account], stands for: {relation: account, row: {id: "{account}"}}}
transactions:
  up:
    call: {operation: change_and_note, arguments: {first: 0, second: 1}}
    steps: [{"account[0]": FOR NO KEY UPDATE}, {"change[0]": EXCLUSIVE}, {"change[1]": SHARED}]
  down:
    call: {operation: change_and_note, arguments: {first: 1, second: 0}}
    steps: [{"account[1]": FOR NO KEY UPDATE}, {"change[1]": EXCLUSIVE}, {"change[0]": SHARED}]
  look:
    call: {operation: look_twice}
    steps: [{"account[0]": FOR UPDATE}, {savepoint: inner}, {"account[1]": FOR UPDATE}]
workers: 2
expect: {deadlock: {between: [up, down], on: [change]}}
replay: {target: "bank:Bank"}
"""


@pytest.mark.postgres
def test_the_change_of_a_row_is_told_from_a_lock_on_it(dsn: str) -> None:
    """`change` is seen where a row was updated, not where it was only locked; who waits for a change takes nothing by it."""
    assert all(one.conforms for one in conformed(CROSSED, dsn))
    locking = CROSSED.replace('{"account[1]": FOR UPDATE}]', '{"account[1]": FOR UPDATE}, {"change[1]": EXCLUSIVE}]')
    [look] = [one for one in conformed(locking, dsn) if not one.conforms]
    assert look.transaction == "look"
    assert [str(line.planned) for line in look.comparisons[0].lines if line.relation is Relation.UNSEEN] == [
        "change[1] EXCLUSIVE"
    ]


@pytest.mark.postgres
def test_a_deadlock_of_inserts_that_wait_for_changes_is_confirmed(dsn: str) -> None:
    """INSERT … ON CONFLICT DO NOTHING holds nothing, but waits; a lock of the row alone would not keep it."""
    done = replayed(CROSSED, dsn)
    assert done.difference is None
    assert done.deadlock is not None and done.deadlock.workers == {0, 1}


def sides(done: CodeReplay) -> dict[str, list[tuple[str, str]]]:
    """For each worker, what differs: the model's side, and Postgres's."""
    return {one.worker: [(line.model, line.postgres) for line in one.lines if line.differs] for one in done.sides}


@pytest.mark.postgres
def test_both_sides_locks_are_shown_where_a_rehearsal_parts(dsn: str) -> None:
    """The fixed transfer, run alone, holds account 0 and then 1; the trace has it hold 1 alone."""
    done = replayed(TRANSFERS.replace("ordered: false", "ordered: true"), dsn)
    assert sides(done) == {
        "worker 2": [
            ("holds account[1] FOR NO KEY UPDATE", ""),
            ("", "holds account[0] FOR NO KEY UPDATE"),
        ]
    }
    assert done.steps[-1].statement.startswith("UPDATE") and done.steps[-1].worker == 1


@pytest.mark.postgres
def test_both_sides_locks_are_shown_where_the_cycle_does_not_close(dsn: str) -> None:
    """The trace has the second worker wait for a row that the first one only locks; its INSERT does not, and it commits."""
    text = """
name: look and look
sets: {account: 2}
resources:
  account: {kind: row, per: [account], stands for: {relation: account, row: {id: "{account}"}}}
  change: {kind: lock, per: [account], stands for: {relation: account, row: {id: "{account}"}}}
transactions:
  look:
    call: {operation: look_twice}
    steps: [{"account[0]": FOR UPDATE}, {"account[1]": FOR UPDATE}]
  note:
    call: {operation: change_and_note, arguments: {first: 1, second: 0}}
    steps: [{"account[1]": FOR NO KEY UPDATE}, {"account[0]": FOR UPDATE}]
workers: 2
expect: deadlock
replay: {target: "bank:Bank"}
"""
    done = replayed(text, dsn)
    assert done.difference == "worker 2 goes on to its end without waiting for account[0] FOR UPDATE"
    assert sides(done)["worker 2"] == [
        ("holds account[1] FOR NO KEY UPDATE", ""),
        ("waits for account[0] FOR UPDATE, held by worker 1", "does not wait"),
    ]
    [equal] = [line for line in done.sides[0].lines if not line.differs and line.model]
    assert (equal.model, equal.postgres) == ("holds account[0] FOR UPDATE", "holds account[0] FOR UPDATE")
    assert remains(dsn) == []


ONE_STATEMENT = """
name: look and look
sets: {account: 2}
resources:
  account: {kind: row, per: [account], stands for: {relation: account, row: {id: "{account}"}}}
transactions:
  rising:
    call: {operation: look_at_all}
    steps: [{"account[0]": FOR UPDATE}, {"account[1]": FOR UPDATE}]
  falling:
    call: {operation: look_at_all, arguments: {falling: true}}
    steps: [{"account[1]": FOR UPDATE}, {"account[0]": FOR UPDATE}]
workers: 2
expect: deadlock
replay: {target: "bank:Bank"}
"""


@pytest.mark.postgres
def test_two_statements_that_would_have_to_be_halfway_through_are_not_realizable(dsn: str, tmp_path: Path) -> None:
    """Each takes both locks at once, so neither can be stopped between them; the exit code is that of an open question."""
    done = replayed(ONE_STATEMENT, dsn)
    assert not done.realizable and done.deadlock is None
    assert done.difference == "worker 1 and worker 2 must each be halfway through a statement before the other is sent"
    (tmp_path / "look.yaml").write_text(ONE_STATEMENT)
    words = [sys.executable, "-m", "lockmodel", "replay", str(tmp_path / "look.yaml"), "--dsn", dsn]
    printed = subprocess.run(words, cwd=HERE, capture_output=True, text=True, timeout=60)
    assert printed.returncode == 3 and "NOT REALIZABLE" in " ".join(printed.stdout.split())
    assert remains(dsn) == []


@pytest.mark.parametrize(
    ("old", "new", "kind", "said"),
    [
        ('"bank:Bank"', '"bank"', SpecError, "write package.module:name"),
        ('"bank:Bank"', '"nowhere:Bank"', ReplayError, "No module named"),
        ('"bank:Bank"', '"bank:Nobody"', ReplayError, "Nobody"),
        ('"bank:Bank"', '"bank:Bank", options: {colour: red}', ReplayError, "colour"),
        ("operation: close_books", "operation: close_book", SpecError, "did you mean close_books"),
        ("operation: close_books", "operation: _table", SpecError, "no operation"),
        ("operation: close_books", "operation: broken", ReplayError, "DivisionByZero"),
        (", stands for: {relation: audit}", "", SpecError, "does not say what it is in the database"),
        ('row: {id: "{account}"}', "row: {}", SpecError, "tell its key"),
        ("relation: account,", "relation: acount,", SpecError, ":5: there is no table 'acount' in the schema"),
        ("row: {id: ", "row: {ident: ", SpecError, ":5: 'ident' is no column of the primary key of account"),
        ("account, row: {id: ", "audit, row: {note: ", SpecError, ":5: the rows of audit have no primary key"),
        ('source: "{a}"', 'source: "{b}"', SpecError, "no parameter"),
        ("replay: ", "# ", UsageError, "needs `replay:"),
    ],
)
@pytest.mark.postgres
def test_what_is_wrong_with_a_target_is_one_line(
    old: str, new: str, kind: type[LockmodelError], said: str, dsn: str
) -> None:
    """The spec's line where it is the spec's fault, the code's own error where it is the code's."""
    assert old in BANK
    with pytest.raises(kind, match=said) as caught:
        conformed(BANK.replace(old, new), dsn)
    assert "\n" not in str(caught.value)
    assert remains(dsn) == []


@pytest.mark.postgres
def test_conform_and_replay_from_the_command_line(dsn: str, tmp_path: Path) -> None:
    """Exit code 0 if the locks agree, 1 with the steps proposed if not; the replay runs the code."""
    path = tmp_path / "bank.yaml"

    def run(command: str, text: str, *more: str) -> subprocess.CompletedProcess[str]:
        path.write_text(text)
        words = [sys.executable, "-m", "lockmodel", command, str(path), "--dsn", dsn, *more]
        return subprocess.run(words, cwd=HERE, capture_output=True, text=True, timeout=60)

    good = run("conform", BANK)
    assert (good.returncode, good.stderr) == (0, "") and "CONFORMS" in good.stdout
    drift = run("conform", BANK.replace("audit: ACCESS EXCLUSIVE", "audit: EXCLUSIVE"), "--write")
    assert drift.returncode == 1 and "DRIFT" in drift.stdout and "- audit: ACCESS EXCLUSIVE" in drift.stdout
    confirmed = run("replay", TRANSFERS)
    assert (confirmed.returncode, confirmed.stderr) == (0, "")
    assert "40P01" in confirmed.stdout and 'UPDATE "account" SET' in confirmed.stdout
    refuted = run("replay", TRANSFERS.replace("ordered: false", "ordered: true"))
    assert refuted.returncode == 1 and "Each worker's locks at that step (!: here they differ):" in refuted.stdout
    printed = good.stdout + drift.stdout + confirmed.stdout + refuted.stdout
    assert all(len(line) <= 80 for line in printed.splitlines() if not line.startswith(str(path)))
    assert "│\n" not in good.stdout


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('  change: {kind: lock, per: [account], stands for: {relation: account, row: {id: "{account}"}}}',
         "  change: {kind: lock, per: [account]}", "change does not say what it is in the database"),
        ('  change: {kind: lock, per: [account], stands for: {relation: account, row: {id: "{account}"}}}',
         "  change: {kind: lock, per: [account], stands for: {relation: account}}", "change is the change of a row; tell its key"),
    ],
)  # fmt: skip
def test_a_lock_must_say_which_rows_change_it_stands_for(old: str, new: str, said: str) -> None:
    """One line, with the line of the spec, before anything is connected to."""
    assert old in CROSSED
    with pytest.raises(SpecError, match=said) as caught:
        conformed(CROSSED.replace(old, new), "host=/nowhere")
    assert "\n" not in str(caught.value)


# Specs whose steps are SQL


JOBS = """
name: jobs
sets: {job: 2}
resources:
  job: {kind: row, per: [job], table: jobs, stands for: {relation: jobs, row: {id: "{job}"}}}
  jobs: {kind: table, stands for: {relation: jobs}}
transactions:
  t:
    steps:
STEPS
schema: |
  CREATE TABLE jobs (id int PRIMARY KEY, state int DEFAULT 0, parent int REFERENCES jobs);
  INSERT INTO jobs SELECT generate_series(0, 99);
"""
LOCKS = {mode: f"SELECT FROM jobs WHERE id = 0 {mode}" for mode in ROW_MODES}
"""For each row mode, a statement that takes it."""


def jobs(*steps: str) -> str:
    """A spec with these steps: `mode: sql` on job 0, or whole ones."""
    lines = [f"job[0]: {step}" if step.startswith("FOR ") else step for step in steps]
    return JOBS.replace("STEPS", "\n".join(f"      - {line}".replace("; sql", "\n        sql") for line in lines))


def sql_conformed(text: str, dsn: str) -> tuple[Conformance, ...]:
    found, _ = run_to_the_end(lambda: conform_plain(parse(text), dsn))
    assert remains(dsn) == []
    return found


def rows(comparison: Comparison) -> list[str]:
    """What is told of the row, each line."""
    lines = [line for line in comparison.lines if "FOR" in str(line.planned or line.observed)]
    return [f"{line.planned or line.observed}: {line.relation} {line.statement or ''}".strip() for line in lines]


@pytest.mark.postgres
@pytest.mark.parametrize("savepoint", [False, True])
@pytest.mark.parametrize("second", ROW_MODES)
@pytest.mark.parametrize("first", ROW_MODES)
def test_of_a_row_only_a_stronger_mode_is_seen_anew(first: str, second: str, savepoint: bool, dsn: str) -> None:
    """Whatever a transaction locks a row in, and then again, also from within a savepoint, agrees with what is seen."""
    between = ["savepoint: inner"] if savepoint else []
    found = sql_conformed(jobs(f"{first}; sql: {LOCKS[first]}", *between, f"{second}; sql: {LOCKS[second]}"), dsn)
    assert [one.conforms for one in found] == [True]
    held = [f"job[0] {first}: equal 1"]
    if first != second:
        stronger = ROW_MODES.index(second) > ROW_MODES.index(first)
        held.append(f"job[0] {second}: equal 2" if stronger else f"job[0] {second}: held already")
    assert rows(found[0].comparisons[0]) == held


@pytest.mark.postgres
def test_an_update_of_a_locked_row_by_a_savepoint_is_no_new_lock(dsn: str) -> None:
    """pgrowlocks shows it in its own, weaker mode, beside the one of the transaction around it."""
    update = "FOR NO KEY UPDATE; sql: UPDATE jobs SET state = 1 WHERE id = 0"
    (found,) = sql_conformed(jobs(f"FOR UPDATE; sql: {LOCKS['FOR UPDATE']}", "savepoint: inner", update), dsn)
    assert found.conforms


@pytest.mark.postgres
def test_what_a_savepoint_gave_back_is_seen_when_taken_again(dsn: str) -> None:
    """First it was covered by the stronger lock, which has gone."""
    share = f"FOR SHARE; sql: {LOCKS['FOR SHARE']}"
    steps = ["savepoint: a", f"FOR UPDATE; sql: {LOCKS['FOR UPDATE']}", share, "rollback to: a", share]
    (found,) = sql_conformed(jobs(*steps), dsn)
    assert found.conforms and rows(found.comparisons[0]) == ["job[0] FOR UPDATE: equal 1", "job[0] FOR SHARE: equal 3"]


@pytest.mark.postgres
@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        # The SELECT is too strong in the spec, the row is not locked by it at all, and the second is stronger really.
        ("FOR UPDATE; sql: SELECT FROM jobs WHERE id = 0 FOR NO KEY UPDATE",
         "FOR NO KEY UPDATE; sql: UPDATE jobs SET state = 1 WHERE id = 0",
         ["job[0] FOR UPDATE: other mode 1", "job[0] FOR NO KEY UPDATE: other order"]),
        ("FOR UPDATE; sql: SELECT FROM jobs WHERE id = 0",
         "FOR NO KEY UPDATE; sql: UPDATE jobs SET state = 1 WHERE id = 7",
         ["job[0] FOR UPDATE: not seen in reality", "job[0] FOR NO KEY UPDATE: not seen in reality"]),
        ("FOR NO KEY UPDATE; sql: SELECT FROM jobs WHERE id = 0 FOR NO KEY UPDATE",
         "FOR SHARE; sql: DELETE FROM jobs WHERE id = 0",
         ["job[0] FOR NO KEY UPDATE: equal 1", "job[0] FOR SHARE: held already",
          "job[0] FOR UPDATE: missing in the model 2"]),
        ("FOR KEY SHARE; sql: SELECT FROM jobs WHERE id = 0 FOR UPDATE",
         "FOR UPDATE; sql: SELECT FROM jobs WHERE id = 0 FOR UPDATE",
         ["job[0] FOR KEY SHARE: not seen in reality", "job[0] FOR UPDATE: equal 1"]),
    ],
)  # fmt: skip
def test_drift_of_a_row_that_is_locked_twice_is_found(first: str, second: str, told: list[str], dsn: str) -> None:
    """What is covered in the spec only is no excuse."""
    (found,) = sql_conformed(jobs(first, second), dsn)
    assert not found.conforms and rows(found.comparisons[0]) == told


@pytest.mark.postgres
def test_the_steps_proposed_keep_what_could_not_be_seen(dsn: str) -> None:
    """Another step differs; the UPDATE of the locked row is right."""
    update = "FOR NO KEY UPDATE; sql: UPDATE jobs SET state = 1 WHERE id = 0"
    found = sql_conformed(
        jobs(f"FOR UPDATE; sql: {LOCKS['FOR UPDATE']}", update, "job[1]: FOR SHARE; sql: SELECT 1 FROM jobs"), dsn
    )
    steps = proposal(found)
    assert "- job[0]: FOR UPDATE\n" in steps and "- job[0]: FOR NO KEY UPDATE\n" in steps and "job[1]" not in steps


@pytest.mark.postgres
def test_by_is_the_statements_own_number(dsn: str) -> None:
    """Statements that take nothing new are counted; savepoints are not."""
    lock = "job[{}]: FOR UPDATE; sql: SELECT FROM jobs WHERE id = {} FOR UPDATE"
    steps = [lock.format(0, 0), "savepoint: a", lock.format(0, 0), lock.format(1, 1)]
    (found,) = sql_conformed(jobs(*steps), dsn)
    assert rows(found.comparisons[0]) == ["job[0] FOR UPDATE: equal 1", "job[1] FOR UPDATE: equal 3"]


ANY_ORDER = """update: job[j]
        rows: {j: job}
        order: any
        sql: UPDATE jobs SET state = 1 WHERE id < 6"""


@pytest.mark.postgres
def test_one_statement_is_run_once_whatever_the_order_of_its_rows(dsn: str) -> None:
    """Six rows have 720 orders."""
    (found,) = sql_conformed(jobs(ANY_ORDER).replace("job: 2", "job: 6"), dsn)
    assert found.conforms and len(found.comparisons[0].lines) == 7
    assert found.ways is not None and found.ways.all


@pytest.mark.postgres
def test_a_branch_is_not_left_out_for_the_orders_of_another(dsn: str) -> None:
    """Its statement locks what the spec does not say; or it sends another statement for the same lock."""
    branch = """either:
          - - job[0]: FOR UPDATE
              sql: SELECT FROM jobs WHERE id = 0 FOR UPDATE
          - - job[0]: FOR UPDATE
              sql: SELECT FROM jobs WHERE id = 1 FOR UPDATE"""
    for more in ([], [ANY_ORDER]):
        found = sql_conformed(jobs(branch, *more).replace("job: 2", "job: 6"), dsn)
        assert [one.conforms for one in found] == [True, False]


@pytest.mark.postgres
def test_ways_with_the_same_statements_are_compared_with_what_comes_of_them(dsn: str) -> None:
    """Which job the one statement finds is Postgres's choice; the spec leaves it open."""
    text = jobs("job[j]: FOR UPDATE SKIP LOCKED; sql: SELECT FROM jobs WHERE id < 2 LIMIT 1 FOR UPDATE SKIP LOCKED")
    text = text.replace("  t:\n", "  t:\n    choose: {j: job}\n")
    (found,) = sql_conformed(text, dsn)
    assert found.conforms and found.arguments == {}


@pytest.mark.postgres
def test_ways_that_were_not_run_are_no_success(dsn: str, tmp_path: Path) -> None:
    """70 statements are too many: said so, with an exit code of its own; unless what was run differs already."""
    text = jobs("job[j]: FOR UPDATE; sql: SELECT FROM jobs WHERE id = {j} FOR UPDATE").replace("job: 2", "job: 70")
    path = tmp_path / "many.yaml"
    for condition, word, code in (("", "UNDECIDED", 3), (" AND id > 0", "DRIFT", 1)):
        path.write_text(
            text.replace("  t:\n", "  t:\n    choose: {j: job}\n").replace("{j} FOR", f"{{j}}{condition} FOR")
        )
        words = [sys.executable, "-m", "lockmodel", "conform", str(path), "--dsn", dsn]
        printed = subprocess.run(words, capture_output=True, text=True, timeout=120)
        assert (printed.returncode, printed.stderr) == (code, "")
        assert word in printed.stdout and "64 of 70 ways of 't' were run." in printed.stdout


@pytest.mark.postgres
@pytest.mark.parametrize("command", ["conform", "replay"])
def test_an_administrator_who_ends_the_monitor_is_one_line(command: str, dsn: str) -> None:
    """While the code has a transaction open: it ends, and neither schema nor session is left."""
    spec = HERE.parent / "specs/queue/all-stripes.yaml"
    process = subprocess.Popen(
        [sys.executable, "-m", "lockmodel", command, str(spec), "--dsn", dsn],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    ended = 0
    with psycopg.connect(dsn, autocommit=True) as connection:
        while process.poll() is None and not ended:
            ended = connection.execute(
                "SELECT count(pg_terminate_backend(m.pid)) FROM pg_stat_activity m WHERE m.application_name = 'lockmodel monitor'"
                " AND EXISTS (SELECT FROM pg_stat_activity w WHERE w.application_name LIKE 'lockmodel worker%' AND w.xact_start IS NOT NULL)"
            ).fetchone()[0]
    _, errors = process.communicate(timeout=60)
    assert ended == 1
    assert process.returncode == 2 and len(errors.splitlines()) == 1, errors
    assert remains(dsn) == []


TWICE = """
name: twice
resources:
  job: {kind: row, table: jobs, stands for: {relation: jobs, row: {id: "1"}}}
  jobs: {kind: table, stands for: {relation: jobs}}
transactions:
  rescue:
    steps:
      - {job: FOR UPDATE, sql: 'SELECT *, pg_sleep(0.5) FROM jobs WHERE id = 1 FOR UPDATE'}
      - {job: FOR NO KEY UPDATE, sql: UPDATE jobs SET state = 'retryable' WHERE id = 1}
schema: CREATE TABLE jobs (id int PRIMARY KEY, state text); INSERT INTO jobs VALUES (1, 'x')
"""


@pytest.mark.postgres
def test_the_limits_of_a_role_and_of_the_environment_are_not_ours(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A statement_timeout would end the removal of the schema; in another encoding, text would be bytes."""
    with monkeypatch.context() as environment:
        environment.setenv("PGOPTIONS", "-c statement_timeout=200 -c idle_in_transaction_session_timeout=200")
        environment.setenv("PGCLIENTENCODING", "SQL_ASCII")
        ((found,), _) = run_to_the_end(lambda: conform_plain(parse(TWICE), dsn))
    assert found.conforms
    assert remains(dsn) == []
