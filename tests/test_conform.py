"""Specs against real code: `lockmodel conform` compares their locks, `lockmodel replay` runs a deadlock on the code itself."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from leftovers import remains

from lockmodel.checker import check
from lockmodel.compiler import Compilation
from lockmodel.errors import LockmodelError, ReplayError, SpecError, UsageError
from lockmodel.parser import parse
from lockmodel.replay.code import CodeReplay, replay_code
from lockmodel.replay.comparison import Observed, Relation, Run, Taken, compare
from lockmodel.replay.conformance import Conformance, conform
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
