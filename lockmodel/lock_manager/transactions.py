"""Transactions and their savepoints: which ids they have, which still run, and which locks they give back when they end.

A savepoint begins a subtransaction. It gets an id of its own when it first locks or changes a row, and so does everything
around it, outermost first (AssignTransactionId in src/backend/access/transam/xact.c). What it locked goes back when it is rolled
back, and belongs to what is around it when it is released.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto

from lockmodel.lock_manager.objects import Lockable
from lockmodel.lock_manager.table import Session

SESSION_SCOPE = -1
"""The owner of locks that outlive their transaction; all others are owned by a level, 0 for the transaction itself."""


class Fate(Enum):
    RUNNING = auto()
    COMMITTED = auto()
    ABORTED = auto()


@dataclass
class Level:
    """A transaction, or within it what follows a savepoint."""

    savepoint: str | None = None
    xid: int | None = None
    released: list[int] = field(default_factory=list)
    """The ids of savepoints that were released into it; they share its fate."""

    @property
    def xids(self) -> list[int]:
        return self.released if self.xid is None else [self.xid, *self.released]


@dataclass
class Backend:
    """What one session has: its levels (none outside a transaction), and by lock the owners, one for each time it was taken."""

    levels: list[Level] = field(default_factory=list)
    owners: dict[tuple[Lockable, str], list[int]] = field(default_factory=dict)
    explicit: bool = False
    """Whether the transaction was begun, rather than being that of one statement."""
    failed: bool = False
    """Whether an error has rolled the innermost level back: only a rollback is possible now."""

    def disown(self, level: int) -> list[tuple[Lockable, str]]:
        """Drop `level` and all within it as owners. Returns the locks that have no owner left, which go back."""
        free = []
        for lock, owners in list(self.owners.items()):
            owners[:] = [owner for owner in owners if owner < level]
            if not owners:
                del self.owners[lock]
                free.append(lock)
        return free

    def hand_over(self, level: int) -> None:
        """Let what is around `level` own what `level` and all within it own."""
        for owners in self.owners.values():
            owners[:] = [min(owner, level - 1) for owner in owners]


class TransactionLog:
    """The fate of every transaction id. Ids are given out in ascending order."""

    def __init__(self) -> None:
        self._fates: list[Fate] = [Fate.COMMITTED]  # 0 is whatever was there before.
        self._sessions: list[Session] = [-1]
        self._tops: list[int] = [0]

    def begin(self, session: Session, top: int | None) -> int:
        """A new id for `session`: of a subtransaction of `top`, or (None) of a transaction."""
        xid = len(self._fates)
        self._fates.append(Fate.RUNNING)
        self._sessions.append(session)
        self._tops.append(xid if top is None else top)
        return xid

    def end(self, xid: int, fate: Fate) -> None:
        self._fates[xid] = fate

    def runs(self, xid: int) -> bool:
        return self._fates[xid] is Fate.RUNNING

    def committed(self, xid: int) -> bool:
        return self._fates[xid] is Fate.COMMITTED

    def aborted(self, xid: int) -> bool:
        return self._fates[xid] is Fate.ABORTED

    def is_own(self, session: Session, xid: int) -> bool:
        """Whether `xid` is the session's present transaction or a part of it that is not rolled back."""
        return self._sessions[xid] == session and self.runs(xid)

    def session(self, xid: int) -> Session:
        return self._sessions[xid]

    def top(self, xid: int) -> int:
        """The transaction that `xid` is, or is a part of."""
        return self._tops[xid]
