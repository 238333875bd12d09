"""Slabs: the states of many rows at once, and what leads from one level of them to the next.

A slab has an axis for the place of each worker but the last, and the last worker's places as bits of words along one more axis. What a worker does
is the same few operations on whole slabs: keep the states in which nobody is in the way (a mask for each other worker, by its place), and
move them along the worker's own axis, or its bits. numpy does these at the speed of memory.

Levels are made by *pulling*: a part of the next level collects what leads into it, so that threads never write to the same part.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from lockmodel.packed.tables import Array, bits, words
from lockmodel.places import Move, PlacedEdge, Places, Shape
from lockmodel.system import Hold, System

ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
_ONE = np.uint64(1)
_PART_WORDS = 1 << 17
"""A part of a level and what is computed with it should stay in a processor's cache."""


class Part(NamedTuple):
    """The states of one valuation in which the first worker is at the places begin … end - 1."""

    valuation: int
    begin: int
    end: int


@dataclass(frozen=True)
class Layout:
    """How states lie in an array of the shape (valuations, places of each worker but the last …, words).

    A single worker has no others: then there is one axis of length 1 that is nobody's.
    """

    outer: tuple[Places, ...]
    last: Places
    valuations: int

    @classmethod
    def of(cls, places: Sequence[Places], valuations: int) -> Layout:
        return cls(tuple(places[:-1]), places[-1], valuations)

    @cached_property
    def words(self) -> int:
        return (len(self.last) + 63) // 64

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """The lengths of the axes of places."""
        return tuple(map(len, self.outer)) or (1,)

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.valuations, *self.sizes, self.words)

    @property
    def last_axis(self) -> int:
        """The axis of words in a part; the axis of a worker is its number."""
        return len(self.sizes)

    def parts(self, threads: int) -> list[Part]:
        row_words = self.words * math.prod(self.sizes[1:])
        step = max(1, min(_PART_WORDS // row_words, -(-self.sizes[0] // (2 * threads))))
        return [
            Part(valuation, begin, min(begin + step, self.sizes[0]))
            for valuation in range(self.valuations)
            for begin in range(0, self.sizes[0], step)
        ]

    def along(self, mask: Array, rows: int, columns: int) -> Array:
        """`mask`, of two axes, as one that fits to a part: its rows along the axis `rows`, its columns along `columns`."""
        shape = [1] * (len(self.sizes) + 1)
        shape[rows], shape[columns] = mask.shape
        return (mask if rows < columns else mask.T).reshape(shape)


class Level:
    """A set of states, and for each valuation and place of the first worker whether there are any; where not, all words are 0."""

    def __init__(self, layout: Layout) -> None:
        self.states = np.zeros(layout.shape, np.uint64)
        self.active = np.zeros(layout.shape[:2], bool)


@dataclass(frozen=True)
class _OuterMove:
    """A move of one who is not the last worker, as far as one valuation allows it.

    `at`: the places that tell its edges apart; for a CHAIN all places, of which `own` says which count. `free`: for each other axis, what does not
    block the edges, [edges, places as ALL or 0] or [edges, words].
    """

    shape: Shape
    anchor: int
    refuses: bool
    at: Array
    own: Array
    free: dict[Places | None, Array]


@dataclass(frozen=True)
class _LastMove:
    """A move of the last worker. `allowed` [words] its edges; `free`: for the places of another worker, the edges it does not block."""

    shape: Shape
    anchor: int
    refuses: bool
    allowed: Array
    free: dict[Places, Array]


class _Scratch(threading.local):
    """Arrays to compute in, for each thread its own: asking the system for new ones costs more than filling them."""

    def __init__(self) -> None:
        self._words: list[Array] = [np.empty(0, np.uint64), np.empty(0, np.uint64)]
        self._bytes = np.empty(0, np.uint8)

    def words(self, which: int, shape: tuple[int, ...]) -> Array:
        """One of two arrays of words, its content left from before."""
        size = math.prod(shape)
        if len(self._words[which]) < size:
            self._words[which] = np.empty(size, np.uint64)
        return self._words[which][:size].reshape(shape)

    def count(self, states: Array) -> int:
        """How many bits of `states` are set."""
        if len(self._bytes) < states.size:
            self._bytes = np.empty(states.size, np.uint8)
        ones = self._bytes[: states.size].reshape(states.shape)
        np.bitwise_count(states, out=ones)
        return int(ones.sum(dtype=np.int64))


class Moves:
    """All moves of a crew whose states lie as `layout` says. The system has no pools and no steps that may have no meaning."""

    def __init__(self, system: System, layout: Layout) -> None:
        self.system = system
        self.layout = layout
        self._scratch = _Scratch()
        self._outer: dict[tuple[Places, int, int], _OuterMove | None] = {}
        self._last_free: dict[tuple[int, Places], Array] = {}
        self._sources: dict[tuple[tuple[int, ...] | None, int], tuple[int, ...]] = {}
        self._last = {
            (number, valuation): self._last_move(number, move, valuation)
            for number, move in enumerate(layout.last.moves)
            for valuation in range(layout.valuations)
        }
        for worker in set(layout.outer):
            for number, move in enumerate(worker.moves):
                for valuation in range(layout.valuations):
                    self._outer[worker, number, valuation] = self._outer_move(worker, move, valuation)

    def pull(self, part: Part, level: Level, following: Array) -> int:
        """Put all successors of `level` that lie in `part` into `following`, the part's own array, all zero; returns how many transitions lead there."""
        return sum(self._pulled(part, level, following))

    def _pulled(self, part: Part, level: Level, following: Array) -> Iterator[int]:
        for axis, worker in enumerate(self.layout.outer):
            for number, move in enumerate(worker.moves):
                for origin in self._origins(move, part.valuation):
                    found = self._outer[worker, number, origin]
                    if found is None:
                        continue
                    if axis == 0:
                        yield from self._first_worker(found, origin, part, level, following)
                    elif level.active[origin, part.begin : part.end].any():
                        states = level.states[origin, part.begin : part.end]
                        yield self._other_worker(found, axis, part, states, following)
        for number, move in enumerate(self.layout.last.moves):
            for origin in self._origins(move, part.valuation):
                if level.active[origin, part.begin : part.end].any():
                    states = level.states[origin, part.begin : part.end]
                    yield self._last_worker(self._last[number, origin], part, states, following)

    def _origins(self, move: Move, valuation: int) -> tuple[int, ...]:
        """The valuations that `move` leads from to `valuation`."""
        key = (move.update, valuation)
        if key not in self._sources:
            after = move.update or range(self.layout.valuations)
            self._sources[key] = tuple(origin for origin, target in enumerate(after) if target == valuation)
        return self._sources[key]

    def count(self, states: Array) -> int:
        """How many bits of `states` are set."""
        return self._scratch.count(states)

    # The first worker's places are the rows of a part, so it moves states between parts.

    def _first_worker(self, move: _OuterMove, origin: int, part: Part, level: Level, following: Array) -> Iterator[int]:
        active = level.active[origin]
        if move.shape is Shape.CHAIN:
            begin, end = max(part.begin - 1, 0), part.end - 1
            if active[begin:end].any():
                taken = self._taken(move, 0, level.states[origin, begin:end], slice(begin, end), slice(None))
                following[begin + 1 - part.begin :] |= taken
                yield self.count(taken)
        elif move.shape is Shape.GATHER:
            if part.begin <= move.anchor < part.end:
                for edges in self._portions(np.flatnonzero(active[move.at])):
                    taken = self._taken(move, 0, level.states[origin, move.at[edges]], edges, slice(None))
                    following[move.anchor - part.begin] |= np.bitwise_or.reduce(taken, axis=0)
                    yield self.count(taken)
        elif active[move.anchor]:
            states = level.states[origin, move.anchor : move.anchor + 1]
            for edges in self._portions(np.flatnonzero((move.at >= part.begin) & (move.at < part.end))):
                taken = self._taken(move, 0, states, edges, slice(None))
                following[move.at[edges] - part.begin] |= taken
                yield self.count(taken)

    def _portions(self, edges: Array) -> Iterator[Array]:
        size = max(1, _PART_WORDS // math.prod(self.layout.shape[2:]))
        return (edges[begin : begin + size] for begin in range(0, len(edges), size))

    def _other_worker(self, move: _OuterMove, axis: int, part: Part, states: Array, following: Array) -> int:
        every = slice(None)
        rows = slice(part.begin, part.end)
        before: tuple[Any, ...] = (every,) * axis
        if move.shape is Shape.CHAIN:
            taken = self._taken(move, axis, states, every, rows)
            following[(*before, slice(1, None))] |= taken[(*before, slice(None, -1))]
        elif move.shape is Shape.GATHER:
            taken = self._taken(move, axis, states.take(move.at, axis=axis), every, rows)
            following[(*before, move.anchor)] |= np.bitwise_or.reduce(taken, axis=axis)
        else:
            source = states[(*before, slice(move.anchor, move.anchor + 1))]
            taken = self._taken(move, axis, source, every, rows)
            following[(*before, move.at)] |= taken
        return self.count(taken)

    def _taken(self, move: _OuterMove, axis: int, states: Array, edges: slice | Array, rows: slice) -> Array:
        """For each of the `edges`, the states of its source (one state array for all, where its axis has length 1) that take it."""
        layout = self.layout
        masks = [layout.along(move.free[None][edges], axis, layout.last_axis)]
        for other, worker in enumerate(layout.outer):
            if other != axis:
                free = move.free[worker][edges]
                masks.append(layout.along(free[:, rows] if other == 0 else free, axis, other))
        own = move.own[edges]
        if not own.all():
            masks.insert(0, layout.along(own[:, None], axis, layout.last_axis))
            if move.refuses:
                states = states & masks.pop(0)
        shape = list(states.shape)
        shape[axis] = len(own)
        taken = np.bitwise_and(states, masks[0], out=self._scratch.words(0, tuple(shape)))
        for mask in masks[1:]:
            taken &= mask
        return np.bitwise_xor(states, taken, out=taken) if move.refuses else taken

    def _last_worker(self, move: _LastMove, part: Part, states: Array, following: Array) -> int:
        layout = self.layout
        if move.shape is Shape.SCATTER:
            here = states[..., move.anchor >> 6] >> np.uint64(move.anchor & 63) & _ONE
            if not here.any():
                return 0
            states = (np.uint64(0) - here)[..., None]
        taken = np.bitwise_and(states, move.allowed, out=self._scratch.words(0, (*states.shape[:-1], layout.words)))
        asking = taken.copy() if move.refuses else taken
        for axis, worker in enumerate(layout.outer):
            free = move.free[worker]
            taken &= layout.along(free[part.begin : part.end] if axis == 0 else free, axis, layout.last_axis)
        if move.refuses:
            taken ^= asking
        if move.shape is Shape.SCATTER:
            following |= taken
        elif move.shape is Shape.GATHER:
            some = np.bitwise_or.reduce(taken, axis=-1) != 0
            following[..., move.anchor >> 6] |= some.astype(np.uint64) << np.uint64(move.anchor & 63)
        else:
            moved = self._scratch.words(1, taken.shape)
            following |= np.left_shift(taken, _ONE, out=moved)
            following[..., 1:] |= np.right_shift(taken, np.uint64(63), out=moved)[..., :-1]
        return self.count(taken)

    # Making the masks

    def _outer_move(self, worker: Places, move: Move, valuation: int) -> _OuterMove | None:
        allowed = set(_members(move.allowed(valuation)))
        if not allowed:
            return None
        at = range(len(worker)) if move.shape is Shape.CHAIN else sorted(allowed)
        edges = [move.edges[place] if place in allowed else None for place in at]
        free: dict[Places | None, Array] = {None: ~np.array([self._blocking(e, self.layout.last) for e in edges])}
        # With two workers nobody else is in the way.
        for other in set(self.layout.outer) if len(self.layout.outer) > 1 else ():
            free[other] = np.array([self._free(edge, other) for edge in edges])
        own = np.array([ALL if edge else 0 for edge in edges], np.uint64)
        return _OuterMove(move.shape, move.anchor, move.refuses, np.array(at), own, free)

    def _blocking(self, edge: PlacedEdge | None, last: Places) -> Array:
        found = _union(last.blocking(request) for request in edge.edge.requests) if edge else 0
        return words(found, self.layout.words)

    def _free(self, edge: PlacedEdge | None, other: Places) -> Array:
        found = _union(other.blocking(request) for request in edge.edge.requests) if edge else 0
        return np.where(bits(found, len(other)) != 0, np.uint64(0), ALL)

    def _last_move(self, number: int, move: Move, valuation: int) -> _LastMove:
        for other in set(self.layout.outer):
            if (number, other) not in self._last_free:
                self._last_free[number, other] = self._not_wanting(move, other)
        free = {other: self._last_free[number, other] for other in set(self.layout.outer)}
        allowed = words(move.allowed(valuation), self.layout.words)
        return _LastMove(move.shape, move.anchor, move.refuses, allowed, free)

    def _not_wanting(self, move: Move, other: Places) -> Array:
        """[places of `other`, words] The edges of the last worker's `move` that one at that place does not block."""
        wanting: dict[Hold, int] = {}
        result = np.empty((len(other), self.layout.words), np.uint64)
        for place, here in enumerate(other.all()):
            for hold in here.held:
                if hold not in wanting:
                    wanting[hold] = move.wanting(self.system, hold)
            result[place] = ~words(_union(wanting[hold] for hold in here.held), self.layout.words)
        return result


def _members(places: int) -> Iterator[int]:
    while places:
        low = places & -places
        yield low.bit_length() - 1
        places ^= low


def _union(sets: Iterable[int]) -> int:
    found = 0
    for one in sets:
        found |= one
    return found
