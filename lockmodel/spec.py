"""What a spec file says, word for word: the document model.

These classes mirror the YAML document and nothing more; `lockmodel.resolver` gives the words their meaning. The JSON Schema
that editors use (`lockmodel schema`) is made from them, so that there is one description of the language's shape.
Keys with a space in YAML (`start when`) are aliases here (`start_when`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    Discriminator,
    Field,
    GetJsonSchemaHandler,
    StrictBool,
    StrictInt,
    StrictStr,
    Tag,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

from lockmodel.document import Node, Source
from lockmodel.errors import Position, closest, quote, suggestion
from lockmodel.fields import MAX_NAMES, Duration, Order, Parameters, one_of
from lockmodel.fields import Formula as Formula
from lockmodel.modes import KINDS
from lockmodel.statements import (
    COMMANDS,
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

MAX_ELEMENTS = 4096
MAX_WORKERS = 4096

Value = Annotated[
    Annotated[StrictInt, Tag("?number")] | Annotated[StrictBool, Tag("?truth")] | Annotated[StrictStr, Tag("?word")],
    one_of("a word, an integer, true or false"),
]
Elements = Annotated[
    Annotated[StrictInt, Field(ge=1, le=MAX_ELEMENTS), Tag("?number")]
    | Annotated[list[Value], Field(min_length=1, max_length=MAX_ELEMENTS), Tag("?list")],
    one_of("a number n (for 0 … n-1) or a list of elements"),
]
Count = Annotated[
    Annotated[StrictInt, Field(ge=1, le=MAX_WORKERS), Tag("?number")] | Annotated[Literal["any"], Tag("?word")],
    one_of("a number of workers, or any"),
]
Connection = Annotated[StrictInt, Field(ge=1)]
_CONNECTION = "For replay with pools: on which of the connections that it has taken, from 1; the last one if left out."

_ELEMENT = re.compile(r"[\w#.-]+")


def check_elements(values: Sequence[int | str | bool]) -> tuple[int, str] | None:
    """What is wrong with the elements of a set, as (index, message); None if nothing is."""
    seen: set[str] = set()
    for index, value in enumerate(values):
        text = str(value).lower() if isinstance(value, bool) else str(value)
        if not _ELEMENT.fullmatch(text):
            return index, f"{quote(text)} must be a word of letters, digits and _ # . -"
        if text in seen:
            return index, f"{quote(text)} stands there twice; drop one"
        seen.add(text)
    return None


class Variable(Node):
    """A variable that all workers share."""

    values: Elements = Field(description="The values it may have: a list, or a number n for 0 … n-1.")
    initial: Value | None = Field(None, description="The value at first; if left out, the first of its values.")


class StandsFor(Node):
    """What a resource is in the database of a replay's target. `{name}` in a text is the element of a set in `per`."""

    relation: StrictStr | None = Field(None, description="The table, or the table that the row is in.")
    row: dict[StrictStr, Value] = Field(default_factory=dict, description="Columns of the row's primary key.")
    key: StrictStr | None = Field(None, description="The key of an advisory lock: a number, or two with a comma.")


class ResourceFamily(Node):
    """A resource, or one for each combination of the sets in `per`."""

    kind: Literal["table", "row", "advisory", "key", "lock", "pool"] = Field(
        description="What it is in Postgres; it decides which lock modes there are and which of them conflict."
    )
    per: list[StrictStr] = Field(default_factory=list, description="The sets it is indexed by.")
    table: StrictStr | None = Field(None, description="For a row: the resource of kind table that it lives in.")
    scope: Literal["transaction", "session"] = Field(
        "transaction", description="For an advisory lock: whether it outlives its transaction, until it is released."
    )
    size: Annotated[StrictInt, Field(ge=1, le=1_000_000)] | None = Field(None, description="For a pool: its units.")
    stands_for: StandsFor | None = Field(
        None, alias="stands for", description="What it is in the database of the replay's target."
    )
    doc: StrictStr | None = Field(None, description="Free text for readers.")


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
            raise _step_error(f"a step needs a lock, `resource: MODE`, or one of: {WORDS}")
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
STATEMENTS = ("insert", "update", "delete", "select", "truncate", "alter table", "attach partition", "detach partition", *COMMANDS)  # fmt: skip
# A step is what the first of these keys says that it has: `for` is also a key of `select`.
STEP_KEYS = (*STATEMENTS, *_CONTROL)
WORDS = ", ".join((*_CONTROL, "commit", "rollback", *STATEMENTS))


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
        custom_error_message=f"`resource: MODE`, or one of: {WORDS}",
    ),
]


Action = Literal["no action", "restrict", "cascade", "set null"]
Event = Literal["insert", "update", "delete"]
Events = Annotated[
    Annotated[Event, Tag("?word")] | Annotated[list[Event], Field(min_length=1), Tag("?list")],
    one_of("insert, update or delete, or a list of them"),
]


class ForeignKey(Node):
    """A foreign key of a relation: FOREIGN KEY (columns) REFERENCES …"""

    columns: Annotated[list[StrictStr], Field(min_length=1)] = Field(description="Its columns in this relation.")
    references: StrictStr = Field(
        description="The row that it refers to (names are those of this relation's rows), or its relation or table."
    )
    on_delete: Action = Field("no action", alias="on delete", description="What happens when the row there is deleted.")
    on_update: Action = Field("no action", alias="on update", description="What happens when its key is updated.")
    order: Order = Field("any", description="The order in which cascade and set null come to the rows here.")
    deferred: StrictBool = Field(False, description="INITIALLY DEFERRED: it is checked at the commit.")


class Trigger(Node):
    """A trigger: the steps that its function does."""

    before: Events | None = Field(None, description="The statements before whose rows it fires.")
    after: Events | None = Field(None, description="The statements after which it fires.")
    of: Annotated[list[StrictStr], Field(min_length=1)] | None = Field(
        None, description="UPDATE OF: the columns that an update must change."
    )
    each: Literal["row", "statement"] = Field("row", description="FOR EACH ROW or FOR EACH STATEMENT.")
    deferred: StrictBool = Field(False, description="A constraint trigger, INITIALLY DEFERRED: it fires at the commit.")
    do: Annotated[list[Step], Field(min_length=1)] = Field(
        description="Locks and statements; names are those of the relation's rows."
    )


class Relation(Node):
    """A table, and what a statement on it locks besides its own rows. Its rows are named by the sets in `per` and by `values`."""

    row: StrictStr | None = Field(None, description="The resource of kind row that stands for its rows.")
    table: StrictStr | None = Field(None, description="The resource of kind table that it is.")
    values: Parameters = Field(
        default_factory=dict, description="What else foreign keys and triggers need to know of a row: name and set."
    )
    key: list[StrictStr] = Field(
        default_factory=list, description="Columns of its unique keys: an update of one takes the row FOR UPDATE."
    )
    unique: list[StrictStr] = Field(
        default_factory=list, description="Resources of kind key that an INSERT takes, in the order of the indexes."
    )
    foreign_keys: list[ForeignKey] = Field(
        default_factory=list, alias="foreign keys", description="In the order in which they were made."
    )
    triggers: dict[StrictStr, Trigger] = Field(
        default_factory=dict, description="By name, which decides the order in which they fire."
    )
    partitions: list[StrictStr] = Field(
        default_factory=list, description="Resources of kind table: its partitions, in the order of their bounds."
    )
    default_partition: StrictStr | None = Field(
        None, alias="default partition", description="The one of them that is the default partition."
    )
    doc: StrictStr | None = Field(None, description="Free text for readers.")


class Call(Node):
    """The operation of the replay's target that a transaction stands for."""

    operation: StrictStr = Field(description="A method of the target.")
    arguments: dict[StrictStr, Value] = Field(
        default_factory=dict, description="Its keyword arguments; a text `{s}` is the value of parameter s."
    )


class ReplayTarget(Node):
    """Real code that the transactions stand for."""

    target: StrictStr = Field(description="Where it is: package.module:name.")
    options: dict[StrictStr, Value] = Field(default_factory=dict, description="Keyword arguments to make it with.")
    ignore: list[StrictStr] = Field(
        default_factory=list, description="Tables that the spec leaves out on purpose; * stands for anything."
    )


class Transaction(Node):
    """What one transaction locks, in order."""

    doc: StrictStr | None = Field(None, description="Free text for readers.")
    choose: Parameters = Field(
        default_factory=dict, description="Parameters, any element of a set each, picked when the transaction starts."
    )
    start_when: Formula | None = Field(None, alias="start when", description="It may start only while this is true.")
    let: Annotated[dict[StrictStr, Formula], Field(max_length=MAX_NAMES)] = Field(
        default_factory=dict, description="Local variables, evaluated at the start."
    )
    take_at_start: dict[StrictStr, StrictStr] = Field(
        default_factory=dict,
        alias="take at start",
        description="Locks, each with its mode, taken in the same atomic step as the start, if all are free.",
    )
    call: Call | None = Field(None, description="The operation of the replay's target that does this.")
    block: StrictBool = Field(
        True, description="false: without a transaction block, each statement is a transaction of its own (autocommit)."
    )
    lock_timeout: Duration | None = Field(
        None, description="The setting during the transaction: who has waited that long for a lock fails with 55P03."
    )
    steps: list[Step] = Field(description="What it does, in order.")
    on_commit: dict[StrictStr, Formula] = Field(
        default_factory=dict,
        alias="on commit",
        description="Shared variables, set in the same atomic step as the commit.",
    )


class Role(Node):
    """Workers that run the same transactions."""

    count: Count = Field("any", description="How many workers it has.")
    runs: Annotated[list[StrictStr], Field(min_length=1)] = Field(description="The transactions that they run.")


class DeadlockExpectation(Node):
    """The deadlock that must be found. Each key narrows it."""

    between: list[StrictStr] | None = Field(None, description="The transactions in the cycle, in any order.")
    on: list[StrictStr] | None = Field(None, description="The resources that the cycle's members wait for.")
    workers: Annotated[StrictInt, Field(ge=1)] | None = Field(None, description="How many workers the cycle has.")
    states: Annotated[StrictInt, Field(ge=1)] | None = Field(
        None, description="States on the shortest trace, the initial one included."
    )


class DeadlockExpected(Node):
    """A deadlock of a certain shape."""

    deadlock: DeadlockExpectation = Field(description="Its shape.")


class StallExpectation(Node):
    """The stall that must be found. Each key narrows it."""

    holder: StrictStr | None = Field(None, description="A transaction that holds what is waited for.")
    waiter: StrictStr | None = Field(None, description="The transaction that waits for it, and holds up the others.")
    delayed: list[StrictStr] | None = Field(None, description="The transactions that can be held up, in any order.")
    on: StrictStr | None = Field(None, description="The resource whose queue it is.")


class StallExpected(Node):
    """A stall of a certain shape; `convoy`: more than one worker can be held up."""

    stall: StallExpectation | None = Field(None, description="Its shape.")
    convoy: StallExpectation | None = Field(None, description="Its shape; several workers can pile up.")

    @property
    def shape(self) -> StallExpectation:
        return self.stall or self.convoy or StallExpectation.model_validate({})


class ViolationExpected(Node):
    """A violation of a formula."""

    violated: StrictStr = Field(description="The name of a never or always formula.")


def _expect_tag(value: Any) -> str | None:
    if isinstance(value, str):
        return "?word"
    if isinstance(value, dict) and len(value) == 1:
        key = next(iter(value))
        return {"violated": "?violated", "stall": "?stall", "convoy": "?stall"}.get(key, "?deadlock")
    if isinstance(value, dict) and value and not {"deadlock", "violated"} <= value.keys():
        return "?violated" if "violated" in value else "?deadlock"
    return None


Expectation = Annotated[
    Annotated[Literal["no deadlock", "deadlock", "global stall", "stall", "convoy"], Tag("?word")]
    | Annotated[DeadlockExpected, Tag("?deadlock")]
    | Annotated[StallExpected, Tag("?stall")]
    | Annotated[ViolationExpected, Tag("?violated")],
    Discriminator(
        _expect_tag,
        custom_error_type="expected",
        custom_error_message="one of: no deadlock, deadlock, stall, convoy, global stall, {deadlock: {…}}, {stall: {…}}, {convoy: {…}}, {violated: NAME}",
    ),
]


class Spec(Node):
    """A whole spec file."""

    name: Annotated[StrictStr, Field(min_length=1)] = Field(description="What reports call it.")
    doc: StrictStr | None = Field(None, description="Free text for readers.")
    sets: dict[StrictStr, Elements] = Field(
        default_factory=dict, description="Finite sets: a number n (for 0 … n-1) or a list of elements."
    )
    variables: dict[StrictStr, Variable] = Field(default_factory=dict, description="What all workers share.")
    resources: Annotated[dict[StrictStr, ResourceFamily], Field(min_length=1)] = Field(description="What is locked.")
    relations: dict[StrictStr, Relation] = Field(
        default_factory=dict, description="Tables, with the locks that foreign keys and triggers add to a statement."
    )
    transactions: Annotated[dict[StrictStr, Transaction], Field(min_length=1)] = Field(
        description="What workers run, by name."
    )
    workers: Count | None = Field(None, description="How many workers there are: a number, or any (the default).")
    roles: dict[StrictStr, Role] = Field(
        default_factory=dict, description="Instead of workers: groups of workers that run different transactions."
    )
    never: dict[StrictStr, Formula] = Field(
        default_factory=dict, description="Formulas that no state may satisfy, by name."
    )
    always: dict[StrictStr, Formula] = Field(
        default_factory=dict, description="Formulas that every state must satisfy, by name."
    )
    no_global_stall: StrictBool = Field(
        False,
        alias="no global stall",
        description="Whether a state in which every running worker waits is a violation.",
    )
    no_stall: StrictBool = Field(
        False,
        alias="no stall",
        description="Whether it is a violation that a worker waits only because of the queue, behind one that waits without end.",
    )
    expect: Expectation = Field("no deadlock", description="What a check must find for the spec to pass.")
    deadlock_timeout: Duration | None = Field(
        None, description="The server's setting, 1s if left out: a shorter lock_timeout comes before any deadlock."
    )
    replay: ReplayTarget | None = Field(None, description="Real code to replay and to compare with.")
    schema_sql: StrictStr | None = Field(None, alias="schema", description="SQL that makes the tables for replay.")

    @property
    def source(self) -> Source:
        """The file it was read from."""
        return self._source


# Its parts refer to each other, and are read only as parts of it: one build is enough.
Spec.model_rebuild()


def json_schema(document: type[Node] = Spec) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a file: a spec, or what `document` describes."""
    schema = _tidy(document.model_json_schema(by_alias=True))
    title = f"lockmodel {document.__name__.lower()}"
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title, **schema}


def _tidy(schema: Any) -> Any:
    """`schema` without what only Python needs: a key that is left out is None here, but null is no value in a spec."""
    if isinstance(schema, list):
        return [_tidy(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if "properties" in schema:
        properties = {name: _tidy(part) for name, part in schema["properties"].items()}
        return {**_tidy({key: part for key, part in schema.items() if key != "properties"}), "properties": properties}
    branches = [part for part in schema.get("anyOf", ()) if part != {"type": "null"}]
    if len(branches) == 1:
        schema = {**branches[0], **{key: part for key, part in schema.items() if key != "anyOf"}}
    return {
        key: _tidy(part)
        for key, part in schema.items()
        if not (key == "title" and isinstance(part, str)) and not (key == "default" and part in (None, {}, []))
    }
