"""Locks with symbolic arguments: `lane[s]`, whatever `s` is, and when two of them are surely, or can't be, the same resource.

A worker's parameters and the current element of its loops are *choices*: unknown, but fixed while the worker is at one point. So
`lane[s]` held and `lane[s]` wanted by the same worker are one resource, at every size of the set. What is known less well is
`SOME` element, which can be any.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

from lockmodel.expressions import Value


class Visit(StrEnum):
    """The order in which a loop visits the elements of its set."""

    ASCENDING = "ascending"
    DESCENDING = "descending"
    OTHER = "other"


@dataclass(frozen=True)
class Choice:
    """A value that is fixed at a point: a parameter, a loop's current element (`place` tells loops apart) or a local variable.

    `of` is the set that it ranges over; None for a local variable, which may have any value.
    """

    name: str
    of: str | None
    place: int = 0


@dataclass(frozen=True)
class Literal:
    """An element that the spec names. The type tells 1 from true."""

    value: Value
    type: type


@dataclass(frozen=True)
class Former:
    """Some element that a loop has visited before its current one."""

    current: Choice
    visit: Visit


@dataclass(frozen=True)
class EveryFormer:
    """Each element that a loop has visited before its current one."""

    current: Choice


@dataclass(frozen=True)
class Every:
    """Each element of a set."""

    of: str


@dataclass(frozen=True)
class Some:
    """An element of which nothing is known."""


SOME = Some()

Term = Choice | Literal | Former | EveryFormer | Every | Some


@dataclass(frozen=True)
class SymbolicLock:
    """A lock of a family, such as `lane[s] FOR UPDATE`."""

    family: str
    arguments: tuple[Term, ...]
    mode: str

    @property
    def definite(self) -> bool:
        """Whether the arguments say exactly which resource (or resources, for `Every`) is meant."""
        return not any(isinstance(argument, Some | Former) for argument in self.arguments)


def in_order(locks: Iterable[SymbolicLock]) -> list[SymbolicLock]:
    """`locks` in an order that is the same in every process (that of a set is not)."""
    return sorted(locks, key=spelled)


@cache
def spelled(lock: SymbolicLock) -> str:
    """A text for each lock, to order by."""
    return repr(lock)


class Equalities:
    """What must be equal for a request of one worker (the left) and a lock of another (the right) to be of one resource.

    The two workers' choices are unrelated but for that, also where both are at the same point.
    """

    def __init__(self) -> None:
        self._parents: dict[object, object] = {}

    @classmethod
    def of(cls, left: tuple[Term, ...], right: tuple[Term, ...]) -> Equalities | None:
        """The equalities of these arguments; None if they can't be equal."""
        found = cls()
        for mine, other in zip(left, right, strict=True):
            if isinstance(mine, Choice | Literal) and isinstance(other, Choice | Literal):
                if not found._join(_key(0, mine), _key(1, other)):
                    return None
        return found

    def surely_meet(self, left: tuple[Term, ...], right: tuple[Term, ...]) -> bool:
        """Whether what the left arguments mean and what the right ones mean surely have a resource in common."""
        return all(map(self._meet, left, right))

    def _meet(self, left: Term, right: Term) -> bool:
        match left, right:
            case Every(of), Every(other):
                return of == other
            case (Every(of), Choice(of=other)) | (Choice(of=other), Every(of)):
                return of == other
            case Choice() | Literal(), Choice() | Literal():
                return self._root(_key(0, left)) == self._root(_key(1, right))
        return False

    def _root(self, key: object) -> object:
        while key in self._parents:
            key = self._parents[key]
        return key

    def _join(self, left: object, right: object) -> bool:
        """Make two keys equal; False if they are different literals."""
        first, second = self._root(left), self._root(right)
        if first == second:
            return True
        if isinstance(first, Literal) and isinstance(second, Literal):
            return False
        # A literal is always the root, so that two of them meet.
        if isinstance(first, Literal):
            first, second = second, first
        self._parents[first] = second
        return True


def _key(side: int, term: Choice | Literal) -> object:
    return term if isinstance(term, Literal) else (side, term)
