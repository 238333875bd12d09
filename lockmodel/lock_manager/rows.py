"""Rows as chains of versions, and what is written in a version about who locked or changed it.

Postgres keeps row locks in the row: a version's *xmax* names the transaction that locked, updated or deleted it, or several of them (a
*multixact*). It is not cleaned up when they end; whoever comes next sees from their fate what it still means. (src/backend/access/heap:
README.tuplock, heapam_visibility.c, compute_new_xmax_infomask in heapam.c; src/backend/access/transam/multixact.c.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import NamedTuple

from lockmodel.lock_manager.objects import Row
from lockmodel.lock_manager.table import Session
from lockmodel.lock_manager.transactions import TransactionLog
from lockmodel.modes import KINDS

_KIND = KINDS["row"]
KEY_SHARE, SHARE, NO_KEY_UPDATE, UPDATE = _KIND.modes


def strength(mode: str) -> int:
    """The place of `mode` among the row modes, the weakest first."""
    return _KIND.modes.index(mode)


class Member(NamedTuple):
    """One transaction in an xmax: in which mode it locked the version, and whether it also changed it.

    In the order in which Postgres keeps the members of a multixact: by id, then locks before changes.
    """

    xid: int
    changed: bool
    strength: int

    @property
    def mode(self) -> str:
        return _KIND.modes[self.strength]

    def conflicts_with(self, mode: str) -> bool:
        return _KIND.conflict(self.mode, mode)


@dataclass(frozen=True)
class Xmax:
    """Who locked or changed a version. `multi`: whether it is written as a multixact, maybe with one member only.

    Members stay after they have ended, so `locked_only` and the like speak of what was written, not of what is still so.
    """

    members: tuple[Member, ...]
    multi: bool

    @property
    def single(self) -> Member:
        assert not self.multi
        return self.members[0]

    @property
    def updater(self) -> int | None:
        """The transaction that changed the version."""
        return next((member.xid for member in self.members if member.changed), None)

    @property
    def locked_only(self) -> bool:
        return self.updater is None

    @property
    def key_changed(self) -> bool:
        """Whether the key was changed, the row deleted, or either made ready for by FOR UPDATE."""
        return any(member.mode == UPDATE for member in self.members)

    @property
    def shared_only(self) -> bool:
        """Whether nobody in it is in the way of FOR SHARE."""
        return self.locked_only and not any(member.conflicts_with(SHARE) for member in self.members)


@dataclass
class Version:
    """One version of a row: the transaction that wrote it, who locked or changed it, and the version that took its place."""

    number: int
    xmin: int
    xmax: Xmax | None = None
    next: Version | None = None


class Found(Enum):
    """What a version is to somebody who wants to lock or change it, and what comes of trying."""

    OK = auto()
    BEING_MODIFIED = auto()
    """Somebody who still runs has locked or changed it."""
    UPDATED = auto()
    DELETED = auto()
    WOULD_BLOCK = auto()


@dataclass
class Heap:
    """All rows. A row exists from the first time it is named."""

    log: TransactionLog
    _first: dict[Row, Version] = field(default_factory=dict)
    _count: int = 0

    def new_version(self, xmin: int) -> Version:
        self._count += 1
        return Version(self._count, xmin)

    def visible(self, session: Session, row: Row) -> Version | None:
        """The version that a statement of `session` sees if it begins now (READ COMMITTED); None: the row is deleted."""
        if row not in self._first:
            self._first[row] = self.new_version(0)
        version: Version | None = self._first[row]
        while version is not None and version.xmax is not None:
            updater = version.xmax.updater
            if updater is None or not (self.log.committed(updater) or self.log.is_own(session, updater)):
                break
            version = version.next
        return version

    def look(self, version: Version) -> Found:
        """What `version` is to somebody who has not changed it himself (HeapTupleSatisfiesUpdate)."""
        xmax = version.xmax
        if xmax is None:
            return Found.OK
        if any(self.log.runs(member.xid) for member in xmax.members):
            return Found.BEING_MODIFIED
        if xmax.updater is None or not self.log.committed(xmax.updater):
            return Found.OK
        return self.replaced(version)

    @staticmethod
    def replaced(version: Version) -> Found:
        return Found.DELETED if version.next is None else Found.UPDATED

    def only_locked(self, version: Version) -> bool:
        """Whether nobody has changed `version`, or only somebody who was rolled back."""
        updater = None if version.xmax is None else version.xmax.updater
        return updater is None or self.log.aborted(updater)

    def own(self, session: Session, xmax: Xmax) -> Iterator[Member]:
        return (member for member in xmax.members if self.log.is_own(session, member.xid))

    def conflict(self, session: Session, xmax: Xmax, mode: str) -> bool:
        """Whether another transaction in the multixact `xmax` is in the way of `mode` (DoesMultiXactIdConflict)."""
        return any(
            member.conflicts_with(mode)
            and not self.log.is_own(session, member.xid)
            and (not self.log.aborted(member.xid) if member.changed else self.log.runs(member.xid))
            for member in xmax.members
        )

    def add(self, xmax: Xmax | None, new: Member) -> Xmax:
        """The xmax once `new` is added to it; what means nothing any more is left out."""
        alone = Xmax((new,), multi=False)
        if xmax is None:
            return alone
        alive = [member for member in xmax.members if self._matters(member)]
        if xmax.multi:
            if not alive:
                return alone
            return xmax if new in xmax.members else Xmax(tuple(sorted((*alive, new))), multi=True)
        if not alive:
            return alone
        if xmax.single.xid == new.xid:
            return Xmax((new._replace(strength=max(new.strength, xmax.single.strength)),), multi=False)
        return Xmax(tuple(sorted((xmax.single, new))), multi=True)

    def _matters(self, member: Member) -> bool:
        return self.log.runs(member.xid) or (member.changed and self.log.committed(member.xid))
