"""The lock table: who holds what, and who waits in which order.

This is Postgres's first-come queue (src/backend/storage/lmgr: LockAcquireExtended in lock.c, JoinWaitQueue and ProcLockWakeup in
proc.c; ProcSleep was both before PostgreSQL 18): a request waits while another session *holds* a conflicting lock, or *waits* for
one further ahead in the queue. Who already holds a lock on the object that makes a waiter wait goes before that waiter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from lockmodel.lock_manager.objects import Lockable
from lockmodel.modes import KINDS

Session = int

_TABLE_MODES = KINDS["table"].modes
_FAST = frozenset(_TABLE_MODES[:3])
"""The modes that conflict with none of each other."""
_STRONG = frozenset(_TABLE_MODES[4:])
"""The modes that conflict with one of `_FAST`."""


class Answer(Enum):
    """What becomes of a request when it is made."""

    GRANTED = auto()
    WAITS = auto()
    REFUSED = auto()
    """It would have to wait, and must not."""
    DEADLOCK = auto()
    """It would wait for a session that waits for it on this very object; Postgres says so at once."""


@dataclass(frozen=True)
class Waiter:
    """A request in an object's queue. `held`: the modes that its session had there, as far as Postgres looked, when it began to wait."""

    session: Session
    object: Lockable
    mode: str
    held: frozenset[str]

    def conflicts_with(self, mode: str) -> bool:
        return self.object.kind.conflict(mode, self.mode)


@dataclass
class _Lock:
    holds: dict[Session, set[str]] = field(default_factory=dict)
    """By session, in the order in which they first asked; a waiter is here too, with what it has already."""
    queue: list[Waiter] = field(default_factory=list)
    fast: set[tuple[Session, str]] = field(default_factory=set)
    """Those of `holds` that only their own session knows of (Postgres's fast path)."""


class LockTable:
    """The locks of all sessions. Counts how often a session took a lock is not its matter: it holds it or not.

    `jumps`: whether a request that must not wait may go past the queue where a waiting one may, as it does from PostgreSQL 17 on.
    """

    def __init__(self, jumps: bool = True) -> None:
        self.waiting: dict[Session, Waiter] = {}
        self._jumps = jumps
        self._locks: dict[Lockable, _Lock] = {}

    def request(self, session: Session, obj: Lockable, mode: str, wait: bool = True) -> Answer:
        """Ask for a lock; `wait` is whether the session may be put into the queue."""
        lock = self._locks.setdefault(obj, _Lock())
        fast = self._takes_fast_path(obj, lock, mode)
        held = lock.holds.setdefault(session, set())
        request = Waiter(session, obj, mode, frozenset(have for have in held if (session, have) not in lock.fast))
        answer, place = self._place(lock, request)
        past_the_queue = answer is Answer.GRANTED and place is not None
        if not wait and (answer is not Answer.GRANTED or (past_the_queue and not self._jumps)):
            answer = Answer.REFUSED
        if answer is Answer.GRANTED:
            held.add(mode)
            if fast:
                lock.fast.add((session, mode))
        elif answer is Answer.WAITS:
            lock.queue.insert(len(lock.queue) if place is None else place, request)
            self.waiting[session] = request
        else:
            self._forget(obj, session)
        return answer

    @staticmethod
    def _takes_fast_path(obj: Lockable, lock: _Lock, mode: str) -> bool:
        """Whether Postgres would not put the lock into the lock table ("Fast Path Locking" in lmgr/README).

        It makes one difference: who holds such a lock, then waits for SHARE UPDATE EXCLUSIVE, is taken for one who holds nothing. A request
        for a strong mode brings all of them into the table, and as long as it waits or holds, none is taken.
        """
        if obj.kind.name != "table":
            return False
        if mode in _STRONG:
            lock.fast.clear()
        modes = {*(waiter.mode for waiter in lock.queue), *(have for modes in lock.holds.values() for have in modes)}
        return mode in _FAST and not modes & _STRONG

    def _place(self, lock: _Lock, request: Waiter) -> tuple[Answer, int | None]:
        """What becomes of `request`, and before which waiter it goes (None: the end of the queue)."""
        free = not any(request.conflicts_with(mode) for mode in self._held_by_others(lock, request.session))
        if free and not any(request.conflicts_with(waiter.mode) for waiter in lock.queue):
            return Answer.GRANTED, None
        for place, waiter in enumerate(lock.queue):
            if any(waiter.conflicts_with(mode) for mode in request.held):
                if any(request.conflicts_with(mode) for mode in waiter.held):
                    return Answer.DEADLOCK, place
                if free and not any(request.conflicts_with(ahead.mode) for ahead in lock.queue[:place]):
                    return Answer.GRANTED, place
                return Answer.WAITS, place
        return Answer.WAITS, None

    def release(self, session: Session, obj: Lockable, mode: str) -> list[Session]:
        """Give a lock back. Returns the sessions that got theirs by it, in the order of the queue."""
        lock = self._locks[obj]
        lock.holds[session].remove(mode)
        lock.fast.discard((session, mode))
        self._forget(obj, session)
        return self._wake(lock)

    def give_up(self, session: Session) -> list[Session]:
        """Take a session out of the queue in which it waits. Returns the sessions that got their locks by it."""
        waiter = self.waiting.pop(session)
        lock = self._locks[waiter.object]
        lock.queue.remove(waiter)
        self._forget(waiter.object, session)
        return self._wake(lock)

    def reorder(self, obj: Lockable, sessions: Sequence[Session]) -> list[Session]:
        """Give an object's queue another order. Returns the sessions that got their locks by it."""
        lock = self._locks[obj]
        lock.queue.sort(key=lambda waiter: sessions.index(waiter.session))
        return self._wake(lock)

    def _wake(self, lock: _Lock) -> list[Session]:
        """Grant whatever conflicts neither with a held lock nor with a request that stays further ahead."""
        woken: list[Session] = []
        stay: list[Waiter] = []
        for waiter in lock.queue:
            held = self._held_by_others(lock, waiter.session)
            if any(waiter.conflicts_with(mode) for mode in (*held, *(ahead.mode for ahead in stay))):
                stay.append(waiter)
                continue
            lock.holds[waiter.session].add(waiter.mode)
            del self.waiting[waiter.session]
            woken.append(waiter.session)
        lock.queue[:] = stay
        return woken

    def hard_blockers(self, waiter: Waiter) -> Iterator[Session]:
        """The sessions that hold what `waiter` waits for."""
        for session, modes in self._locks[waiter.object].holds.items():
            if session != waiter.session and any(waiter.conflicts_with(mode) for mode in modes):
                yield session

    def soft_blockers(self, waiter: Waiter, order: Iterable[Session] | None = None) -> Iterator[Session]:
        """The sessions ahead of `waiter` in the queue that ask for what conflicts; `order` stands for the queue's own."""
        for session in self.queue(waiter.object) if order is None else order:
            if session == waiter.session:
                return
            if waiter.conflicts_with(self.waiting[session].mode):
                yield session

    def blockers(self, session: Session) -> tuple[Session, ...]:
        """Whom `session` waits for, as pg_blocking_pids says it: those who hold it, then those ahead in the queue."""
        waiter = self.waiting.get(session)
        if waiter is None:
            return ()
        return tuple(dict.fromkeys((*self.hard_blockers(waiter), *self.soft_blockers(waiter))))

    def queue(self, obj: Lockable) -> tuple[Session, ...]:
        """The sessions that wait for `obj`, the next one first."""
        return tuple(waiter.session for waiter in self._locks[obj].queue) if obj in self._locks else ()

    def held(self, session: Session) -> frozenset[tuple[Lockable, str]]:
        return frozenset((obj, mode) for obj, lock in self._locks.items() for mode in lock.holds.get(session, ()))

    @staticmethod
    def _held_by_others(lock: _Lock, session: Session) -> Iterator[str]:
        return (mode for other, modes in lock.holds.items() if other != session for mode in modes)

    def _forget(self, obj: Lockable, session: Session) -> None:
        """Drop what is empty: a session that neither holds nor waits, an object that nobody wants."""
        lock = self._locks[obj]
        waits = session in self.waiting and self.waiting[session].object == obj
        if not lock.holds[session] and not waits:
            del lock.holds[session]
        if not lock.holds:
            del self._locks[obj]
