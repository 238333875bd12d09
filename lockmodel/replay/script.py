"""The script of a replay: who sends which SQL, and what must come of it. Pure data, made without a connection.

A trace speaks of locks, Postgres of statements. So the transitions of a trace are gathered into *turns*: a statement with all the locks
that it takes, a commit, a savepoint. A trace that interleaves inside a statement is first put in another order that reaches the same
state: each worker's whole statements one after another, then the requests that wait.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from lockmodel.compiler import Compilation
from lockmodel.errors import Position
from lockmodel.explanation import find_cycle, view
from lockmodel.modes import Wait
from lockmodel.program import Lock
from lockmodel.replay.sides import Foretold, foretell
from lockmodel.replay.statements import Statements
from lockmodel.replay.walk import ConcreteStep, begins_statement, lock_step, walk
from lockmodel.semantics import Action, Semantics, State
from lockmodel.system import ActionKind, Status
from lockmodel.trace import Trace

LOCK_ACTIONS = (ActionKind.ACQUIRE, ActionKind.REFUSE)


class Outcome(StrEnum):
    """What must come of a command."""

    COMPLETES = "completes"
    WAITS = "waits"
    REFUSED = "is refused"
    """By 55P03 (NOWAIT), no row (SKIP LOCKED) or false (a try function)."""


@dataclass(frozen=True)
class Command:
    """One thing for a worker to send.

    `text`: what it is in the model's words; `blockers`: for WAITS, the workers that the model says are in the way;
    `resumes`: the workers whose waiting statements complete when this one does; `then_waits`: those whose statements go on, take some of
    their locks and wait again, each with the workers that are then in the way.
    """

    worker: int
    sql: str
    text: str
    outcome: Outcome = Outcome.COMPLETES
    blockers: tuple[int, ...] = ()
    resumes: tuple[int, ...] = ()
    then_waits: tuple[tuple[int, tuple[int, ...]], ...] = ()
    conditional: bool = False
    """Whether the statement may come back without its lock (NOWAIT, SKIP LOCKED, TRY)."""
    step: int | None = None
    """The number of the trace's step (from 1) that the command carries out; None for requests that the trace leaves open."""
    position: Position | None = field(default=None, compare=False)
    """Where in the spec the step stands."""
    foretold: tuple[Foretold, ...] = field(default=(), repr=False)
    """What the model says of each worker's locks after it."""


@dataclass(frozen=True)
class Script:
    """A replay of one schedule. `cycle`: the workers of the deadlock that must be reported at its end, if any."""

    workers: tuple[str, ...]
    commands: tuple[Command, ...]
    cycle: tuple[int, ...] = ()
    reordered: bool = False
    seed: int | None = None

    @property
    def victim(self) -> int | None:
        """The worker that closes the cycle, and should be the one that Postgres aborts."""
        return self.commands[-1].worker if self.cycle else None


class NotRealizable(Exception):
    """A trace that no order of whole statements can follow; `str()` says why."""


@dataclass
class Turn:
    """Transitions that one command carries out; for a request that waits, none yet."""

    worker: int
    steps: list[tuple[int | None, ConcreteStep]] = field(default_factory=list)
    pending: ConcreteStep | None = None


def from_trace(compilation: Compilation, statements: Statements, trace: Trace) -> Script:
    """The script that replays `trace`, and at its end issues the requests of the cycle, if it ends in one.

    Raises NotRealizable, and ReplayError if a step has no SQL that could be run.
    """
    semantics = Semantics(compilation.system, trace.crew)
    whole = walk(compilation, trace)
    turns = _turns(whole.steps)
    reordered = _splits_statement(turns, compilation, trace)
    if reordered:
        turns = _reorder(turns, semantics)
    workers = view(semantics, trace.last)
    cycle = find_cycle(workers)
    waits = [worker.worker for worker in workers if worker.wants]
    unfinished = [turn.worker for turn in turns if turn.pending is not None and turn.worker not in waits]
    if unfinished and not cycle:
        raise NotRealizable(f"the schedule ends inside a statement of {trace.crew.names[unfinished[0]]}")
    commands: list[Command] = []
    state = semantics.initial
    for turn in turns:
        if turn.pending is None:
            state = _moved(state, turn, compilation)
            model = foretell(semantics, state, ())
            commands += [replace(command, foretold=model) for command in _commands(turn, statements)]
    waiting: list[int] = []
    for worker in _closing_order(cycle or waits, turns, semantics) if reordered else cycle or waits:
        step = _open_statement(compilation, whole.final[worker], turns, worker)
        blockers = tuple(blocker.worker for blocker in workers[worker].blockers)
        text = f"{workers[worker].wants}"
        waiting.append(worker)
        for turn in turns:
            if turn.worker == worker and turn.pending is not None:
                state = _moved(state, turn, compilation)
        model = foretell(semantics, state, waiting)
        sql, place = statements.for_lock(step), statements.position(step)
        commands.append(Command(worker, sql, text, Outcome.WAITS, blockers, position=place, foretold=model))
    return Script(trace.crew.names, tuple(commands), cycle, reordered)


def _turns(steps: Iterable[ConcreteStep]) -> list[Turn]:
    """`steps` gathered by statement. A turn stands where its first step stood."""
    turns: list[Turn] = []
    current: dict[int, Turn] = {}
    for number, step in enumerate(steps, start=1):
        if not step.begins and step.move.action in LOCK_ACTIONS:
            current[step.worker].steps.append((number, step))
            continue
        turn = Turn(step.worker, [(number, step)])
        current[step.worker] = turn
        turns.append(turn)
    return turns


def _splits_statement(turns: list[Turn], compilation: Compilation, trace: Trace) -> bool:
    """Whether the order of the trace cannot be kept, because it interleaves inside a statement or ends inside one."""
    apart = any(
        turn.steps[-1][0] - turn.steps[0][0] != len(turn.steps) - 1  # type: ignore[operator]
        for turn in turns
    )
    ends_inside = False
    for worker in range(len(trace.crew)):
        mine = [turn for turn in turns if turn.worker == worker]
        if mine and (request := _continuation(compilation, mine[-1])) is not None:
            mine[-1].pending = request
            ends_inside = True
    return apart or ends_inside


def _continuation(compilation: Compilation, turn: Turn) -> ConcreteStep | None:
    """The lock that the last statement of `turn` still has to take, if the trace ends before it is taken."""
    _, last = turn.steps[-1]
    if last.move.action not in LOCK_ACTIONS:
        return None
    following = lock_step(last.move.target, compilation)
    if following is None or begins_statement(following.before, last):
        return None
    return following


def _reorder(turns: list[Turn], semantics: Semantics) -> list[Turn]:
    """Whole statements first, worker by worker; those that the trace ends inside of, last."""
    whole = sorted((turn for turn in turns if turn.pending is None), key=lambda turn: turn.worker)
    partial = [turn for turn in turns if turn.pending is not None]
    if _run(semantics.initial, whole + partial, semantics) is None:
        raise NotRealizable(
            "the schedule interleaves inside a statement, and no order of whole statements reaches the same state"
        )
    return whole + partial


def _run(state: State | None, turns: list[Turn], semantics: Semantics) -> State | None:
    """Where the transitions of `turns`, in this order, lead from `state`; None if one of them can't happen."""
    for turn in turns:
        for _, step in turn.steps:
            action = _action(semantics, state, step) if state else None
            if state is None or action is None:
                return None
            state = semantics.after(state, action)
    return state


def _moved(state: State, turn: Turn, compilation: Compilation) -> State:
    """`state` with the turn's worker where the turn leads it; variables are left alone."""
    locations = list(state.locations)
    locations[turn.worker] = compilation.locate(turn.steps[-1][1].move.target)
    return State(tuple(locations), state.valuation)


def _closing_order(members: Iterable[int], turns: list[Turn], semantics: Semantics) -> list[int]:
    """The members in an order in which each finds its request taken when it asks.

    A statement that waits after some of its locks takes those when it is sent, so whoever waits for one of them comes later.
    Raises NotRealizable if each would have to be sent before another.
    """
    partial = {turn.worker: turn for turn in turns if turn.pending is not None}
    state = _run(semantics.initial, [turn for turn in turns if turn.pending is None], semantics)
    left, order = list(members), []
    while left:
        for worker in left:
            after = _run(state, [partial[worker]] if worker in partial else [], semantics)
            location = semantics.location(after, worker) if after else None
            if after and location and location.request and semantics.blockers(after, worker, location.request):
                break
        else:
            names = " and ".join(semantics.crew.names[worker] for worker in left)
            raise NotRealizable(f"{names} must each be halfway through a statement before the other is sent")
        assert after is not None
        state = after
        order.append(worker)
        left.remove(worker)
    return order


def _action(semantics: Semantics, state: State, step: ConcreteStep) -> Action | None:
    for edge in semantics.location(state, step.worker).edges:
        if edge.action is step.move.action and edge.requests == step.move.requests and edge.label == step.move.label:
            if semantics.enabled(state, step.worker, edge):
                return Action(step.worker, edge)
    return None


def _open_statement(compilation: Compilation, config: object, turns: list[Turn], worker: int) -> ConcreteStep:
    """The statement that `worker` waits in at the end: one that has taken some of its locks, or a new one."""
    for turn in turns:
        if turn.worker == worker and turn.pending is not None:
            return turn.steps[0][1]
    step = lock_step(config, compilation)  # type: ignore[arg-type]
    assert step is not None, "a waiting worker has a lock to ask for"
    return step


def _commands(turn: Turn, statements: Statements) -> Iterator[Command]:
    number, _ = turn.steps[0]
    yield from commands_of([step for _, step in turn.steps], number, statements)


def commands_of(steps: Sequence[ConcreteStep], number: int | None, statements: Statements) -> Iterator[Command]:
    """The commands that carry out `steps`: one transition, or all that one statement makes."""
    first = steps[0]
    commands = _other(first, statements) if first.move.action not in LOCK_ACTIONS else _statement(steps, statements)
    for command in commands:
        yield replace(command, step=number, position=statements.position(first))


def _statement(steps: Sequence[ConcreteStep], statements: Statements) -> Iterator[Command]:
    """A statement that is granted some locks and refused others, and the rollback that an error makes."""
    # The table is taken on the way to the row, whatever becomes of that.
    granted = [step for step in steps if step.move.action is ActionKind.ACQUIRE and not _takes_table(step)]
    refused = [step for step in steps if step.move.action is ActionKind.REFUSE]
    fails = any(request.wait is Wait.NOWAIT for step in refused for request in step.move.requests)
    outcome = Outcome.REFUSED if refused and (fails or not granted) else Outcome.COMPLETES
    shown = steps if outcome is Outcome.REFUSED or not refused else granted
    text = " + ".join(step.move.label for step in shown)
    conditional = any(isinstance(step.move.step, Lock) and step.move.step.wait for step in steps)
    first, last = steps[0], steps[-1]
    yield Command(first.worker, statements.for_lock(first), text, outcome, conditional=conditional)
    if last.move.target.status is Status.ABORTED:
        yield Command(last.worker, "ROLLBACK", "rollback")


def _takes_table(step: ConcreteStep) -> bool:
    lock = step.move.step
    return isinstance(lock, Lock) and lock.table is not None and step.before.part == 0


def _other(step: ConcreteStep, statements: Statements) -> Iterator[Command]:
    """What is not a request for a lock in a step of its own."""
    worker, action = step.worker, step.move.action
    match action:
        case ActionKind.START:
            yield Command(worker, "BEGIN", f"start {step.move.label}")
            for sql in statements.for_start(step):
                yield Command(worker, sql, f"start {step.move.label}")
        case ActionKind.SAVEPOINT | ActionKind.ROLLBACK_TO:
            word = "SAVEPOINT" if action is ActionKind.SAVEPOINT else "ROLLBACK TO SAVEPOINT"
            name = str(getattr(step.move.step, "name", "")).replace('"', '""')
            yield Command(worker, f'{word} "{name}"', step.move.label)
        case ActionKind.RELEASE:
            yield Command(worker, statements.for_release(step), step.move.label)
        case ActionKind.COMMIT | ActionKind.ROLLBACK:
            yield Command(worker, str(action).upper(), str(action))
        case _:
            # A `set`, an `if` or the recycling of a worker is nothing that Postgres sees.
            return
