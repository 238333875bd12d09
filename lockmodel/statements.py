"""Steps that are SQL statements, as a spec says them: what is read or written, from which the locks follow.

Only the words are here; `lockmodel.relations` knows what each statement locks.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StrictBool, StrictStr, model_validator
from pydantic_core import PydanticCustomError

from lockmodel.document import Node
from lockmodel.errors import quote
from lockmodel.fields import Formula, Mentions, Order, Parameters

Columns = Annotated[list[StrictStr], Field(min_length=1)]


class Statement(Node):
    """What every statement may have."""

    # Built with the spec that they are parts of: for each alone, it would only take time.
    model_config = ConfigDict(defer_build=True)

    sql: StrictStr | None = Field(None, description="The SQL that it stands for.")
    label: StrictStr | None = Field(None, description="How traces call its locks.")


class RowStatement(Statement):
    """What every statement on rows may have."""

    values: dict[StrictStr, Formula] = Field(
        default_factory=dict, description="The relation's `values`, each with an expression for what the row has there."
    )
    partition: StrictStr | None = Field(None, description="The only partition that it touches.")
    rows: Parameters | None = Field(
        None, description="Many rows in one statement: parameters, each with the set that it ranges over."
    )
    order: Order = Field("forward", description="The order of its rows, as that of a `for`.")


class InsertStep(RowStatement):
    """INSERT: the keys, and whatever foreign keys and triggers lock."""

    insert: StrictStr = Field(description="The relation, or one of its rows.")
    columns: Columns | None = Field(
        None, description="Columns that get a value; a foreign key of another column is NULL. If left out, all get one."
    )
    on_conflict: Literal["do nothing", "do update"] | None = Field(
        None,
        alias="on conflict",
        description="do update: a row that is there is locked and updated, else a new one is inserted.",
    )
    exists: StrictBool | None = Field(
        None,
        description="For `do update`: whether the row is there, committed, when the statement comes to it; if left out, either.",
    )


class UpdateStep(RowStatement):
    """UPDATE: the row FOR NO KEY UPDATE, or FOR UPDATE if a column of a unique key changes."""

    update: StrictStr = Field(description="The row, or the relation.")
    columns: Columns = Field(
        default_factory=list, description="The columns that it changes, as far as locks depend on them."
    )
    again: StrictBool | None = Field(
        None,
        description="Whether the transaction has written the row before: then foreign keys are checked in any case.",
    )


class DeleteStep(RowStatement):
    """DELETE: the row FOR UPDATE, and what refers to it."""

    delete: StrictStr = Field(description="The row, or the relation.")


class SelectStep(Statement):
    """SELECT, with or without a lock on the rows that it reads."""

    select: Mentions = Field(description="Rows or relations, in the order of the FROM list.")
    lock: StrictStr | None = Field(
        None, alias="for", description="UPDATE, NO KEY UPDATE, SHARE or KEY SHARE; NOWAIT or SKIP LOCKED may follow."
    )
    of: Mentions | None = Field(None, description="The only ones whose rows are locked (FOR … OF).")
    partition: StrictStr | None = Field(None, description="The only partition that it touches.")
    rows: Parameters | None = Field(
        None, description="Many rows in one statement: parameters, each with the set that it ranges over."
    )
    order: Order = Field("forward", description="The order of its rows, as that of a `for`.")


class TruncateStep(Statement):
    """TRUNCATE."""

    truncate: Mentions = Field(description="Relations.")
    cascade: StrictBool = Field(False, description="Whether the relations that refer to them are emptied too.")


class AlterStep(Statement):
    """ALTER TABLE: the table's lock depends on the action."""

    alter_table: StrictStr = Field(alias="alter table", description="The relation.")
    action: StrictStr = Field(description="Such as: add column, add foreign key, disable trigger.")
    references: StrictStr | None = Field(None, description="For an action on a foreign key: the relation it refers to.")


class AttachStep(Statement):
    """ALTER TABLE … ATTACH PARTITION."""

    attach_partition: StrictStr = Field(alias="attach partition", description="The table that becomes a partition.")
    to: StrictStr = Field(description="The partitioned relation.")


class DetachStep(Statement):
    """ALTER TABLE … DETACH PARTITION."""

    detach_partition: StrictStr = Field(alias="detach partition", description="The partition.")
    source: StrictStr = Field(alias="from", description="The partitioned relation.")


COMMANDS = ("create partition of", "drop table", "create index", "drop index", "reindex table", "create trigger", "drop trigger",
            "create policy", "create statistics", "comment on")  # fmt: skip
"""Statements that have nothing to say but their table."""
STATEMENTS = ("insert", "update", "delete", "select", "truncate", "alter table", "attach partition", "detach partition", *COMMANDS)  # fmt: skip
"""The key that makes a step one of these statements."""


def _needs_one_command(schema: dict[str, Any]) -> None:
    schema["oneOf"] = [{"required": [command]} for command in COMMANDS]


class CommandStep(Statement):
    """Another statement on one table; exactly one of its keys stands there."""

    model_config = ConfigDict(json_schema_extra=_needs_one_command)

    create_partition_of: StrictStr | None = Field(
        None, alias="create partition of", description="CREATE TABLE … PARTITION OF this relation."
    )
    drop_table: StrictStr | None = Field(None, alias="drop table", description="The relation that is dropped.")
    create_index: StrictStr | None = Field(None, alias="create index", description="The relation (not CONCURRENTLY).")
    drop_index: StrictStr | None = Field(None, alias="drop index", description="The relation of the index.")
    reindex_table: StrictStr | None = Field(None, alias="reindex table", description="The relation (not CONCURRENTLY).")
    create_trigger: StrictStr | None = Field(None, alias="create trigger", description="The relation.")
    drop_trigger: StrictStr | None = Field(None, alias="drop trigger", description="The relation.")
    create_policy: StrictStr | None = Field(None, alias="create policy", description="The relation.")
    create_statistics: StrictStr | None = Field(None, alias="create statistics", description="The relation.")
    comment_on: StrictStr | None = Field(None, alias="comment on", description="The relation.")

    @model_validator(mode="before")
    @classmethod
    def _only_one(cls, data: Any) -> Any:
        said = [key for key in data if key in COMMANDS]
        if len(said) > 1:
            message = f"{quote(said[0])} and {quote(said[1])} stand in one step; each is a step (- …) of its own"
            raise PydanticCustomError("step", "{message}", {"message": message, "key": said[1]})
        return data

    @property
    def command(self) -> tuple[str, str]:
        """Which statement it is, and its table."""
        said = ((command, getattr(self, command.replace(" ", "_"))) for command in COMMANDS)
        return next((command, table) for command, table in said if table is not None)


SqlStep = (
    InsertStep | UpdateStep | DeleteStep | SelectStep | TruncateStep | AlterStep | AttachStep | DetachStep | CommandStep
)
