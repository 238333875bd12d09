"""A scenario: a spec, a schedule, and what must come out of its replay, in one file.

What `Spec` is for a spec's document, `Scenario` is for a scenario's. Its key `scenario` is what tells the two apart.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, StrictInt, StrictStr, Tag

from lockmodel.document import Node
from lockmodel.fields import Count, Elements, Value
from lockmodel.spec import Spec


class Safe(Node):
    """Random schedules of a spec that holds, none of which may deadlock or differ from what the model foretells."""

    schedules: Annotated[StrictInt, Field(ge=1, le=100_000)] = Field(20, description="How many.")
    seed: Annotated[StrictInt, Field(ge=1)] = Field(1, description="What they are drawn from.")


class SafeOutcome(Node):
    """No schedule deadlocks."""

    safe: Safe = Field(description="The random schedules to run; `{}` for 20 of them.")


class RefutedOutcome(Node):
    """Postgres, or the code, does otherwise than the model foretells."""

    refuted: StrictStr = Field(description="Words that the reason must contain.")


def _outcome_tag(value: Any) -> str | None:
    if isinstance(value, str):
        return "?word"
    if isinstance(value, dict):
        return "?safe" if "safe" in value else "?refuted"
    return None


Outcome = Annotated[
    Annotated[Literal["deadlock", "stall", "confirmed"], Tag("?word")]
    | Annotated[SafeOutcome, Tag("?safe")]
    | Annotated[RefutedOutcome, Tag("?refuted")],
    Discriminator(
        _outcome_tag,
        custom_error_type="expected",
        custom_error_message="deadlock, stall, confirmed, {refuted: WORDS} or {safe: {schedules: N, seed: N}}",
    ),
]


def _spec_tag(value: Any) -> str | None:
    return "?file" if isinstance(value, str) else "?spec" if isinstance(value, dict) else None


class Scenario(Node):
    """A whole scenario file."""

    scenario: Annotated[StrictStr, Field(min_length=1)] = Field(description="What it shows, in a sentence.")
    about: StrictStr | None = Field(None, description="Free text: where it is from, what to learn from it.")
    spec: Annotated[
        Annotated[StrictStr, Tag("?file")] | Annotated[Spec, Tag("?spec")],
        Discriminator(
            _spec_tag, custom_error_type="expected", custom_error_message="a spec's file, or the spec itself"
        ),
    ] = Field(description="The spec: its file, seen from the scenario's, or the whole of it.")
    set: dict[StrictStr, Elements | Value] = Field(
        default_factory=dict, description="Sets and initial values to replace, as --set does."
    )
    workers: Count | None = Field(None, description="How many workers, as --workers says.")
    options: dict[StrictStr, Value] = Field(default_factory=dict, description="Other options for the replay's target.")
    schedule: list[dict[StrictStr, StrictStr]] = Field(
        default_factory=list, description="Who does what, step by step. If left out, the shortest trace to a violation."
    )
    outcome: Outcome = Field(
        description="What must come out: `deadlock` is a 40P01 with the trace's cycle, `stall` a wait behind a queue that goes on and on, `confirmed` whatever the model foretells."
    )
