"""Graphs as pictures to be drawn: what is a node, how it is called, what is marked. `dot` and `mermaid` write them.

A picture is for people, so it leaves out what a reader can do without: an arrow of the lock order that a longer way implies, and
single resources where they are too many. `graphml` has all of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import networkx

from lockmodel.graphs import LockOrderGraph, StateGraph, WaitsForGraph, lock_order_cycle, lock_order_graph
from lockmodel.semantics import State
from lockmodel.stepping import Model
from lockmodel.system import Status

MOST_NODES = 40
EDGES_A_NODE = 1.6
"""A lock-order graph of resources with more than these is hard to read: the families are drawn instead."""
_NAMES = 2
"""How many transactions an arrow names before it says `+3`."""


@dataclass(frozen=True)
class Node:
    """`lines`: its label, line by line; `group`: the group that it is drawn in, if any."""

    lines: tuple[str, ...]
    group: str | None = None
    marked: bool = False
    start: bool = False


@dataclass(frozen=True)
class Edge:
    """From node number `tail` to `head`; a `weak` one is drawn dashed."""

    tail: int
    head: int
    label: str = ""
    marked: bool = False
    weak: bool = False


@dataclass(frozen=True)
class Picture:
    """A directed graph; `title` says in some short lines what it shows and what its marks mean.

    `direction`: LR, from left to right, or TB, from top to bottom.
    """

    title: tuple[str, ...]
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    direction: str = "LR"

    @property
    def groups(self) -> tuple[str, ...]:
        """The names of the groups, in the order of their first nodes."""
        return tuple(dict.fromkeys(node.group for node in self.nodes if node.group is not None))


# Lock order


def lock_order_picture(model: Model, by: Literal["resource", "family"] | None = None) -> Picture:
    """What is held while what else is asked for; `by` None: each resource if that can be read, else the families.

    Raises UsageError if the graph is too large.
    """
    resources = None if by == "family" else lock_order_graph(model)
    if resources is not None and (by == "resource" or _readable(resources)):
        return _order_picture(model, resources, resources)
    return _order_picture(model, lock_order_graph(model, "family"), resources)


def _readable(graph: LockOrderGraph) -> bool:
    return len(graph) <= MOST_NODES and len(_shown(graph)) <= EDGES_A_NODE * len(graph)


def _order_picture(model: Model, graph: LockOrderGraph, resources: LockOrderGraph | None) -> Picture:
    shown = _shown(graph)
    joined = {name for edge in shown for name in edge}
    names = [name for name in graph if name in joined or not shown]
    numbers = {name: number for number, name in enumerate(names)}
    drawn = Counter(graph.nodes[name]["family"] for name in names)
    together = {name for name in names if graph is resources and drawn[graph.nodes[name]["family"]] > 1}
    cycle = lock_order_cycle(lock_order_graph(model) if resources is None else resources)
    if graph is not resources:
        family_of = {resource.name: resource.family for resource in model.system.resources}
        cycle = tuple(family_of[name] for name in cycle)
    round_ = set(zip(cycle, (*cycle[1:], *cycle[:1]), strict=True))
    nodes = [_order_node(graph, name, together=name in together, marked=name in cycle) for name in names]
    edges = [
        Edge(
            numbers[held], numbers[wanted], _few(graph.edges[held, wanted]["transactions"]),
            marked=(held, wanted) in round_, weak=not graph.edges[held, wanted]["waits"],
        )
        for held, wanted in shown
    ]  # fmt: skip
    title = _order_title(model, graph, edges, left=len(graph) - len(names), has_cycle=bool(cycle))
    return Picture(title, tuple(nodes), tuple(edges))


def _order_node(graph: LockOrderGraph, name: str, *, together: bool, marked: bool) -> Node:
    """`together`: whether it is drawn with others of its family, whose kind their group says."""
    data = graph.nodes[name]
    if together:
        return Node((name,), f"{data['family']} ({data['kind']})", marked)
    count = data["resources"]
    return Node((name, data["kind"] if count == 1 else f"{count} of kind {data['kind']}"), None, marked)


def _order_title(
    model: Model, graph: LockOrderGraph, edges: Sequence[Edge], *, left: int, has_cycle: bool
) -> tuple[str, ...]:
    parts = [f"Lock order of {model.spec.name}", "from what is held to what is asked for"]
    if graph.graph["by"] == "family":
        parts.append("a node is a family of resources")
    if left:
        parts.append(f"left out: {left:,} that nothing else is held with")
    if implied := graph.number_of_edges() - len(edges):
        parts.append(f"left out: {implied:,} arrow{'s' * (implied > 1)} that a longer way implies")
    if any(edge.weak for edge in edges):
        parts.append("dashed: never waits")
    if has_cycle:
        parts.append("red: a circle, without which there is no deadlock")
    return tuple(parts)


def _shown(graph: LockOrderGraph) -> list[tuple[str, str]]:
    """The edges, but for those from one strongly connected component to another that lead on a longer way there, too."""
    components = networkx.condensation(graph)
    component = components.graph["mapping"]
    needed = networkx.transitive_reduction(components)
    return [
        (held, wanted)
        for held, wanted in graph.edges
        if component[held] == component[wanted] or needed.has_edge(component[held], component[wanted])
    ]


def _few(names: Sequence[str]) -> str:
    more = f" +{len(names) - _NAMES}" if len(names) > _NAMES else ""
    return ", ".join(names[:_NAMES]) + more


# Who waits for whom


def waits_for_picture(graph: WaitsForGraph, what: str) -> Picture:
    """Who waits for whom in a state; `what` says in which."""
    numbers = {worker: number for number, worker in enumerate(graph)}
    stuck = {worker for worker, data in graph.nodes(data=True) if data["deadlocked"]}
    nodes = []
    for worker, data in graph.nodes(data=True):
        holds = [f"holds {lock}" for lock in data["holds"]]
        nodes.append(Node((data["name"], data["transaction"] or data["status"], *holds), marked=worker in stuck))
    edges = [
        Edge(numbers[waiter], numbers[blocker], f"{data['resource']} {data['mode']}", marked={waiter, blocker} <= stuck)
        for waiter, blocker, data in graph.edges(data=True)
    ]
    title = [what, "from who waits to who is in the way, with what is asked for"]
    title += ["red: can never go on"] if stuck else []
    return Picture(tuple(title), tuple(nodes), tuple(edges))


# States


def state_picture(model: Model, graph: StateGraph) -> Picture:
    """All states, each with where its workers are; two steps that lead from one state to the same other are one arrow."""
    numbers = {state: data["number"] for state, data in graph.nodes(data=True)}
    start = graph.graph["start"]
    nodes = [
        Node(
            (str(data["number"]), *state_lines(model, state), *([data["violated"]] if data["violated"] else [])),
            marked=bool(data["violated"]),
            start=state == start,
        )
        for state, data in graph.nodes(data=True)
    ]
    labels: dict[tuple[int, int], dict[str, None]] = {}
    for before, after, data in graph.edges(data=True):
        labels.setdefault((numbers[before], numbers[after]), {})[data["label"]] = None
    edges = [Edge(before, after, " or ".join(several)) for (before, after), several in labels.items()]
    title = [f"States of {model.spec.name}, each with its number"]
    title += ["red: a property is violated, which is named"] if any(node.marked for node in nodes) else []
    return Picture(tuple(title), tuple(nodes), tuple(edges), "TB")


def state_lines(model: Model, state: State) -> Iterable[str]:
    """A state in a few words: the workers that are not idle with what they hold, and the shared variables."""
    for worker in model.view(state):
        if worker.status is not Status.IDLE or worker.holds:
            place = worker.transaction if worker.status is Status.RUNNING else str(worker.status)
            holds = ", ".join(lock.resource for lock in worker.holds)
            wants = f" → {worker.wants.resource}" if worker.wants else ""
            yield f"{worker.name} {place}" + (f": {holds}" if holds else "") + wants
    values = [
        f"{name}={str(value).lower() if isinstance(value, bool) else value}"
        for name, value in model.variables(state).items()
    ]
    if values:
        yield " ".join(values)
