"""What a spec says that its check must find: nothing, or a violation of a certain shape.

`lockmodel.claims` looks the names up; `lockmodel.verdict` compares what was found.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, StrictInt, StrictStr, Tag

from lockmodel.document import Node


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
