"""The relations of a spec: tables, with what their foreign keys and triggers lock besides a statement's own rows.

A relation ties together a resource of kind row (its rows), one of kind table (itself), its foreign keys and its triggers. A row or table
that no relation names is a relation of its own, without any. `lockmodel.expansion` turns statements on relations into locks.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from lockmodel.declarations import Declarations, check_identifier, texts
from lockmodel.errors import Position, SpecError, quote, suggestion
from lockmodel.expressions import Expression
from lockmodel.lookup import Lookup, Scope
from lockmodel.program import Family, Reference
from lockmodel.spec import ForeignKey, Relation, Trigger

_MENTION = re.compile(r"\s*([^\W\d]\w*)\s*(\[.*\])?\s*", re.DOTALL)
NO_RELATION = Relation.model_validate({})


@dataclass(frozen=True)
class Table:
    """A relation whose words are known. `parameters`: the names of its rows' elements, each with its set."""

    name: str
    row: Family | None
    table: Family | None
    parameters: Mapping[str, str]
    declared: Relation = NO_RELATION

    @property
    def partitioned(self) -> bool:
        """Whether it has partitions."""
        return bool(self.declared.partitions or self.declared.default_partition)


@dataclass(frozen=True, eq=False)
class Key:
    """A foreign key: number `number` of the spec, from `child` to `parent`."""

    number: int
    child: str
    parent: str
    declared: ForeignKey


@dataclass(frozen=True)
class Target:
    """A relation, and the one of its rows that a statement is about, if that is known.

    `bindings`: what the names of the relation's rows stand for.
    """

    table: Table
    row: Reference | None
    lock: Reference | None
    """The table's resource."""
    bindings: Mapping[str, Expression] = field(default_factory=dict)


class Relations:
    """The relations of `declared.spec`, each checked on its own but for the steps of its triggers. Raises SpecError."""

    def __init__(self, declared: Declarations, lookup: Lookup) -> None:
        self.declared = declared
        self.lookup = lookup
        self.spec = declared.spec
        self._owner: dict[str, str] = {}
        """The relation of a resource."""
        self.tables = {name: self._table(name, relation) for name, relation in self.spec.relations.items()}
        for name, family in declared.families.items():
            if family.kind.name in ("row", "table") and name not in self._owner and name not in self.tables:
                self.tables[name] = self._implicit(name, family)
        self.keys = tuple(self._keys())

    # Declarations

    def _table(self, name: str, relation: Relation) -> Table:
        position = self.spec.at("relations", name)
        check_identifier(name, "relation", position)
        row = self._resource(relation, "row", relation.row)
        table = self._resource(relation, "table", relation.table)
        if row is not None and row.table is not None:
            if table is not None and table.name != row.table:
                message = f"row {row.name} lives in {row.table}, not in {table.name}; drop this key"
                raise SpecError(relation.at("table"), message)
            table = self.declared.families[row.table]
        if row is not None and table is not None and (missing := [per for per in table.per if per not in row.per]):
            message = f"table {table.name} is per {missing[0]}, but row {row.name} is not; add {missing[0]} to its per"
            raise SpecError(relation.at("table"), message)
        for family in (row, table):
            if family is None:
                continue
            if family.name in self._owner:
                message = (
                    f"{family.name} belongs to relation {self._owner[family.name]} already; a resource has one relation"
                )
                raise SpecError(position, message)
            self._owner[family.name] = name
        if name in self.declared.families and name not in [family.name for family in (row, table) if family]:
            kind = self.declared.families[name].kind.name
            hint = f"write `{kind}: {name}`, or " if kind in ("row", "table") else ""
            raise SpecError(
                position, f"{quote(name)} is already the name of a resource; {hint}call the relation something else"
            )
        parameters = {per: per for family in (row, table) if family for per in family.per}
        for value, set_name in relation.values.items():
            where = relation.at("values", value)
            check_identifier(value, "value", where)
            if value in parameters or value in self.declared.variables:
                raise SpecError(where, f"{quote(value)} is already a name here; call the value something else")
            if set_name not in self.declared.sets:
                raise SpecError(where, f"unknown set {quote(set_name)}; {suggestion(set_name, self.declared.sets)}")
        self._check_triggers(relation)
        return Table(name, row, table, {**parameters, **relation.values}, relation)

    def _resource(self, relation: Relation, kind: str, name: str | None) -> Family | None:
        if name is None:
            return None
        known = [family.name for family in self.declared.families.values() if family.kind.name == kind]
        if name not in known:
            raise SpecError(
                relation.at(kind), f"{quote(name)} is not a resource of kind {kind}; {suggestion(name, known)}"
            )
        return self.declared.families[name]

    def _implicit(self, name: str, family: Family) -> Table:
        parameters = {per: per for per in family.per}
        if family.kind.name == "table":
            return Table(name, None, family, parameters)
        # The table may be the one of a relation; a row resource beside that relation's own has none of its keys and triggers.
        return Table(name, family, self.declared.families[family.table] if family.table else None, parameters)

    @staticmethod
    def _check_triggers(relation: Relation) -> None:
        for name, trigger in relation.triggers.items():
            where = relation.at("triggers", name)
            if (trigger.before is None) == (trigger.after is None):
                raise SpecError(
                    where, f"trigger {quote(name)} fires before or after something; give it one of the two keys"
                )
            if trigger.deferred and (trigger.before is not None or trigger.each == "statement"):
                message = "only a trigger after each row can be deferred; drop this key"
                raise SpecError(trigger.at("deferred"), message)
            if trigger.of is not None and "update" not in events_of(trigger):
                raise SpecError(
                    trigger.at("of"),
                    f"`of` is about columns that an update changes; {quote(name)} does not fire for update",
                )

    def _keys(self) -> Iterator[Key]:
        number = 0
        for name in self.spec.relations:
            table = self.tables[name]
            scope = self.scope_of(table)
            for key in table.declared.foreign_keys:
                if key.deferred and (key.on_delete, key.on_update) == ("restrict", "restrict"):
                    raise SpecError(key.at("deferred"), "restrict is never deferred; drop one of them")
                parent = self.target(key.references, scope, key.at("references"))
                if parent.table.partitioned:
                    message = f"{parent.table.name} is partitioned; what a foreign key to it locks is to be written out, with `statement:` and `takes:`"
                    raise SpecError(key.at("references"), message)
                yield Key(number, name, parent.table.name, key)
                number += 1

    @staticmethod
    def scope_of(table: Table, bindings: Mapping[str, Expression] | None = None) -> Scope:
        """What names mean in the foreign keys and triggers of `table`, for a row with `bindings`."""
        return Scope(dict(table.parameters), frozenset(), frozenset(), "", bindings=bindings or {})

    # Mentions

    def referring(self, table: Table) -> Iterator[Key]:
        """The foreign keys that refer to `table`."""
        return (key for key in self.keys if key.parent == table.name)

    def partitioned(self, lock: Reference) -> Table | None:
        """The relation that has the table `lock` among its partitions."""
        for table in self.tables.values():
            if any(partition.family == lock.family for partition in self.partitions(table)):
                return table
        return None

    def named(self, text: str, position: Position) -> tuple[Table, str]:
        """The relation that `text` names, by its own name or that of its row or table; second, what stands in brackets behind it."""
        match = _MENTION.fullmatch(text)
        name = match.group(1) if match else text
        owner = self._owner.get(name, name)
        if not match or owner not in self.tables:
            known = [
                *self.spec.relations,
                *(name for name in self.tables if name not in self.spec.relations),
                *self._owner,
            ]
            raise SpecError(position, f"unknown relation {quote(name)}; {suggestion(name, known)}")
        return self.tables[owner], match.group(2) or ""

    def target(self, text: str, scope: Scope, position: Position) -> Target:
        """The row that `text` mentions, or the relation where it has no rows of a name."""
        table, brackets = self.named(text, position)
        family = table.row or table.table
        if family is None:
            if brackets:
                raise SpecError(position, f"{quote(text)}: relation {table.name} has no row; write {table.name}")
            return Target(table, None, None)
        mention = self.lookup.reference(family.name + brackets, scope, position)
        bindings = dict(zip(family.per, mention.arguments, strict=True))
        lock = None
        if table.table is not None:
            arguments = tuple(bindings[per] for per in table.table.per)
            lock = Reference(table.table.name, arguments, shown(table.table.name, arguments), position)
        return Target(table, mention if table.row is not None else None, lock, bindings)

    def whole(self, text: str, scope: Scope, position: Position) -> Target:
        """The relation that `text` mentions, for a statement on the table as such."""
        table, brackets = self.named(text, position)
        if table.table is None:
            if brackets:
                raise SpecError(position, f"{quote(text)}: relation {table.name} has no table; write {table.name}")
            return Target(table, None, None)
        lock = self.lookup.reference(table.table.name + brackets, scope, position)
        return Target(table, None, lock, dict(zip(table.table.per, lock.arguments, strict=True)))

    def somewhere(self, table: Table, position: Position) -> Target:
        """`table` as a whole, where no statement mentions it."""
        if table.table is not None and table.table.per:
            message = f"this also locks {table.table.name}, and does not tell which of them; write the locks with `statement:` and `takes:`"
            raise SpecError(position, message)
        return self.whole(table.name, Scope({}, frozenset(), frozenset(), ""), position)

    def partitions(self, table: Table) -> Iterator[Reference]:
        """The partitions of `table`, the default one last."""
        default = self.default_partition(table)
        scope = Scope({}, frozenset(), frozenset(), "")
        for index, text in enumerate(table.declared.partitions):
            position = table.declared.at("partitions", index)
            if text == table.declared.default_partition:
                continue
            family = self.declared.families.get(text.strip())
            if family is None or not family.per:
                yield self._partition(text, scope, position)
                continue
            # A whole family of tables.
            for elements in itertools.product(*(self.declared.sets[per] for per in family.per)):
                mention = f"{family.name}[{', '.join(texts(elements))}]"
                yield self._partition(mention, scope, position)
        if default is not None:
            yield default

    def default_partition(self, table: Table) -> Reference | None:
        """The default partition of `table`, if the spec names one."""
        text = table.declared.default_partition
        if text is None:
            return None
        return self._partition(text, Scope({}, frozenset(), frozenset(), ""), table.declared.at("default partition"))

    def partition(self, table: Table, text: str, scope: Scope, position: Position) -> Reference:
        """The one partition of `table` that `text` mentions."""
        known = [partition.family for partition in self.partitions(table)]
        mention = self._partition(text, scope, position)
        if mention.family not in known:
            raise SpecError(
                position, f"{mention.family} is no partition of {table.name}; {suggestion(mention.family, known)}"
            )
        return mention

    def _partition(self, text: str, scope: Scope, position: Position) -> Reference:
        mention = self.lookup.reference(text, scope, position)
        if self.declared.families[mention.family].kind.name != "table":
            known = [name for name, family in self.declared.families.items() if family.kind.name == "table"]
            message = f"{quote(mention.family)} is not a resource of kind table; {suggestion(mention.family, known)}"
            raise SpecError(position, message)
        return mention


def shown(name: str, arguments: tuple[Expression, ...]) -> str:
    """A resource as a spec mentions it."""
    return f"{name}[{', '.join(argument.text for argument in arguments)}]" if arguments else name


def events_of(trigger: Trigger) -> list[str]:
    """The statements that `trigger` fires for."""
    events = trigger.before or trigger.after or []
    return [events] if isinstance(events, str) else [*events]
