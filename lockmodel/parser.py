"""From the bytes of a YAML file to a `Spec`. The only module that knows the YAML library.

The document is composed into nodes (which keep their positions) and turned into plain data, both under a budget: a small file
can be huge by its aliases, and the library takes some 0.2 ms for each node. The data is then validated against the document
model. Whatever is wrong becomes one `SpecError` with file and line.
"""

from __future__ import annotations

import re
from io import StringIO
from pathlib import Path as FilePath
from typing import Any, TypeVar

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode
from ruamel.yaml.reader import ReaderError

from lockmodel.document import Path, Source
from lockmodel.errors import Position, SpecError, UsageError, quote
from lockmodel.faults import first_fault, missing_values
from lockmodel.scenario import Scenario
from lockmodel.spec import Spec

MAX_BYTES = 256 * 1024
MAX_NODES = 25_000
"""Keys, values and list entries. A spec has about 50 of them for each KiB."""
MAX_DEPTH = 60

_EMPTY = "the file is empty; a spec has at least: name, resources, transactions"
# YAML 1.2's core schema; what a word without quotes means. Whatever is none of these is text.
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", re.ASCII)
_CONSTANTS = {
    **dict.fromkeys(("true", "True", "TRUE"), True), **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys(("null", "Null", "NULL", "~", ""), None),
}  # fmt: skip
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
# What the library says, and what that means to who wrote the file.
_HINTS = (
    ("character '\\t'", "a tab can't indent or begin a value; use spaces"),
    ("cannot start any token", "a value that begins with one of @ ` % needs quotes"),
    ("mapping values are not allowed", "a `: ` is not expected here; check the indentation, or quote the text"),
    ("but found '<block mapping start>'", "the indentation does not fit the lines above"),
    ("while scanning a simple key", "this line is neither `key: value` nor part of the lines above"),
    ("found unexpected end of stream", "a quote that opens here is never closed"),
    ("expected a single document", "a second document begins here; a file holds one spec"),
    ("found undefined alias", "this alias has no anchor (&…) before it"),
    ("expected '<document start>'", "the document has ended, or never began, where this stands"),
    ("expected ',' or '}', but got '['", 'a key with brackets needs quotes inside {…}, as in {"lane[0]": FOR UPDATE}'),
    ("but found ']'", "a closing bracket ] is too many, or its opening one is missing"),
    ("but found '}'", "a closing bracket } is too many, or its opening one is missing"),
    ("but found ','", "a comma stands outside of brackets; put the list in […] or the mapping in {…}"),
    ("expected <block end>", "the indentation does not fit the lines above, or a `- ` is missing or too many"),
    ("expected ',' or", "a bracket is not closed, or a comma is missing"),
)


def load(path: str | FilePath) -> Spec:
    """Read the spec in file `path`.

    Raises SpecError for what is wrong in it, UsageError if the file can't be read.
    """
    return parse(_read(path), str(path))


def load_any(path: str | FilePath) -> Spec | Scenario:
    """Read the spec or the scenario in file `path`: a scenario has the key `scenario`. Raises as `load` does."""
    content, source = _document(_read(path), str(path))
    if "scenario" in content:
        return _validated(Scenario, content, source)
    return _validated(Spec, content, source)


def parse(data: bytes | str, file: str = "<spec>") -> Spec:
    """Read a spec from `data`; `file` is what errors call it. Raises SpecError."""
    content, source = _document(data, file)
    if "scenario" in content and "transactions" not in content:
        raise SpecError(source.position(("scenario",)), "this is a scenario, not a spec; `lockmodel replay` runs it")
    return _validated(Spec, content, source)


def _read(path: str | FilePath) -> bytes:
    file = str(path)
    try:
        with FilePath(path).open("rb") as stream:
            return stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror or error}") from None
    except ValueError as error:  # A NUL byte in the name.
        raise UsageError(f"{quote(file)}: {error}") from None


def _document(data: bytes | str, file: str) -> tuple[dict[str, Any], Source]:
    """The content of a document as plain data, and where each part of it stands."""
    if _is_report(data):
        raise SpecError(Position(file, 1), "this is a JSON report, not a spec; `lockmodel replay` takes it")
    if len(data) > MAX_BYTES:
        raise SpecError(Position(file), f"larger than {MAX_BYTES // 1024} KiB, the most that a spec may have")
    text = _decode(data, file) if isinstance(data, bytes) else data
    root = _compose(text, file)
    if root is None:
        raise SpecError(Position(file, 1), _EMPTY)
    reader = _Reader(file)
    content = reader.plain(root, (), 0)
    source = Source(file, text, reader.lines)
    if content is None:
        raise SpecError(source.position(()), _EMPTY)
    if not isinstance(content, dict):
        found = "a list" if isinstance(content, list) else quote(content)
        message = f"a spec is a mapping with the keys name, resources, transactions, …; this is {found}"
        raise SpecError(source.position(()), message)
    if not any(str(key) in _KEYS for key in content):
        found = ", ".join(quote(key, 30) for key in list(content)[:3])
        message = f"this is no spec: a spec has the keys name, resources, transactions, …; this has {found}"
        raise SpecError(source.position(()), message)
    return content, source


def _is_report(data: bytes | str) -> bool:
    """Whether `data` begins as the JSON reports of lockmodel do."""
    head = data[:200].decode("utf-8", "replace") if isinstance(data, bytes) else data[:200]
    return re.match(r'\s*\{\s*"lockmodel"\s*:', head) is not None


_KEYS = {field.alias or name for model in (Spec, Scenario) for name, field in model.model_fields.items()}
"""The keys of a spec or a scenario."""

Document = TypeVar("Document", Spec, Scenario)


def _validated(model: type[Document], content: dict[str, Any], source: Source) -> Document:
    """`content` as a `model`, each part of which knows where it stands."""
    try:
        document = model.model_validate(content)
    except ValidationError as error:
        raise first_fault(error, content, source, model) from None
    if missing := missing_values(content, source):
        raise missing
    document.place(source, ())
    return document


def _decode(data: bytes, file: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        message = f"not UTF-8 text (byte 0x{data[error.start]:02x}); save the file as UTF-8"
        raise SpecError(Position(file, line), message) from None


def _compose(text: str, file: str) -> Node | None:
    yaml = YAML(typ="safe", pure=True)
    yaml.Composer = _Composer
    composer = yaml.composer
    composer.file = file
    try:
        root: Node | None = yaml.compose(StringIO(text))
        return root
    except SpecError:
        raise
    except MarkedYAMLError as error:
        raise _yaml_error(error, file) from None
    except ReaderError as error:
        line = text[: error.position].count("\n") + 1
        message = f"not valid YAML: the character \\x{error.character:02x} is not allowed; delete it"
        raise SpecError(Position(file, line), message) from None
    except Exception as error:
        # The library meets some malformed input with an assertion or a look-up error of its own; the input is still what is wrong.
        raise SpecError(composer.position, f"not valid YAML near here ({type(error).__name__})") from None


def _yaml_error(error: MarkedYAMLError, file: str) -> SpecError:
    context, problem = error.context or "", error.problem or ""
    mark = error.problem_mark or error.context_mark
    if "unexpected end of stream" in problem and error.context_mark:
        mark = error.context_mark
    said = " ".join(part for part in (context, problem) if part)
    begins = error.context_mark
    if begins and mark and begins.line != mark.line and "while parsing a flow" in context:
        said += f" (it begins in line {begins.line + 1})"
    hint = next((words for part, words in _HINTS if part in said), None)
    position = Position(file, mark.line + 1, mark.column + 1) if mark else Position(file)
    return SpecError(position, f"not valid YAML: {hint} ({said})" if hint else f"not valid YAML: {said}")


class _Composer(Composer):
    """The library's composer, which stops at the first sign of too much, and takes no tags: a spec has no types of its own."""

    file = ""
    _nodes = 0
    _line = 0
    _column = 0

    def __init__(self, loader: Any = None) -> None:
        super().__init__(loader)
        self.warn_double_anchors = False

    @property
    def position(self) -> Position:
        """Where the node being composed begins."""
        return Position(self.file, self._line + 1, self._column + 1)

    def compose_document(self) -> Any:
        event = self.parser.peek_event()
        if event.version not in (None, (1, 2)) or event.tags:
            position = Position(self.file, event.start_mark.line + 1)
            raise SpecError(position, "a spec is YAML 1.2 and has no % directives; drop them")
        return super().compose_document()

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.parser.peek_event()
        self._line, self._column = event.start_mark.line, event.start_mark.column
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise _too_many(self.position)
        if self.depth > MAX_DEPTH:
            raise _too_deep(self.position)
        if (tag := getattr(event, "tag", None)) is not None:
            word = str(tag).replace("tag:yaml.org,2002:", "!!", 1)
            raise SpecError(self.position, f"the tag {quote(word)} has no meaning in a spec; drop it")
        return super().compose_node(parent, index)


def _too_many(position: Position) -> SpecError:
    return SpecError(
        position, f"more than {MAX_NODES:,} parts by here, the most that a spec may have, aliases expanded"
    )


def _too_deep(position: Position) -> SpecError:
    return SpecError(position, f"nested deeper than {MAX_DEPTH} levels, the most that there may be")


class _Reader:
    """Turns YAML nodes into plain data and notes where each part stands."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.lines: dict[Path, tuple[int, int]] = {}
        self._nodes = 0
        self._open: set[int] = set()

    def plain(self, node: Node, path: Path, depth: int) -> Any:
        self._nodes += 1
        position = self._position(node)
        if self._nodes > MAX_NODES:
            raise _too_many(position)
        if depth > MAX_DEPTH:
            raise _too_deep(position)
        self.lines.setdefault(path, (position.line, position.column))
        if isinstance(node, ScalarNode):
            return _scalar(node, position)
        if id(node) in self._open:
            raise SpecError(position, "an alias stands inside of what it stands for")
        self._open.add(id(node))
        if isinstance(node, MappingNode):
            value: Any = self._mapping(node, path, depth)
        else:
            value = [self.plain(item, (*path, index), depth + 1) for index, item in enumerate(node.value)]
        self._open.discard(id(node))
        return value

    def _mapping(self, node: MappingNode, path: Path, depth: int) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            position = self._position(key_node)
            if not isinstance(key_node, ScalarNode):
                raise SpecError(
                    position, 'a key must be plain text; quote it if it has brackets: "lane[0]": FOR UPDATE'
                )
            key = str(key_node.value)
            if not key.strip():
                raise SpecError(position, "a key is empty; write a word before the colon")
            if not key.isprintable():
                raise SpecError(position, f"the key {quote(key)} must be on one line, of printable characters")
            if key == "<<":
                raise SpecError(position, "merge keys (<<) are not part of YAML 1.2; write the keys out")
            if key in result:
                raise SpecError(position, f"the key {quote(key)} stands here twice; merge the two, or rename one")
            self.lines[(*path, key)] = (position.line, position.column)
            result[key] = self.plain(value_node, (*path, key), depth + 1)
        return result

    def _position(self, node: Node) -> Position:
        return Position(self.file, node.start_mark.line + 1, node.start_mark.column + 1)


def _scalar(node: ScalarNode, position: Position) -> Any:
    text = str(node.value)
    if node.style is None:
        if text in _CONSTANTS:
            return _CONSTANTS[text]
        if _INTEGER.fullmatch(text):
            if len(text) > 18:
                raise SpecError(position, f"{quote(text)} is too large a number; quote it if it is a word")
            return int(text, {"0x": 16, "0o": 8}.get(text[:2], 10))
    if wrong := _CONTROL.search(text):
        message = f"the character \\x{ord(wrong.group()):02x} in a text can't be shown; delete it"
        raise SpecError(position, message)
    return text
