"""State graphs, lock-order graphs and waits-for graphs, as networkx graphs for whoever wants to ask their own questions.

All of them are deterministic (nodes and edges come in the same order each time), bounded (beyond the bound they raise UsageError), and
made anew by each call, so that they can be changed freely. Attributes are numbers, texts, truths, and tuples of these.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import networkx

from lockmodel.errors import UsageError, quote
from lockmodel.explanation import Lock
from lockmodel.modes import KINDS
from lockmodel.semantics import State
from lockmodel.stepping import Model
from lockmodel.system import ActionKind, Hold, Location, Request, System

StateGraph: TypeAlias = "networkx.MultiDiGraph[State]"
LockOrderGraph: TypeAlias = "networkx.DiGraph[str]"
WaitsForGraph: TypeAlias = "networkx.DiGraph[int]"
MayWaitGraph: TypeAlias = "networkx.DiGraph[Point]"

MAX_STATES = 100_000
MAX_EDGES = 200_000
MAX_COMPARISONS = 20_000_000
"""Of two points, each by the locks held there, that `may_wait_graph` makes: some ten seconds."""


def state_graph(model: Model, start: State | None = None, *, max_states: int = MAX_STATES) -> StateGraph:
    """All states that can be reached from `start` (None: the initial state), and what leads from one to the next.

    It is a MultiDiGraph: two workers can lead from one state to the same other. Its numbers of nodes and edges are the states and transitions
    that `lockmodel check` counts. Attributes of a node (a `State`): `number` (int, from 0, in breadth-first order), `depth` (int, states on a
    shortest path from `start`, which is at 1), `deadlock` (bool), `violated` (str, the first property that does not hold, empty if
    all do). Of an edge: `worker` (int, from 0), `action` (str, such as `acquire`), `label` (str, what `str()` of the
    action says). Of the graph: `name` (str), `start` (State), `workers` (tuple of their names).

    Raises UsageError beyond `max_states`, SpecError where a step or a formula has no meaning.
    """
    start = model.initial if start is None else start
    graph: StateGraph = networkx.MultiDiGraph(name=model.spec.name, start=start, workers=model.workers)

    def add(state: State, depth: int) -> None:
        if graph.number_of_nodes() >= max_states:
            raise UsageError(
                f"{model.spec.name} has more than {max_states:,} states; make a set smaller, or raise max_states"
            )
        violated, deadlock = model.violated(state) or "", bool(model.deadlocked(state))
        graph.add_node(state, number=len(graph), depth=depth, deadlock=deadlock, violated=violated)

    add(start, 1)
    queue = [start]
    for state in queue:
        for action in model.actions(state):
            successor = model.semantics.after(state, action.action)
            if successor not in graph:
                add(successor, graph.nodes[state]["depth"] + 1)
                queue.append(successor)
            graph.add_edge(state, successor, worker=action.worker, action=str(action.kind), label=str(action))
    return graph


# What a worker holds while it asks for more


@dataclass
class _Order:
    """What is known of one edge of the lock-order graph, as it is collected."""

    waits: bool
    transactions: set[str]
    modes: set[tuple[str, str]]
    positions: dict[str, None]
    pairs: set[tuple[int, int]]


def lock_order_graph(
    model: Model, by: Literal["resource", "family"] = "resource", *, max_edges: int = MAX_EDGES
) -> LockOrderGraph:
    """Which resource is held while which other is asked for: an edge from the one held to the one wanted.

    The nodes are all resources by name, or all families of them. An edge from a resource to itself is an upgrade: another worker can hold
    it too and make the request wait. Between members of a family (`lane[0]`, then `lane[1]`) there is an edge from the family to itself.
    It is made from each worker's steps alone, so it does not depend on how many there are, and has an edge even where variables keep the
    request from ever being made. Without a cycle there is no deadlock with any number of workers.

    Attributes of a node: `kind` (str, `row`, `table`, …), `family` (str), `resources` (int, how many it stands for). Of an edge:
    `transactions` (tuple of str, sorted), `modes` (sorted tuple of pairs: the mode held, the mode wanted), `positions` (tuple of str, `file:line`
    of the steps that ask), `waits` (bool, whether some of the requests wait; a NOWAIT, SKIP LOCKED or TRY never does), `pairs` (int, of how many
    pairs of resources).

    Raises UsageError beyond `max_edges`.
    """
    if by not in ("resource", "family"):
        raise UsageError(f"by={quote(by)}: it is 'resource' or 'family'")
    system = model.system
    names = [resource.name if by == "resource" else resource.family for resource in system.resources]
    graph: LockOrderGraph = networkx.DiGraph(name=model.spec.name, by=by)
    for name, resource in zip(names, system.resources, strict=True):
        if name not in graph:
            graph.add_node(name, kind=resource.kind.name, family=resource.family, resources=0)
        graph.nodes[name]["resources"] += 1
    orders: dict[tuple[str, str], _Order] = {}
    for location in system.locations:
        for hold, request in _held_and_wanted(system, location):
            pair = (names[hold.resource], names[request.resource])
            if pair not in orders:
                if len(orders) >= max_edges:
                    raise _too_large(model, max_edges)
                orders[pair] = _Order(False, set(), set(), {}, set())
            order = orders[pair]
            order.waits |= location.waits
            order.transactions.add(location.transaction or "")
            order.modes.add((hold.mode, request.mode))
            order.positions |= dict.fromkeys(_positions(location))
            order.pairs.add((hold.resource, request.resource))
    for (held, wanted), order in orders.items():
        graph.add_edge(
            held, wanted, transactions=tuple(sorted(order.transactions)), modes=tuple(sorted(order.modes)),
            positions=tuple(order.positions), waits=order.waits, pairs=len(order.pairs),
        )  # fmt: skip
    return graph


def _held_and_wanted(system: System, location: Location) -> Iterator[tuple[Hold, Request]]:
    """Each lock that is held at `location`, with the request made there, as far as the two make an edge."""
    request = location.request
    if request is None:
        return
    for hold in dict.fromkeys(location.held):
        if hold.resource != request.resource or _can_wait_for_its_own(system, location, request):
            yield hold, request


def _can_wait_for_its_own(system: System, location: Location, request: Request) -> bool:
    """Whether another worker can hold the resource beside this one, and in a mode that makes `request` wait."""
    resource = system.resources[request.resource]
    if resource.capacity is not None:
        return True
    modes = [hold.mode for hold in location.held if hold.resource == request.resource]
    return any(
        resource.kind.conflict(other, request.mode) and not any(resource.kind.conflict(other, mode) for mode in modes)
        for other in resource.kind.modes
    )


def _positions(location: Location) -> Iterator[str]:
    for edge in location.edges:
        if edge.action is ActionKind.ACQUIRE and edge.position is not None:
            yield str(edge.position)


# Who waits for whom


def waits_for_graph(model: Model, state: State) -> WaitsForGraph:
    """Who waits for whom in `state`: an edge from each worker that waits to each worker in its way.

    The nodes are all workers by number. For locks, a deadlock is a cycle of this graph; where a pool is waited for it is not that simple, and
    `Model.deadlocked` says who can never go on. Attributes of a node: `name` (str), `transaction` (str, empty if none), `status` (str), `holds` (tuple
    of `Lock`), `deadlocked` (bool). Of an edge: `resource` (str), `mode` (str, what is wanted), `held` (tuple of str, the modes of the
    locks in its way, a pool's as often as units are held).
    """
    graph: WaitsForGraph = networkx.DiGraph(name=model.spec.name)
    workers = model.view(state)
    for worker in workers:
        graph.add_node(
            worker.worker, name=worker.name, transaction=worker.transaction or "", status=str(worker.status),
            holds=worker.holds, deadlocked=worker.stuck,
        )  # fmt: skip
    for worker in workers:
        for blocker in worker.blockers:
            assert worker.wants is not None
            held = tuple(lock.mode for lock in blocker.locks)
            graph.add_edge(
                worker.worker, blocker.worker, resource=worker.wants.resource, mode=worker.wants.mode, held=held
            )
    return graph


@dataclass(frozen=True)
class Point:
    """A situation in which a worker may wait: the locks that it holds (sorted by name), and the one that it asks for."""

    holds: tuple[Lock, ...]
    wants: Lock

    def __str__(self) -> str:
        return f"holds {', '.join(map(str, self.holds))}; wants {self.wants}"


def may_wait_graph(model: Model, *, max_edges: int = MAX_EDGES) -> MayWaitGraph:
    """Who may wait for whom with any number of workers: points, and an edge from P to Q if one at P may wait for one at Q.

    That is so if Q holds a lock that P's request conflicts with, and all that P and Q hold can be held at the same time by two workers. Only points
    that hold a lock are nodes: nobody waits for the others. Without a cycle there is no deadlock with any number of workers.
    A cycle proves nothing by itself: guards, variables and roles with few workers are left out of account. A pool's request may wait for
    every point that holds a unit, its own included.

    Attributes of a node (a `Point`): `transactions` (tuple of str, sorted), `locations` (tuple of int, into `System.locations`). Of an edge: `resource`
    (str), `mode` (str, wanted), `held` (tuple of str, the conflicting modes, sorted).

    Raises UsageError beyond `max_edges`, and where it would take too long.
    """
    system = model.system
    found: dict[tuple[frozenset[Hold], Request], list[Location]] = defaultdict(list)
    for location in system.locations:
        if location.request is not None and location.waits and location.held:
            found[frozenset(location.held), location.request].append(location)
    graph: MayWaitGraph = networkx.DiGraph(name=model.spec.name)
    places = [_place(system, held, request) for held, request in found]
    holders: dict[int, list[_Place]] = defaultdict(list)
    for place, locations in zip(places, found.values(), strict=True):
        transactions = sorted({location.transaction or "" for location in locations})
        numbers = tuple(location.index for location in locations)
        graph.add_node(place.point, transactions=tuple(transactions), locations=numbers)
        for resource in place.modes:
            holders[resource].append(place)
    comparisons = edges = 0
    for place in places:
        wanted, mode = system.resources[place.request.resource], place.request.mode
        pool = wanted.capacity is not None
        for other in holders[place.request.resource]:
            comparisons += 1 + min(len(place.modes), len(other.modes))
            if comparisons > MAX_COMPARISONS:
                raise _too_large(model, max_edges)
            held = tuple(one for one in other.modes[place.request.resource] if pool or wanted.kind.conflict(one, mode))
            # A pool's units may all be the worker's own.
            if held and (_together(system, place, other) or (pool and other is place)):
                edges += 1
                if edges > max_edges:
                    raise _too_large(model, max_edges)
                graph.add_edge(place.point, other.point, resource=wanted.name, mode=mode, held=held)
    return graph


@dataclass(frozen=True)
class _Place:
    """A point by numbers: for each resource that is held its modes, sorted."""

    point: Point
    request: Request
    modes: Mapping[int, tuple[str, ...]]


def _place(system: System, held: frozenset[Hold], request: Request) -> _Place:
    modes: dict[int, tuple[str, ...]] = {}
    for hold in sorted(held, key=lambda hold: (hold.resource, hold.mode)):
        modes[hold.resource] = (*modes.get(hold.resource, ()), hold.mode)
    locks = [Lock(system.resources[resource].name, mode) for resource, several in modes.items() for mode in several]
    locks.sort(key=lambda lock: (lock.resource, lock.mode))
    return _Place(Point(tuple(locks), Lock(system.resources[request.resource].name, request.mode)), request, modes)


def _together(system: System, first: _Place, second: _Place) -> bool:
    """Whether two workers can hold these locks at the same time."""
    few, many = sorted((first.modes, second.modes), key=len)
    return not any(
        system.resources[resource].kind.conflict(mode, other)
        for resource, modes in few.items()
        if resource in many
        for mode in modes
        for other in many[resource]
    )


def _too_large(model: Model, max_edges: int) -> UsageError:
    return UsageError(
        f"{model.spec.name}: this graph has more than {max_edges:,} edges, or takes too long; make a set smaller"
    )


def lock_order_cycle(graph: LockOrderGraph) -> tuple[str, ...]:
    """A shortest cycle of `graph`, of resources, in conflicting modes: each is held while the next is wanted, the last while the first is.

    Every deadlock has such a cycle, with any number of workers; not every such cycle is a deadlock.
    """
    held_modes = {
        name: {held for edge in graph.edges(name) for held, _ in graph.edges[edge]["modes"]} for name in graph
    }
    locks: networkx.DiGraph[tuple[str, str]] = networkx.DiGraph()
    for name, wanted, data in graph.edges(data=True):
        kind = KINDS[graph.nodes[wanted]["kind"]]
        for mode, request in data["modes"] if data["waits"] else ():
            following = [other for other in held_modes[wanted] if kind.counted or kind.conflict(other, request)]
            locks.add_edges_from(((name, mode), (wanted, other)) for other in following)
    best: tuple[tuple[str, str], ...] = ()
    for component in sorted(networkx.strongly_connected_components(locks), key=min):
        for start in sorted(component):
            paths: list[tuple[tuple[str, str], ...]] = [(start,)]
            seen: set[tuple[str, str]] = set()
            for path in paths:
                if best and len(path) >= len(best):
                    break
                after = sorted(component.intersection(locks.successors(path[-1])))
                if start in after:
                    best = path
                    break
                paths += [(*path, lock) for lock in after if lock not in seen]
                seen.update(after)
    return tuple(name for name, _ in best)
