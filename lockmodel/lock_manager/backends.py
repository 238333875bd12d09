"""The sessions: how each takes and gives back locks, and what remains of them when something is rolled back.

Taking a lock is a generator that pauses: it yields wherever another session may run meanwhile, and whoever drives it goes on with it
once its session does not wait (any more). So a statement that waits three times in its course is written like one that never does.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator, Iterable

from lockmodel.lock_manager.objects import Lockable, Table, Transaction
from lockmodel.lock_manager.table import Answer, LockTable, Session
from lockmodel.lock_manager.transactions import Backend, Fate, Level, TransactionLog
from lockmodel.modes import EXCLUSIVE, SHARED

Steps = Generator[None, None, bool]


class Refused(Exception):
    """SQLSTATE 55P03: a lock is not to be had at once, and the statement said NOWAIT."""


class DeadlockDetected(Exception):
    """SQLSTATE 40P01, at once: the session would wait for one that waits for it on the same object."""


class Backends:
    """All sessions and their locks. `woken` collects those whose waiting is over, in the order in which they were woken.

    `standby`: whether ACCESS EXCLUSIVE locks are logged for standby servers, which takes a transaction id.
    """

    def __init__(self, table: LockTable, log: TransactionLog, standby: bool) -> None:
        self._standby = standby
        self.table = table
        self.log = log
        self.woken: list[Session] = []
        self._backends: defaultdict[Session, Backend] = defaultdict(Backend)

    def __getitem__(self, session: Session) -> Backend:
        return self._backends[session]

    def acquire(self, session: Session, obj: Lockable, mode: str, wait: bool = True, owner: int | None = None) -> Steps:
        """Take a lock; False if it is not free and the session must not wait. Raises DeadlockDetected."""
        backend = self[session]
        lock = (obj, mode)
        if lock not in backend.owners:
            if self._standby and isinstance(obj, Table) and mode == "ACCESS EXCLUSIVE":
                self.xid(session)
            answer = self.table.request(session, obj, mode, wait)
            if answer is Answer.REFUSED:
                return False
            if answer is Answer.DEADLOCK:
                raise DeadlockDetected
            yield
        backend.owners.setdefault(lock, []).append(len(backend.levels) - 1 if owner is None else owner)
        return True

    def release(self, session: Session, obj: Lockable, mode: str, owner: int | None = None) -> bool:
        """Give back what was taken once; False if `owner` (by default the innermost level) has no such lock."""
        backend = self[session]
        owners = backend.owners.get((obj, mode), [])
        level = len(backend.levels) - 1 if owner is None else owner
        if level not in owners:
            return False
        owners.remove(level)
        if not owners:
            del backend.owners[(obj, mode)]
            self.woken += self.table.release(session, obj, mode)
        return True

    def xid(self, session: Session) -> int:
        """The id of the innermost level; it and all around it get one if they have none yet."""
        levels = self[session].levels
        for number, level in enumerate(levels):
            if level.xid is None:
                level.xid = self.log.begin(session, levels[0].xid if number else None)
                own = Transaction(level.xid)
                answer = self.table.request(session, own, EXCLUSIVE)
                assert answer is Answer.GRANTED
                self[session].owners[(own, EXCLUSIVE)] = [number]
        xid = levels[-1].xid
        assert xid is not None
        return xid

    def wait_for_end(self, session: Session, xid: int, wait: bool = True) -> Steps:
        """Wait until `xid` has ended; False if it has not and the session must not wait (XactLockTableWait in lmgr.c).

        A subtransaction gives its lock up when it is released or rolled back. If it was released, it lives on in its transaction.
        """
        while True:
            if not (yield from self.acquire(session, Transaction(xid), SHARED, wait)):
                return False
            self.release(session, Transaction(xid), SHARED)
            if not self.log.runs(xid):
                return True
            xid = self.log.top(xid)

    def begin_level(self, session: Session, savepoint: str | None = None) -> None:
        self[session].levels.append(Level(savepoint))

    def roll_back(self, session: Session, level: int) -> None:
        """Undo `level` and all within it. The level itself is left, as new."""
        levels = self[session].levels
        self._end(levels[level:], Fate.ABORTED)
        levels[level:] = [Level(levels[level].savepoint)]
        self._give_back(session, level)

    def release_savepoint(self, session: Session, level: int) -> None:
        """Make `level` and all within it a part of what is around them. Who waits for their ids now waits for the transaction's."""
        backend = self[session]
        for number in reversed(range(level, len(backend.levels))):
            inner = backend.levels[number]
            if inner.xid is not None:
                self.release(session, Transaction(inner.xid), EXCLUSIVE, number)
            backend.levels[level - 1].released += inner.xids
        del backend.levels[level:]
        backend.hand_over(level)

    def end(self, session: Session, fate: Fate) -> None:
        """End the transaction: all its locks go back but those of session scope."""
        backend = self[session]
        self._end(backend.levels, fate)
        backend.levels.clear()
        backend.explicit = backend.failed = False
        self._give_back(session, 0)

    def _end(self, levels: Iterable[Level], fate: Fate) -> None:
        for xid in (xid for level in levels for xid in level.xids):
            self.log.end(xid, fate)

    def _give_back(self, session: Session, level: int) -> None:
        for obj, mode in self[session].disown(level):
            self.woken += self.table.release(session, obj, mode)
