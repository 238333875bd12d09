"""The hashed engine: a breadth-first search over states packed into words, found again by an open-addressing table.

For spaces too large or too thin for the dense engine, and for what that one can't do: pools, steps without meaning, symmetry and
partial-order reduction. States are divided into parts by their hash, one for each thread: all threads expand their own part of a level, then each adds
what came for its part. No parents are stored; a trace is found by marking, level by level backwards, what leads to a violation.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np

from lockmodel.budget import Budget
from lockmodel.exploration import (
    INTERRUPTED,
    STOPPED_AT_VIOLATION,
    AskReference,
    Exploration,
    Limits,
    Progress,
    Violation,
)
from lockmodel.packed import hashed_kernel as kernel
from lockmodel.packed.tables import Array, Tables, formulas, tables
from lockmodel.packed.threads import thread_count
from lockmodel.properties import broken_property, evaluators
from lockmodel.retrace import retrace
from lockmodel.semantics import Crew, Semantics, State
from lockmodel.system import System

_FIRST_SLOTS = 1 << 12
_LOAD = 0.6
_OUTGOING_BYTES = 1 << 24
_BYTES_BESIDE = 14
"""Of the table, for each state."""
_MOST_STATES = (1 << 32) - 2


class StateArrays(NamedTuple):
    """What `hashed_kernel` knows: the arrays of `Tables` and `Formulas`, and where in a state's words everything stands."""

    word: Array
    """[N + 1] For each worker and the valuation: the word, the first bit and the mask."""
    shift: Array
    mask: Array
    same: Array
    """[N] A number for each group of identical workers."""
    first: Array
    edge_start: Array
    target: Array
    wanted: Array
    refuses: Array
    guard: Array
    update: Array
    pool: Array
    conflict: Array
    allowed: Array
    updated: Array
    waits: Array
    waits_pool: Array
    units: Array
    capacity: Array
    running: Array
    eager: Array
    role: Array
    adds: Array
    judged: Array
    no_stall: bool
    symmetry: bool
    reduce: bool


def explore(
    system: System,
    crew: Crew,
    limits: Limits | None = None,
    *,
    progress: Callable[[Progress], None] | None = None,
    stop_at_violation: bool = True,
    symmetry: bool = False,
    partial_order: bool = False,
    threads: int | None = None,
) -> Exploration:
    """Search all states, as `reference.explore` does; a search that stops at a violation finishes the violation's level.

    With `symmetry`, states that differ only in which of several identical workers is where count as one: sound for every property, since
    formulas can't name a worker. With `partial_order`, steps that nothing can forbid and that forbid nothing are taken first: sound
    for deadlocks only, and the trace need not be a shortest one; the caller must not ask for it if there are other properties.
    Raises Unsupported for what has no room in the tables, AskReference where a step or a formula has no meaning.
    """
    options = _Options(stop_at_violation, symmetry, partial_order, threads or thread_count())
    return _Search(system, crew, limits or Limits(), progress, options).run()


@dataclass(frozen=True)
class _Options:
    stop_at_violation: bool
    symmetry: bool
    partial_order: bool
    threads: int

    @property
    def reductions(self) -> tuple[str, ...]:
        return ("symmetry",) * self.symmetry + ("partial order",) * self.partial_order


@dataclass
class _Part:
    """The states whose hash says that they belong here, in the order in which they were found."""

    states: Array
    table: Array
    known: int = 0
    level_ends: list[int] = field(default_factory=list)
    """How many there were at the end of each level."""

    def level(self, number: int) -> tuple[int, int]:
        return (self.level_ends[number - 1] if number else 0), self.level_ends[number]

    def make_room(self, more: int) -> bool:
        """Grow the table for `more` states; False if that many can't be stored."""
        needed = self.known + more
        if needed > self.states.shape[0]:
            return False
        if needed > self.table.shape[0] * _LOAD:
            size = self.table.shape[0]
            while needed > size * _LOAD:
                size *= 2
            # The old table goes before the new one comes: both at once would be the search's peak.
            self.table = np.empty(0, np.uint32)
            self.table = np.zeros(size, np.uint32)
            kernel.rehash(self.states, self.known, self.table)
        return True


class _Search:
    def __init__(
        self,
        system: System,
        crew: Crew,
        limits: Limits,
        progress: Callable[[Progress], None] | None,
        options: _Options,
    ) -> None:
        self.semantics = Semantics(system, crew)
        self.budget = Budget(limits)
        self.evaluators = evaluators(self.semantics)
        self.tables = tables(system, crew)
        self.arrays = _arrays(self.tables, self, options)
        self.words = int(self.arrays.word.max()) + 1
        self.options = options
        self.progress = progress
        self.most_out = _most_out(self.tables)
        self.parts = [self._part() for _ in range(options.threads)]
        self.transitions = self.depth = 0
        self.violated_level = -1
        self.started = time.monotonic()

    def _part(self) -> _Part:
        beside = 8 * self.words + _BYTES_BESIDE
        room = max(1, self.budget.memory_bytes // beside // self.options.threads)
        # Reserved, not used: the system gives memory for the pages that are written to.
        states = np.empty((min(room, _MOST_STATES), self.words), np.uint64)
        return _Part(states, np.zeros(_FIRST_SLOTS, np.uint32))

    @property
    def states(self) -> int:
        return sum(part.known for part in self.parts)

    def run(self) -> Exploration:
        with ThreadPoolExecutor(self.options.threads) as pool:
            try:
                stopped = self._levels(pool)
            except KeyboardInterrupt:
                stopped = INTERRUPTED
        return Exploration(
            crew=self.semantics.crew,
            states=self.states,
            transitions=self.transitions,
            depth=self.depth,
            seconds=time.monotonic() - self.started,
            stopped=stopped,
            violation=self._violation() if self.violated_level >= 0 else None,
            engine="hashed",
            reductions=self.options.reductions,
        )

    def _levels(self, pool: ThreadPoolExecutor) -> str | None:
        if self._add_initial() and self.options.stop_at_violation:
            return STOPPED_AT_VIOLATION
        outgoing = self._outgoing()
        counts = np.zeros((len(self.parts), len(self.parts)), np.int64)
        while True:
            self.depth += 1
            ends = [part.known for part in self.parts]
            for part in self.parts:
                part.level_ends.append(part.known)
            cursors = [part.level(self.depth - 1)[0] for part in self.parts]
            while any(cursor < end for cursor, end in zip(cursors, ends, strict=True)):
                counts[:] = 0
                cursors = self._expand(pool, cursors, ends, outgoing, counts)
                if not self._insert(pool, outgoing, counts):
                    return self.budget.out_of_memory
                self._report(sum(ends) - sum(cursors))
                if reason := self.budget.exceeded(self.states):
                    return reason
            if self.violated_level >= 0 and self.options.stop_at_violation:
                self.depth += 1
                return STOPPED_AT_VIOLATION
            if self.states == sum(ends):
                return None

    def _add_initial(self) -> bool:
        """Whether the initial state violates a property."""
        packed = self._packed(self.semantics.initial)
        part = self.parts[self._part_of(packed)]
        part.known, violated = kernel.insert(packed[None], 1, part.states, 0, part.table, True, self.arrays)
        if violated == kernel.MEANINGLESS:
            raise AskReference
        if violated >= 0:
            self.violated_level, self.depth = 0, 1
            for each in self.parts:
                each.level_ends.append(each.known)
            if not self.options.stop_at_violation:
                for each in self.parts:
                    each.level_ends.clear()
                self.depth = 0
        return bool(violated >= 0)

    def _expand(
        self, pool: ThreadPoolExecutor, cursors: list[int], ends: list[int], outgoing: Array, counts: Array
    ) -> list[int]:
        def one(number: int) -> tuple[int, int]:
            made = np.zeros((self.most_out, self.words), np.uint64)
            result: tuple[int, int] = kernel.expand(
                cursors[number], ends[number], self.parts[number].states, made, len(self.parts),
                outgoing[number], counts[number], self.arrays,
            )  # fmt: skip
            return result

        results = list(pool.map(one, range(len(self.parts))))
        if any(transitions == kernel.MEANINGLESS for _, transitions in results):
            raise AskReference
        self.transitions += sum(transitions for _, transitions in results)
        return [cursor for cursor, _ in results]

    def _insert(self, pool: ThreadPoolExecutor, outgoing: Array, counts: Array) -> bool:
        """Add what was found; False: there is no room for it."""
        if not all(part.make_room(int(counts[:, number].sum())) for number, part in enumerate(self.parts)):
            return False
        judge = self.violated_level < 0

        def one(number: int) -> int:
            part = self.parts[number]
            worst = -1
            for origin in range(len(self.parts)):
                part.known, violated = kernel.insert(
                    outgoing[origin, number], counts[origin, number], part.states, part.known, part.table,
                    judge and worst == -1, self.arrays,
                )  # fmt: skip
                worst = violated if worst == -1 else worst
            return worst

        found = list(pool.map(one, range(len(self.parts))))
        if kernel.MEANINGLESS in found:
            raise AskReference
        if max(found) >= 0:
            self.violated_level = self.depth
        return True

    def _outgoing(self) -> Array:
        """[threads, parts, successors, words] What each thread found for each part."""
        parts = len(self.parts)
        room = max(2 * self.most_out, _OUTGOING_BYTES // (8 * self.words * parts * parts))
        return np.empty((parts, parts, room, self.words), np.uint64)

    def _report(self, frontier: int) -> None:
        if self.progress:
            self.progress(Progress(self.states, frontier, self.depth, time.monotonic() - self.started))

    def _violation(self) -> Violation:
        marked = [np.zeros(part.known, np.uint8) for part in self.parts]
        last = self.violated_level
        for part in self.parts:
            if len(part.level_ends) == last:
                part.level_ends.append(part.known)
        for part, marks in zip(self.parts, marked, strict=True):
            kernel.judge_all(*part.level(last), part.states, marks, self.arrays)
        made = np.zeros((self.most_out, self.words), np.uint64)
        for number in range(last - 1, -1, -1):
            for part, marks in zip(self.parts, marked, strict=True):
                for other, goal in enumerate(self.parts):
                    kernel.mark_sources(
                        *part.level(number), part.states, marks, other, goal.states, goal.table, marked[other],
                        *goal.level(number + 1), made, len(self.parts), self.arrays,
                    )  # fmt: skip
        trace = retrace(self.semantics, [partial(self._marked, marked, number) for number in range(last + 1)])
        broken = broken_property(self.semantics, self.evaluators, trace.last)
        assert broken is not None
        return Violation(broken, trace)

    def _marked(self, marked: list[Array], level: int, state: State) -> bool:
        packed = self._packed(state)
        number = self._part_of(packed)
        part = self.parts[number]
        index = int(part.table[kernel.find(packed, part.states, part.table)]) - 1
        low, high = part.level(level)
        return low <= index < high and bool(marked[number][index])

    def _packed(self, state: State) -> Array:
        places = [each.number[here] for each, here in zip(self.tables.places, state.locations, strict=True)]
        packed = np.zeros(self.words, np.uint64)
        kernel.pack(packed, np.array(places, np.int64), state.valuation, self.arrays)
        return packed

    def _part_of(self, packed: Array) -> int:
        return int(int(kernel.hash_of(packed)) >> 40) % len(self.parts)


def _most_out(made: Tables) -> int:
    """The most successors that a state can have."""
    out = np.diff(made.edge_start)
    return max(
        1,
        sum(
            int(out[first : first + len(places)].max())
            for first, places in zip(made.first.tolist(), made.places, strict=True)
        ),
    )


def _arrays(made: Tables, search: _Search, options: _Options) -> StateArrays:
    word, shift, mask = _layout([*(len(places) for places in made.places), made.valuations])
    judged = formulas(made, search.evaluators, on_waiting=True)
    return StateArrays(
        word=word,
        shift=shift,
        mask=mask,
        same=judged.role,
        first=made.first,
        edge_start=made.edge_start,
        target=made.target,
        wanted=made.wanted,
        refuses=made.refuses,
        guard=made.guard,
        update=made.update,
        pool=made.pool,
        conflict=made.conflict,
        allowed=made.allowed,
        updated=made.updated,
        waits=made.waits,
        waits_pool=made.waits_pool,
        units=made.units,
        capacity=made.capacity,
        running=made.running,
        eager=made.eager,
        role=judged.role,
        adds=judged.adds,
        judged=judged.judged,
        no_stall=made.system.no_global_stall,
        symmetry=options.symmetry,
        reduce=options.partial_order,
    )


def _layout(sizes: Iterable[int]) -> tuple[Array, Array, Array]:
    """For each number below its size: the word, the first bit, and a mask of its bits. None lies across two words."""
    words, shifts, masks = [], [], []
    word = used = 0
    for size in sizes:
        width = (size - 1).bit_length()
        if used + width > 64:
            word, used = word + 1, 0
        words.append(word)
        shifts.append(used % 64)
        masks.append((1 << width) - 1)
        used += width
    return np.array(words, np.int64), np.array(shifts, np.int64), np.array(masks, np.int64)
