"""Which points of a program may wait for which, and what keeps the others apart."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from lockmodel.program import Program
from lockmodel.prover.points import Point, Points, TooLarge
from lockmodel.prover.terms import Choice, Equalities, Every, Literal, SymbolicLock, Term, in_order

MAX_PAIRS = 400_000
"""Pairs of a request and a lock that may be compared, some 10 µs each."""


@dataclass(frozen=True)
class Exclusion:
    """Why a point can't wait for another one: what keeps the two apart, a family of locks or a role of one worker."""

    name: str
    role: bool = False


@dataclass(frozen=True)
class Wait:
    """The point `waiter` asks for what `holder` may hold as `lock`. `excluded`: why that can't happen; None if it may."""

    waiter: int
    holder: int
    lock: SymbolicLock
    equal: Equalities
    excluded: Exclusion | None


class Waits:
    """Which points of a program may wait for which: `all` candidates, by names and modes alone; the excluded ones say why.

    Raises TooLarge.
    """

    def __init__(self, program: Program, points: Points) -> None:
        self.program = program
        self.points = points.points
        self._must = [_by_family(in_order(point.must)) for point in self.points]
        self._compared = 0
        holders: dict[str, list[tuple[int, SymbolicLock]]] = defaultdict(list)
        for index, point in enumerate(self.points):
            for lock in in_order(point.may):
                holders[lock.family].append((index, lock))
        self.all = [
            wait
            for waiter, point in enumerate(self.points)
            for holder, lock in holders[point.request.family]
            if (wait := self._wait(waiter, holder, lock)) is not None
        ]

    def conflict(self, first: SymbolicLock, second: SymbolicLock) -> bool:
        """Whether the modes of two locks of one family conflict."""
        return self.program.families[first.family].kind.conflict(first.mode, second.mode)

    def may_wait(self, held: SymbolicLock, wanted: SymbolicLock) -> bool:
        """Whether who asks for `wanted` may have to wait for who has `held`: by their modes, or for a unit of the same pool."""
        counted = self.program.families[held.family].capacity is not None
        return held.family == wanted.family and (counted or self.conflict(held, wanted))

    def _wait(self, waiter: int, holder: int, lock: SymbolicLock) -> Wait | None:
        request = self.points[waiter].request
        if not self.may_wait(lock, request):
            return None
        self._compared += 1
        if self._compared > MAX_PAIRS:
            raise TooLarge
        equal = Equalities.of(request.arguments, lock.arguments)
        if equal is None:
            return None
        return Wait(waiter, holder, lock, equal, self._exclusion(waiter, holder, lock, equal))

    def _exclusion(self, waiter: int, holder: int, lock: SymbolicLock, equal: Equalities) -> Exclusion | None:
        if self._may_be_itself(waiter, holder, lock):
            return None
        mine, theirs = self._must[waiter], self._must[holder]
        for held in mine.get(lock.family, ()):
            if self.conflict(held, lock) and self._meets_wanted(waiter, held, lock, equal):
                return Exclusion(lock.family)
        for family in [family for family in mine if family in theirs]:
            for held in mine[family]:
                for other in theirs[family]:
                    if self.conflict(held, other) and equal.surely_meet(held.arguments, other.arguments):
                        return Exclusion(family)
        role = self._only_worker(waiter, holder)
        return None if role is None else Exclusion(role, role=True)

    def _may_be_itself(self, waiter: int, holder: int, lock: SymbolicLock) -> bool:
        """Whether the holder may be the waiter itself: of a pool's units it may have taken some."""
        return waiter == holder and self.program.families[lock.family].capacity is not None

    def _meets_wanted(self, waiter: int, held: SymbolicLock, lock: SymbolicLock, equal: Equalities) -> bool:
        """Whether `held` by the waiter surely is the resource that it waits for, which the holder has as `lock`."""
        request = self.points[waiter].request
        return equal.surely_meet(held.arguments, lock.arguments) or _surely_same(held.arguments, request.arguments)

    def possible_through(self, wait: Wait, entered: SymbolicLock) -> bool:
        """Whether `wait` may happen while the waiter holds `entered`, the lock that somebody waits for in turn."""
        if self._may_be_itself(wait.waiter, wait.holder, wait.lock):
            return True
        if (
            entered.family == wait.lock.family
            and self.conflict(entered, wait.lock)
            and self._meets_wanted(wait.waiter, entered, wait.lock, wait.equal)
        ):
            return False
        return not any(
            self.conflict(entered, other) and wait.equal.surely_meet(entered.arguments, other.arguments)
            for other in self._must[wait.holder].get(entered.family, ())
        )

    def _only_worker(self, waiter: int, holder: int) -> str | None:
        """The role whose one worker alone can be at both points."""
        first = self._roles(self.points[waiter])
        second = self._roles(self.points[holder])
        if first == second and len(first) == 1:
            ((name, count),) = first
            return name if count == 1 else None
        return None

    def _roles(self, point: Point) -> list[tuple[str, int | None]]:
        return [
            (role.name, role.count)
            for role in self.program.roles
            if role.count != 0 and point.transaction in role.transactions
        ]


def _by_family(locks: Iterable[SymbolicLock]) -> dict[str, list[SymbolicLock]]:
    found: dict[str, list[SymbolicLock]] = defaultdict(list)
    for lock in locks:
        found[lock.family].append(lock)
    return dict(found)


def _surely_same(held: tuple[Term, ...], wanted: tuple[Term, ...]) -> bool:
    """Whether a lock that a worker holds surely is (or contains) the resource that the same worker wants."""
    return all(
        (isinstance(mine, Every) and isinstance(other, Choice) and mine.of == other.of)
        or (isinstance(mine, Choice | Literal) and mine == other)
        for mine, other in zip(held, wanted, strict=True)
    )
