"""The steps of a transaction, as a spec says them: locks and control flow, and the union of all that can stand in a list of steps.

Which of them a step is, one of its keys says; a lock's key is the name of its resource, so it is what is left when no word fits. SQL
statements are in `lockmodel.statements`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, GetJsonSchemaHandler, StrictInt, StrictStr, Tag, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

from lockmodel.document import Node
from lockmodel.errors import Position, closest, quote, suggestion
from lockmodel.fields import Duration, Formula, Order, Parameters
from lockmodel.modes import KINDS
from lockmodel.statements import (
    COMMANDS,
    STATEMENTS,
    AlterStep,
    AttachStep,
    CommandStep,
    DeleteStep,
    DetachStep,
    InsertStep,
    SelectStep,
    TruncateStep,
    UpdateStep,
)

Connection = Annotated[StrictInt, Field(ge=1)]
_CONNECTION = "For replay with pools: on which of the connections that it has taken, from 1; the last one if left out."


class LockStep(Node):
    """`resource: MODE`, the only step whose key is not a fixed word."""

    resource: StrictStr
    mode: StrictStr
    then: list[Step] | None = Field(None, description="Steps that follow if the lock was granted.")
    otherwise: list[Step] | None = Field(None, alias="else", description="Steps that follow if it was not.")
    sql: StrictStr | None = Field(None, description="The statement it stands for.")
    label: StrictStr | None = Field(None, description="How traces call it.")
    table_mode: StrictStr | None = Field(None, alias="table mode", description="For a row: how its table is taken.")
    on_connection: Connection | None = Field(None, alias="on connection", description=_CONNECTION)
    lock_timeout: Duration | None = Field(
        None, description="How long it waits before it fails with 55P03; 0: for ever."
    )
    until: Literal["granted"] | None = Field(None, description="granted: it is waited for, but not taken.")

    def at(self, *more: str | int) -> Position:
        if more[:1] == ("mode",):
            more = (self.resource, *more[1:])
        return super().at(*more)

    @model_validator(mode="before")
    @classmethod
    def _split_resource(cls, data: Any) -> Any:
        """Turn `{lane[s]: FOR UPDATE, sql: …}` into fields, with errors that name what was written."""
        locks = [key for key in data if key not in _LOCK_OPTIONS]
        if not locks:
            raise _step_error(f"a step needs a lock, `resource: MODE`, or one of: {_WORDS}")
        first, *others = locks
        if others:
            known = (*_LOCK_OPTIONS, *_CONTROL, *STATEMENTS)
            # A key that takes text is either a second lock or a misspelt word; one that takes steps is misspelt for sure.
            if not isinstance(data[others[0]], str) or closest(others[0], known):
                raise _step_error(
                    f"unknown key {quote(others[0])} in a step; {suggestion(others[0], known)}", others[0]
                )
            message = f"{quote(first)} and {quote(others[0])} stand in one step; each lock is a step (- …) of its own"
            raise _step_error(message, others[0])
        mode = data[first]
        if not isinstance(mode, str):
            raise _step_error(f"{quote(first)} needs a lock mode such as FOR UPDATE or EXCLUSIVE", first)
        return {"resource": first, "mode": mode, **{key: data[key] for key in _LOCK_OPTIONS if key in data}}

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        shape = handler.resolve_ref_schema(handler(schema))
        for field in ("resource", "mode"):
            shape["properties"].pop(field)
        shape.pop("required")
        options = "|".join(_LOCK_OPTIONS)
        modes = [
            f"{mode} {wait}".strip() for kind in KINDS.values() for wait in ("", *kind.waits) for mode in kind.modes
        ]
        lock = {
            # The list is for an editor to choose from; case and spacing are free.
            "anyOf": [{"enum": list(dict.fromkeys(modes))}, {"type": "string"}],
            "description": "Takes this lock, in this mode; NOWAIT, SKIP LOCKED or TRY may follow.",
        }
        shape["patternProperties"] = {rf"^(?!(?:{options})$)[^\W\d]\w*\s*(\[.*\])?$": lock}
        shape["not"] = {
            "anyOf": [*({"required": [key]} for key in STEP_KEYS), {"propertyNames": {"enum": list(_LOCK_OPTIONS)}}]
        }
        return shape


class ForStep(Node):
    """Once for each element of a set, or each combination of elements of several."""

    over: Annotated[Parameters, Field(min_length=1)] = Field(
        alias="for", description="Parameters, each with the set that it ranges over; the last one varies fastest."
    )
    do: list[Step] = Field(description="The steps for each element.")
    order: Order = Field("forward", description="rotated: from any starting point, wrapping; any: every permutation.")
    sql: StrictStr | None = Field(None, description="One statement that takes all the locks of the loop.")
    on_connection: Connection | None = Field(None, alias="on connection", description=_CONNECTION)


class StatementStep(Node):
    """One SQL statement that takes several locks: its own rows, and those of foreign keys and triggers."""

    statement: Annotated[StrictStr, Field(min_length=1)] = Field(description="The SQL.")
    takes: Annotated[list[Step], Field(min_length=1)] = Field(description="The locks that it takes, in its order.")
    on_connection: Connection | None = Field(None, alias="on connection", description=_CONNECTION)


class EitherStep(Node):
    """One of several lists of steps."""

    either: Annotated[list[list[Step]], Field(min_length=1)] = Field(description="Lists of steps, one of which is run.")


class IfStep(Node):
    """Steps that depend on a formula."""

    condition: Formula = Field(alias="if", description="A formula over parameters and variables.")
    then: list[Step] = Field(description="Steps that are run if it is true.")
    otherwise: list[Step] = Field(default_factory=list, alias="else", description="Steps that are run if it is false.")


class SetStep(Node):
    """Assigns variables, all at once."""

    set: Annotated[dict[StrictStr, Formula], Field(min_length=1)] = Field(
        description="Shared or local variables, each with an expression for its new value."
    )


class SavepointStep(Node):
    """Marks a point that `rollback to` returns to."""

    savepoint: Annotated[StrictStr, Field(min_length=1)] = Field(description="What `rollback to` calls it.")


class RollbackToStep(Node):
    """Gives back all locks taken since the savepoint, but session locks."""

    rollback_to: StrictStr = Field(alias="rollback to", description="The name of a savepoint set before.")


class ReleaseStep(Node):
    """Gives back a session lock, once."""

    release: StrictStr = Field(description="An advisory lock of session scope.")
    mode: StrictStr = Field("EXCLUSIVE", description="The mode that it was taken in.")
    sql: StrictStr | None = Field(None, description="The statement it stands for.")
    label: StrictStr | None = Field(None, description="How traces call it.")


_LOCK_OPTIONS = ("then", "else", "sql", "label", "table mode", "lock_timeout", "on connection", "until")
_CONTROL = ("for", "statement", "either", "if", "set", "savepoint", "rollback to", "release")
# A step is what the first of these keys says that it has: `for` is also a key of `select`.
STEP_KEYS = (*STATEMENTS, *_CONTROL)
_WORDS = ", ".join((*_CONTROL, "commit", "rollback", *STATEMENTS))


def _step_error(message: str, key: str | None = None) -> PydanticCustomError:
    """An error about a whole step; `key` is the one in it that the error is about."""
    return PydanticCustomError("step", "{message}", {"message": message, "key": key})


def _step_tag(value: Any) -> str | None:
    if isinstance(value, str):
        return "?end"
    if isinstance(value, dict):
        key = next((key for key in STEP_KEYS if key in value), "lock")
        return "?command" if key in COMMANDS else f"?{key}"
    return None


Step = Annotated[
    Annotated[ForStep, Tag("?for")]
    | Annotated[StatementStep, Tag("?statement")]
    | Annotated[EitherStep, Tag("?either")]
    | Annotated[IfStep, Tag("?if")]
    | Annotated[SetStep, Tag("?set")]
    | Annotated[SavepointStep, Tag("?savepoint")]
    | Annotated[RollbackToStep, Tag("?rollback to")]
    | Annotated[ReleaseStep, Tag("?release")]
    | Annotated[InsertStep, Tag("?insert")]
    | Annotated[UpdateStep, Tag("?update")]
    | Annotated[DeleteStep, Tag("?delete")]
    | Annotated[SelectStep, Tag("?select")]
    | Annotated[TruncateStep, Tag("?truncate")]
    | Annotated[AlterStep, Tag("?alter table")]
    | Annotated[AttachStep, Tag("?attach partition")]
    | Annotated[DetachStep, Tag("?detach partition")]
    | Annotated[CommandStep, Tag("?command")]
    | Annotated[Literal["commit", "rollback"], Tag("?end")]
    | Annotated[LockStep, Tag("?lock")],
    Discriminator(
        _step_tag,
        custom_error_type="expected",
        custom_error_message=f"`resource: MODE`, or one of: {_WORDS}",
    ),
]
