"""Proof of absence for any number of workers.

Locks held are a function of the location, so a deadlock of any number of workers needs locations l1 … lk, each waiting, pairwise
compatible in what they hold, where each li waits for a lock that l(i+1) holds, and lk for one of l1. If the graph of "may wait for"
between locations has no cycle, there is none for any number of workers, whatever guards, branches and try-locks do
(they can only make fewer locations reachable together). The graph is an over-approximation: a cycle in it proves nothing, and the
search decides.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

import networkx

from lockmodel.system import Hold, Location, Request, System

MAX_CHECKS = 1_000_000
MAX_WAITS = 200_000
"""Comparisons of two points, and edges of the graph, that a proof may take. Beyond that only a lock order can prove anything."""


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
    waits = _waits(system, points)
    if waits is None:
        # Too many to compare. An order that all locks are taken in, whatever their modes, is a proof that needs no comparisons.
        order = _order(points)
        return Certificate(_lock_order(system), len(points), sum(map(len, order.values()))) if _acyclic(order) else None
    if not networkx.is_directed_acyclic_graph(waits):
        return None
    return Certificate(_lock_order(system), len(points), waits.number_of_edges())


def _waits(system: System, points: list[_Point]) -> networkx.DiGraph[int] | None:
    """The graph of "may wait for" between points; None if it would take too long."""
    held = [_modes_held(point) for point in points]
    holders: dict[int, list[int]] = defaultdict(list)
    for index, resources in enumerate(held):
        for resource in resources:
            holders[resource].append(index)
    graph: networkx.DiGraph[int] = networkx.DiGraph()
    checks = waits = 0
    for index, point in enumerate(points):
        wanted = point.request
        kind = system.resources[wanted.resource].kind
        for other in holders[wanted.resource]:
            checks += 1 + min(len(held[index]), len(held[other])) // 2
            if checks > MAX_CHECKS or waits > MAX_WAITS:
                return None
            if any(kind.conflict(mode, wanted.mode) for mode in held[other][wanted.resource]):
                if _compatible(system, held[index], held[other]):
                    graph.add_edge(index, other)
                    waits += 1
    return graph


def _order(points: list[_Point]) -> dict[int, set[int]]:
    """For each resource, those that some point asks for while it holds it."""
    later: dict[int, set[int]] = defaultdict(set)
    for point in points:
        for hold in point.held:
            later[hold.resource].add(point.request.resource)
    return later


def _acyclic(graph: dict[int, set[int]]) -> bool:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError:
        return False
    return True


def _waits_for_pool(system: System, location: Location) -> bool:
    request = location.request
    return request is not None and location.waits and system.resources[request.resource].capacity is not None


def _modes_held(point: _Point) -> dict[int, list[str]]:
    """The modes in which `point` holds each of its resources."""
    modes: dict[int, list[str]] = defaultdict(list)
    for hold in point.held:
        modes[hold.resource].append(hold.mode)
    return modes


def _compatible(system: System, first: dict[int, list[str]], second: dict[int, list[str]]) -> bool:
    """Whether two workers can hold these locks at the same time."""
    few, many = sorted((first, second), key=len)
    return not any(
        system.resources[resource].kind.conflict(mode, other)
        for resource, modes in few.items()
        if resource in many
        for mode in modes
        for other in many[resource]
    )


def _lock_order(system: System) -> tuple[str, ...] | None:
    """The families in an order that all transactions follow when they wait, or None if there is none.

    Within a family, the elements must come in one order too (ascending or not: any order that all share).
    """
    resources: dict[int, set[int]] = defaultdict(set)
    families: networkx.DiGraph[str] = networkx.DiGraph()
    for location in system.locations:
        if location.request is not None and location.waits:
            for hold in location.held:
                if hold.resource != location.request.resource:
                    resources[hold.resource].add(location.request.resource)
    for before, following in resources.items():
        for after in following:
            earlier, later = system.resources[before].family, system.resources[after].family
            if earlier != later:
                families.add_edge(earlier, later)
    if not _acyclic(resources) or not networkx.is_directed_acyclic_graph(families):
        return None
    return tuple(networkx.lexicographical_topological_sort(families))
