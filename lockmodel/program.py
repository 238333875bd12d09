"""A spec whose every word has been looked up: what the compiler expands.

`lockmodel.resolver` makes a `Program` from a `Spec`. Here, names of resources, sets and modes are known to exist, modes fit
their kind, and formulas are parsed. Nothing is expanded yet: a loop is still a loop over a set.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import cached_property

from lockmodel.errors import Position
from lockmodel.expressions import Expression, Value
from lockmodel.modes import Kind, Wait
from lockmodel.system import Property

Names = frozenset[str]


class Ending(Enum):
    """How steps can end: by commit, by rollback, or by going on to what follows."""

    COMMIT = auto()
    ROLLBACK = auto()
    NONE = auto()


Endings = frozenset[Ending]


@dataclass(frozen=True)
class Family:
    """A declared resource: one for each combination of the elements of the sets in `per`."""

    name: str
    kind: Kind
    per: tuple[str, ...]
    table: str | None = None
    session: bool = False
    capacity: int | None = None
    position: Position | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Reference:
    """A mention of a resource, such as `lane[s, 1]`. Its arguments are evaluated where the step is reached."""

    family: str
    arguments: tuple[Expression, ...]
    text: str
    position: Position = field(compare=False)

    @property
    def names(self) -> Names:
        return frozenset().union(*(argument.names for argument in self.arguments))


@dataclass(frozen=True, eq=False)
class Block:
    """A list of steps. Equal only to itself: a block is a place in the spec."""

    steps: tuple[Step, ...]

    @cached_property
    def mentions(self) -> tuple[Names, ...]:
        """For each index, the names that the steps from there on use (not those that they bind themselves).

        What follows a step that always ends the transaction never comes, and so mentions nothing.
        """
        found = [frozenset[str]()]
        for step in reversed(self.steps):
            found.append(step.names if Ending.NONE not in endings_of(step) else found[-1] | step.names)
        return tuple(reversed(found))

    @cached_property
    def endings(self) -> tuple[Endings, ...]:
        """For each index, the ways in which the steps from there on can end."""
        found = [frozenset((Ending.NONE,))]
        for step in reversed(self.steps):
            ways = endings_of(step)
            found.append(ways - {Ending.NONE} | found[-1] if Ending.NONE in ways else ways)
        return tuple(reversed(found))


@dataclass(frozen=True, eq=False)
class Lock:
    """Takes a lock; a row may take its table before."""

    reference: Reference
    mode: str
    wait: Wait
    then: Block
    otherwise: Block | None
    table: Reference | None
    table_mode: str
    sql: str | None
    label: str | None
    position: Position
    kept: bool = True
    """Whether it is taken at all, and not only waited for."""
    connection: int | None = None
    """Which of the connections that the worker has taken from pools the SQL runs on, from 1; None: the last one."""
    timeout_ms: float | None = None
    """The lock_timeout in force; None: what its transaction says."""
    timed: bool = True
    """Whether a lock_timeout has a say; it has none about pools."""
    table_before: str | None = None
    """A mode in which the statement takes the table before `table_mode`."""

    @property
    def table_modes(self) -> tuple[str, ...]:
        """The modes in which the row's table is taken, in order; none if the spec names no table."""
        if self.table is None:
            return ()
        return (self.table_mode,) if self.table_before is None else (self.table_before, self.table_mode)

    @cached_property
    def names(self) -> Names:
        inner = self.reference.names | self.then.mentions[0]
        return inner | self.otherwise.mentions[0] if self.otherwise else inner


@dataclass(frozen=True, eq=False)
class Loop:
    """Runs `body` for each combination of elements of the sets in `over` (parameter, set)."""

    over: tuple[tuple[str, str], ...]
    order: str
    body: Block
    sql: str | None
    position: Position
    connection: int | None = None
    """As for a lock."""

    @cached_property
    def names(self) -> Names:
        return self.body.mentions[0] - {parameter for parameter, _ in self.over}


@dataclass(frozen=True, eq=False)
class Either:
    branches: tuple[Block, ...]
    position: Position

    @cached_property
    def names(self) -> Names:
        return frozenset().union(*(branch.mentions[0] for branch in self.branches))


@dataclass(frozen=True, eq=False)
class If:
    condition: Expression
    then: Block
    otherwise: Block
    shared: bool
    """Whether the condition reads a shared variable, so that it is a transition of its own."""
    position: Position

    @cached_property
    def names(self) -> Names:
        return self.condition.names | self.then.mentions[0] | self.otherwise.mentions[0]


@dataclass(frozen=True, eq=False)
class Assign:
    values: tuple[tuple[str, Expression], ...]
    shared: bool
    """Whether it reads or sets a shared variable."""
    position: Position

    @cached_property
    def names(self) -> Names:
        return frozenset().union(*(expression.names for _, expression in self.values))


@dataclass(frozen=True, eq=False)
class Savepoint:
    name: str
    position: Position
    names: Names = frozenset()


@dataclass(frozen=True, eq=False)
class RollbackTo:
    name: str
    position: Position
    names: Names = frozenset()


@dataclass(frozen=True, eq=False)
class Release:
    reference: Reference
    mode: str
    sql: str | None
    label: str | None
    position: Position

    @property
    def names(self) -> Names:
        return self.reference.names


@dataclass(frozen=True, eq=False)
class End:
    """Ends the transaction at this place, by commit or rollback."""

    commit: bool
    position: Position
    names: Names = frozenset()


def endings_of(step: Step) -> Endings:
    """The ways in which `step` can end."""
    match step:
        case End():
            return frozenset((Ending.COMMIT if step.commit else Ending.ROLLBACK,))
        case Either():
            return frozenset().union(*(branch.endings[0] for branch in step.branches))
        case If():
            return step.then.endings[0] | step.otherwise.endings[0]
        case Loop():
            # A set is never empty, so the body runs, and if it goes on, so does the loop.
            return step.body.endings[0]
        case Lock() if step.wait is Wait.BLOCK:
            return step.then.endings[0]
        case Lock():
            refused = Ending.ROLLBACK if step.wait.fails else Ending.NONE
            return step.then.endings[0] | (step.otherwise.endings[0] if step.otherwise else {refused})
        case _:
            return frozenset((Ending.NONE,))


Step = Lock | Loop | Either | If | Assign | Savepoint | RollbackTo | Release | End


@dataclass(frozen=True, eq=False)
class TransactionProgram:
    """A transaction, ready to be expanded."""

    name: str
    choose: tuple[tuple[str, str], ...]
    start_when: Expression | None
    let: tuple[tuple[str, Expression], ...]
    take_at_start: tuple[tuple[Reference, str], ...]
    steps: Block
    on_commit: tuple[tuple[str, Expression], ...]
    position: Position
    block: bool = True
    """Whether it is a transaction block; if not, each statement is a transaction of its own."""

    @cached_property
    def commit_names(self) -> Names:
        return frozenset().union(*(expression.names for _, expression in self.on_commit))


@dataclass(frozen=True)
class RoleProgram:
    name: str
    count: int | None
    transactions: tuple[str, ...]


@dataclass(frozen=True)
class Program:
    """A resolved spec."""

    name: str
    sets: Mapping[str, tuple[Value, ...]]
    variables: Mapping[str, tuple[Value, ...]]
    initial: Mapping[str, Value]
    families: Mapping[str, Family]
    transactions: tuple[TransactionProgram, ...]
    roles: tuple[RoleProgram, ...]
    properties: tuple[Property, ...]
    no_global_stall: bool
    no_stall: bool
    observed: Names
    """The local variables and parameters that a formula looks at (`w.mode`)."""
    position: Position
