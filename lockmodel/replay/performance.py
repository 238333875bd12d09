"""What a performed script came to, as data: what became of each command, and the deadlock, the standstill or the difference it ended with."""

from __future__ import annotations

from dataclasses import dataclass

from lockmodel.replay.deadlock import Deadlock
from lockmodel.replay.script import Command
from lockmodel.replay.sides import Observation


@dataclass(frozen=True)
class Done:
    """What became of one command: `seconds` from sending it until this was known; `waits_for`: workers in its way."""

    command: Command
    seconds: float
    waits_for: tuple[int, ...] = ()
    no_row: bool = False
    """Whether it found none of the rows that it would have locked."""


@dataclass(frozen=True)
class Standstill:
    """A deadlock that goes through a pool, or a stall, as it was seen: for `seconds` nobody of it went on, and Postgres reported nothing.

    `in_pool`: who waits for a connection, the pool, and who has its connections; `in_postgres`: who waits for whose locks.
    """

    seconds: float
    in_pool: tuple[tuple[int, str, tuple[int, ...]], ...]
    in_postgres: tuple[tuple[int, tuple[int, ...]], ...]
    queue: bool = False
    """Whether it is a stall."""


@dataclass(frozen=True)
class Performance:
    """A script performed: all that was done, and where Postgres did otherwise (`difference` at `failed`)."""

    done: tuple[Done, ...]
    deadlock: Deadlock | None = None
    failed: Command | None = None
    difference: str | None = None
    seen: tuple[Observation, ...] = ()
    """Each worker's locks where Postgres did otherwise, unless they could not be looked at."""
    waiting: Command | None = None
    """The statement that did otherwise, if it was one that had waited and went on after `failed`."""
    victim_chosen: bool = True
    """Whether the replay could choose which worker Postgres aborts; only a superuser may."""
    standstill: Standstill | None = None
    """Instead of `deadlock`: where a pool is part of the cycle, or where it is a stall."""

    @property
    def deadlocked(self) -> bool:
        """Whether it ended in a deadlock, reported by Postgres or not."""
        return self.deadlock is not None or (self.standstill is not None and not self.standstill.queue)
