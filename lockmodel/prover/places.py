"""Where workers of a compiled system wait, and which may wait for which.

Locks held are a function of the location, so a deadlock of any number of workers needs locations l1 … lk, each waiting, pairwise
compatible in what they hold, where each waits for a lock that the next one holds, and the last for one of the first. What guards,
branches and try-locks do can only make fewer locations reachable together. A unit of a pool is such a lock too, which keeps nobody apart, and
which a worker may wait for that holds one itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lockmodel.prover.staff import Staff
from lockmodel.system import ActionKind, Edge, Hold, Request, Status, System

MAX_CHECKS = 1_000_000
MAX_WAITS = 200_000
"""Comparisons of two places, and pairs of them, that a proof may take. Beyond that only a lock order can prove anything."""


@dataclass(frozen=True)
class Place:
    """A situation in which a worker holds locks and waits for another one.

    `location` is the nearest of the locations where this is so, `distance` transitions from idle.
    """

    transaction: str
    held: frozenset[Hold]
    request: Request
    location: int
    distance: int


class TooManyWaits(Exception):
    """There are too many places to compare them with each other."""


class Places:
    """The places of `system`; `waits[i]` are those that place i may wait for.

    Raises TooManyWaits. Two places that only the one worker of a role can be at don't wait for each other; `single_roles` are the roles
    for which that mattered.
    """

    def __init__(self, system: System, places: Sequence[Place] | None = None) -> None:
        self.system = system
        self.places = tuple(places if places is not None else waiting_places(system))
        self._held = [_modes(place) for place in self.places]
        self._staff = Staff(system)
        self.single_roles: set[str] = set()
        self.waits = self._waits()

    def compatible(self, first: int, second: int) -> bool:
        """Whether two workers can hold the locks of these places at the same time."""
        return self.apart(first, second) is None

    def waits_for_itself(self, index: int) -> bool:
        """Whether a worker at this place asks for one more unit of a pool of which it holds some."""
        wanted = self.places[index].request.resource
        return self.system.resources[wanted].capacity is not None and wanted in self._held[index]

    def apart(self, first: int, second: int) -> int | None:
        """The resource of which the two places hold conflicting modes; None if they are compatible."""
        few, many = sorted((self._held[first], self._held[second]), key=len)
        for resource, modes in few.items():
            for other in many.get(resource, ()):
                if any(self.system.resources[resource].kind.conflict(mode, other) for mode in modes):
                    return resource
        return None

    def staffed(self, members: Iterable[int], *, exactly: bool) -> list[str] | None:
        """A role for each of the places, such that there are workers enough; None if there are not (see `Staff.roles`)."""
        return self._staff.roles([self.places[member].transaction for member in members], exactly=exactly)

    def _waits(self) -> list[set[int]]:
        holders: dict[int, list[int]] = defaultdict(list)
        for index, resources in enumerate(self._held):
            for resource in resources:
                holders[resource].append(index)
        waits: list[set[int]] = [set() for _ in self.places]
        checks = count = 0
        for index, place in enumerate(self.places):
            wanted = place.request
            kind = self.system.resources[wanted.resource].kind
            for other in holders[wanted.resource]:
                checks += 1 + min(len(self._held[index]), len(self._held[other])) // 2
                if checks > MAX_CHECKS or count > MAX_WAITS:
                    raise TooManyWaits
                counted = self.system.resources[wanted.resource].capacity is not None
                if not counted and not any(
                    kind.conflict(mode, wanted.mode) for mode in self._held[other][wanted.resource]
                ):
                    continue
                if self.waits_for_itself(index) and other == index:
                    waits[index].add(index)
                    count += 1
                elif self.compatible(index, other) and self._two_workers(place.transaction, self.places[other]):
                    waits[index].add(other)
                    count += 1
        return waits

    def _two_workers(self, transaction: str, other: Place) -> bool:
        first, second = self._staff.of(transaction), self._staff.of(other.transaction)
        if not first or not second:
            return False
        if first == second and len(first) == 1 and first[0].count == 1:
            self.single_roles.add(first[0].name)
            return False
        return True


def waiting_places(system: System) -> list[Place]:
    """The places of `system` in the order of their locations, each once."""
    found: dict[object, Place] = {}
    distances = system.distances()
    run = _run_at_all(system)
    for location in system.locations:
        if location.request is None or not location.waits or not location.held or location.transaction not in run:
            continue
        place = Place(
            location.transaction or "",
            frozenset(location.held),
            location.request,
            location.index,
            distances[location.index],
        )
        key = (place.transaction, place.held, place.request)
        if key not in found or found[key].distance > place.distance:
            found[key] = place
    return list(found.values())


def waits_for_pools(system: System) -> bool:
    """Whether some worker may have to wait for a unit of a pool."""
    run = _run_at_all(system)
    return any(
        location.request is not None
        and location.waits
        and location.transaction in run
        and system.resources[location.request.resource].capacity is not None
        for location in system.locations
    )


def is_straight(system: System) -> bool:
    """Whether transactions only take locks, wait for them and keep them to the end.

    Then whoever can hold what it holds at a place can get there beside all others whose locks are compatible: the locks that it takes
    on its way are those that it has in the end. So each circle of pairwise compatible places is a deadlock that can happen.
    """
    plain = {
        ActionKind.START, ActionKind.ACQUIRE, ActionKind.COMMIT, ActionKind.ROLLBACK, ActionKind.RECYCLE,
        ActionKind.SAVEPOINT,
    }  # fmt: skip
    return all(
        edge.action in plain
        and edge.guard is None
        and edge.update is None
        and not edge.faults
        and not any(_is_special(system, request) for request in edge.requests)
        and (edge.action is not ActionKind.ACQUIRE or _keeps(system, location.index, edge))
        for location in system.locations
        for edge in location.edges
    )


def _keeps(system: System, source: int, edge: Edge) -> bool:
    """Whether after `edge` all is held that was held before, and what it takes."""
    wanted = {Hold(request.resource, request.mode) for request in edge.requests}
    return wanted.union(system.locations[source].held) <= set(system.locations[edge.target].held)


def keeps_session_locks(system: System) -> bool:
    """Whether a worker may hold a lock while it runs no transaction."""
    return any(location.held for location in system.locations if location.status is not Status.RUNNING)


def _is_special(system: System, request: Request) -> bool:
    resource = system.resources[request.resource]
    return resource.session or resource.capacity is not None


def _run_at_all(system: System) -> set[str]:
    """The transactions that some worker runs."""
    return {transaction for role in system.roles if role.count != 0 for transaction in role.transactions}


def _modes(place: Place) -> dict[int, list[str]]:
    """The modes in which `place` holds each of its resources."""
    modes: dict[int, list[str]] = defaultdict(list)
    for hold in place.held:
        modes[hold.resource].append(hold.mode)
    return dict(modes)
