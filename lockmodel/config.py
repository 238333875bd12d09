"""Where a worker is: the steps still to come, its values and its locks. `lockmodel.machine` moves it on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lockmodel.errors import Position
from lockmodel.expressions import Value
from lockmodel.program import Block, Ending, Endings, Loop, Step, TransactionProgram
from lockmodel.system import ActionKind, Hold, Request, Status

Env = tuple[tuple[str, Value], ...]


@dataclass(frozen=True)
class Frame:
    """The steps of `block` from `at` on."""

    block: Block
    at: int


@dataclass(frozen=True)
class LoopFrame:
    """A loop in a fixed order: `count` elements are still to come, the next of which is number `at`.

    Elements are numbers, for a loop over two sets has too many combinations to list; `Loops.element` gives the values.
    """

    loop: Loop
    at: int
    count: int


@dataclass(frozen=True)
class ChoiceFrame:
    """A loop whose order is any: the elements still to come are the bits that are set in `left`."""

    loop: Loop
    left: int


@dataclass(frozen=True)
class Mark:
    """The beginning or end of one SQL statement that takes several locks."""

    loop: Loop
    begin: bool


Stack = tuple[Frame | LoopFrame | ChoiceFrame | Mark, ...]


@dataclass(frozen=True)
class Level:
    """What was taken since a savepoint (the first level has none)."""

    savepoint: str | None
    held: tuple[Hold, ...]


@dataclass(frozen=True)
class Config:
    """One worker. `part`: in how many modes a row's table has been taken; after all of them, the row itself is next."""

    status: Status = Status.IDLE
    transaction: TransactionProgram | None = None
    stack: Stack = ()
    env: Env = ()
    levels: tuple[Level, ...] = (Level(None, ()),)
    session: tuple[Hold, ...] = ()
    momentary: tuple[Hold, ...] = ()
    """What is given back when the statement ends that is being run."""
    part: int = 0
    statement: tuple[Loop, bool] | None = None
    """The loop whose single statement is being run, and whether its first lock has been granted or refused."""

    def having(self, **changes: Any) -> Config:
        """This config with `changes`. As `dataclasses.replace`, in a quarter of its time: the compiler does little else."""
        changed = object.__new__(Config)
        changed.__dict__.update(self.__dict__, **changes)
        return changed

    @property
    def held(self) -> tuple[Hold, ...]:
        """All locks, a pool's units as often as they are held, else each once."""
        kept = tuple(hold for level in self.levels for hold in level.held)
        return tuple(dict.fromkeys(self.session)) + kept + tuple(hold for hold in self.momentary if hold not in kept)


@dataclass(frozen=True)
class Move:
    """A transition of one worker, except for what it does to the shared variables (see `Outcome`)."""

    action: ActionKind
    target: Config
    requests: tuple[Request, ...] = ()
    guard: frozenset[int] | None = None
    update: tuple[int, ...] | None = None
    faults: Mapping[int, str] = field(default_factory=dict)
    label: str = ""
    position: Position | None = None
    step: Step | None = None


def still_to_come(stack: Stack) -> tuple[Stack, Endings]:
    """The part of `stack` that can be reached, and the ways in which the transaction can end (by NONE: never)."""
    endings: set[Ending] = set()
    for index, frame in enumerate(stack):
        match frame:
            case Frame(block, at):
                ways = block.endings[at]
            case LoopFrame(loop) | ChoiceFrame(loop):
                ways = loop.body.endings[0]
            case _:
                continue
        endings |= ways
        if Ending.NONE not in ways:
            return stack[: index + 1], frozenset(endings)
    return stack, frozenset(endings | {Ending.COMMIT})
