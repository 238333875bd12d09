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
from collections.abc import Iterator, Sequence

from lockmodel.config import ChoiceFrame, Config, Env, Frame, Level, LoopFrame, Move, still_to_come
from lockmodel.errors import Position, SpecError, quote, suggestion
from lockmodel.expressions import Expression, ExpressionError, Value, evaluate, truth
from lockmodel.modes import Wait
from lockmodel.program import (
    Assign,
    End,
    Ending,
    If,
    Lock,
    Program,
    Release,
    RollbackTo,
    Savepoint,
    Step,
    TransactionProgram,
)
from lockmodel.silent import SilentSteps, text_of
from lockmodel.system import ActionKind, Hold, Request, Resource, Status
from lockmodel.templates import fill_template

__all__ = ["Config", "Frame", "Machine", "Move"]

MAX_SESSION_DEPTH = 4


class Machine(SilentSteps):
    """The moves of the workers of one program.

    `resources` are all instances, in declaration order; `valuations` all combinations of the shared variables.
    """

    def __init__(self, program: Program, resources: tuple[Resource, ...]) -> None:
        super().__init__(program, resources)
        self.variables = tuple(program.variables)
        self.valuations = tuple(itertools.product(*program.variables.values()))
        self._valuation_index = {self._exact(values): i for i, values in enumerate(self.valuations)}
        self._allowed = {name: set(self._exact(values)) for name, values in program.variables.items()}
        self._shared = [dict(zip(self.variables, values, strict=True)) for values in self.valuations]

    # Where a worker is

    def key(self, config: Config) -> object:
        """Two configs with equal keys are one location: see docs/language.md, "Which situations are one state"."""
        live = set(self._observed(config))
        reachable, endings = still_to_come(config.stack)
        for frame in reachable:
            if isinstance(frame, Frame):
                live |= frame.block.mentions[frame.at]
            elif isinstance(frame, LoopFrame | ChoiceFrame):
                live |= frame.loop.names
        if config.transaction and Ending.COMMIT in endings:
            live |= config.transaction.commit_names
        env = frozenset((name, type(value), value) for name, value in config.env if name in live)
        levels = tuple((level.savepoint, frozenset(Counter(level.held).items())) for level in config.levels)
        session = frozenset(Counter(config.session).items())
        name = config.transaction.name if config.transaction else None
        return config.status, name, reachable, env, levels, session, frozenset(config.momentary), config.part

    def request(self, config: Config) -> Request | None:
        """The lock that the worker asks for next, if that is its next step."""
        step = self._next_step(config)
        return self._lock_request(step, config) if isinstance(step, Lock) else None

    def locals(self, config: Config) -> dict[str, Value]:
        """The parameters and local variables that formulas observe."""
        observed = self._observed(config)
        return {name: value for name, value in config.env if name in observed}

    def _observed(self, config: Config) -> frozenset[str]:
        if config.status is not Status.RUNNING or config.transaction is None:
            return frozenset()
        declared = (*config.transaction.choose, *config.transaction.let)
        return self.program.observed.intersection(name for name, _ in declared)

    # Moves

    def moves(self, config: Config) -> Iterator[Move]:
        """All transitions of a worker at `config`, whatever the other workers do."""
        moves: Iterator[Move]
        match config.status:
            case Status.IDLE:
                moves = (
                    move for transaction in self.program.transactions for move in self._starts(config, transaction)
                )
            case Status.COMMITTED | Status.ABORTED:
                moves = iter((Move(ActionKind.RECYCLE, Config(session=config.session)),))
            case Status.RUNNING:
                moves = self._steps(config)
        for move in moves:
            self.spend(6, move.target)
            yield move

    def _starts(self, idle: Config, transaction: TransactionProgram) -> Iterator[Move]:
        parameters = [name for name, _ in transaction.choose]
        for values in itertools.product(*(self.program.sets[set_name] for _, set_name in transaction.choose)):
            self.spend(4, Config(transaction=transaction))
            chosen = dict(zip(parameters, values, strict=True))
            label = ", ".join(f"{name}={text_of(value)}" for name, value in chosen.items())
            label = f"{transaction.name} ({label})" if label else transaction.name
            groups, faults = self._local_variables(transaction, chosen)
            if faults and not groups:
                groups.append((tuple(chosen.items()), set()))
            for env, valuations in groups:
                config = idle.having(status=Status.RUNNING, transaction=transaction, env=env)
                requests = self._requests_at_start(transaction, config)
                too_deep = [said for said in (self._too_deep(config, request) for request in requests) if said]
                if too_deep:
                    fault = dict.fromkeys(valuations, too_deep[0])
                    yield Move(ActionKind.START, idle, requests, frozenset(), None, fault, label, transaction.position)
                    continue
                for request in requests:
                    config = self._acquire(config, request)
                config = config.having(stack=(Frame(transaction.steps, 0),))
                guard = None if len(valuations) == len(self.valuations) else frozenset(valuations)
                for target in self._advance(config):
                    yield Move(ActionKind.START, target, requests, guard, None, faults, label, transaction.position)

    def _local_variables(
        self, transaction: TransactionProgram, chosen: dict[str, Value]
    ) -> tuple[list[tuple[Env, set[int]]], dict[int, str]]:
        """What the parameters and local variables are at the start, each with the valuations that make them so.

        Second, the valuations for which that has no meaning, and why.
        """
        if not transaction.start_when and not transaction.let:
            return [(tuple(chosen.items()), set(range(len(self.valuations))))], {}
        expressions = [expression for _, expression in transaction.let]
        self._spend_on_each_valuation(
            [*expressions, *filter(None, [transaction.start_when])], Config(transaction=transaction)
        )
        groups: dict[object, tuple[Env, set[int]]] = {}
        faults: dict[int, str] = {}
        for valuation, shared in enumerate(self._shared):
            names = {**shared, **chosen}
            what = "start when"
            local: dict[str, Value] = {}
            try:
                if transaction.start_when and not truth(transaction.start_when, names):
                    continue
                for name, expression in transaction.let:
                    what = f"let {name}"
                    local[name] = evaluate(expression.tree, names)
            except ExpressionError as error:
                faults[valuation] = f"{what}: {error}"
                continue
            env = tuple({**chosen, **local}.items())
            groups.setdefault(self._exact(local.values()), (env, set()))[1].add(valuation)
        return list(groups.values()), faults

    def _requests_at_start(self, transaction: TransactionProgram, config: Config) -> tuple[Request, ...]:
        wanted = [Request(self._resolve(reference, config), mode) for reference, mode in transaction.take_at_start]
        for request in wanted:
            if self.resources[request.resource].capacity is not None and wanted.count(request) > 1:
                message = (
                    f"{self.resources[request.resource].name} is taken twice at the start; take one unit in a step"
                )
                raise SpecError(transaction.position, message)
        return tuple(dict.fromkeys(wanted))

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
                target = rest.having(levels=(*rest.levels, Level(step.name, ())))
                yield from self._each(ActionKind.SAVEPOINT, target, step, f"savepoint {step.name}")
            case RollbackTo():
                target = rest.having(levels=self._rolled_back(rest, step))
                yield from self._each(ActionKind.ROLLBACK_TO, target, step, f"rollback to {step.name}")
            case Release():
                resource = self._resolve(step.reference, config)
                session = list(rest.session)
                if Hold(resource, step.mode) in session:
                    session.remove(Hold(resource, step.mode))
                label = f"release {self.resources[resource].name}"
                if step.label is not None:
                    label = f"{fill_template(step.label, dict(config.env))}: {label}"
                yield from self._each(ActionKind.RELEASE, rest.having(session=tuple(session)), step, label)
            case _:
                raise AssertionError(f"{step} is silent and can't be next")

    def _each(self, action: ActionKind, target: Config, step: Step, label: str) -> Iterator[Move]:
        for advanced in self._advance(target):
            yield Move(action, advanced, label=label, position=step.position, step=step)

    def _lock(self, config: Config, step: Lock, rest: Config) -> Iterator[Move]:
        request = self._lock_request(step, config)
        label = f"{self.resources[request.resource].name} {request.mode}"
        if request.wait not in (Wait.BLOCK, Wait.TIMEOUT):
            label += f" {request.wait}"
        takes_table = config.part < len(step.table_modes)
        if not step.kept and not takes_table:
            label += ", not kept"
        if step.label is not None:
            label = f"{fill_template(step.label, dict(config.env))}: {label}"
        if too_deep := self._too_deep(config, request):
            # An error only where it is reached: the shared variables may exclude that, which one worker alone can't know.
            fault = dict.fromkeys(range(len(self.valuations)), too_deep)
            yield Move(ActionKind.ACQUIRE, config, (request,), frozenset(), None, fault, label, step.position, step)
            return
        granted = self._acquire(config, request) if takes_table or step.kept else config
        if config.statement is not None:
            granted = granted.having(statement=(config.statement[0], True))
        # A lock that is in no statement of several is a statement of its own, and ends with it.
        alone = {"momentary": ()} if config.statement is None else {}
        if takes_table:
            following = granted.having(part=config.part + 1)
        else:
            following = granted.having(stack=(Frame(step.then, 0), *rest.stack), part=0, **alone)
        for target in self._advance(following):
            yield Move(ActionKind.ACQUIRE, target, (request,), label=label, position=step.position, step=step)
        if request.wait is Wait.BLOCK:
            return
        if request.wait is Wait.TIMEOUT:
            label += f" {request.wait}"
        if step.otherwise is None and request.wait.fails:
            target = Config(Status.ABORTED, session=config.session)
            yield Move(ActionKind.REFUSE, target, (request,), label=label, position=step.position, step=step)
            return
        otherwise = (Frame(step.otherwise, 0),) if step.otherwise else ()
        begun = None if config.statement is None else (config.statement[0], True)
        for target in self._advance(config.having(stack=(*otherwise, *rest.stack), part=0, statement=begun, **alone)):
            yield Move(ActionKind.REFUSE, target, (request,), label=label, position=step.position, step=step)

    def _shared_step(self, config: Config, step: If | Assign, rest: Config) -> Iterator[Move]:
        """An `if` that reads, or a `set` that touches, shared variables: where it leads depends on the valuation."""
        groups: dict[object, tuple[Config, dict[int, int]]] = {}
        faults: dict[int, str] = {}
        expressions = [step.condition] if isinstance(step, If) else [expression for _, expression in step.values]
        self._spend_on_each_valuation(expressions, config)
        for valuation in range(len(self.valuations)):
            try:
                if isinstance(step, If):
                    branch = step.then if truth(step.condition, self._names(config, valuation)) else step.otherwise
                    where: object = branch is step.then
                    target, after = rest.having(stack=(Frame(branch, 0), *rest.stack)), valuation
                else:
                    local, after = self._assigned(config, step.values, valuation)
                    where = self._exact(local.values())
                    target = rest.having(env=tuple({**dict(config.env), **local}.items()))
            except ExpressionError as error:
                faults[valuation] = str(error)
                continue
            groups.setdefault(where, (target, {}))[1][valuation] = after
        action = ActionKind.TEST if isinstance(step, If) else ActionKind.SET
        if isinstance(step, If):
            label = f"if {step.condition.text}"
        else:
            label = "set " + ", ".join(f"{name} = {expression.text}" for name, expression in step.values)
        if faults and not groups:
            groups[None] = (rest, {})
        for target, after_by_valuation in groups.values():
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
        if transaction.on_commit:
            self._spend_on_each_valuation([expression for _, expression in transaction.on_commit], config)
        for valuation in range(len(self.valuations)):
            try:
                after[valuation] = self._assigned(config, transaction.on_commit, valuation)[1]
            except ExpressionError as error:
                faults[valuation] = str(error)
        guard, update = self._table(after)
        target = Config(Status.COMMITTED, session=config.session)
        yield Move(ActionKind.COMMIT, target, (), guard, update, faults, "", position)

    # Parts of a move

    def _spend_on_each_valuation(self, expressions: Sequence[Expression], config: Config) -> None:
        self.spend(len(self.valuations) * (3 + sum(expression.size for expression in expressions) // 3), config)

    def _table(self, after: dict[int, int]) -> tuple[frozenset[int] | None, tuple[int, ...] | None]:
        guard = None if len(after) == len(self.valuations) else frozenset(after)
        if all(valuation == following for valuation, following in after.items()):
            return guard, None
        return guard, tuple(after.get(valuation, valuation) for valuation in range(len(self.valuations)))

    def _names(self, config: Config, valuation: int) -> dict[str, Value]:
        return {**self._shared[valuation], **dict(config.env)}

    def _assigned(
        self, config: Config, values: tuple[tuple[str, Expression], ...], valuation: int
    ) -> tuple[dict[str, Value], int]:
        """The local variables, and the valuation, after all of `values` are assigned at once. Raises ExpressionError."""
        if not values:
            return {}, valuation
        shared = self._shared[valuation]
        names = self._names(config, valuation)
        results = {target: evaluate(expression.tree, names) for target, expression in values}
        for target, value in results.items():
            if target in shared and (type(value), value) not in self._allowed[target]:
                hint = suggestion(text_of(value), [text_of(allowed) for allowed in self.program.variables[target]])
                raise ExpressionError(
                    f"{target} would become {quote(text_of(value))}, which is none of its values; {hint}"
                )
        after = tuple(results.get(name, shared[name]) for name in self.variables)
        local = {target: value for target, value in results.items() if target not in shared}
        return local, self._valuation_index[self._exact(after)]

    def _lock_request(self, step: Lock, config: Config) -> Request:
        if step.table is not None and config.part < len(step.table_modes):
            wait = step.wait if step.wait is Wait.TIMEOUT else Wait.BLOCK
            return Request(
                self._resolve(step.table, config), step.table_modes[config.part], wait, bool(step.timeout_ms)
            )
        resource = self._resolve(step.reference, config)
        return Request(resource, step.mode, step.wait, bool(step.timeout_ms), step.kept)

    def _too_deep(self, config: Config, request: Request) -> str | None:
        """What is wrong if `request` would stack a session lock too deep."""
        resource = self.resources[request.resource]
        if not resource.session or config.session.count(Hold(request.resource, request.mode)) < MAX_SESSION_DEPTH:
            return None
        return f"{resource.name} would be held more than {MAX_SESSION_DEPTH} times, the most for a session lock; release it first"

    def _acquire(self, config: Config, request: Request) -> Config:
        resource = self.resources[request.resource]
        hold = Hold(request.resource, request.mode)
        if resource.session:
            return config.having(session=(*config.session, hold))
        if resource.capacity is None and any(hold in level.held for level in config.levels):
            return config
        in_block = config.transaction is None or config.transaction.block
        if resource.capacity is None and not in_block:
            momentary = config.momentary if hold in config.momentary else (*config.momentary, hold)
            return config.having(momentary=momentary)
        *below, top = config.levels
        return config.having(levels=(*below, Level(top.savepoint, (*top.held, hold))))

    def _rolled_back(self, config: Config, step: RollbackTo) -> tuple[Level, ...]:
        for index in range(len(config.levels) - 1, 0, -1):
            if config.levels[index].savepoint == step.name:
                return (*config.levels[:index], Level(step.name, ()))
        raise SpecError(
            step.position, f"no savepoint {quote(step.name)} is set on a way to this step; set it on every way"
        )
