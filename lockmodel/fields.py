"""The types of a document's fields that several of its parts share, with errors that say what should stand there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, StrictBool, StrictInt, StrictStr, Tag

from lockmodel.errors import quote

MAX_NAMES = 64
"""Parameters, or local variables, that one transaction or one `for` may have."""

MAX_ELEMENTS = 4096
"""Of one set."""
MAX_WORKERS = 4096
"""Of one role."""
_ELEMENT = re.compile(r"[\w#.-]+")

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

Value = Annotated[
    Annotated[StrictInt, Tag("?number")] | Annotated[StrictBool, Tag("?truth")] | Annotated[StrictStr, Tag("?word")],
    one_of("a word, an integer, true or false"),
]
"""An element of a set, or a value of a variable."""

Elements = Annotated[
    Annotated[StrictInt, Field(ge=1, le=MAX_ELEMENTS), Tag("?number")]
    | Annotated[list[Value], Field(min_length=1, max_length=MAX_ELEMENTS), Tag("?list")],
    one_of("a number n (for 0 … n-1) or a list of elements"),
]
"""Those of a set, as `check_elements` wants them."""

Count = Annotated[
    Annotated[StrictInt, Field(ge=1, le=MAX_WORKERS), Tag("?number")] | Annotated[Literal["any"], Tag("?word")],
    one_of("a number of workers, or any"),
]
"""How many workers a role has."""

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
