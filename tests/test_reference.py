"""docs/reference.md is what the schemas say; the schema of scenarios is as good as that of specs.

`SNAP_UPDATE=1 pytest tests/test_reference.py` writes the page anew, as `python docs/make_reference.py` does.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML
from test_schema import parts
from transcripts import ROOT

from lockmodel.json_schema import json_schema
from lockmodel.scenario import Scenario
from lockmodel.spec import Spec

PAGE = ROOT / "docs" / "reference.md"
GENERATOR = ROOT / "docs" / "make_reference.py"
SCENARIO = json_schema(Scenario)
SHIPPED = sorted((ROOT / "scenarios").rglob("*.yaml"))


def generator() -> Any:
    """docs/make_reference.py, which is a script and no part of the package."""
    spec = importlib.util.spec_from_file_location("make_reference", GENERATOR)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_is_up_to_date() -> None:
    """What the generator writes now."""
    page = generator().page()
    if os.environ.get("SNAP_UPDATE"):
        PAGE.write_text(page, encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == page, "SNAP_UPDATE=1 pytest tests/test_reference.py writes it anew"


@pytest.mark.parametrize("document", [Spec, Scenario])
def test_every_key_has_its_line(document: type[Spec] | type[Scenario]) -> None:
    """With its description, in the section of its part."""
    schema = json_schema(document)
    sections = dict(re.findall(r"(?m)^### (.*)\n((?:(?!###? ).*\n)*)", PAGE.read_text(encoding="utf-8")))
    for name, part in {document.__name__: schema, **schema["$defs"]}.items():
        section = sections[generator().heading(name)]
        for key, value in part.get("properties", {}).items():
            line = rf"(?m)^\| `{re.escape(key)}` \|.*\| {re.escape(value['description'])} \|$"
            assert re.search(line, section), f"{name}: {key}"


def test_the_parts_that_are_explained_elsewhere_are_there() -> None:
    """A part that was renamed loses its link otherwise."""
    known = {"Spec", "Scenario", *json_schema(Spec)["$defs"], *SCENARIO["$defs"]}
    assert set(generator().EXPLAINED) <= known


def examples() -> dict[str, str]:
    found: dict[str, str] = generator().EXAMPLES
    return found


@pytest.mark.parametrize("name", examples())
def test_an_example_is_one_of_its_part(name: str) -> None:
    """By its schema; where it is shown under a key, what stands there."""
    schema = json_schema(Spec)
    validator = Draft202012Validator({"$ref": f"#/$defs/{name}", "$defs": schema["$defs"]})
    loaded = YAML(typ="safe", pure=True).load(examples()[name])
    under_key = len(loaded) == 1 and isinstance(next(iter(loaded.values())), dict) and not name.endswith("Step")
    shown = next(iter(loaded.values())) if under_key else loaded
    assert [error.message for error in validator.iter_errors(shown)] == []


def test_the_schema_of_scenarios_is_valid() -> None:
    """And says what each of its keys is."""
    Draft202012Validator.check_schema(SCENARIO)
    assert [path for path, part in parts(SCENARIO) if not part.get("description")] == []
    assert [name for name, part in SCENARIO["$defs"].items() if not part.get("description")] == []


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_schema_accepts_every_shipped_scenario(path: Path) -> None:
    """An editor shows no errors in a scenario that works."""
    loaded = YAML(typ="safe", pure=True).load(path.read_text())
    assert [error.message for error in Draft202012Validator(SCENARIO).iter_errors(loaded)] == []


@pytest.mark.parametrize(
    "fault",
    [{"outcome": "deadlok"}, {"outcome": {"safe": {"schedules": 0}}}, {"spec": 3}, {"schedul": []}, {"workers": 0}],
    ids=str,
)
def test_the_schema_refuses_a_scenario_of_the_wrong_shape(fault: dict[str, Any]) -> None:
    """One fault each; without it the scenario is fine."""
    fine = {"scenario": "x", "spec": "x.yaml", "outcome": "deadlock"}
    validator = Draft202012Validator(SCENARIO)
    assert validator.is_valid(fine)
    assert not validator.is_valid(fine | fault)


def test_the_command_prints_the_schema_of_scenarios() -> None:
    """Without the option it is that of specs."""
    for options, schema in ((["--scenario"], SCENARIO), ([], json_schema(Spec))):
        command = [sys.executable, "-m", "lockmodel", "schema", *options]
        assert json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout) == schema
