"""What a spec file says, word for word: the document model.

These classes mirror the YAML document and nothing more; `lockmodel.resolver` gives the words their meaning. What a transaction does is in
`lockmodel.steps`, what a check must find in `lockmodel.expectations`.
Keys with a space in YAML (`start when`) are aliases here (`start_when`).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StrictBool, StrictInt, StrictStr, Tag

from lockmodel.document import Node, Source
from lockmodel.expectations import Expectation
from lockmodel.fields import MAX_NAMES, Count, Duration, Elements, Formula, Order, Parameters, Value, one_of
from lockmodel.steps import Step


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
