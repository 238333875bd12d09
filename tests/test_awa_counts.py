"""The published models of the awa queue: our counts are TLC's, for the tabled constants and for others.

Reference: TLC (TLA+ tools, built from tlaplus/tlaplus at cc6b616) on the unmodified module AwaStorageLockOrder of hardbyte/awa at d930e72
("storage") and fdeb8dd ("storage-authority"). TLC's "generated" counts one initial state, one stuttering step for each distinct state, and
every transition; so transitions = generated - distinct - 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from lockmodel.checker import check
from lockmodel.compiler import compile_spec
from lockmodel.exploration import Exploration
from lockmodel.overrides import apply, parse_overrides
from lockmodel.parser import load, parse
from lockmodel.reference import explore
from lockmodel.semantics import Semantics, crew
from lockmodel.system import Status, System
from lockmodel.verdict import Outcome

AWA = Path(__file__).parent.parent / "specs" / "awa"
ONE_SLOT = ["lease_slot=1", "ready_slot=1", "claim_slot=1"]
TWO_QUEUES = "queue=q1#0,q1#1"

STORAGE = [
    # overrides, workers, TLC: distinct, generated, depth
    ([], 2, 69_057, 239_076, 12),
    (ONE_SLOT, 2, 5_472, 18_815, 12),
    (["lease_slot=3", "ready_slot=2", "claim_slot=1"], 2, 50_253, 173_800, 12),
    (["priority=1,2"], 2, 129_884, 450_969, 12),
    ([*ONE_SLOT, "priority=1,2"], 2, 10_121, 34_988, 12),
    (["lease_slot=3", "ready_slot=3", "claim_slot=3"], 2, 398_100, 1_377_219, 12),
    ([TWO_QUEUES], 2, 53_561, 185_204, 12),
    ([*ONE_SLOT, TWO_QUEUES], 2, 4_370, 14_999, 12),
    (["queue=q1,q1#0,q1#1,q2"], 2, 86_601, 300_116, 12),
    ([], 1, 269, 603, 7),
    ([*ONE_SLOT, TWO_QUEUES], 3, 258_990, 1_194_397, 16),
]

AUTHORITY = [
    # overrides, workers, TLC: distinct, generated, depth; then queues x priorities and ready slots
    ([], 2, 480_721, 1_612_448, 39, 3, 2),
    (ONE_SLOT, 2, 44_601, 150_748, 39, 3, 1),
    ([], 1, 1_012, 2_206, 28, 3, 2),
    ([*ONE_SLOT, "priority=1,2"], 2, 75_751, 276_706, 39, 6, 1),
    ([*ONE_SLOT, TWO_QUEUES], 2, 36_563, 121_110, 39, 2, 1),
    (["lease_slot=3", "ready_slot=1", "claim_slot=2"], 2, 258_591, 865_518, 39, 3, 1),
]


def compiled(name: str, overrides: Sequence[str], workers: int = 2) -> System:
    return compile_spec(apply(load(AWA / f"{name}.yaml"), parse_overrides(overrides, [str(workers)])))


def explored(system: System) -> Exploration:
    exploration = explore(system, crew(system, 1))
    assert exploration.complete and exploration.violation is None
    return exploration


@pytest.mark.parametrize(("overrides", "workers", "distinct", "generated", "depth"), STORAGE)
def test_the_model_of_the_fix_has_the_counts_of_tlc(
    overrides: list[str], workers: int, distinct: int, generated: int, depth: int
) -> None:
    """States, transitions and depth are equal, also with other slots, priorities, queues and workers."""
    found = explored(compiled("storage", overrides, workers))
    assert (found.states, found.transitions, found.depth) == (distinct, generated - distinct - 1, depth)


@pytest.mark.parametrize(("overrides", "workers", "distinct", "generated", "depth", "lanes", "ready"), AUTHORITY)
def test_the_model_with_the_authority_flip_has_the_counts_of_tlc(
    overrides: list[str], workers: int, distinct: int, generated: int, depth: int, lanes: int, ready: int
) -> None:
    """States and depth are equal, and transitions are but for the starts that TLC counts once for each unused parameter."""
    found = explored(compiled("storage-authority", overrides, workers))
    assert (found.states, found.depth) == (distinct, depth)
    surplus = generated - distinct - 1 - found.transitions
    # A batch lane move starts from any source lane, which its steps never use: lanes - 1 duplicates of lanes * ready starts.
    assert surplus % ((lanes - 1) * lanes * ready) == 0
    if not overrides and workers == 2:
        assert found.transitions == 1_107_342  # TLC's 1,131,726 without 24,384 duplicate starts.
    if distinct < 50_000:
        assert surplus == (lanes - 1) * lanes * ready * idle_workers(compiled("storage-authority", overrides, workers))


def idle_workers(system: System) -> int:
    """How many pairs of a reachable state and a worker that is idle in it there are, by a search of our own."""
    semantics = Semantics(system, crew(system, 1))
    seen, pending = {semantics.initial}, [semantics.initial]
    while pending:
        state = pending.pop()
        for action in semantics.actions(state):
            after = semantics.after(state, action)
            if after not in seen:
                seen.add(after)
                pending.append(after)
    locations = system.locations
    return sum(locations[index].status is Status.IDLE for state in seen for index in state.locations)


@pytest.mark.parametrize(
    ("name", "overrides", "workers", "states"),
    [
        ("deadlock-demo", [], "2", 5),
        ("deadlock-demo", [], "3", 5),
        ("old-striped-claim", [], "2", 7),
        ("old-striped-claim", [], "3", 7),
        ("old-striped-claim", ["ready_slot=2", "claim_slot=2"], "2", 7),
        ("old-striped-claim", ["ready_slot=2", "claim_slot=2"], "3", 7),
        ("old-striped-claim", ["queue=q1,q1#0,q1#1"], "2", 7),
    ],
)
def test_the_historical_deadlocks_have_the_shortest_traces_of_tlc(
    name: str, overrides: list[str], workers: str, states: int
) -> None:
    """The length counts states, the initial one included, as TLC's error traces do."""
    result = check(load(AWA / f"{name}.yaml"), parse_overrides(overrides, [workers]))
    assert result.verdict.outcome is Outcome.VIOLATED
    assert result.trace is not None and len(result.trace) == states
    assert result.unmet is None


@pytest.mark.parametrize("name", ["storage", "storage-authority"])
def test_the_published_properties_hold(name: str) -> None:
    """No deadlock, no global stall, and (with the flip) no mixed fleet, as the spec expects."""
    result = check(load(AWA / f"{name}.yaml"), parse_overrides(ONE_SLOT, []))
    assert result.verdict.outcome is Outcome.HOLDS
    assert result.unmet is None


def test_the_mixed_fleet_property_is_not_vacuous() -> None:
    """If the flip did not take the ring states first, the two fleets would meet."""
    text = (AWA / "storage-authority.yaml").read_text()
    start = text.index("  flip authority:")
    steps = text.index("    steps:", start)
    end = text.index("    on commit:", steps)
    spec = parse(text[:steps] + "    steps: []\n" + text[end:])
    result = check(spec, parse_overrides(ONE_SLOT, []))
    assert result.verdict.violated == "mixed fleet"


@pytest.mark.parametrize("name", ["storage", "storage-authority"])
def test_locks_held_together_are_compatible_and_only_running_workers_hold_any(name: str) -> None:
    """The two structural invariants of the published models, on every state of a small one."""
    system = compiled(name, [*ONE_SLOT, TWO_QUEUES])
    semantics = Semantics(system, crew(system, 2))
    seen, pending = {semantics.initial}, [semantics.initial]
    while pending:
        state = pending.pop()
        first, second = (system.locations[index] for index in state.locations)
        for location in (first, second):
            assert location.status is Status.RUNNING or not location.held
        for one in first.held:
            for other in second.held:
                kind = system.resources[one.resource].kind
                assert one.resource != other.resource or not kind.conflict(one.mode, other.mode)
        for action in semantics.actions(state):
            after = semantics.after(state, action)
            if after not in seen:
                seen.add(after)
                pending.append(after)
