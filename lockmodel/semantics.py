"""What a global state means: who holds what, who waits for whom, who can never go on, and what can happen next.

This is docs/language.md's section "Meaning" in code, for a `System` and a fixed crew of workers. It is written to be checked by
eye: every question is answered from the locks that the workers hold in that state, without tables.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from lockmodel.errors import Position, SpecError, UsageError
from lockmodel.system import ActionKind, Edge, Hold, Location, Request, Status, System

MAX_CREW = 4096


class State(NamedTuple):
    """A global state: the location of each worker and the valuation of the shared variables, by index."""

    locations: tuple[int, ...]
    valuation: int


@dataclass(frozen=True)
class Action:
    """One possible transition: worker `worker` (counted from 0) takes `edge`."""

    worker: int
    edge: Edge


@dataclass(frozen=True)
class Crew:
    """The workers of one exploration: for each, its name and the transactions that it runs."""

    names: tuple[str, ...]
    roles: tuple[str, ...]
    transactions: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.names)


def crew(system: System, any_count: int) -> Crew:
    """The workers of `system`, with `any_count` of each role that may have any number.

    Raises UsageError if they are too many to tell apart.
    """
    names, roles, transactions = [], [], []
    total = sum(any_count if role.count is None else role.count for role in system.roles)
    if total > MAX_CREW:
        raise UsageError(f"{total:,} workers are too many; the most is {MAX_CREW:,}")
    for role in system.roles:
        for number in range(1, (any_count if role.count is None else role.count) + 1):
            names.append(f"{role.name} {number}")
            roles.append(role.name)
            transactions.append(role.transactions)
    return Crew(tuple(names), tuple(roles), tuple(transactions))


class Semantics:
    """The meaning of `system` for the workers in `workers`."""

    def __init__(self, system: System, workers: Crew) -> None:
        self.system = system
        self.crew = workers
        self.initial = State((0,) * len(workers), system.initial_valuation)

    def location(self, state: State, worker: int) -> Location:
        return self.system.locations[state.locations[worker]]

    def blockers(self, state: State, worker: int, request: Request) -> list[int]:
        """The other workers whose locks make `request` by `worker` wait; empty: it is granted.

        For a pool without a free unit, all who hold one, `worker` itself included.
        """
        resource = self.system.resources[request.resource]
        if resource.capacity is not None:
            units = {
                other: sum(hold.resource == request.resource for hold in self.location(state, other).held)
                for other in range(len(self.crew))
            }
            return (
                [other for other, count in units.items() if count] if sum(units.values()) >= resource.capacity else []
            )
        return [
            other
            for other in range(len(self.crew))
            if other != worker
            and any(self.system.conflicts(hold, request) for hold in self.location(state, other).held)
        ]

    def waiting(self, state: State) -> dict[int, list[int]]:
        """Each worker that waits for a lock, with those it waits for."""
        result = {}
        for worker in range(len(self.crew)):
            location = self.location(state, worker)
            if location.request is not None and location.waits:
                blockers = self.blockers(state, worker, location.request)
                if blockers:
                    result[worker] = blockers
        return result

    def stuck(self, state: State, waiting: Mapping[int, list[int]] | None = None) -> frozenset[int]:
        """The workers that can never go on: the deadlock of this state, if not empty.

        Found by elimination: of all that wait, whoever could be freed by workers outside the set leaves it.
        """
        waiting = self.waiting(state) if waiting is None else waiting
        stuck = set(waiting)
        while freed := {worker for worker in stuck if not self._hopeless(state, worker, waiting[worker], stuck)}:
            stuck -= freed
        return frozenset(stuck)

    def _hopeless(self, state: State, worker: int, blockers: list[int], stuck: set[int]) -> bool:
        """Whether `worker` must wait for ever if none of `stuck` ever goes on."""
        request = self.location(state, worker).request
        assert request is not None
        capacity = self.system.resources[request.resource].capacity
        if capacity is None:
            return any(blocker in stuck for blocker in blockers)
        kept = sum(
            hold.resource == request.resource
            for blocker in blockers
            if blocker in stuck
            for hold in self.location(state, blocker).held
        )
        return kept >= capacity

    def stalled(self, state: State, waiting: Mapping[int, list[int]] | None = None) -> bool:
        """Whether some worker is running and every running worker waits."""
        waiting = self.waiting(state) if waiting is None else waiting
        running = [w for w in range(len(self.crew)) if self.location(state, w).status is Status.RUNNING]
        return bool(running) and all(worker in waiting for worker in running)

    def delayed(self, state: State) -> dict[int, list[int]]:
        """Each worker that nobody's locks keep from going on, but that waits in a queue all the same: with those ahead of it, who wait without end.

        Postgres grants locks in the order of the requests: who asks for what conflicts with an earlier request waits behind it, unless it holds
        what that one waits for (ProcSleep in src/backend/storage/lmgr/proc.c). Any order of requests can come about, so here everybody
        whose request is free has come last. A wait that a lock_timeout ends is not without end.
        """
        queued = {
            worker: location.request
            for worker in range(len(self.crew))
            if (location := self.location(state, worker)).request is not None
            and location.request.queues
            and self.system.resources[location.request.resource].kind.first_come
        }
        in_the_way = {worker: self.blockers(state, worker, request) for worker, request in queued.items()}
        result = {}
        for worker, request in queued.items():
            if in_the_way[worker]:
                continue
            ahead = [
                other
                for other, earlier in queued.items()
                if in_the_way[other]
                and worker not in in_the_way[other]
                and earlier.endless
                and self.system.conflicts(Hold(earlier.resource, earlier.mode), request)
            ]
            if ahead:
                result[worker] = ahead
        return result

    def enabled(self, state: State, worker: int, edge: Edge) -> bool:
        """Whether `worker` can take `edge` now. Raises SpecError where the step has no meaning in this state."""
        if edge.transaction is not None and edge.transaction not in self.crew.transactions[worker]:
            return False
        if edge.guard is not None and state.valuation not in edge.guard and state.valuation not in edge.faults:
            return False
        blocked = any(self.blockers(state, worker, request) for request in edge.requests)
        if blocked is not (edge.action is ActionKind.REFUSE):
            return False
        if state.valuation in edge.faults:
            raise SpecError(edge.position or Position(self.system.name), edge.faults[state.valuation])
        return True

    def actions(self, state: State) -> Iterator[Action]:
        """Everything that can happen in `state`."""
        for worker in range(len(self.crew)):
            for edge in self.location(state, worker).edges:
                if self.enabled(state, worker, edge):
                    yield Action(worker, edge)

    def after(self, state: State, action: Action) -> State:
        """The state that `action` leads to."""
        locations = list(state.locations)
        locations[action.worker] = action.edge.target
        update = action.edge.update
        return State(tuple(locations), state.valuation if update is None else update[state.valuation])
