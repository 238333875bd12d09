"""The SQL of each step: what the spec says, or, where it says nothing, a statement that takes just that lock.

Statements of lockmodel's own live in tables and advisory keys of their own making: `Statements.setup` creates them in the replay's schema.
A resource is either all the spec's or all lockmodel's, since a lock of the one would never meet one of the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from lockmodel.errors import Position, ReplayError, quote
from lockmodel.expressions import evaluate
from lockmodel.machine import Config
from lockmodel.modes import Wait
from lockmodel.program import Block, Either, If, Lock, Loop, Program, Reference, Release, TransactionProgram
from lockmodel.replay.no_row import tells_of_rows
from lockmodel.replay.walk import ConcreteStep
from lockmodel.spec import Spec
from lockmodel.system import Request, Resource
from lockmodel.templates import fill_template

_LITERAL_BLOCK = re.compile(r":\s*\|[-+1-9]*\s*(#.*)?$")
"""A YAML text whose lines are lines of the file."""


@dataclass(frozen=True)
class SchemaSql:
    """SQL that prepares the replay's schema. `key`: where in the spec it stands, `first_line` that of its text, if each line is one there."""

    sql: str
    key: Position | None = None
    first_line: int | None = None

    def at(self, character: int | None) -> Position | None:
        """Where in the spec character number `character` (from 1) of the SQL stands, or the key, if that is not known."""
        if self.key is None or self.first_line is None or character is None:
            return self.key
        return Position(self.key.file, self.first_line + self.sql[: character - 1].count("\n"))


def schema_of(spec: Spec) -> SchemaSql | None:
    """The SQL under `schema` in `spec`."""
    if not spec.schema_sql:
        return None
    key = spec.at("schema")
    line = next(iter(spec.source.text.splitlines()[key.line - 1 :]), "") if key.line else ""
    return SchemaSql(spec.schema_sql, key, key.line + 1 if _LITERAL_BLOCK.search(line) else None)


@dataclass(frozen=True)
class Pooled:
    """What a command has to do with the connections of pools that its worker has.

    `take`: the pool that one is taken from first; `number`: the one that the SQL runs on, from 1 in the order in which they were taken
    (None: the last one); `give_back`: whether the SQL runs on each, the last one first, and all are given back.
    """

    take: str | None = None
    number: int | None = None
    give_back: bool = False


class Statements:
    """The statements of `program`. `advisory_class` is the first key of lockmodel's own advisory locks.

    Raises ReplayError for a spec that has SQL for some steps on a resource and none for others.
    """

    def __init__(
        self, program: Program, resources: tuple[Resource, ...], schema: SchemaSql | None, advisory_class: int
    ) -> None:
        self.program = program
        self.resources = resources
        self.schema = schema
        self.advisory_class = advisory_class
        self.pools = {one.name: one.capacity for one in resources if one.capacity is not None}
        """The size of each pool."""
        self._pooled = frozenset(one.name for one in program.transactions if self._takes_units(one))
        self._own = self._families_without_sql()

    @property
    def synthetic(self) -> frozenset[str]:
        """The resource families whose statements are lockmodel's own."""
        return frozenset(self._own)

    def setup(self) -> Iterator[SchemaSql]:
        """The SQL that makes what the statements need, to be run in an empty schema."""
        if self.schema is not None:
            yield self.schema
        made = set()
        for resource in self.resources:
            if resource.family not in self._own:
                continue
            table = self._table(resource)
            if table is not None and table not in made:
                made.add(table)
                yield SchemaSql(f"CREATE TABLE {table} (id text PRIMARY KEY, touched integer NOT NULL DEFAULT 0)")
            if resource.kind.name == "row":
                yield SchemaSql(f"INSERT INTO {table} (id) VALUES ({_literal(resource.name)})")

    def own_place(self, resource: Resource) -> tuple[str, str | None] | None:
        """Where a statement of lockmodel's own locks `resource`: a table, and the row's id if it is a row; or an advisory key.

        None for what the spec has SQL for, and for what leaves nothing to be seen.
        """
        if resource.family not in self._own or resource.kind.name in ("key", "pool"):
            return None
        if (table := self._table(resource)) is None:
            return f"{self.advisory_class},{self.resources.index(resource)}", None
        return table[1:-1].replace('""', '"'), resource.name if resource.kind.name == "row" else None

    def for_lock(self, step: ConcreteStep) -> str:
        """The statement that `step`, a lock, belongs to."""
        lock = step.move.step
        assert isinstance(lock, Lock)
        values = dict(step.before.env)
        if step.before.statement is not None:
            loop = step.before.statement[0]
            assert loop.sql is not None
            return fill_template(loop.sql, values)
        if self._is_pool(lock.reference):
            # The connection that is taken begins the transaction's part on it.
            return "BEGIN" if self.in_block(step.before) else ""
        if lock.sql is not None:
            return fill_template(lock.sql, values)
        request = step.move.requests[0]
        table_mode = lock.table_mode if lock.table is not None else None
        if step.before.part < len(lock.table_modes):
            # The row is what the statement is about; the table is taken on the way.
            request = self._row_request(step.before, lock)
        sql = self._default(request, table_mode)
        if sql.startswith("LOCK TABLE") and not self.in_block(step.before):
            # Outside of a transaction block it is refused; several statements in one text are a block of their own.
            sql = f"SELECT 1; {sql}"
        return sql

    @staticmethod
    def in_block(config: Config) -> bool:
        """Whether the transaction at `config` is a transaction block."""
        return config.transaction is None or config.transaction.block

    def on_pool(self, config: Config) -> bool:
        """Whether the transaction at `config` runs on connections that it takes from pools."""
        return config.transaction is not None and config.transaction.name in self._pooled

    def pooled(self, step: ConcreteStep) -> Pooled | None:
        """What the statement of `step` has to do with pools; None: it runs on the worker's own connection.

        Raises ReplayError where there is no connection for it to run on.
        """
        config, lock = step.before, step.move.step
        if not self.on_pool(config):
            return None
        inside = None if config.statement is None else config.statement[0]
        if isinstance(lock, Lock) and self._is_pool(lock.reference):
            if inside is not None:
                message = "a unit of a pool is taken by the client, not by a statement; let it be a step of its own"
                raise ReplayError(message, step.move.position)
            return Pooled(take=self.resources[step.move.requests[0].resource].name)
        units = sum(self.resources[hold.resource].capacity is not None for hold in config.held)
        number = inside.connection if inside is not None else getattr(lock, "connection", None)
        if not units:
            message = "this runs before its transaction has a connection; take a unit of the pool first"
            raise ReplayError(message, self.position(step))
        if number is not None and number > units:
            message = f"connection {number} is not there: the transaction has taken {units} by then"
            raise ReplayError(message, self.position(step))
        return Pooled(number=number)

    def _is_pool(self, reference: Reference) -> bool:
        return self.program.families[reference.family].capacity is not None

    def _takes_units(self, transaction: TransactionProgram) -> bool:
        taken = [step.reference for step, _ in _locks(transaction.steps, inside=False)]
        return any(map(self._is_pool, taken))

    def must_find_row(self, sql: str, steps: Sequence[ConcreteStep]) -> bool:
        """Whether `sql`, which makes `steps`, locks rows by them, so that it is not what the model says if it reports 0 rows."""
        requests = [request for step in steps for request in step.move.requests]
        rows = any(self.resources[request.resource].kind.name == "row" for request in requests)
        return rows and tells_of_rows(sql, self.schema.sql if self.schema else "")

    def position(self, step: ConcreteStep) -> Position | None:
        """Where in the spec the statement of `step` stands."""
        inside = step.before.statement
        return step.move.position if inside is None else inside[0].position

    def for_start(self, step: ConcreteStep) -> list[str]:
        """The statements that take what is taken at the start."""
        return [self._default(request, None) for request in step.move.requests]

    def for_release(self, step: ConcreteStep) -> str:
        """The statement that gives back a session lock."""
        release = step.move.step
        assert isinstance(release, Release)
        if release.sql is not None:
            return fill_template(release.sql, dict(step.before.env))
        index = self._index(release.reference, step.before)
        suffix = "_shared" if release.mode == "SHARED" else ""
        return f"SELECT pg_advisory_unlock{suffix}({self.advisory_class}, {index})"

    def _row_request(self, before: Config, lock: Lock) -> Request:
        return Request(self._index(lock.reference, before), lock.mode, lock.wait)

    def _index(self, reference: Reference, before: Config) -> int:
        """The resource that `reference` means with the values at `before`."""
        env = dict(before.env)
        arguments = tuple(evaluate(argument.tree, env) for argument in reference.arguments)
        return next(
            i for i, r in enumerate(self.resources) if r.family == reference.family and r.arguments == arguments
        )

    def _default(self, request: Request, table_mode: str | None) -> str:
        """A statement that takes just the lock of `request`, with the lock's name behind it."""
        return f"{self._bare(request, table_mode)} -- {self.resources[request.resource].name} {request.mode}"

    def _bare(self, request: Request, table_mode: str | None) -> str:
        resource = self.resources[request.resource]
        if request.wait is Wait.TIMEOUT:
            request = replace(request, wait=Wait.BLOCK)
        match resource.kind.name:
            case "table":
                nowait = " NOWAIT" if request.wait is Wait.NOWAIT else ""
                return f"LOCK TABLE {self._table(resource)} IN {request.mode} MODE{nowait}"
            case "row":
                suffix = f" {request.wait}" if request.wait else ""
                table = self._table(resource)
                where = f"WHERE id = {_literal(resource.name)}"
                if table_mode == "ROW EXCLUSIVE" and request.mode == "FOR NO KEY UPDATE" and not request.wait:
                    return f"UPDATE {table} SET touched = touched + 1 {where}"
                select = f"SELECT id FROM {table} {where} {request.mode}{suffix}"
                if table_mode in (None, "ROW SHARE"):
                    return select
                return f"LOCK TABLE {table} IN {table_mode} MODE; {select}"
            case "key":
                # Deleted at once, so that the key is vacant again when the transaction ends; until then its index entry is
                # what others wait for.
                table, key = self._table(resource), _literal(resource.name)
                return f"INSERT INTO {table} (id) VALUES ({key}) ON CONFLICT DO NOTHING; DELETE FROM {table} WHERE id = {key}"
            case "advisory" | "lock":
                attempt = "try_" if request.wait else ""
                scope = "" if resource.session else "xact_"
                suffix = "_shared" if request.mode == "SHARED" else ""
                return f"SELECT pg_{attempt}advisory_{scope}lock{suffix}({self.advisory_class}, {request.resource})"
        raise ReplayError(f"{resource.name} is a pool, a unit of which is taken in a step of its own, not at the start")

    def _table(self, resource: Resource) -> str | None:
        """The table of lockmodel's own that stands for `resource` or holds its row, quoted."""
        if resource.kind.name not in ("table", "row", "key"):
            return None
        family = self.program.families[resource.family]
        if family.table is not None:
            per = self.program.families[family.table].per
            arguments = tuple(resource.arguments[family.per.index(name)] for name in per)
            resource = next(r for r in self.resources if r.family == family.table and r.arguments == arguments)
        name = resource.family if resource.kind.name != "table" else resource.name
        return '"' + f"lockmodel {name}".replace('"', '""') + '"'

    def _families_without_sql(self) -> set[str]:
        """The families whose locks have no SQL in the spec. A row's table goes with the row."""
        given: dict[str, Position] = {}
        missing: dict[str, Position] = {}
        starts: set[str] = set()
        for transaction in self.program.transactions:
            starts |= {reference.family for reference, _ in transaction.take_at_start}
            for step, has_sql in _locks(transaction.steps, inside=False):
                if self._is_pool(step.reference):
                    continue
                if isinstance(step, Lock) and not step.kept and transaction.block and not has_sql:
                    message = (
                        "lockmodel has no statement of its own that waits without taking anything; give this step sql"
                    )
                    raise ReplayError(message, step.position)
                names = [step.reference.family]
                if isinstance(step, Lock) and step.table is not None:
                    names.append(step.table.family)
                for name in names:
                    (given if has_sql else missing).setdefault(name, step.position)
        for name, position in missing.items():
            if name in given:
                raise ReplayError(
                    f"{position}: this step on {quote(name)} has no sql, but the one at {given[name]} has; "
                    "replay needs sql for all steps on a resource, or for none"
                )
        for name in starts & given.keys():
            raise ReplayError(
                f"{given[name]}: {quote(name)} is also taken at start, which has no sql of its own; "
                "replay needs sql for all steps on a resource, or for none"
            )
        return set(missing) | starts


def _locks(block: Block, *, inside: bool) -> Iterator[tuple[Lock | Release, bool]]:
    """Every lock and release in `block`, and whether the spec gives its SQL."""
    for step in block.steps:
        match step:
            case Lock():
                yield step, inside or step.sql is not None
                yield from _locks(step.then, inside=inside)
                if step.otherwise:
                    yield from _locks(step.otherwise, inside=inside)
            case Loop():
                yield from _locks(step.body, inside=inside or step.sql is not None)
            case Either():
                for branch in step.branches:
                    yield from _locks(branch, inside=inside)
            case If():
                yield from _locks(step.then, inside=inside)
                yield from _locks(step.otherwise, inside=inside)
            case Release():
                yield step, step.sql is not None


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
