"""From a circle of places to a trace that ends in it: the members run one after another, each as far as its place.

So there are as few context switches as there can be, and nobody but the members does anything. Each step is one that Semantics allows,
and the last state is a deadlock by Semantics; a circle for which that does not come out is not a deadlock of this shape.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Sequence

from lockmodel.prover.places import Places
from lockmodel.semantics import Action, Crew, Semantics, State, crew
from lockmodel.system import System
from lockmodel.trace import Trace

MAX_ORDERS = 24
"""Orders of the members that are tried where transactions do more than taking locks."""
MAX_STATES = 20_000
"""That a member's way to its place may be looked for in."""


def canonical_trace(places: Places, members: Sequence[int], *, orders: int = MAX_ORDERS) -> Trace | None:
    """A trace to the deadlock of `members`, with the roles' workers as the spec has them; None if none is found this way."""
    roles = places.staffed(members, exactly=True)
    if roles is None:
        return None
    locations = [places.places[member].location for member in members]
    return trace_to(
        places.system, roles, locations, lambda semantics, state: len(semantics.stuck(state)) >= len(roles), orders
    )


def trace_to(
    system: System,
    roles: Sequence[str],
    locations: Sequence[int],
    reached: Callable[[Semantics, State], bool],
    orders: int,
) -> Trace | None:
    """A trace in which one worker of each of the `roles` goes to its location, one after another, and nobody else does anything.

    The last state must be one that is `reached`; else up to `orders` orders of the workers are tried.
    """
    workers = _crew(system, roles)
    numbers = _numbers(workers, roles)
    semantics = Semantics(system, workers)
    targets = dict(zip(numbers, locations, strict=True))
    for order in itertools.islice(itertools.permutations(numbers), orders):
        trace = _run(semantics, [(worker, targets[worker]) for worker in order])
        if trace is not None and reached(semantics, trace.last):
            return trace
    return None


def _crew(system: System, roles: Sequence[str]) -> Crew:
    """All workers of the roles with a number, and as many of each other role as the busiest one needs."""
    open_roles = [role.name for role in system.roles if role.count is None]
    return crew(system, max((roles.count(name) for name in open_roles), default=1) or 1)


def _numbers(workers: Crew, roles: Sequence[str]) -> list[int]:
    """For each of `roles`, a worker of its own."""
    free = {name: [number for number, role in enumerate(workers.roles) if role == name] for name in set(roles)}
    return [free[role].pop(0) for role in roles]


def _run(semantics: Semantics, ways: Sequence[tuple[int, int]]) -> Trace | None:
    states, actions = [semantics.initial], list[Action]()
    for worker, target in ways:
        way = _way(semantics, states[-1], worker, target)
        if way is None:
            return None
        for action in way:
            actions.append(action)
            states.append(semantics.after(states[-1], action))
    return Trace(semantics.crew, tuple(states), tuple(actions))


def _way(semantics: Semantics, start: State, worker: int, target: int) -> list[Action] | None:
    """The shortest way of `worker` to the location `target` while nobody else moves."""
    parents: dict[State, tuple[State, Action] | None] = {start: None}
    pending = deque([start])
    while pending and len(parents) < MAX_STATES:
        here = pending.popleft()
        if here.locations[worker] == target:
            way = []
            while (parent := parents[here]) is not None:
                here, action = parent
                way.append(action)
            return way[::-1]
        for edge in semantics.location(here, worker).edges:
            if semantics.enabled(here, worker, edge):
                action = Action(worker, edge)
                following = semantics.after(here, action)
                if following not in parents:
                    parents[following] = (here, action)
                    pending.append(following)
    return None
