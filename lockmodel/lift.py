"""Deadlocks of specs that are too large to write down: found with smaller sets, then followed step by step with the sets as they are.

A statement that comes to a hundred rows in any order has more orders than can be listed. But a deadlock needs only a few of the rows. So the
circle is looked for with sets of two or three elements, and its trace is followed in the whole: what the trace does not tell (other elements that
come first) is done as it comes. What comes out is a trace of the whole spec, and a deadlock by its meaning; if it does not come out, nothing is
claimed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lockmodel.compiler import Compilation
from lockmodel.machine import Config, Machine, Move
from lockmodel.overrides import Overrides
from lockmodel.program import Block, Either, If, Lock, Loop, Program, Step
from lockmodel.semantics import Action, Crew, Semantics, State
from lockmodel.spec import Spec
from lockmodel.system import ActionKind, Status, System
from lockmodel.trace import Trace

SIZES = (2, 3)
"""Sizes that the sets of loops are made smaller to, one after the other."""
MAX_STEPS = 20_000
"""Transitions that are followed in the whole."""


def smaller(spec: Spec, program: Program, size: int) -> Overrides | None:
    """`--set`s that leave the first `size` elements of each set that loops range over; None if none of them has more."""
    sets: dict[str, int | tuple[int | str | bool, ...]] = {}
    names = {name for transaction in program.transactions for name in _looped(transaction.steps)}
    for name in program.sets:
        declared = spec.sets[name]
        if name in names and len(program.sets[name]) > size:
            sets[name] = size if isinstance(declared, int) else tuple(declared[:size])
    return Overrides(sets=sets) if sets else None


def _looped(block: Block) -> Iterator[str]:
    for step in block.steps:
        yield from _looped_in(step)


def _looped_in(step: Step) -> Iterator[str]:
    match step:
        case Loop():
            yield from (name for _, name in step.over)
            yield from _looped(step.body)
        case Lock():
            yield from _looped(step.then)
            yield from _looped(step.otherwise) if step.otherwise is not None else ()
        case Either():
            for branch in step.branches:
                yield from _looped(branch)
        case If():
            yield from _looped(step.then)
            yield from _looped(step.otherwise)


def lift(program: Program, small: System, trace: Trace) -> tuple[Compilation, Trace] | None:
    """The deadlock that `trace` of the `small` system ends in, followed in `program`; None if it does not come about there."""
    if any(family.capacity is not None for family in program.families.values()):
        return None
    machine = Compilation(program, only=()).machine
    path = _Path(machine, trace.crew)

    def asked(location: int) -> _Lock | None:
        request = small.locations[location].request
        return None if request is None else (small.resources[request.resource].name, request.mode)

    for action in trace.actions:
        if not path.follow(action, asked(action.edge.target)):
            return None
    for worker, location in enumerate(trace.last.locations):
        if not path.go_on(worker, asked(location)):
            return None
    compilation = Compilation(program, only=path.visited)
    found = path.trace(compilation)
    semantics = Semantics(compilation.system, trace.crew)
    return (compilation, found) if semantics.stuck(found.last) else None


_Lock = tuple[str, str]
"""A resource's name and a mode."""


@dataclass(frozen=True)
class _Made:
    worker: int
    before: Config
    move: Move
    valuation: int
    """That after the move."""


class _Path:
    """A schedule of the whole program, as far as it has been followed."""

    def __init__(self, machine: Machine, crew: Crew) -> None:
        self.machine = machine
        self.crew = crew
        self.configs = [Config()] * len(crew)
        initial = tuple(machine.program.initial[name] for name in machine.variables)
        self.valuation = self.initial = machine.valuations.index(initial)
        self.made: list[_Made] = []

    @property
    def visited(self) -> list[Config]:
        """Every config that a worker has been in, the idle one first."""
        return list(dict.fromkeys((Config(), *(one.before for one in self.made), *self.configs)))

    def go_on(self, worker: int, wanted: _Lock | None) -> bool:
        """Take locks until the worker asks for `wanted`."""
        config = self.configs[worker]
        while wanted is not None and self._asks(config) != wanted and len(self.made) < MAX_STEPS:
            moves = [
                m for m in self.machine.moves(config) if m.action is ActionKind.ACQUIRE and self._possible(worker, m)
            ]
            if not moves:
                return False
            self._make(worker, next((move for move in moves if self._asks(move.target) == wanted), moves[0]))
            config = self.configs[worker]
        return wanted is None or self._asks(config) == wanted

    def follow(self, action: Action, wanted: _Lock | None) -> bool:
        """Do what `action` does, after what has to be done before it; `wanted`: what its worker asks for next."""
        worker, edge = action.worker, action.edge
        while len(self.made) < MAX_STEPS:
            moves = [move for move in self.machine.moves(self.configs[worker]) if self._possible(worker, move)]
            meant = [move for move in moves if move.action is edge.action and move.label == edge.label]
            if meant:
                self._make(worker, next((move for move in meant if self._asks(move.target) == wanted), meant[0]))
                return True
            if not moves or edge.action is not ActionKind.ACQUIRE:
                return False
            # Another element comes first; of several, one after which this one can be the next.
            here = [move for move in moves if self._next_label(move) == edge.label]
            self._make(worker, (here or moves)[0])
        return False

    def _make(self, worker: int, move: Move) -> None:
        if move.update is not None:
            self.valuation = move.update[self.valuation]
        self.made.append(_Made(worker, self.configs[worker], move, self.valuation))
        self.configs[worker] = move.target

    def _asks(self, config: Config) -> _Lock | None:
        request = self.machine.request(config) if config.status is Status.RUNNING else None
        return None if request is None else (self.machine.resources[request.resource].name, request.mode)

    def _next_label(self, move: Move) -> str:
        return " ".join(self._asks(move.target) or ())

    def _possible(self, worker: int, move: Move) -> bool:
        if self.valuation in move.faults or (move.guard is not None and self.valuation not in move.guard):
            return False
        begun = move.target.transaction if move.action is ActionKind.START else None
        if begun is not None and begun.name not in self.crew.transactions[worker]:
            return False
        blocked = any(
            hold.resource == request.resource
            and self.machine.resources[hold.resource].kind.conflict(hold.mode, request.mode)
            for request in move.requests
            for other, config in enumerate(self.configs)
            if other != worker
            for hold in config.held
        )
        return blocked is (move.action is ActionKind.REFUSE)

    def trace(self, compilation: Compilation) -> Trace:
        """The schedule as a trace of `compilation`, which knows all configs visited."""
        locations = [0] * len(self.crew)
        states = [State(tuple(locations), self.initial)]
        actions = []
        for one in self.made:
            target = compilation.locate(one.move.target)
            edges = compilation.system.locations[compilation.locate(one.before)].edges
            edge = next(
                edge
                for edge in edges
                if edge.target == target and edge.action is one.move.action and edge.requests == one.move.requests
            )
            locations[one.worker] = target
            actions.append(Action(one.worker, edge))
            states.append(State(tuple(locations), one.valuation))
        return Trace(self.crew, tuple(states), tuple(actions))
