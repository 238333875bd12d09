"""The dense engine: a breadth-first search over a table with one bit for every combination of places.

Four bits a combination, reachable or not, and no more: the states seen, the level at hand, the next, and those that violate a property. What a level
leads to is computed for whole parts of the table (`slabs`), which the threads share. No parents are stored; for a trace, the search runs once
more up to the violation and keeps its levels.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from lockmodel.budget import Budget, resident_bytes
from lockmodel.exploration import (
    INTERRUPTED,
    STOPPED_AT_VIOLATION,
    Exploration,
    Limits,
    Progress,
    Unsupported,
    Violation,
)
from lockmodel.packed.slab_watch import SlabWatch
from lockmodel.packed.slabs import Layout, Level, Moves, Part
from lockmodel.packed.tables import Array, tables
from lockmodel.packed.threads import thread_count
from lockmodel.places import places_of
from lockmodel.properties import broken_property, evaluators
from lockmodel.retrace import retrace
from lockmodel.row_table import Key, RowTable, Sets
from lockmodel.semantics import Crew, Semantics, State
from lockmodel.system import System


def size_bytes(system: System, crew: Crew) -> int:
    """The memory that a search of `crew` needs for its table, and for the masks of its moves."""
    layout = Layout.of(places_of(system, crew), len(system.valuations))
    kinds = set(layout.outer)
    masks = sum(len(kind) * (layout.words + (sum(map(len, kinds)) if len(layout.outer) > 1 else 0)) for kind in kinds)
    return (math.prod(layout.shape) * 4 + masks * 4) * 8


def explore(
    system: System,
    crew: Crew,
    limits: Limits | None = None,
    *,
    progress: Callable[[Progress], None] | None = None,
    stop_at_violation: bool = True,
    threads: int | None = None,
) -> Exploration:
    """Search all states, as `reference.explore` does; a search that stops at a violation finishes the violation's level.

    Raises Unsupported for systems with pools, with steps or formulas that may have no meaning, with formulas that ask who waits, or too large.
    """
    try:
        return _Search(system, crew, limits or Limits(), progress, stop_at_violation, threads or thread_count()).run()
    except MemoryError:
        raise Unsupported("the table would need more memory than the process may have") from None


class _Search:
    def __init__(
        self,
        system: System,
        crew: Crew,
        limits: Limits,
        progress: Callable[[Progress], None] | None,
        stop_at_violation: bool,
        threads: int,
    ) -> None:
        self.semantics = Semantics(system, crew)
        self.budget = Budget(limits)
        if size_bytes(system, crew) > self.budget.memory_bytes - resident_bytes():
            raise Unsupported("the table would need more memory than there is")
        self.evaluators = evaluators(self.semantics)
        made = tables(system, crew)
        if made.capacity.shape[0]:
            raise Unsupported("pools")
        if (made.allowed == 2).any():
            raise Unsupported("steps that may have no meaning")
        self.layout = Layout.of(made.places, made.valuations)
        self.watch = SlabWatch(made, self.layout, self.evaluators)
        self.moves = Moves(system, self.layout)
        self.progress = progress
        self.stop_at_violation = stop_at_violation
        self.threads = threads
        self.states = self.transitions = self.depth = 0
        self.violated_depth = 0
        self.started = time.monotonic()

    def run(self) -> Exploration:
        try:
            stopped = self._levels()
        except KeyboardInterrupt:
            stopped = INTERRUPTED
        return Exploration(
            crew=self.semantics.crew,
            states=self.states,
            transitions=self.transitions,
            depth=self.depth,
            seconds=time.monotonic() - self.started,
            stopped=stopped,
            violation=self._violation() if self.violated_depth else None,
            engine="dense",
        )

    def _levels(self) -> str | None:
        self.states = self.depth = 1
        if broken_property(self.semantics, self.evaluators, self.semantics.initial) is not None:
            self.violated_depth = 1
            if self.stop_at_violation:
                return STOPPED_AT_VIOLATION
        for transitions, states, violated, _ in self._search():
            self.transitions += transitions
            self.states += states
            self.depth += bool(states)
            if violated and not self.violated_depth:
                self.violated_depth = self.depth
                if self.stop_at_violation:
                    return STOPPED_AT_VIOLATION
            if reason := self.budget.exceeded(self.states):
                return reason
        return None

    def _search(self) -> Iterator[tuple[int, int, bool, Level]]:
        """For each level after the first: how many transitions lead to it, its states, whether one violates a property, and the level."""
        seen = np.zeros(self.layout.shape, np.uint64)
        level, following = Level(self.layout), Level(self.layout)
        start = (self.semantics.initial.valuation, *(0 for _ in self.layout.sizes))
        seen[start][0] = level.states[start][0] = 1
        level.active[start[:2]] = True
        parts = self.layout.parts(self.threads)
        with ThreadPoolExecutor(self.threads) as pool:
            while level.active.any():

                def one(part: Part, level: Level = level, following: Level = following) -> tuple[int, int, bool]:
                    return self._advance(part, level, following, seen)

                transitions = states = 0
                violated = stopped = False
                try:
                    for made in pool.map(one, parts):
                        transitions += made[0]
                        states += made[1]
                        violated = violated or made[2]
                        self._report(states)
                        # A level of billions of states takes minutes, so the clock and the memory are looked at within it.
                        stopped = not self.violated_depth and self.budget.exceeded(0) is not None
                        if stopped:
                            pool.shutdown(wait=True, cancel_futures=True)
                            break
                except BaseException:
                    pool.shutdown(wait=True, cancel_futures=True)
                    raise
                # The violation may be in what is missing, and then is not the first one.
                yield transitions, states, violated and not stopped, following
                if stopped:
                    return
                level, following = following, level

    def _advance(self, part: Part, level: Level, following: Level, seen: Array) -> tuple[int, int, bool]:
        """Make `part` of the next level: the transitions that lead there, the new states, and whether one violates a property."""
        rows = (part.valuation, slice(part.begin, part.end))
        fresh = following.states[rows]
        if following.active[rows].any():
            fresh.fill(0)
        transitions = self.moves.pull(part, level, fresh)
        if not transitions:
            following.active[rows] = False
            return 0, 0, False
        fresh &= ~seen[rows]
        states = self.moves.count(fresh)
        following.active[rows] = fresh.any(axis=tuple(range(1, fresh.ndim)))
        if not states:
            return transitions, 0, False
        seen[rows] |= fresh
        return transitions, states, bool((fresh & self.watch.bad(part)).any())

    def _report(self, fresh: int) -> None:
        if self.progress:
            seconds = time.monotonic() - self.started
            self.progress(Progress(self.states + fresh, fresh, self.depth, seconds))

    def _violation(self) -> Violation:
        table = RowTable(self.semantics.system, self.semantics.crew)
        *before, last = self._stored_levels()
        wanted = {self._key(row): _integer(words) for row, words in zip(*last, strict=True)}
        on_path = [self._membership(table, wanted)]
        for level in reversed(before):
            wanted = self._sources(table, level, wanted)
            on_path.append(self._membership(table, wanted))
        trace = retrace(self.semantics, on_path[::-1])
        broken = broken_property(self.semantics, self.evaluators, trace.last)
        assert broken is not None
        return Violation(broken, trace)

    def _stored_levels(self) -> Iterator[tuple[Array, Array]]:
        """The numbers of the rows that have states, in order, and their words: of each level, and of the last one the states that violate."""
        first = np.zeros((1, self.layout.words), np.uint64)
        first[0, 0] = 1
        yield np.array([self._row((self.semantics.initial.valuation, *(0 for _ in self.layout.outer)))]), first
        levels = self._search()
        for depth in range(2, self.violated_depth + 1):
            level = next(levels)[3]
            yield self._rows(level.states if depth < self.violated_depth else self._violating(level))

    def _rows(self, states: Array) -> tuple[Array, Array]:
        rows = np.flatnonzero(states.any(axis=-1))
        return rows, states.reshape(-1, self.layout.words)[rows]

    def _violating(self, level: Level) -> Array:
        found = np.zeros_like(level.states)
        for part in self.layout.parts(self.threads):
            rows = (part.valuation, slice(part.begin, part.end))
            if level.active[rows].any():
                found[rows] = level.states[rows] & self.watch.bad(part)
        return found

    def _sources(self, table: RowTable, level: tuple[Array, Array], wanted: Sets) -> Sets:
        found = {}
        rows, words = level
        for key in table.before(wanted):
            row = self._row(key)
            index = int(np.searchsorted(rows, row))
            if index < len(rows) and rows[index] == row:
                sources = table.sources(key, _integer(words[index]), wanted)
                if sources:
                    found[key] = sources
        return found

    def _key(self, row: int) -> Key:
        valuation, *places = (int(index) for index in np.unravel_index(row, self.layout.shape[:-1]))
        return (valuation, *places[: len(self.layout.outer)])

    def _row(self, key: Key) -> int:
        places = key if self.layout.outer else (*key, 0)
        return int(np.ravel_multi_index(places, self.layout.shape[:-1]))

    def _membership(self, table: RowTable, sets: Sets) -> Callable[[State], bool]:
        def contains(state: State) -> bool:
            key, place = table.locate(state)
            return bool(sets.get(key, 0) >> place & 1)

        return contains


def _integer(words: Array) -> int:
    return int.from_bytes(words.tobytes(), "little")
