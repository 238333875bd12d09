"""What a step that takes a lock asks for: its mode, whether and how long it waits, the lock on its table, and what follows.

Most of it is about what Postgres makes of a combination: which requests wait, which fail and so leave nothing but a rollback to be done,
and which give up before a deadlock could be reported.
"""

from __future__ import annotations

from functools import partial

from lockmodel.errors import SpecError, closest, quote, suggestion
from lockmodel.expansion import Expansion
from lockmodel.lookup import Lookup, Scope
from lockmodel.modes import Wait
from lockmodel.program import Family, Lock, Reference
from lockmodel.sql_text import table_modes
from lockmodel.statements import STATEMENTS
from lockmodel.steps import LockStep, RollbackToStep
from lockmodel.timeouts import duration_ms
from lockmodel.triggers import ResolveBlock

DEFAULT_TABLE_MODE = "ROW SHARE"
"""How SELECT … FOR UPDATE and its like take the table (manual, Table-Level Locks)."""


class LockSteps:
    """Resolves lock steps; `resolve_block` resolves the steps in their branches. Raises SpecError."""

    def __init__(
        self, lookup: Lookup, expansion: Expansion, resolve_block: ResolveBlock, deadlock_timeout_ms: float
    ) -> None:
        self.lookup = lookup
        self.families = lookup.families
        self.expansion = expansion
        self.resolve_block = resolve_block
        self.deadlock_timeout_ms = deadlock_timeout_ms

    def resolve(self, step: LockStep, scope: Scope) -> Lock:
        """`step` with all that it says looked up."""
        self._check_word(step)
        reference = self.lookup.reference(step.resource, scope, step.at("mode"))
        family = self.families[reference.family]
        mode, wait = self.lookup.mode(step.mode, reference, step.at("mode"))
        timeout_ms = self._timeout_ms(step, family, wait)
        limit = scope.timeout_ms if timeout_ms is None else timeout_ms
        if wait is Wait.BLOCK and family.capacity is None and 0 < limit < self.deadlock_timeout_ms:
            wait = Wait.TIMEOUT
        self._check_otherwise(step, family, mode, wait, limit)
        if step.sql is not None:
            self.lookup.check_own_sql(step, scope)
            if family.capacity is not None:
                message = f"a unit of {reference.family} is taken by the client, not by a statement; drop the sql"
                raise SpecError(step.at("sql"), message)
        table = self.lookup.table_of(reference)
        *table_before, table_mode = self._table_modes(step, scope, reference, table)
        self.lookup.check_texts(step, scope)
        then, refused = self.expansion.branches(
            [
                partial(self.resolve_block, step.then or (), scope, step, ("then",)),
                partial(self.resolve_block, step.otherwise or (), scope, step, ("else",)),
            ]
        )
        otherwise = None if step.otherwise is None else refused
        return Lock(
            reference, mode, wait, then, otherwise, table, table_mode, step.sql, step.label, step.at("mode"),
            self._is_kept(step, family), step.on_connection,
            limit if wait is Wait.TIMEOUT else timeout_ms, family.capacity is None,
            table_before[0] if table_before else None,
        )  # fmt: skip

    def _check_word(self, step: LockStep) -> None:
        """Refuse a misspelt statement, which looks like a resource of that name."""
        if step.resource.partition("[")[0].strip() in self.families:
            return
        if word := closest(step.resource, STATEMENTS):
            hint = suggestion(step.resource, [word, *self.families])
            raise SpecError(step.at("mode"), f"{quote(step.resource)} is no resource and no statement; {hint}")

    @staticmethod
    def _timeout_ms(step: LockStep, family: Family, wait: Wait) -> float | None:
        """The step's own lock_timeout, if it has one."""
        own = duration_ms(step, "lock_timeout", step.lock_timeout)
        if own is not None and wait is not Wait.BLOCK:
            raise SpecError(step.at("lock_timeout"), f"a request with {wait} does not wait; drop this key")
        if own is not None and family.capacity is not None:
            raise SpecError(step.at("lock_timeout"), "Postgres knows nothing of a pool's waits; drop this key")
        return own

    def _check_otherwise(self, step: LockStep, family: Family, mode: str, wait: Wait, limit: float) -> None:
        """Refuse an `else` that is never come to, or that goes on in a transaction that has failed. `limit` is the lock_timeout, 0 if none."""
        if step.otherwise is None:
            return
        if wait is Wait.BLOCK and limit:
            message = (
                f"with a lock_timeout of {limit:g}ms and a deadlock_timeout of {self.deadlock_timeout_ms:g}ms a deadlock is "
                "reported first, and `else` is not modelled; make the lock_timeout shorter, or drop `else`"
            )
            raise SpecError(step.at("else"), message)
        if wait is Wait.BLOCK:
            ways = " or ".join(f"{mode} {way}" for way in family.kind.waits)
            message = (
                f"`else` is for a request that does not wait; {f'write {ways}, or drop it' if ways else 'drop it'}"
            )
            raise SpecError(step.at("else"), message)
        fails = wait is Wait.TIMEOUT or (wait is Wait.NOWAIT and family.kind.name in ("table", "row"))
        first = step.otherwise[0] if step.otherwise else None
        if fails and first != "rollback" and not isinstance(first, RollbackToStep):
            what = "NOWAIT fails" if wait is Wait.NOWAIT else "the lock_timeout has passed"
            message = f"when {what}, Postgres takes nothing but a rollback; begin `else` with `rollback to: SAVEPOINT` or `rollback`"
            raise SpecError(step.at("else"), message)

    def _table_modes(
        self, step: LockStep, scope: Scope, reference: Reference, table: Reference | None
    ) -> tuple[str, ...]:
        """The modes in which `table`, that of the row `reference`, is taken, in order."""
        if step.table_mode is None:
            statement = step.sql or scope.sql
            return table_modes(statement, self._names(reference, table)) if statement else (DEFAULT_TABLE_MODE,)
        position = step.at("table mode")
        if table is None:
            raise SpecError(position, f"{reference.family} names no table that it lives in; drop this key")
        mode, wait = self.lookup.mode(step.table_mode, table, position)
        if wait is not Wait.BLOCK:
            raise SpecError(position, f"NOWAIT is about the row, the table is always waited for; write {mode}")
        return (mode,)

    def _names(self, reference: Reference, table: Reference | None) -> frozenset[str]:
        """What SQL may call the table of `reference`: as the spec does, or as it is called in the database."""
        families = [reference.family] if table is None else [reference.family, table.family]
        told = [self.lookup.declared.spec.resources[family].stands_for for family in families]
        relations = [
            str(one.relation).rpartition(".")[2] for one in told if one is not None and one.relation is not None
        ]
        return frozenset((*families[1:], *relations))

    @staticmethod
    def _is_kept(step: LockStep, family: Family) -> bool:
        if step.until is not None and (family.session or family.capacity is not None):
            what = "a session lock" if family.session else "a unit of a pool"
            raise SpecError(step.at("until"), f"{what} can't be waited for without taking it; drop this key")
        return step.until is None
