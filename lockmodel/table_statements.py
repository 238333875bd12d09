"""The locks of statements on tables as such: TRUNCATE, ALTER TABLE, partitions, and other DDL."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from lockmodel.effects import lock, table_lock
from lockmodel.errors import Position, SpecError, quote, suggestion
from lockmodel.fields import as_list
from lockmodel.lookup import Scope
from lockmodel.program import Reference, Step
from lockmodel.relations import Relations, Target
from lockmodel.statements import AlterStep, AttachStep, CommandStep, DetachStep, TruncateStep
from lockmodel.table_modes import (
    ACCESS_EXCLUSIVE,
    ACCESS_SHARE,
    ALTER,
    COMMAND,
    OTHER,
    ROW_SHARE,
    SHARE,
    SHARE_ROW_EXCLUSIVE,
    SHARE_UPDATE_EXCLUSIVE,
    VARIES,
    Modes,
)


class TableStatements:
    """The statements on `relations`, for one that stands at `position`. Raises SpecError for one that has no meaning."""

    def __init__(self, relations: Relations, position: Position) -> None:
        self.relations = relations
        self._position = position

    def steps(
        self, step: TruncateStep | AlterStep | AttachStep | DetachStep | CommandStep, scope: Scope
    ) -> Iterator[Step]:
        """The locks of `step`, in order."""
        match step:
            case TruncateStep():
                yield from self._truncate(step, scope)
            case AlterStep():
                yield from self._alter(step, scope)
            case AttachStep():
                yield from self._attach(step, scope)
            case DetachStep():
                yield from self._detach(step, scope)
            case CommandStep():
                yield from self._command(step, scope)

    def _truncate(self, step: TruncateStep, scope: Scope) -> Iterator[Step]:
        targets = []
        for number, text in enumerate(as_list(step.truncate)):
            where = step.at("truncate", number) if isinstance(step.truncate, list) else step.at("truncate")
            targets.append(self.relations.whole(text, scope, where))
        names = [target.table.name for target in targets]
        for target in targets:
            for key in self.relations.referring(target.table):
                if key.child in names:
                    continue
                if not step.cascade:
                    message = f"{key.child} refers to {target.table.name}, so that Postgres refuses; truncate it too, or write `cascade: true`"
                    raise SpecError(step.at("truncate"), message)
                names.append(key.child)
                # `heap_truncate_find_FKs` goes on with what refers to these.
                targets.append(self.relations.somewhere(self.relations.tables[key.child], step.at("truncate")))
        leaves: list[Reference] = []
        for target in targets:
            yield from self._table(target, ACCESS_EXCLUSIVE)
            partitions = [*self.relations.partitions(target.table)]
            yield from (self._lock(partition, ACCESS_EXCLUSIVE) for partition in partitions)
            leaves += partitions if target.table.partitioned else [target.lock] if target.lock else []
        # The indexes are made anew (`reindex_relation` in catalog/index.c).
        yield from (self._lock(leaf, SHARE) for leaf in leaves)

    def _alter(self, step: AlterStep, scope: Scope) -> Iterator[Step]:
        target = self.relations.whole(step.alter_table, scope, step.at("alter table"))
        action = " ".join(step.action.lower().split())
        if action not in ALTER:
            raise SpecError(
                step.at("action"), f"unknown action {quote(step.action)}; {suggestion(action, ALTER, show=len(ALTER))}"
            )
        modes = ALTER[action]
        refers = any(which == OTHER for which, _ in modes.then)
        if step.references is not None and not refers:
            raise SpecError(step.at("references"), f"`{action}` refers to no other relation; drop this key")
        if step.references is None and action.startswith("add foreign key"):
            raise SpecError(step.at("action"), f"`{action}` needs `references:`, the relation that it refers to")
        if (action in VARIES or step.references) and target.table.partitioned:
            message = f"how `{action}` locks partitions depends on the version of Postgres; write the locks with `statement:` and `takes:`"
            raise SpecError(step.at("action"), message)
        other = None
        if step.references is not None:
            other = self.relations.whole(step.references, scope, step.at("references"))
        yield from self._whole_table(target, replace(modes, then=()) if refers and other is None else modes, other)

    def _command(self, step: CommandStep, scope: Scope) -> Iterator[Step]:
        command, text = step.command
        target = self.relations.whole(text, scope, step.at(command))
        if command == "create partition of":
            # DefineRelation, and CloneForeignKeyConstraints for the partition's foreign keys.
            yield from self._table(target, ACCESS_EXCLUSIVE)
            yield from self._default(target, ACCESS_EXCLUSIVE)
            for parent in self._referenced(target, step.at(command)):
                for mode in (SHARE_ROW_EXCLUSIVE, ACCESS_SHARE):
                    yield from self._table(parent, mode)
        elif command == "drop table":
            yield from self._drop(target, step.at(command))
        elif command == "drop trigger":
            if target.table.partitioned:
                message = "`drop trigger` locks partitions in no order of theirs; write the locks with `statement:` and `takes:`"
                raise SpecError(step.at(command), message)
            # First it is looked for (get_object_address_relobject in catalog/objectaddress.c).
            yield from self._table(target, ACCESS_SHARE)
            yield from self._table(target, ACCESS_EXCLUSIVE)
        else:
            if command == "reindex table" and target.table.partitioned:
                message = "Postgres does not reindex a partitioned table inside a transaction; reindex its partitions"
                raise SpecError(step.at(command), message)
            yield from self._whole_table(target, COMMAND[command])

    def _drop(self, target: Target, position: Position) -> Iterator[Step]:
        # RangeVarCallbackForDropRelation locks the parent of a partition first. Foreign keys go with their triggers on the
        # other table (RemoveTriggerById), but those of a partition belong to its parent.
        parent = self.relations.partitioned(target.lock) if target.lock is not None else None
        if parent is not None:
            around = self.relations.somewhere(parent, position)
            yield from self._table(around, ACCESS_EXCLUSIVE)
            yield from self._table(target, ACCESS_EXCLUSIVE)
            yield from self._default(around, ACCESS_EXCLUSIVE)
            return
        yield from self._whole_table(target, Modes(ACCESS_EXCLUSIVE, partitions=True))
        for other in self._referenced(target, position):
            yield from self._table(other, ACCESS_EXCLUSIVE)
        for key in self.relations.referring(target.table):
            yield from self._table(
                self.relations.somewhere(self.relations.tables[key.child], position), ACCESS_EXCLUSIVE
            )

    def _attach(self, step: AttachStep, scope: Scope) -> Iterator[Step]:
        around = self.relations.whole(step.to, scope, step.at("to"))
        partition = self.relations.whole(step.attach_partition, scope, step.at("attach partition"))
        yield from self._table(around, SHARE_UPDATE_EXCLUSIVE)
        yield from self._default(around, ACCESS_EXCLUSIVE)
        yield from self._table(partition, ACCESS_EXCLUSIVE)
        parents = self._referenced(around, step.at("to"))
        for parent in parents:
            yield from self._table(parent, SHARE_ROW_EXCLUSIVE)
        # The partition's rows are then checked against each foreign key (RI_Initial_Check).
        for parent in parents:
            yield from self._table(partition, SHARE_ROW_EXCLUSIVE)
            yield from self._table(parent, ROW_SHARE)
            yield from self._table(partition, ACCESS_SHARE)
            yield from self._table(parent, ACCESS_SHARE)

    def _detach(self, step: DetachStep, scope: Scope) -> Iterator[Step]:
        around = self.relations.whole(step.source, scope, step.at("from"))
        partition = self.relations.whole(step.detach_partition, scope, step.at("detach partition"))
        yield from self._table(around, ACCESS_EXCLUSIVE)
        yield from self._default(around, ACCESS_EXCLUSIVE)
        yield from self._table(partition, ACCESS_EXCLUSIVE)
        # The partition gets foreign keys of its own (DetachPartitionFinalize).
        for parent in self._referenced(around, step.at("from")):
            yield from self._table(parent, SHARE_ROW_EXCLUSIVE)
            yield from self._table(partition, ACCESS_SHARE)

    def _whole_table(self, target: Target, modes: Modes, other: Target | None = None) -> Iterator[Step]:
        yield from self._table(target, modes.own)
        partitions = [*self.relations.partitions(target.table)] if modes.partitions else []
        yield from (self._lock(partition, modes.own) for partition in partitions)
        for which, mode in modes.then:
            if which == OTHER:
                yield from self._table(other, mode) if other is not None else ()
            elif partitions:
                yield from (self._lock(partition, mode) for partition in partitions)
            else:
                yield from self._table(target, mode)

    def _referenced(self, target: Target, position: Position) -> list[Target]:
        """The tables that the foreign keys of `target` refer to."""
        names = dict.fromkeys(key.parent for key in self.relations.keys if key.child == target.table.name)
        return [self.relations.somewhere(self.relations.tables[name], position) for name in names]

    def _default(self, target: Target, mode: str) -> list[Step]:
        partition = self.relations.default_partition(target.table)
        return [self._lock(partition, mode)] if partition is not None else []

    def _lock(self, reference: Reference, mode: str) -> Step:
        return lock(reference, mode, self._position)

    def _table(self, target: Target, mode: str) -> list[Step]:
        return table_lock(target, mode, self._position)
