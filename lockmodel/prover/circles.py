"""Circles of waits between places: each either can't come about, since two members exclude each other, or may be a deadlock.

Only shortest circles are of interest. Where a member waits for another one than the next, or two want the same lock, some of the
members alone form a circle; so in what is looked at here, all requests differ and nobody waits for anyone but the next. Two workers
at the same place, each waiting for what the other one holds (an upgrade), are a circle of two. A worker that holds all units of a pool and asks for
one more waits for itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from lockmodel.digraph import Digraph
from lockmodel.prover.places import Places

MAX_STEPS = 300_000
"""Members that may be tried in all, some 3 µs each."""
MAX_LENGTH = 300
"""Of a circle: what Python can follow."""


class Circles:
    """The circles between `places`, the shortest first.

    `bounded`: whether the search for them was given up. `refuted`: how many beginnings of circles came to nothing, by the family of the
    lock of which two members hold conflicting modes, and the transactions of these.
    """

    def __init__(self, places: Places, max_steps: int = MAX_STEPS) -> None:
        self.places = places
        self.bounded = False
        self.refuted: Counter[tuple[str, tuple[str, ...]]] = Counter()
        self._left = max_steps
        self._components = _components(places.waits)

    @property
    def none(self) -> bool:
        """Whether nobody at all can wait in a circle, compatible or not."""
        return not self._components

    def by_length(self) -> Iterator[list[tuple[int, ...]]]:
        """For each length from two on, the circles that have it: members by number, each waiting for the next."""
        longer = True
        length = 2
        while longer and not self.bounded:
            found: list[tuple[int, ...]] = []
            longer = False
            for component in self._components:
                for start in component:
                    if length == 2 and start in self.places.waits[start]:
                        self._close([start] if self.places.waits_for_itself(start) else [start, start], found)
                    longer |= self._extend([start], component, length, found)
            if found:
                yield found
            length += 1
            if length > MAX_LENGTH:
                self.bounded = longer
                return

    def _extend(self, path: list[int], component: frozenset[int], length: int, found: list[tuple[int, ...]]) -> bool:
        """Collect the circles of `length` that begin with `path`, whose first member has the lowest number. Whether longer ones may exist."""
        waits, start, last = self.places.waits, path[0], path[-1]
        longer = False
        for following in waits[last]:
            if following <= start or following not in component or following in path:
                continue
            self._left -= 1
            if self._left < 0:
                self.bounded = True
                return False
            if any(following in waits[member] for member in path[:-1]):
                continue
            if any(member in waits[following] for member in path[1:]):
                continue
            closes = start in waits[following]
            if closes and len(path) + 1 != length:
                continue
            if not self._fits(path, following, length):
                continue
            if closes:
                self._close([*path, following], found)
            elif len(path) + 1 < length:
                longer |= self._extend([*path, following], component, length, found)
            else:
                longer = True
        return longer

    def _fits(self, path: list[int], following: int, length: int) -> bool:
        """Whether `following` is compatible with all of `path`, and wants something else (but for two that upgrade one lock)."""
        places = self.places
        wanted = places.places[following].request
        if length > 2 and any(places.places[member].request == wanted for member in path):
            return False
        for member in path[:-1]:  # With the last one it is, since that one waits for it.
            resource = places.apart(member, following)
            if resource is not None:
                between = {places.places[member].transaction, places.places[following].transaction}
                self.refuted[places.system.resources[resource].family, tuple(sorted(between))] += 1
                return False
        return True

    def _close(self, members: list[int], found: list[tuple[int, ...]]) -> None:
        if self.places.staffed(members, exactly=False) is not None:
            found.append(tuple(members))


def _components(waits: list[set[int]]) -> list[frozenset[int]]:
    """The sets of places that lie on common circles."""
    graph = Digraph((index, other) for index, others in enumerate(waits) for other in others)
    return [frozenset(component) for component in graph.circles()]
