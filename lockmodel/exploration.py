"""What engines take and give: limits, progress, what was covered, and the violation found."""

from __future__ import annotations

from dataclasses import dataclass

from lockmodel.semantics import Crew
from lockmodel.trace import Trace

DEFAULT_MAX_STATES = 2_000_000
STOPPED_AT_VIOLATION = "stopped at the first violation"
INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class Limits:
    """Where a search gives up: after `max_states` states or `timeout_seconds` of work (None: no such limit).

    `spent_seconds`: how much of that time went to earlier searches of the same check.
    """

    max_states: int = DEFAULT_MAX_STATES
    timeout_seconds: float | None = None
    spent_seconds: float = 0.0


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

    @property
    def complete(self) -> bool:
        """Whether every reachable state was seen."""
        return self.stopped is None
