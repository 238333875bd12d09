"""An order of all locks, families first and then by index, in which each lock wanted comes after those held.

The order is built as a lexicographic ranking: resources are compared by the place of their family, families that can't be ranked by
one of their indices (`a[0], b[0], a[1], b[1]` for a loop that takes both), and what is equal there by the next.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from lockmodel.digraph import Digraph
from lockmodel.expressions import Value
from lockmodel.program import Family
from lockmodel.prover.terms import Choice, Former, Literal, SymbolicLock, Visit

MAX_ASSIGNMENTS = 64
"""Ways to pick an index for each family of a group, before the search for an order gives up."""


@dataclass(frozen=True)
class Constraint:
    """`wanted` is asked for while `held` is held, so it must come later."""

    held: SymbolicLock
    wanted: SymbolicLock


@dataclass(frozen=True)
class Index:
    """The index that a group of families is ordered by: for each family the argument's place.

    `visits` are the loops that the order comes from, by set and direction; `steps` pairs of elements that are taken one after the other.
    """

    of: str
    places: tuple[tuple[str, int], ...]
    visits: frozenset[tuple[str, Visit]]
    steps: frozenset[tuple[Literal, Literal]]


@dataclass(frozen=True)
class Group:
    """Families that are one place of the order: one alone (`index` None), or one or more by an index, and within it by `inner`."""

    families: tuple[str, ...]
    index: Index | None = None
    inner: Order | None = None


@dataclass(frozen=True)
class Order:
    """Groups, the first ones first."""

    groups: tuple[Group, ...]

    @property
    def families(self) -> tuple[str, ...]:
        return tuple(family for group in self.groups for family in group.families)

    def indices(self) -> Iterator[Index]:
        for group in self.groups:
            if group.index is not None:
                yield group.index
            if group.inner is not None:
                yield from group.inner.indices()


class Orders:
    """Finds orders for the locks of a program with these families and sets."""

    def __init__(self, families: Mapping[str, Family], sets: Mapping[str, Sequence[Value]]) -> None:
        self.families = families
        self.sets = sets
        self._place = {name: number for number, name in enumerate(families)}

    def find(self, constraints: Iterable[Constraint]) -> Order | None:
        """An order that all `constraints` follow, or None if there is none of this kind."""
        constraints = list(dict.fromkeys(constraints))
        graph = Digraph((c.held.family, c.wanted.family) for c in constraints)
        components = [tuple(sorted(found, key=self._place.__getitem__)) for found in graph.components()]
        component_of = {name: number for number, members in enumerate(components) for name in members}
        between = ((component_of[c.held.family], component_of[c.wanted.family]) for c in constraints)
        condensed = Digraph((edge for edge in between if edge[0] != edge[1]), nodes=range(len(components)))
        inside: dict[int, list[Constraint]] = {}
        for constraint in constraints:
            component = component_of[constraint.held.family]
            if component == component_of[constraint.wanted.family]:
                inside.setdefault(component, []).append(constraint)
        groups = []
        for component in condensed.sorted_by(lambda number: self._place[components[number][0]]):
            members = components[component]
            if component not in inside:
                groups.append(Group(members))
                continue
            group = self._by_index(members, inside[component])
            if group is None:
                return None
            groups.append(group)
        return Order(tuple(groups))

    def only_as_declared(self, index: Index) -> frozenset[str]:
        """The sets whose elements, not only their order, the order by `index` depends on."""
        if len(index.visits) <= 1 and not (index.visits and index.steps):
            return frozenset()
        return frozenset(name for name, _ in index.visits)

    def _by_index(self, members: tuple[str, ...], constraints: list[Constraint]) -> Group | None:
        """An order of `members` by an index that they share, and what the index leaves equal by an inner order."""
        shared = [name for name in self.families[members[0]].per if all(name in self.families[m].per for m in members)]
        for name in dict.fromkeys(shared):
            choices = [
                [(member, place) for place, of in enumerate(self.families[member].per) if of == name]
                for member in members
            ]
            for places in itertools.islice(itertools.product(*choices), MAX_ASSIGNMENTS):
                group = self._group(members, constraints, name, dict(places))
                if group is not None:
                    return group
        return None

    def _group(
        self, members: tuple[str, ...], constraints: list[Constraint], of: str, places: dict[str, int]
    ) -> Group | None:
        visits: set[tuple[str, Visit]] = set()
        steps: set[tuple[Literal, Literal]] = set()
        equal: list[Constraint] = []
        for constraint in constraints:
            held = constraint.held.arguments[places[constraint.held.family]]
            wanted = constraint.wanted.arguments[places[constraint.wanted.family]]
            match held, wanted:
                case (Choice() | Literal(), _) if held == wanted:
                    equal.append(constraint)
                case (Former(current, visit), Choice(of=str(name))) if current == wanted and visit is not Visit.OTHER:
                    visits.add((name, visit))
                case Literal(), Literal():
                    steps.add((held, wanted))
                case _:
                    return None
        if len(equal) == len(constraints):
            return None
        index = Index(of, tuple(places.items()), frozenset(visits), frozenset(steps))
        if not self._is_order(index):
            return None
        inner = self.find(equal) if equal else None
        return None if equal and inner is None else Group(members, index, inner)

    def _is_order(self, index: Index) -> bool:
        """Whether one order of the elements agrees with all loops and steps."""
        if len(index.visits) == 1 and not index.steps:
            return True
        graph: Digraph[Literal] = Digraph(index.steps)
        for name, visit in index.visits:
            elements = [Literal(value, type(value)) for value in self.sets[name]]
            for before, after in itertools.pairwise(elements if visit is Visit.ASCENDING else elements[::-1]):
                graph.add_edge(before, after)
        return not graph.circles()
