"""The dense engine: a breadth-first search over a table with one bit for every combination of places.

Three bits a combination, reachable or not, and no more: the states seen, the level at hand and the next. A row of the table (see `dense_kernel`)
is handled 64 states at a time, and the threads share the rows. No parents are stored; for a trace, the search runs once more up to the
violation and keeps its levels.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from lockmodel.budget import Budget, resident_bytes
from lockmodel.exploration import (
    INTERRUPTED,
    STOPPED_AT_VIOLATION,
    AskReference,
    Exploration,
    Limits,
    Progress,
    Unsupported,
    Violation,
)
from lockmodel.packed import dense_kernel as kernel
from lockmodel.packed.tables import Array, Tables, formulas, tables, words
from lockmodel.packed.threads import thread_count
from lockmodel.places import Places, Shape
from lockmodel.properties import broken_property, evaluators
from lockmodel.retrace import retrace
from lockmodel.row_table import Key, RowTable, Sets
from lockmodel.semantics import Crew, Semantics, State
from lockmodel.system import Hold, System

_CHUNK_WORDS = 1 << 15
_SHAPES = {Shape.CHAIN: kernel.CHAIN, Shape.GATHER: kernel.GATHER, Shape.SCATTER: kernel.SCATTER}


class RowArrays(NamedTuple):
    """What `dense_kernel.pull` knows. Shapes: G places of all kinds, E edges, H sets of locks held, M moves, K words of a row."""

    radix: Array
    """[N - 1] The number of places of each worker but the last."""
    stride: Array
    """[N - 1] By how much the row number grows with the place."""
    stride_of_valuation: int
    first: Array
    """[N]"""
    into_start: Array
    """[G + 1] The edges into place g are into[into_start[g]] …"""
    into: Array
    source: Array
    """[E]"""
    wanted: Array
    refuses: Array
    guard: Array
    update: Array
    allowed: Array
    """[guards, V]"""
    before_start: Array
    """[updates, V + 1] The valuations that an update leads from: before[before_start[u, v]] …"""
    before: Array
    conflict: Array
    """[R, G]"""
    blocking: Array
    """[R, K] The places of the last worker whose locks block the wanted set."""
    holding: Array
    """[G] The set of locks held at a place, by number; 0 is none."""
    blocked: Array
    """[H, M, K] The edges of a move that must wait for one who holds the set."""
    shape: Array
    """[M]"""
    anchor: Array
    move_refuses: Array
    move_update: Array
    move_allowed: Array
    """[M, V, K]"""


class WatchArrays(NamedTuple):
    """What `dense_kernel.violating` knows beside that."""

    waits: Array
    """[G] The wanted set that a worker waits for, or -1."""
    waiting_for: Array
    """[H, K] The places of the last worker at which it waits for one who holds the set."""
    running: Array
    """[G]"""
    last_running: Array
    """[K]"""
    no_stall: bool
    role: Array
    adds: Array
    judged: Array


def size_bytes(system: System, crew: Crew) -> int:
    """The memory that a search of `crew` needs for its table."""
    known: dict[tuple[str, ...], int] = {}
    rows = len(system.valuations)
    count = 1
    for transactions in crew.transactions:
        if transactions not in known:
            known[transactions] = len(Places(system, transactions))
        rows *= count
        count = known[transactions]
    return rows * ((count + 63) // 64 * 8 * 3 + 2)


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

    Raises Unsupported for systems with pools, with steps that may have no meaning, with formulas that ask who waits, or too large; AskReference where a
    formula has no meaning in a reachable state.
    """
    return _Search(system, crew, limits or Limits(), progress, stop_at_violation, threads or thread_count()).run()


@dataclass
class _Level:
    """One level on its way from `level` to `following`."""

    level: Array
    active: Array
    following: Array
    following_active: Array

    def swapped(self) -> _Level:
        return _Level(self.following, self.following_active, self.level, self.active)


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
        self.tables = tables(system, crew)
        self.arrays, self.watch = _arrays(self.tables, self.evaluators)
        self.rows = int(np.prod(self.arrays.radix)) * self.tables.valuations
        self.count = self.arrays.blocking.shape[1]
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
        for transitions, states, violations, _ in self._search():
            self.transitions += transitions
            self.states += states
            self.depth += bool(states)
            if violations == kernel.MEANINGLESS:
                # Where a violation has been found already, the reference engine looks at no more formulas.
                if not self.violated_depth:
                    raise AskReference
            elif violations and not self.violated_depth:
                self.violated_depth = self.depth
                if self.stop_at_violation:
                    return STOPPED_AT_VIOLATION
            if reason := self.budget.exceeded(self.states):
                return reason
        return None

    def _search(self) -> Iterator[tuple[int, int, int, _Level]]:
        """For each level after the first: its transitions, states and violations, and the level itself as `following`."""
        shape = (self.rows, self.count)
        seen = np.zeros(shape, np.uint64)
        now = _Level(np.zeros(shape, np.uint64), np.zeros(self.rows, np.uint8),
                     np.zeros(shape, np.uint64), np.zeros(self.rows, np.uint8))  # fmt: skip
        seen[self._first_row, 0] = now.level[self._first_row, 0] = 1
        now.active[self._first_row] = 1
        step = max(1, min(_CHUNK_WORDS // self.count, self.rows // (4 * self.threads) + 1))
        with ThreadPoolExecutor(self.threads) as pool:
            while now.active.any():

                def one(begin: int, now: _Level = now) -> tuple[int, int, int]:
                    end = min(begin + step, self.rows)
                    result: tuple[int, int, int] = kernel.pull(
                        begin, end, now.level, now.active, seen, now.following, now.following_active,
                        self.arrays, self.watch,
                    )  # fmt: skip
                    return result

                transitions = states = violations = 0
                try:
                    for made in pool.map(one, range(0, self.rows, step)):
                        transitions += made[0]
                        states += made[1]
                        if violations != kernel.MEANINGLESS:
                            violations = kernel.MEANINGLESS if made[2] == kernel.MEANINGLESS else violations + made[2]
                        self._report(states)
                except BaseException:
                    pool.shutdown(wait=True, cancel_futures=True)
                    raise
                yield transitions, states, violations, now
                now = now.swapped()

    @property
    def _first_row(self) -> int:
        return self.semantics.initial.valuation * self.arrays.stride_of_valuation

    def _report(self, fresh: int) -> None:
        if self.progress:
            seconds = time.monotonic() - self.started
            self.progress(Progress(self.states + fresh, fresh, self.depth, seconds))

    def _violation(self) -> Violation:
        table = RowTable(self.tables.system, self.tables.crew)
        *before, last = self._stored_levels()
        wanted = self._violating(last)
        on_path = [self._membership(table, wanted)]
        for rows, bits in reversed(before):
            wanted = self._sources(table, rows, bits, wanted)
            on_path.append(self._membership(table, wanted))
        trace = retrace(self.semantics, on_path[::-1])
        broken = broken_property(self.semantics, self.evaluators, trace.last)
        assert broken is not None
        return Violation(broken, trace)

    def _stored_levels(self) -> Iterator[tuple[Array, Array]]:
        """The rows and the words of each level up to the violation's."""
        first = np.zeros((1, self.count), np.uint64)
        first[0, 0] = 1
        yield np.array([self._first_row]), first
        levels = self._search()
        for _ in range(1, self.violated_depth):
            made = next(levels)[3]
            rows = np.flatnonzero(made.following_active)
            yield rows, made.following[rows]

    def _violating(self, level: tuple[Array, Array]) -> Sets:
        result = {}
        bad = np.zeros(self.count, np.uint64)
        for index, row in enumerate(level[0]):
            key = self._key(int(row))
            kernel.violating(index, level[1], bad, np.array(key[1:], np.int64), key[0], self.arrays, self.watch)
            if bad.any():
                result[key] = int.from_bytes(bad.tobytes(), "little")
        return result

    def _sources(self, table: RowTable, rows: Array, bits: Array, wanted: Sets) -> Sets:
        found = {}
        for key in table.before(wanted):
            row = self._row(key)
            index = int(np.searchsorted(rows, row))
            if index < len(rows) and rows[index] == row:
                sources = table.sources(key, int.from_bytes(bits[index].tobytes(), "little"), wanted)
                if sources:
                    found[key] = sources
        return found

    def _membership(self, table: RowTable, sets: Sets) -> Callable[[State], bool]:
        def contains(state: State) -> bool:
            key, place = table.locate(state)
            return bool(sets.get(key, 0) >> place & 1)

        return contains

    def _key(self, row: int) -> Key:
        valuation, rest = divmod(row, self.arrays.stride_of_valuation)
        places = []
        for stride in self.arrays.stride.tolist():
            place, rest = divmod(rest, stride)
            places.append(place)
        return (valuation, *places)

    def _row(self, key: Key) -> int:
        places = sum(place * int(stride) for place, stride in zip(key[1:], self.arrays.stride, strict=True))
        return key[0] * self.arrays.stride_of_valuation + places


def _arrays(made: Tables, properties: list[Any]) -> tuple[RowArrays, WatchArrays]:
    system = made.system
    if made.capacity.shape[0]:
        raise Unsupported("pools")
    if (made.allowed == 2).any():
        raise Unsupported("steps that may have no meaning")
    *outer, last = made.places
    count = (len(last) + 63) // 64
    kinds = list(dict.fromkeys(made.places))
    here = [location for kind in kinds for location in kind.all()]
    holds: dict[frozenset[Hold], int] = {frozenset(): 0}
    holding = np.array([holds.setdefault(frozenset(place.held), len(holds)) for place in here], np.int64)
    if len(holds) * len(last.moves) * count > 1 << 26:
        raise Unsupported("too many sets of locks")
    all_holds = {hold for held in holds for hold in held}
    by_hold = {hold: [words(move.wanting(system, hold), count) for move in last.moves] for hold in all_holds}
    waiting = {hold: words(last.waiting_for(hold), count) for hold in all_holds}
    blocked = np.zeros((len(holds), len(last.moves), count), np.uint64)
    waiting_for = np.zeros((len(holds), count), np.uint64)
    for held, number in holds.items():
        for hold in held:
            waiting_for[number] |= waiting[hold]
            for index, mask in enumerate(by_hold[hold]):
                blocked[number, index] |= mask
    begin = int(made.first[-1])
    own = np.zeros((made.conflict.shape[0], count * 64), np.uint8)
    own[:, : len(last)] = made.conflict[:, begin : begin + len(last)]
    blocking = np.packbits(own, axis=1, bitorder="little").view(np.uint64)
    radix = np.array([len(places) for places in outer], np.int64)
    stride = np.array([int(np.prod(radix[i + 1 :])) for i in range(len(radix))], np.int64)
    into_start, into = _incoming(made, kinds)
    before_start, before = _preimages(made.updated)
    updates = {tuple(values): number for number, values in enumerate(made.updated.tolist())}
    identity = tuple(range(made.valuations))
    rows = RowArrays(
        radix=radix,
        stride=stride,
        stride_of_valuation=int(np.prod(radix)),
        first=made.first,
        into_start=into_start,
        into=into,
        source=made.source,
        wanted=made.wanted,
        refuses=made.refuses,
        guard=made.guard,
        update=made.update,
        allowed=made.allowed,
        before_start=before_start,
        before=before,
        conflict=made.conflict,
        blocking=blocking,
        holding=holding,
        blocked=blocked,
        shape=np.array([_SHAPES[move.shape] for move in last.moves], np.int64),
        anchor=np.array([move.anchor for move in last.moves], np.int64),
        move_refuses=np.array([move.refuses for move in last.moves], np.uint8),
        move_update=np.array([updates[move.update or identity] for move in last.moves], np.int64),
        move_allowed=np.array(
            [[words(move.allowed(v), count) for v in range(made.valuations)] for move in last.moves], np.uint64
        ).reshape(len(last.moves), made.valuations, count),
    )
    judged = formulas(made, properties, on_waiting=False)
    watch = WatchArrays(
        waits=made.waits,
        waiting_for=waiting_for,
        running=made.running,
        last_running=words(last.running, count),
        no_stall=system.no_global_stall,
        role=judged.role,
        adds=judged.adds,
        judged=judged.judged,
    )
    return rows, watch


def _incoming(made: Tables, kinds: list[Places]) -> tuple[Array, Array]:
    """The edges by the place that they lead to."""
    first = dict(zip(made.places, made.first.tolist(), strict=True))
    base = np.concatenate([np.full(sum(map(len, kind.out)), first[kind], np.int64) for kind in kinds])
    targets = made.target + base
    into = np.argsort(targets, kind="stable").astype(np.int64)
    places = made.edge_start.shape[0] - 1
    starts = np.concatenate([[0], np.cumsum(np.bincount(targets, minlength=places))]).astype(np.int64)
    return starts, into


def _preimages(updated: Array) -> tuple[Array, Array]:
    """For each update and valuation, the valuations that the update leads from, in one list."""
    starts = np.zeros((updated.shape[0], updated.shape[1] + 1), np.int64)
    before: list[int] = []
    for number, after in enumerate(updated.tolist()):
        for valuation in range(len(after)):
            starts[number, valuation] = len(before)
            before.extend(origin for origin, target in enumerate(after) if target == valuation)
        starts[number, len(after)] = len(before)
    return starts, np.array(before, np.int64)
