"""Real code as the target of a replay, and what the resources of a spec are in its database.

A target is any callable that `replay: {target: package.module:name}` names. It is called with `schema=` and the spec's `options`, and gives
an object with a coroutine `set_up(connect)` and one coroutine for each operation, `operation(connect, **arguments)`, where
`async with connect() as connection` gives the worker's psycopg connection. The code behind it knows nothing of lockmodel.
"""

from __future__ import annotations

import fnmatch
import importlib
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

from psycopg import AsyncConnection

from lockmodel.errors import Position, ReplayError, SpecError, one_line, quote, suggestion
from lockmodel.modes import SHARED
from lockmodel.program import Program
from lockmodel.replay.comparison import Taken
from lockmodel.replay.observe import SeenLock
from lockmodel.spec import Call, ResourceFamily, Spec
from lockmodel.system import Resource
from lockmodel.templates import fill_template

Value = int | str | bool
Connect = Callable[[], AbstractAsyncContextManager[AsyncConnection[Any]]]
ORDINARY = ("ACCESS SHARE", "ROW SHARE", "ROW EXCLUSIVE")
"""How statements on rows take the table: no news where the spec speaks of the rows."""


class Target(Protocol):
    """What a target gives; its operations are further coroutines."""

    async def set_up(self, connect: Connect) -> None:
        """Make the tables and whatever the operations need to have something to do."""


def load_target(spec: Spec, schema: str) -> Target:
    """The target of `spec`, for the schema `schema`. Raises SpecError or ReplayError."""
    assert spec.replay is not None
    module_name, colon, name = spec.replay.target.partition(":")
    position = spec.replay.at("target")
    if not colon or not module_name or not name:
        raise SpecError(position, f"{quote(spec.replay.target)} is no target; write package.module:name")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        made: Any = importlib.import_module(module_name)
        for part in name.split("."):
            made = getattr(made, part)
        target: Target = made(schema=schema, **spec.replay.options)
    except Exception as error:  # Whatever the user's own code raises, the user must see.
        raise ReplayError(
            f"{position}: the target {quote(spec.replay.target)} can't be made: {one_line(repr(error), 200)}"
        ) from None
    return target


def operation(
    target: Target, call: Call, values: Mapping[str, Value], connect: Connect
) -> Callable[[], Awaitable[object]]:
    """The operation that `call` means with the parameters `values`. Raises SpecError if the target has none of that name."""
    method = getattr(target, call.operation, None)
    if call.operation.startswith("_") or not callable(method):
        known = [name for name in dir(target) if not name.startswith("_") and name != "set_up"]
        raise SpecError(
            call.at("operation"),
            f"the target has no operation {quote(call.operation)}; {suggestion(call.operation, known)}",
        )
    arguments = {name: _argument(value, values) for name, value in call.arguments.items()}
    return lambda: method(connect, **arguments)


def _argument(value: Value, values: Mapping[str, Value]) -> Value:
    """`{s}` alone keeps the type of the parameter; inside a longer text it is text."""
    if not isinstance(value, str):
        return value
    whole = value.strip()
    if whole.startswith("{") and whole.endswith("}") and whole[1:-1].strip() in values:
        return values[whole[1:-1].strip()]
    return fill_template(value, values)


class Bindings:
    """Which resource of the spec a lock in the database is. Raises SpecError for a resource that is not told.

    A `lock` stands for the change of a row: EXCLUSIVE is held by who has changed it and has not committed yet, SHARED waits
    for that without taking anything.

    With `own`, for a spec whose statements are SQL, nothing need be told: `own` gives the places of resources that lockmodel's
    statements lock, the table (and the row's id) or the advisory key.
    """

    def __init__(
        self,
        spec: Spec,
        program: Program,
        resources: tuple[Resource, ...],
        own: Mapping[str, tuple[str, str | None]] | None = None,
    ) -> None:
        self._ignored = spec.replay.ignore if spec.replay else []
        self._tables: dict[str, str] = {}
        self._rows: dict[str, list[tuple[dict[str, str], str]]] = {}
        self._changes: dict[str, list[tuple[dict[str, str], str]]] = {}
        self._advisory: dict[str, str] = {}
        self._places: dict[str, Position] = {}
        self.told: frozenset[str] = frozenset()
        """The resources that are known in the database."""
        for resource in resources:
            declared = spec.resources[resource.family]
            elements = dict(zip(program.families[resource.family].per, resource.arguments, strict=True))
            if own and resource.name in own:
                self._bind_own(resource, declared, *own[resource.name])
            elif own is None or (declared.stands_for is not None and declared.kind not in ("key", "pool")):
                self._bind(resource, declared, elements)
            else:
                continue
            self.told |= {resource.name}

    @property
    def row_tables(self) -> Mapping[str, Position]:
        """The tables whose rows the spec speaks of, each with where it does so."""
        return {table: self._places[table] for table in (*self._rows, *self._changes)}

    def seen(self, taken: Taken) -> bool:
        """Whether `taken` leaves something to be seen in the database; waiting for a change does not."""
        return taken.mode != SHARED or not any(taken.resource == name for _, name in chain(*self._changes.values()))

    def _bind_own(self, resource: Resource, declared: ResourceFamily, name: str, row: str | None) -> None:
        if row is not None:
            self._places.setdefault(name, declared.at())
            self._rows.setdefault(name, []).append(({"id": row}, resource.name))
        elif resource.kind.name == "table":
            self._tables[name] = resource.name
        else:
            self._advisory[name] = resource.name

    def knows_table(self, name: str) -> bool:
        """Whether the table `name` is one of the spec's resources."""
        return name in self._tables

    def _bind(self, resource: Resource, declared: ResourceFamily, elements: Mapping[str, Value]) -> None:
        told = declared.stands_for
        kind = resource.kind.name
        rows = "relation and row"
        wanted = {"table": "relation", "row": rows, "lock": rows, "advisory": "key"}.get(kind)
        if wanted is None:
            raise SpecError(declared.at("kind"), f"{resource.family}: a {kind} can't be compared with real locks")
        if told is None or (kind == "advisory" and told.key is None) or (kind != "advisory" and told.relation is None):
            message = f"{resource.family} does not say what it is in the database: stands for: {{{wanted}: …}}"
            raise SpecError(declared.at("stands for"), message)
        if kind == "advisory":
            self._advisory[fill_template(str(told.key), elements).replace(" ", "")] = resource.name
            return
        relation = fill_template(str(told.relation), elements)
        if kind == "table":
            self._tables[relation] = resource.name
        else:
            what = "a row" if kind == "row" else "the change of a row"
            if not told.row:
                raise SpecError(
                    told.at(),
                    f"{resource.family} is {what}; tell its key: stands for: {{relation: …, row: {{column: …}}}}",
                )
            columns = {column: fill_template(str(value), elements) for column, value in told.row.items()}
            self._places.setdefault(relation, told.at())
            bound = self._rows if kind == "row" else self._changes
            bound.setdefault(relation, []).append((columns, resource.name))

    def taken(self, lock: SeenLock) -> Taken | None:
        """`lock` in the words of the spec; None if the spec leaves it out on purpose."""
        if any(fnmatch.fnmatchcase(lock.name, pattern) for pattern in self._ignored):
            return None
        match lock.kind:
            case "table":
                if lock.name in self._tables:
                    return Taken(self._tables[lock.name], lock.mode)
                if lock.name in self.row_tables and lock.mode in ORDINARY:
                    return None
                return Taken(f"table {lock.name}", lock.mode)
            case "change":
                # Where the spec does not speak of changes, the row's lock says enough.
                changed = self._matching(lock, self._changes)
                return Taken(changed, lock.mode) if changed else None
            case "row":
                if name := self._matching(lock, self._rows):
                    return Taken(name, lock.mode)
                return Taken(f"row {lock.name} {', '.join(f'{c}={v}' for c, v in lock.row)}", lock.mode)
        if lock.name in self._advisory:
            return Taken(self._advisory[lock.name], lock.mode)
        return Taken(f"advisory {lock.name}", lock.mode)

    def _matching(self, lock: SeenLock, bound: Mapping[str, list[tuple[dict[str, str], str]]]) -> str | None:
        """The resource that stands for the row of `lock`. Raises SpecError if it is told by a column that is not in the row's key."""
        key = dict(lock.row)
        if key.keys() == {"ctid"}:
            return None  # Without a primary key nobody can tell which row it is.
        for columns, name in bound.get(lock.name, ()):
            for column in columns.keys() - key.keys():
                message = f"{quote(column)} is no column of the primary key of {lock.name}; {suggestion(column, key)}"
                raise SpecError(self._places[lock.name], message)
            if all(key[column] == value for column, value in columns.items()):
                return name
        return None
