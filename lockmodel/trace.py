"""A path through the states of a system: what every engine returns as its evidence."""

from __future__ import annotations

from dataclasses import dataclass

from lockmodel.semantics import Action, Crew, State


@dataclass(frozen=True)
class Trace:
    """`states[0]` is the initial state; `actions[i]` leads from `states[i]` to `states[i + 1]`."""

    crew: Crew
    states: tuple[State, ...]
    actions: tuple[Action, ...]

    def __len__(self) -> int:
        """The number of states, as TLC counts a counterexample."""
        return len(self.states)

    @property
    def last(self) -> State:
        return self.states[-1]
