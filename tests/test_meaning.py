"""The meaning of single constructs, on specs small enough to count by hand."""

from __future__ import annotations

import naive
import pytest

from lockmodel.checker import check
from lockmodel.compiler import compile_spec
from lockmodel.errors import SpecError
from lockmodel.exploration import Exploration
from lockmodel.modes import KINDS
from lockmodel.overrides import parse_overrides
from lockmodel.parser import parse
from lockmodel.reference import explore
from lockmodel.semantics import crew
from lockmodel.verdict import Outcome

LANES = "sets: {s: 3}\nresources: {a: {kind: lock}, b: {kind: lock}, lane: {kind: lock, per: [s]}}\n"


def explored(transactions: str, workers: int = 1, head: str = LANES) -> Exploration:
    """The whole state space of a spec with these transactions."""
    system = compile_spec(parse(f"name: t\n{head}transactions:\n{transactions}\nworkers: {workers}\n"))
    return explore(system, crew(system, 1), stop_at_violation=False)


@pytest.mark.parametrize("kind", KINDS)
def test_the_conflict_tables_are_those_of_the_independent_interpreter(kind: str) -> None:
    """Both were copied from the manual by different hands; the naive one was compared with a real server too."""
    modes = KINDS[kind].modes
    conflicts = {(wanted, held) for wanted in modes for held in modes if KINDS[kind].conflict(held, wanted)}
    assert conflicts == set(naive.CONFLICTS[kind])
    assert conflicts == {(held, wanted) for wanted, held in conflicts}


def test_one_worker_with_one_lock_has_four_states() -> None:
    """Idle, before the lock, with it, committed; and back to idle."""
    found = explored("  t: {steps: [{a: EXCLUSIVE}]}")
    assert (found.states, found.transitions, found.depth) == (4, 4, 4)


def test_two_workers_cannot_hold_one_exclusive_lock() -> None:
    """Of the 16 pairs, the one in which both hold it is out of reach."""
    assert explored("  t: {steps: [{a: EXCLUSIVE}]}", workers=2).states == 15


def test_two_workers_share_a_shared_lock() -> None:
    """All 16 pairs are reached."""
    assert explored("  t: {steps: [{a: SHARED}]}", workers=2).states == 16


@pytest.mark.parametrize(("order", "running"), [("forward", 4), ("reverse", 4), ("rotated", 10), ("any", 13)])
def test_the_orders_of_a_loop(order: str, running: int) -> None:
    """Three elements: one way; three ways that meet at the end; or a set of those to come, and the next."""
    found = explored(f"  t: {{steps: [{{for: {{x: s}}, order: {order}, do: [{{'lane[x]': EXCLUSIVE}}]}}]}}")
    assert found.states == running + 2


def test_a_parameter_that_no_step_uses_makes_no_difference() -> None:
    """Three starts that differ in nothing are one transition."""
    assert explored("  t: {choose: {x: s}, steps: [{a: EXCLUSIVE}]}").transitions == 4


def test_a_branch_is_chosen_before_the_wait() -> None:
    """A worker that has chosen a locked branch waits there, though the other branch is free."""
    text = """
  holder: {steps: [{a: EXCLUSIVE}, {b: EXCLUSIVE}]}
  chooser: {steps: [{b: EXCLUSIVE}, {either: [[{a: EXCLUSIVE}], []]}]}"""
    found = explored(text, workers=2)
    assert found.violation is not None
    assert found.violation.property == "no deadlock"


def test_a_statement_is_in_one_place_whether_or_not_its_table_was_held() -> None:
    """The way to a location is not part of it, also inside a loop that is one statement."""
    head = """sets: {s: 2}
resources: {jobs: {kind: table}, job: {kind: row, per: [s], table: jobs}}
"""
    steps = "{for: {x: s}, sql: DELETE FROM jobs, do: [{'job[x]': FOR UPDATE}]}"
    text = f"  t: {{steps: [{{either: [[{{jobs: ROW EXCLUSIVE}}], []]}}, {steps}]}}"
    # Idle and committed; the explicit table; the implied one; then the two rows and the end.
    assert explored(text, head=head).states == 2 + 1 + 1 + 3


def test_session_locks_outlive_their_transaction() -> None:
    """The second transaction of the worker starts with what the first one left."""
    head = "resources: {key: {kind: advisory, scope: session}}\n"
    text = """
  take: {start when: not held, steps: [{key: EXCLUSIVE}], on commit: {held: true}}
  give: {start when: held, steps: [{release: key}], on commit: {held: false}}"""
    found = explored(text, head=head + "variables: {held: {values: [false, true]}}\n")
    # Idle, two places of `take`, committed; idle, two places of `give`, committed. No two of them hold the same.
    assert found.states == 8


def test_a_session_lock_that_is_never_released_is_an_error() -> None:
    """It would pile up for ever."""
    head = "resources: {key: {kind: advisory, scope: session}}\n"
    with pytest.raises(SpecError, match="held more than 4 times"):
        explored("  take: {steps: [{key: EXCLUSIVE}]}", head=head)


def test_a_pool_deadlocks_with_itself() -> None:
    """Two workers with a connection each, of two, that both want a second."""
    head = "resources: {conn: {kind: pool, size: 2}}\n"
    found = explored("  t: {steps: [{conn: TAKE}, {conn: TAKE}]}", workers=2, head=head)
    assert found.violation is not None
    assert len(found.violation.trace) == 5


def test_rollback_to_a_savepoint_gives_back_what_was_taken_since() -> None:
    """So the order of two locks is turned round, and nobody waits for ever."""
    text = """
  ab: {steps: [{savepoint: p}, {a: EXCLUSIVE}, {rollback to: p}, {b: EXCLUSIVE}]}
  ba: {steps: [{b: EXCLUSIVE}, {a: EXCLUSIVE}]}"""
    assert explored(text, workers=2).violation is None
    assert explored(text.replace("{rollback to: p}, ", ""), workers=2).violation is not None


def test_a_try_never_waits() -> None:
    """The cycle is gone where one of its members tries."""
    text = """
  ab: {steps: [{a: EXCLUSIVE}, {b: EXCLUSIVE TRY}]}
  ba: {steps: [{b: EXCLUSIVE}, {a: EXCLUSIVE}]}"""
    assert explored(text, workers=2).violation is None


def verdict(text: str, *workers: str) -> Outcome:
    return check(parse("name: t\n" + text), parse_overrides([], workers)).verdict.outcome


def test_any_number_of_workers_is_proved_or_undecided_but_never_guessed() -> None:
    """One order: proved. A gate that excludes the cycle: proved. Three philosophers at two workers: not settled by a search with two."""
    one_order = LANES + "transactions: {t: {steps: [{a: EXCLUSIVE}, {b: EXCLUSIVE}]}}\n"
    gate = (
        LANES
        + """transactions:
  ab: {steps: [{'lane[0]': EXCLUSIVE}, {a: EXCLUSIVE}, {b: EXCLUSIVE}]}
  ba: {steps: [{'lane[0]': EXCLUSIVE}, {b: EXCLUSIVE}, {a: EXCLUSIVE}]}
"""
    )
    philosophers = (
        LANES
        + """transactions:
  eat: {choose: {x: s}, steps: [{'lane[x]': EXCLUSIVE}, {'lane[(x + 1) % 3]': EXCLUSIVE}]}
"""
    )
    assert verdict(one_order) is Outcome.HOLDS
    assert verdict(gate) is Outcome.HOLDS
    assert verdict(philosophers, "2") is Outcome.HOLDS
    assert verdict(philosophers) is Outcome.VIOLATED


def test_a_never_formula_that_is_only_searched_stays_undecided_for_any_number() -> None:
    """The proof is about deadlocks alone."""
    text = (
        LANES
        + """transactions: {t: {steps: [{a: SHARED}]}}
never: {a crowd: count(w.holds(a)) >= 6}
"""
    )
    result = check(parse("name: t\n" + text))
    assert result.verdict.outcome is Outcome.UNDECIDED
    assert "holds for up to 4 workers" in result.verdict.reason
    assert verdict(text, "6") is Outcome.VIOLATED


def test_the_limits_of_a_search_make_it_undecided() -> None:
    """Neither a full table nor the clock is success."""
    from lockmodel.exploration import Limits

    spec = parse(
        f"name: t\n{LANES}transactions: {{t: {{steps: [{{a: SHARED}}]}}}}\nworkers: 3\nnever: {{x: count(w.holds(a)) > 3}}\n"
    )
    for limits, said in ((Limits(max_states=10), "limit of 10 states"), (Limits(timeout_seconds=0), "time limit")):
        result = check(spec, limits=limits)
        assert result.verdict.outcome is Outcome.UNDECIDED
        assert result.exit_code == 3
        assert said in result.verdict.reason
