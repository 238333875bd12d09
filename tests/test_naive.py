"""The second opinion against results that a reader can compute by hand, and against its own generator.

If each of two workers has n locations, and m pairs of them exclude each other, there are n² - m states, as long as all
others can be reached. "I, R0, R1, C" are locations: idle, running before the first and the second step, committed.
"""

from __future__ import annotations

from typing import Any

import pytest
from generated import from_yaml, specs, to_yaml
from hypothesis import HealthCheck, given, settings
from naive import CONFLICTS, ROW_MODES, TABLE_MODES, SpecError, TooManyStates, explore

E, S = "EXCLUSIVE", "SHARED"


def spec(resources: dict[str, Any], *transactions: Any, workers: int = 2, **more: Any) -> dict[str, Any]:
    """A spec with transactions t0, t1, …, each a list of steps or a mapping."""
    named = {f"t{i}": t if isinstance(t, dict) else {"steps": t} for i, t in enumerate(transactions)}
    return {"name": "test", "resources": resources, "transactions": named, "workers": workers, **more}


def locks(*names: str) -> dict[str, Any]:
    return {name: {"kind": "lock"} for name in names}


LANES = {"lane": {"kind": "lock", "per": ["stripe"]}}


def test_one_lock() -> None:
    """I, R0, R1 (holds a), C: 4² states but for both at R1. One step for each worker, but for the one who waits in two
    states: 15 * 2 - 2. The farthest state is both committed, after 3 steps each: depth 7."""
    result = explore(spec(locks("a"), [{"a": E}]))
    assert (result.states, result.transitions, result.depth, result.deadlock) == (15, 28, 7, None)
    assert result.complete
    assert sum(result.levels) == 15


def test_two_locks_in_opposite_order() -> None:
    """I, C, and three of each transaction: 8² states. a is held in 3 locations, b as well, both in 2: 9 + 9 - 4 pairs
    exclude each other. Deadlock: nobody runs, one, two, one holds a, other holds b."""
    reversed_order = spec(locks("a", "b"), [{"a": E}, {"b": E}], [{"b": E}, {"a": E}])
    result = explore(reversed_order)
    assert (result.states, result.deadlock) == (64 - 14, 5)
    stopped = explore(reversed_order, stop_at_violation=True)
    assert (stopped.deadlock, stopped.complete) == (5, False)
    assert explore(reversed_order, workers=1).deadlock is None


def test_the_old_claim() -> None:
    """Two stripes in order: I, C, R0, R1, R2, and lane[A] is held in R1 and R2: 5² - 4. With the old claim, a deadlock
    needs two starts, one lock of enqueue and three of claim: 7 states."""
    resources = {"lane": {"kind": "lock", "per": ["queue"]}, **locks("ready", "claim")}
    enqueue = [{"lane[A]": E}, {"lane[B]": E}]
    claim = [{"lane[B]": E}, {"ready": S}, {"claim": S}, {"lane[A]": E}, {"ready": S}, {"claim": S}]
    sets = {"queue": ["A", "B"]}
    assert explore(spec(resources, enqueue, sets=sets)).states == 21
    assert explore(spec(resources, enqueue, sets=sets)).deadlock is None
    assert explore(spec(resources, enqueue, claim, sets=sets)).deadlock == 7


def test_striped() -> None:
    """One lane each: I, C, before lane[0], before lane[1], with lane[0], with lane[1]: 6² - 2. All lanes are safe in
    any one order, but not if each worker may begin anywhere. --set stripe=1 has I, R0, R1, C."""
    one = spec(LANES, {"choose": {"s": "stripe"}, "steps": [{"lane[s]": E}]}, sets={"stripe": 2})
    assert explore(one).states == 34
    assert explore(one, sets={"stripe": 1}).states == 15
    for order, deadlock in (("forward", None), ("reverse", None), ("rotated", 5), ("any", 5)):
        every = [{"for": {"s": "stripe"}, "do": [{"lane[s]": E}], "order": order}]
        assert explore(spec(LANES, every, sets={"stripe": 2})).deadlock == deadlock
    shifted = {"choose": {"s": "stripe"}, "steps": [{"lane[s]": E}, {"lane[(s + 1) % 2]": E}]}
    assert explore(spec(LANES, shifted, sets={"stripe": 2})).deadlock == 5


@pytest.mark.parametrize(("order", "running"), [("forward", 4), ("reverse", 4), ("rotated", 10), ("any", 13)])
def test_orders(order: str, running: int) -> None:
    """One worker, three elements. With k locks taken, the place is the next and those to come: `rotated` 3, 3, 3, 1;
    `any` 3, 6, 3, 1. And idle and committed."""
    loop = [{"for": {"s": "stripe"}, "do": [{"lane[s]": E}], "order": order}]
    assert explore(spec(LANES, loop, sets={"stripe": 3}, workers=1)).states == running + 2


def test_several_names() -> None:
    """Every combination, the last name varying fastest: one worker holds 0 … 4 locks."""
    resources = {"cell": {"kind": "lock", "per": ["x", "y"]}}
    loop = [{"for": {"i": "x", "j": "y"}, "do": [{"cell[i, j]": E}]}]
    never = {"out of order": "count(w.holds(cell[1, 0]) and not w.holds(cell[0, 1])) > 0"}
    result = explore(spec(resources, loop, sets={"x": 2, "y": 2}, workers=1, never=never))
    assert (result.states, result.violated) == (5 + 2, {"out of order": None})


def test_parameters_are_forgotten() -> None:
    """s is mentioned nowhere, so I, R0, R1, C; one start, although s may be 0, 1, 2. If a formula observes w.s, then
    I, C and 3 times R0, R1, with three starts."""
    gate = {"choose": {"s": "stripe"}, "steps": [{"gate": E}]}
    result = explore(spec(locks("gate"), gate, sets={"stripe": 3}, workers=1))
    assert (result.states, result.transitions) == (4, 4)
    never = {"two": "count(w.s == 2) > 0"}
    result = explore(spec(locks("gate"), gate, sets={"stripe": 3}, workers=1, never=never))
    assert (result.states, result.transitions, result.violated) == (8, 3 + 6 + 1, {"two": 2})


def test_nowait_rolls_back() -> None:
    """I, R0, R1, C and A (aborted). To be refused needs another who holds the lock, and one at A does not come to hold
    it there, so never are both at A, nor both at R1: 25 - 2."""
    assert explore(spec(locks("a"), [{"a": E + " NOWAIT"}])).states == 23


def test_try_goes_on() -> None:
    """I, R0, R1 (holds), R1' (does not), C. All pairs but R1, R1, and R1', R1': who is refused needs another who holds.
    `then` and `else` tell b and c apart. To hold c takes start, start, a by the one; refused, c by the other."""
    assert explore(spec(locks("a"), [{"a": E + " TRY"}])).states == 25 - 2
    split = [{"a": E + " TRY", "then": [{"b": E}], "else": [{"c": E}]}]
    formulas = {"b without a": "count(w.holds(b) and not w.holds(a)) > 0", "c": "count(w.holds(c)) > 0"}
    assert explore(spec(locks("a", "b", "c"), split, never=formulas)).violated == {"b without a": None, "c": 6}


def test_row_and_table() -> None:
    """One worker: I, R0, with the table, with the row, C. Two workers that go on to SHARE: one holds table and row, the
    other the table (ROW EXCLUSIVE, by the sql) and waits for the row: start, table, row, start, table."""
    resources = {"jobs": {"kind": "table"}, "job": {"kind": "row", "table": "jobs"}}
    assert explore(spec(resources, [{"job": "FOR UPDATE"}], workers=1)).states == 5
    update = {"job": "FOR UPDATE", "sql": "UPDATE jobs SET n = 1"}
    assert explore(spec(resources, [update, {"jobs": "SHARE"}])).deadlock == 6
    assert explore(spec(resources, [{"job": "FOR UPDATE"}, {"jobs": "SHARE"}])).deadlock is None  # ROW SHARE
    assert explore(spec(resources, [update, update], workers=1)).states == 6  # no second request of the table
    loop = {"for": {"s": "stripe"}, "sql": "DELETE FROM jobs", "do": [{"job": "FOR UPDATE"}]}
    assert explore(spec(resources, [loop, {"jobs": "SHARE"}], sets={"stripe": 1})).deadlock == 6


def test_pool() -> None:
    """Two units for each: one worker starves itself of a pool of 1 in its third state; two share 2 units and wait for
    each other after two starts and two units; 3 are enough."""
    twice = [{"pool": "TAKE"}, {"pool": "TAKE"}]
    for size, workers, deadlock in ((1, 1, 3), (2, 2, 5), (3, 2, None)):
        assert explore(spec({"pool": {"kind": "pool", "size": size}}, twice, workers=workers)).deadlock == deadlock


def test_session_locks() -> None:
    """They stack: I, R0 … R4, C. They outlive the transaction: start, release, take, commit, and another starts,
    releases nothing and waits: all who run wait, in the seventh state, but who is committed can go on."""
    leader = {"leader": {"kind": "advisory", "scope": "session"}}
    take, release = {"leader": E}, {"release": "leader"}
    assert explore(spec(leader, [take, take, release, release], workers=1)).states == 7
    result = explore(spec(leader, [release, take], **{"no global stall": True}))
    assert (result.deadlock, result.stall) == (None, 7)
    with pytest.raises(SpecError):  # the fifth
        explore(spec(leader, [take], workers=1))


def test_variables() -> None:
    """One worker flips a flag: I, R0, R1, C, each with both values, in a circle. An `if` about a shared variable is a
    step (I, R0, R1, C), about a local one it takes no time (I, R0, C)."""
    flag = {"flag": {"values": [False, True]}}
    result = explore(spec({}, [{"set": {"flag": "not flag"}}], workers=1, variables=flag))
    assert (result.states, result.transitions, result.depth) == (8, 8, 8)
    shared = [{"if": "flag", "then": []}]
    assert explore(spec({}, shared, workers=1, variables=flag)).states == 4
    local = {"let": {"seen": "flag"}, "steps": [{"if": "seen", "then": []}]}
    assert explore(spec({}, local, workers=1, variables=flag)).states == 3
    waiting = {"start when": "flag", "steps": []}
    assert explore(spec({}, waiting, workers=1, variables=flag)).states == 1
    assert explore(spec({}, waiting, workers=1, variables=flag), sets={"flag": True}).states == 3


def test_on_commit() -> None:
    """A counter modulo 3, moved at commit and not at rollback: I, R, C or A. Committing only: 3 values of each. With
    both: I and R with 3 values, C and A with 3."""
    turn = {"turn": {"values": 3}}
    move = {"steps": [], "on commit": {"turn": "(turn + 1) % 3"}}
    assert explore(spec({}, move, workers=1, variables=turn)).states == 9
    never = {"moved by a rollback": "turn != 0"}
    backwards = {**move, "steps": ["rollback"]}
    result = explore(spec({}, backwards, workers=1, variables=turn, never=never))
    assert (result.states, result.violated) == (3, {"moved by a rollback": None})


def test_savepoint() -> None:
    """One worker: I, R0, R1 (savepoint), R2 (a), R3 (without a), C. What was given back cannot be waited for. What is
    not: two starts, b by the other, and savepoint and a before the wait for b. What was held before the savepoint and
    taken again after it is still held after the way back: two starts, b, and four steps before the wait for b."""
    back = [{"savepoint": "p"}, {"a": E}, {"rollback to": "p"}]
    assert explore(spec(locks("a"), back, workers=1)).states == 6
    other = [{"b": E}, {"a": E}]
    assert explore(spec(locks("a", "b"), [*back, {"b": E}], other)).deadlock is None
    assert explore(spec(locks("a", "b"), [*back[:2], {"b": E}], other)).deadlock == 6
    kept = [{"a": E}, *back, {"b": E}]
    assert explore(spec(locks("a", "b"), kept, other)).deadlock == 8


def test_take_at_start() -> None:
    """I, R (holds a), C: 9 - 1. Nobody ever waits."""
    start = {"take at start": {"a": E}, "steps": []}
    result = explore(spec(locks("a"), start, never={"waits": "count(w.waits_for(a)) > 0"}))
    assert (result.states, result.violated) == (8, {"waits": None})


def test_either_and_ends() -> None:
    """I, R0 of three branches, C and A: the branch is chosen at the start; where `rollback` and `commit` are one step
    before the end of the other branch, they are their own places."""
    branches = [{"either": [["rollback"], ["commit"], []]}]
    result = explore(spec({}, branches, workers=1))
    assert (result.states, result.transitions) == (1 + 3 + 2, 3 + 3 + 2)


def test_roles_and_formulas() -> None:
    """Only the producer may hold a. Both hold something at the earliest after two starts and two locks; the third
    worker is the second consumer."""
    roles = {"producer": {"count": 1, "runs": ["t0"]}, "consumer": {"count": "any", "runs": ["t1"]}}
    never = {"a consumer has a": "count(w.role == consumer and w.holds(a)) > 0", "both": "count(w.holds(b)) == 2"}
    always = {"idle or t1": "count(w.role == consumer and (w.status != running or w.transaction == t1)) == 2"}
    both = spec(locks("a", "b"), [{"a": E}], [{"b": S}], roles=roles, never=never, always=always)
    result = explore(both, workers={"consumer": 2})
    assert result.violated == {"a consumer has a": None, "both": 5, "idle or t1": None}
    with pytest.raises(SpecError):
        explore(both)


def test_any_and_all() -> None:
    """`any` and `all` range over a set; a comparison with a w.NAME that is not there does not count."""
    never = {"shared": "any(count(w.holds(lane[s], 'EXCLUSIVE')) > 1 for s in stripe)", "both": "count(w.s != 9) == 2"}
    always = {"free": "all(count(w.holds(lane[s])) == 0 for s in stripe)"}
    one = {"choose": {"s": "stripe"}, "steps": [{"lane[s]": E}]}
    result = explore(spec(LANES, one, sets={"stripe": 2}, never=never, always=always))
    assert result.violated == {"shared": None, "both": 3, "free": 3}


def test_conflict_tables() -> None:
    """Who conflicts with whom is symmetric; some lines of the manual."""
    for pairs in CONFLICTS.values():
        assert {(b, a) for a, b in pairs} == pairs
    for modes, kind, strongest in ((TABLE_MODES, "table", "ACCESS EXCLUSIVE"), (ROW_MODES, "row", "FOR UPDATE")):
        assert all((strongest, mode) in CONFLICTS[kind] for mode in modes)
    with_itself = {mode for mode in TABLE_MODES if (mode, mode) in CONFLICTS["table"]}
    assert with_itself == {"SHARE UPDATE EXCLUSIVE", "SHARE ROW EXCLUSIVE", "EXCLUSIVE", "ACCESS EXCLUSIVE"}
    assert [len([m for m in TABLE_MODES if (mode, m) in CONFLICTS["table"]]) for mode in TABLE_MODES] == [
        *(1, 2, 4, 5),
        *(5, 6, 7, 8),
    ]
    assert ("FOR KEY SHARE", "FOR NO KEY UPDATE") not in CONFLICTS["row"]
    assert ("FOR SHARE", "FOR NO KEY UPDATE") in CONFLICTS["row"]


@pytest.mark.parametrize(
    "text", ["__import__('os')", "().__class__", "[x for x in stripe]", "2 ** 9", "t0()", "nonsense"]
)
def test_nothing_else_is_accepted(text: str) -> None:
    with pytest.raises(SpecError):
        explore(spec(LANES, [{"lane[0]": E}], sets={"stripe": 2}, never={"bad": text}))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(specs())
def test_generated(example: dict[str, Any]) -> None:
    """What is generated is valid and survives YAML; stopping early finds the same shortest traces."""
    assert from_yaml(to_yaml(example)) == example
    try:
        full = explore(example, max_states=3_000)
    except TooManyStates:
        return
    assert full.complete
    assert full.states == sum(full.levels) <= full.transitions + 1
    found = [n for n in (full.deadlock, full.stall, full.held_up, *full.violated.values()) if n]
    stopped = explore(example, max_states=3_000, stop_at_violation=True)
    assert stopped.complete == (not found)
    if found:
        assert min(found) == stopped.depth
