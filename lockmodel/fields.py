"""The types of a document's fields that several of its parts share, with errors that say what should stand there."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, StrictBool, StrictInt, StrictStr, Tag

MAX_NAMES = 64
"""Parameters, or local variables, that one transaction or one `for` may have."""

Order = Literal["forward", "reverse", "rotated", "any"]


def _by_type(value: Any) -> str | None:
    """The branch of a union that `value` belongs to, so that its errors speak of that branch alone."""
    return {int: "?number", bool: "?truth", str: "?word", list: "?list"}.get(type(value))


def one_of(expected: str) -> Discriminator:
    """Picks a branch by type; `expected` is what an error says should stand there.

    The tags of branches begin with `?`, so that they are never taken for keys of the document in the path of an error.
    """
    return Discriminator(_by_type, custom_error_type="expected", custom_error_message=expected)


Formula = Annotated[
    Annotated[StrictStr, Tag("?word")] | Annotated[StrictBool, Tag("?truth")] | Annotated[StrictInt, Tag("?number")],
    one_of("a formula"),
]
"""An expression as text; `true` and `3` reach us as YAML booleans and integers."""

Parameters = Annotated[dict[StrictStr, StrictStr], Field(max_length=MAX_NAMES)]
"""Names, each with the set that it ranges over."""

Duration = Annotated[
    Annotated[StrictInt, Field(ge=0), Tag("?number")] | Annotated[StrictStr, Tag("?word")],
    one_of("a duration such as 200ms or 2s"),
]
"""As Postgres's settings have it; a number is milliseconds."""

Mentions = Annotated[
    Annotated[StrictStr, Tag("?word")] | Annotated[list[StrictStr], Field(min_length=1), Tag("?list")],
    one_of("a relation or resource, or a list of them"),
]
"""One mention of a relation or a resource, or several."""


def as_list(mentions: str | list[str]) -> list[str]:
    """One word, or several, as several."""
    return [mentions] if isinstance(mentions, str) else mentions
