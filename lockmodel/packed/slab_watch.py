"""Which states of a slab violate a property. It depends on the state alone, so a part is looked at once, when a state in it is first reached."""

from __future__ import annotations

from typing import Any

import numpy as np

from lockmodel.exploration import Unsupported
from lockmodel.packed.slabs import ALL, Layout, Part
from lockmodel.packed.tables import Array, Tables, formulas, words


class SlabWatch:
    """The states that violate a property, as bits like those of a level.

    Raises Unsupported for formulas that ask who waits, that have too many terms, or that have no meaning in some state.
    """

    def __init__(self, made: Tables, layout: Layout, evaluators: list[Any]) -> None:
        self.layout = layout
        self._no_stall = made.system.no_global_stall
        self._formulas = formulas(made, evaluators, on_waiting=False)
        if (self._formulas.judged == 2).any() or (self._formulas.adds < 0).any():
            raise Unsupported("formulas that may have no meaning")
        kinds = [*layout.outer, layout.last]
        starts = made.first.tolist()
        here = [slice(start, start + len(kind)) for start, kind in zip(starts, kinds, strict=True)]
        wanted = [made.waits[places] for places in here]
        self._running = [made.running[places].astype(bool) for places in here]
        self._waits_for = [
            [made.conflict[:, other][mine] != 0 if i != j else None for j, other in enumerate(here)]
            for i, mine in enumerate(wanted)
        ]
        """[i][j]: [places of i, places of j] whether the one waits for the other. The wanted set -1 is none."""
        for i, mine in enumerate(wanted):
            for matrix in self._waits_for[i]:
                if matrix is not None:
                    matrix[mine < 0] = False
        last = len(layout.outer)
        self._for_last = [self._packed(self._waits_for[i][last]) for i in range(last)]
        self._by_last = [self._packed(self._waits_for[last][i].T) for i in range(last)]  # type: ignore[union-attr]  # i != last
        self._last_running = words(layout.last.running, layout.words)
        self._sums = [self._added(here[i], i) for i in range(last)]
        self._last_sums = self._added(here[last], last)
        self._bad: dict[Part, Array] = {}

    def bad(self, part: Part) -> Array:
        """The states of `part` that violate a property, reachable or not."""
        if not self._formulas.judged.shape[0]:
            part = part._replace(valuation=0)
        found = self._bad.get(part)
        if found is None:
            found = self._bad[part] = self._judged(part)
        return found

    def _packed(self, waits: Array | None) -> Array:
        """[places, words] from [places, places of the last worker]."""
        assert waits is not None
        padded = np.zeros((waits.shape[0], self.layout.words * 64), bool)
        padded[:, : waits.shape[1]] = waits
        return np.packbits(padded, axis=1, bitorder="little").view(np.uint64)

    def _judged(self, part: Part) -> Array:
        layout = self.layout
        shape = (part.end - part.begin, *layout.shape[2:])
        bad = np.zeros(shape, np.uint64)
        workers = range(len(layout.outer))
        waits = {(i, j): self._outer_waits(i, j, part) for i in workers for j in workers if i != j}
        reach = self._closure(waits)
        for i in workers:
            bad |= _mask(reach[i, i])
            for j in workers:
                # i waits for … who waits for the last worker, which waits for i.
                circle = self._row(self._by_last[i], i, part) & self._row(self._for_last[j], j, part)
                bad |= circle if i == j else circle & _mask(reach[i, j])
        if self._no_stall:
            bad |= self._stalled(waits, part)
        for number in range(self._formulas.judged.shape[0]):
            bad |= self._violating(number, part)
        return bad

    def _outer_waits(self, i: int, j: int, part: Part) -> Array:
        matrix = self._waits_for[i][j]
        assert matrix is not None
        rows = slice(part.begin, part.end)
        matrix = matrix[rows] if i == 0 else matrix[:, rows] if j == 0 else matrix
        return self.layout.along(matrix, i, j)

    def _row(self, masks: Array, axis: int, part: Part) -> Array:
        masks = masks[part.begin : part.end] if axis == 0 else masks
        return self.layout.along(masks, axis, self.layout.last_axis)

    def _closure(self, waits: dict[tuple[int, int], Array]) -> dict[tuple[int, int], Array]:
        """Who waits for whom, directly or through others but the last worker."""
        workers = range(len(self.layout.outer))
        nobody = np.zeros((1,) * (len(self.layout.sizes) + 1), bool)
        reach = {(i, j): waits.get((i, j), nobody) for i in workers for j in workers}
        for k in workers:
            for i in workers:
                for j in workers:
                    reach[i, j] = reach[i, j] | (reach[i, k] & reach[k, j])
        return reach

    def _stalled(self, waits: dict[tuple[int, int], Array], part: Part) -> Array:
        """Where some worker runs and every running one waits."""
        workers = range(len(self.layout.outer))
        last_waits = np.zeros(1, np.uint64)
        stalled = np.full(1, ALL)
        some = self._last_running
        for i in workers:
            running = _mask(self._row(self._running[i][:, None], i, part))
            last_waits = last_waits | self._row(self._by_last[i], i, part)
            waiting = self._row(self._for_last[i], i, part)
            for j in workers:
                if j != i:
                    waiting = waiting | _mask(waits[i, j])
            stalled = stalled & (waiting | ~running)
            some = some | running
        return stalled & some & (last_waits | ~self._last_running)

    # Formulas

    def _added(self, here: slice, worker: int) -> Array:
        """[F, V, places of the worker] What it adds to the sums."""
        return self._formulas.adds[:, self._formulas.role[worker], here, :, 0].transpose(0, 2, 1)

    def _violating(self, number: int, part: Part) -> Array:
        layout, valuation = self.layout, part.valuation
        judged = self._formulas.judged[number, valuation]
        total = np.zeros((1,) * (len(layout.sizes) + 1), np.int64)
        for axis, sums in enumerate(self._sums):
            total = total + self._row(sums[number, valuation][:, None], axis, part)
        mine = self._last_sums[number, valuation]
        # For each sum that the others can have, the places of the last worker that make it a violation.
        by_total = {
            value: self._packed((judged[value + mine] == 1)[None])[0] for value in np.unique(total[..., 0]).tolist()
        }
        table = np.zeros((max(by_total) + 1, layout.words), np.uint64)
        for value, places in by_total.items():
            table[value] = places
        found: Array = table[total[..., 0]]
        return found


def _mask(truth: Array) -> Array:
    return np.where(truth, ALL, np.uint64(0))
