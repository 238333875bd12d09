"""What a spec declares: its sets, variables, resources and roles, each checked on its own.

Everything that is looked up elsewhere is found here. Raises SpecError for a declaration that has no meaning.
"""

from __future__ import annotations

import keyword
import unicodedata
from collections.abc import Iterable

from lockmodel.document import Node
from lockmodel.errors import Position, SpecError, quote, suggestion
from lockmodel.expressions import Value, same
from lockmodel.fields import Elements, check_elements
from lockmodel.modes import KINDS
from lockmodel.program import Family, RoleProgram
from lockmodel.spec import Spec
from lockmodel.system import Status

MAX_RESOURCES = 100_000
MAX_SET_ELEMENTS = 100_000
"""In all sets together."""
MAX_VALUATIONS = 4096
MAX_VARIABLES = 64
RESERVED = {*keyword.kwlist, "w", "count", "any", "all", "true", "false", "for", "either", "if", "set", "savepoint", "release", "statement",
             "then", "do", "sql", "label", "mode", "order", "until", "insert", "update", "delete", "select", "truncate"}  # fmt: skip
# A local variable is only ever read in formulas, where these words are free.
LOCAL_RESERVED = RESERVED - {
    "mode",
    "label",
    "order",
    "sql",
    "then",
    "do",
    "set",
    "release",
    "savepoint",
    "either",
    "statement",
    "until",
    "insert",
    "update",
    "delete",
    "select",
    "truncate",
}


class Declarations:
    """The declarations of `spec`.

    `sets` and `variables`: name → elements; `initial`: variable → value; `families`: the resources; `words`: what a bare word in a formula may
    stand for besides a name.
    """

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self._check_sets()
        self.sets = {name: _elements(elements, spec, "sets", name) for name, elements in spec.sets.items()}
        self._check_names()
        self.variables = {
            name: _elements(variable.values, variable, "values") for name, variable in spec.variables.items()
        }
        self.initial = {name: self._initial(name) for name in spec.variables}
        self._check_valuations()
        self.families = {name: self._family(name) for name in spec.resources}
        self._check_tables()
        self._check_size()
        self.words = self._words()
        self.roles = self._roles()

    def _check_sets(self) -> None:
        total = 0
        for name, elements in self.spec.sets.items():
            total += elements if isinstance(elements, int) else len(elements)
            if total > MAX_SET_ELEMENTS:
                message = (
                    f"with {name}, the sets have more than {MAX_SET_ELEMENTS:,} elements in all; make them smaller"
                )
                raise SpecError(self.spec.at("sets", name), message)

    def _check_names(self) -> None:
        seen: dict[str, str] = {}
        declared = (("set", "sets", self.spec.sets), ("variable", "variables", self.spec.variables),
                    ("resource", "resources", self.spec.resources))  # fmt: skip
        for what, section, names in declared:
            for name in names:
                position = self.spec.at(section, name)
                check_identifier(name, what, position)
                if name in seen and {what, seen[name]} != {"set", "resource"}:
                    message = f"{quote(name)} is already the name of a {seen[name]}; call this {what} something else"
                    raise SpecError(position, message)
                seen.setdefault(name, what)

    def _check_valuations(self) -> None:
        """Refuse more states of the shared variables than an engine can have tables for."""
        names = list(self.variables)
        if len(names) > MAX_VARIABLES:
            position = self.spec.at("variables", names[MAX_VARIABLES])
            raise SpecError(position, f"{len(names):,} variables; the most is {MAX_VARIABLES}")
        valuations = 1
        for name in names:
            valuations *= len(self.variables[name])
            if valuations > MAX_VALUATIONS:
                message = f"with {name}, the variables have more than {MAX_VALUATIONS:,} combinations of values, the most that there may be"
                raise SpecError(self.spec.at("variables", name), message)

    def _check_size(self) -> None:
        total = 0
        for name, family in self.families.items():
            size = 1
            for per in family.per:
                size *= len(self.sets[per])
                if size > MAX_RESOURCES:
                    break
            total += size
            if total > MAX_RESOURCES:
                reason = f"{name} alone" if size > MAX_RESOURCES else f"with {name}, the spec"
                message = f"{reason} has more than {MAX_RESOURCES:,} resources, the most that there may be; make a set smaller"
                raise SpecError(self.spec.at("resources", name), message)

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
        seen: set[str] = set()
        for index, per in enumerate(declared.per):
            if per not in self.sets:
                raise SpecError(declared.at("per", index), f"unknown set {quote(per)}; {suggestion(per, self.sets)}")
            if per in seen:
                raise SpecError(
                    declared.at("per", index), f"set {quote(per)} stands twice in the per of {name}; drop one"
                )
            seen.add(per)
        if declared.table is not None and kind.name != "row":
            raise SpecError(
                declared.at("table"), f"only a row lives in a table; {name} is of kind {kind.name}; drop the table"
            )
        if declared.scope != "transaction" and kind.name != "advisory":
            raise SpecError(
                declared.at("scope"), f"only advisory locks have a scope; {name} is of kind {kind.name}; drop the scope"
            )
        if kind.counted and declared.size is None:
            raise SpecError(declared.at(), f"the pool {name} needs a size, as in size: 10 (how many units it has)")
        if declared.size is not None and not kind.counted:
            raise SpecError(
                declared.at("size"), f"only a pool has a size; {name} is of kind {kind.name}; drop the size"
            )
        return Family(
            name, kind, tuple(declared.per), declared.table, declared.scope == "session", declared.size, declared.at()
        )

    def _check_tables(self) -> None:
        tables = {name: family for name, family in self.families.items() if family.kind.name == "table"}
        for name, family in self.families.items():
            if family.table is None:
                continue
            position = self.spec.resources[name].at("table")
            if family.table not in tables:
                hint = suggestion(family.table, tables)
                raise SpecError(position, f"{quote(family.table)} is not a resource of kind table; {hint}")
            missing = [per for per in self.families[family.table].per if per not in family.per]
            if missing:
                message = (
                    f"table {family.table} is per {missing[0]}, but row {name} is not; add {missing[0]} to its per"
                )
                raise SpecError(position, message)

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
            raise SpecError(
                spec.at("workers"), "workers and roles exclude each other; give each role a count, and drop workers"
            )
        for role in spec.roles.values():
            for index, transaction in enumerate(role.runs):
                if transaction not in spec.transactions:
                    hint = suggestion(transaction, transactions)
                    raise SpecError(role.at("runs", index), f"unknown transaction {quote(transaction)}; {hint}")
        run = {transaction for role in spec.roles.values() for transaction in role.runs}
        for transaction in transactions:
            if transaction not in run:
                message = (
                    f"no role runs transaction {quote(transaction)}, so it would not be checked; "
                    "add it to the runs of one, or delete it"
                )
                raise SpecError(spec.at("transactions", transaction), message)
        return tuple(
            RoleProgram(name, None if role.count == "any" else int(role.count), tuple(dict.fromkeys(role.runs)))
            for name, role in spec.roles.items()
        )


def _elements(declared: Elements, node: Node, *path: str) -> tuple[Value, ...]:
    if isinstance(declared, int):
        return tuple(range(declared))
    if fault := check_elements(declared):
        index, message = fault
        raise SpecError(node.at(*path, index), f"the element {message}")
    return tuple(declared)


def texts(values: Iterable[Value]) -> list[str]:
    return [str(value).lower() if isinstance(value, bool) else str(value) for value in values]


def check_identifier(name: str, what: str, position: Position, reserved: Iterable[str] = RESERVED) -> None:
    # A formula is read by Python's grammar, which takes an identifier for its normal form.
    if not name.isidentifier() or unicodedata.normalize("NFKC", name) != name:
        raise SpecError(position, f"{quote(name)} can't name a {what}: letters, digits and _ only, no digit first")
    if name in reserved:
        raise SpecError(position, f"{quote(name)} can't name a {what}: it is a word of the language; choose another")
