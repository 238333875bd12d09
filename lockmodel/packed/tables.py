"""A system and a crew as arrays of small integers: all that the packed engines know.

A *place* is a location that a worker can be at (`lockmodel.places`); the places of all kinds of workers have one numbering here. A *wanted set*
is what an edge requests; whether a place's locks block a wanted set is one look-up.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lockmodel.errors import SpecError
from lockmodel.exploration import Unsupported
from lockmodel.places import PlacedEdge, Places, places_of
from lockmodel.properties import Evaluator
from lockmodel.semantics import Crew
from lockmodel.system import Edge, Request, Status, System

Array = npt.NDArray[Any]
NOTHING = 0
"""The wanted set of an edge that requests nothing, the guard that allows all, the update that changes nothing."""
MAX_JUDGED = 1_000_000
MAX_WORKERS = 32


@dataclass(frozen=True, eq=False)
class Tables:
    """Shapes: G places, E edges, R wanted sets, N workers, V valuations, P pools."""

    system: System
    crew: Crew
    places: list[Places]
    """For each worker."""
    first: Array
    """[N] The number of each worker's place 0; its place p is number first + p."""
    edge_start: Array
    """[G + 1] The edges of place g are edge_start[g] … edge_start[g + 1] - 1."""
    source: Array
    """[E] Places, counted in the worker's own places."""
    target: Array
    wanted: Array
    """[E] Wanted sets."""
    refuses: Array
    guard: Array
    update: Array
    pool: Array
    """[E] The pool that the edge takes a unit of, or -1."""
    conflict: Array
    """[R, G] Whether the place's locks block the wanted set of another worker."""
    allowed: Array
    """[guards, V] 0: no, 1: yes, 2: yes, but the step has no meaning."""
    updated: Array
    """[updates, V] The valuation after."""
    waits: Array
    """[G] The wanted set that a worker waits for here, or -1."""
    waits_pool: Array
    """[G] The pool of which a worker waits for a unit here, or -1."""
    units: Array
    """[G, P] How many units of each pool are held here."""
    capacity: Array
    """[P]"""
    running: Array
    """[G]"""
    eager: Array
    """[G] Whether partial-order reduction may take this place's steps first."""

    @property
    def workers(self) -> int:
        return len(self.places)

    @property
    def valuations(self) -> int:
        return len(self.system.valuations)


def tables(system: System, crew: Crew) -> Tables:
    """Raises Unsupported where the arrays would be too large, or have no room for what the system does."""
    if system.no_stall:
        raise Unsupported("queues")
    if len(crew) > MAX_WORKERS:
        raise Unsupported(f"more than {MAX_WORKERS} workers")
    return _Builder(system, crew).tables()


class _Builder:
    def __init__(self, system: System, crew: Crew) -> None:
        self.system = system
        self.crew = crew
        self.places = places_of(system, crew)
        self.kinds = list(dict.fromkeys(self.places))
        self.pools = [number for number, resource in enumerate(system.resources) if resource.capacity is not None]
        self.wanted: dict[tuple[Request, ...], int] = {(): NOTHING}
        self.guards: dict[tuple[Any, Any], int] = {(None, ()): NOTHING}
        self.updates: dict[tuple[int, ...] | None, int] = {None: NOTHING}

    def tables(self) -> Tables:
        start = {}
        number = 0
        for kind in self.kinds:
            start[kind] = number
            number += len(kind)
        edges = [item for kind in self.kinds for out in kind.out for item in out]
        here = [location for kind in self.kinds for location in kind.all()]
        counts = [len(out) for kind in self.kinds for out in kind.out]
        wanted = [self._wanted(item.edge.requests) for item in edges]
        guard = [self._guard(item.edge) for item in edges]
        update = [self.updates.setdefault(item.edge.update, len(self.updates)) for item in edges]
        pool = [self._pool(item.edge.requests) for item in edges]
        waits = [self._wanted((place.request,)) if place.waits and place.request else -1 for place in here]
        waits_pool = [self._pool((place.request,)) if place.waits and place.request else -1 for place in here]
        if len(self.wanted) * number > 200_000_000:
            raise Unsupported("too many locks and places")
        conflict = np.concatenate([self._conflicts(kind) for kind in self.kinds], axis=1)
        units = np.array(
            [[sum(hold.resource == pool for hold in place.held) for pool in self.pools] for place in here], np.int64
        ).reshape(number, len(self.pools))
        return Tables(
            system=self.system,
            crew=self.crew,
            places=self.places,
            first=np.array([start[places] for places in self.places], np.int64),
            edge_start=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            source=_ints(item.source for item in edges),
            target=_ints(item.target for item in edges),
            wanted=_ints(wanted),
            refuses=np.array([item.refuses for item in edges], np.uint8),
            guard=_ints(guard),
            update=_ints(update),
            pool=_ints(pool),
            conflict=conflict,
            allowed=self._allowed(),
            updated=np.array([values or range(len(self.system.valuations)) for values in self.updates], np.int64),
            waits=_ints(waits),
            waits_pool=_ints(waits_pool),
            units=units,
            capacity=np.array([self.system.resources[p].capacity for p in self.pools], np.int64),
            running=np.array([place.status is Status.RUNNING for place in here], np.uint8),
            eager=self._eager(start, conflict, units),
        )

    def _wanted(self, requests: Iterable[Request]) -> int:
        plain = (Request(request.resource, request.mode) for request in requests if request.resource not in self.pools)
        key = tuple(sorted(set(plain), key=lambda request: (request.resource, request.mode)))
        return self.wanted.setdefault(key, len(self.wanted))

    def _pool(self, requests: Iterable[Request]) -> int:
        pools = {self.pools.index(request.resource) for request in requests if request.resource in self.pools}
        if len(pools) > 1:
            raise Unsupported("a step that takes units of several pools")
        return pools.pop() if pools else -1

    def _guard(self, edge: Edge) -> int:
        return self.guards.setdefault((edge.guard, tuple(sorted(edge.faults))), len(self.guards))

    def _allowed(self) -> Array:
        result = np.ones((len(self.guards), len(self.system.valuations)), np.uint8)
        for row, (guard, faults) in enumerate(self.guards):
            if guard is not None:
                result[row] = 0
                result[row, sorted(guard)] = 1
            result[row, list(faults)] = 2
        return result

    def _conflicts(self, kind: Places) -> Array:
        result = np.zeros((len(self.wanted), len(kind)), np.uint8)
        for requests, row in self.wanted.items():
            for request in requests:
                result[row] |= bits(kind.blocking(request), len(kind))
        return result

    def _eager(self, start: dict[Places, int], conflict: Array, units: Array) -> Array:
        """The places whose steps nothing that others do can forbid, and which forbid nothing that others do.

        Such a step may be taken before all others: every deadlock stays reachable. A refusal depends on who holds a lock, so where
        there are refusals, a step that gives up what they ask for is none of these.
        """
        refusals = [item.edge.requests for kind in self.kinds for out in kind.out for item in out if item.refuses]
        refused = sorted({self._wanted(requests) for requests in refusals})
        refused_pools = sorted({pool for requests in refusals if (pool := self._pool(requests)) >= 0})

        def harmless(item: PlacedEdge, source: int, target: int) -> bool:
            edge = item.edge
            plain = edge.guard is None and not edge.faults and edge.update is None and edge.transaction is None
            return bool(
                plain
                and not item.refuses
                and self._pool(edge.requests) < 0
                and not conflict[self._wanted(edge.requests)].any()
                and (conflict[:, target] <= conflict[:, source]).all()
                and (conflict[refused, target] == conflict[refused, source]).all()
                and (units[target] <= units[source]).all()
                and (units[target, refused_pools] == units[source, refused_pools]).all()
            )

        return np.array(
            [
                bool(out) and all(harmless(item, first + item.source, first + item.target) for item in out)
                for kind, first in start.items()
                for out in kind.out
            ],
            np.uint8,
        )


def bits(places: int, count: int) -> Array:
    """A set of places as [count] zeros and ones."""
    raw = np.frombuffer(places.to_bytes((count + 7) // 8, "little"), np.uint8)
    return np.unpackbits(raw, bitorder="little")[:count]


def words(places: int, count: int) -> Array:
    """A set of places as [count] words of 64 bits, the lowest first."""
    return np.frombuffer(places.to_bytes(count * 8, "little"), np.uint64)


def _ints(values: Iterable[int]) -> Array:
    return np.array(list(values), np.int64)


@dataclass(frozen=True, eq=False)
class Formulas:
    """The properties, for counting: what each place adds to a sum, and which sums violate.

    Shapes: F formulas, roles of the crew as numbers, S sums. A sum of -1 anywhere, or a judgement of 2, has no meaning.
    """

    role: Array
    """[N] The role of each worker."""
    adds: Array
    """[F, roles, G, V, 2] What a worker adds to the sum; the last index says whether it waits."""
    judged: Array
    """[F, V, S] 0: fine, 1: violated, 2: no meaning."""


def formulas(made: Tables, evaluators: list[Evaluator], on_waiting: bool) -> Formulas:
    """The tables of `evaluators`. Raises Unsupported if they would be too large, or ask who waits and `on_waiting` is false."""
    roles = list(dict.fromkeys(made.crew.roles))
    places = int(made.edge_start.shape[0]) - 1
    base = made.workers + 1
    if any(evaluator.needs_waiting for evaluator in evaluators) and not on_waiting:
        raise Unsupported("a formula that asks who waits")
    sums = max([base**evaluator.size for evaluator in evaluators], default=1)
    shape = (len(evaluators), len(roles), places, made.valuations, 2)
    if sums * made.valuations * len(evaluators) > MAX_JUDGED or np.prod(shape) > 4 * MAX_JUDGED:
        raise Unsupported("formulas with too many terms")
    adds = np.zeros(shape, np.int64)
    judged = np.zeros((len(evaluators), made.valuations, sums), np.uint8)
    for number, evaluator in enumerate(evaluators):
        for valuation in range(made.valuations):
            _fill_adds(adds[number, :, :, valuation], made, evaluator, roles, valuation)
            for total in range(base**evaluator.size):
                totals = tuple(total // base**digit % base for digit in range(evaluator.size))
                judged[number, valuation, total] = _judged(evaluator, valuation, totals)
    return Formulas(_ints(roles.index(role) for role in made.crew.roles), adds, judged)


def _judged(evaluator: Evaluator, valuation: int, totals: tuple[int, ...]) -> int:
    try:
        return int(evaluator.broken(valuation, totals))
    except SpecError:
        return 2


def _fill_adds(adds: Array, made: Tables, evaluator: Evaluator, roles: list[str], valuation: int) -> None:
    base = made.workers + 1
    for worker, places in enumerate(made.places):
        role = made.crew.roles[worker]
        for place, location in enumerate(places.locations):
            for waits in (False, True):
                try:
                    vector = evaluator.vector(role, location, valuation, waits)
                    total = sum(one * base**digit for digit, one in enumerate(vector))
                except SpecError:
                    total = -1
                adds[roles.index(role), made.first[worker] + place, int(waits)] = total
