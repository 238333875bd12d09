"""From a `Spec` to a `Program`: every name looked up, every mode checked, every formula parsed.

Raises SpecError for the first thing that has no meaning, with its line and with what would have one. Everything that can be
told without expanding loops is told here, also of steps that no run ever reaches.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from dataclasses import replace
from functools import partial

from lockmodel.declarations import LOCAL_RESERVED, Declarations, check_identifier
from lockmodel.document import Node
from lockmodel.errors import Position, SpecError, closest, quote, suggestion
from lockmodel.expansion import Expansion
from lockmodel.expressions import WORKER_FIELDS, Expression, ExpressionError, parse
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
    Reference,
    Release,
    RollbackTo,
    Savepoint,
    Step,
    TransactionProgram,
)
from lockmodel.relations import Relations
from lockmodel.spec import (
    STATEMENTS,
    DeadlockExpected,
    EitherStep,
    Formula,
    ForStep,
    IfStep,
    LockStep,
    ReleaseStep,
    RollbackToStep,
    SavepointStep,
    SetStep,
    Spec,
    StallExpected,
    StatementStep,
    Transaction,
    ViolationExpected,
)
from lockmodel.spec import Step as SpecStep
from lockmodel.statements import SqlStep
from lockmodel.system import NO_DEADLOCK, NO_GLOBAL_STALL, NO_STALL, Property
from lockmodel.timeouts import DEADLOCK_TIMEOUT_MS, milliseconds, with_timeout

DEFAULT_TABLE_MODE = "ROW SHARE"
"""How SELECT … FOR UPDATE and its like take the table (manual, Table-Level Locks)."""
_WRITING = re.compile(r"^\s*(?:insert|update|delete|merge)\b", re.IGNORECASE)


def resolve(spec: Spec) -> Program:
    """Look up every name of `spec`. Raises SpecError."""
    return _Resolver(spec).program()


class _Resolver:
    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.declared = Declarations(spec)
        self.lookup = Lookup(self.declared)
        given = self._duration(spec, "deadlock_timeout", spec.deadlock_timeout)
        self.deadlock_timeout_ms = DEADLOCK_TIMEOUT_MS if given is None else given
        self.expansion = Expansion(Relations(self.declared, self.lookup), self.lookup, self._block)
        self.expansion.check_declarations()

    def program(self) -> Program:
        spec = self.spec
        transactions = tuple(self._transaction(name, body) for name, body in spec.transactions.items())
        properties = tuple(
            self._property(name, text, always)
            for always, formulas in ((False, spec.never), (True, spec.always))
            for name, text in formulas.items()
        )
        for name in set(spec.never) & set(spec.always):
            raise SpecError(
                spec.at("always", name), f"{quote(name)} names a formula in never and in always; rename one"
            )
        observed = {
            node.attr
            for prop in properties
            for node in ast.walk(prop.expression.tree)
            if isinstance(node, ast.Attribute) and node.attr not in (*WORKER_FIELDS, "holds", "waits_for")
        }
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
            observed=frozenset(observed),
            position=spec.at(),
        )
        self._check_expectation()
        return program

    def _check_expectation(self) -> None:
        spec, expect = self.spec, self.spec.expect
        match expect:
            case "global stall":
                if not spec.no_global_stall:
                    raise SpecError(spec.at("expect"), "to expect a global stall, ask for it: `no global stall: true`")
            case "stall" | "convoy" | StallExpected():
                if not spec.no_stall:
                    raise SpecError(spec.at("expect"), "to expect a stall, ask for it: `no stall: true`")
                if isinstance(expect, StallExpected):
                    self._check_stall(expect)
            case ViolationExpected():
                names = [*spec.never, *spec.always]
                if expect.violated not in names:
                    hint = suggestion(expect.violated, names)
                    message = f"no never or always is called {quote(expect.violated)}; {hint}"
                    raise SpecError(expect.at("violated"), message)
            case DeadlockExpected():
                self._check_known(expect.deadlock, "between", expect.deadlock.between, "transaction", spec.transactions)
                self._check_known(expect.deadlock, "on", expect.deadlock.on, "resource", spec.resources)

    def _check_stall(self, expect: StallExpected) -> None:
        shape, transactions, resources = expect.shape, self.spec.transactions, self.spec.resources
        for key, name in (("holder", shape.holder), ("waiter", shape.waiter)):
            if name is not None and name not in transactions:
                hint = suggestion(name, transactions)
                raise SpecError(shape.at(key), f"unknown transaction {quote(name)}; {hint}")
        self._check_known(shape, "delayed", shape.delayed, "transaction", transactions)
        if shape.on is not None and shape.on not in resources:
            raise SpecError(shape.at("on"), f"unknown resource {quote(shape.on)}; {suggestion(shape.on, resources)}")

    @staticmethod
    def _check_known(node: Node, key: str, names: list[str] | None, what: str, known: Iterable[str]) -> None:
        for index, name in enumerate(names or ()):
            if name not in known:
                raise SpecError(node.at(key, index), f"unknown {what} {quote(name)}; {suggestion(name, known)}")

    # Transactions

    def _transaction(self, name: str, body: Transaction) -> TransactionProgram:
        position = self.spec.at("transactions", name)
        if not name.isprintable() or not name.strip():
            raise SpecError(position, "the name of a transaction is printable text")
        timeout_ms = self._duration(body, "lock_timeout", body.lock_timeout) or 0
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
            if (table := self._table_of(reference)) is not None:
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
                return self._lock(step, scope)
            case ForStep():
                inner = self.lookup.bind(scope, step.over, step, "for")
                inner, over = self.expansion.rename(inner, tuple(step.over.items()))
                if step.sql is not None:
                    self._check_own_sql(step, scope)
                    inner = replace(inner, sql=step.sql)
                body = self.expansion.loop(over, step.order, lambda: self._block(step.do, inner, step, ("do",)))
                self.lookup.check_template(step.sql, scope, step, "sql", not_yet=step.over)
                self.lookup.check_sql(step.sql, step, "sql")
                return Loop(over, step.order, body, step.sql, step.at(), step.on_connection)
            case StatementStep():
                self._check_own_sql(step, scope, "statement")
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
                for key in ("sql", "label"):
                    self.lookup.check_template(getattr(step, key), scope, step, key)
                self.lookup.check_sql(step.sql, step, "sql")
                return Release(reference, mode, step.sql, step.label, step.at())
            case str():
                end = End(step == "commit", position)
                deferred = self.expansion.at_commit(position) if step == "commit" else None
                return end if deferred is None else Loop((), "forward", Block((deferred, end)), None, position)
            case _:
                return self._sql(step, scope)

    def _sql(self, step: SqlStep, scope: Scope) -> Step:
        if step.sql is not None:
            self._check_own_sql(step, scope)
        for key in ("sql", "label"):
            self.lookup.check_template(getattr(step, key), scope, step, key)
        self.lookup.check_sql(step.sql, step, "sql")
        return self.expansion.statement(step, scope)

    @staticmethod
    def _duration(node: Node, key: str, text: int | str | None) -> float | None:
        """In milliseconds."""
        if text is None:
            return None
        found = milliseconds(text)
        if found is None:
            raise SpecError(node.at(key), f"{quote(str(text))} is no duration; write one such as 200ms, 2s or 1min")
        return found

    def _timeout_ms(self, step: LockStep, scope: Scope, wait: Wait) -> float | None:
        """The step's own lock_timeout, if it has one."""
        own = self._duration(step, "lock_timeout", step.lock_timeout)
        if own is not None and wait is not Wait.BLOCK:
            raise SpecError(step.at("lock_timeout"), f"a request with {wait} does not wait; drop this key")
        if own is not None and not self._is_timed(step, scope):
            raise SpecError(step.at("lock_timeout"), "Postgres knows nothing of a pool's waits; drop this key")
        return own

    def _check_word(self, step: LockStep) -> None:
        """Refuse a misspelt statement, which looks like a resource of that name."""
        if step.resource.partition("[")[0].strip() in self.declared.families:
            return
        if word := closest(step.resource, STATEMENTS):
            hint = suggestion(step.resource, [word, *self.declared.families])
            raise SpecError(step.at("mode"), f"{quote(step.resource)} is no resource and no statement; {hint}")

    def _is_timed(self, step: LockStep, scope: Scope) -> bool:
        reference = self.lookup.reference(step.resource, scope, step.at("mode"))
        return self.declared.families[reference.family].capacity is None

    def _lock(self, step: LockStep, scope: Scope) -> Lock:
        self._check_word(step)
        reference = self.lookup.reference(step.resource, scope, step.at("mode"))
        family = self.declared.families[reference.family]
        mode, wait = self.lookup.mode(step.mode, reference, step.at("mode"))
        timeout_ms = self._timeout_ms(step, scope, wait)
        limit = scope.timeout_ms if timeout_ms is None else timeout_ms
        if wait is Wait.BLOCK and family.capacity is None and 0 < limit < self.deadlock_timeout_ms:
            wait = Wait.TIMEOUT
        if step.otherwise is not None and wait is Wait.BLOCK and limit:
            message = (
                f"with a lock_timeout of {limit:g}ms and a deadlock_timeout of {self.deadlock_timeout_ms:g}ms a deadlock is "
                "reported first, and `else` is not modelled; make the lock_timeout shorter, or drop `else`"
            )
            raise SpecError(step.at("else"), message)
        if step.otherwise is not None and wait is Wait.BLOCK:
            ways = " or ".join(f"{mode} {way}" for way in family.kind.waits)
            message = (
                f"`else` is for a request that does not wait; {f'write {ways}, or drop it' if ways else 'drop it'}"
            )
            raise SpecError(step.at("else"), message)
        fails = wait is Wait.TIMEOUT or (wait is Wait.NOWAIT and family.kind.name in ("table", "row"))
        if step.otherwise is not None and fails:
            first = step.otherwise[0] if step.otherwise else None
            if first != "rollback" and not isinstance(first, RollbackToStep):
                what = "NOWAIT fails" if wait is Wait.NOWAIT else "the lock_timeout has passed"
                message = f"when {what}, Postgres takes nothing but a rollback; begin `else` with `rollback to: SAVEPOINT` or `rollback`"
                raise SpecError(step.at("else"), message)
        if step.sql is not None:
            self._check_own_sql(step, scope)
            if family.capacity is not None:
                message = f"a unit of {reference.family} is taken by the client, not by a statement; drop the sql"
                raise SpecError(step.at("sql"), message)
        table = self._table_of(reference)
        statement = step.sql or scope.sql
        table_mode = "ROW EXCLUSIVE" if statement and _WRITING.match(statement) else DEFAULT_TABLE_MODE
        if step.table_mode is not None:
            if table is None:
                raise SpecError(
                    step.at("table mode"), f"{reference.family} names no table that it lives in; drop this key"
                )
            table_mode, table_wait = self.lookup.mode(step.table_mode, table, step.at("table mode"))
            if table_wait is not Wait.BLOCK:
                raise SpecError(
                    step.at("table mode"),
                    f"NOWAIT is about the row, the table is always waited for; write {table_mode}",
                )
        for key in ("sql", "label"):
            self.lookup.check_template(getattr(step, key), scope, step, key)
        self.lookup.check_sql(step.sql, step, "sql")
        then, refused = self.expansion.branches(
            [
                partial(self._block, step.then or (), scope, step, ("then",)),
                partial(self._block, step.otherwise or (), scope, step, ("else",)),
            ]
        )
        otherwise = None if step.otherwise is None else refused
        return Lock(
            reference, mode, wait, then, otherwise, table, table_mode, step.sql, step.label, step.at("mode"),
            self._is_kept(step, reference), step.on_connection,
            limit if wait is Wait.TIMEOUT else timeout_ms, family.capacity is None,
        )  # fmt: skip

    def _is_kept(self, step: LockStep, reference: Reference) -> bool:
        family = self.declared.families[reference.family]
        if step.until is not None and (family.session or family.capacity is not None):
            what = "a session lock" if family.session else "a unit of a pool"
            raise SpecError(step.at("until"), f"{what} can't be waited for without taking it; drop this key")
        return step.until is None

    def _table_of(self, reference: Reference) -> Reference | None:
        """The table that a row lives in, if it names one."""
        family = self.declared.families[reference.family]
        if family.table is None:
            return None
        per = self.declared.families[family.table].per
        arguments = tuple(reference.arguments[family.per.index(name)] for name in per)
        return Reference(family.table, arguments, family.table, reference.position)

    @staticmethod
    def _check_own_sql(step: Node, scope: Scope, key: str = "sql") -> None:
        if scope.sql is not None:
            message = (
                "the sql of the `for` or `statement` around takes all the locks inside, this one too; drop one of them"
            )
            raise SpecError(step.at(key), message)

    # Properties

    def _property(self, name: str, text: Formula, always: bool) -> Property:
        key = "always" if always else "never"
        position = self.spec.at(key, name)
        if name in (NO_DEADLOCK, NO_GLOBAL_STALL, NO_STALL):
            raise SpecError(position, f"{quote(name)} is the name of a built-in property; choose another")
        ranges = _ranges(text)
        for parameter, set_name in ranges.items():
            if set_name not in self.declared.sets:
                raise SpecError(position, f"unknown set {quote(set_name)}; {suggestion(set_name, self.declared.sets)}")
            check_identifier(parameter, "parameter", position)
            if parameter in self.declared.variables:
                message = f"{quote(parameter)} is already the name of a variable; call the parameter something else"
                raise SpecError(position, message)
        scope = Scope(ranges, frozenset(), frozenset(), "")
        expression = self.lookup.expression(text, scope, position, workers=True)
        lets = {
            name for transaction in self.spec.transactions.values() for name in (*transaction.choose, *transaction.let)
        }
        for node in ast.walk(expression.tree):
            if isinstance(node, ast.Attribute) and node.attr not in (*WORKER_FIELDS, "holds", "waits_for", *lets):
                hint = suggestion(node.attr, [*WORKER_FIELDS, *sorted(lets), "holds", "waits_for"])
                raise SpecError(position, f"a worker has no {quote(node.attr)}; {hint}")
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                self._check_worker_call(node, scope, position)
        unbound = Expression(expression.text, expression.tree, expression.names - set(ranges))
        return Property(name, always, unbound, position)

    def _check_worker_call(self, node: ast.Call, scope: Scope, position: Position) -> None:
        target = node.args[0]
        text = ast.unparse(target)
        if isinstance(target, ast.Name):
            if target.id not in self.declared.families:
                raise SpecError(position, f"unknown resource {quote(text)}; {suggestion(text, self.declared.families)}")
            reference = Reference(target.id, (), text, position)
        else:
            reference = self.lookup.reference(text.replace("(", "").replace(")", ""), scope, position)
        if len(node.args) == 2 and isinstance(node.args[1], ast.Constant):
            mode = str(node.args[1].value)
            kind = self.declared.families[reference.family].kind
            if mode not in kind.modes:
                hint = suggestion(mode, kind.modes)
                raise SpecError(position, f"unknown mode {quote(mode)} for {kind.name} {reference.family}; {hint}")


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


def _ranges(text: Formula) -> dict[str, str]:
    """The names that `any` and `all` bind in `text`, with the sets they range over."""
    try:
        tree = parse(text, about_workers=True).tree
    except ExpressionError:
        return {}
    return {
        node.target.id: node.iter.id
        for node in ast.walk(tree)
        if isinstance(node, ast.comprehension) and isinstance(node.target, ast.Name) and isinstance(node.iter, ast.Name)
    }
