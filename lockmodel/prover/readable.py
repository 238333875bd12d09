"""From a proof to what a person can follow: one order of the locks, and for what is taken out of order, why it does no harm.

The proof does not need it. An order is built from what must be in order (`core`, the locks on circles of waits) and as much of the rest
as fits, the most frequent first; each that does not fit is explained by itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from lockmodel.digraph import Digraph
from lockmodel.prover.certificate import Harmless, OutOfOrder
from lockmodel.prover.order import Constraint, Order, Orders
from lockmodel.prover.points import Points
from lockmodel.prover.terms import Equalities, SymbolicLock, in_order
from lockmodel.prover.waits import Wait, Waits

MAX_TRIES = 400
"""Pairs of families that are fitted into the order one by one."""


@dataclass(frozen=True)
class Readable:
    """An order and its exceptions; `relevant_only` as in a Certificate."""

    order: Order | None
    out_of_order: tuple[OutOfOrder, ...] = ()
    relevant_only: bool = False


def readable(
    waits: Waits, points: Points, possible: Iterable[Wait], orders: Orders, core: list[Constraint]
) -> Readable:
    """The order that all waiting follows, with its exceptions. No order at all if `core` has none."""
    pairs: dict[tuple[str, str], dict[Constraint, list[int]]] = defaultdict(lambda: defaultdict(list))
    for index, point in enumerate(waits.points):
        for lock in in_order(point.may):
            pairs[lock.family, point.request.family][Constraint(lock, point.request)].append(index)
    everything = [constraint for constraints in pairs.values() for constraint in constraints]
    if (order := orders.find(everything)) is not None:
        return Readable(order)
    if orders.find(core) is None or len(pairs) > MAX_TRIES:
        return Readable(None)
    kept = list(core)
    families: Digraph[str] = Digraph((constraint.held.family, constraint.wanted.family) for constraint in core)
    explain = _Explain(waits, points, possible)
    rest: list[OutOfOrder] = []
    for (held, wanted), every in sorted(pairs.items(), key=lambda item: (-sum(map(len, item[1].values())), item[0])):
        constraints = {constraint: found for constraint, found in every.items() if explain.may_matter(constraint)}
        if not constraints:
            continue
        # Two families that close no circle always fit in. The others cost a search for an order.
        apart = held != wanted and not families.leads(wanted, held)
        if apart or orders.find([*kept, *constraints]) is not None:
            kept += constraints
            families.add_edge(held, wanted)
            continue
        fixed = set(core)
        places = [(index, c.held) for c, found in constraints.items() if c not in fixed for index in found]
        rest += explain.all(held, wanted, places)
    return Readable(orders.find(kept), tuple(rest), relevant_only=True)


class _Explain:
    """Says why a point that waits out of order is on no circle of waits."""

    def __init__(self, waits: Waits, points: Points, possible: Iterable[Wait]) -> None:
        self.waits = waits
        self.taken = points.taken
        self._in: dict[tuple[int, SymbolicLock], list[Wait]] = defaultdict(list)
        self._out: dict[int, list[Wait]] = defaultdict(list)
        for wait in possible:
            self._in[wait.holder, wait.lock].append(wait)
            self._out[wait.waiter].append(wait)
        self._candidates_in: dict[tuple[int, SymbolicLock], list[Wait]] = defaultdict(list)
        self._candidates_out: dict[int, list[Wait]] = defaultdict(list)
        for wait in waits.all:
            self._candidates_in[wait.holder, wait.lock].append(wait)
            self._candidates_out[wait.waiter].append(wait)

    def all(self, held: str, wanted: str, places: list[tuple[int, SymbolicLock]]) -> list[OutOfOrder]:
        """One entry for each reason."""
        reasons: dict[Harmless, tuple[dict[str, None], dict[str, None]]] = {}
        for index, lock in places:
            why, names = self.one(index, lock)
            transactions, known = reasons.setdefault(why, ({}, {}))
            transactions[self.waits.points[index].transaction] = None
            known.update(dict.fromkeys(names))
        return [
            OutOfOrder(held, wanted, tuple(transactions), why, tuple(sorted(names)))
            for why, (transactions, names) in reasons.items()
        ]

    def may_matter(self, constraint: Constraint) -> bool:
        """Whether anybody takes the wanted lock, and waits for the held one, in a conflicting mode."""
        held, wanted = constraint.held, constraint.wanted
        return any(
            self.waits.may_wait(lock, wanted) and Equalities.of(wanted.arguments, lock.arguments) is not None
            for _, lock in self.taken
        ) and any(
            self.waits.may_wait(held, point.request)
            and Equalities.of(point.request.arguments, held.arguments) is not None
            for point in self.waits.points
        )

    def one(self, index: int, held: SymbolicLock) -> tuple[Harmless, tuple[str, ...]]:
        if not self._out[index]:
            apart = _apart(self._candidates_out[index])
            return (Harmless.KEPT_APART, apart) if apart else (Harmless.BLOCKERS_GO_ON, ())
        if not self._in[index, held]:
            waiters = [w for w in self._candidates_in[index, held] if self.waits.points[w.waiter].may]
            apart = _apart(waiters)
            return (Harmless.KEPT_APART, apart) if apart else (Harmless.WAITERS_HOLD_NOTHING, ())
        waiting = dict.fromkeys(self.waits.points[wait.waiter].transaction for wait in self._in[index, held])
        return Harmless.NO_WAY_BACK, tuple(waiting)


def _apart(candidates: list[Wait]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(wait.excluded.name for wait in candidates if wait.excluded is not None))
