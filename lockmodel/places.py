"""What one worker can do, as bits: the part that the row engine and the dense engine share.

A *place* is a location that a given worker can reach, numbered so that the next step of a straight-line transaction leads from place p
to place p + 1. A set of places is an integer, bit p for place p, so that one machine word answers for 64 places at once.
The edges are sorted into *moves*, each of which takes many edges in a few operations on such sets.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from functools import cached_property

from lockmodel.semantics import Crew
from lockmodel.system import ActionKind, Edge, Hold, Location, Request, Status, System


@dataclass(frozen=True, eq=False)
class PlacedEdge:
    """An edge between two places."""

    source: int
    target: int
    edge: Edge

    @property
    def refuses(self) -> bool:
        return self.edge.action is ActionKind.REFUSE


class Shape(Enum):
    """How the edges of a move lie: one step up, many to one, or one to many."""

    CHAIN = auto()
    GATHER = auto()
    SCATTER = auto()


@dataclass(frozen=True, eq=False)
class Move:
    """Edges of one shape that change the shared variables in the same way, by the place that tells them apart.

    That is the source for CHAIN and GATHER, and the target for SCATTER; no two edges of a move have the same. `anchor` is the one
    target of a GATHER, the one source of a SCATTER.
    """

    shape: Shape
    anchor: int
    refuses: bool
    update: tuple[int, ...] | None
    edges: dict[int, PlacedEdge]

    def mask(self, chosen: Iterable[int] | None = None) -> int:
        """The places of `chosen` edges (None: of all) as a set."""
        return _set(self.edges if chosen is None else chosen)

    def allowed(self, valuation: int) -> int:
        """The edges whose guard allows `valuation`."""
        return self._always | self.mask(
            place
            for place, item in self._guarded
            if item.edge.guard is None or valuation in item.edge.guard or valuation in item.edge.faults
        )

    def faulty(self, valuation: int) -> int:
        """The edges that have no meaning in `valuation`."""
        return self.mask(place for place, item in self._guarded if valuation in item.edge.faults)

    @cached_property
    def _always(self) -> int:
        return self.mask(p for p, item in self.edges.items() if item.edge.guard is None and not item.edge.faults)

    @cached_property
    def _guarded(self) -> list[tuple[int, PlacedEdge]]:
        return [(p, item) for p, item in self.edges.items() if item.edge.guard is not None or item.edge.faults]

    @cached_property
    def _requesting(self) -> dict[int, dict[Request, int]]:
        """For each resource, what the edges request of it, and which edges."""
        found: dict[int, dict[Request, int]] = defaultdict(lambda: defaultdict(int))
        for place, item in self.edges.items():
            for request in item.edge.requests:
                found[request.resource][request] |= 1 << place
        return found

    def sources(self, chosen: int) -> int:
        """The sources of the `chosen` edges of this move, as a set."""
        return _set(item.source for place, item in self.edges.items() if chosen >> place & 1)

    def wanting(self, system: System, hold: Hold) -> int:
        """The edges whose request another worker's `hold` blocks."""
        requests = self._requesting.get(hold.resource, {})
        return _union(mask for request, mask in requests.items() if system.conflicts(hold, request))


class Places:
    """The places of a worker that runs `transactions`. Place 0 is idle."""

    def __init__(self, system: System, transactions: tuple[str, ...]) -> None:
        self.system = system
        self._transactions = frozenset(transactions)
        self.locations: tuple[int, ...] = tuple(self._chained())
        number = {location: place for place, location in enumerate(self.locations)}
        self.number = number
        self.out: tuple[tuple[PlacedEdge, ...], ...] = tuple(
            tuple(PlacedEdge(place, number[edge.target], edge) for edge in self._edges(location))
            for place, location in enumerate(self.locations)
        )
        sources: list[set[int]] = [set() for _ in self.locations]
        for item in (item for edges in self.out for item in edges):
            sources[item.target].add(item.source)
        self.sources = tuple(tuple(sorted(places)) for places in sources)
        """For each place, those that an edge leads from."""
        self.moves: tuple[Move, ...] = tuple(self._moves())
        self.running = _set(p for p, here in enumerate(self.all()) if here.status is Status.RUNNING)
        self._holding: dict[int, dict[Hold, int]] = defaultdict(lambda: defaultdict(int))
        self._wanting: dict[int, dict[Request, int]] = defaultdict(lambda: defaultdict(int))
        for place, here in enumerate(self.all()):
            for hold in here.held:
                self._holding[hold.resource][hold] |= 1 << place
            if here.request is not None and here.waits:
                self._wanting[here.request.resource][here.request] |= 1 << place

    def __len__(self) -> int:
        return len(self.locations)

    def all(self) -> Iterator[Location]:
        """The location of each place."""
        return (self.system.locations[location] for location in self.locations)

    def blocking(self, request: Request) -> int:
        """The places whose locks make `request` of another worker wait."""
        holding = self._holding.get(request.resource, {})
        return _union(mask for hold, mask in holding.items() if self.system.conflicts(hold, request))

    def waiting_for(self, hold: Hold) -> int:
        """The places where a worker waits, without a way round it, for one that has `hold`."""
        wanting = self._wanting.get(hold.resource, {})
        return _union(mask for request, mask in wanting.items() if self.system.conflicts(hold, request))

    def _edges(self, location: int) -> Iterator[Edge]:
        return (
            edge
            for edge in self.system.locations[location].edges
            if edge.transaction is None or edge.transaction in self._transactions
        )

    def _chained(self) -> Iterator[int]:
        """Every reachable location, each chain of steps from its first to its last."""
        seen: set[int] = set()
        heads = [0]
        while heads:
            here: int | None = heads.pop()
            while here is not None and here not in seen:
                seen.add(here)
                yield here
                following = [edge.target for edge in self._edges(here) if edge.target not in seen]
                heads.extend(reversed(following[1:]))
                here = following[0] if following else None

    def _moves(self) -> Iterator[Move]:
        edges = [item for out in self.out for item in out]
        chains = [item for item in edges if item.target == item.source + 1]
        rest = [item for item in edges if item.target != item.source + 1]
        fan_in: dict[tuple[object, ...], list[PlacedEdge]] = defaultdict(list)
        for item in rest:
            fan_in[item.target, item.refuses, item.edge.update].append(item)
        gathers = [item for group in fan_in.values() if len(group) > 1 for item in group]
        scatters = [item for group in fan_in.values() if len(group) == 1 for item in group]
        yield from _grouped(Shape.CHAIN, chains)
        yield from _grouped(Shape.GATHER, gathers)
        yield from _grouped(Shape.SCATTER, scatters)


def _grouped(shape: Shape, edges: Iterable[PlacedEdge]) -> Iterator[Move]:
    """Moves for `edges`; of several between the same two places, each goes into a move of its own."""
    groups: dict[tuple[object, ...], Move] = {}
    for item in edges:
        anchor = {Shape.CHAIN: 0, Shape.GATHER: item.target, Shape.SCATTER: item.source}[shape]
        place = item.target if shape is Shape.SCATTER else item.source
        for layer in range(len(groups) + 1):
            key = (anchor, item.refuses, item.edge.update, layer)
            move = groups.setdefault(key, Move(shape, anchor, item.refuses, item.edge.update, {}))
            if place not in move.edges:
                move.edges[place] = item
                break
    return iter(groups.values())


def places_of(system: System, workers: Crew) -> list[Places]:
    """The places of each worker; workers that run the same transactions share the object."""
    known: dict[tuple[str, ...], Places] = {}
    for transactions in workers.transactions:
        if transactions not in known:
            known[transactions] = Places(system, transactions)
    return [known[transactions] for transactions in workers.transactions]


def _set(places: Iterable[int]) -> int:
    bits = 0
    for place in places:
        bits |= 1 << place
    return bits


def _union(sets: Iterable[int]) -> int:
    bits = 0
    for one in sets:
        bits |= one
    return bits
