"""All deadlocks of a system, not only the first: grouped by the transactions in the circle and the resources that they wait for.

Where transactions only take locks, the circles of waits are the deadlocks. Elsewhere a search of all states finds them, and circles
only those that the search did not come to.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from lockmodel.explanation import find_cycle, view
from lockmodel.exploration import Limits
from lockmodel.prover.canonical import canonical_trace
from lockmodel.prover.circles import Circles
from lockmodel.prover.places import Places, TooManyWaits, is_straight, waits_for_pools
from lockmodel.semantics import Action, Crew, Semantics, State, crew
from lockmodel.system import System
from lockmodel.trace import Trace

MAX_STATES = 100_000
"""That are searched for deadlocks, unless another limit is given. It keeps every state, and looks closer at each than `check` does."""
OPEN_COUNTS = (2, 3)
"""The numbers of workers that are searched where the spec says `any`."""
MAX_TRIES = 100
"""Circles of one group that are tried as traces, where that may fail."""


@dataclass(frozen=True)
class DeadlockGroup:
    """Deadlocks that differ in their elements only.

    `transactions` are those of the members, `families` the resources that they wait for, both sorted; `ways` is in how many ways members can
    hold and want what closes such a circle, `trace` the shortest to one of them.
    """

    transactions: tuple[str, ...]
    families: tuple[str, ...]
    ways: int
    trace: Trace


@dataclass(frozen=True)
class Deadlocks:
    """The groups, the smallest circles and shortest traces first. `incomplete`: why there may be more; empty if these are all."""

    groups: tuple[DeadlockGroup, ...] = ()
    incomplete: str = ""


def deadlocks(system: System, limits: Limits | None = None) -> Deadlocks:
    """All deadlocks that the workers of `system` can get into."""
    limits = limits or Limits()
    found = _Found()
    straight = is_straight(system)
    reasons = [] if straight else list(_search(system, limits, found))
    if not waits_for_pools(system):
        reasons += _circles(system, found, straight)
    groups = [
        DeadlockGroup(*key, len(found.ways[key]), trace) for key, trace in found.traces.items()
    ]  # fmt: skip
    groups.sort(key=lambda group: (len(group.transactions), len(group.trace), group.transactions, group.families))
    return Deadlocks(tuple(groups), "; ".join(dict.fromkeys(reasons)))


def group_of(system: System, trace: Trace) -> DeadlockGroup:
    """The one deadlock that `trace` ends in, as a group."""
    semantics = Semantics(system, trace.crew)
    last = view(semantics, trace.last)
    members = [last[worker] for worker in find_cycle(last)]
    families = {member.wants.resource.partition("[")[0] for member in members if member.wants}
    return DeadlockGroup(tuple(sorted(m.transaction or "" for m in members)), tuple(sorted(families)), 1, trace)


_Key = tuple[tuple[str, ...], tuple[str, ...]]


@dataclass
class _Found:
    """For each group a trace, and the circles that are in it, each by what tells it from the others."""

    traces: dict[_Key, Trace] = field(default_factory=dict)
    ways: dict[_Key, set[object]] = field(default_factory=dict)


def _circles(system: System, found: _Found, straight: bool) -> Iterator[str]:
    try:
        places = Places(system)
    except TooManyWaits:
        yield "there are too many places to compare"
        return
    circles = Circles(places)
    groups: dict[_Key, list[tuple[int, ...]]] = {}
    for same_length in circles.by_length():
        for members in same_length:
            if places.staffed(members, exactly=True) is not None:
                waiting = [places.places[member] for member in members]
                key = (
                    tuple(sorted(place.transaction for place in waiting)),
                    tuple(sorted({system.resources[place.request.resource].family for place in waiting})),
                )
                groups.setdefault(key, []).append(members)
    for key, ways in groups.items():
        if key in found.traces:
            continue
        ways.sort(key=lambda members: (sum(places.places[member].distance for member in members), members))
        tried = ways if straight else ways[:MAX_TRIES]
        trace = next(filter(None, (canonical_trace(places, members) for members in tried)), None)
        if trace is not None:
            found.traces[key] = trace
            found.ways[key] = set(ways) if straight else {ways[0]}
    if circles.bounded:
        yield "there are too many circles of waits to look at all"


def _search(system: System, limits: Limits, found: _Found) -> Iterator[str]:
    """Search all states with the workers that the spec has, or with few."""
    started = time.monotonic()
    is_open = any(role.count is None for role in system.roles)
    for count in OPEN_COUNTS if is_open else (1,):
        workers = crew(system, count)
        stopped = _search_with(system, workers, limits, started, found)
        if stopped:
            yield f"the search with {len(workers)} workers {stopped}"
            return
    if is_open:
        yield f"deadlocks of more than {OPEN_COUNTS[-1]} workers were not searched for"


def _search_with(system: System, workers: Crew, limits: Limits, started: float, found: _Found) -> str:
    semantics = Semantics(system, workers)
    parents: dict[State, tuple[State, Action] | None] = {semantics.initial: None}
    queue = [semantics.initial]
    most = limits.max_states or MAX_STATES
    timeout = limits.timeout_seconds
    for state in queue:
        if timeout is not None and time.monotonic() - started + limits.spent_seconds > timeout:
            return f"reached the time limit of {timeout:g} s"
        _note(semantics, state, parents, found)
        for action in semantics.actions(state):
            following = semantics.after(state, action)
            if following not in parents:
                if len(parents) >= most:
                    return f"reached the limit of {most:,} states"
                parents[following] = (state, action)
                queue.append(following)
    return ""


def _note(semantics: Semantics, state: State, parents: dict[State, tuple[State, Action] | None], found: _Found) -> None:
    waiting = semantics.waiting(state)
    if not waiting or not semantics.stuck(state, waiting):
        return
    workers = view(semantics, state)
    cycle = find_cycle(workers)
    members = [workers[number] for number in cycle]
    key = (
        tuple(sorted(member.transaction or "" for member in members)),
        tuple(sorted({member.wants.resource.partition("[")[0] for member in members if member.wants})),
    )
    if key not in found.traces:
        found.traces[key] = _trace(semantics, state, parents)
    places = (semantics.location(state, number) for number in cycle)
    found.ways.setdefault(key, set()).add(
        frozenset((place.transaction, frozenset(place.held), place.request) for place in places)
    )


def _trace(semantics: Semantics, state: State, parents: dict[State, tuple[State, Action] | None]) -> Trace:
    states, actions = [state], list[Action]()
    while (parent := parents[states[-1]]) is not None:
        states.append(parent[0])
        actions.append(parent[1])
    return Trace(semantics.crew, tuple(reversed(states)), tuple(reversed(actions)))
