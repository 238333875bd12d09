"""Walks a system one transition at a time, as `semantics` means it, but quickly: it knows who holds each resource.

A walk answers one question fast, whether a worker can go on, and keeps what it saw: locations, and who waited for whom.
"""

from __future__ import annotations

from collections import defaultdict

from lockmodel.errors import Position, SpecError
from lockmodel.modes import Wait
from lockmodel.semantics import Crew, State
from lockmodel.system import ActionKind, Edge, Location, Request, System

WaitsFor = tuple[str, str, str]
"""A transaction, the family of the resource it waits for, and the transaction that holds it."""


class Seen:
    """What walks came to: the locations, and the waits between transactions."""

    def __init__(self) -> None:
        self.locations: set[int] = {0}
        self.waits: set[WaitsFor] = set()


class Walker:
    """One walk of `crew` from the initial state. Each worker starts at most `rounds` transactions."""

    def __init__(self, system: System, crew: Crew, rounds: int, seen: Seen) -> None:
        self.system = system
        self.crew = crew
        self.at = [system.locations[0]] * len(crew)
        self.valuation = system.initial_valuation
        self.left = [rounds] * len(crew)
        self._seen = seen
        self._holders: dict[int, dict[int, list[str]]] = defaultdict(dict)
        self._runs = [frozenset(transactions) for transactions in crew.transactions]

    @property
    def state(self) -> State:
        return State(tuple(location.index for location in self.at), self.valuation)

    def options(self, worker: int) -> list[Edge]:
        """The steps that `worker` can take now; none, for one that has started all its transactions."""
        found = []
        location = self.at[worker]
        for edge in location.edges:
            if edge.transaction is not None and (not self.left[worker] or edge.transaction not in self._runs[worker]):
                continue
            faulty = bool(edge.faults) and self.valuation in edge.faults
            if edge.guard is not None and self.valuation not in edge.guard and not faulty:
                continue
            if edge.requests:
                blocked = any(self.blockers(worker, request) for request in edge.requests)
                if blocked is not (edge.action is ActionKind.REFUSE):
                    continue
            if faulty:
                raise SpecError(edge.position or Position(self.system.name), edge.faults[self.valuation])
            found.append(edge)
        return found

    def blockers(self, worker: int, request: Request) -> list[int]:
        """As `Semantics.blockers`."""
        resource = self.system.resources[request.resource]
        holders = self._holders.get(request.resource)
        if not holders:
            return []
        if resource.capacity is not None:
            return list(holders) if sum(map(len, holders.values())) >= resource.capacity else []
        conflicting = resource.kind.conflicts[request.mode]
        found = [
            other for other, modes in holders.items() if other != worker and any(mode in conflicting for mode in modes)
        ]
        if found and request.wait is Wait.BLOCK and self.at[worker].request == request:
            self._note(worker, resource.family, found)
        return found

    def take(self, worker: int, edge: Edge) -> None:
        """Let `worker` take `edge`, which is one of its options."""
        before, after = self.at[worker], self.system.locations[edge.target]
        if edge.action is ActionKind.START:
            self.left[worker] -= 1
        if before.held != after.held:
            for hold in before.held:
                self._holders[hold.resource].pop(worker, None)
            for hold in after.held:
                self._holders[hold.resource].setdefault(worker, []).append(hold.mode)
        self.at[worker] = after
        if edge.update is not None:
            self.valuation = edge.update[self.valuation]
        self._seen.locations.add(after.index)

    def closes_a_cycle(self, worker: int) -> bool:
        """Whether `worker` waits, directly or not, for itself. A step can only make a deadlock that its own worker is in."""
        pending = self._waits_for(worker)
        reached: set[int] = set()
        while pending:
            other = pending.pop()
            if other == worker:
                return True
            if other not in reached:
                reached.add(other)
                pending += self._waits_for(other)
        return False

    def _waits_for(self, worker: int) -> list[int]:
        location = self.at[worker]
        return self.blockers(worker, location.request) if location.waits and location.request is not None else []

    def _note(self, worker: int, family: str, holders: list[int]) -> None:
        mine = self.at[worker].transaction
        for other in holders:
            theirs = self.at[other].transaction
            if mine is not None and theirs is not None:
                self._seen.waits.add((mine, family, theirs))


def possible_waits(system: System) -> set[WaitsFor]:
    """Every wait between two transactions that their locks and modes allow, reachable or not."""
    holding: dict[int, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    asking: dict[int, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for location in system.locations:
        if location.transaction is None:
            continue
        for hold in location.held:
            holding[hold.resource][hold.mode].add(location.transaction)
        if location.waits and location.request is not None:
            asking[location.request.resource][location.request.mode].add(location.transaction)
    found: set[WaitsFor] = set()
    for number, modes in asking.items():
        resource = system.resources[number]
        for wanted, waiters in modes.items():
            for held, holders in holding.get(number, {}).items():
                if resource.capacity is not None or resource.kind.conflict(held, wanted):
                    found |= {(mine, resource.family, theirs) for mine in waiters for theirs in holders}
    return found


def longest_transaction(system: System) -> int:
    """The most transitions from idle back to idle: a transaction has no way back, so this is a longest path."""
    order: list[Location] = []
    done: set[int] = set()
    stack: list[tuple[int, bool]] = [(0, False)]
    while stack:
        here, leaving = stack.pop()
        if leaving:
            order.append(system.locations[here])
            continue
        if here in done:
            continue
        done.add(here)
        stack.append((here, True))
        stack += [(edge.target, False) for edge in _onwards(system.locations[here])]
    length: dict[int, int] = {}
    for location in order:
        length[location.index] = max((1 + length.get(edge.target, 0) for edge in _onwards(location)), default=1)
    return length[0]


def _onwards(location: Location) -> list[Edge]:
    return [edge for edge in location.edges if edge.action is not ActionKind.RECYCLE]
