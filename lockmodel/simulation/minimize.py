"""A violation that a random schedule found, told as briefly as can be: fewest workers, then fewest steps, then fewest switches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise, permutations

from lockmodel.engines import search
from lockmodel.errors import LockmodelError
from lockmodel.explanation import explain
from lockmodel.exploration import Limits
from lockmodel.properties import Evaluator, broken_property, evaluators
from lockmodel.semantics import Action, Crew, Semantics, State, crew
from lockmodel.system import NO_DEADLOCK, ActionKind, System
from lockmodel.trace import Trace

MAX_SEARCH = Limits(max_states=20_000, timeout_seconds=5)
"""How far a shorter trace is searched for."""
_MAX_ORDERS = 120

Group = tuple[str, tuple[str, ...], tuple[str, ...]]
"""What makes violations alike: the property, and for a deadlock the transactions of the cycle and the families they wait for."""


def group_of(system: System, trace: Trace, violated: str) -> Group:
    """The group of the violation at the end of `trace`."""
    if violated != NO_DEADLOCK:
        return violated, (), ()
    view = explain(system, trace)
    wanted = [view.final[worker].wants for worker in view.cycle]
    families = {lock.resource.partition("[")[0] for lock in wanted if lock is not None}
    return violated, tuple(sorted(view.cycle_transactions)), tuple(sorted(families))


class Minimizer:
    """Makes the traces of one simulation small."""

    def __init__(self, system: System, workers: Crew) -> None:
        self.system = system
        self.workers = workers

    def minimize(self, trace: Trace, violated: str) -> Trace:
        """A trace into a violation of the same group, by as few workers, steps and switches as this finds. It is a real one."""
        group = group_of(self.system, trace, violated)
        acting = self._acting(trace, violated)
        smaller = self._smaller_crew(acting)
        run = _Run(self.system, smaller, group)
        numbers = _numbers(self.workers, smaller, acting)
        best = trace
        for actions in (_last_round(trace.actions, acting), _of(trace.actions, acting)):
            found = run.of([Action(numbers[action.worker], action.edge) for action in actions])
            if found is not None:
                best = found
                break
        best = self._searched(smaller, group, best)
        return _fewest_switches(run, best) if best.crew == smaller else best

    def _acting(self, trace: Trace, violated: str) -> list[int]:
        if violated == NO_DEADLOCK:
            return sorted(explain(self.system, trace).cycle)
        return sorted({action.worker for action in trace.actions})

    def _smaller_crew(self, acting: Iterable[int]) -> Crew:
        """The least number of workers in each role, but one at least, that still has `acting`."""
        needed = Counter(self.workers.roles[worker] for worker in acting)
        roles = tuple(replace(role, count=max(1, needed[role.name])) for role in self.system.roles)
        return crew(replace(self.system, roles=roles), 1)

    def _searched(self, smaller: Crew, group: Group, best: Trace) -> Trace:
        """A shorter trace of the same group, if a search finds one soon."""
        try:
            found = search(self.system, smaller, MAX_SEARCH)
        except LockmodelError:
            return best
        if found.violation is None or group_of(self.system, found.violation.trace, found.violation.property) != group:
            return best
        shorter = len(found.violation.trace) < len(best) or len(smaller) < len(best.crew)
        return found.violation.trace if shorter else best


class _Run:
    """Runs lists of actions, and keeps those that end in a violation of `group`."""

    def __init__(self, system: System, workers: Crew, group: Group) -> None:
        self.semantics = Semantics(system, workers)
        self.group = group
        self._properties: list[Evaluator] = evaluators(self.semantics)

    def of(self, actions: Sequence[Action]) -> Trace | None:
        states: list[State] = [self.semantics.initial]
        for action in actions:
            if action.edge not in self.semantics.location(states[-1], action.worker).edges:
                return None
            try:
                if not self.semantics.enabled(states[-1], action.worker, action.edge):
                    return None
            except LockmodelError:
                return None
            states.append(self.semantics.after(states[-1], action))
        trace = Trace(self.semantics.crew, tuple(states), tuple(actions))
        violated = broken_property(self.semantics, self._properties, trace.last)
        if violated is None or group_of(self.semantics.system, trace, violated) != self.group:
            return None
        return trace


def _numbers(before: Crew, after: Crew, acting: Iterable[int]) -> dict[int, int]:
    """The workers of `after` that take the parts of `acting`."""
    if before == after:
        return {worker: worker for worker in range(len(before))}
    free = {role: iter([n for n, name in enumerate(after.roles) if name == role]) for role in after.roles}
    return {worker: next(free[before.roles[worker]]) for worker in acting}


def _of(actions: Iterable[Action], acting: Iterable[int]) -> list[Action]:
    chosen = set(acting)
    return [action for action in actions if action.worker in chosen]


def _last_round(actions: Sequence[Action], acting: Iterable[int]) -> list[Action]:
    """What `acting` did since each was idle last: what ended before it usually does not matter."""
    begin = {
        worker: max((n + 1 for n, a in enumerate(actions) if a.worker == worker and a.edge.action is ActionKind.RECYCLE),
                    default=0)
        for worker in acting
    }  # fmt: skip
    return [action for n, action in enumerate(actions) if action.worker in begin and n >= begin[action.worker]]


def _fewest_switches(run: _Run, trace: Trace) -> Trace:
    """The same steps with each worker's in one piece, where some order of the workers allows that."""
    acting = list(dict.fromkeys(action.worker for action in trace.actions))
    parts = {worker: _of(trace.actions, [worker]) for worker in acting}
    for number, order in enumerate(permutations(acting)):
        if number >= _MAX_ORDERS:
            break
        found = run.of([action for worker in order for action in parts[worker]])
        if found is not None:
            return found
    return trace


def switches(trace: Trace) -> int:
    """How often another worker goes on than the one before."""
    workers = [action.worker for action in trace.actions]
    return sum(first != second for first, second in pairwise(workers))
