"""The proof on the compiled system, for the sizes as they are: for transactions that only take locks it decides, both ways.

If nobody can wait in a circle, or each circle has two members that exclude each other, no number of workers can deadlock. If a
circle is left, it becomes a trace, checked step by step. What is neither proved nor shown is left to a search.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter

from lockmodel.digraph import Digraph
from lockmodel.prover.canonical import MAX_ORDERS, canonical_trace
from lockmodel.prover.certificate import Certificate, Exclusion
from lockmodel.prover.circles import Circles
from lockmodel.prover.order import Group, Order
from lockmodel.prover.places import (
    Place,
    Places,
    TooManyWaits,
    is_straight,
    keeps_session_locks,
    waiting_places,
)
from lockmodel.system import System
from lockmodel.trace import Trace

MAX_TRIES = 200
"""Circles of one length that are tried as traces, where that may fail."""


@dataclass(frozen=True)
class Examination:
    """What the waits of a system say: a certificate, or a trace to a deadlock, or why neither.

    `straight`: whether the transactions only take locks, so that the trace has the fewest workers, and with these the fewest steps.
    """

    certificate: Certificate | None = None
    trace: Trace | None = None
    reason: str = ""
    straight: bool = False


def prove(system: System) -> Certificate | None:
    """A certificate that no number of workers can deadlock, or None if this argument does not show it."""
    return examine(system).certificate


def examine(system: System) -> Examination:
    """Prove that no number of workers can deadlock, or find a deadlock of the workers that the spec has."""
    found = waiting_places(system)
    straight = is_straight(system)
    try:
        places = Places(system, found)
    except TooManyWaits:
        # An order that all locks are taken in, whatever their modes, is a proof that needs no comparisons.
        order = _resource_order(found)
        if _acyclic(order):
            return Examination(_certificate(system, found, sum(map(len, order.values()))), straight=straight)
        return Examination(reason="there are too many places to compare", straight=straight)
    circles = Circles(places)
    proof = replace(
        _certificate(system, found, sum(map(len, places.waits))), single_roles=tuple(sorted(places.single_roles))
    )
    if circles.none:
        return Examination(proof, straight=straight)
    left = False
    for same_length in circles.by_length():
        left = True
        same_length.sort(key=lambda members: (_steps(places, members), members))
        for members in same_length[:MAX_TRIES]:
            trace = canonical_trace(places, members, orders=1 if straight else MAX_ORDERS)
            if trace is not None:
                return Examination(trace=trace, straight=straight)
    if circles.bounded:
        return Examination(reason="there are too many ways to wait in a circle to look at all", straight=straight)
    if left:
        return Examination(reason="transactions may wait for each other in a circle", straight=straight)
    order_of_families = proof.order if _acyclic(_resource_order(found)) else None
    refuted = tuple(
        Exclusion(lock, transactions, cases) for (lock, transactions), cases in circles.refuted.most_common()
    )
    return Examination(replace(proof, order=order_of_families, refuted=refuted), straight=straight)


def _steps(places: Places, members: tuple[int, ...]) -> int:
    return sum(places.places[member].distance for member in members)


def _certificate(system: System, places: list[Place], waits: int) -> Certificate:
    covers_stall = not keeps_session_locks(system)
    return Certificate(_family_order(system, places), len(places), waits, covers_stall=covers_stall)


def _family_order(system: System, places: list[Place]) -> Order | None:
    """The families in an order that all transactions follow when they wait, or None if there is none.

    Within a family, the elements must come in one order too (ascending or not: any order that all share).
    """
    resources = _resource_order(places)
    families: Digraph[str] = Digraph()
    for before, following in resources.items():
        for after in following:
            earlier, later = system.resources[before].family, system.resources[after].family
            if earlier != later:
                families.add_edge(earlier, later)
    if not _acyclic(resources) or families.circles():
        return None
    declared = {resource.family: index for index, resource in reversed(list(enumerate(system.resources)))}
    return Order(tuple(Group((name,)) for name in families.sorted_by(declared.__getitem__)))


def _resource_order(places: list[Place]) -> dict[int, set[int]]:
    """For each resource, those that some place asks for while it holds it."""
    later: dict[int, set[int]] = defaultdict(set)
    for place in places:
        for hold in place.held:
            later[hold.resource].add(place.request.resource)
    return later


def _acyclic(graph: dict[int, set[int]]) -> bool:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError:
        return False
    return True
