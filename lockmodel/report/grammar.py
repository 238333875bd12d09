"""Small words that sentences are made of: a number with its noun, a list of names, values, a full stop. Knows nothing of locks."""

from __future__ import annotations

from collections.abc import Iterable

SHOWN = 4
"""How many names a list shows before it says `and 9 more`."""


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def listed(names: Iterable[str]) -> str:
    """`a, b and c`; what is too many to read, `a, b, c, d and 9 more`."""
    words = list(names)
    if len(words) > SHOWN + 1:
        words = [*words[:SHOWN], f"{len(words) - SHOWN} more"]
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def assignments(values: Iterable[tuple[str, object]]) -> str:
    return ", ".join(f"{name} = {str(value).lower() if isinstance(value, bool) else value}" for name, value in values)


def sentence(words: str) -> str:
    """`words` with a capital and a full stop."""
    return words[:1].upper() + words[1:] + ("" if words.endswith((".", "!", "?")) else ".")
