"""What can be locked, each with the kind that says which of its modes conflict."""

from __future__ import annotations

from dataclasses import dataclass

from lockmodel.modes import KINDS, Kind


@dataclass(frozen=True)
class Table:
    """A relation, with the eight table modes."""

    name: str

    @property
    def kind(self) -> Kind:
        return KINDS["table"]


@dataclass(frozen=True)
class Advisory:
    """An advisory key, SHARED or EXCLUSIVE."""

    key: int | str

    @property
    def kind(self) -> Kind:
        return KINDS["advisory"]


@dataclass(frozen=True)
class Row:
    """A row, with the four row modes; `table` is locked before it, if the row names one."""

    key: int | str
    table: Table | None = None


@dataclass(frozen=True)
class Key:
    """A key of a unique index of `table`, which is locked before it."""

    key: int | str
    table: Table | None = None


@dataclass(frozen=True)
class RowVersion:
    """The place in the queue for one version of a row, which Postgres calls a tuple lock.

    Its modes are the row's own: the table modes that stand for them in `pg_locks` conflict in just the same way.
    """

    row: Row
    number: int

    @property
    def kind(self) -> Kind:
        return KINDS["row"]


@dataclass(frozen=True)
class Transaction:
    """A transaction or subtransaction: EXCLUSIVE is its own as long as it runs, SHARED is how others wait for its end."""

    xid: int

    @property
    def kind(self) -> Kind:
        return KINDS["lock"]


Lockable = Table | Advisory | RowVersion | Transaction
