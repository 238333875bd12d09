"""The lock manager: what sessions do with locks, one call for each statement, and what becomes of everybody by it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import StrEnum

from lockmodel.lock_manager.backends import Backends, DeadlockDetected, Refused, Steps
from lockmodel.lock_manager.detector import Cycle, Rearrangement, look
from lockmodel.lock_manager.keys import Duplicate, Keys
from lockmodel.lock_manager.objects import Advisory, Key, Lockable, Row, Table
from lockmodel.lock_manager.row_locks import RowLocks
from lockmodel.lock_manager.table import LockTable, Session, Waiter
from lockmodel.lock_manager.transactions import SESSION_SCOPE, Fate, TransactionLog
from lockmodel.modes import Wait


class Outcome(StrEnum):
    """What became of a session's last statement."""

    GRANTED = "granted"
    WAITS = "waits"
    SKIPPED = "skipped"
    """It took nothing and goes on: SKIP LOCKED or a try function where it would have waited, a row that is deleted, DO NOTHING."""
    REFUSED = "refused"
    """SQLSTATE 55P03, lock_not_available: NOWAIT where it would have waited."""
    DEADLOCK = "deadlock"
    """SQLSTATE 40P01, deadlock_detected."""
    DUPLICATE = "duplicate"
    """SQLSTATE 23505, unique_violation: an INSERT of a key that is there."""
    CANCELLED = "cancelled"
    """It waited and gave up: lock_timeout, statement_timeout or a cancel request."""

    @property
    def failed(self) -> bool:
        return self not in (Outcome.GRANTED, Outcome.WAITS, Outcome.SKIPPED)


def in_order(_count: int) -> int:
    """The usual choice of whom to run: who was woken first, until it waits again or is done."""
    return 0


class LockManager:
    """Postgres's locks, for sessions that are numbers.

    A session that has not called `begin` is in a transaction of one statement, as in Postgres: what it locks goes back when the statement is done
    (but for session-scope advisory keys). An error rolls the innermost savepoint back, or the transaction; then only `rollback_to` and `end` are possible.

    `server_version`: the major version of Postgres. `standby`: whether its wal_level is replica (the default of a server) or logical, rather than
    minimal; then LOCK TABLE … ACCESS EXCLUSIVE takes a transaction id, and those who share a row are waited for in the order of their ids.
    `choose`: several sessions may run at the same moment, after they were woken by one commit; it
    is asked which of that many goes on, with each step of one. Every answer is a possible course of events. `alert`: the sessions with a short
    deadlock_timeout, whose checks come by themselves; usually once nobody runs, but `choose` may let one come before.
    """

    def __init__(
        self,
        server_version: int = 18,
        standby: bool = True,
        choose: Callable[[int], int] = in_order,
        alert: Iterable[Session] = (),
    ) -> None:
        # "Allow a no-wait lock acquisition to succeed in more cases", PostgreSQL 17.
        self._table = LockTable(jumps=server_version >= 17)
        self._backends = Backends(self._table, TransactionLog(), standby)
        self._rows = RowLocks(self._backends)
        self._keys = Keys(self._backends)
        self._choose = choose
        self._running: dict[Session, Steps] = {}
        self._outcomes: dict[Session, Outcome] = {}
        self._alert = tuple(sorted(alert))
        self._checked: dict[Session, Waiter] = {}
        self.findings: list[Cycle | Rearrangement] = []
        """What all deadlock checks have found so far."""

    # Statements

    def begin(self, session: Session) -> None:
        """BEGIN."""
        assert not self._backends[session].levels, f"session {session} is in a transaction"
        self._backends.begin_level(session)
        self._backends[session].explicit = True

    def request(
        self,
        session: Session,
        obj: Table | Advisory | Row,
        mode: str,
        wait: Wait = Wait.BLOCK,
        session_scope: bool = False,
    ) -> Outcome:
        """Ask for a lock in one of the modes of `obj`. `session_scope` is for advisory keys."""
        if isinstance(obj, Row):
            return self._start(session, self._lock_row(session, obj, mode, wait))
        return self._start(session, self._lock(session, obj, mode, wait, SESSION_SCOPE if session_scope else None))

    def update(self, session: Session, row: Row, key: bool = False) -> Outcome:
        """UPDATE of one row; `key`: of a column that a foreign key might refer to."""
        return self._start(session, self._change_row(session, row, key, delete=False))

    def delete(self, session: Session, row: Row) -> Outcome:
        """DELETE of one row."""
        return self._start(session, self._change_row(session, row, key=True, delete=True))

    def insert(self, session: Session, key: Key, do_nothing: bool = False) -> Outcome:
        """INSERT of one key of a unique index; `do_nothing`: with ON CONFLICT DO NOTHING."""
        return self._start(session, self._insert_key(session, key, do_nothing))

    def unlock(self, session: Session, key: Advisory, mode: str) -> bool:
        """pg_advisory_unlock: give a session-scope key back that was taken once more than given back. False: there is none."""
        freed = self._backends.release(session, key, mode, SESSION_SCOPE)
        self._outcomes[session] = Outcome.GRANTED
        self._run()
        return freed

    def savepoint(self, session: Session, name: str) -> None:
        """SAVEPOINT."""
        assert self._backends[session].explicit and not self._backends[session].failed
        self._backends.begin_level(session, name)

    def rollback_to(self, session: Session, name: str) -> None:
        """ROLLBACK TO SAVEPOINT: what was locked since is free. The savepoint stays."""
        self._backends.roll_back(session, self._level_of(session, name))
        self._backends[session].failed = False
        self._run()

    def release_savepoint(self, session: Session, name: str) -> None:
        """RELEASE SAVEPOINT: what was locked since belongs to what is around it."""
        assert not self._backends[session].failed
        self._backends.release_savepoint(session, self._level_of(session, name))
        self._run()

    def end(self, session: Session, commit: bool = True) -> None:
        """COMMIT or ROLLBACK; after an error COMMIT is a ROLLBACK too."""
        assert session not in self._running, f"session {session} waits"
        fate = Fate.COMMITTED if commit and not self._backends[session].failed else Fate.ABORTED
        self._backends.end(session, fate)
        self._run()

    def give_up(self, session: Session) -> None:
        """End the wait of `session` with an error: its lock_timeout has passed, or its statement was cancelled."""
        self._fail(session, Outcome.CANCELLED)
        self._run()

    def deadlock(self, session: Session) -> Cycle | Rearrangement | None:
        """The deadlock check of a session, if it waits, which Postgres makes once in each wait, deadlock_timeout after it began.

        A deadlock is the end of the session's statement, with 40P01. A rearrangement of queues is done.
        """
        if not self.waits(session):
            return None
        finding = self._check(session)
        self._run()
        return finding

    # Questions

    def outcome(self, session: Session) -> Outcome:
        """What became of the session's last lock request."""
        return self._outcomes[session]

    def waits(self, session: Session) -> bool:
        return session in self._table.waiting

    def awaited(self, session: Session) -> Waiter | None:
        """What `session` waits for: for a row, a place in its queue or the end of a transaction that has it.

        Each wait has a `Waiter` of its own, so that one can be told from the next by identity.
        """
        return self._table.waiting.get(session)

    def blockers(self, session: Session) -> tuple[Session, ...]:
        """Whom `session` waits for: who holds what it wants, and who is ahead in the queue with a request that conflicts.

        As pg_blocking_pids says it.
        """
        return self._table.blockers(session)

    def holders(self, session: Session) -> tuple[Session, ...]:
        """Who holds what `session` waits for, in a mode that conflicts: for a row, those who have it, not those who queue for it.

        Nobody: if `session` waits, it does so only behind another request.
        """
        waiter = self._table.waiting.get(session)
        if waiter is None:
            return ()
        of_row = self._rows.holders(session)
        return tuple(self._table.hard_blockers(waiter)) if of_row is None else of_row

    def held(self, session: Session) -> frozenset[tuple[Lockable, str]]:
        """The locks of `session` that are in the lock table. Rows are not, but the place of a waiter at the head of a row's queue is."""
        return self._table.held(session)

    def queue(self, obj: Lockable) -> tuple[Session, ...]:
        """The sessions that wait for `obj`, the next one first."""
        return self._table.queue(obj)

    # Running statements

    def _lock(self, session: Session, obj: Lockable, mode: str, wait: Wait, owner: int | None) -> Steps:
        got = yield from self._backends.acquire(session, obj, mode, wait is Wait.BLOCK, owner)
        if not got and wait is Wait.NOWAIT:
            raise Refused
        return got

    def _lock_row(self, session: Session, row: Row, mode: str, wait: Wait) -> Steps:
        if row.table is not None:
            # NOWAIT and SKIP LOCKED speak of the row, not of its table.
            yield from self._backends.acquire(session, row.table, "ROW SHARE")
        return (yield from self._rows.lock(session, row, mode, wait))

    def _change_row(self, session: Session, row: Row, key: bool, delete: bool) -> Steps:
        if row.table is not None:
            yield from self._backends.acquire(session, row.table, "ROW EXCLUSIVE")
        return (yield from self._rows.change(session, row, key, delete))

    def _insert_key(self, session: Session, key: Key, do_nothing: bool) -> Steps:
        if key.table is not None:
            yield from self._backends.acquire(session, key.table, "ROW EXCLUSIVE")
        return (yield from self._keys.insert(session, key, do_nothing))

    def _start(self, session: Session, statement: Steps) -> Outcome:
        backend = self._backends[session]
        assert session not in self._running and not backend.failed, f"session {session} can't run a statement now"
        if not backend.levels:
            self._backends.begin_level(session)
        self._running[session] = statement
        self._outcomes[session] = Outcome.WAITS
        self._backends.woken.append(session)
        self._run()
        return self._outcomes[session]

    def _run(self) -> None:
        """Let everybody go on who does not wait, and the deadlock checks come, until all wait or are done."""
        ready = self._backends.woken
        while count := len(ready) + len(due := [session for session in self._alert if self._is_due(session)]):
            number = self._choose(count) if count > 1 else 0
            if number >= len(ready):
                self._check(due[number - len(ready)])
                continue
            session = ready.pop(number)
            # Before the step, which may wake others: whoever ran last is the first to choose from.
            ready.insert(0, session)
            if not self._step(session) or self.waits(session):
                ready.remove(session)

    def _is_due(self, session: Session) -> bool:
        waiter = self._table.waiting.get(session)
        return waiter is not None and self._checked.get(session) is not waiter

    def _check(self, session: Session) -> Cycle | Rearrangement | None:
        self._checked[session] = self._table.waiting[session]
        finding = look(self._table, session)
        if isinstance(finding, Cycle):
            self._fail(session, Outcome.DEADLOCK)
        elif isinstance(finding, Rearrangement):
            for obj, order in finding.orders.items():
                self._backends.woken += self._table.reorder(obj, order)
        if finding is not None:
            self.findings.append(finding)
        return finding

    def _step(self, session: Session) -> bool:
        """Let `session` run up to its next lock; False if its statement is over."""
        try:
            next(self._running[session])
        except StopIteration as done:
            self._finish(session, Outcome.GRANTED if done.value else Outcome.SKIPPED)
        except Refused:
            self._fail(session, Outcome.REFUSED)
        except DeadlockDetected:
            self._fail(session, Outcome.DEADLOCK)
        except Duplicate:
            self._fail(session, Outcome.DUPLICATE)
        else:
            return True
        return False

    def _finish(self, session: Session, outcome: Outcome) -> None:
        del self._running[session]
        self._outcomes[session] = outcome
        if not self._backends[session].explicit:
            self._backends.end(session, Fate.COMMITTED)

    def _fail(self, session: Session, outcome: Outcome) -> None:
        """End the session's statement with an error, which rolls the innermost savepoint back, or all."""
        self._running.pop(session).close()
        self._outcomes[session] = outcome
        if self.waits(session):
            self._backends.woken += self._table.give_up(session)
        backend = self._backends[session]
        if backend.explicit:
            self._backends.roll_back(session, len(backend.levels) - 1)
            backend.failed = True
        else:
            self._backends.end(session, Fate.ABORTED)

    def _level_of(self, session: Session, savepoint: str) -> int:
        levels = self._backends[session].levels
        return max(number for number, level in enumerate(levels) if level.savepoint == savepoint)
