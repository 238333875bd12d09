"""Keys of a unique index, and who waits for whom to insert one.

Two transactions may not insert the same key. Who comes second waits for the first to end: if it commits the key is taken, if not the
second may have it. There is no queue: of several who wait, whoever is quicker gets it (_bt_doinsert in src/backend/access/nbtree/nbtinsert.c).
"""

from __future__ import annotations

from lockmodel.lock_manager.backends import Backends, Steps
from lockmodel.lock_manager.objects import Key
from lockmodel.lock_manager.table import Session


class Duplicate(Exception):
    """SQLSTATE 23505: the key is there."""


class Keys:
    """The keys that sessions insert. The statements are generators as in `Backends`; True: the key was inserted."""

    def __init__(self, backends: Backends) -> None:
        self._backends = backends
        self._inserted: dict[Key, int] = {}
        """By key, the transaction that inserted it last."""

    def insert(self, session: Session, key: Key, do_nothing: bool) -> Steps:
        """INSERT, or INSERT … ON CONFLICT DO NOTHING, which is False where the other raises Duplicate."""
        log = self._backends.log
        if not do_nothing:
            # The row is there before its key is looked for.
            self._backends.xid(session)
        while True:
            yield
            other = self._taken(key)
            if other is None and do_nothing:
                # Now the row is made; meanwhile somebody else may have inserted the key.
                self._backends.xid(session)
                yield
                other = self._taken(key)
            if other is None:
                self._inserted[key] = self._backends.xid(session)
                return True
            if log.runs(other) and not log.is_own(session, other):
                yield from self._backends.wait_for_end(session, other)
            elif do_nothing:
                return False
            else:
                raise Duplicate

    def _taken(self, key: Key) -> int | None:
        """The transaction that has inserted the key, unless it was rolled back."""
        xid = self._inserted.get(key)
        return None if xid is None or self._backends.log.aborted(xid) else xid
