"""Locking, updating and deleting rows, as Postgres does it in src/backend/access/heap (heapam.c, heapam_handler.c).

A row is taken in two steps. What is compatible with everybody in the version's xmax is taken at once, past anybody who waits. Who has to wait
takes his place in the version's queue first (the tuple lock) and, once at its head, waits for the transactions in the xmax, one after
the other. So only the head of the queue waits for a transaction, all others wait for the head. Who has a weaker lock on the row already does not
queue. If the row was updated meanwhile, the game begins again with the newer version, in a queue of its own.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager

from lockmodel.lock_manager.backends import Backends, Refused, Steps
from lockmodel.lock_manager.objects import Row, RowVersion
from lockmodel.lock_manager.rows import (
    KEY_SHARE,
    NO_KEY_UPDATE,
    SHARE,
    UPDATE,
    Found,
    Heap,
    Member,
    Version,
    Xmax,
    strength,
)
from lockmodel.lock_manager.table import Session
from lockmodel.modes import Wait

_Finding = Generator[None, None, Found]


class RowLocks:
    """The statements on rows. Each is a generator as in `Backends`; its value is whether there was a row that it got."""

    def __init__(self, backends: Backends) -> None:
        self._backends = backends
        self._heap = Heap(backends.log)
        self._attempts: dict[Session, _Attempt] = {}

    def lock(self, session: Session, row: Row, mode: str, policy: Wait) -> Steps:
        """SELECT … FOR `mode`. False: the row is deleted, or skipped. Raises Refused and DeadlockDetected."""
        version = self._heap.visible(session, row)
        if version is None:
            return False
        attempt = _Attempt(self._backends, self._heap, session, row, mode, policy)
        with self._attempting(session, attempt):
            yield
            found, _ = yield from attempt.lock_latest(version, follow=True)
            return found is Found.OK

    def change(self, session: Session, row: Row, key: bool, delete: bool = False) -> Steps:
        """UPDATE of the row, of its key or not, or its DELETE. False: the row is deleted."""
        version = self._heap.visible(session, row)
        if version is None:
            return False
        mode = UPDATE if key or delete else NO_KEY_UPDATE
        attempt = _Attempt(self._backends, self._heap, session, row, mode, Wait.BLOCK)
        with self._attempting(session, attempt):
            while True:
                yield
                found = yield from attempt.change(version, delete)
                if found is Found.UPDATED:
                    # Somebody else's update was committed: lock what it left, then change that.
                    yield
                    found, version = yield from attempt.lock_latest(version, follow=False)
                    if found is Found.OK:
                        continue
                return found is Found.OK

    def holders(self, session: Session) -> tuple[Session, ...] | None:
        """Who has the row that `session` wants, in a mode that conflicts; None if it wants none."""
        attempt = self._attempts.get(session)
        return None if attempt is None else tuple(attempt.holders())

    @contextmanager
    def _attempting(self, session: Session, attempt: _Attempt) -> Iterator[None]:
        self._attempts[session] = attempt
        try:
            yield
        finally:
            del self._attempts[session]


class _Attempt:
    """One statement's attempt on one row."""

    def __init__(self, backends: Backends, heap: Heap, session: Session, row: Row, mode: str, policy: Wait) -> None:
        self._backends = backends
        self._heap = heap
        self._log = backends.log
        self._session = session
        self._row = row
        self._mode = mode
        self._policy = policy
        self._version: Version | None = None
        self._queued: RowVersion | None = None

    def holders(self) -> Iterator[Session]:
        """Who has the version that this is about now, in a mode that conflicts."""
        xmax = None if self._version is None else self._version.xmax
        members = () if xmax is None else xmax.members
        in_the_way = (m.xid for m in members if m.conflicts_with(self._mode) and self._log.runs(m.xid))
        return iter(dict.fromkeys(s for xid in in_the_way if (s := self._log.session(xid)) != self._session))

    # The queue and the waits in it

    def _take(self, taking: Steps) -> Steps:
        """Do what may wait; False: SKIP LOCKED, and it would. Raises Refused for NOWAIT."""
        got = yield from taking
        if not got and self._policy is Wait.NOWAIT:
            raise Refused
        return got

    def _join_queue(self, version: Version) -> Steps:
        """Take the version's tuple lock, which stays ours until the version is locked (heap_acquire_tuplock)."""
        if self._queued is None:
            place = RowVersion(self._row, version.number)
            taking = self._backends.acquire(self._session, place, self._mode, self._policy is Wait.BLOCK)
            if not (yield from self._take(taking)):
                return False
            self._queued = place
        return True

    def _leave_queue(self) -> None:
        if self._queued is not None:
            self._backends.release(self._session, self._queued, self._mode)
            self._queued = None

    def _wait_for(self, xmax: Xmax) -> Steps:
        """Wait for all in `xmax` that are in the way (XactLockTableWait, MultiXactIdWait)."""
        for member in xmax.members:
            if xmax.multi and (self._is_own(member) or not member.conflicts_with(self._mode)):
                continue
            if not (yield from self._wait_for_end(member.xid)):
                return False
        return True

    def _wait_for_end(self, xid: int) -> Steps:
        waiting = self._backends.wait_for_end(self._session, xid, self._policy is Wait.BLOCK)
        return (yield from self._take(waiting))

    def _is_own(self, member: Member) -> bool:
        return self._log.is_own(self._session, member.xid)

    def _mark(self, version: Version, *, changed: bool) -> None:
        """Write ourselves into the version's xmax."""
        member = Member(self._backends.xid(self._session), changed, strength(self._mode))
        version.xmax = self._heap.add(version.xmax, member)

    # SELECT … FOR UPDATE and the like

    def lock_latest(self, version: Version, follow: bool) -> Generator[None, None, tuple[Found, Version]]:
        """Lock `version`, or what has taken its place by now (heapam_tuple_lock). Says which version it is.

        `follow`: whether the versions that took the place of one that could be locked all the same are to be locked too.
        """
        while True:
            found = yield from self._lock(version, follow)
            if found is not Found.UPDATED:
                return found, version
            while True:
                yield
                assert version.xmax is not None
                prior, newer = version.xmax.updater, version.next
                if newer is None or newer.xmin != prior:
                    return Found.DELETED, version
                version = self._version = newer
                while (updater := self._running_updater(version)) is not None:
                    if not (yield from self._wait_for_end(updater)):
                        return Found.WOULD_BLOCK, version
                if self._heap.only_locked(version):
                    yield
                    break
                if version.next is None:
                    return Found.DELETED, version

    def _running_updater(self, version: Version) -> int | None:
        updater = None if version.xmax is None else version.xmax.updater
        return updater if updater is not None and self._log.runs(updater) else None

    def _lock(self, version: Version, follow: bool) -> _Finding:
        """Lock this very version (heap_lock_tuple)."""
        self._version = version
        found, enough = yield from self._try_lock(version, follow)
        if found is Found.OK and not enough:
            self._mark(version, changed=False)
            yield
        self._leave_queue()
        return found

    def _try_lock(self, version: Version, follow: bool) -> Generator[None, None, tuple[Found, bool]]:
        """Wait until the version can be locked; also says whether what we have already is enough."""
        while True:
            found = self._heap.look(version)
            if found is Found.OK:
                return found, False
            # As they are now: later they may be other ones.
            xmax, successor = version.xmax, version.next
            assert xmax is not None
            own = list(self._heap.own(self._session, xmax))
            if any(member.strength >= strength(self._mode) for member in own):
                return Found.OK, True
            if self._mode == KEY_SHARE and not xmax.key_changed:
                updated = not xmax.locked_only
                if follow and (later := (yield from self._lock_later(xmax, successor))) is not Found.OK:
                    return later, False
                if not self._heap.only_locked(version) and (not updated or (version.xmax or xmax).key_changed):
                    continue
                return Found.OK, False
            if self._free_at_once(xmax):
                return Found.OK, False
            if found in (Found.UPDATED, Found.DELETED):
                return found, False
            # Who has a weaker lock and queued here could wait for somebody in the queue who waits for him.
            if not own and not (yield from self._join_queue(version)):
                return Found.WOULD_BLOCK, False
            if not (yield from self._wait_for(xmax)):
                return Found.WOULD_BLOCK, False
            if follow and (later := (yield from self._lock_later(xmax, successor))) is not Found.OK:
                return later, False
            if version.xmax == xmax:
                return (Found.OK if self._heap.only_locked(version) else self._heap.replaced(version)), False

    def _free_at_once(self, xmax: Xmax) -> bool:
        """Whether nobody in `xmax`, or in what is written there, makes us wait."""
        if not xmax.multi and self._is_own(xmax.single):
            return True
        if self._mode == SHARE:
            return xmax.shared_only
        if self._mode == NO_KEY_UPDATE:
            if xmax.multi:
                return not self._heap.conflict(self._session, xmax, self._mode)
            return not xmax.single.changed and xmax.single.mode == KEY_SHARE
        return False

    def _lock_later(self, xmax: Xmax, later: Version | None) -> _Finding:
        """Lock `later`, by which the updater in `xmax` has replaced a version, and what came after it (heap_lock_updated_tuple).

        There is no queue here, and it waits even under NOWAIT and SKIP LOCKED.
        """
        if later is None or xmax.locked_only:
            return Found.OK
        xid = self._backends.xid(self._session)
        prior = xmax.updater
        while later is not None and later.xmin == prior and not self._log.aborted(later.xmin):
            self._version = later
            verdict = yield from self._test(later)
            if verdict is not Found.OK:
                return verdict
            if later.xmax is None or not any(self._is_own(member) for member in later.xmax.members):
                later.xmax = self._heap.add(later.xmax, Member(xid, False, strength(self._mode)))
            if later.xmax.updater is None or self._log.aborted(later.xmax.updater):
                break
            prior, later = later.xmax.updater, later.next
            yield
        return Found.OK

    def _test(self, version: Version) -> _Finding:
        """Wait for all who are in the way on a later version; not OK if one of them changed it and has committed."""
        while True:
            xmax = version.xmax
            waited = False
            for member in () if xmax is None else xmax.members:
                if self._is_own(member):
                    return Found.OK
                if member.conflicts_with(self._mode):
                    if self._log.runs(member.xid):
                        waited = yield from self._backends.wait_for_end(self._session, member.xid)
                        break
                    if member.changed and self._log.committed(member.xid):
                        return self._heap.replaced(version)
            if not waited:
                return Found.OK

    # UPDATE and DELETE

    def change(self, version: Version, delete: bool) -> _Finding:
        """Update or delete this very version (heap_update, heap_delete)."""
        self._version = version
        xid = self._backends.xid(self._session)
        found, kept = yield from self._try_change(version)
        if found is Found.OK:
            self._mark(version, changed=True)
            if delete:
                version.next = None
            else:
                version.next = self._heap.new_version(xid)
                version.next.xmax = kept
            yield
        self._leave_queue()
        return found

    def _try_change(self, version: Version) -> Generator[None, None, tuple[Found, Xmax | None]]:
        """Wait until the version can be changed; also says which locks on it hold for its successor as well."""
        while True:
            found = self._heap.look(version)
            xmax = version.xmax
            if found is not Found.BEING_MODIFIED:
                return found, None
            assert xmax is not None
            if xmax.multi:
                if self._heap.conflict(self._session, xmax, self._mode):
                    if not any(self._heap.own(self._session, xmax)):
                        yield from self._join_queue(version)
                    yield from self._wait_for(xmax)
                    if version.xmax != xmax:
                        continue
                return (Found.OK if self._heap.only_locked(version) else self._heap.replaced(version)), xmax
            if self._is_own(xmax.single) or (
                self._mode == NO_KEY_UPDATE and not xmax.single.changed and xmax.single.mode == KEY_SHARE
            ):
                lock = Member(xmax.single.xid, False, strength(KEY_SHARE))
                return Found.OK, Xmax((lock,), multi=False)
            yield from self._join_queue(version)
            yield from self._wait_for(xmax)
            if version.xmax == xmax:
                return (Found.OK if self._heap.only_locked(version) else self._heap.replaced(version)), None
