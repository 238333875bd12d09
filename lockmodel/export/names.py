"""Names of a spec as identifiers of another language, and texts that are safe in its comments."""

from __future__ import annotations

import re
from collections.abc import Iterable

from lockmodel.errors import one_line

_LONGEST = 60


def identifier(text: str) -> str:
    """`text` with letters, digits and underscores only: `lane[q1#0, 1]` becomes `lane_q1_0_1`."""
    word = re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_")[:_LONGEST] or "x"
    return word if word[0].isalpha() else f"x_{word}"


class Identifiers:
    """Gives each text an identifier of its own; `reserved` words are never given."""

    def __init__(self, reserved: Iterable[str] = ()) -> None:
        self._given = set(reserved)

    def new(self, text: str) -> str:
        """An identifier that looks like `text`, with a number behind it where that one is taken."""
        first = candidate = identifier(text)
        number = 2
        while candidate in self._given:
            candidate = f"{first}_{number}"
            number += 1
        self._given.add(candidate)
        return candidate


def comment(text: str) -> str:
    """`text` on one line of ASCII, without anything that would end a comment or nest another in it."""
    flat = one_line(text, 200).encode("ascii", "replace").decode()
    return re.sub(r"[*(/\\]+(?=[*)/\\])|(?<=[*(/\\])[*)/]+", "_", flat)


def string(text: str) -> str:
    """`text` as a string literal in ASCII; different texts stay different. What other languages may not know is `<e9>` for é."""
    return (
        '"'
        + "".join(
            char if char.isascii() and char.isprintable() and char not in '"\\<' else f"<{ord(char):x}>"
            for char in text
        )
        + '"'
    )
