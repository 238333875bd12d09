"""Whether anybody can be held up by the queue of a lock alone: a *stall*, for any number of workers.

It takes three: a holder, a waiter that asks for what conflicts with it, and one whose request conflicts with the waiter's only. Which locks they hold is a
function of where they are; so if no three places fit together, no number of workers stalls. Where transactions only take locks, places that
fit together can be reached: run the three one after another, each as far as its place.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from lockmodel.prover.canonical import MAX_ORDERS, trace_to
from lockmodel.prover.places import is_straight, keeps_session_locks
from lockmodel.prover.staff import Staff
from lockmodel.system import Hold, Location, Request, Status, System
from lockmodel.trace import Trace

MAX_TRIPLES = 2_000_000
"""Sets of three places that are looked at."""
MAX_TRIES = 50
"""Of the smallest that fit together, how many are tried as traces where transactions do more than taking locks."""


@dataclass(frozen=True)
class QueueExamination:
    """`proved`: nobody can stall. `trace`: a schedule that ends in a stall. Neither: why not.

    `requests`: in how many situations somebody may stand in a queue.
    """

    proved: bool = False
    requests: int = 0
    trace: Trace | None = None
    reason: str = ""


@dataclass(frozen=True)
class _Place:
    transaction: str
    held: frozenset[Hold]
    request: Request | None
    location: int
    distance: int


def examine_queues(system: System) -> QueueExamination:
    """Prove that nobody can be delayed by a queue alone, or find the shortest schedule in which somebody is."""
    if keeps_session_locks(system):
        return QueueExamination(reason="locks that outlive their transaction may be in the way")
    straight = is_straight(system)
    places = _places(system)
    asking = [place for place in places if place.request is not None and _queues(system, place.request)]
    staff = Staff(system)
    left = MAX_TRIPLES
    seen: set[tuple[int, ...]] = set()
    best: list[tuple[tuple[int, ...], tuple[_Place, _Place, _Place]]] = []
    for three in _triples(system, places, asking):
        left -= 1
        if left < 0:
            return QueueExamination(requests=len(asking), reason="there are too many ways to queue to look at all")
        if staff.roles([place.transaction for place in three], exactly=False) is not None:
            # The shortest first; of equal ones, the holder that the spec has first.
            rank = (-sum(place.distance for place in three), *(-place.location for place in three))
            entry = (rank, three)
            if rank not in seen:
                seen.add(rank)
                (heapq.heappush if len(best) < MAX_TRIES else heapq.heappushpop)(best, entry)
    if not best:
        return QueueExamination(proved=True, requests=len(asking))
    for _, three in sorted(best, key=lambda entry: entry[0], reverse=True):
        roles = staff.roles([place.transaction for place in three], exactly=True)
        if roles is None:
            continue
        locations = [place.location for place in three]
        trace = trace_to(
            system,
            roles,
            locations,
            lambda semantics, state: bool(semantics.delayed(state)),
            1 if straight else MAX_ORDERS,
        )
        if trace is not None:
            return QueueExamination(requests=len(asking), trace=trace)
    return QueueExamination(requests=len(asking), reason="somebody may be held up by a queue")


def _queues(system: System, request: Request) -> bool:
    return request.queues and system.resources[request.resource].kind.first_come


def _places(system: System) -> list[_Place]:
    """The situations in which a worker runs, each where it is nearest: what it holds, and what it asks for."""
    run = {transaction for role in system.roles if role.count != 0 for transaction in role.transactions}
    distances = system.distances()
    found: dict[object, _Place] = {}
    for location in system.locations:
        if location.status is not Status.RUNNING or location.transaction not in run or location.index not in distances:
            continue
        place = _place(location, distances[location.index])
        key = (place.transaction, place.held, place.request)
        if key not in found or found[key].distance > place.distance:
            found[key] = place
    return list(found.values())


def _place(location: Location, distance: int) -> _Place:
    return _Place(location.transaction or "", frozenset(location.held), location.request, location.index, distance)


def _triples(
    system: System, places: Iterable[_Place], asking: Iterable[_Place]
) -> Iterator[tuple[_Place, _Place, _Place]]:
    """Holder, waiter and delayed, whose locks fit together; the holder is the last of the three to begin to matter, so it may do anything."""
    holders: dict[int, list[_Place]] = defaultdict(list)
    for place in places:
        for resource in {hold.resource for hold in place.held}:
            holders[resource].append(place)
    requests: dict[int, list[tuple[_Place, Request]]] = defaultdict(list)
    for place in asking:
        assert place.request is not None
        requests[place.request.resource].append((place, place.request))
    for resource, askers in requests.items():
        kind = system.resources[resource].kind
        for waiter, earlier in askers:
            if not earlier.endless:
                continue
            blocking = [one for one in holders[resource] if _blocks(system, one, earlier) and _fit(system, one, waiter)]
            for delayed, later in askers:
                if not kind.conflict(earlier.mode, later.mode) or _blocks(system, delayed, earlier):
                    continue
                if _blocks(system, waiter, later) or not _fit(system, waiter, delayed):
                    continue
                for holder in blocking:
                    if not _blocks(system, holder, later) and _fit(system, holder, delayed):
                        yield holder, waiter, delayed


def _blocks(system: System, place: _Place, request: Request) -> bool:
    return any(system.conflicts(hold, request) for hold in place.held)


def _fit(system: System, first: _Place, second: _Place) -> bool:
    """Whether two workers can hold the locks of these places at the same time."""
    return not any(
        system.conflicts(hold, Request(other.resource, other.mode)) for hold in first.held for other in second.held
    )
