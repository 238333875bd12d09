"""Stalls: who is held up by the queue of a lock alone."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import pytest
from generated import Tape, spec_of, to_yaml
from leftovers import remains

from lockmodel.checker import check
from lockmodel.compiler import compile_spec
from lockmodel.explanation import Ends
from lockmodel.exploration import Limits
from lockmodel.parser import load, parse
from lockmodel.prover.queues import examine_queues
from lockmodel.reference import explore
from lockmodel.replay.replayer import ReplayOutcome, prepare, replay_trace
from lockmodel.report.page import Page
from lockmodel.report.terminal import full
from lockmodel.semantics import crew
from lockmodel.system import NO_STALL, Role
from lockmodel.verdict import CheckResult, Outcome

ROOT = Path(__file__).parent.parent


def queue(kind: str, holder: str, waiter: str, delayed: str, more: str = "", roles: str = "") -> str:
    """Three transactions that each ask for `r` once, in these modes."""
    return f"""
name: q
resources: {{r: {{kind: {kind}}}, x: {{kind: row}}}}
transactions:
  hold: {{steps: [r: {holder}]}}
  wait: {{steps: [r: {waiter}{more}]}}
  late: {{steps: [r: {delayed}]}}
no stall: true
{roles}
"""


def checked(text: str) -> CheckResult:
    return check(parse(text))


@pytest.mark.parametrize(("kind", "holder", "waiter", "delayed", "stalls"), [
    ("table", "ACCESS SHARE", "ACCESS EXCLUSIVE", "ACCESS SHARE", True),
    ("table", "ROW EXCLUSIVE", "SHARE", "ROW EXCLUSIVE", True),
    ("table", "ROW EXCLUSIVE", "ROW EXCLUSIVE", "ROW EXCLUSIVE", False),
    ("table", "EXCLUSIVE", "EXCLUSIVE", "EXCLUSIVE", False),
    ("table", "ACCESS SHARE", "ACCESS SHARE", "ACCESS EXCLUSIVE", True),
    ("advisory", "SHARED", "EXCLUSIVE", "SHARED", True),
    ("advisory", "SHARED", "SHARED", "SHARED", False),
    ("row", "FOR SHARE", "FOR UPDATE", "FOR SHARE", False),
])  # fmt: skip
def test_who_stalls_behind_whom(kind: str, holder: str, waiter: str, delayed: str, stalls: bool) -> None:
    """By the conflicts of the modes alone; a row has no queue that holds anybody up."""
    result = checked(queue(kind, holder, waiter, delayed))
    assert result.verdict.violated == (NO_STALL if stalls else None)
    assert result.verdict.outcome is (Outcome.VIOLATED if stalls else Outcome.HOLDS)
    if stalls:
        assert result.view is not None and result.view.stall is not None
        assert result.view.stall.convoy and result.view.stall.most is None and result.view.stall.ends is Ends.HOLDER
    else:
        assert result.queues is not None and result.queues.proved


def test_a_wait_that_a_timeout_ends_is_no_stall() -> None:
    """However long it is."""
    for timeout in ("100ms", "1h"):
        text = queue("table", "ACCESS SHARE", "ACCESS EXCLUSIVE", "ACCESS SHARE").replace(
            "wait: {", f"wait: {{lock_timeout: {timeout}, "
        )
        assert checked(text).verdict.outcome is Outcome.HOLDS


def test_nowait_stands_in_no_queue() -> None:
    """Neither as the one ahead nor as the one held up."""
    shares, excludes = "ACCESS SHARE", "ACCESS EXCLUSIVE"
    for modes in ((shares, f"{excludes} NOWAIT", shares), (f"{shares} NOWAIT", excludes, f"{shares} NOWAIT")):
        roles = "roles: {a: {count: 1, runs: [hold]}, b: {count: 1, runs: [wait]}, c: {count: 1, runs: [late]}}"
        assert checked(queue("table", *modes, roles=roles)).verdict.outcome is Outcome.HOLDS


def test_who_holds_what_the_waiter_wants_goes_first() -> None:
    """Postgres inserts it ahead in the queue, so it is not held up (and here nobody else is)."""
    text = """
name: q
resources: {r: {kind: table}}
transactions:
  one: {steps: [r: ACCESS SHARE, r: ROW SHARE]}
  two: {steps: [r: EXCLUSIVE]}
  three: {steps: [r: ROW SHARE, r: ACCESS SHARE]}
roles: {a: {count: 1, runs: [two]}, b: {count: 1, runs: [three]}, c: {count: 1, runs: [one]}}
no stall: true
expect: {stall: {delayed: [one], holder: three, waiter: two, on: r}}
"""
    result = checked(text)
    assert result.exit_code == 0, result.unmet
    assert result.view is not None and result.view.stall is not None and not result.view.stall.convoy
    assert "STALL  of one behind two, on r" in full(result, Page())


def test_a_holder_that_waits_for_the_one_held_up_ends_it_by_deadlock_timeout() -> None:
    """A circle through the queue is no deadlock: Postgres lets the later request past."""
    text = """
name: q
resources: {r: {kind: table}, x: {kind: row}}
transactions:
  hold: {steps: [r: ACCESS SHARE, x: FOR UPDATE]}
  wait: {steps: [r: ACCESS EXCLUSIVE]}
  late: {steps: [x: FOR UPDATE, r: ACCESS SHARE]}
roles: {a: {count: 1, runs: [hold]}, b: {count: 1, runs: [wait]}, c: {count: 1, runs: [late]}}
no stall: true
"""
    result = checked(text)
    assert result.verdict.violated == NO_STALL
    assert result.view is not None and result.view.stall is not None
    assert result.view.stall.ends is Ends.REARRANGED
    assert "After deadlock_timeout Postgres lets past who is held up" in " ".join(full(result, Page()).split())


@pytest.mark.parametrize(("expect", "unmet"), [
    ("stall", None),
    ("convoy", None),
    ("no deadlock", "expected no deadlock, found: a stall"),
    ("deadlock", "expected a deadlock, found: a stall"),
    ("{convoy: {holder: hold, waiter: wait, delayed: [hold, late], on: r}}", None),
    ("{stall: {waiter: late}}", "expected a stall behind late, which waits; found one behind wait"),
    ("{stall: {holder: wait}}", "expected a stall behind what wait holds, found one behind hold"),
    ("{stall: {delayed: [late]}}", "expected a stall of late, found one of hold and late"),
    ("{stall: {on: x}}", "expected a stall on x, found one on r"),
])  # fmt: skip
def test_what_a_spec_expects_of_a_stall(expect: str, unmet: str | None) -> None:
    text = queue("table", "ACCESS SHARE", "ACCESS EXCLUSIVE", "ACCESS SHARE") + f"expect: {expect}\n"
    result = checked(text)
    assert result.unmet == unmet
    assert result.exit_code == (0 if unmet is None else 1)


def test_a_convoy_needs_more_than_one_worker_that_is_held_up() -> None:
    roles = "roles: {a: {count: 1, runs: [hold]}, b: {count: 1, runs: [wait]}, c: {count: %d, runs: [late]}}"
    for count, unmet in ((1, "expected a convoy, found a stall of one worker"), (2, None)):
        text = queue("table", "ACCESS SHARE", "ACCESS EXCLUSIVE", "ACCESS SHARE", roles=roles % count)
        assert checked(text + "expect: convoy\n").unmet == unmet


@pytest.mark.parametrize("seed", range(6))
def test_the_proof_agrees_with_the_search_on_generated_specs(seed: int) -> None:
    """What is proved, no search contradicts; what is found, a search with as many workers finds too, with no longer a trace."""
    rng = random.Random(seed)
    proved = found = 0
    for number in range(60):
        made = spec_of(Tape(rng.randbytes(500)))
        for key in ("never", "always", "no global stall", "roles"):
            made.pop(key, None)
        system = dataclasses.replace(compile_spec(parse(to_yaml({**made, "no stall": True, "workers": "any"}))))
        (role,) = system.roles
        examined = examine_queues(system)
        proved += examined.proved
        found += examined.trace is not None
        searched = explore(
            dataclasses.replace(system, roles=(Role(role.name, 3, role.transactions),)), crew(system, 3), Limits(6_000)
        )
        name = f"seed {seed}, spec {number}"
        stalled = searched.violation is not None and searched.violation.property == NO_STALL
        assert not (examined.proved and stalled), name
        if examined.trace is not None and searched.violation is not None:
            assert not stalled or len(searched.violation.trace) <= len(examined.trace), name
        if examined.trace is not None and searched.complete:
            assert searched.violation is not None, name
    assert proved > 20 and found > 0


@pytest.mark.postgres
def test_postgres_holds_up_who_comes_later(dsn: str) -> None:
    """Seen waiting behind the request, no 40P01, and nothing left."""
    spec = load(ROOT / "specs/real/freehire-lock-queue.yaml")
    result = check(spec)
    assert result.trace is not None
    done = replay_trace(prepare(spec), result.trace, dsn)
    assert done.outcome is ReplayOutcome.CONFIRMED, done.performance
    assert done.performance is not None and done.performance.standstill is not None
    assert done.performance.standstill.queue and not done.performance.deadlocked
    assert done.performance.standstill.in_postgres == ((1, (0,)), (2, (1,)))
    assert remains(dsn) == []


@pytest.mark.postgres
def test_a_stall_that_is_none_in_postgres_is_refuted(dsn: str) -> None:
    """The waiter's SQL takes less than the spec says."""
    text = (ROOT / "specs/real/freehire-lock-queue.yaml").read_text(encoding="utf-8")
    text = text.replace(
        "sql: ALTER TABLE vacancies ADD COLUMN IF NOT EXISTS salary integer", "sql: SELECT 1 FROM vacancies"
    )
    spec = parse(text)
    result = check(spec)
    assert result.trace is not None
    done = replay_trace(prepare(spec), result.trace, dsn)
    assert done.outcome is ReplayOutcome.REFUTED
    assert done.performance is not None and "is granted" in str(done.performance.difference)
