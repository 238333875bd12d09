"""The reference engine: a plain breadth-first search over all states.

Everything else is tested against this, so it is written to be read, not to be fast. Breadth first means that the first
violation found has the shortest trace, and that `depth` is the number of levels.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from lockmodel.budget import Budget
from lockmodel.exploration import (
    DEFAULT_MAX_STATES,
    INTERRUPTED,
    STOPPED_AT_VIOLATION,
    Exploration,
    Limits,
    Progress,
    Violation,
)
from lockmodel.properties import broken_property, evaluators
from lockmodel.semantics import Action, Crew, Semantics, State
from lockmodel.system import System
from lockmodel.trace import Trace

_REPORT_EVERY = 2_000
MAX_NUMBERS = 50_000_000
"""Locations of workers that all states together may have, some 8 bytes each: a bound for searches with hundreds of workers."""


def explore(
    system: System,
    crew: Crew,
    limits: Limits | None = None,
    *,
    progress: Callable[[Progress], None] | None = None,
    stop_at_violation: bool = True,
) -> Exploration:
    """Search all states of `system` with the workers in `crew`.

    With `stop_at_violation=False` the search goes on after the first violation, so that its counts are complete.
    An interruption (Ctrl-C) ends the search, not the program: `stopped` says so.
    Raises SpecError where a step or a formula has no meaning in a reachable state.
    """
    return _Search(system, crew, limits or Limits(), progress, stop_at_violation).run()


class _Search:
    def __init__(
        self,
        system: System,
        crew: Crew,
        limits: Limits,
        progress: Callable[[Progress], None] | None,
        stop_at_violation: bool,
    ) -> None:
        self.semantics = Semantics(system, crew)
        self.properties = evaluators(self.semantics)
        self.budget = Budget(limits)
        self.max_states = min(limits.max_states or DEFAULT_MAX_STATES, MAX_NUMBERS // max(1, len(crew)))
        self.progress = progress
        self.stop_at_violation = stop_at_violation
        self.parents: dict[State, tuple[State, Action] | None] = {}
        self.transitions = 0
        self.depth = 0
        self.violation: Violation | None = None
        self.started = time.monotonic()

    def run(self) -> Exploration:
        try:
            stopped = self._levels()
        except KeyboardInterrupt:
            stopped = INTERRUPTED
        return Exploration(
            crew=self.semantics.crew,
            states=len(self.parents),
            transitions=self.transitions,
            depth=self.depth,
            seconds=time.monotonic() - self.started,
            stopped=stopped,
            violation=self.violation,
        )

    def _levels(self) -> str | None:
        """Expand level after level; returns why it stopped early, or None."""
        initial = self.semantics.initial
        self.parents[initial] = None
        self.depth = 1
        if self._violates(initial) and self.stop_at_violation:
            return STOPPED_AT_VIOLATION
        level = [initial]
        while level:
            following: list[State] = []
            for expanded, state in enumerate(level):
                for action in self.semantics.actions(state):
                    self.transitions += 1
                    successor = self.semantics.after(state, action)
                    if successor in self.parents:
                        continue
                    if len(self.parents) >= self.max_states:
                        return f"reached the limit of {self.max_states:,} states"
                    self.parents[successor] = (state, action)
                    following.append(successor)
                    if self._violates(successor) and self.stop_at_violation:
                        self.depth += 1
                        return STOPPED_AT_VIOLATION
                    if reason := self.budget.exceeded(len(self.parents)):
                        return reason
                if expanded % _REPORT_EVERY == 0:
                    self._report(len(level) - expanded + len(following))
            self.depth += bool(following)
            level = following
        return None

    def _report(self, frontier: int) -> None:
        if self.progress:
            self.progress(Progress(len(self.parents), frontier, self.depth, time.monotonic() - self.started))

    def _violates(self, state: State) -> bool:
        """Check every property in `state`, and keep the first violation with its trace."""
        if self.violation is not None:
            return False
        broken = broken_property(self.semantics, self.properties, state)
        if broken is None:
            return False
        self.violation = Violation(broken, self._trace(state))
        return True

    def _trace(self, state: State) -> Trace:
        states, actions = [state], []
        while (parent := self.parents[states[-1]]) is not None:
            states.append(parent[0])
            actions.append(parent[1])
        return Trace(self.semantics.crew, tuple(reversed(states)), tuple(reversed(actions)))
