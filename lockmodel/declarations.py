"""What a spec declares: its sets, variables, resources and roles, each checked on its own.

Everything that is looked up elsewhere is found here. Raises SpecError for a declaration that has no meaning.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable

from lockmodel.errors import Position, SpecError, quote, suggestion
from lockmodel.expressions import Value, same
from lockmodel.modes import KINDS
from lockmodel.program import Family, RoleProgram
from lockmodel.spec import Elements, Spec
from lockmodel.system import Status

_ELEMENT = re.compile(r"^[\w#.-]+$")
_RESERVED = {*keyword.kwlist, "w", "count", "any", "all", "true", "false", "for", "either", "if", "set", "savepoint", "release",
             "then", "do", "sql", "label", "mode", "order"}  # fmt: skip
# A local variable is only ever read in formulas, where these words are free.
LOCAL_RESERVED = _RESERVED - {"mode", "label", "order", "sql", "then", "do", "set", "release", "savepoint", "either"}


class Declarations:
    """The declarations of `spec`.

    `sets` and `variables`: name → elements; `initial`: variable → value; `families`: the resources; `words`: what a bare word in a formula may
    stand for besides a name.
    """

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.sets = {name: _elements(elements, spec.at("sets", name)) for name, elements in spec.sets.items()}
        self._check_names()
        self.variables = {
            name: _elements(variable.values, variable.at("values")) for name, variable in spec.variables.items()
        }
        self.initial = {name: self._initial(name) for name in spec.variables}
        self.families = {name: self._family(name) for name in spec.resources}
        self._check_tables()
        self.words = self._words()
        self.roles = self._roles()

    def _check_names(self) -> None:
        seen: dict[str, str] = {}
        declared = (("set", "sets", self.spec.sets), ("variable", "variables", self.spec.variables),
                    ("resource", "resources", self.spec.resources))  # fmt: skip
        for what, section, names in declared:
            for name in names:
                position = self.spec.at(section, name)
                check_identifier(name, what, position)
                if name in seen and {what, seen[name]} != {"set", "resource"}:
                    raise SpecError(position, f"{quote(name)} is already the name of a {seen[name]}")
                seen.setdefault(name, what)

    def _initial(self, name: str) -> Value:
        variable, values = self.spec.variables[name], self.variables[name]
        if variable.initial is None:
            return values[0]
        if not any(same(variable.initial, value) for value in values):
            hint = suggestion(str(variable.initial), texts(values))
            raise SpecError(
                variable.at("initial"), f"{quote(variable.initial)} is not a value of variable {name}; {hint}"
            )
        return variable.initial

    def _family(self, name: str) -> Family:
        declared = self.spec.resources[name]
        kind = KINDS[declared.kind]
        for index, per in enumerate(declared.per):
            if per not in self.sets:
                raise SpecError(declared.at("per", index), f"unknown set {quote(per)}; {suggestion(per, self.sets)}")
            if per in declared.per[:index]:
                raise SpecError(declared.at("per", index), f"set {quote(per)} stands twice in the per of {name}")
        if declared.table is not None and kind.name != "row":
            raise SpecError(declared.at("table"), f"only a row lives in a table; {name} is of kind {kind.name}")
        if declared.scope != "transaction" and kind.name != "advisory":
            raise SpecError(declared.at("scope"), f"only advisory locks have a scope; {name} is of kind {kind.name}")
        if kind.counted and declared.size is None:
            raise SpecError(declared.at(), f"the pool {name} needs a size: how many units it has")
        if declared.size is not None and not kind.counted:
            raise SpecError(declared.at("size"), f"only a pool has a size; {name} is of kind {kind.name}")
        return Family(
            name, kind, tuple(declared.per), declared.table, declared.scope == "session", declared.size, declared.at()
        )

    def _check_tables(self) -> None:
        tables = [name for name, family in self.families.items() if family.kind.name == "table"]
        for name, family in self.families.items():
            if family.table is None:
                continue
            position = self.spec.resources[name].at("table")
            if family.table not in tables:
                hint = suggestion(family.table, tables)
                raise SpecError(position, f"{quote(family.table)} is not a resource of kind table; {hint}")
            missing = [per for per in self.families[family.table].per if per not in family.per]
            if missing:
                raise SpecError(position, f"table {family.table} is per {missing[0]}, but row {name} is not")

    def _words(self) -> frozenset[str]:
        """What a bare word in a formula may stand for besides a name: itself, if it is one of these."""
        values = [*self.sets.values(), *self.variables.values()]
        words = {str(value) for elements in values for value in elements if isinstance(value, str)}
        return frozenset(words | set(self.spec.transactions) | set(self.spec.roles) | {"true", "false"} | set(Status))

    def _roles(self) -> tuple[RoleProgram, ...]:
        spec, transactions = self.spec, tuple(self.spec.transactions)
        if not spec.roles:
            count = None if spec.workers in (None, "any") else int(spec.workers)
            return (RoleProgram("worker", count, transactions),)
        if spec.workers is not None:
            raise SpecError(spec.at("workers"), "workers and roles exclude each other; a role has a count of its own")
        for role in spec.roles.values():
            for index, transaction in enumerate(role.runs):
                if transaction not in spec.transactions:
                    hint = suggestion(transaction, transactions)
                    raise SpecError(role.at("runs", index), f"unknown transaction {quote(transaction)}; {hint}")
        return tuple(
            RoleProgram(name, None if role.count == "any" else int(role.count), tuple(dict.fromkeys(role.runs)))
            for name, role in spec.roles.items()
        )


def _elements(declared: Elements, position: Position) -> tuple[Value, ...]:
    if isinstance(declared, int):
        return tuple(range(declared))
    for index, value in enumerate(declared):
        if not _ELEMENT.match(str(value)):
            raise SpecError(
                position, f"the element {quote(value)} has characters other than letters, digits and _ # . -"
            )
        if any(str(value) == str(other) for other in declared[:index]):
            raise SpecError(position, f"the element {quote(value)} stands there twice")
    return tuple(declared)


def texts(values: Iterable[Value]) -> list[str]:
    return [str(value).lower() if isinstance(value, bool) else str(value) for value in values]


def check_identifier(name: str, what: str, position: Position, reserved: Iterable[str] = _RESERVED) -> None:
    if not name.isidentifier():
        raise SpecError(position, f"{quote(name)} can't name a {what}: letters, digits and _ only, no digit first")
    if name in reserved:
        raise SpecError(position, f"{quote(name)} can't name a {what}: it is a word of the language")
