"""What Postgres's deadlock check finds when a waiting session's `deadlock_timeout` has passed.

A session waits for those who hold a conflicting lock (a *hard* edge of the waits-for graph) and for those further ahead in the queue
who ask for one (a *soft* edge). A circle of hard edges is a deadlock. A circle with a soft edge may be undone by letting one
session past the other: Postgres looks for an order of the queues without a circle (src/backend/storage/lmgr/deadlock.c).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lockmodel.lock_manager.objects import Lockable
from lockmodel.lock_manager.table import LockTable, Session

Orders = Mapping[Lockable, tuple[Session, ...]]


@dataclass(frozen=True)
class Cycle:
    """A deadlock: each session waits for the next, the last for the first, which is the one that looked."""

    sessions: tuple[Session, ...]


@dataclass(frozen=True)
class Rearrangement:
    """No deadlock once these queues have this order."""

    orders: Orders


@dataclass(frozen=True)
class _Edge:
    waiter: Session
    blocker: Session
    object: Lockable
    soft: bool


def look(table: LockTable, session: Session) -> Cycle | Rearrangement | None:
    """What the check of `session` finds: a deadlock, an order of the queues that avoids one, or nothing."""
    orders = _solve(table, session, ())
    if orders is None:
        cycle = _cycle(table, session, {})
        assert cycle is not None
        return Cycle(tuple(edge.waiter for edge in cycle))
    return Rearrangement(orders) if orders else None


def _solve(table: LockTable, start: Session, constraints: tuple[_Edge, ...]) -> Orders | None:
    """Orders of the queues that turn the soft edges `constraints` round and leave no circle; None if there are none."""
    orders = _expand(table, constraints)
    if orders is None:
        return None
    soft: list[_Edge] = []
    for session in (*(end for edge in constraints for end in (edge.waiter, edge.blocker)), start):
        cycle = _cycle(table, session, orders)
        if cycle is not None:
            # The deepest first, which is how Postgres collects them.
            soft = [edge for edge in reversed(cycle) if edge.soft]
            if not soft:
                return None
    if not soft:
        return orders
    for edge in soft:
        solution = _solve(table, start, (*constraints, edge))
        if solution is not None:
            return solution
    return None


def _cycle(table: LockTable, start: Session, orders: Orders) -> list[_Edge] | None:
    """The first circle of waits through `start`, with the queues in `orders` instead of their own."""
    visited: set[Session] = set()

    def search(session: Session) -> list[_Edge] | None:
        if session in visited:
            return [] if session == start else None
        visited.add(session)
        waiter = table.waiting.get(session)
        if waiter is None:
            return None
        obj = waiter.object
        hard = [_Edge(session, blocker, obj, False) for blocker in table.hard_blockers(waiter)]
        soft = [_Edge(session, blocker, obj, True) for blocker in table.soft_blockers(waiter, orders.get(obj))]
        for edge in (*hard, *soft):
            rest = search(edge.blocker)
            if rest is not None:
                return [edge, *rest]
        return None

    return search(start)


def _expand(table: LockTable, constraints: Sequence[_Edge]) -> dict[Lockable, tuple[Session, ...]] | None:
    """An order for each queue of `constraints`, in which each waiter stands before its blocker; None if they contradict."""
    orders = {}
    for obj in dict.fromkeys(edge.object for edge in reversed(constraints)):
        order = _sort(table.queue(obj), [edge for edge in constraints if edge.object == obj])
        if order is None:
            return None
        orders[obj] = order
    return orders


def _sort(queue: Sequence[Session], constraints: Sequence[_Edge]) -> tuple[Session, ...] | None:
    """`queue` with as little change as the constraints allow: filled from the end, with the last one that may stand there."""
    left = list(queue)
    order: list[Session] = []
    while left:
        held_back = {edge.waiter for edge in constraints if edge.blocker in left}
        last = next((session for session in reversed(left) if session not in held_back), None)
        if last is None:
            return None
        left.remove(last)
        order.insert(0, last)
    return tuple(order)
