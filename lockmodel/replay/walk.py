"""A trace with concrete values: which parameters each worker chose, which step each transition was.

A location forgets the parameters that no lock depends on any more, but the SQL of a later step may mention them. So each worker's
path is walked again on the machine that made the locations, keeping every value, and one consistent path is picked.
"""

from __future__ import annotations

from dataclasses import dataclass

from lockmodel.compiler import Compilation
from lockmodel.machine import Config, Frame, Move
from lockmodel.program import Lock
from lockmodel.semantics import Action
from lockmodel.system import ActionKind, Edge
from lockmodel.trace import Trace


@dataclass(frozen=True)
class ConcreteStep:
    """Transition number `index` of the schedule: worker `worker` at `before` makes `move`.

    `begins`: whether it is the first of its SQL statement (a statement may take several locks).
    """

    worker: int
    before: Config
    move: Move
    begins: bool


@dataclass(frozen=True)
class Walk:
    """A whole schedule, and where each worker is at its end."""

    steps: tuple[ConcreteStep, ...]
    final: tuple[Config, ...]
    last_moves: tuple[ConcreteStep | None, ...]


def walk(compilation: Compilation, trace: Trace) -> Walk:
    """`trace` with concrete values for every worker."""
    steps: list[ConcreteStep | None] = [None] * len(trace.actions)
    final = []
    last: list[ConcreteStep | None] = []
    for worker in range(len(trace.crew)):
        mine = [(index, action) for index, action in enumerate(trace.actions) if action.worker == worker]
        path, config = _path(compilation, [(trace.states[index].valuation, action) for index, action in mine])
        previous: ConcreteStep | None = None
        for (index, _), (before, move) in zip(mine, path, strict=True):
            previous = ConcreteStep(worker, before, move, begins_statement(before, previous))
            steps[index] = previous
        final.append(config)
        last.append(previous)
    return Walk(tuple(step for step in steps if step is not None), tuple(final), tuple(last))


def begins_statement(before: Config, previous: ConcreteStep | None) -> bool:
    """Whether the lock requested at `before` is the first of its statement; `previous` is what the worker did last."""
    if before.statement is not None:
        return not before.statement[1]
    if before.part and previous is not None:
        # The row's table was the step before, unless the worker held the table already and went straight to the row.
        frame = before.stack[0]
        same_step = isinstance(frame, Frame) and frame.block.steps[frame.at] is previous.move.step
        return not (same_step and previous.before.part < before.part)
    return True


def matches(compilation: Compilation, move: Move, edge: Edge, valuation: int) -> bool:
    """Whether `move` is one of the moves that `edge` stands for."""
    return (
        move.action is edge.action
        and move.requests == edge.requests
        and move.update == edge.update
        and (move.guard is None or valuation in move.guard)
        and compilation.locate(move.target) == edge.target
    )


def _path(compilation: Compilation, actions: list[tuple[int, Action]]) -> tuple[list[tuple[Config, Move]], Config]:
    """One way for a worker to take `actions` (each with the valuation before it), and where it ends."""
    # Every level keeps all configs that the actions so far can lead to, each with one way there.
    levels: list[dict[Config, tuple[Config, Move]]] = []
    frontier = [Config()]
    for valuation, action in actions:
        reached: dict[Config, tuple[Config, Move]] = {}
        for config in frontier:
            for move in compilation.machine.moves(config):
                if move.target not in reached and matches(compilation, move, action.edge, valuation):
                    reached[move.target] = (config, move)
        levels.append(reached)
        frontier = list(reached)
    end = here = frontier[0]
    path: list[tuple[Config, Move]] = []
    for reached in reversed(levels):
        here, move = reached[here]
        path.append((here, move))
    return path[::-1], end


def lock_step(config: Config, compilation: Compilation) -> ConcreteStep | None:
    """The lock that a worker at `config` asks for next, as the step that it would be if granted."""
    for move in compilation.machine.moves(config):
        if move.action is ActionKind.ACQUIRE and isinstance(move.step, Lock):
            return ConcreteStep(-1, config, move, begins=True)
    return None
