"""From a `Spec` to a `Program`: every name looked up, every mode checked, every formula parsed.

Raises SpecError for the first thing that has no meaning, with its line and with what would have one. Everything that can be
told without expanding loops is told here, also of steps that no run ever reaches.

Here are transactions and their control flow; `lock_steps` has the steps that take a lock, `expansion` the SQL statements, and `claims` what is said of the
whole: formulas, and what a check must find.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial

from lockmodel.claims import check_expectation, observed_locals, resolve_properties
from lockmodel.declarations import LOCAL_RESERVED, Declarations, check_identifier
from lockmodel.document import Node
from lockmodel.errors import Position, SpecError, quote, suggestion
from lockmodel.expansion import Expansion
from lockmodel.expressions import WORKER_FIELDS
from lockmodel.lock_steps import DEFAULT_TABLE_MODE, LockSteps
from lockmodel.lookup import Lookup, Scope
from lockmodel.modes import Wait
from lockmodel.program import (
    Assign,
    Block,
    Either,
    End,
    Ending,
    If,
    Lock,
    Loop,
    Program,
    Release,
    RollbackTo,
    Savepoint,
    Step,
    TransactionProgram,
)
from lockmodel.relations import Relations
from lockmodel.spec import Spec, Transaction
from lockmodel.statements import SqlStep
from lockmodel.steps import (
    EitherStep,
    ForStep,
    IfStep,
    LockStep,
    ReleaseStep,
    RollbackToStep,
    SavepointStep,
    SetStep,
    StatementStep,
)
from lockmodel.steps import Step as SpecStep
from lockmodel.timeouts import DEADLOCK_TIMEOUT_MS, duration_ms, with_timeout


def resolve(spec: Spec) -> Program:
    """Look up every name of `spec`. Raises SpecError."""
    return _Resolver(spec).program()


class _Resolver:
    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.declared = Declarations(spec)
        self.lookup = Lookup(self.declared)
        given = duration_ms(spec, "deadlock_timeout", spec.deadlock_timeout)
        self.deadlock_timeout_ms = DEADLOCK_TIMEOUT_MS if given is None else given
        self.expansion = Expansion(Relations(self.declared, self.lookup), self.lookup, self._block)
        self.locks = LockSteps(self.lookup, self.expansion, self._block, self.deadlock_timeout_ms)
        self.expansion.check_declarations()

    def program(self) -> Program:
        spec = self.spec
        transactions = tuple(self._transaction(name, body) for name, body in spec.transactions.items())
        properties = resolve_properties(self.lookup)
        program = Program(
            name=spec.name,
            sets=self.declared.sets,
            variables=self.declared.variables,
            initial=self.declared.initial,
            families=self.declared.families,
            transactions=transactions,
            roles=self.declared.roles,
            properties=properties,
            no_global_stall=spec.no_global_stall,
            no_stall=spec.no_stall,
            observed=observed_locals(properties),
            position=spec.at(),
        )
        check_expectation(spec)
        return program

    # Transactions

    def _transaction(self, name: str, body: Transaction) -> TransactionProgram:
        position = self.spec.at("transactions", name)
        if not name.isprintable() or not name.strip():
            raise SpecError(position, "the name of a transaction is printable text")
        timeout_ms = duration_ms(body, "lock_timeout", body.lock_timeout) or 0
        savepoints = frozenset(_savepoints(body.steps))
        scope = Scope({}, frozenset(), savepoints, name, block=body.block, timeout_ms=timeout_ms)
        scope = self.lookup.bind(scope, body.choose, body, "choose")
        start_when = None
        if body.start_when is not None:
            start_when = self.lookup.expression(body.start_when, scope, body.at("start when"))
        let = tuple(
            (local, self.lookup.expression(text, scope, body.at("let", local))) for local, text in body.let.items()
        )
        for local in body.let:
            check_identifier(local, "local variable", body.at("let", local), LOCAL_RESERVED)
            if local in scope.parameters or local in self.declared.variables or local in WORKER_FIELDS:
                raise SpecError(
                    body.at("let", local), f"{quote(local)} is already a name here; call the variable something else"
                )
        scope = replace(scope, locals=frozenset(body.let))
        taken = []
        for text, mode_text in body.take_at_start.items():
            where = body.at("take at start", text)
            if not body.block:
                message = "without a transaction block nothing is held from the start on; drop it, or `block: false`"
                raise SpecError(where, message)
            reference = self.lookup.reference(text, scope, where)
            mode, wait = self.lookup.mode(mode_text, reference, where)
            if wait is not Wait.BLOCK:
                raise SpecError(where, f"take at start never waits; write {mode} without {wait}")
            if (table := self.lookup.table_of(reference)) is not None:
                taken.append((table, DEFAULT_TABLE_MODE))
            taken.append((reference, mode))
        steps = with_timeout(self._all_steps(body, scope, position), timeout_ms, self.deadlock_timeout_ms)
        self._check_connections(steps)
        return TransactionProgram(
            name=name,
            choose=tuple(body.choose.items()),
            start_when=start_when,
            let=let,
            take_at_start=tuple(taken),
            steps=steps,
            on_commit=tuple(
                (target, self.lookup.assigned(target, text, scope, body.at("on commit", target), shared_only=True))
                for target, text in body.on_commit.items()
            ),
            position=position,
            block=body.block,
        )

    def _check_connections(self, steps: Block) -> None:
        """Refuse `on connection` in a transaction that takes no connection."""
        inside = list(_inside(steps))
        if any(isinstance(step, Lock) and self.declared.families[step.reference.family].capacity for step in inside):
            return
        for step in inside:
            if isinstance(step, Lock | Loop) and step.connection is not None:
                message = "the transaction takes no unit of a pool, so it has one connection; drop `on connection`"
                raise SpecError(step.position, message)

    def _all_steps(self, body: Transaction, scope: Scope, position: Position) -> Block:
        self.expansion.begin()
        block = self._block(body.steps, scope, body, ("steps",))
        deferred = self.expansion.at_commit(position)
        # A commit that is a step has its own.
        return Block((*block.steps, deferred)) if deferred is not None and Ending.NONE in block.endings[0] else block

    def _block(self, steps: Iterable[SpecStep], scope: Scope, node: Node, path: tuple[str | int, ...]) -> Block:
        return Block(tuple(self._step(step, scope, node.at(*path, index)) for index, step in enumerate(steps)))

    def _step(self, step: SpecStep, scope: Scope, position: Position) -> Step:
        match step:
            case LockStep():
                return self.locks.resolve(step, scope)
            case ForStep():
                inner = self.lookup.bind(scope, step.over, step, "for")
                inner, over = self.expansion.rename(inner, tuple(step.over.items()))
                if step.sql is not None:
                    self.lookup.check_own_sql(step, scope)
                    inner = replace(inner, sql=step.sql)
                body = self.expansion.loop(over, step.order, lambda: self._block(step.do, inner, step, ("do",)))
                self.lookup.check_template(step.sql, scope, step, "sql", not_yet=step.over)
                self.lookup.check_sql(step.sql, step, "sql")
                return Loop(over, step.order, body, step.sql, step.at(), step.on_connection)
            case StatementStep():
                self.lookup.check_own_sql(step, scope, "statement")
                body = self._block(step.takes, replace(scope, sql=step.statement), step, ("takes",))
                self.lookup.check_template(step.statement, scope, step, "statement")
                self.lookup.check_sql(step.statement, step, "statement")
                # A loop that runs once: what makes a statement of several locks is the loop's `sql`.
                return Loop((), "forward", body, step.statement, step.at(), step.on_connection)
            case EitherStep():
                ways = enumerate(step.either)
                branches = self.expansion.branches(
                    [partial(self._block, branch, scope, step, ("either", i)) for i, branch in ways]
                )
                return Either(tuple(branches), step.at())
            case IfStep():
                condition = self.lookup.expression(step.condition, scope, step.at("if"))
                then, otherwise = self.expansion.branches(
                    [
                        partial(self._block, step.then, scope, step, ("then",)),
                        partial(self._block, step.otherwise, scope, step, ("else",)),
                    ]
                )
                return If(condition, then, otherwise, bool(condition.names & set(self.declared.variables)), step.at())
            case SetStep():
                values = tuple(
                    (target, self.lookup.assigned(target, text, scope, step.at("set", target)))
                    for target, text in step.set.items()
                )
                used = frozenset(step.set).union(*(expression.names for _, expression in values))
                return Assign(values, bool(used & set(self.declared.variables)), step.at())
            case SavepointStep():
                if not scope.block:
                    raise SpecError(step.at(), "a savepoint needs a transaction block; drop it, or `block: false`")
                return Savepoint(step.savepoint, step.at())
            case RollbackToStep():
                if step.rollback_to not in scope.savepoints:
                    hint = suggestion(step.rollback_to, sorted(scope.savepoints))
                    raise SpecError(step.at(), f"unknown savepoint {quote(step.rollback_to)}; {hint}")
                self.expansion.rolled_back(step.at())
                return RollbackTo(step.rollback_to, step.at())
            case ReleaseStep():
                reference = self.lookup.reference(step.release, scope, step.at("release"))
                if not self.declared.families[reference.family].session:
                    message = (
                        f"{reference.family} is held to the end of the transaction; only an advisory lock with "
                        "`scope: session` is released"
                    )
                    raise SpecError(step.at("release"), message)
                mode, wait = self.lookup.mode(step.mode, reference, step.at("mode"))
                if wait is not Wait.BLOCK:
                    raise SpecError(step.at("mode"), f"a release never waits; write {mode} without {wait}")
                self.lookup.check_texts(step, scope)
                return Release(reference, mode, step.sql, step.label, step.at())
            case str():
                end = End(step == "commit", position)
                deferred = self.expansion.at_commit(position) if step == "commit" else None
                return end if deferred is None else Loop((), "forward", Block((deferred, end)), None, position)
            case _:
                return self._sql(step, scope)

    def _sql(self, step: SqlStep, scope: Scope) -> Step:
        if step.sql is not None:
            self.lookup.check_own_sql(step, scope)
        self.lookup.check_texts(step, scope)
        return self.expansion.statement(step, scope)


def _inside(block: Block) -> Iterable[Step]:
    """Every step in `block`."""
    for step in block.steps:
        yield step
        match step:
            case Lock():
                yield from _inside(step.then)
                yield from _inside(step.otherwise or Block(()))
            case Loop():
                yield from _inside(step.body)
            case Either():
                for branch in step.branches:
                    yield from _inside(branch)
            case If():
                yield from _inside(step.then)
                yield from _inside(step.otherwise)


def _savepoints(steps: Iterable[SpecStep]) -> Iterable[str]:
    for step in steps:
        match step:
            case SavepointStep():
                yield step.savepoint
            case ForStep():
                yield from _savepoints(step.do)
            case StatementStep():
                yield from _savepoints(step.takes)
            case EitherStep():
                for branch in step.either:
                    yield from _savepoints(branch)
            case IfStep() | LockStep():
                yield from _savepoints(step.then or ())
                yield from _savepoints(step.otherwise or ())
