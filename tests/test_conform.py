"""Specs against real code: `lockmodel conform` compares their locks, `lockmodel replay` runs a deadlock on the code itself."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from test_replay import remains

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
    assert "40P01" in confirmed.stdout and "balance + 10 WHERE id = 1" in " ".join(confirmed.stdout.split())
    assert all(len(line) <= 80 for line in (good.stdout + drift.stdout + confirmed.stdout).splitlines()[1:])
