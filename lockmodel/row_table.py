"""Rows: all states that differ only in where the last worker is, and what can happen in each.

Which states of a row are meant is a set of places (an integer, one bit each, see `places`). What another worker does in a row it does in all
the states in one operation, and what the last worker does are a few shifts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from lockmodel.exploration import AskReference
from lockmodel.places import PlacedEdge, Shape, places_of
from lockmodel.semantics import Crew, State
from lockmodel.system import Hold, Request, System

_KEPT_ROWS = 20_000

Key = tuple[int, ...]
"""A row: the valuation, and the places of all workers but the last."""
Sets = dict[Key, int]
"""A set of states: for each row, the places of the last worker."""


class Step(NamedTuple):
    """One operation on a row: the states in `mask` take an edge each and come out in the row `target`.

    `mask` has targets for a SCATTER, sources otherwise.
    """

    shape: Shape | None
    """None: another worker's edge; the last worker stays in its place."""
    mask: int
    anchor: int
    target: Key


class Row(NamedTuple):
    steps: tuple[Step, ...]
    meaningless: int
    """The places of the last worker at which some enabled step has no meaning."""


class RowTable:
    """The rows of `system` for `crew`, each made when it is first asked for."""

    def __init__(self, system: System, crew: Crew) -> None:
        self.system = system
        self.places = places_of(system, crew)
        *self.outer, self.last = self.places
        self.everywhere = (1 << len(self.last)) - 1
        self._rows: dict[Key, Row] = {}
        self._allowed: dict[tuple[int, int], tuple[int, int]] = {}
        self._updates = any(
            item.edge.update is not None for places in self.places for out in places.out for item in out
        )
        self._wanting: dict[Hold, list[int]] = {}
        self._blocked: dict[tuple[Hold, ...], list[int]] = {}
        self._blocking: dict[Request, dict[int, int]] = {}

    def locate(self, state: State) -> tuple[Key, int]:
        """The row of `state`, and the last worker's place in it."""
        numbers = [places.number[location] for places, location in zip(self.places, state.locations, strict=True)]
        return (state.valuation, *numbers[:-1]), numbers[-1]

    def expand(self, key: Key, bits: int, reached: Sets) -> int:
        """Add the successors of the states `bits` of row `key` to `reached`; returns how many transitions lead to them.

        Raises AskReference if an enabled step has no meaning in one of the states.
        """
        row = self.row(key)
        if bits & row.meaningless:
            raise AskReference
        transitions = 0
        for shape, mask, anchor, target in row.steps:
            if shape is Shape.SCATTER:
                if not bits >> anchor & 1:
                    continue
                transitions += mask.bit_count()
                moved = mask
            else:
                moved = bits & mask
                if not moved:
                    continue
                transitions += moved.bit_count()
                if shape is Shape.CHAIN:
                    moved <<= 1
                elif shape is Shape.GATHER:
                    moved = 1 << anchor
            reached[target] = reached.get(target, 0) | moved
        return transitions

    def sources(self, key: Key, bits: int, wanted: Sets) -> int:
        """Those of the states `bits` of row `key` that have a successor in `wanted`."""
        found = 0
        for shape, mask, anchor, target in self.row(key).steps:
            goal = wanted.get(target, 0)
            if not goal:
                continue
            if shape is None:
                found |= bits & mask & goal
            elif shape is Shape.CHAIN:
                found |= bits & mask & (goal >> 1)
            elif shape is Shape.GATHER:
                found |= bits & mask if goal >> anchor & 1 else 0
            elif mask & goal:
                found |= bits & (1 << anchor)
        return found

    def before(self, wanted: Iterable[Key]) -> set[Key]:
        """Rows that can have a successor in the rows `wanted` (and some that can't)."""
        found: set[Key] = set()
        valuations = range(len(self.system.valuations))
        for valuation, *outer in wanted:
            origins = valuations if self._updates else (valuation,)
            found.update((origin, *outer) for origin in origins)
            for worker, places in enumerate(self.outer):
                for source in places.sources[outer[worker]]:
                    found.update((origin, *outer[:worker], source, *outer[worker + 1 :]) for origin in origins)
        return found

    def row(self, key: Key) -> Row:
        found = self._rows.get(key)
        if found is None:
            if len(self._rows) >= _KEPT_ROWS:
                self._rows.clear()
            meaningless: list[int] = []
            steps = (*self._outer_steps(key, meaningless), *self._last_steps(key, meaningless))
            found = self._rows[key] = Row(steps, _union(meaningless))
        return found

    def held(self, key: Key) -> list[tuple[Hold, ...]]:
        """What each worker but the last holds in row `key`."""
        return [
            self.system.locations[places.locations[place]].held
            for places, place in zip(self.outer, key[1:], strict=True)
        ]

    def _outer_steps(self, key: Key, meaningless: list[int]) -> Iterator[Step]:
        valuation = key[0]
        for worker, places in enumerate(self.outer):
            for item in places.out[key[1 + worker]]:
                edge = item.edge
                faulty = valuation in edge.faults
                if edge.guard is not None and valuation not in edge.guard and not faulty:
                    continue
                mask = self._free(key, worker, item)
                if not mask:
                    continue
                if faulty:
                    meaningless.append(mask)
                    continue
                after = valuation if edge.update is None else edge.update[valuation]
                target = (after, *key[1 : 1 + worker], item.target, *key[2 + worker :])
                yield Step(None, mask, 0, target)

    def _free(self, key: Key, worker: int, item: PlacedEdge) -> int:
        """The places of the last worker with which `worker` can take the edge (for a refusal: must be refused)."""
        blocked = 0
        for request in item.edge.requests:
            blocking = self.blocking(request)
            for other, places in enumerate(self.outer):
                if other != worker and blocking[id(places)] >> key[1 + other] & 1:
                    return self.everywhere if item.refuses else 0
            blocked |= blocking[id(self.last)]
        return blocked if item.refuses else self.everywhere & ~blocked

    def blocking(self, request: Request) -> dict[int, int]:
        """For each Places (by its id), the places whose locks make `request` of another worker wait."""
        found = self._blocking.get(request)
        if found is None:
            found = self._blocking[request] = {id(places): places.blocking(request) for places in self.places}
        return found

    def _last_steps(self, key: Key, meaningless: list[int]) -> Iterator[Step]:
        valuation = key[0]
        blocked = [self._blocked_moves(held) for held in self.held(key) if held]
        for number, move in enumerate(self.last.moves):
            waiting = 0
            for masks in blocked:
                waiting |= masks[number]
            allowed, faulty = self._allowed_by(number, valuation)
            mask = allowed & waiting if move.refuses else allowed & ~waiting
            if mask & faulty:
                meaningless.append(move.sources(mask & faulty))
                mask &= ~faulty
            if mask:
                after = valuation if move.update is None else move.update[valuation]
                yield Step(move.shape, mask, move.anchor, (after, *key[1:]))

    def _allowed_by(self, number: int, valuation: int) -> tuple[int, int]:
        """The edges of a move that their guards allow, and those of them that have no meaning."""
        found = self._allowed.get((number, valuation))
        if found is None:
            move = self.last.moves[number]
            found = self._allowed[number, valuation] = (move.allowed(valuation), move.faulty(valuation))
        return found

    def _blocked_moves(self, held: tuple[Hold, ...]) -> list[int]:
        """For each move of the last worker, the edges that must wait for one that holds `held`."""
        found = self._blocked.get(held)
        if found is None:
            found = [0] * len(self.last.moves)
            for hold in held:
                if hold not in self._wanting:
                    self._wanting[hold] = [move.wanting(self.system, hold) for move in self.last.moves]
                found = [mine | more for mine, more in zip(found, self._wanting[hold], strict=True)]
            self._blocked[held] = found
        return found


def _union(sets: list[int]) -> int:
    bits = 0
    for one in sets:
        bits |= one
    return bits
