"""The JSON Schema that editors use is valid, accepts what `check` accepts, and refuses what has the wrong shape."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from generated import spec_of
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML
from test_differential import numbered

from lockmodel.json_schema import json_schema

ROOT = Path(__file__).parent.parent
SHIPPED = sorted((ROOT / "specs").rglob("*.yaml"))
SCHEMA = json_schema()
VALIDATOR = Draft202012Validator(SCHEMA)
SHAPES = ("key-", "missing-", "type-", "null-")
"""The malformed specs whose fault is one of shape begin so."""
BEYOND = {
    # What a YAML 1.2 word means is decided after the schema: 1.5 is a word to `check` and a number to an editor.
    "type-set-element-float",
    # Two keys that look like locks: a pattern can't tell a misspelt word from a resource, nor count.
    "key-step-lock",
    "key-step-two-locks",
}


def loaded(path: Path) -> Any:
    return YAML(typ="safe", pure=True).load(path.read_text())


def malformed() -> list[Path]:
    files = sorted((ROOT / "tests" / "malformed").glob("*.yaml"))
    return [path for path in files if path.stem.startswith(SHAPES) and path.stem not in BEYOND]


def test_the_schema_is_valid() -> None:
    """It is a schema of the draft that it names."""
    assert SCHEMA["$schema"] == Draft202012Validator.META_SCHEMA["$id"]
    Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_schema_accepts_every_shipped_spec(path: Path) -> None:
    """An editor shows no errors in a spec that works."""
    assert [error.message for error in VALIDATOR.iter_errors(loaded(path))] == []


@pytest.mark.parametrize("number", range(0, 200, 4))
def test_the_schema_accepts_generated_specs(number: int) -> None:
    """They use every construct of the language."""
    assert [error.message for error in VALIDATOR.iter_errors(spec_of(numbered(number)))] == []


@pytest.mark.parametrize("path", malformed(), ids=lambda path: path.stem)
def test_the_schema_refuses_a_spec_of_the_wrong_shape(path: Path) -> None:
    """An unknown key, a wrong type, a missing key, nothing after a colon: the editor shows it while it is typed."""
    assert not VALIDATOR.is_valid(loaded(path))


def parts(schema: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every property of the schema, with where it is."""
    if isinstance(schema, dict):
        for name, part in schema.get("properties", {}).items():
            yield f"{path}/{name}", part
        for key, part in schema.items():
            yield from parts(part, f"{path}/{key}")
    elif isinstance(schema, list):
        for index, part in enumerate(schema):
            yield from parts(part, f"{path}/{index}")


def test_every_property_says_what_it_is() -> None:
    """An editor shows the description of what the pointer is on; so does every kind of object."""
    assert [path for path, part in parts(SCHEMA) if not part.get("description")] == []
    assert [name for name, part in SCHEMA["$defs"].items() if not part.get("description")] == []


def test_a_lock_step_may_have_branches_and_must_have_a_lock() -> None:
    """Its resource is the one key that is no fixed word, which a pattern stands for."""

    def accepts(step: Any) -> bool:
        transactions = {"t": {"steps": [step]}}
        return VALIDATOR.is_valid({"name": "x", "resources": {"l": {"kind": "lock"}}, "transactions": transactions})

    assert accepts(
        {
            "lane[s, 0]": "FOR UPDATE NOWAIT",
            "then": ["commit"],
            "else": ["rollback"],
            "sql": "SELECT 1",
            "table mode": "SHARE",
        }
    )
    assert accepts({"zähler": "EXCLUSIVE"})
    assert not accepts({"then": ["commit"]})
    assert not accepts({"lane": "FOR UPDATE", "then": "commit"})
    assert not accepts({"lane": ["FOR UPDATE"]})
    assert not accepts({"lane": "FOR UPDATE", "if": "true"})
    assert not accepts({"lane of 3": "FOR UPDATE"})
    assert not accepts({})
