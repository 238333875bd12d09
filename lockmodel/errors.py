"""Every error that a user can cause, each one line that says where, what, and what instead.

A `LockmodelError` is always the user's to mend: the command line prints it and exits with 2. Anything else that
escapes is a defect of lockmodel.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Position:
    """A place in a spec: `file` as the user named it, `line` and `column` counted from 1 (0: unknown)."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        file = one_line(self.file, 1_000)
        return f"{file}:{self.line}" if self.line else file


class LockmodelError(Exception):
    """Base of all errors that are the user's to mend; `str()` is the one line to show."""


class SpecError(LockmodelError):
    """A spec that can't be read, or says something that has no meaning.

    `position` is where; `message` is what, without the position.
    """

    def __init__(self, position: Position, message: str) -> None:
        self.position = position
        self.message = one_line(message)
        super().__init__(f"{position}: {self.message}")


class TooLarge(SpecError):
    """A spec that has a meaning, but too many places or too much of something else to write it all down."""


class UsageError(LockmodelError):
    """A command line that asks for something that can't be done."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class ReplayError(LockmodelError):
    """A replay that could not be carried out: no server, no permission, a statement that fails for a reason of its own.

    `position` is where in the spec, if it is there.
    """

    def __init__(self, message: str, position: Position | None = None) -> None:
        self.position = position
        self.message = one_line(message)
        super().__init__(self.message if position is None else f"{position}: {self.message}")


def one_line(text: str, limit: int = 500) -> str:
    """`text` on one line of at most `limit` characters, with nothing in it that a terminal would act on."""
    flat = " ".join(text.split())
    safe = "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in flat)
    return safe if len(safe) <= limit else safe[: limit - 1] + "…"


def quote(word: object, limit: int = 60) -> str:
    """A user's word in quotes, cut where it is long."""
    text = one_line(str(word), limit)
    return f"'{text}'"


def closest(word: str, available: Iterable[str]) -> str | None:
    """The one of `available` that `word` is most like, if any is like it at all."""
    names = {name.lower(): name for name in available}
    close = difflib.get_close_matches(word[:80].lower(), names, n=1)
    return names[close[0]] if close else None


_SPARED = 2
"""So few names are not worth hiding."""


def suggestion(word: str, available: Iterable[str], *, show: int = 12) -> str:
    """What could have been meant: `did you mean X? available: X, Y, Z`."""
    names = list(dict.fromkeys(str(name) for name in available))
    if not names:
        return "there are none"
    meant = closest(word, names)
    if len(names) <= show + _SPARED:
        show = len(names)
    listed = ", ".join(one_line(name, 60) for name in names[:show])
    if len(names) > show:
        listed += f", … ({len(names)} in all)"
    return f"did you mean {one_line(meant, 60)}? available: {listed}" if meant else f"available: {listed}"
