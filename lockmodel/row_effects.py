"""What writing one row locks, and what it leaves in the statement's queue: triggers, and foreign keys.

A foreign key is a trigger: `RI_ConstraintTrigger_a_…` at the table that is referred to, `RI_ConstraintTrigger_c_…` at the one that refers. What it does by
itself (CASCADE, SET NULL) fires no queue of its own: the triggers of the rows that it reaches come at the end of the statement's queue
(`ri_PerformCheck` in src/backend/utils/adt/ri_triggers.c calls SPI with fire_triggers = false). A statement inside a trigger's function has its own.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence

from lockmodel.effects import NO_STEPS, Event, Item, Over, Rows, all_equal, named, told
from lockmodel.errors import SpecError, quote, suggestion
from lockmodel.expressions import Expression
from lockmodel.lookup import Lookup, Scope, substitute
from lockmodel.program import Block, If, Loop, Reference, Step
from lockmodel.relations import Key, Relations, Table, Target
from lockmodel.statements import InsertStep, Statement, UpdateStep
from lockmodel.table_modes import ROW_EXCLUSIVE, ROW_SHARE
from lockmodel.triggers import AGAIN, ResolveBlock, Triggers
from lockmodel.writes import after_branches


class RowEffects(Triggers):
    """Writes rows, one at a time."""

    def __init__(self, relations: Relations, lookup: Lookup, resolve_block: ResolveBlock) -> None:
        super().__init__(relations, lookup, resolve_block)
        self._block = True
        """Whether the transaction is a transaction block, so that it can have written a row before."""

    def _row(
        self,
        event: str,
        target: Target,
        step: Statement | None,
        columns: Sequence[str] | None,
        key: Key | None = None,
        what: str = "",
    ) -> tuple[list[Step], list[Item]]:
        """What a statement does to one row, and the events that it queues.

        For what a foreign key does, `step` is None, and `what` is done by `key`.
        """
        steps: list[Step] = []
        if event == "insert":
            steps += self._before("insert", target, columns)
            steps += self._keys(target)
            self._note(target)
            return steps, self._events("insert", target, columns, again=False)
        return self._written_row(event, target, step, columns, steps, key, what)

    def _keys(self, target: Target) -> list[Step]:
        """The unique keys of a row that is inserted."""
        scope = self.relations.scope_of(target.table, target.bindings)
        unique = enumerate(target.table.declared.unique)
        return [self._lock(self._unique(target.table, text, scope, index), "INSERT") for index, text in unique]

    def _upserted(
        self, target: Target, step: InsertStep, columns: Sequence[str] | None, *, exists: bool
    ) -> tuple[list[Step], list[Item]]:
        """What ON CONFLICT DO UPDATE does to one row once its BEFORE INSERT triggers have fired (`ExecInsert` in nodeModifyTable.c).

        Either way it first waits for who has inserted or changed a row of that key (`check_exclusion_or_unique_constraint` in execIndexing.c), and
        others that insert the key then wait for it: for the new index entry, or for the change of the row. So the keys are held in both.
        """
        keys = self._keys(target)
        if exists:
            # The row is locked as an UPDATE locks it (`ExecOnConflictUpdate`).
            return self._written_row("update", target, step, columns, keys, None, "")
        if not keys and target.row is not None:
            # The row stands for its key: nobody else sees it, but the next INSERT of it waits.
            keys = [self._lock(target.row, self._update_mode(target.table, columns), target.lock, ROW_EXCLUSIVE)]
        self._note(target)
        # `columns` are those of the UPDATE; the new row may have a value in each.
        return keys, self._events("insert", target, None, again=False)

    def _written_row(
        self,
        event: str,
        target: Target,
        step: Statement | None,
        columns: Sequence[str] | None,
        steps: list[Step],
        key: Key | None,
        what: str,
    ) -> tuple[list[Step], list[Item]]:
        """A row that is there, and is updated or deleted."""
        again = event == "update" and self._again(target, step)
        if target.row is not None:
            mode = "FOR UPDATE" if event == "delete" else self._update_mode(target.table, columns)
            steps.append(self._lock(target.row, mode, target.lock, ROW_EXCLUSIVE))
        steps += self._before(event, target, columns)
        if event == "update":
            self._note(target)
        return steps, self._events(event, target, columns, again=again, done_by=key, what=what)

    def _update_mode(self, table: Table, columns: Sequence[str] | None) -> str:
        return "FOR UPDATE" if self._changes_key(table, columns) else "FOR NO KEY UPDATE"

    @staticmethod
    def _changes_key(table: Table, columns: Sequence[str] | None) -> bool:
        # HeapDetermineColumnsInfo in heapam.c: the columns of unique indexes that a foreign key could refer to.
        return not set(table.declared.key).isdisjoint(columns or ())

    def _again(self, target: Target, step: Statement | None) -> bool:
        """Whether the row has been written in this transaction before."""
        if isinstance(step, UpdateStep) and step.again is not None:
            return step.again
        if not target.table.declared.foreign_keys:
            return False
        position = step.at() if step is not None else self._position
        if target.row is None:
            answer: bool | None = None if target.table.name in self.writes.maybe else False
        else:
            answer, self.writes = self.writes.ask((target.table.name, target.row.arguments), position)
        if answer is None:
            raise SpecError(position, AGAIN)
        return answer

    def _note(self, target: Target) -> None:
        if not self._block:
            return
        if target.row is None:
            self.writes = self.writes.note_any(target.table.name)
        else:
            self.writes = self.writes.note((target.table.name, target.row.arguments))

    def _unique(self, table: Table, text: str, scope: Scope, index: int) -> Reference:
        position = table.declared.at("unique", index)
        reference = self.lookup.reference(text, scope, position)
        if self.lookup.families[reference.family].kind.name != "key":
            known = [name for name, family in self.lookup.families.items() if family.kind.name == "key"]
            raise SpecError(
                position,
                f"{quote(reference.family)} is not a resource of kind key; {suggestion(reference.family, known)}",
            )
        return reference

    # Foreign keys

    def _events(
        self,
        event: str,
        target: Target,
        columns: Sequence[str] | None,
        *,
        again: bool,
        done_by: Key | None = None,
        what: str = "",
    ) -> list[Item]:
        """The AFTER ROW triggers of one row, foreign keys among them, in the order of their names."""
        table = target.table
        named: list[tuple[str, Item]] = []
        for key in self.relations.keys:
            checked = key.child == table.name and self._checks(event, key, columns, again=again)
            if checked and key is not done_by:
                named.append((f"RI_ConstraintTrigger_c_{key.number:09}", self._check_event(key, target)))
            elif checked and what == "update":
                # What it refers to is the new version of the row that the transaction itself has updated; NULL refers to nothing.
                named.append((f"RI_ConstraintTrigger_c_{key.number:09}", self._own_parent_event(key, target)))
            if key.parent == table.name and (
                event == "delete" or (event == "update" and self._changes_key(table, columns))
            ):
                named.append((f"RI_ConstraintTrigger_a_{key.number:09}", self._action_event(key, event, target)))
        named += [
            (name, self._trigger_event(name, trigger, target))
            for name, trigger in self._triggers("after", "row", event, table, columns)
        ]
        return [item for _, item in sorted(named, key=lambda one: one[0])]

    @staticmethod
    def _checks(event: str, key: Key, columns: Sequence[str] | None, *, again: bool) -> bool:
        """Whether `key` is checked for a row that is written (RI_FKey_fk_upd_check_required in ri_triggers.c).

        An UPDATE checks it if the key changes, and in any case if the old version of the row is the transaction's own.
        """
        if event == "insert":
            return columns is None or set(key.declared.columns) <= set(columns)
        return event == "update" and (again or not set(key.declared.columns).isdisjoint(columns or ()))

    def _check_event(self, key: Key, child: Target) -> Event:
        def fire() -> tuple[list[Step], list[Item]]:
            scope = self.relations.scope_of(child.table, child.bindings)
            parent = self.relations.target(key.declared.references, scope, key.declared.at("references"))
            for reference in (parent.row, parent.lock):
                self._check_known(reference.names if reference else (), "foreign key", child)
            # SELECT 1 FROM ONLY parent … FOR KEY SHARE (RI_FKey_check).
            if parent.row is None:
                return [told(step, "foreign key") for step in self._table(parent, ROW_SHARE)], []
            return [self._lock(parent.row, "FOR KEY SHARE", parent.lock, ROW_SHARE, label="foreign key")], []

        return Event(key.declared.deferred, fire, self._chain)

    def _own_parent_event(self, key: Key, child: Target) -> Event:
        def fire() -> tuple[list[Step], list[Item]]:
            scope = self.relations.scope_of(child.table, child.bindings)
            parent = self.relations.target(key.declared.references, scope, key.declared.at("references"))
            return [told(step, "foreign key") for step in self._table(parent, ROW_SHARE)], []

        return Event(key.declared.deferred, fire, self._chain)

    def _action_event(self, key: Key, event: str, parent: Target) -> Event:
        """What is done to the rows that refer to a row that is deleted or whose key changes."""
        action = key.declared.on_delete if event == "delete" else key.declared.on_update

        def fire() -> tuple[list[Step], list[Item]]:
            child = self.relations.tables[key.child]
            if child.partitioned:
                message = (
                    f"{child.name} is partitioned, and refers to this; write the locks with `statement:` and `takes:`"
                )
                raise SpecError(self._position, message)
            if action in ("cascade", "set null"):
                steps, items = self._cascade(key, child, parent, event if action == "cascade" else "set null")
            else:
                # SELECT 1 FROM ONLY child … FOR KEY SHARE, which finds nothing. NO ACTION also looks for another row that has the key now
                # (RI_FKey_restrict_…, RI_FKey_noaction_…, ri_Check_Pk_Match).
                per_row = child.table is not None and child.table.per
                looked_at = (
                    self._rows_of(key, child, parent)[0] if per_row else self.relations.somewhere(child, self._position)
                )
                steps, items = self._table(looked_at, ROW_SHARE), []
                if action == "no action":
                    steps += self._table(parent, ROW_SHARE)
            return [told(step, "foreign key") for step in steps], items

        return Event(key.declared.deferred and action == "no action", fire, self._chain)

    def _cascade(self, key: Key, child: Table, parent: Target, what: str) -> tuple[list[Step], list[Item]]:
        """`what` is done to the rows of `child` that refer to `parent`: delete, update or set null."""
        if any(key is one for one in self._chain):
            message = f"the foreign keys of {child.name} cascade in a circle without end; write the locks with `statement:` and `takes:`"
            raise SpecError(self._position, message)
        referring, over, when = self._rows_of(key, child, parent)
        steps = self._table(referring, ROW_EXCLUSIVE)
        if child.row is None:
            return steps, []
        before, order = self.writes, key.declared.order
        self._chain = (*self._chain, key)
        columns = None if what == "delete" else key.declared.columns
        own, after = self._row("delete" if what == "delete" else "update", referring, None, columns, key=key, what=what)
        self._chain = self._chain[:-1]
        self._loop_written(before, over)
        if after and over and order in ("any", "rotated"):
            message = f"the rows of {child.name} have triggers or foreign keys, which come in the order of the rows again; give this foreign key `order: forward`"
            raise SpecError(key.declared.at("order"), message)
        if when is not None:
            self.writes = after_branches(before, [before, self.writes])
            own = [If(when, Block(tuple(own)), NO_STEPS, False, self._position)]
        if over:
            own = [Loop(over, order, Block(tuple(own)), None, self._position)]
        return [*steps, *own], [Rows(over, order, tuple(after), when)] if after else []

    def _rows_of(self, key: Key, child: Table, parent: Target) -> tuple[Target, Over, Expression | None]:
        """The rows of `child` that refer to the row `parent`: a target, loops over what is free in it, and a condition."""
        if child.row is None:
            return self.relations.somewhere(child, self._position), (), None
        scope = self.relations.scope_of(child)
        pattern = self.relations.target(key.declared.references, scope, key.declared.at("references"))
        wanted = parent.row.arguments if parent.row is not None else ()
        said = pattern.row.arguments if pattern.row is not None else ()
        bindings: dict[str, Expression] = {}
        pairs: list[tuple[Expression, Expression]] = []
        sets = self.lookup.families[parent.row.family].per if parent.row is not None else ()
        for theirs, ours, of in zip(said, wanted, sets, strict=True):
            if unknown := sorted(theirs.names - set(child.row.per)):
                message = f"which rows of {child.name} refer to this one, their names do not tell ({unknown[0]} is no part of them); write the locks with `statement:` and `takes:`"
                raise SpecError(self._position, message)
            name = theirs.tree.id if isinstance(theirs.tree, ast.Name) else None
            # If the sets differ, the row may refer to an element that is none of this one's.
            if name is not None and name not in bindings and self.lookup.sets[of] == self.lookup.sets[name]:
                bindings[name] = ours
            else:
                pairs.append((theirs, ours))
        free = tuple((per, per) for per in child.row.per if per not in bindings)
        over = tuple((self._unused(name), of) for name, of in free)
        bindings |= {name: named(fresh) for (name, _), (fresh, _) in zip(free, over, strict=True)}
        mention = f"{child.row.name}[{', '.join(child.row.per)}]" if child.row.per else child.row.name
        bound = self.relations.scope_of(child, bindings)
        referring = self._with_values(self.relations.target(mention, bound, self._position), None, bound)
        return referring, over, all_equal([(substitute(theirs, bindings), ours) for theirs, ours in pairs])
