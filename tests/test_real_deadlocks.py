"""Deadlocks from public reports: found from the spec, and the fix proved. tests/test_scenarios.py replays them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lockmodel.checker import check
from lockmodel.parser import load
from lockmodel.spec import DeadlockExpected
from lockmodel.verdict import Outcome

ROOT = Path(__file__).parent.parent
SPECS = sorted((ROOT / "specs" / "real").glob("*.yaml"))
REPORTED = [path for path in SPECS if not path.stem.endswith("-fixed")]
TABLE = (ROOT / "docs" / "deadlocks.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", REPORTED, ids=lambda path: path.stem)
def test_the_reported_cycle_is_found(path: Path) -> None:
    """Between the transactions of the report, on its resources; the table in the docs says how long the trace is."""
    spec = load(path)
    assert isinstance(spec.expect, DeadlockExpected)
    assert spec.expect.deadlock.between and spec.expect.deadlock.on and spec.expect.deadlock.workers
    result = check(spec)
    assert result.exit_code == 0, result.unmet
    assert result.trace is not None
    row = re.search(rf"^\| {path.stem} \|.*\| (\d+) \| (\d+) \|$", TABLE, re.MULTILINE)
    assert row is not None
    assert (int(row[1]), int(row[2])) == (spec.expect.deadlock.workers, len(result.trace))


@pytest.mark.parametrize("path", REPORTED, ids=lambda path: path.stem)
def test_the_fix_is_proved_for_any_number_of_workers(path: Path) -> None:
    result = check(load(path.with_name(f"{path.stem}-fixed.yaml")))
    assert result.verdict.outcome is Outcome.HOLDS
    assert result.verdict.scope.startswith("any number")
    assert result.exit_code == 0


def test_each_has_its_fix_its_scenarios_and_its_report() -> None:
    assert len(SPECS) == 2 * len(REPORTED)
    for path in SPECS:
        assert (ROOT / "scenarios" / "real" / path.name).is_file()
    for path in REPORTED:
        assert re.search(r"^# \S+/\S+#\d+", path.read_text(encoding="utf-8"), re.MULTILINE), path
