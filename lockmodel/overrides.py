"""`--set` and `--workers`: a spec with other constants, without editing its file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from lockmodel.errors import UsageError, quote, suggestion
from lockmodel.fields import MAX_ELEMENTS, MAX_WORKERS, check_elements
from lockmodel.spec import Spec

Value = int | str | bool


@dataclass(frozen=True)
class Overrides:
    """What replaces the spec's own: sets (a size or elements), initial values of variables, and numbers of workers.

    `workers` is one number for all, or one for each role; `any` is None.
    """

    sets: Mapping[str, int | tuple[Value, ...]] = field(default_factory=dict)
    workers: int | Mapping[str, int | None] | str | None = ""
    """The empty text: not overridden."""


def parse_overrides(settings: Iterable[str], workers: Iterable[str]) -> Overrides:
    """Read the values of `--set NAME=VALUE` and `--workers N` or `ROLE=N`. Raises UsageError."""
    sets: dict[str, int | tuple[Value, ...]] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        name, text = name.strip(), text.strip()
        if not equals or not name or not text:
            raise UsageError(f"--set {quote(setting)}: write NAME=NUMBER or NAME=ELEMENT,ELEMENT")
        if name in sets:
            raise UsageError(f"--set {quote(setting)}: {name} is set twice; drop one")
        if text.startswith("[") and text.endswith("]"):
            text = text[1:-1]
            parts: list[str] | None = text.split(",")
        else:
            parts = text.split(",") if "," in text else None
        if parts is None:
            value = _value(text)
            sets[name] = value if isinstance(value, int) and not isinstance(value, bool) else (value,)
        else:
            sets[name] = tuple(_value(part.strip()) for part in parts)
    counts: dict[str, int | None] = {}
    whole: int | str | None = ""
    for word in workers:
        role, equals, text = word.rpartition("=")
        if equals and role.strip() in counts:
            raise UsageError(f"--workers {quote(word)}: {role.strip()} has a number already; drop one")
        if not equals and whole != "":
            raise UsageError(f"--workers {quote(word)}: there is a number of workers already; drop one")
        if equals:
            counts[role.strip()] = _count(text.strip(), word)
        else:
            whole = _count(word.strip(), word)
    if counts and whole != "":
        raise UsageError("--workers takes either one number or ROLE=N for each role, not both")
    return Overrides(sets, counts or whole)


def _value(text: str) -> Value:
    if text in ("true", "false"):
        return text == "true"
    digits = text.removeprefix("-")
    return int(text) if digits.isascii() and digits.isdigit() and len(digits) <= 12 else text


def _count(text: str, word: str) -> int | None:
    if text == "any":
        return None
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:6]) <= MAX_WORKERS):
        raise UsageError(f"--workers {quote(word)}: a number of workers is 1 to {MAX_WORKERS:,}, or any")
    return int(text)


def apply(spec: Spec, overrides: Overrides) -> Spec:
    """`spec` with `overrides` in place. Raises UsageError where they name what it does not have."""
    changes: dict[str, object] = {}
    sets = dict(spec.sets)
    variables = dict(spec.variables)
    for name, value in overrides.sets.items():
        if name in spec.sets:
            sets[name] = _set_elements(name, value)
        elif name in spec.variables:
            initial = value if isinstance(value, int) else value[0]
            if isinstance(value, tuple) and len(value) != 1:
                raise UsageError(f"--set {name}: {name} is a variable and takes one initial value")
            variables[name] = spec.variables[name].model_copy(update={"initial": initial})
        else:
            hint = suggestion(name, [*spec.sets, *spec.variables])
            raise UsageError(f"--set {quote(name)}: {spec.source.file} has no such set or variable; {hint}")
    changes["sets"], changes["variables"] = sets, variables
    if isinstance(overrides.workers, Mapping):
        changes["roles"] = _roles(spec, overrides.workers)
    elif not isinstance(overrides.workers, str):
        count = "any" if overrides.workers is None else overrides.workers
        if spec.roles:
            changes["roles"] = _any_roles(spec, count)
        else:
            changes["workers"] = count
    return spec.model_copy(update=changes)


def _set_elements(name: str, value: int | tuple[Value, ...]) -> int | list[Value]:
    if isinstance(value, tuple):
        if len(value) > MAX_ELEMENTS:
            raise UsageError(f"--set {name}: a set has at most {MAX_ELEMENTS:,} elements")
        if any(element == "" for element in value):
            raise UsageError(f"--set {name}: an element is empty; write NAME=ELEMENT,ELEMENT")
        if fault := check_elements(value):
            raise UsageError(f"--set {name}: the element {fault[1]}")
        return list(value)
    if not 1 <= value <= MAX_ELEMENTS:
        raise UsageError(f"--set {name}={value}: the size of a set is 1 to {MAX_ELEMENTS:,}")
    return value


def _roles(spec: Spec, counts: Mapping[str, int | None]) -> dict[str, object]:
    if not spec.roles:
        name, count = next(iter(counts.items()))
        wanted = "any" if count is None else count
        raise UsageError(f"--workers {name}={wanted}: {spec.source.file} has no roles; write --workers {wanted}")
    roles: dict[str, object] = dict(spec.roles)
    for name, count in counts.items():
        if name not in spec.roles:
            raise UsageError(f"--workers {name}=…: unknown role; {suggestion(name, spec.roles)}")
        roles[name] = spec.roles[name].model_copy(update={"count": "any" if count is None else count})
    return roles


def _any_roles(spec: Spec, count: object) -> dict[str, object]:
    """A bare number goes to the roles that may have any number; a fixed count is part of the spec."""
    free = [name for name, role in spec.roles.items() if role.count == "any"]
    if not free:
        names = ", ".join(f"{name}=N" for name in spec.roles)
        raise UsageError(f"--workers: every role of {spec.source.file} has a count; say which to change: {names}")
    return {
        name: role.model_copy(update={"count": count}) if name in free else role for name, role in spec.roles.items()
    }


def arguments(overrides: Overrides) -> list[str]:
    """The command-line words that `parse_overrides` reads as `overrides`."""
    words: list[str] = []
    for name, value in overrides.sets.items():
        # A single number would be a size, so a set of one element stands in brackets.
        text = str(value) if isinstance(value, int) else ",".join(map(_word, value))
        words += ["--set", f"{name}=[{text}]" if isinstance(value, tuple) and len(value) == 1 else f"{name}={text}"]
    if isinstance(overrides.workers, Mapping):
        for role, count in overrides.workers.items():
            words += ["--workers", f"{role}={'any' if count is None else count}"]
    elif overrides.workers != "":
        words += ["--workers", "any" if overrides.workers is None else str(overrides.workers)]
    return words


def _word(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
