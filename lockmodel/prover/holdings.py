"""What is known of a worker's locks at a place of its transaction: those that it may hold and those that it must.

Two ways that meet are joined; between the rounds of a loop, and behind it, locks change their names, for the element that they are about
is then a former one, or some one, or every one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from lockmodel.prover.terms import SOME, Choice, Every, EveryFormer, Former, SymbolicLock, Term, Visit

Locks = frozenset[SymbolicLock]
NO_LOCKS: Locks = frozenset()


@dataclass(frozen=True)
class Holding:
    """What is known at a place. `stacked`: session locks that may be held more than once. `saved`: may and must at each savepoint."""

    may: Locks
    must: Locks
    stacked: Locks
    env: Mapping[str, Term]
    saved: Mapping[str, tuple[Locks, Locks]]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Holding) and vars(self) == vars(other)

    def mapped(self, may: Callable[[SymbolicLock], SymbolicLock], must: Callable[[Locks], Locks]) -> Holding:
        """With the names of locks changed."""
        return replace(
            self,
            may=frozenset(map(may, self.may)),
            must=must(self.must),
            stacked=frozenset(map(may, self.stacked)),
            saved={name: (frozenset(map(may, some)), must(sure)) for name, (some, sure) in self.saved.items()},
        )


def join(first: Holding | None, second: Holding | None) -> Holding | None:
    """What is known where two ways meet; None stands for a way that never gets there."""
    if first is None or second is None:
        return first or second
    saved = {**first.saved, **second.saved}
    for name in first.saved.keys() & second.saved.keys():
        saved[name] = either(first.saved[name], second.saved[name])
    return Holding(
        first.may | second.may,
        first.must & second.must,
        first.stacked | second.stacked,
        {name: first.env[name] if first.env[name] == second.env.get(name) else SOME for name in first.env},
        saved,
    )


def either(first: tuple[Locks, Locks], second: tuple[Locks, Locks]) -> tuple[Locks, Locks]:
    """May and must where it is the one or the other."""
    return first[0] | second[0], first[1] & second[1]


class RoundNames:
    """How locks of a loop's rounds are called in later rounds and after the loop.

    Where several elements vary together (`current` has more than one), only what a worker may hold is followed.
    """

    def __init__(self, current: list[Choice], visit: Visit) -> None:
        self.current = current
        self.visit = visit

    def former(self, lock: SymbolicLock) -> SymbolicLock:
        alone = len(self.current) == 1
        return _renamed(lock, {c: Former(c, self.visit) if alone else SOME for c in self.current})

    def some(self, lock: SymbolicLock) -> SymbolicLock:
        names: dict[Term, Term] = {}
        for choice in self.current:
            names |= {choice: SOME, Former(choice, self.visit): SOME}
        return _renamed(lock, names)

    def every_former_after_one(self, must: Locks) -> Locks:
        """In the second round: what the first one took, it took for every former element."""
        return self._each(must, must, EveryFormer)

    def every_former(self, must: Locks) -> Locks:
        """In later rounds: what was held for every former element, and has been taken for this one too."""
        return self._each(must, self._held_before(must), EveryFormer)

    def every_after_one(self, must: Locks) -> Locks:
        return self._each(must, must, lambda choice: Every(choice.of or ""))

    def every(self, must: Locks) -> Locks:
        return self._each(must, self._held_before(must), lambda choice: Every(choice.of or ""))

    def _held_before(self, must: Locks) -> Locks:
        return frozenset(lock for lock in must if len(self.current) == 1 and self._former(lock) in must)

    def _former(self, lock: SymbolicLock) -> SymbolicLock:
        (choice,) = self.current
        return _renamed(lock, {choice: EveryFormer(choice)})

    def _each(self, must: Locks, taken: Locks, term: Callable[[Choice], Term]) -> Locks:
        """`must` with the locks in `taken` that name the current element once called by `term`, and the others that name it left out."""
        found = set()
        for lock in must:
            named = [a for a in lock.arguments if a in self.current]
            if not named and not any(isinstance(a, EveryFormer) and a.current in self.current for a in lock.arguments):
                found.add(lock)
            elif len(self.current) == 1 and len(named) == 1 and lock in taken:
                found.add(_renamed(lock, {self.current[0]: term(self.current[0])}))
        return frozenset(found)


def _renamed(lock: SymbolicLock, terms: Mapping[Term, Term]) -> SymbolicLock:
    if not any(argument in terms for argument in lock.arguments):
        return lock
    return replace(lock, arguments=tuple(terms.get(argument, argument) for argument in lock.arguments))
