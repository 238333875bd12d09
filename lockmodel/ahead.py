"""Which deadlocks can be reached from a state: a bounded breadth-first search, so that each comes with a shortest way to it."""

from __future__ import annotations

from dataclasses import dataclass

from lockmodel.explanation import find_cycle, view
from lockmodel.exploration import INTERRUPTED
from lockmodel.semantics import Action, State
from lockmodel.stepping import Model, NamedAction

DEFAULT_MAX_STATES = 20_000


@dataclass(frozen=True)
class Member:
    """A worker of a deadlock: what it runs, and the resource that it waits for."""

    worker: int
    transaction: str
    resource: str


@dataclass(frozen=True)
class DeadlockAhead:
    """A deadlock that can be reached: `actions` lead to `state`, where each of `members` waits for the next, the last for the first."""

    actions: tuple[NamedAction, ...]
    state: State
    members: tuple[Member, ...]


@dataclass(frozen=True)
class Ahead:
    """What a search found: the deadlocks, those with the shortest way first, and how far it looked.

    Deadlocks that differ only in which worker is which, or in which elements of a family of resources they meet, count as one.
    """

    deadlocks: tuple[DeadlockAhead, ...]
    states: int
    """How many states it saw."""
    stopped: str | None
    """Why it did not see all of them; None: there are no other deadlocks."""


def deadlocks_ahead(model: Model, state: State, *, max_states: int = DEFAULT_MAX_STATES) -> Ahead:
    """Search the states that can be reached from `state` for deadlocks, `max_states` of them at the most.

    It does not look beyond a deadlock: whatever the others still do, the deadlock stays. An interruption (Ctrl-C) ends the search only.
    """
    search = _Search(model, state, max_states)
    try:
        stopped = search.run()
    except KeyboardInterrupt:
        stopped = INTERRUPTED
    return Ahead(tuple(search.found.values()), len(search.parents), stopped)


class _Search:
    def __init__(self, model: Model, start: State, max_states: int) -> None:
        self.model = model
        self.max_states = max_states
        self.parents: dict[State, tuple[State, Action] | None] = {start: None}
        self.found: dict[tuple[tuple[str, str], ...], DeadlockAhead] = {}
        self.level = [start]

    def run(self) -> str | None:
        semantics = self.model.semantics
        while self.level:
            following: list[State] = []
            for state in self.level:
                if semantics.stuck(state):
                    self._keep(state)
                    continue
                for action in semantics.actions(state):
                    successor = semantics.after(state, action)
                    if successor in self.parents:
                        continue
                    if len(self.parents) >= self.max_states:
                        return f"reached the limit of {self.max_states:,} states"
                    self.parents[successor] = (state, action)
                    following.append(successor)
            self.level = following
        return None

    def _keep(self, state: State) -> None:
        workers = view(self.model.semantics, state)
        members = []
        for number in find_cycle(workers):
            worker = workers[number]
            assert worker.wants is not None
            members.append(Member(number, worker.transaction or "", worker.wants.resource))
        shape = _shape(members)
        if shape not in self.found:
            self.found[shape] = DeadlockAhead(self._way_to(state), state, tuple(members))

    def _way_to(self, state: State) -> tuple[NamedAction, ...]:
        actions = []
        while (parent := self.parents[state]) is not None:
            state, action = parent
            actions.append(self.model.named(state, action))
        return tuple(reversed(actions))


def _shape(members: list[Member]) -> tuple[tuple[str, str], ...]:
    """The transactions and resource families round the cycle, from wherever the word is least."""
    around = [(member.transaction, member.resource.partition("[")[0]) for member in members]
    return min(tuple(around[start:] + around[:start]) for start in range(len(around)))
