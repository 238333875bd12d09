"""The graphs for researchers, each against a second way to the same answer: the reference engine, or a few lines of plain Python.

`LOCKMODEL_SPECS=2000 pytest tests/test_graphs.py` tries more generated specs than the usual ones.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import networkx
import pytest
from generated import spec_of, to_yaml
from test_differential import numbered

import lockmodel
from lockmodel.errors import SpecError, UsageError
from lockmodel.graphs import Point, lock_order_cycle, lock_order_graph, may_wait_graph, state_graph, waits_for_graph
from lockmodel.stepping import Model, model
from lockmodel.system import ActionKind

ROOT = Path(__file__).parent.parent
GENERATED = range(int(os.environ.get("LOCKMODEL_SPECS", "150")))
MAX_STATES = 3_000


def generated() -> Iterator[tuple[int, Model]]:
    """Models of generated specs, by the number that makes them again."""
    for number in GENERATED:
        yield number, model(lockmodel.parse(to_yaml(spec_of(numbered(number)))))


@pytest.fixture(scope="module")
def explored() -> list[tuple[int, Model, networkx.MultiDiGraph]]:
    """The generated models that are small enough, with their state graphs."""
    found = []
    for number, made in generated():
        try:
            found.append((number, made, state_graph(made, max_states=MAX_STATES)))
        except UsageError:
            continue
    assert len(found) > len(GENERATED) // 2
    return found


def has_pools(made: Model) -> bool:
    return any(resource.capacity is not None for resource in made.system.resources)


# States


def test_a_state_graph_has_the_states_and_transitions_of_the_reference_engine(explored: list) -> None:
    """Nodes, edges and the largest depth are the counts that check prints."""
    for number, made, graph in explored:
        found = lockmodel.explore(made.system, made.crew, stop_at_violation=False)
        depth = max(graph.nodes[state]["depth"] for state in graph)
        counts = (graph.number_of_nodes(), graph.number_of_edges(), depth)
        assert counts == (found.states, found.transitions, found.depth), number


def test_the_graph_of_a_published_model_has_its_counts() -> None:
    """The storage model with one slot in each ring."""
    one_slot = {"lease_slot": 1, "ready_slot": 1, "claim_slot": 1}
    made = model("specs/awa/storage.yaml", sets=one_slot)
    graph = state_graph(made)
    found = lockmodel.explore(made.system, made.crew)
    assert (len(graph), graph.number_of_edges()) == (found.states, found.transitions)
    assert len(graph) > 5_000
    assert not any(graph.nodes[state]["deadlock"] for state in graph)


def test_an_edge_is_a_step_that_can_be_taken(explored: list) -> None:
    """Each edge's label is an action of its state, and leads to where the edge does; depths are lengths of shortest paths."""
    for number, made, graph in explored[:20]:
        lengths = networkx.single_source_shortest_path_length(graph, graph.graph["start"])
        for state, data in graph.nodes(data=True):
            assert data["depth"] == lengths[state] + 1, number
            assert data["deadlock"] is bool(made.deadlocked(state))
            assert data["violated"] == (made.violated(state) or "")
        for state, successor, data in graph.edges(data=True):
            action = made.action(state, data["label"])
            assert (action.worker, str(action.kind)) == (data["worker"], data["action"]), number
            assert made.next(state, action) == successor, number


def test_a_state_graph_can_begin_anywhere() -> None:
    """What is reachable from a deadlock is only what others still do."""
    made = model("specs/deadlock-demo.yaml")
    whole = state_graph(made)
    dead = next(state for state in whole if whole.nodes[state]["deadlock"])
    ahead = state_graph(made, dead)
    assert ahead.nodes[dead]["depth"] == 1
    assert set(ahead) == networkx.descendants(whole, dead) | {dead}


# Who waits for whom


def test_the_stuck_workers_are_those_that_a_cycle_of_waits_holds_up(explored: list) -> None:
    """For locks: `deadlocked` is whoever is in a cycle of the waits-for graph, or waits for one that is, and so on."""
    deadlocks = 0
    for number, made, graph in explored:
        if has_pools(made):
            continue
        for state in graph:
            waits = waits_for_graph(made, state)
            in_cycles = {worker for cycle in networkx.simple_cycles(waits) for worker in cycle}
            held_up = in_cycles.union(*(networkx.ancestors(waits, worker) for worker in in_cycles))
            assert made.deadlocked(state) == held_up, (number, state)
            assert held_up == {worker for worker, data in waits.nodes(data=True) if data["deadlocked"]}
            assert made.waits_for(state) == {w: tuple(waits[w]) for w in waits if waits[w]}
            deadlocks += bool(held_up)
    assert deadlocks > 50


def test_who_waits_is_told_with_the_locks_in_the_way() -> None:
    """An edge has the resource, the mode wanted and the modes held."""
    made = model("specs/striped-old-claim.yaml")
    found = lockmodel.deadlocks_ahead(made, made.initial).deadlocks[0]
    graph = waits_for_graph(made, found.state)
    update = {"mode": "FOR UPDATE", "held": ("FOR UPDATE",)}
    assert dict(graph.edges) == {(0, 1): {"resource": "lane[1]"} | update, (1, 0): {"resource": "lane[0]"} | update}
    assert graph.nodes[0]["transaction"] == "enqueue"
    assert [str(lock) for lock in graph.nodes[0]["holds"]] == ["lane[0] FOR UPDATE"]


def test_whoever_waits_for_another_that_waits_is_an_edge_between_points(explored: list) -> None:
    """The graph of points contains every wait, between workers that wait themselves, of every reachable state."""
    waits = 0
    for number, made, graph in explored:
        points = may_wait_graph(made)
        for state in graph:
            here = {worker.worker: worker for worker in made.view(state) if worker.wants and worker.holds}
            for worker, blockers in made.waits_for(state).items():
                for blocker in blockers:
                    if worker in here and blocker in here and worker != blocker:
                        edge = (point(here[worker]), point(here[blocker]))
                        assert points.has_edge(*edge), (number, state)
                        waits += 1
    assert waits > 100


def point(worker: object) -> Point:
    held = sorted(set(worker.holds), key=lambda lock: (lock.resource, lock.mode))  # type: ignore[attr-defined]
    return Point(tuple(held), worker.wants)  # type: ignore[attr-defined]


def test_without_a_cycle_there_is_no_deadlock(explored: list) -> None:
    """Both graphs are proofs where they have no cycle; and there are deadlocks where they have one."""
    proved = {"points": 0, "order": 0}
    for number, made, graph in explored:
        deadlock = any(graph.nodes[state]["deadlock"] for state in graph)
        points = may_wait_graph(made)
        if networkx.is_directed_acyclic_graph(points):
            assert not deadlock, number
            proved["points"] += 1
        if not lock_order_cycle(lock_order_graph(made)):
            assert not deadlock, number
            proved["order"] += 1
    deadlocks = sum(any(graph.nodes[state]["deadlock"] for state in graph) for _, _, graph in explored)
    assert min(*proved.values(), deadlocks) >= 5, (proved, deadlocks)


def test_a_gate_lock_keeps_points_apart() -> None:
    """Two locks in both orders behind a third: a cycle in the lock order, but nobody can be at both points at once."""
    text = "name: x\nresources: {{g: {{kind: lock}}, a: {{kind: lock}}, b: {{kind: lock}}}}\ntransactions: {{t: {{steps: [{{g: {0}}}, {{a: EXCLUSIVE}}, {{b: EXCLUSIVE}}]}}, u: {{steps: [{{g: {0}}}, {{b: EXCLUSIVE}}, {{a: EXCLUSIVE}}]}}}}\n"
    gate = model(lockmodel.parse(text.format("EXCLUSIVE")))
    assert lock_order_cycle(lock_order_graph(gate)) == ("a", "b")
    assert networkx.is_directed_acyclic_graph(may_wait_graph(gate))
    shared = may_wait_graph(model(lockmodel.parse(text.format("SHARED"))))
    (cycle,) = networkx.simple_cycles(shared)
    assert {str(one) for one in cycle} == {
        "holds a EXCLUSIVE, g SHARED; wants b EXCLUSIVE", "holds b EXCLUSIVE, g SHARED; wants a EXCLUSIVE",
    }  # fmt: skip
    assert shared.nodes[cycle[0]]["transactions"] in (("t",), ("u",))


def test_whoever_has_all_units_of_a_pool_may_wait_for_itself() -> None:
    """A lock that only one worker can hold does not keep a worker from itself."""
    spec = "name: x\nresources: {g: {kind: lock}, c: {kind: pool, size: 1}}\ntransactions: {t: {steps: [{g: EXCLUSIVE}, {c: TAKE}, {c: TAKE}]}}\n"
    made = model(lockmodel.parse(spec))
    assert [len(found.members) for found in lockmodel.deadlocks_ahead(made, made.initial).deadlocks] == [1]
    ((point, same),) = networkx.selfloop_edges(may_wait_graph(made))
    assert str(point) == str(same) == "holds c TAKE, g EXCLUSIVE; wants c TAKE"
    assert lock_order_cycle(lock_order_graph(made)) == ("c",)


# Lock order


def straight_lines(seed: int) -> tuple[dict[str, list[tuple[str, str]]], str]:
    """Random transactions without branches: the locks that each takes, and the spec that says so."""
    choose = random.Random(seed)
    plans = {
        name: [
            (choose.choice("abcd"), choose.choice(("FOR SHARE", "FOR UPDATE"))) for _ in range(choose.randrange(1, 5))
        ]
        for name in ("one", "two", "three")
    }
    lines = ["name: straight", "workers: 2", "resources:", *(f"  {name}: {{kind: row}}" for name in "abcd")]
    lines.append("transactions:")
    for name, plan in plans.items():
        lines += [f"  {name}:", "    steps:", *(f"      - {resource}: {mode}" for resource, mode in plan)]
    return plans, "\n".join(lines) + "\n"


@pytest.mark.parametrize("seed", range(20))
def test_the_lock_order_is_what_comes_before_what(seed: int) -> None:
    """For straight-line transactions an edge is a pair of steps: what was taken before, and what is taken then."""
    plans, spec = straight_lines(seed)
    expected: dict[tuple[str, str], tuple[set[str], set[tuple[str, str]]]] = {}
    for name, plan in plans.items():
        for later, (wanted, mode) in enumerate(plan):
            held = plan[:later]
            upgrade = mode == "FOR UPDATE" and (wanted, "FOR UPDATE") not in held
            for resource, other in held:
                if resource != wanted or upgrade:
                    transactions, modes = expected.setdefault((resource, wanted), (set(), set()))
                    transactions.add(name)
                    modes.add((other, mode))
    graph = lock_order_graph(model(lockmodel.parse(spec)))
    found = {
        edge: (set(graph.edges[edge]["transactions"]), set(graph.edges[edge]["modes"]), graph.edges[edge]["waits"])
        for edge in graph.edges
    }
    assert found == {edge: (*known, True) for edge, known in expected.items()}, spec
    assert list(graph) == list("abcd")


def test_whatever_is_asked_for_in_a_reachable_state_is_in_the_lock_order(explored: list) -> None:
    """Each lock taken or refused while another is held is an edge, between resources and between families."""
    for number, made, graph in explored:
        order, families = lock_order_graph(made), lock_order_graph(made, "family")
        resources = made.system.resources
        for state in graph:
            for action in made.actions(state):
                if action.kind not in (ActionKind.ACQUIRE, ActionKind.REFUSE):
                    continue
                wanted = resources[action.action.edge.requests[0].resource]
                for lock in made.holds(state).get(action.worker, ()):
                    if lock.resource != wanted.name:
                        assert order.has_edge(lock.resource, wanted.name), (number, str(action))
                        assert families.has_edge(lock.resource.partition("[")[0], wanted.family), number


def test_families_sum_up_their_resources() -> None:
    """Ascending loops are an edge from the family to itself, but no cycle."""
    made = model("specs/striped.yaml", sets={"stripe": 3})
    families = lock_order_graph(made, by="family")
    assert dict(families.nodes(data="resources")) == {"lane": 3, "ready": 2, "claims": 2}
    assert {(a, b): pairs for a, b, pairs in families.edges(data="pairs")} == {
        ("lane", "lane"): 3, ("lane", "ready"): 6, ("lane", "claims"): 6, ("ready", "claims"): 4,
    }  # fmt: skip
    assert families.edges["lane", "lane"]["transactions"] == ("enqueue",)
    assert families.edges["lane", "lane"]["positions"] == ("specs/striped.yaml:22",)
    assert lock_order_cycle(lock_order_graph(made)) == ()


def test_an_upgrade_is_a_cycle_of_one() -> None:
    """Two that share a row and both want it alone; who has it alone already waits for nobody."""
    upgrade = "name: x\nresources: {a: {kind: row}}\ntransactions: {t: {steps: [{a: FOR SHARE}, {a: FOR UPDATE}, {a: FOR SHARE}]}}\n"
    graph = lock_order_graph(model(lockmodel.parse(upgrade)))
    assert graph.edges["a", "a"]["modes"] == (("FOR SHARE", "FOR UPDATE"),)
    assert lock_order_cycle(graph) == ("a",)


def test_requests_that_do_not_wait_make_no_cycle() -> None:
    """They are edges, and say that they never wait."""
    steps = "[{a: FOR UPDATE}, {b: FOR UPDATE SKIP LOCKED}]", "[{b: FOR UPDATE}, {a: FOR UPDATE}]"
    spec = f"name: x\nresources: {{a: {{kind: row}}, b: {{kind: row}}}}\ntransactions: {{t: {{steps: {steps[0]}}}, u: {{steps: {steps[1]}}}}}\n"
    graph = lock_order_graph(model(lockmodel.parse(spec)))
    assert {edge: graph.edges[edge]["waits"] for edge in graph.edges} == {("a", "b"): False, ("b", "a"): True}
    assert lock_order_cycle(graph) == ()


def test_modes_that_go_together_make_no_cycle() -> None:
    """Shared locks in both orders are harmless; with one that is exclusive in each place they are not."""
    text = "name: x\nresources: {{a: {{kind: lock}}, b: {{kind: lock}}}}\ntransactions: {{t: {{steps: [{{a: {0}}}, {{b: {0}}}]}}, u: {{steps: [{{b: {1}}}, {{a: {1}}}]}}}}\n"
    shared = model(lockmodel.parse(text.format("SHARED", "SHARED")))
    assert not networkx.is_directed_acyclic_graph(lock_order_graph(shared))
    assert lock_order_cycle(lock_order_graph(shared)) == ()
    mixed = model(lockmodel.parse(text.format("SHARED", "EXCLUSIVE")))
    assert lock_order_cycle(lock_order_graph(mixed)) == ("a", "b")


def test_a_cycle_that_is_found_is_a_shortest_one() -> None:
    """Of a ring of four and a ring of three it is the three, each with an edge to the next."""
    orders = ["ab", "bc", "cd", "da", "ef", "fg", "ge"]
    resources = ", ".join(f"{name}: {{kind: lock}}" for name in "abcdefg")
    steps = ", ".join(f"{o}: {{steps: [{{{o[0]}: EXCLUSIVE}}, {{{o[1]}: EXCLUSIVE}}]}}" for o in orders)
    graph = lock_order_graph(
        model(lockmodel.parse(f"name: x\nresources: {{{resources}}}\ntransactions: {{{steps}}}\n"))
    )
    assert lock_order_cycle(graph) == ("e", "f", "g")


# Bounds


def test_each_graph_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line says what to do; the bound itself is allowed."""
    made = model("specs/striped-old-claim.yaml")
    states, order, points = len(state_graph(made)), lock_order_graph(made), may_wait_graph(made)
    assert len(state_graph(made, max_states=states)) == states
    with pytest.raises(UsageError, match=r"striped-old-claim has more than 1,268 states; make a set smaller"):
        state_graph(made, max_states=states - 1)
    edges = order.number_of_edges()
    assert lock_order_graph(made, max_edges=edges).number_of_edges() == edges
    with pytest.raises(UsageError, match="more than 25 edges"):
        lock_order_graph(made, max_edges=edges - 1)
    edges = points.number_of_edges()
    assert may_wait_graph(made, max_edges=edges).number_of_edges() == edges
    with pytest.raises(UsageError, match=f"more than {edges - 1} edges, or takes too long; make a set smaller"):
        may_wait_graph(made, max_edges=edges - 1)
    monkeypatch.setattr("lockmodel.graphs.MAX_COMPARISONS", 100)
    with pytest.raises(UsageError, match="takes too long"):
        may_wait_graph(made)
    with pytest.raises(UsageError, match="'resource' or 'family'"):
        lock_order_graph(made, "table")  # type: ignore[arg-type]


def test_a_step_without_meaning_is_said_with_its_line() -> None:
    """The graph can't have an edge for it."""
    spec = "name: x\nworkers: 1\nvariables: {v: {values: 2}}\nresources: {a: {kind: lock}}\ntransactions: {t: {steps: [{set: {v: v + 1}}]}}\n"
    with pytest.raises(SpecError, match=r"^<spec>:5: "):
        state_graph(model(lockmodel.parse(spec)))


def test_graphs_are_the_same_in_every_process() -> None:
    """Whatever order Python's sets have there."""
    code = (
        "import lockmodel; from lockmodel.graphs import lock_order_cycle\n"
        "m = lockmodel.model('specs/queue/bulk-retry.yaml')\n"
        "o, p = lockmodel.lock_order_graph(m), lockmodel.may_wait_graph(m)\n"
        "s = lockmodel.state_graph(lockmodel.model('specs/deadlock-demo.yaml'))\n"
        "print([[list(g.nodes(data=True)), list(g.edges(data=True))] for g in (o, p, s)], lock_order_cycle(o))"
    )
    answers = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in "123"
    }
    assert len(answers) == 1
    assert len(answers.pop()) > 1_000
