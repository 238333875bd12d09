"""What engines take and give: limits, progress, what was covered, and the violation found."""

from __future__ import annotations

from dataclasses import dataclass

from lockmodel.semantics import Crew
from lockmodel.trace import Trace

DEFAULT_MAX_STATES = 2_000_000
"""Of the reference engine, unless a limit is given; the others are limited by memory."""
STOPPED_AT_VIOLATION = "stopped at the first violation"
INTERRUPTED = "interrupted"


class AskReference(Exception):
    """A fast engine met a step or a formula that has no meaning; the reference engine finds out where that comes up first."""


class Unsupported(Exception):
    """A fast engine can't search this system; the message says why, for a person."""


@dataclass(frozen=True)
class Limits:
    """Where a search gives up.

    After `max_states` states (None: the engine's own limit), `timeout_seconds` of work (None: no limit), of which `spent_seconds` went to
    earlier searches of the same check, or when the process has `memory_bytes` (None: half of the machine's).
    """

    max_states: int | None = None
    timeout_seconds: float | None = None
    spent_seconds: float = 0.0
    memory_bytes: int | None = None


@dataclass(frozen=True)
class Progress:
    """How far a search is: states found, those still to expand, the level, and seconds since its start."""

    states: int
    frontier: int
    depth: int
    seconds: float


@dataclass(frozen=True)
class Violation:
    """A property that does not hold, with the shortest trace to a state that shows it."""

    property: str
    trace: Trace


@dataclass(frozen=True)
class Exploration:
    """What a search covered. The counts are those of the whole state space only if `stopped` is None."""

    crew: Crew
    states: int
    transitions: int
    depth: int
    seconds: float
    stopped: str | None
    """Why the search ended before it had seen everything: a limit, an interruption or a violation."""
    violation: Violation | None = None
    engine: str = "reference"
    reductions: tuple[str, ...] = ()
    """`symmetry` and `partial order`, where they were used: the counts are those of the reduced space."""
    note: str = ""
    """Why not by a faster engine, if there should have been one."""

    @property
    def complete(self) -> bool:
        """Whether every reachable state was seen."""
        return self.stopped is None
