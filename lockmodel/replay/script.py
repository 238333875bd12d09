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
from lockmodel.config import Config
from lockmodel.errors import Position, ReplayError
from lockmodel.explanation import Ends, find_cycle, stall_in, view
from lockmodel.modes import Wait
from lockmodel.program import Lock
from lockmodel.replay.sides import Foretold, foretell
from lockmodel.replay.statements import Pooled, Statements
from lockmodel.replay.walk import ConcreteStep, begins_statement, lock_step, walk
from lockmodel.semantics import Action, Semantics, State
from lockmodel.system import ActionKind, Request, Status
from lockmodel.trace import Trace

LOCK_ACTIONS = (ActionKind.ACQUIRE, ActionKind.REFUSE)


class Outcome(StrEnum):
    """What must come of a command."""

    COMPLETES = "completes"
    WAITS = "waits"
    REFUSED = "is refused"
    """By 55P03 (NOWAIT), no row (SKIP LOCKED) or false (a try function)."""
    TIMES_OUT = "waits, and is refused when its lock_timeout has passed"


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
    pooled: Pooled | None = None
    """What it has to do with pools; None: it runs on the worker's own connection."""
    in_block: bool = True
    """Whether it belongs to a transaction block; if not, it is a transaction of its own."""
    timeout_ms: float | None = None
    """For TIMES_OUT, the lock_timeout."""
    locks_rows: bool = False
    """Whether it takes row locks that nobody is in the way of, and can't have taken any if it reports 0 rows."""
    behind: tuple[int, ...] = ()
    """For WAITS, workers that wait for the same lock since earlier: Postgres may say that it waits for them."""

    @property
    def shown(self) -> str:
        """What is done, for a person to read."""
        if self.timeout_ms is not None and not self.in_block:
            return f"SET lock_timeout = '{self.timeout_ms:g}ms'; {self.sql}"
        if self.pooled is None:
            return self.sql
        if self.pooled.take is not None:
            return f"getconn() of {self.pooled.take}{f'; {self.sql}' if self.sql else ''}"
        return f"{self.sql}; putconn()".removeprefix("; ") if self.pooled.give_back else self.sql

    @property
    def takes_connection(self) -> bool:
        """Whether it asks a pool for a connection, and so waits in the client, where Postgres sees nothing."""
        return self.pooled is not None and self.pooled.take is not None


@dataclass(frozen=True)
class Script:
    """A replay of one schedule. `cycle`: the workers of the deadlock that must be reported at its end, if any."""

    workers: tuple[str, ...]
    commands: tuple[Command, ...]
    cycle: tuple[int, ...] = ()
    reordered: bool = False
    seed: int | None = None
    pools: tuple[tuple[str, int], ...] = ()
    """The pools that connections are taken from, with their sizes."""
    rows_may_go: bool = False
    """Whether rows may be missing that earlier transactions of the schedule have deleted or changed; else it is a difference."""
    queued: tuple[int, ...] = ()
    """The workers of a stall, the one that waits for a lock first: all of them must be seen to wait on and on."""

    @property
    def watched(self) -> tuple[int, ...]:
        """The workers that stand still at the end, though Postgres reports no deadlock."""
        return self.cycle if self.unseen else self.queued

    @property
    def victim(self) -> int | None:
        """The worker that closes the cycle, and should be the one that Postgres aborts."""
        return self.commands[-1].worker if self.cycle else None

    @property
    def unseen(self) -> bool:
        """Whether some worker of the cycle waits in a pool, so that Postgres can't see the deadlock."""
        last = {command.worker: command for command in self.commands}
        return any(last[worker].takes_connection for worker in self.cycle)


class NotRealizable(Exception):
    """A trace that no order of whole statements can follow; `str()` says why."""


@dataclass
class Turn:
    """Transitions that one command carries out; for a request that waits, none yet."""

    worker: int
    steps: list[tuple[int | None, ConcreteStep]] = field(default_factory=list)
    pending: ConcreteStep | None = None


@dataclass(frozen=True)
class Ask:
    """A request that is sent before the end, and waits to the end: by `worker`, after the first `after` transitions of the trace."""

    worker: int
    after: int


def from_trace(compilation: Compilation, statements: Statements, trace: Trace, asks: Sequence[Ask] = ()) -> Script:
    """The script that replays `trace`, and at its end issues the requests of the cycle, if it ends in one.

    With `asks`, workers that already stand in the queue for a lock by then.
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
    # Who is held up by a queue comes after those who make it.
    waits = sorted((worker.worker for worker in workers if worker.wants), key=lambda one: bool(workers[one].behind))
    stall = stall_in(semantics, trace.last)
    queued = (stall.waiter, *stall.delayed) if stall is not None and stall.ends is Ends.HOLDER else ()
    unfinished = [turn.worker for turn in turns if turn.pending is not None and turn.worker not in waits]
    if unfinished and not cycle:
        raise NotRealizable(f"the schedule ends inside a statement of {trace.crew.names[unfinished[0]]}")
    commands: list[Command] = []
    state = semantics.initial
    requests = _Requests(semantics, statements)
    open_statements = [_open_statement(compilation, whole.final[w], turns, w) for w in range(len(trace.crew))]
    open_asks = list(asks)
    for turn in turns:
        if turn.pending is None:
            begins = turn.steps[0][0]
            while open_asks and not reordered and begins is not None and open_asks[0].after < begins:
                asking = open_asks.pop(0).worker
                commands.append(requests.send(asking, open_statements[asking], state))
            state = _moved(state, turn, compilation)
            model = foretell(semantics, state, requests.waiting)
            commands += [replace(command, foretold=model) for command in _commands(turn, statements)]
    commands += [requests.send(ask.worker, open_statements[ask.worker], state) for ask in open_asks]
    for worker in _closing_order(cycle or waits, turns, semantics) if reordered else cycle or waits:
        if worker in requests.waiting:
            continue
        for turn in turns:
            if turn.worker == worker and turn.pending is not None:
                state = _moved(state, turn, compilation)
        commands.append(requests.send(worker, open_statements[worker], state))
    if cycle and commands[-1].worker not in cycle:
        raise NotRealizable(f"the cycle is closed before {trace.crew.names[commands[-1].worker]} asks")
    pools = tuple(statements.pools.items())
    return Script(trace.crew.names, tuple(commands), cycle, reordered, pools=pools, queued=queued)


class _Requests:
    """The requests that wait to the end of a schedule; `waiting` are the workers that have sent theirs, in that order."""

    def __init__(self, semantics: Semantics, statements: Statements) -> None:
        self.semantics = semantics
        self.statements = statements
        self.waiting: list[int] = []

    def send(self, worker: int, step: ConcreteStep | None, state: State) -> Command:
        """The command by which `worker` asks in `state` for its next lock, with the statement that `step` begins."""
        assert step is not None, "a waiting worker has a lock to ask for"
        wanted = self._wanted(state, worker)
        behind = tuple(one for one in self.waiting if self._wanted(state, one).resource == wanted.resource)
        self.waiting.append(worker)
        text = f"{self.semantics.system.resources[wanted.resource].name} {wanted.mode}"
        command = request_command(replace(step, worker=worker), self.statements, text, Outcome.WAITS)
        # Nobody's locks are in the way of one who is held up by a queue.
        blockers = tuple(self.semantics.blockers(state, worker, wanted)) or behind
        model = foretell(self.semantics, state, self.waiting)
        return replace(command, blockers=blockers, behind=behind, foretold=model)

    def _wanted(self, state: State, worker: int) -> Request:
        request = self.semantics.location(state, worker).request
        assert request is not None
        return request


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
        turn.steps[-1][0] - turn.steps[0][0] != len(turn.steps) - 1  # type: ignore[operator]  # Steps of a trace have numbers.
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


def _open_statement(compilation: Compilation, config: Config, turns: list[Turn], worker: int) -> ConcreteStep | None:
    """The statement that `worker` would wait in at the end: one that has taken some of its locks, or a new one; None if it asks for none."""
    for turn in turns:
        if turn.worker == worker and turn.pending is not None:
            return turn.steps[0][1]
    return lock_step(config, compilation)


def _commands(turn: Turn, statements: Statements) -> Iterator[Command]:
    number, _ = turn.steps[0]
    yield from commands_of([step for _, step in turn.steps], number, statements)


def commands_of(steps: Sequence[ConcreteStep], number: int | None, statements: Statements) -> Iterator[Command]:
    """The commands that carry out `steps`: one transition, or all that one statement makes."""
    first = steps[0]
    commands = _other(first, statements) if first.move.action not in LOCK_ACTIONS else _statement(steps, statements)
    for command in commands:
        yield replace(command, step=number, position=statements.position(first))


def request_command(
    step: ConcreteStep, statements: Statements, text: str, outcome: Outcome = Outcome.COMPLETES
) -> Command:
    """The statement that `step`, a lock, begins."""
    return Command(
        step.worker,
        statements.for_lock(step),
        text,
        outcome,
        position=statements.position(step),
        pooled=statements.pooled(step),
        in_block=statements.in_block(step.before),
    )


def _statement(steps: Sequence[ConcreteStep], statements: Statements) -> Iterator[Command]:
    """A statement that is granted some locks and refused others, and the rollback that an error makes."""
    # The table is taken on the way to the row, whatever becomes of that.
    granted = [step for step in steps if step.move.action is ActionKind.ACQUIRE and not _takes_table(step)]
    refused = [step for step in steps if step.move.action is ActionKind.REFUSE]
    if refused:
        # What the statement comes back with is told by the locks that it does not wait for.
        granted = [step for step in granted if any(not request.wait.queues for request in step.move.requests)]
    fails = any(request.wait.fails for step in refused for request in step.move.requests)
    outcome = Outcome.REFUSED if refused and (fails or not granted) else Outcome.COMPLETES
    shown = steps if outcome is Outcome.REFUSED or not refused else granted
    text = " + ".join(step.move.label for step in shown)
    conditional = any(isinstance(step.move.step, Lock) and not step.move.step.wait.queues for step in steps)
    first, last = steps[0], steps[-1]
    command = replace(request_command(first, statements, text, outcome), conditional=conditional)
    if outcome is Outcome.COMPLETES and not conditional:
        command = replace(command, locks_rows=statements.must_find_row(command.sql, granted))
    timeout_ms = _timeout_ms(refused)
    if timeout_ms is not None:
        # Only where it must run out: elsewhere it would hurry the replay. Several statements in one text would be a block of their own.
        sql = f"SET LOCAL lock_timeout = '{timeout_ms:g}ms'; {command.sql}" if command.in_block else command.sql
        command = replace(command, sql=sql, outcome=Outcome.TIMES_OUT, timeout_ms=timeout_ms)
    yield command
    if last.move.target.status is Status.ABORTED:
        yield from _end(last, ActionKind.ROLLBACK, statements)


def _timeout_ms(refused: Iterable[ConcreteStep]) -> float | None:
    """The lock_timeout that made the statement give up; None if it was refused in another way."""
    for step in refused:
        lock = step.move.step
        if isinstance(lock, Lock) and lock.wait is Wait.TIMEOUT:
            return lock.timeout_ms
    return None


def _takes_table(step: ConcreteStep) -> bool:
    lock = step.move.step
    return isinstance(lock, Lock) and step.before.part < len(lock.table_modes)


def _other(step: ConcreteStep, statements: Statements) -> Iterator[Command]:
    """What is not a request for a lock in a step of its own."""
    worker, action = step.worker, step.move.action
    match action:
        case ActionKind.START:
            begun = step.move.target
            if statements.in_block(begun) and not statements.on_pool(begun):
                yield Command(worker, "BEGIN", f"start {step.move.label}")
            for sql in statements.for_start(step):
                yield Command(worker, sql, f"start {step.move.label}")
        case ActionKind.SAVEPOINT | ActionKind.ROLLBACK_TO:
            word = "SAVEPOINT" if action is ActionKind.SAVEPOINT else "ROLLBACK TO SAVEPOINT"
            name = str(getattr(step.move.step, "name", "")).replace('"', '""')
            if statements.on_pool(step.before):
                message = "a transaction on connections of a pool can't be replayed with savepoints"
                raise ReplayError(message, step.move.position)
            yield Command(worker, f'{word} "{name}"', step.move.label)
        case ActionKind.RELEASE:
            in_block = statements.in_block(step.before)
            sql, pooled = statements.for_release(step), statements.pooled(step)
            yield Command(worker, sql, step.move.label, pooled=pooled, in_block=in_block)
        case ActionKind.COMMIT | ActionKind.ROLLBACK:
            yield from _end(step, action, statements)
        case _:
            # A `set`, an `if` or the recycling of a worker is nothing that Postgres sees.
            return


def _end(step: ConcreteStep, action: ActionKind, statements: Statements) -> Iterator[Command]:
    """The end of the transaction that `step` belongs to; without a block there is none, but connections are given back."""
    pooled = Pooled(give_back=True) if statements.on_pool(step.before) else None
    in_block = statements.in_block(step.before)
    if in_block or pooled is not None:
        sql = str(action).upper() if in_block else ""
        yield Command(step.worker, sql, str(action), pooled=pooled, in_block=in_block)
