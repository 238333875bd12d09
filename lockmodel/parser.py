"""From the bytes of a YAML file to a `Spec`. The only module that knows the YAML library.

The document is composed into nodes (which keep their positions), turned into plain data under a budget (aliases make a small
file huge), and validated against the document model. Whatever is wrong becomes one `SpecError` with file and line.
"""

from __future__ import annotations

from collections.abc import Mapping
from io import StringIO
from pathlib import Path as FilePath
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from lockmodel.errors import Position, SpecError, UsageError, quote, suggestion
from lockmodel.spec import Path, Source, Spec

MAX_BYTES = 512 * 1024
MAX_NODES = 100_000
MAX_DEPTH = 60


def load(path: str | FilePath) -> Spec:
    """Read the spec in file `path`.

    Raises SpecError for what is wrong in it, UsageError if the file can't be read.
    """
    file = str(path)
    try:
        with FilePath(path).open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror or error}") from None
    except ValueError as error:  # A NUL byte in the name.
        raise UsageError(f"{quote(file)}: {error}") from None
    return parse(data, file)


def parse(data: bytes | str, file: str = "<spec>") -> Spec:
    """Read a spec from `data`; `file` is what errors call it. Raises SpecError."""
    if len(data) > MAX_BYTES:
        raise SpecError(Position(file), f"larger than {MAX_BYTES // 1024} KiB, the most that a spec may have")
    text = _decode(data, file) if isinstance(data, bytes) else data
    root = _compose(text, file)
    if root is None:
        raise SpecError(Position(file, 1), "the file is empty; a spec has at least: name, resources, transactions")
    reader = _Reader(file)
    content = reader.plain(root, (), 0)
    source = Source(file, text, reader.lines)
    if not isinstance(content, dict):
        raise SpecError(source.position(()), "a spec is a mapping with the keys name, resources, transactions, …")
    try:
        spec = Spec.model_validate(content)
    except ValidationError as error:
        raise _first_error(error, content, source) from None
    spec.place(source, ())
    return spec


def _decode(data: bytes, file: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise SpecError(Position(file, line), f"not UTF-8 text (byte 0x{data[error.start]:02x})") from None


def _compose(text: str, file: str) -> Node | None:
    try:
        return YAML(typ="safe", pure=True).compose(StringIO(text))  # type: ignore[no-any-return]
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        position = Position(file, mark.line + 1, mark.column + 1) if mark else Position(file)
        problem = " ".join(part for part in (error.context, error.problem) if part)
        raise SpecError(position, f"not valid YAML: {problem}") from None
    except YAMLError as error:
        raise SpecError(Position(file), f"not valid YAML: {error}") from None
    except RecursionError:
        raise SpecError(Position(file), f"nested deeper than {MAX_DEPTH} levels") from None
    except Exception as error:
        # The library meets some malformed input with an assertion or a look-up error of its own; the input is still what is wrong.
        raise SpecError(Position(file), f"not valid YAML ({type(error).__name__})") from None


class _Reader:
    """Turns YAML nodes into plain data and notes where each part stands."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.lines: dict[Path, tuple[int, int]] = {}
        self._nodes = 0

    def plain(self, node: Node, path: Path, depth: int) -> Any:
        self._nodes += 1
        mark = node.start_mark
        position = Position(self.file, mark.line + 1, mark.column + 1)
        if self._nodes > MAX_NODES:
            raise SpecError(position, f"more than {MAX_NODES:,} parts once aliases are expanded")
        if depth > MAX_DEPTH:
            raise SpecError(position, f"nested deeper than {MAX_DEPTH} levels")
        self.lines.setdefault(path, (position.line, position.column))
        if isinstance(node, ScalarNode):
            return _scalar(node, position)
        if isinstance(node, SequenceNode):
            return [self.plain(item, (*path, index), depth + 1) for index, item in enumerate(node.value)]
        if isinstance(node, MappingNode):
            return self._mapping(node, path, depth)
        raise SpecError(position, "not valid YAML here")

    def _mapping(self, node: MappingNode, path: Path, depth: int) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            position = Position(self.file, key_node.start_mark.line + 1, key_node.start_mark.column + 1)
            if not isinstance(key_node, ScalarNode):
                raise SpecError(position, "a key must be plain text; quote it if it has brackets")
            key = str(key_node.value)
            if key in result:
                raise SpecError(position, f"the key {quote(key)} stands here twice")
            self.lines[(*path, key)] = (position.line, position.column)
            result[key] = self.plain(value_node, (*path, key), depth + 1)
        return result


def _scalar(node: ScalarNode, position: Position) -> Any:
    """A scalar by YAML 1.2's core schema; what is none of its types stays text."""
    text = str(node.value)
    tag = str(node.tag or "").rpartition(":")[2]
    if str(node.tag or "").startswith("!") or tag in ("binary", "set", "omap", "pairs"):
        raise SpecError(position, f"the tag {quote(node.tag)} has no meaning in a spec")
    if tag == "int":
        digits = text.replace("_", "")[:20]
        base = {"0x": 16, "0o": 8}.get(digits.lstrip("+-")[:2].lower(), 10)
        if len(digits) > 18:
            raise SpecError(position, f"{quote(text)} is too large a number")
        return int(digits, base)
    if tag == "bool":
        return text.lower() == "true"
    if tag == "null":
        return None
    return text


def _first_error(error: ValidationError, content: Mapping[str, Any], source: Source) -> SpecError:
    """The error that stands first in the file, in lockmodel's words."""
    details = error.errors(include_url=False, include_context=True)

    def place(detail: ErrorDetails) -> tuple[int, int, int]:
        position = source.position(_yaml_path(detail["loc"], content))
        return position.line, position.column, -len(detail["loc"])

    first = min(details, key=place)
    if first["type"] == "missing":
        # A misspelt key is both a missing one and an unknown one; the unknown one says more.
        siblings = [d for d in details if d["type"] == "extra_forbidden" and d["loc"][:-1] == first["loc"][:-1]]
        first = min(siblings, key=place, default=first)
    path = _yaml_path(first["loc"], content)
    return SpecError(source.position(path), _words(first, path))


def _yaml_path(loc: tuple[str | int, ...], content: Any) -> Path:
    """`loc` without the names of union branches that pydantic puts between the keys."""
    path: list[str | int] = []
    here = content
    for part in loc:
        parts: dict[str | int, Any] = dict(enumerate(here)) if isinstance(here, list) else here
        if isinstance(parts, dict) and part in parts:
            here = parts[part]
            path.append(part)
    return tuple(path)


def _owner(path: Path) -> str:
    """What `path` is a part of, in words: `transaction 'claim'`, `resource 'lane'`, `the spec`."""
    kinds = {"transactions": "transaction", "resources": "resource", "variables": "variable", "roles": "role"}
    if any(part in ("steps", "do", "either", "then", "else") for part in path[:-1]):
        return f"a step of transaction {quote(path[1])}"
    if len(path) >= 2 and path[0] in kinds:
        return f"{kinds[str(path[0])]} {quote(path[1])}"
    return quote(path[0]) if path and path[0] == "expect" else "the spec"


def _words(detail: ErrorDetails, path: Path) -> str:
    kind, value = detail["type"], detail["input"]
    context = detail.get("ctx", {})
    owner = _owner(path)
    name = quote(path[-1]) if path and isinstance(path[-1], str) else owner
    shown = {dict: "a mapping", list: "a list", bool: "true or false", type(None): "nothing"}.get(
        type(value), quote(value)
    )
    if kind == "extra_forbidden":
        return f"unknown key {quote(path[-1])} in {_owner(path[:-1])}; {suggestion(str(path[-1]), _keys(detail))}"
    if kind == "missing":
        return f"{owner} lacks the key {quote(detail['loc'][-1])}"
    if kind == "literal_error":
        return f"{shown} is not a value of {name}; expected {context['expected']}"
    if kind == "too_short":
        return f"{name} is empty; it needs at least {context.get('min_length', 1)}"
    if kind == "too_long":
        return f"{name} has more than {context.get('max_length')} elements"
    if kind == "string_too_short":
        return f"{name} is empty"
    if kind in ("greater_than_equal", "less_than_equal"):
        bound = f"at least {context['ge']}" if "ge" in context else f"at most {context['le']}"
        return f"{name} is {shown}; it must be {bound}"
    expected = {
        "string_type": "text", "int_type": "an integer", "bool_type": "true or false", "list_type": "a list",
        "dict_type": "a mapping", "model_type": "a mapping", "model_attributes_type": "a mapping",
    }  # fmt: skip
    if kind in expected:
        return f"{name} must be {expected[kind]}, not {shown}"
    return detail["msg"]


def _keys(detail: ErrorDetails) -> list[str]:
    """The keys that the document model has where `detail` found an unknown one."""
    from lockmodel import spec

    here: type[spec.Node] = spec.Spec
    models: dict[str, type[spec.Node]] = {
        "variables": spec.Variable, "resources": spec.ResourceFamily, "transactions": spec.Transaction,
        "roles": spec.Role, **spec._STEP_MODELS,
    }  # fmt: skip
    for part in detail["loc"][:-1]:
        if part == "expect":
            here = spec.DeadlockExpected
        elif part == "deadlock" and here is spec.DeadlockExpected:
            here = spec.DeadlockExpectation
        elif part in models and here is not spec.DeadlockExpectation:
            here = models[str(part)]
    return [field.alias or name for name, field in here.model_fields.items()]
