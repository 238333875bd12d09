"""Whether a table is a partition where a statement stands: DETACH and ATTACH change what the spec declares.

Within one transaction that is told from its steps (`Moved`): their locks keep every other worker out to its end. What another transaction of the spec
may have done is not known, so `Moves` tells what there can be at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lockmodel.document import Node
from lockmodel.errors import SpecError
from lockmodel.program import Reference
from lockmodel.relations import Relations, Table
from lockmodel.statements import AttachStep, DetachStep


@dataclass(frozen=True)
class Move:
    """The last that a transaction did to the table `partition`: it is attached to the relation `around`, or detached from it."""

    partition: Reference
    around: str
    attached: bool

    def is_of(self, table: Reference) -> bool:
        """Whether `table` is surely this partition."""
        return (self.partition.family, self.partition.arguments) == (table.family, table.arguments)


@dataclass(frozen=True)
class Moved:
    """The tables of which a transaction surely knows what it did to them last."""

    sure: tuple[Move, ...] = ()

    def after(self, move: Move, *, fixed: bool) -> Moved:
        """After `move`; `fixed`: its partition's words mean the same table from here on."""
        # Another mention of that family may mean the same table.
        others = tuple(one for one in self.sure if one.partition.family != move.partition.family)
        return Moved((*others, move) if fixed else others)

    def of(self, table: Reference | None) -> Move | None:
        """What was done to `table`, if that is known."""
        return next((one for one in self.sure if table is not None and one.is_of(table)), None)


def moved_in_all(ends: Sequence[Moved]) -> Moved:
    """After one of several ways that came to `ends`."""

    def known(end: Moved, move: Move) -> bool:
        found = end.of(move.partition)
        return found is not None and (found.around, found.attached) == (move.around, move.attached)

    return Moved(tuple(one for one in ends[0].sure if all(known(end, one) for end in ends[1:])))


class Moves:
    """Every ATTACH and DETACH of the spec."""

    def __init__(self, relations: Relations) -> None:
        self._relations = relations
        self._all = frozenset(self._found())

    def _found(self) -> Iterator[tuple[str, str, bool]]:
        for step in _statements([self._relations.spec.transactions, self._relations.spec.relations]):
            attached = isinstance(step, AttachStep)
            table, around = (
                (step.attach_partition, step.to)
                if isinstance(step, AttachStep)
                else (step.detach_partition, step.source)
            )
            try:
                family = self._relations.named(table, step.at())[0].table
                name = self._relations.named(around, step.at())[0].name
            except SpecError:
                continue  # Its own statement says so, and better.
            if family is not None:
                yield family.name, name, attached

    def detached_from(self, table: Reference | None) -> set[str]:
        """The relations that some transaction detaches the family of `table` from."""
        return {
            around
            for name, around, attached in self._all
            if table is not None and name == table.family and not attached
        }

    def parents(self, table: Reference | None, declared: Table | None) -> list[Table | None]:
        """What `table` may be a partition of at the start of a transaction, None for nothing; `declared` is what the spec says."""
        moved = sorted({around for name, around, _ in self._all if table is not None and name == table.family})
        names = dict.fromkeys([*([declared.name] if declared is not None else []), *moved])
        ways: list[Table | None] = [self._relations.tables[name] for name in names]
        return [*ways, None] if moved or not ways else ways


def _statements(value: object) -> Iterator[AttachStep | DetachStep]:
    """Every ATTACH and DETACH inside a part of a document."""
    if isinstance(value, AttachStep | DetachStep):
        yield value
    elif isinstance(value, Node):
        for name in type(value).model_fields:
            yield from _statements(getattr(value, name))
    elif isinstance(value, dict):
        for item in value.values():
            yield from _statements(item)
    elif isinstance(value, list):
        for item in value:
            yield from _statements(item)
