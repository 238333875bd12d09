"""Triggers and the queues in which they wait.

An AFTER trigger waits in the query's queue until all its rows are written; then the queue is worked off, row by row, and for one row by the names of the
triggers (`AfterTriggerEndQuery` and `RelationBuildTriggers` in src/backend/commands/trigger.c; manual, "Overview of Trigger Behavior").
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from lockmodel.document import Node
from lockmodel.effects import NO_STEPS, Event, Item, Over, Ways, braces, lock, named, one_of, table_lock, told
from lockmodel.errors import Position, SpecError, quote, suggestion
from lockmodel.lookup import Lookup, Scope
from lockmodel.modes import Wait
from lockmodel.program import Block, If, Lock, Loop, Reference, Step
from lockmodel.relations import Relations, Table, Target, events_of
from lockmodel.spec import Trigger
from lockmodel.statements import RowStatement, SqlStep
from lockmodel.steps import EitherStep, ForStep, IfStep, LockStep
from lockmodel.steps import Step as SpecStep
from lockmodel.table_modes import ROW_SHARE
from lockmodel.writes import Writes, after_branches

ResolveBlock = Callable[[Iterable[SpecStep], Scope, Node, tuple[str | int, ...]], Block]
MAX_FIRED = 5_000
"""Triggers and foreign keys that the statements of a spec may fire in all: one that fires two that fire two … is soon too many."""
AGAIN = (
    "whether the transaction has written this row before, so that its foreign keys are checked in any case, can't be told here; "
    "write `again: true` or `again: false`"
)
EXISTS = "whether the row is there decides what waits for the commit; write `exists: true` or `exists: false`"


class Triggers:
    """Fires triggers, and works queues off. `resolve_block` resolves the steps of a trigger's function."""

    def __init__(self, relations: Relations, lookup: Lookup, resolve_block: ResolveBlock) -> None:
        self.relations = relations
        self.lookup = lookup
        self.resolve_block = resolve_block
        self.writes = Writes()
        self.pending: list[Item] = []
        """What waits for the commit."""
        self._chain: tuple[object, ...] = ()
        """The triggers and foreign keys of which we are a consequence."""
        self._position = Position("")
        """Where the statement stands."""
        self._fired = 0
        self._names: frozenset[str] = frozenset()
        """What has a value where the statement's locks are taken, so that no loop of ours may be called so."""

    # Triggers

    def _before(self, event: str, target: Target, columns: Sequence[str] | None) -> list[Step]:
        """BEFORE ROW triggers fire at once: before a row is inserted, after one that is there has been locked (GetTupleForTrigger)."""
        triggers = self._triggers("before", "row", event, target.table, columns)
        return [step for name, trigger in triggers for step in self._run(name, trigger, target)]

    @staticmethod
    def _triggers(
        when: str, each: str, event: str, table: Table, columns: Sequence[str] | None
    ) -> list[tuple[str, Trigger]]:
        """Those that fire, by name."""
        return sorted(
            (
                (name, trigger)
                for name, trigger in table.declared.triggers.items()
                if getattr(trigger, when) is not None
                and trigger.each == each
                and event in events_of(trigger)
                and (event != "update" or trigger.of is None or not set(trigger.of).isdisjoint(columns or ()))
            ),
            key=lambda one: one[0],
        )

    def _trigger_event(self, name: str, trigger: Trigger, target: Target) -> Event:
        return Event(trigger.deferred, lambda: (self._run(name, trigger, target), []), self._chain)

    def _run(self, name: str, trigger: Trigger, target: Target) -> list[Step]:
        """The steps of a trigger's function."""
        if any(trigger is one for one in self._chain):
            message = f"trigger {quote(name)} of {target.table.name} fires itself again without end; write its locks as `resource: MODE` steps"
            raise SpecError(self._position, message)
        self._count()
        scope = self.relations.scope_of(target.table, target.bindings)
        self._chain = (*self._chain, trigger)
        block = self.resolve_block(trigger.do, scope, trigger, ("do",))
        self._chain = self._chain[:-1]
        self._check_known(frozenset().union(*(step.names for step in block.steps)), f"trigger {name}", target)
        return [told(step, braces(f"trigger {name}"), self._position) for step in block.steps]

    def _count(self) -> None:
        self._fired += 1
        if self._fired > MAX_FIRED:
            message = f"with this, statements fire more than {MAX_FIRED:,} triggers and foreign keys, the most that there may be; write the locks out"
            raise SpecError(self._position, message)

    # Queues

    def _drain(self, items: Sequence[Item], *, at_commit: bool = False) -> list[Step]:
        """Work a queue off, with what is added to it meanwhile."""
        steps: list[Step] = []
        while items:
            now, items, deferred = self._fire(items, at_commit)
            steps += now
            self.pending = [*self.pending, *deferred]
        return steps

    def _fire(self, items: Sequence[Item], at_commit: bool) -> tuple[list[Step], list[Item], list[Item]]:
        """The steps of `items`, what they add to the queue, and what is left for the commit."""
        steps: list[Step] = []
        added: list[Item] = []
        deferred: list[Item] = []
        for item in items:
            if isinstance(item, Event):
                if item.deferred and not at_commit:
                    deferred.append(item)
                else:
                    self._count()
                    around, self._chain = self._chain, item.chain
                    now, more = item.fire()
                    self._chain = around
                    steps += now
                    added += more
                continue
            if isinstance(item, Ways):
                now, more = self._fire_one_of(item, at_commit)
                steps += now
                added += more
                continue
            before = self.writes
            now, more, later = self._fire(item.items, at_commit)
            self._loop_written(before, item.over)
            if now:
                inside = Block(tuple(now))
                if item.when is not None:
                    inside = Block((If(item.when, inside, NO_STEPS, False, self._position),))
                steps.append(Loop(item.over, item.order, inside, None, self._position))
            added += [replace(item, items=tuple(more))] if more else []
            deferred += [replace(item, items=tuple(later))] if later else []
        return steps, added, deferred

    def _fire_one_of(self, item: Ways, at_commit: bool) -> tuple[list[Step], list[Item]]:
        """One of the ways of `item`."""
        before = self.writes
        blocks, added, ends = [], [], []
        for way in item.ways:
            self.writes = before
            now, more, later = self._fire(way, at_commit)
            if later:
                raise SpecError(self._position, EXISTS)
            blocks.append(Block(tuple(now)))
            added.append(tuple(more))
            ends.append(self.writes)
        self.writes = after_branches(before, ends)
        return one_of(blocks, self._position), [Ways(tuple(added))] if any(added) else []

    def _loop_written(self, before: Writes, over: Over) -> None:
        unclear, self.writes = self.writes.after_loop(before, [name for name, _ in over])
        if unclear is not None:
            raise SpecError(unclear.position, AGAIN)

    # Names

    def _with_values(self, target: Target, step: RowStatement | None, scope: Scope) -> Target:
        """`target` with the `values` of the statement; what it does not tell is a name that begins with ?."""
        known = target.table.declared.values
        found = dict(target.bindings)
        for name, text in step.values.items() if step is not None else ():
            assert step is not None
            where = step.at("values", name)
            if name not in known:
                raise SpecError(
                    where, f"relation {target.table.name} has no value {quote(name)}; {suggestion(name, known)}"
                )
            written = str(text).lower() if isinstance(text, bool) else str(text)
            found[name] = self.lookup.argument(written.strip(), known[name], scope, where)
        unknown = {name: named(f"?{name}") for name in known if name not in found}
        return replace(target, bindings={**found, **unknown})

    def _check_known(self, names: Iterable[str], what: str, target: Target) -> None:
        """Raise SpecError if `names` has a value of the row that the statement does not tell."""
        for name in sorted(names):
            if name.startswith("?"):
                message = f"the {what} of {target.table.name} depends on {name[1:]}; say what it is: `values: {{{name[1:]}: …}}`"
                raise SpecError(self._position, message)

    def _fresh(self, scope: Scope, over: Over) -> tuple[Scope, Over]:
        """`scope` and `over` with names that nothing in the bindings means."""
        renamed = {name: self._unused(name) for name, _ in over}
        bound = {name: named(fresh) for name, fresh in renamed.items() if name != fresh}
        scope = replace(scope, bindings={**scope.bindings, **bound})
        return scope, tuple((renamed[name], of) for name, of in over)

    def _unused(self, name: str) -> str:
        """A name like `name` that has no value yet, and is no word that a formula may mean."""
        taken = self._names | self.relations.declared.words | set(self.relations.declared.variables)
        while name in taken:
            name += "_"
        self._names |= {name}
        return name

    # Locks

    def _lock(
        self,
        reference: Reference,
        mode: str,
        table: Reference | None = None,
        table_mode: str = ROW_SHARE,
        *,
        wait: Wait = Wait.BLOCK,
        label: str | None = None,
    ) -> Lock:
        return lock(reference, mode, self._position, table, table_mode, wait=wait, label=label)

    def _table(self, target: Target, mode: str) -> list[Step]:
        return table_lock(target, mode, self._position)


def check_steps(steps: Iterable[SpecStep], node: Node, *path: str | int) -> None:
    """Refuse what the function of a trigger can't do, or what has no meaning there. `steps` are at `path` in `node`."""
    for index, step in enumerate(steps):
        if not isinstance(step, LockStep | ForStep | EitherStep | IfStep | SqlStep):
            words = "a trigger's steps are locks, statements on relations, for, either and if"
            raise SpecError(node.at(*path, index), words)
        for key in ("sql", "label"):
            if getattr(step, key, None) is not None:
                message = f"a trigger runs inside of a statement, which has the {key}; drop this one"
                raise SpecError(step.at(key), message)
        match step:
            case ForStep():
                check_steps(step.do, step, "do")
            case EitherStep():
                for number, branch in enumerate(step.either):
                    check_steps(branch, step, "either", number)
            case IfStep() | LockStep():
                check_steps(step.then or (), step, "then")
                check_steps(step.otherwise or (), step, "else")
