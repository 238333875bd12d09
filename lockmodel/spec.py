"""What a spec file says, word for word: the document model.

These classes mirror the YAML document and nothing more; `lockmodel.resolver` gives the words their meaning. The JSON Schema
that editors use (`lockmodel schema`) is made from them, so that there is one description of the language's shape.
Keys with a space in YAML (`start when`) are aliases here (`start_when`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    GetJsonSchemaHandler,
    PrivateAttr,
    StrictBool,
    StrictInt,
    StrictStr,
    Tag,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

from lockmodel.errors import Position, suggestion

Path = tuple[str | int, ...]
Value = StrictInt | StrictBool | StrictStr
Formula = StrictStr | StrictBool | StrictInt
"""An expression as text; `true` and `3` reach us as YAML booleans and integers."""

MAX_ELEMENTS = 4096
MAX_WORKERS = 4096


def _by_type(value: Any) -> str | None:
    """The branch of a union that `value` belongs to, so that its errors speak of that branch alone."""
    return {int: "number", str: "word", list: "list", dict: "mapping"}.get(type(value))


Elements = Annotated[
    Annotated[StrictInt, Field(ge=1, le=MAX_ELEMENTS), Tag("number")]
    | Annotated[list[Value], Field(min_length=1, max_length=MAX_ELEMENTS), Tag("list")],
    Discriminator(
        _by_type,
        custom_error_type="elements",
        custom_error_message="expected a number n (for 0 … n-1) or a list of elements",
    ),
]
Count = Annotated[
    Annotated[StrictInt, Field(ge=1, le=MAX_WORKERS), Tag("number")] | Annotated[Literal["any"], Tag("word")],
    Discriminator(_by_type, custom_error_type="count", custom_error_message="expected a number of workers, or any"),
]


class Source:
    """Where each part of a document stands in its file."""

    def __init__(self, file: str, text: str = "", lines: dict[Path, tuple[int, int]] | None = None) -> None:
        self.file = file
        self.text = text
        self._lines = lines or {}

    def position(self, path: Path) -> Position:
        """The position of `path`, or of the nearest part around it."""
        for end in range(len(path), -1, -1):
            if path[:end] in self._lines:
                return Position(self.file, *self._lines[path[:end]])
        return Position(self.file)


class Node(BaseModel):
    """A part of the document that knows where it stands."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=False)
    _source: Source = PrivateAttr(default_factory=lambda: Source("<spec>"))
    _path: Path = PrivateAttr(default=())

    def at(self, *more: str | int) -> Position:
        """The position of this part, or of what is at `more` (YAML keys and indices) inside it."""
        return self._source.position((*self._path, *more))

    def place(self, source: Source, path: Path) -> None:
        """Tell this part and all inside it where they stand."""
        self._source, self._path = source, path
        for name, field in type(self).model_fields.items():
            key = field.alias or name
            for suffix, child in _nodes(getattr(self, name)):
                child.place(source, (*path, key, *suffix))


def _nodes(value: object) -> Iterator[tuple[Path, Node]]:
    if isinstance(value, Node):
        yield (), value
    elif isinstance(value, dict):
        for key, item in value.items():
            for suffix, node in _nodes(item):
                yield (key, *suffix), node
    elif isinstance(value, list):
        for index, item in enumerate(value):
            for suffix, node in _nodes(item):
                yield (index, *suffix), node


class Variable(Node):
    """A variable that all workers share."""

    values: Elements = Field(description="The values it may have: a list, or a number n for 0 … n-1.")
    initial: Value | None = Field(None, description="The value at first; if left out, the first of its values.")


class ResourceFamily(Node):
    """A resource, or one for each combination of the sets in `per`."""

    kind: Literal["table", "row", "advisory", "key", "lock", "pool"]
    per: list[StrictStr] = Field(default_factory=list, description="The sets it is indexed by.")
    table: StrictStr | None = Field(None, description="For a row: the resource of kind table that it lives in.")
    scope: Literal["transaction", "session"] = Field("transaction", description="For an advisory lock.")
    size: Annotated[StrictInt, Field(ge=1, le=1_000_000)] | None = Field(None, description="For a pool: its units.")
    doc: StrictStr | None = None


class LockStep(Node):
    """`resource: MODE`, the only step whose key is not a fixed word."""

    resource: StrictStr
    mode: StrictStr
    then: list[Step] | None = Field(None, description="Steps that follow if the lock was granted.")
    otherwise: list[Step] | None = Field(None, alias="else", description="Steps that follow if it was not.")
    sql: StrictStr | None = Field(None, description="The statement it stands for.")
    label: StrictStr | None = Field(None, description="How traces call it.")
    table_mode: StrictStr | None = Field(None, alias="table mode", description="For a row: how its table is taken.")

    def at(self, *more: str | int) -> Position:
        if more[:1] == ("mode",):
            more = (self.resource, *more[1:])
        return super().at(*more)

    @model_validator(mode="before")
    @classmethod
    def _split_resource(cls, data: Any) -> Any:
        """Turn `{lane[s]: FOR UPDATE, sql: …}` into fields, with errors that name what was written."""
        known = ("then", "else", "sql", "label", "table mode")
        locks = [key for key in data if key not in known]
        if not locks:
            raise PydanticCustomError(
                "step", "a step needs a lock (resource: MODE) or one of: {words}", {"words": WORDS}
            )
        if len(locks) > 1:
            hint = suggestion(locks[1], (*known, *STEP_KEYS))
            message = "a step takes one lock; '{first}' and '{second}' stand in the same one ({hint})"
            raise PydanticCustomError("step", message, {"first": locks[0], "second": locks[1], "hint": hint})
        mode = data[locks[0]]
        if not isinstance(mode, str):
            message = "'{resource}' needs a lock mode such as FOR UPDATE"
            raise PydanticCustomError("step", message, {"resource": locks[0]})
        return {"resource": locks[0], "mode": mode, **{key: data[key] for key in known if key in data}}

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        shape = handler.resolve_ref_schema(handler(schema))
        for field in ("resource", "mode"):
            shape["properties"].pop(field)
        shape.pop("required")
        shape.pop("additionalProperties")
        shape["patternProperties"] = {r"^[A-Za-z_]\w*\s*(\[.*\])?$": {"type": "string", "description": "A lock mode."}}
        shape["not"] = {"anyOf": [{"required": [key]} for key in STEP_KEYS]}
        return shape


class ForStep(Node):
    """Once for each element of a set, or each combination of elements of several."""

    over: Annotated[dict[StrictStr, StrictStr], Field(min_length=1)] = Field(alias="for")
    do: list[Step]
    order: Literal["forward", "reverse", "rotated", "any"] = "forward"
    sql: StrictStr | None = Field(None, description="One statement that takes all the locks of the loop.")


class EitherStep(Node):
    """One of several lists of steps."""

    either: Annotated[list[list[Step]], Field(min_length=1)]


class IfStep(Node):
    """Steps that depend on a formula."""

    condition: Formula = Field(alias="if")
    then: list[Step]
    otherwise: list[Step] = Field(default_factory=list, alias="else")


class SetStep(Node):
    """Assigns variables, all at once."""

    set: Annotated[dict[StrictStr, Formula], Field(min_length=1)]


class SavepointStep(Node):
    """Marks a point that `rollback to` returns to."""

    savepoint: StrictStr


class RollbackToStep(Node):
    """Gives back all locks taken since the savepoint, but session locks."""

    rollback_to: StrictStr = Field(alias="rollback to")


class ReleaseStep(Node):
    """Gives back a session lock, once."""

    release: StrictStr
    mode: StrictStr = "EXCLUSIVE"
    sql: StrictStr | None = None
    label: StrictStr | None = None


STEP_KEYS = ("for", "either", "if", "set", "savepoint", "rollback to", "release")
WORDS = ", ".join((*STEP_KEYS, "commit", "rollback"))


def _step_tag(value: Any) -> str | None:
    if isinstance(value, Node):
        return next((key for key, model in _STEP_MODELS.items() if isinstance(value, model)), None)
    if isinstance(value, str):
        return "end"
    if isinstance(value, dict):
        return next((key for key in STEP_KEYS if key in value), "lock")
    return None


_STEP_MODELS: dict[str, type[Node]] = {
    "for": ForStep, "either": EitherStep, "if": IfStep, "set": SetStep, "savepoint": SavepointStep,
    "rollback to": RollbackToStep, "release": ReleaseStep, "lock": LockStep,
}  # fmt: skip

Step = Annotated[
    Annotated[ForStep, Tag("for")]
    | Annotated[EitherStep, Tag("either")]
    | Annotated[IfStep, Tag("if")]
    | Annotated[SetStep, Tag("set")]
    | Annotated[SavepointStep, Tag("savepoint")]
    | Annotated[RollbackToStep, Tag("rollback to")]
    | Annotated[ReleaseStep, Tag("release")]
    | Annotated[Literal["commit", "rollback"], Tag("end")]
    | Annotated[LockStep, Tag("lock")],
    Discriminator(
        _step_tag,
        custom_error_type="step",
        custom_error_message=f"a step is `resource: MODE`, or one of: {WORDS}",
    ),
]


class Transaction(Node):
    """What one transaction locks, in order."""

    doc: StrictStr | None = None
    choose: dict[StrictStr, StrictStr] = Field(
        default_factory=dict, description="Parameters, any element of a set each."
    )
    start_when: Formula | None = Field(None, alias="start when")
    let: dict[StrictStr, Formula] = Field(default_factory=dict, description="Local variables, evaluated at the start.")
    take_at_start: dict[StrictStr, StrictStr] = Field(default_factory=dict, alias="take at start")
    steps: list[Step]
    on_commit: dict[StrictStr, Formula] = Field(default_factory=dict, alias="on commit")


class Role(Node):
    """Workers that run the same transactions."""

    count: Count = "any"
    runs: Annotated[list[StrictStr], Field(min_length=1)]


class DeadlockExpectation(Node):
    """The deadlock that must be found. Each key narrows it."""

    between: list[StrictStr] | None = Field(None, description="The transactions in the cycle, in any order.")
    on: list[StrictStr] | None = Field(None, description="The resources that the cycle's members wait for.")
    workers: StrictInt | None = Field(None, description="How many workers the cycle has.")
    states: StrictInt | None = Field(None, description="States on the shortest trace, the initial one included.")


class DeadlockExpected(Node):
    deadlock: DeadlockExpectation


class ViolationExpected(Node):
    violated: StrictStr = Field(description="The name of a never or always formula.")


def _expect_tag(value: Any) -> str | None:
    if isinstance(value, str):
        return "word"
    if isinstance(value, dict):
        return "violated" if "violated" in value else "deadlock"
    return None


Expectation = Annotated[
    Annotated[Literal["no deadlock", "deadlock", "global stall"], Tag("word")]
    | Annotated[DeadlockExpected, Tag("deadlock")]
    | Annotated[ViolationExpected, Tag("violated")],
    Discriminator(
        _expect_tag,
        custom_error_type="expect",
        custom_error_message="expect is `no deadlock`, `deadlock`, `global stall`, {deadlock: {…}} or {violated: NAME}",
    ),
]


class Spec(Node):
    """A whole spec file."""

    name: Annotated[StrictStr, Field(min_length=1)]
    doc: StrictStr | None = None
    sets: dict[StrictStr, Elements] = Field(default_factory=dict)
    variables: dict[StrictStr, Variable] = Field(default_factory=dict)
    resources: Annotated[dict[StrictStr, ResourceFamily], Field(min_length=1)]
    transactions: Annotated[dict[StrictStr, Transaction], Field(min_length=1)]
    workers: Count | None = None
    roles: dict[StrictStr, Role] = Field(default_factory=dict)
    never: dict[StrictStr, Formula] = Field(default_factory=dict, description="Formulas that no state may satisfy.")
    always: dict[StrictStr, Formula] = Field(
        default_factory=dict, description="Formulas that every state must satisfy."
    )
    no_global_stall: StrictBool = Field(False, alias="no global stall")
    expect: Expectation = "no deadlock"
    schema_sql: StrictStr | None = Field(None, alias="schema", description="SQL that makes the tables for replay.")

    @property
    def source(self) -> Source:
        """The file it was read from."""
        return self._source


for _model in (LockStep, ForStep, EitherStep, IfStep, Transaction, Spec):
    _model.model_rebuild()


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a spec file."""
    schema = Spec.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "lockmodel spec", **schema}
