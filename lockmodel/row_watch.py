"""Which states of a row violate a property: deadlocks, global stalls and formulas, for all places of the last worker at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

from lockmodel.errors import SpecError
from lockmodel.exploration import AskReference, Unsupported
from lockmodel.properties import Evaluator
from lockmodel.row_table import Key, RowTable, Sets
from lockmodel.semantics import Crew
from lockmodel.system import Hold, Request, Status

MAX_COUNTED = 500_000
"""What formulas count at all places of a worker, in all; the reference engine looks only at the places that it comes to."""
_KEPT_ROWS = 20_000


class RowWatch:
    """Looks at each level of a search over the rows of `table`. Raises Unsupported for formulas of very many terms."""

    def __init__(self, table: RowTable, crew: Crew, evaluators: Sequence[Evaluator]) -> None:
        if sum(evaluator.size for evaluator in evaluators) * len(table.last) > MAX_COUNTED:
            raise Unsupported("formulas with too many terms")
        self._table = table
        self._roles = crew.roles
        self._evaluators = evaluators
        self._facts: dict[Key, _Facts] = {}
        self._judgements: dict[tuple[int, int, bool, tuple[int, ...]], _Judgement] = {}
        self._waiting_for: dict[Hold, int] = {}
        self._classes: dict[tuple[int, int, bool], list[tuple[tuple[int, ...] | None, int]]] = {}

    def violations(self, level: Sets) -> Sets:
        """The states of `level` that violate some property. Raises AskReference where a formula has no meaning."""
        return {key: bad for key, bits in level.items() if (bad := self._violating(key, bits))}

    def _violating(self, key: Key, bits: int) -> int:
        facts = self._facts.get(key)
        if facts is None:
            if len(self._facts) >= _KEPT_ROWS:
                self._facts.clear()
            facts = self._facts[key] = self._look_at(key)
        bad = bits & facts.bad
        for region, judgement in facts.judgements:
            # The reference engine evaluates formulas only where nothing else is wrong: errors in them must come up in the same states.
            here = bits & region & ~bad
            if unknown := here & ~judgement.known:
                self._judge(judgement, unknown)
            bad |= here & judgement.bad
        return bad

    def _look_at(self, key: Key) -> _Facts:
        waits = _Waits(self, self._table, key)
        bad = waits.deadlocks()
        if self._table.system.no_global_stall:
            bad |= waits.stalls()
        nobody = (self._table.everywhere, [False] * len(self._roles))
        judgements = [
            (region, self._judgement(number, key, waiting))
            for number, evaluator in enumerate(self._evaluators)
            for region, waiting in (waits.regions() if evaluator.needs_waiting else [nobody])
        ]
        return _Facts(bad, judgements)

    def _judgement(self, number: int, key: Key, waiting: Sequence[bool]) -> _Judgement:
        valuation, *outer = key
        evaluator = self._evaluators[number]
        try:
            vectors = [
                evaluator.vector(role, places.locations[place], valuation, waits)
                for role, places, place, waits in zip(self._roles, self._table.outer, outer, waiting, strict=False)
            ]
        except SpecError:
            raise AskReference from None
        others = tuple(map(sum, zip(*vectors, strict=True)))
        identity = (number, valuation, waiting[-1], others)
        return self._judgements.setdefault(identity, _Judgement(*identity))

    def _judge(self, judgement: _Judgement, places: int) -> None:
        evaluator = self._evaluators[judgement.number]
        for vector, members in self._vectors(evaluator, judgement):
            if not members & places:
                continue
            if vector is None:
                raise AskReference
            totals = tuple(map(sum, zip(vector, judgement.others, strict=True))) if judgement.others else vector
            try:
                judgement.bad |= members if evaluator.broken(judgement.valuation, totals) else 0
            except SpecError:
                raise AskReference from None
            judgement.known |= members

    def _vectors(self, evaluator: Evaluator, judgement: _Judgement) -> list[tuple[tuple[int, ...] | None, int]]:
        """What the last worker adds to the formula's counts, and the places where it adds that; None where it has no meaning."""
        key = (judgement.number, judgement.valuation, judgement.waits)
        if key not in self._classes:
            classes: dict[tuple[int, ...] | None, int] = defaultdict(int)
            for place, location in enumerate(self._table.last.locations):
                try:
                    vector = evaluator.vector(self._roles[-1], location, judgement.valuation, judgement.waits)
                except SpecError:
                    vector = None
                classes[vector] |= 1 << place
            self._classes[key] = list(classes.items())
        return self._classes[key]

    def waiting_for(self, held: tuple[Hold, ...]) -> int:
        """The places of the last worker at which it waits for one that holds `held`."""
        places = 0
        for hold in held:
            found = self._waiting_for.get(hold)
            if found is None:
                found = self._waiting_for[hold] = self._table.last.waiting_for(hold)
            places |= found
        return places


@dataclass
class _Judgement:
    """What a formula says of the last worker's places, given the valuation and what the others add to its counts.

    Filled in as the search comes to the places: a formula may have no meaning in states that are never reached.
    """

    number: int
    valuation: int
    waits: bool
    others: tuple[int, ...]
    known: int = 0
    bad: int = 0


class _Facts(NamedTuple):
    bad: int
    judgements: list[tuple[int, _Judgement]]


class _Waits:
    """Who waits for whom in one row."""

    def __init__(self, watch: RowWatch, table: RowTable, key: Key) -> None:
        self._table = table
        self._here = [
            table.system.locations[places.locations[place]] for places, place in zip(table.outer, key[1:], strict=True)
        ]
        self._waits_for_last = [0] * len(self._here)
        """For each other worker, the places of the last at which it waits for that one."""
        self._graph: list[list[int]] = [[] for _ in self._here]
        self._last_waits_for = [watch.waiting_for(here.held) if here.held else 0 for here in self._here]
        for worker, here in enumerate(self._here):
            if here.request is None or not here.waits:
                continue
            request = Request(here.request.resource, here.request.mode)
            blocking = table.blocking(request)
            self._waits_for_last[worker] = blocking[id(table.last)]
            self._graph[worker] = [
                other
                for other, places in enumerate(table.outer)
                if other != worker and blocking[id(places)] >> key[1 + other] & 1
            ]

    def deadlocks(self) -> int:
        """Who waits has one request, and needs all that block it to go: so a deadlock is a cycle, through the last worker or not."""
        beyond = [self._beyond(worker) for worker in range(len(self._here))]
        if any(worker in others for worker, others in enumerate(beyond)):
            return self._table.everywhere
        found = 0
        for first, wanting in enumerate(self._last_waits_for):
            for last in (first, *beyond[first]):
                found |= wanting & self._waits_for_last[last]
        return found

    def _beyond(self, worker: int) -> set[int]:
        seen: set[int] = set()
        pending = list(self._graph[worker])
        while pending:
            other = pending.pop()
            if other not in seen:
                seen.add(other)
                pending.extend(self._graph[other])
        return seen

    def waiting(self) -> Iterator[int]:
        """For each worker, the last one at the end, the places of the last worker at which it waits."""
        everywhere = self._table.everywhere
        for worker in range(len(self._here)):
            yield everywhere if self._graph[worker] else self._waits_for_last[worker]
        some = 0
        for mask in self._last_waits_for:
            some |= mask
        yield some

    def stalls(self) -> int:
        """Where some worker runs and every running one waits."""
        *outer, last = self.waiting()
        running = self._table.last.running
        found = self._table.everywhere & (last | ~running)
        some = running
        for here, mask in zip(self._here, outer, strict=True):
            if here.status is Status.RUNNING:
                found &= mask
                some = self._table.everywhere
        return found & some

    def regions(self) -> Iterator[tuple[int, list[bool]]]:
        """The places of the last worker by who waits there: a set, and for each worker whether it waits."""
        masks = list(self.waiting())
        for waiting in product((False, True), repeat=len(masks)):
            region = self._table.everywhere
            for mask, waits in zip(masks, waiting, strict=True):
                region &= mask if waits else ~mask
            if region:
                yield region, list(waiting)
