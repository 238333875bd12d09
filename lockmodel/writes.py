"""Which rows a transaction has written before, as far as its steps tell: an UPDATE of such a row checks its foreign keys again.

`Writes` follows the steps in their order. What it can't tell (a row that may be another one or the same, a branch) it does not guess: the
spec has to say `again: true` or `again: false`.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass, replace

from lockmodel.errors import Position
from lockmodel.expressions import Expression

Row = tuple[str, tuple[Expression, ...]]
"""A row: its relation, and the arguments of its resource."""


@dataclass(frozen=True)
class Asked:
    """A row that was taken to be written for the first time, by the statement at `position`."""

    row: Row
    position: Position


@dataclass(frozen=True)
class Writes:
    """`sure`: rows that have been written; `maybe`: relations of which rows may have been, it is not known which.

    `asked` and `noted` are all questions and writes so far, for `unclear_after_loop`.
    """

    sure: tuple[Row, ...] = ()
    maybe: frozenset[str] = frozenset()
    asked: tuple[Asked, ...] = ()
    noted: tuple[Row, ...] = ()

    def note(self, row: Row) -> Writes:
        """After a write of `row`."""
        return replace(self, sure=(*self.sure, row), noted=(*self.noted, row))

    def note_any(self, relation: str) -> Writes:
        """After a write of some row of `relation` that has no name."""
        return replace(self, maybe=self.maybe | {relation}, noted=(*self.noted, (relation, ())))

    def ask(self, row: Row, position: Position) -> tuple[bool | None, Writes]:
        """Whether `row` has been written before; None if that can't be told."""
        if row in self.sure:
            return True, self
        if row[0] in self.maybe or any(not _differ(row, other) for other in self.sure):
            return None, self
        return False, replace(self, asked=(*self.asked, Asked(row, position)))

    def unknown(self) -> Writes:
        """After a `rollback to`, which takes back some of the writes."""
        return replace(self, sure=(), maybe=self.maybe.union(relation for relation, _ in self.sure))

    def after_loop(self, before: Writes, parameters: Sequence[str]) -> tuple[Asked | None, Writes]:
        """After a loop over `parameters` that began at `before`.

        First, a row that was taken for new though an earlier round of the loop may have written it.
        """
        noted = self.noted[len(before.noted) :]
        unclear = None
        for asked in self.asked[len(before.asked) :]:
            for row in noted:
                same = row == asked.row and _differs_in_each_round(row, parameters)
                if not same and not _differ(row, asked.row):
                    unclear = asked
        gone = [row for row in self.sure if any(name in argument.names for argument in row[1] for name in parameters)]
        return unclear, replace(
            self,
            sure=tuple(row for row in self.sure if row not in gone),
            maybe=self.maybe.union(relation for relation, _ in gone),
        )


def after_branches(before: Writes, ends: Sequence[Writes]) -> Writes:
    """After one of several ways that all began at `before` and came to `ends`."""
    sure = tuple(row for row in ends[0].sure if all(row in end.sure for end in ends[1:]))
    unsure = {row[0] for end in ends for row in end.sure if row not in sure}
    asked = tuple(one for end in ends for one in end.asked[len(before.asked) :])
    noted = tuple(row for end in ends for row in end.noted[len(before.noted) :])
    maybe = frozenset(unsure).union(*(end.maybe for end in ends))
    return Writes(sure, maybe, (*before.asked, *asked), (*before.noted, *noted))


def _differ(one: Row, other: Row) -> bool:
    """Whether these are surely two rows."""
    if one[0] != other[0]:
        return True
    pairs = [(a.tree, b.tree) for a, b in zip(one[1], other[1], strict=False)]
    return any(
        isinstance(a, ast.Constant)
        and isinstance(b, ast.Constant)
        and (type(a.value), a.value) != (type(b.value), b.value)
        for a, b in pairs
    )


def _differs_in_each_round(row: Row, parameters: Sequence[str]) -> bool:
    """Whether two rounds of a loop over `parameters` mean two rows."""
    plain = {argument.tree.id for argument in row[1] if isinstance(argument.tree, ast.Name)}
    return plain.issuperset(parameters)
