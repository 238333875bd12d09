"""From a statement on relations to the locks that Postgres takes for it, in its order.

Tables are locked first, then rows (`row_effects`), and then the queue of AFTER triggers is worked off (`triggers`). Statements on tables as such are in
`table_statements`. Here are statements on rows, and what goes on from one statement of a transaction to the next: rows that have been written,
and what waits for the commit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from lockmodel.effects import Event, Item, Over, Rows, Ways, one_of, told, waits_for_commit
from lockmodel.errors import Position, SpecError, quote, suggestion
from lockmodel.fields import as_list
from lockmodel.lookup import Lookup, Scope
from lockmodel.partitions import Moved, Moves, moved_in_all
from lockmodel.program import Block, Lock, Loop, Step
from lockmodel.relations import Relations, Target
from lockmodel.row_effects import RowEffects
from lockmodel.statements import DeleteStep, InsertStep, RowStatement, SelectStep, SqlStep, UpdateStep
from lockmodel.table_modes import ACCESS_SHARE, ROW_EXCLUSIVE, ROW_SHARE
from lockmodel.table_statements import TableStatements
from lockmodel.triggers import EXISTS, ResolveBlock, check_steps
from lockmodel.writes import Writes, after_branches

_AT_COMMIT = "SET CONSTRAINTS ALL IMMEDIATE"
"""What a commit does first; a replay sends it, so that the commit itself never waits."""


class Expansion(RowEffects):
    """Turns the statements of one transaction after another into steps. Raises SpecError for a statement that has no meaning."""

    def __init__(self, relations: Relations, lookup: Lookup, resolve_block: ResolveBlock) -> None:
        super().__init__(relations, lookup, resolve_block)
        self._replayed = False
        """Whether what waits for the commit belongs to a statement with SQL."""
        self._deferred_at: Position | None = None
        """The last statement that left something for the commit."""
        self._loops = 0
        self.moves, self.moved = Moves(relations), Moved()

    # What the resolver calls

    def begin(self) -> None:
        """A new transaction."""
        self.writes, self.pending, self._replayed, self._deferred_at, self._loops = Writes(), [], False, None, 0
        self._names, self.moved = frozenset(), Moved()

    def check_declarations(self) -> None:
        """Resolve the steps of every trigger and the words of every relation once, whether a statement uses them or not."""
        for table in self.relations.tables.values():
            scope = self.relations.scope_of(table)
            for trigger in table.declared.triggers.values():
                check_steps(trigger.do, trigger, "do")
                self.begin()
                self._position, self._chain = trigger.at("do"), (trigger,)
                self.resolve_block(trigger.do, scope, trigger, ("do",))
            self._chain = ()
            for index, unique in enumerate(table.declared.unique):
                self._unique(table, unique, scope, index)
            list(self.relations.partitions(table))
        self.begin()

    def statement(self, step: SqlStep, scope: Scope) -> Step:
        """The locks of `step`, as one SQL statement."""
        inside = bool(self._chain)
        if not inside:
            self._position, self._block = step.at(), scope.block
            if not scope.block:
                self.begin()
        waiting = len(self.pending)
        around = self._names
        self._names = around.union(scope.names, *(one.names for one in scope.bindings.values()))
        found = [*self._steps(step, scope)]
        if not inside and not scope.block:
            # Without a transaction block the statement's end is the commit.
            found += self._drain(self.pending, at_commit=True)
            self.pending = []
        self._names = around
        if not inside:
            self._names |= scope.names
        if not found:
            message = "this takes no lock on anything that the spec has as a resource; give its relation a `table:` or a `row:`"
            raise SpecError(step.at(), message)
        if len(self.pending) > waiting:
            self._deferred_at = self._position
            self._replayed = self._replayed or step.sql is not None or scope.sql is not None
        if step.label is not None:
            found = [told(one, step.label) for one in found]
        return Loop((), "forward", Block(tuple(found)), step.sql, self._position)

    def at_commit(self, position: Position) -> Step | None:
        """The locks of what waits for the commit at `position`."""
        if self._loops and self._deferred_at is not None:
            message = "in a loop, what is deferred until this commit can't be told; write its locks out, or commit behind the loop"
            raise SpecError(position, message)
        if not self.pending:
            return None
        self._position = position
        steps = self._drain(self.pending, at_commit=True)
        return Loop((), "forward", Block(tuple(steps)), _AT_COMMIT if self._replayed else None, position)

    def rolled_back(self, position: Position) -> None:
        """After a `rollback to`."""
        if self._deferred_at is not None:
            message = "with deferred constraints or triggers, what this takes back can't be told; write their locks out before the commit"
            raise SpecError(position, message)
        self.writes, self.moved = self.writes.unknown(), Moved()

    def branches(self, ways: Sequence[Callable[[], Block]]) -> list[Block]:
        """Resolve several ways to go on, one of which is taken."""
        before, pending, moved = self.writes, self.pending, self.moved
        blocks, ends, moves = [], [], []
        for way in ways:
            self.writes, self.pending, self.moved = before, [*pending], moved
            blocks.append(way())
            ends.append(self.writes)
            moves.append(self.moved)
            if len(self.pending) != len(pending):
                message = (
                    "what is deferred in only one of several ways to the commit can't be told; write its locks out"
                )
                raise SpecError(self._deferred_at or self._position, message)
        self.writes, self.pending, self.moved = after_branches(before, ends), pending, moved_in_all(moves)
        return blocks

    def loop(self, over: Over, order: str, body: Callable[[], Block]) -> Block:
        """Resolve the body of a loop. Raises SpecError where its rounds are not alike."""
        before, pending = self.writes, self.pending
        self.pending = []
        self._loops += 1
        # Another round may have attached or detached any of them.
        self.moved = Moved()
        block = body()
        self.moved = Moved()
        self._loops -= 1
        self._loop_written(before, over)
        if self.pending and order in ("rotated", "any"):
            message = f"what is deferred comes in the order of this loop again, which `order: {order}` leaves open; write forward or reverse"
            raise SpecError(self._deferred_at or self._position, message)
        inside = [Rows(over, order, tuple(self.pending))] if self.pending else []
        self.pending = [*pending, *inside]
        return block

    def rename(self, scope: Scope, over: Over) -> tuple[Scope, Over]:
        """For a loop in a trigger: names that can't be mixed up with those of the transaction."""
        return self._fresh(scope, over) if scope.bindings else (scope, over)

    # Statements on rows

    def _steps(self, step: SqlStep, scope: Scope) -> Iterator[Step]:
        match step:
            case InsertStep():
                yield from self._rows("insert", step, step.insert, scope)
            case UpdateStep():
                yield from self._rows("update", step, step.update, scope)
            case DeleteStep():
                yield from self._rows("delete", step, step.delete, scope)
            case SelectStep():
                yield from self._select(step, scope)
            case _:
                tables = TableStatements(self.relations, self.moves, self.moved, self._position)
                yield from tables.steps(step, scope)
                self.moved = tables.moved

    def _rows(self, event: str, step: InsertStep | UpdateStep | DeleteStep, text: str, scope: Scope) -> list[Step]:
        over = tuple((step.rows or {}).items())
        inner = self.lookup.bind(scope, step.rows, step, "rows") if step.rows is not None else scope
        inner, over = self.rename(inner, over)
        self._names |= {name for name, _ in over}
        target = self._with_values(self.relations.target(text, inner, step.at(event)), step, inner)
        columns = None if isinstance(step, DeleteStep) else step.columns
        upsert = step if isinstance(step, InsertStep) and step.on_conflict == "do update" else None
        if isinstance(step, InsertStep) and step.exists is not None and upsert is None:
            raise SpecError(step.at("exists"), "`exists` is about `on conflict: do update`; drop this key")
        # ON CONFLICT DO UPDATE is both statements (`fireBSTriggers` and `fireASTriggers` in nodeModifyTable.c).
        events = [event] if upsert is None else ["insert", "update"]
        steps = [*self._table(target, ROW_EXCLUSIVE), *self._own_partitions(target, step, inner, ROW_EXCLUSIVE)]
        for one in events:
            triggers = self._triggers("before", "statement", one, target.table, columns)
            steps += [lock for name, trigger in triggers for lock in self._run(name, trigger, target)]
        statement_triggers = [
            self._trigger_event(name, trigger, target)
            for one in reversed(events)
            for name, trigger in self._triggers("after", "statement", one, target.table, columns)
        ]
        before = self.writes
        if upsert is not None and not over:
            own, after = self._upsert(upsert, target, columns, statement_triggers), list[Item]()
        elif upsert is not None:
            own, after = self._upsert_of_many(upsert, target, columns)
        else:
            own, after = self._row(event, target, step, columns)
        if over:
            self._loop_written(before, over)
            if own and after and step.order in ("rotated", "any"):
                message = f"triggers and foreign keys come in the order of the rows again, which `order: {step.order}` leaves open; write forward or reverse"
                raise SpecError(step.at("order"), message)
            own = [Loop(over, step.order, Block(tuple(own)), None, self._position)] if own else []
            after = [Rows(over, step.order, tuple(after))] if after else []
        first = own[0] if own else None
        if len(steps) == 1 and isinstance(first, Lock) and first.reference is target.row and first.table is not None:
            # The row takes its table by itself, unless it is held in that mode already.
            steps = []
        steps += own
        return [*steps, *self._drain(after if upsert is not None and not over else [*after, *statement_triggers])]

    def _upsert(
        self, step: InsertStep, target: Target, columns: list[str] | None, statement_triggers: list[Event]
    ) -> list[Step]:
        """ON CONFLICT DO UPDATE of one row, to the end of the statement: the ways differ in what its queue has."""

        def way(exists: bool) -> Block:
            own, after = self._upserted(target, step, columns, exists=exists)
            self._check_told(step, after)
            return Block((*own, *self._drain([*after, *statement_triggers])))

        first = self._before("insert", target, columns)
        return [*first, *one_of(self.branches([partial(way, exists) for exists in _ways(step)]), self._position)]

    def _upsert_of_many(
        self, step: InsertStep, target: Target, columns: list[str] | None
    ) -> tuple[list[Step], list[Item]]:
        """ON CONFLICT DO UPDATE of one of many rows. The queue does not remember which way the row went: it may have the other's events."""
        ways: list[tuple[Item, ...]] = []

        def way(exists: bool) -> Block:
            own, after = self._upserted(target, step, columns, exists=exists)
            self._check_told(step, after)
            ways.append(tuple(after))
            return Block(tuple(own))

        first = self._before("insert", target, columns)
        own = one_of(self.branches([partial(way, exists) for exists in _ways(step)]), self._position)
        after: list[Item] = [*ways[0]] if len(ways) == 1 else [Ways(tuple(ways))] if any(ways) else []
        return [*first, *own], after

    def _check_told(self, step: InsertStep, items: list[Item]) -> None:
        if step.exists is None and waits_for_commit(items):
            raise SpecError(step.at(), EXISTS)

    def _own_partitions(self, target: Target, step: RowStatement | SelectStep, scope: Scope, mode: str) -> list[Step]:
        if not target.table.partitioned:
            if step.partition is not None:
                message = f"relation {target.table.name} has no partitions; list them there, or drop this key"
                raise SpecError(step.at("partition"), message)
            return []
        if step.partition is not None:
            one = self.relations.partition(target.table, step.partition, scope, step.at("partition"))
            return [self._lock(one, mode)]
        if isinstance(step, InsertStep):
            # A row is routed to its partition, which is locked then (ExecInitPartitionInfo in execPartition.c).
            raise SpecError(step.at(), f"{target.table.name} is partitioned; say where the row goes: `partition: …`")
        return [self._lock(one, mode) for one in self.relations.partitions(target.table)]

    def _select(self, step: SelectStep, scope: Scope) -> Iterator[Step]:
        over = tuple((step.rows or {}).items())
        inner = self.lookup.bind(scope, step.rows, step, "rows") if step.rows is not None else scope
        inner, over = self.rename(inner, over)
        self._names |= {name for name, _ in over}
        targets = []
        for number, text in enumerate(as_list(step.select)):
            where = step.at("select", number) if isinstance(step.select, list) else step.at("select")
            _, brackets = self.relations.named(text, where)
            # Without a lock on rows, the table is all there is to tell.
            plain = step.lock is None and not brackets
            targets.append(
                self.relations.whole(text, inner, where) if plain else self.relations.target(text, inner, where)
            )
        locked = self._locked(step, targets)
        # Tables are locked when the statement is parsed, partitions when it is planned (`transformFromClause`; `expand_partitioned_rtentry`).
        table_mode = {id(target): ROW_SHARE if target in locked else ACCESS_SHARE for target in targets}
        tables = [lock for target in targets for lock in self._table(target, table_mode[id(target)])]
        if step.partition is not None and len(targets) > 1:
            raise SpecError(
                step.at("partition"),
                "a join has several tables; write `statement:` with `takes:` for partitions of one",
            )
        for target in targets:
            tables += self._own_partitions(target, step, inner, table_mode[id(target)])
        rows: list[Step] = []
        for target in locked:
            if target.row is not None:
                mode, wait = self.lookup.mode(f"FOR {step.lock}", target.row, step.at("for"))
                rows.append(self._lock(target.row, mode, target.lock, ROW_SHARE, wait=wait))
        if len(tables) == 1 and len(targets) == 1 and rows:
            tables = []
        yield from tables
        if rows and over:
            yield Loop(over, step.order, Block(tuple(rows)), None, self._position)
        else:
            yield from rows

    def _locked(self, step: SelectStep, targets: list[Target]) -> list[Target]:
        if step.lock is None:
            for key in ("of", "rows"):
                if getattr(step, key) is not None:
                    raise SpecError(step.at(key), f"`{key}` is about rows that are locked; say how: `for: UPDATE`")
            return []
        if " ".join(step.lock.upper().split()).startswith("FOR "):
            raise SpecError(step.at("for"), f"the FOR is in the key; write `for: {step.lock.split(None, 1)[1]}`")
        if all(target.row is None for target in targets):
            self._check_row_mode(step)
        if step.of is None:
            return targets
        names = {target.table.name: target for target in targets}
        found = []
        for number, text in enumerate(as_list(step.of)):
            where = step.at("of", number) if isinstance(step.of, list) else step.at("of")
            table, _ = self.relations.named(text, where)
            if table.name not in names:
                raise SpecError(where, f"{quote(text)} is not one of those after `select`; {suggestion(text, names)}")
            found.append(names[table.name])
        return found

    @staticmethod
    def _check_row_mode(step: SelectStep) -> None:
        words = " ".join((step.lock or "").upper().split())
        modes = ("UPDATE", "NO KEY UPDATE", "SHARE", "KEY SHARE")
        if words.removesuffix(" NOWAIT").removesuffix(" SKIP LOCKED") not in modes:
            raise SpecError(step.at("for"), f"unknown lock {quote(step.lock)}; {suggestion(words, modes)}")


def _ways(step: InsertStep) -> list[bool]:
    """Whether the row of an upsert may be there: both, if the spec doesn't say."""
    return [False, True] if step.exists is None else [step.exists]
