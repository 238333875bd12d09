"""The locks of statements on tables as such: TRUNCATE, ALTER TABLE, partitions, and other DDL."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from lockmodel.effects import lock, table_lock
from lockmodel.errors import Position, SpecError, quote, suggestion
from lockmodel.fields import as_list
from lockmodel.lookup import Scope
from lockmodel.partitions import Move, Moved, Moves
from lockmodel.program import Block, Either, Reference, Step
from lockmodel.relations import Key, Relations, Table, Target
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

    def __init__(self, relations: Relations, moves: Moves, moved: Moved, position: Position) -> None:
        self.relations = relations
        self.moves = moves
        self.moved = moved
        """What the transaction has attached and detached; `steps` goes on with it."""
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
        move = self.moved.of(target.lock)
        if move is not None:
            parents = [self.relations.tables[move.around] if move.attached else None]
        else:
            declared = self.relations.partitioned(target.lock) if target.lock is not None else None
            parents = self.moves.parents(target.lock, declared)
        yield from self._one_of(
            [
                self._drop_table(target, position) if one is None else self._drop_partition(target, one, position)
                for one in parents
            ]
        )

    def _drop_partition(self, target: Target, parent: Table, position: Position) -> list[Step]:
        # RangeVarCallbackForDropRelation locks the parent first. The foreign keys of a partition belong to its parent.
        around = self.relations.somewhere(parent, position)
        own = [*self._table(around, ACCESS_EXCLUSIVE), *self._table(target, ACCESS_EXCLUSIVE)]
        return [*own, *self._default(around, ACCESS_EXCLUSIVE)]

    def _drop_table(self, target: Target, position: Position) -> list[Step]:
        # Foreign keys go with their triggers on the other table (RemoveTriggerById).
        steps = [*self._whole_table(target, Modes(ACCESS_EXCLUSIVE, partitions=True))]
        for other in self._own_referenced(target, position):
            steps += self._table(other, ACCESS_EXCLUSIVE)
        for key in self.relations.referring(target.table):
            child = self.relations.tables[key.child]
            # The last made is dropped first (performMultipleDeletions in catalog/dependency.c).
            steps += [self._lock(one, ACCESS_EXCLUSIVE) for one in reversed([*self.relations.partitions(child)])]
            steps += self._table(self.relations.somewhere(child, position), ACCESS_EXCLUSIVE)
        return steps

    def _own_referenced(self, target: Target, position: Position) -> list[Target]:
        """What the foreign keys of `target` refer to: its declared ones, and those that DETACH leaves it."""
        around = self.moves.detached_from(target.lock)
        declared = self.relations.partitioned(target.lock) if target.lock is not None else None
        sources = [target.table.name, *([declared.name] if declared is not None else []), *sorted(around)]
        names = dict.fromkeys(key.parent for source in sources for key in self.relations.keys if key.child == source)
        return [self.relations.somewhere(self.relations.tables[name], position) for name in names]

    def _attach(self, step: AttachStep, scope: Scope) -> Iterator[Step]:
        around = self.relations.whole(step.to, scope, step.at("to"))
        partition = self.relations.whole(step.attach_partition, scope, step.at("attach partition"))
        yield from self._table(around, SHARE_UPDATE_EXCLUSIVE)
        yield from self._default(around, ACCESS_EXCLUSIVE)
        yield from self._table(partition, ACCESS_EXCLUSIVE)
        ways = [
            self._attach_keys(around, partition, own, step.at("to")) for own in self._matching_keys(around, partition)
        ]
        yield from self._one_of(ways)
        self._note(partition, around, scope, attached=True)

    def _matching_keys(self, around: Target, partition: Target) -> list[list[Key]]:
        """The foreign keys of `around` that `partition` may have already: one list, or several if that is not known."""
        keys = [key for key in self.relations.keys if key.child == around.table.name]
        own = [key for key in self.relations.keys if key.child == partition.table.name]
        declared = [key for key in keys if any(_match(key, one) for one in own)]
        move = self.moved.of(partition.lock)
        if move is not None and not move.attached and move.around == around.table.name:
            return [keys]
        listed = partition.lock is not None and partition.lock.family in [
            one.family for one in self.relations.partitions(around.table)
        ]
        said = partition.table.name in self.relations.spec.relations
        unknown = around.table.name in self.moves.detached_from(partition.lock) or (listed and not said)
        return [declared, keys] if unknown and len(declared) < len(keys) else [declared]

    def _attach_keys(self, around: Target, partition: Target, own: list[Key], position: Position) -> list[Step]:
        """Cloning the foreign keys of `around`, of which `partition` has `own` (CloneFkReferencing)."""
        steps: list[Step] = []
        new: dict[str, Target] = {}
        for key in self.relations.keys:
            if key.child == around.table.name:
                parent = self.relations.somewhere(self.relations.tables[key.parent], position)
                steps += self._table(parent, SHARE_ROW_EXCLUSIVE)
                if key in own:
                    # Its triggers go (tryAttachPartitionForeignKey, RemoveTriggerById).
                    steps += self._table(parent, ACCESS_EXCLUSIVE)
                else:
                    new[key.parent] = parent
        # The partition's rows are then checked against each new foreign key (RI_Initial_Check).
        for parent in new.values():
            steps += self._table(partition, SHARE_ROW_EXCLUSIVE)
            steps += self._table(parent, ROW_SHARE)
            steps += self._table(partition, ACCESS_SHARE)
            steps += self._table(parent, ACCESS_SHARE)
        return steps

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
        self._note(partition, around, scope, attached=False)

    def _note(self, partition: Target, around: Target, scope: Scope, *, attached: bool) -> None:
        if partition.lock is not None:
            # A local variable may have another value at the next mention.
            fixed = not any(argument.names & scope.locals for argument in partition.lock.arguments)
            self.moved = self.moved.after(Move(partition.lock, around.table.name, attached), fixed=fixed)

    def _one_of(self, ways: list[list[Step]]) -> list[Step]:
        """One of `ways`, it is not known which."""
        if all(way == ways[0] for way in ways[1:]):
            return ways[0]
        return [Either(tuple(Block(tuple(way)) for way in ways), self._position)]

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


def _match(key: Key, other: Key) -> bool:
    """Whether ATTACH merges these foreign keys of a partitioned table and its partition."""
    one, two = key.declared, other.declared
    alike = (one.columns, one.on_delete, one.on_update, one.deferred)
    return key.parent == other.parent and alike == (two.columns, two.on_delete, two.on_update, two.deferred)
