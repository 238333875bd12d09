"""The proof on the program itself, whose cost does not depend on the sizes of the sets.

A deadlock is a circle of workers, each at a point, each waiting for a lock that the next one holds. Which point can wait for which
other is decided by names: the request of the one and a lock of the other are the same resource for some values of their parameters, in
conflicting modes; and under these equalities no two locks that both surely hold exclude each other. (A worker never waits for itself,
so two points that only one and the same worker can be at don't wait for each other.) If "may wait for" has no circle, neither has any
system of any size.

Where it has, as for two workers in the same loop, there is still no deadlock if each point that is on a circle, through the lock that
it is waited for, asks for a later lock than that one in some fixed order: along a circle the locks would become ever later. This is the
classical argument with a total order of locks, needed here only for what can be on a circle.

Who waits for a unit of a pool for ever, waits for workers all of which wait for ever themselves, and one of them at least has a unit. So a
unit counts as a lock that whoever asks for one may have to wait for, be it the worker's own; but two workers may have one each, so that it keeps
nobody apart.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from lockmodel.digraph import Digraph
from lockmodel.program import Program
from lockmodel.prover.certificate import Certificate
from lockmodel.prover.order import Constraint, Order, Orders
from lockmodel.prover.points import Points, TooLarge, points_of
from lockmodel.prover.readable import readable
from lockmodel.prover.terms import SymbolicLock, in_order, spelled
from lockmodel.prover.waits import Wait, Waits


def prove_program(program: Program) -> Certificate | None:
    """A certificate that no number of workers can deadlock, or None if this argument does not show it.

    It is for all sizes of the sets for which the program has a meaning.
    """
    try:
        points = points_of(program)
        waits = Waits(program, points)
    except TooLarge:
        return None
    return _proof(program, points, waits, single=False) or _proof(program, points, waits, single=True)


def _proof(program: Program, points: Points, waits: Waits, *, single: bool) -> Certificate | None:
    """The proof; with `single`, by the help of roles that have one worker only."""
    possible = [
        wait
        for wait in waits.all
        if wait.excluded is None or (wait.excluded.role and not single)
        # A point at which nothing is held is waited for by nobody.
        if waits.points[wait.waiter].may
    ]
    orders = Orders(program.families, program.sets)
    core: list[Constraint] = []
    circles: list[Order] = []
    for group in _circles(possible):
        found = list(_constraints(waits, group))
        order = orders.find(found)
        if order is None:
            return None
        core += found
        circles.append(order)
    told = readable(waits, points, possible, orders, core)
    used = [index for one in (*circles, *([told.order] if told.order else [])) for index in one.indices()]
    roles = {w.excluded.name for w in waits.all if w.excluded is not None and w.excluded.role} if single else set()
    return Certificate(
        order=told.order,
        requests=sum(bool(point.may) for point in waits.points),
        waits=len({(wait.waiter, wait.holder) for wait in possible}),
        out_of_order=told.out_of_order,
        relevant_only=told.relevant_only,
        every_size=True,
        as_declared=tuple(sorted(frozenset().union(*map(orders.only_as_declared, used)))),
        single_roles=tuple(sorted(roles)),
        covers_stall=not points.outlive,
    )


def _circles(possible: Iterable[Wait]) -> Iterator[list[Wait]]:
    """The waits between points that lie on a common circle, for each set of such points."""
    graph: Digraph[int] = Digraph()
    between: dict[tuple[int, int], list[Wait]] = defaultdict(list)
    for wait in possible:
        graph.add_edge(wait.waiter, wait.holder)
        between[wait.waiter, wait.holder].append(wait)
    for component in graph.circles():
        yield [wait for edge in graph.edges_within(component) for wait in between[edge]]


def _constraints(waits: Waits, group: list[Wait]) -> Iterator[Constraint]:
    """What an order must satisfy: for each point on a circle and each lock that it is waited for there, the lock it asks for is later.

    A closer look than `_circles`, since the lock that a point is waited for is surely held there.
    """
    entered: dict[int, set[SymbolicLock]] = defaultdict(set)
    for wait in group:
        entered[wait.holder].add(wait.lock)
    graph: Digraph[tuple[int, SymbolicLock]] = Digraph()
    for wait in group:
        for lock in in_order(entered[wait.waiter]):
            if waits.possible_through(wait, lock):
                graph.add_edge((wait.waiter, lock), (wait.holder, wait.lock))
    for component in graph.circles():
        for point, lock in sorted(component, key=lambda node: (node[0], spelled(node[1]))):
            yield Constraint(lock, waits.points[point].request)
