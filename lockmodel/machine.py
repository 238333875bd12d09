"""One worker, step by step: the small-step meaning of a program.

A `Config` is all that there is to know of one worker: the steps still to come (a stack of frames), the values of its parameters
and local variables, and what it holds. `Machine.moves` gives the transitions out of a config. The compiler explores configs
from the idle one and calls each distinct one a location; the replayer walks them again to render the SQL of a trace.

Choices are made when they are reached, not when they are acted on: `either`, the order of a loop and everything that touches only
the worker's own variables happen inside the transition before. So a worker with a lock to request has exactly one to request.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from lockmodel.errors import Position, SpecError, quote, suggestion
from lockmodel.expressions import Expression, ExpressionError, Value, evaluate, same, truth
from lockmodel.modes import Wait
from lockmodel.program import (
    Assign,
    Block,
    Either,
    End,
    Ending,
    Endings,
    If,
    Lock,
    Loop,
    Program,
    Reference,
    Release,
    RollbackTo,
    Savepoint,
    Step,
    TransactionProgram,
)
from lockmodel.system import ActionKind, Hold, Request, Resource, Status
from lockmodel.templates import fill_template

MAX_SESSION_DEPTH = 4
MAX_WORK = 3_000_000
"""Silent steps that one compilation may take; a spec that needs more is refused in bounded time."""

Env = tuple[tuple[str, Value], ...]


@dataclass(frozen=True)
class Frame:
    """The steps of `block` from `at` on."""

    block: Block
    at: int


@dataclass(frozen=True)
class LoopFrame:
    """A loop's elements still to come, each a combination of values; `unordered`: any of them may be next."""

    loop: Loop
    remaining: tuple[tuple[Value, ...], ...]
    unordered: bool


@dataclass(frozen=True)
class Mark:
    """The beginning or end of one SQL statement that takes several locks."""

    loop: Loop
    begin: bool


Stack = tuple[Frame | LoopFrame | Mark, ...]


@dataclass(frozen=True)
class Level:
    """What was taken since a savepoint (the first level has none)."""

    savepoint: str | None
    held: tuple[Hold, ...]


@dataclass(frozen=True)
class Config:
    """One worker. `part` is 1 when a row's table has been taken and the row itself is next."""

    status: Status = Status.IDLE
    transaction: TransactionProgram | None = None
    stack: Stack = ()
    env: Env = ()
    levels: tuple[Level, ...] = (Level(None, ()),)
    session: tuple[Hold, ...] = ()
    part: int = 0
    statement: tuple[Loop, bool] | None = None
    """The loop whose single statement is being run, and whether its first lock has been requested."""

    @property
    def held(self) -> tuple[Hold, ...]:
        """All locks, a pool's units as often as they are held, else each once."""
        return tuple(dict.fromkeys(self.session)) + tuple(hold for level in self.levels for hold in level.held)


@dataclass(frozen=True)
class Move:
    """A transition of one worker, except for what it does to the shared variables (see `Outcome`)."""

    action: ActionKind
    target: Config
    requests: tuple[Request, ...] = ()
    guard: frozenset[int] | None = None
    update: tuple[int, ...] | None = None
    faults: Mapping[int, str] = field(default_factory=dict)
    label: str = ""
    position: Position | None = None
    step: Step | None = None


class Machine:
    """The moves of the workers of one program.

    `resources` are all instances, in declaration order; `valuations` all combinations of the shared variables.
    """

    def __init__(self, program: Program, resources: tuple[Resource, ...]) -> None:
        self.program = program
        self.resources = resources
        self._index = {(r.family, r.arguments): i for i, r in enumerate(resources)}
        self.variables = tuple(program.variables)
        self.valuations = tuple(itertools.product(*program.variables.values()))
        self._valuation_index = {self._exact(values): i for i, values in enumerate(self.valuations)}
        self._shared = [dict(zip(self.variables, values, strict=True)) for values in self.valuations]
        self._work = 0

    # Where a worker is

    def key(self, config: Config) -> object:
        """Two configs with equal keys are one location: see docs/language.md, "Which situations are one state"."""
        live = set(self.program.observed) if config.status is Status.RUNNING else set()
        reachable, endings = _still_to_come(config.stack)
        for frame in reachable:
            if isinstance(frame, Frame):
                live |= frame.block.mentions[frame.at]
            elif isinstance(frame, LoopFrame):
                live |= frame.loop.names
        if config.transaction and Ending.COMMIT in endings:
            live |= config.transaction.commit_names
        env = frozenset((name, type(value), value) for name, value in config.env if name in live)
        levels = tuple((level.savepoint, frozenset(Counter(level.held).items())) for level in config.levels)
        session = frozenset(Counter(config.session).items())
        name = config.transaction.name if config.transaction else None
        return config.status, name, reachable, env, levels, session, config.part, config.statement

    def request(self, config: Config) -> Request | None:
        """The lock that the worker asks for next, if that is its next step."""
        step = self._next_step(config)
        return self._lock_request(step, config) if isinstance(step, Lock) else None

    def locals(self, config: Config) -> dict[str, Value]:
        """The local variables that formulas observe."""
        if config.status is not Status.RUNNING or config.transaction is None:
            return {}
        declared = {name for name, _ in config.transaction.let}
        return {name: value for name, value in config.env if name in declared and name in self.program.observed}

    # Moves

    def moves(self, config: Config) -> Iterator[Move]:
        """All transitions of a worker at `config`, whatever the other workers do."""
        match config.status:
            case Status.IDLE:
                for transaction in self.program.transactions:
                    yield from self._starts(config, transaction)
            case Status.COMMITTED | Status.ABORTED:
                yield Move(ActionKind.RECYCLE, Config(session=config.session))
            case Status.RUNNING:
                yield from self._steps(config)

    def _starts(self, idle: Config, transaction: TransactionProgram) -> Iterator[Move]:
        parameters = [name for name, _ in transaction.choose]
        for values in itertools.product(*(self.program.sets[set_name] for _, set_name in transaction.choose)):
            chosen = dict(zip(parameters, values, strict=True))
            label = ", ".join(f"{name}={_text(value)}" for name, value in chosen.items())
            label = f"{transaction.name} ({label})" if label else transaction.name
            # The valuations are grouped by the local variables that they give, since those decide where the worker goes.
            groups: dict[Env, set[int]] = {}
            faults: dict[int, str] = {}
            for valuation, shared in enumerate(self._shared):
                names = {**shared, **chosen}
                try:
                    if transaction.start_when and not truth(transaction.start_when, names):
                        continue
                    local = {name: evaluate(expression.tree, names) for name, expression in transaction.let}
                except ExpressionError as error:
                    faults[valuation] = str(error)
                    continue
                groups.setdefault(tuple({**chosen, **local}.items()), set()).add(valuation)
            if faults and not groups:
                groups[tuple(chosen.items())] = set()
            for env, valuations in groups.items():
                config = replace(idle, status=Status.RUNNING, transaction=transaction, env=env)
                requests = tuple(
                    Request(self._resolve(reference, config), mode) for reference, mode in transaction.take_at_start
                )
                for request in requests:
                    config = self._acquire(config, request, transaction.position)
                config = replace(config, stack=(Frame(transaction.steps, 0),))
                guard = None if len(valuations) == len(self.valuations) else frozenset(valuations)
                for target in self._advance(config):
                    yield Move(ActionKind.START, target, requests, guard, None, faults, label, transaction.position)

    def _steps(self, config: Config) -> Iterator[Move]:
        step = self._next_step(config)
        rest = self._after(config)
        match step:
            case None:
                yield from self._end(config, commit=True, position=None)
            case End():
                yield from self._end(config, commit=step.commit, position=step.position)
            case Lock():
                yield from self._lock(config, step, rest)
            case If() | Assign():
                yield from self._shared_step(config, step, rest)
            case Savepoint():
                target = replace(rest, levels=(*rest.levels, Level(step.name, ())))
                yield from self._each(ActionKind.SAVEPOINT, target, step, f"savepoint {step.name}")
            case RollbackTo():
                target = replace(rest, levels=self._rolled_back(rest, step))
                yield from self._each(ActionKind.ROLLBACK_TO, target, step, f"rollback to {step.name}")
            case Release():
                resource = self._resolve(step.reference, config)
                session = list(rest.session)
                if Hold(resource, step.mode) in session:
                    session.remove(Hold(resource, step.mode))
                label = f"release {self.resources[resource].name}"
                if step.label is not None:
                    label = f"{fill_template(step.label, dict(config.env))}: {label}"
                yield from self._each(ActionKind.RELEASE, replace(rest, session=tuple(session)), step, label)
            case _:
                raise AssertionError(f"{step} is silent and can't be next")

    def _each(self, action: ActionKind, target: Config, step: Step, label: str) -> Iterator[Move]:
        for advanced in self._advance(target):
            yield Move(action, advanced, label=label, position=step.position, step=step)

    def _lock(self, config: Config, step: Lock, rest: Config) -> Iterator[Move]:
        request = self._lock_request(step, config)
        label = f"{self.resources[request.resource].name} {request.mode}"
        if request.wait:
            label += f" {request.wait}"
        if step.label is not None:
            label = f"{fill_template(step.label, dict(config.env))}: {label}"
        granted = self._acquire(config, request, step.position)
        if config.statement is not None:
            granted = replace(granted, statement=(config.statement[0], True))
        if step.table is not None and config.part == 0:
            following = replace(granted, part=1)
        else:
            following = replace(granted, stack=(Frame(step.then, 0), *rest.stack), part=0)
        for target in self._advance(following):
            yield Move(ActionKind.ACQUIRE, target, (request,), label=label, position=step.position, step=step)
        if request.wait is Wait.BLOCK:
            return
        if step.otherwise is None and request.wait is Wait.NOWAIT:
            target = Config(Status.ABORTED, session=config.session)
            yield Move(ActionKind.REFUSE, target, (request,), label=label, position=step.position, step=step)
            return
        otherwise = (Frame(step.otherwise, 0),) if step.otherwise else ()
        for target in self._advance(replace(config, stack=(*otherwise, *rest.stack), part=0)):
            yield Move(ActionKind.REFUSE, target, (request,), label=label, position=step.position, step=step)

    def _shared_step(self, config: Config, step: If | Assign, rest: Config) -> Iterator[Move]:
        """An `if` that reads, or a `set` that touches, shared variables: where it leads depends on the valuation."""
        groups: dict[tuple[Config, bool], dict[int, int]] = {}
        faults: dict[int, str] = {}
        for valuation, shared in enumerate(self._shared):
            try:
                if isinstance(step, If):
                    branch = step.then if truth(step.condition, {**shared, **dict(config.env)}) else step.otherwise
                    target, after = replace(rest, stack=(Frame(branch, 0), *rest.stack)), valuation
                else:
                    target, after = self._assign(rest, step.values, valuation)
            except ExpressionError as error:
                faults[valuation] = str(error)
                continue
            groups.setdefault((target, False), {})[valuation] = after
        action = ActionKind.TEST if isinstance(step, If) else ActionKind.SET
        if isinstance(step, If):
            label = f"if {step.condition.text}"
        else:
            label = "set " + ", ".join(f"{name} = {expression.text}" for name, expression in step.values)
        if faults and not groups:
            groups[(rest, True)] = {}
        for (target, _), after_by_valuation in groups.items():
            guard, update = self._table(after_by_valuation)
            for advanced in self._advance(target):
                yield Move(action, advanced, (), guard, update, faults, label, step.position, step)

    def _end(self, config: Config, *, commit: bool, position: Position | None) -> Iterator[Move]:
        transaction = config.transaction
        assert transaction is not None
        position = position or transaction.position
        if not commit:
            yield Move(ActionKind.ROLLBACK, Config(Status.ABORTED, session=config.session), position=position)
            return
        after: dict[int, int] = {}
        faults: dict[int, str] = {}
        for valuation in range(len(self.valuations)):
            try:
                after[valuation] = self._assign(config, transaction.on_commit, valuation)[1]
            except ExpressionError as error:
                faults[valuation] = str(error)
        guard, update = self._table(after)
        target = Config(Status.COMMITTED, session=config.session)
        yield Move(ActionKind.COMMIT, target, (), guard, update, faults, "", position)

    # Parts of a move

    def _table(self, after: dict[int, int]) -> tuple[frozenset[int] | None, tuple[int, ...] | None]:
        guard = None if len(after) == len(self.valuations) else frozenset(after)
        if all(valuation == following for valuation, following in after.items()):
            return guard, None
        return guard, tuple(after.get(valuation, valuation) for valuation in range(len(self.valuations)))

    def _assign(self, config: Config, values: tuple[tuple[str, Expression], ...], valuation: int) -> tuple[Config, int]:
        """`config` and the valuation after all of `values` are assigned at once. Raises ExpressionError."""
        shared = self._shared[valuation]
        names = {**shared, **dict(config.env)}
        results = {target: evaluate(expression.tree, names) for target, expression in values}
        local = {target: value for target, value in results.items() if target not in shared}
        for target, value in results.items():
            if target in shared and not any(same(value, allowed) for allowed in self.program.variables[target]):
                raise ExpressionError(f"{target} would become {quote(_text(value))}, which is not one of its values")
        after = tuple(results.get(name, shared[name]) for name in self.variables)
        env = tuple({**dict(config.env), **local}.items())
        return replace(config, env=env), self._valuation_index[self._exact(after)]

    @staticmethod
    def _exact(values: tuple[Value, ...]) -> tuple[tuple[type, Value], ...]:
        """`values` as a key that tells 1 from true."""
        return tuple((type(value), value) for value in values)

    def _lock_request(self, step: Lock, config: Config) -> Request:
        if step.table is not None and config.part == 0:
            return Request(self._resolve(step.table, config), step.table_mode)
        return Request(self._resolve(step.reference, config), step.mode, step.wait)

    def _resolve(self, reference: Reference, config: Config) -> int:
        """The index of the resource that `reference` means with the worker's values."""
        env = dict(config.env)
        try:
            arguments = tuple(evaluate(argument.tree, env) for argument in reference.arguments)
        except ExpressionError as error:
            raise SpecError(reference.position, f"{quote(reference.text)}: {error}") from None
        family = self.program.families[reference.family]
        for value, set_name in zip(arguments, family.per, strict=True):
            elements = self.program.sets[set_name]
            if not any(same(value, element) for element in elements):
                hint = suggestion(_text(value), [_text(element) for element in elements])
                message = f"{quote(reference.text)}: {quote(_text(value))} is not in set {set_name}; {hint}"
                raise SpecError(reference.position, message)
        return self._index[(reference.family, arguments)]

    def _acquire(self, config: Config, request: Request, position: Position) -> Config:
        resource = self.resources[request.resource]
        hold = Hold(request.resource, request.mode)
        if resource.session:
            if config.session.count(hold) >= MAX_SESSION_DEPTH:
                message = f"{resource.name} would be held more than {MAX_SESSION_DEPTH} times: the session lock is never released"
                raise SpecError(position, message)
            return replace(config, session=(*config.session, hold))
        if resource.capacity is None and any(hold in level.held for level in config.levels):
            return config
        *below, top = config.levels
        return replace(config, levels=(*below, Level(top.savepoint, (*top.held, hold))))

    def _rolled_back(self, config: Config, step: RollbackTo) -> tuple[Level, ...]:
        for index in range(len(config.levels) - 1, 0, -1):
            if config.levels[index].savepoint == step.name:
                return (*config.levels[:index], Level(step.name, ()))
        raise SpecError(step.position, f"no savepoint {quote(step.name)} is set when this step is reached")

    # The stack

    def _next_step(self, config: Config) -> Step | None:
        """The visible step that comes next; None: the commit. Only for configs that `_advance` gave."""
        if not config.stack:
            return None
        frame = config.stack[0]
        assert isinstance(frame, Frame)
        return frame.block.steps[frame.at]

    def _after(self, config: Config) -> Config:
        if not config.stack:
            return config
        frame = config.stack[0]
        assert isinstance(frame, Frame)
        return replace(config, stack=(Frame(frame.block, frame.at + 1), *config.stack[1:]))

    def _advance(self, config: Config) -> Iterator[Config]:
        """All configs that silent steps lead to from `config`, each with a visible step (or the commit) next."""
        pending = [config]
        while pending:
            here = pending.pop()
            self._work += 1
            if self._work > MAX_WORK:
                raise SpecError(self.program.position, f"the spec unfolds into more than {MAX_WORK:,} steps")
            if not here.stack:
                yield here
                continue
            top, below = here.stack[0], here.stack[1:]
            match top:
                case Mark():
                    pending.append(replace(here, stack=below, statement=(top.loop, False) if top.begin else None))
                case LoopFrame():
                    pending.extend(reversed(list(self._iterations(here, top, below))))
                case Frame(block, at) if at >= len(block.steps):
                    pending.append(replace(here, stack=below))
                case Frame(block, at):
                    following = self._silent(here, block.steps[at])
                    if following is None:
                        yield self._skip_held_table(here)
                    else:
                        pending.extend(reversed(following))

    def _iterations(self, here: Config, top: LoopFrame, below: Stack) -> Iterator[Config]:
        if not top.remaining:
            yield replace(here, stack=below)
        choices = range(len(top.remaining)) if top.unordered else range(min(1, len(top.remaining)))
        for choice in choices:
            rest = top.remaining[:choice] + top.remaining[choice + 1 :]
            bound = zip((name for name, _ in top.loop.over), top.remaining[choice], strict=True)
            env = tuple({**dict(here.env), **dict(bound)}.items())
            loop = (LoopFrame(top.loop, rest, top.unordered),) if rest else ()
            yield replace(here, env=env, stack=(Frame(top.loop.body, 0), *loop, *below))

    def _silent(self, here: Config, step: Step) -> list[Config] | None:
        """Where `step` leads if it is silent; None: it is a transition."""
        rest = self._after(here)
        match step:
            case Either():
                return [replace(rest, stack=(Frame(branch, 0), *rest.stack)) for branch in step.branches]
            case Loop():
                return list(self._enter(rest, step))
            case If(shared=False):
                try:
                    branch = step.then if truth(step.condition, dict(here.env)) else step.otherwise
                except ExpressionError as error:
                    raise SpecError(step.position, str(error)) from None
                return [replace(rest, stack=(Frame(branch, 0), *rest.stack))]
            case Assign(shared=False):
                try:
                    names = dict(here.env)
                    values = {name: evaluate(expression.tree, names) for name, expression in step.values}
                except ExpressionError as error:
                    raise SpecError(step.position, str(error)) from None
                return [replace(rest, env=tuple({**names, **values}.items()))]
            case _:
                return None

    def _enter(self, rest: Config, loop: Loop) -> Iterator[Config]:
        elements = tuple(itertools.product(*(self.program.sets[set_name] for _, set_name in loop.over)))
        orders: list[tuple[tuple[Value, ...], ...]] = [elements]
        if loop.order == "reverse":
            orders = [elements[::-1]]
        elif loop.order == "rotated":
            orders = [elements[start:] + elements[:start] for start in range(len(elements))]
        begin = (Mark(loop, True),) if loop.sql is not None and rest.statement is None else ()
        end = (Mark(loop, False),) if begin else ()
        for remaining in orders:
            frame = LoopFrame(loop, remaining, loop.order == "any")
            yield replace(rest, stack=(*begin, frame, *end, *rest.stack))

    def _skip_held_table(self, here: Config) -> Config:
        """Go on to the row itself where the worker holds its table in that mode already."""
        step = self._next_step(here)
        if isinstance(step, Lock) and step.table is not None and here.part == 0:
            if Hold(self._resolve(step.table, here), step.table_mode) in here.held:
                return replace(here, part=1)
        return here


def _still_to_come(stack: Stack) -> tuple[Stack, Endings]:
    """The part of `stack` that can be reached, and the ways in which the transaction can end (by NONE: never)."""
    endings: set[Ending] = set()
    for index, frame in enumerate(stack):
        match frame:
            case Frame(block, at):
                ways = block.endings[at]
            case LoopFrame(loop):
                ways = loop.body.endings[0]
            case _:
                continue
        endings |= ways
        if Ending.NONE not in ways:
            return stack[: index + 1], frozenset(endings)
    return stack, frozenset(endings | {Ending.COMMIT})


def _text(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
