"""The row engine: an exact breadth-first search that takes all places of the last worker at once.

A *row* is all states that differ only in where the last worker is (`row_table`). States, transitions, depth, verdict and trace are the
reference engine's. Nothing has to be compiled for it, so it starts at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from lockmodel.budget import Budget
from lockmodel.exploration import INTERRUPTED, STOPPED_AT_VIOLATION, Exploration, Limits, Progress, Violation
from lockmodel.properties import broken_property, evaluators
from lockmodel.retrace import retrace
from lockmodel.row_table import Key, RowTable, Sets
from lockmodel.row_watch import RowWatch
from lockmodel.semantics import Crew, Semantics, State
from lockmodel.system import System

_LOOK_EVERY = 512


def supports(system: System) -> bool:
    """Whether this engine can search `system`: units of pools and queues are beyond it."""
    return not system.no_stall and all(resource.capacity is None for resource in system.resources)


def explore(
    system: System,
    crew: Crew,
    limits: Limits | None = None,
    *,
    progress: Callable[[Progress], None] | None = None,
    stop_at_violation: bool = True,
) -> Exploration:
    """Search all states, as `reference.explore` does; a search that stops at a violation finishes the violation's level.

    The system must have no pools. Raises Unsupported for formulas of very many terms, AskReference where a step or a formula has no meaning in a state that it meets.
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
        self.table = RowTable(system, crew)
        self.evaluators = evaluators(self.semantics)
        self.watch = RowWatch(self.table, crew, self.evaluators)
        self.budget = Budget(limits)
        self.progress = progress
        self.stop_at_violation = stop_at_violation
        self.states = self.transitions = 0
        self.levels: list[Sets] = []
        self.violations: Sets = {}
        self.violated_level = -1
        self.started = time.monotonic()

    def run(self) -> Exploration:
        try:
            stopped = self._levels()
        except KeyboardInterrupt:
            stopped = INTERRUPTED
        return Exploration(
            crew=self.semantics.crew,
            states=self.states,
            transitions=self.transitions,
            depth=len(self.levels),
            seconds=time.monotonic() - self.started,
            stopped=stopped,
            violation=self._violation(),
            engine="rows",
        )

    def _levels(self) -> str | None:
        """Expand level after level; returns why it stopped early, or None."""
        first: Key = (self.semantics.initial.valuation, *(0 for _ in self.table.outer))
        seen: Sets = {first: 1}
        level: Sets = {first: 1}
        while level:
            self.levels.append(level)
            self.states += sum(bits.bit_count() for bits in level.values())
            if not self.violations and (found := self.watch.violations(level)):
                self.violations, self.violated_level = found, len(self.levels) - 1
                if self.stop_at_violation:
                    return STOPPED_AT_VIOLATION
            reached: Sets = {}
            for number, (key, bits) in enumerate(level.items()):
                if number % _LOOK_EVERY == 0:
                    if reason := self.budget.exceeded(self.states):
                        return reason
                    self._report(len(level) - number)
                self.transitions += self.table.expand(key, bits, reached)
            level = {}
            for key, bits in reached.items():
                before = seen.get(key, 0)
                if fresh := bits & ~before:
                    seen[key] = before | fresh
                    level[key] = fresh
        return None

    def _report(self, rows: int) -> None:
        if self.progress:
            self.progress(Progress(self.states, rows, len(self.levels), time.monotonic() - self.started))

    def _violation(self) -> Violation | None:
        if not self.violations:
            return None
        # From the violations backwards: in each level, the states that a shortest path to one leads through.
        wanted = self.violations
        on_path = [self._membership(wanted)]
        for level in reversed(self.levels[: self.violated_level]):
            wanted = {
                key: found
                for key in self.table.before(wanted)
                if key in level and (found := self.table.sources(key, level[key], wanted))
            }
            on_path.append(self._membership(wanted))
        trace = retrace(self.semantics, on_path[::-1])
        broken = broken_property(self.semantics, self.evaluators, trace.last)
        assert broken is not None
        return Violation(broken, trace)

    def _membership(self, sets: Sets) -> Callable[[State], bool]:
        def contains(state: State) -> bool:
            key, place = self.table.locate(state)
            return bool(sets.get(key, 0) >> place & 1)

        return contains
