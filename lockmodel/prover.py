"""Proof of absence for any number of workers.

Locks held are a function of the location, so a deadlock of any number of workers needs locations l1 … lk, each waiting, pairwise
compatible in what they hold, where each li waits for a lock that l(i+1) holds, and lk for one of l1. If the graph of "may wait for"
between locations has no cycle, there is none for any number of workers, whatever guards, branches and try-locks do
(they can only make fewer locations reachable together). The graph is an over-approximation: a cycle in it proves nothing, and the
search decides.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import networkx

from lockmodel.system import Hold, Location, Request, System


@dataclass(frozen=True)
class Certificate:
    """Why no number of workers can deadlock.

    `order`: the order in which every transaction takes its locks, resource families that are never waited for while another lock is
    held left out; None if there is no single order and it is the locks held together that exclude each cycle.
    `requests` and `waits`: the size of the acyclic graph that the proof rests on.
    """

    order: tuple[str, ...] | None
    requests: int
    waits: int


@dataclass(frozen=True)
class _Point:
    """A situation in which a worker may wait: what it holds, and what it asks for."""

    held: frozenset[Hold]
    request: Request


def prove(system: System) -> Certificate | None:
    """A certificate that no number of workers can deadlock, or None if this argument does not show it."""
    if any(_waits_for_pool(system, location) for location in system.locations):
        return None
    points = list(dict.fromkeys(
        _Point(frozenset(location.held), location.request)
        for location in system.locations
        if location.request is not None and location.waits and location.held
    ))  # fmt: skip
    holders: dict[int, list[int]] = defaultdict(list)
    for index, point in enumerate(points):
        for resource in {hold.resource for hold in point.held}:
            holders[resource].append(index)
    graph: networkx.DiGraph[int] = networkx.DiGraph()
    for index, point in enumerate(points):
        graph.add_edges_from(
            (index, other)
            for other in holders[point.request.resource]
            if any(system.conflicts(hold, point.request) for hold in points[other].held)
            and _compatible(system, point.held, points[other].held)
        )
    if not networkx.is_directed_acyclic_graph(graph):
        return None
    return Certificate(_lock_order(system), len(points), graph.number_of_edges())


def _waits_for_pool(system: System, location: Location) -> bool:
    request = location.request
    return request is not None and location.waits and system.resources[request.resource].capacity is not None


def _compatible(system: System, first: Iterable[Hold], second: Iterable[Hold]) -> bool:
    """Whether two workers can hold these locks at the same time."""
    kept = list(second)
    return not any(
        hold.resource == other.resource and system.resources[hold.resource].kind.conflict(hold.mode, other.mode)
        for hold in first
        for other in kept
    )


def _lock_order(system: System) -> tuple[str, ...] | None:
    """The families in an order that all transactions follow when they wait, or None if there is none.

    Within a family, the elements must come in one order too (ascending or not: any order that all share).
    """
    resources: networkx.DiGraph[int] = networkx.DiGraph()
    families: networkx.DiGraph[str] = networkx.DiGraph()
    for location in system.locations:
        if location.request is None or not location.waits:
            continue
        for hold in location.held:
            earlier, later = system.resources[hold.resource], system.resources[location.request.resource]
            if hold.resource != location.request.resource:
                resources.add_edge(hold.resource, location.request.resource)
            if earlier.family != later.family:
                families.add_edge(earlier.family, later.family)
    if not networkx.is_directed_acyclic_graph(resources) or not networkx.is_directed_acyclic_graph(families):
        return None
    return tuple(networkx.lexicographical_topological_sort(families))
