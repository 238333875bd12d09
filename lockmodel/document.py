"""A document whose parts know where they stand in their file, so that every error can say it."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict, PrivateAttr

from lockmodel.errors import Position

Path = tuple[str | int, ...]
"""The way to a part of a document: keys and indices."""


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

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=False, defer_build=True)
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
