"""Lock modes and which of them conflict.

Sources: PostgreSQL manual, "Explicit Locking", Table 13.2 (Conflicting Lock Modes, table level) and Table 13.3
(Conflicting Row-Level Locks); the same in PostgreSQL 15 and 18. The other kinds have one or two modes, for which the
rule stands beside the kind.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

SHARED = "SHARED"
EXCLUSIVE = "EXCLUSIVE"

# Weakest first, as the manual lists them. Row i names the modes that conflict with mode i.
_TABLE_CONFLICTS: dict[str, tuple[str, ...]] = {
    "ACCESS SHARE": ("ACCESS EXCLUSIVE",),
    "ROW SHARE": ("EXCLUSIVE", "ACCESS EXCLUSIVE"),
    "ROW EXCLUSIVE": ("SHARE", "SHARE ROW EXCLUSIVE", "EXCLUSIVE", "ACCESS EXCLUSIVE"),
    "SHARE UPDATE EXCLUSIVE": (
        "SHARE UPDATE EXCLUSIVE", "SHARE", "SHARE ROW EXCLUSIVE", "EXCLUSIVE", "ACCESS EXCLUSIVE",
    ),
    "SHARE": (
        "ROW EXCLUSIVE", "SHARE UPDATE EXCLUSIVE", "SHARE ROW EXCLUSIVE", "EXCLUSIVE", "ACCESS EXCLUSIVE",
    ),
    "SHARE ROW EXCLUSIVE": (
        "ROW EXCLUSIVE", "SHARE UPDATE EXCLUSIVE", "SHARE", "SHARE ROW EXCLUSIVE", "EXCLUSIVE", "ACCESS EXCLUSIVE",
    ),
    "EXCLUSIVE": (
        "ROW SHARE", "ROW EXCLUSIVE", "SHARE UPDATE EXCLUSIVE", "SHARE", "SHARE ROW EXCLUSIVE", "EXCLUSIVE",
        "ACCESS EXCLUSIVE",
    ),
    "ACCESS EXCLUSIVE": (
        "ACCESS SHARE", "ROW SHARE", "ROW EXCLUSIVE", "SHARE UPDATE EXCLUSIVE", "SHARE", "SHARE ROW EXCLUSIVE",
        "EXCLUSIVE", "ACCESS EXCLUSIVE",
    ),
}  # fmt: skip

_ROW_CONFLICTS: dict[str, tuple[str, ...]] = {
    "FOR KEY SHARE": ("FOR UPDATE",),
    "FOR SHARE": ("FOR NO KEY UPDATE", "FOR UPDATE"),
    "FOR NO KEY UPDATE": ("FOR SHARE", "FOR NO KEY UPDATE", "FOR UPDATE"),
    "FOR UPDATE": ("FOR KEY SHARE", "FOR SHARE", "FOR NO KEY UPDATE", "FOR UPDATE"),
}

_SHARED_CONFLICTS: dict[str, tuple[str, ...]] = {SHARED: (EXCLUSIVE,), EXCLUSIVE: (SHARED, EXCLUSIVE)}


class Wait(StrEnum):
    """What a request does when it can't be granted at once."""

    BLOCK = ""
    NOWAIT = "NOWAIT"
    SKIP_LOCKED = "SKIP LOCKED"
    TRY = "TRY"
    TIMEOUT = "lock_timeout"
    """It waits, and then gives up. No suffix of a mode: the setting of that name says so."""

    @property
    def fails(self) -> bool:
        """Whether the statement ends in an error, SQLSTATE 55P03, when the lock is not to be had."""
        return self in (Wait.NOWAIT, Wait.TIMEOUT)

    @property
    def queues(self) -> bool:
        """Whether the request stands in the lock's queue for a while."""
        return self in (Wait.BLOCK, Wait.TIMEOUT)


@dataclass(frozen=True)
class Kind:
    """A kind of resource: its modes (weakest first), what conflicts with what, and the ways not to wait it knows."""

    name: str
    conflicts: dict[str, tuple[str, ...]]
    waits: tuple[Wait, ...] = ()
    counted: bool = False
    first_come: bool = False
    """Whether a request also waits behind an earlier one that conflicts with it, though nobody holds anything in its way.

    So it is for the locks in Postgres's lock manager (src/backend/storage/lmgr/README). A row's locks are in the row: who does not conflict with
    those that hold it takes it at once, past all who wait.
    """

    @property
    def modes(self) -> tuple[str, ...]:
        return tuple(self.conflicts)

    def conflict(self, held: str, wanted: str) -> bool:
        """Whether `wanted` must wait while another worker holds `held`. Symmetric for every kind."""
        return held in self.conflicts[wanted]

    def __hash__(self) -> int:
        return hash(self.name)


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("table", _TABLE_CONFLICTS, (Wait.NOWAIT,), first_come=True),
        Kind("row", _ROW_CONFLICTS, (Wait.NOWAIT, Wait.SKIP_LOCKED)),
        # Advisory locks: "Advisory Locks" in the same chapter; pg_try_advisory_lock is the one that does not wait.
        Kind("advisory", _SHARED_CONFLICTS, (Wait.TRY,), first_come=True),
        # An inserter waits for the transaction that has an uncommitted equal key (manual, "Index Uniqueness Checks").
        Kind("key", {"INSERT": ("INSERT",)}),
        Kind("lock", _SHARED_CONFLICTS, (Wait.NOWAIT, Wait.TRY)),
        Kind("pool", {"TAKE": ()}, (Wait.NOWAIT, Wait.TRY), counted=True),
    )
}


def parse_mode(kind: Kind, text: str) -> tuple[str, Wait] | None:
    """The mode and the way of waiting that `text` names for a resource of `kind`, or None if it names none.

    Case and spacing do not matter; the way of waiting stands before or after the mode (`TRY EXCLUSIVE`).
    """
    words = " ".join(text.upper().split())
    for wait in (Wait.BLOCK, *kind.waits):
        for mode in kind.modes:
            if words in ((mode,) if not wait else (f"{mode} {wait}", f"{wait} {mode}")):
                return mode, wait
    return None
