"""What is wrong with a document's shape, in lockmodel's words: pydantic's errors, made into one line with a position.

The document models (`lockmodel.spec` and its parts) decide what is right; here is only how it is said.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from lockmodel import expectations, scenario, statements, steps
from lockmodel.document import Node, Path, Source
from lockmodel.errors import SpecError, quote, suggestion
from lockmodel.spec import Spec

_KINDS = {
    "sets": "set", "transactions": "transaction", "resources": "resource", "variables": "variable", "roles": "role",
    "relations": "relation", "triggers": "trigger",
}  # fmt: skip
_TAGGED: dict[str, type[Node]] = {
    "?for": steps.ForStep, "?statement": steps.StatementStep, "?either": steps.EitherStep, "?if": steps.IfStep, "?set": steps.SetStep,
    "?savepoint": steps.SavepointStep, "?rollback to": steps.RollbackToStep, "?release": steps.ReleaseStep,
    "?insert": statements.InsertStep, "?update": statements.UpdateStep, "?delete": statements.DeleteStep,
    "?select": statements.SelectStep, "?truncate": statements.TruncateStep, "?alter table": statements.AlterStep,
    "?attach partition": statements.AttachStep, "?detach partition": statements.DetachStep, "?command": statements.CommandStep,
    "?lock": steps.LockStep, "?deadlock": expectations.DeadlockExpected, "?violated": expectations.ViolationExpected,
    "?safe": scenario.SafeOutcome, "?refuted": scenario.RefutedOutcome,
}  # fmt: skip
_TYPES = {
    "string_type": "text", "int_type": "an integer", "bool_type": "true or false", "list_type": "a list, as in [a, b]",
    "dict_type": "a mapping, as in {key: value}", "model_type": "a mapping, as in {key: value}",
}  # fmt: skip


_STEP_LISTS = ("steps", "do", "then", "else")


def first_fault(
    error: ValidationError, content: Mapping[str, Any], source: Source, model: type[Node] = Spec
) -> SpecError:
    """The error that stands first in the file, whose whole document is a `model`."""
    details = error.errors(include_url=False, include_context=True)
    paths = [_yaml_path(detail, content) for detail in details]

    def place(index: int) -> tuple[int, int, int]:
        position = source.position(paths[index])
        return position.line, position.column, -len(paths[index])

    first = min(range(len(details)), key=place)
    if details[first]["type"] == "missing":
        # A misspelt key is both a missing one and an unknown one; the unknown one says more.
        around = details[first]["loc"][:-1]
        unknown = [i for i, d in enumerate(details) if d["type"] == "extra_forbidden" and d["loc"][:-1] == around]
        first = min(unknown, key=place, default=first)
    return SpecError(source.position(paths[first]), _words(details[first], paths[first], model))


def missing_values(content: Any, source: Source, path: Path = ()) -> SpecError | None:
    """The first key in `content` that has nothing after it: what the model takes for a key that was left out."""
    parts = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in parts:
        if value is None:
            return SpecError(source.position((*path, key)), f"{quote(key)} has no value; write one, or drop the key")
        if found := missing_values(value, source, (*path, key)):
            return found
    return None


def _yaml_path(detail: ErrorDetails, content: Any) -> Path:
    """Where `detail` is in the document: its location without the tags of union branches."""
    path: list[str | int] = []
    here = content
    key = detail.get("ctx", {}).get("key")
    for part in (*detail["loc"], *([key] if key is not None else [])):
        if isinstance(here, list):
            known = isinstance(part, int) and part < len(here)
        else:
            known = isinstance(here, dict) and part in here
        if known:
            here = here[part]
            path.append(part)
    return tuple(path)


def _words(detail: ErrorDetails, path: Path, model: type[Node]) -> str:
    kind, context = detail["type"], detail.get("ctx", {})
    name, shown = _name(path), _shown(detail["input"])
    if kind == "step":
        return str(context["message"])
    if kind == "expected":
        return f"{name} must be {detail['msg']}; it is {shown}"
    if kind == "extra_forbidden":
        return f"unknown key {quote(path[-1])} in {_name(path[:-1])}; {suggestion(str(path[-1]), _keys(detail, model))}"
    if kind == "missing":
        return f"{name} lacks the key {quote(detail['loc'][-1])}"
    if kind == "literal_error":
        words = re.findall(r"'([^']*)'", context["expected"])
        if detail["loc"][-1] == "?end":
            return f"unknown step {shown}; {suggestion(str(detail['input']), [*words, *steps.STEP_KEYS])}"
        if words == ["any"]:
            return f"{name} must be a number of workers, or any; it is {shown}"
        return f"{name} can't be {shown}; {suggestion(str(detail['input']), words)}"
    if kind in ("too_short", "string_too_short"):
        return f"{name} is empty; it needs at least one {_part(path)}"
    if kind == "too_long":
        return f"{name} has more than {context['max_length']:,} entries, the most that there may be"
    if kind in ("greater_than_equal", "less_than_equal"):
        bound = f"at least {context['ge']:,}" if "ge" in context else f"at most {context['le']:,}"
        return f"{name} is {detail['input']}; it must be {bound}"
    if kind == "string_type" and path[-2:-1] and path[-2] in ("for", "choose"):
        return f"parameter {quote(path[-1])} must be the name of a set; it is {shown}"
    if kind in ("dict_type", "model_type") and path[-1] in ("for", "choose"):
        return f"{name} must say which set each parameter is of, as in {{s: stripe}}; it is {shown}"
    if kind == "list_type" and path[-1] == "either":
        return f"{name} must be a list of lists of steps, each on a line that begins with `- - `; it is {shown}"
    if kind == "list_type" and (path[-1] in _STEP_LISTS or path[-2:-1] == ("either",)):
        return f"{name} must be a list of steps, each on a line that begins with `- `; it is {shown}"
    if kind in _TYPES:
        return f"{name} must be {_TYPES[kind]}; it is {shown}"
    return f"{name}: {detail['msg']}"


def _name(path: Path) -> str:
    """What stands at `path`, in words: `transaction 'claim'`, `'per' of resource 'lane'`, `a step of transaction 'claim'`."""
    if not path:
        return "the spec"
    *around, last = path
    if isinstance(last, int):
        if around[-1] in _STEP_LISTS or "either" in around[-2:-1]:
            return f"a step of transaction {quote(path[1])}"
        if around[-1] == "either":
            return f"alternative {last + 1} of 'either'"
        return f"entry {last + 1} of {_name(tuple(around))}"
    if len(around) == 1 and around[0] in _KINDS:
        return f"{_KINDS[str(around[0])]} {quote(last)}"
    return quote(last)


def _part(path: Path) -> str:
    """What a list or mapping at `path` is made of."""
    kinds = {
        **_KINDS, "for": "parameter", "either": "list of steps", "set": "variable", "runs": "transaction",
        "name": "character", "savepoint": "character", "values": "value",
    }  # fmt: skip
    return "element" if path[:1] == ("sets",) else kinds.get(str(path[-1]), "entry")


def _shown(value: object) -> str:
    """What was found, in words."""
    match value:
        case None:
            return "left empty"
        case bool():
            return "true" if value else "false"
        case int():
            return f"the number {value}"
        case str():
            return quote(value)
        case list():
            return "a list" if value else "an empty list"
        case dict():
            return f"a mapping with the key {quote(next(iter(value)))}" if value else "an empty mapping"
    return quote(value)


def _keys(detail: ErrorDetails, model: type[Node]) -> list[str]:
    """The keys that the document model has where `detail` found an unknown one."""
    here = model
    parts = iter(detail["loc"][:-1])
    for part in parts:
        if part in _TAGGED:
            here = _TAGGED[str(part)]
            continue
        field = next((field for name, field in here.model_fields.items() if part == (field.alias or name)), None)
        if field is None:
            continue
        inside = _nodes_in(field.annotation)
        if len(inside) == 1:
            here = inside.pop()
        if get_origin(field.annotation) is dict:
            next(parts, None)  # A name that the user gave.
    keys = [field.alias or name for name, field in here.model_fields.items()]
    return [*keys, "violated"] if here is expectations.DeadlockExpected else keys


def _nodes_in(annotation: Any) -> set[type[Node]]:
    """The parts of a document that `annotation` speaks of."""
    if isinstance(annotation, type) and issubclass(annotation, Node):
        return {annotation}
    return {node for part in get_args(annotation) for node in _nodes_in(part)}
