"""The table locks of statements that change the schema.

Source: PostgreSQL manual, "Explicit Locking" (Table-Level Locks) and the pages of the statements; for what these leave out, `AlterTableGetLockLevel`,
`ATExecAttachPartition`, `ATExecDetachPartition`, `DefineRelation`, `ExecuteTruncateGuts` in src/backend/commands/tablecmds.c, and
`RemoveTriggerById` in trigger.c. tests/test_relations.py compares every one with what PostgreSQL 15 and 18 hold.
"""

from __future__ import annotations

from dataclasses import dataclass

ACCESS_SHARE = "ACCESS SHARE"
ROW_SHARE = "ROW SHARE"
ROW_EXCLUSIVE = "ROW EXCLUSIVE"
SHARE_UPDATE_EXCLUSIVE = "SHARE UPDATE EXCLUSIVE"
SHARE = "SHARE"
SHARE_ROW_EXCLUSIVE = "SHARE ROW EXCLUSIVE"
ACCESS_EXCLUSIVE = "ACCESS EXCLUSIVE"


@dataclass(frozen=True)
class Modes:
    """What a statement takes.

    `own`: on its table, and on partitions if it comes to them; `then`: further modes, where the table's rows are (OWN) or
    on the table that a foreign key refers to (OTHER). Without a foreign key, a `then` with OTHER has no meaning.
    """

    own: str
    then: tuple[tuple[str, str], ...] = ()
    partitions: bool = False


OWN, OTHER = "own", "other"
# What makes indexes anew takes SHARE (`reindex_relation`), what compares the rows of a foreign key ROW SHARE and ACCESS SHARE (`RI_Initial_Check`).
_REMADE = ((OWN, SHARE),)
_COMPARED = ((OTHER, ROW_SHARE), (OWN, ACCESS_SHARE), (OTHER, ACCESS_SHARE))
ALTER: dict[str, Modes] = {
    "add column": Modes(ACCESS_EXCLUSIVE, partitions=True),
    "drop column": Modes(ACCESS_EXCLUSIVE, ((OTHER, ACCESS_EXCLUSIVE),), partitions=True),
    "alter type": Modes(ACCESS_EXCLUSIVE, _REMADE, partitions=True),
    "set default": Modes(ACCESS_EXCLUSIVE, partitions=True),
    "drop default": Modes(ACCESS_EXCLUSIVE, partitions=True),
    "set not null": Modes(ACCESS_EXCLUSIVE, partitions=True),
    "drop not null": Modes(ACCESS_EXCLUSIVE, partitions=True),
    "add check": Modes(ACCESS_EXCLUSIVE, partitions=True),
    "add unique": Modes(ACCESS_EXCLUSIVE, _REMADE),
    "add primary key": Modes(ACCESS_EXCLUSIVE, _REMADE),
    "add foreign key": Modes(SHARE_ROW_EXCLUSIVE, ((OTHER, SHARE_ROW_EXCLUSIVE), *_COMPARED)),
    "add foreign key not valid": Modes(
        SHARE_ROW_EXCLUSIVE, ((OTHER, SHARE_ROW_EXCLUSIVE), (OWN, ACCESS_SHARE), (OTHER, ACCESS_SHARE))
    ),
    "validate constraint": Modes(SHARE_UPDATE_EXCLUSIVE, _COMPARED, partitions=True),
    "drop constraint": Modes(ACCESS_EXCLUSIVE, ((OTHER, ACCESS_EXCLUSIVE),), partitions=True),
    "rename column": Modes(ACCESS_EXCLUSIVE, partitions=True),
    "rename": Modes(ACCESS_EXCLUSIVE),
    "owner": Modes(ACCESS_EXCLUSIVE),
    "enable row level security": Modes(ACCESS_EXCLUSIVE),
    "disable row level security": Modes(ACCESS_EXCLUSIVE),
    "enable trigger": Modes(SHARE_ROW_EXCLUSIVE, partitions=True),
    "disable trigger": Modes(SHARE_ROW_EXCLUSIVE, partitions=True),
    "set statistics": Modes(SHARE_UPDATE_EXCLUSIVE, partitions=True),
    "set parameters": Modes(SHARE_UPDATE_EXCLUSIVE),
}
"""ALTER TABLE, by its action."""

VARIES = frozenset(("add unique", "add primary key", "add foreign key", "add foreign key not valid"))
"""Actions that lock partitions in another way, or in another order, on PostgreSQL 15 than on 18; so do others on a foreign key."""

COMMAND: dict[str, Modes] = {
    "create index": Modes(SHARE, partitions=True),
    "drop index": Modes(ACCESS_EXCLUSIVE, partitions=True),
    "reindex table": Modes(SHARE),
    "create trigger": Modes(SHARE_ROW_EXCLUSIVE, partitions=True),
    "create policy": Modes(ACCESS_EXCLUSIVE),
    "create statistics": Modes(SHARE_UPDATE_EXCLUSIVE),
    "comment on": Modes(SHARE_UPDATE_EXCLUSIVE),
}
"""Other statements on one table."""
