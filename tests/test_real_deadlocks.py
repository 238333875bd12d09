"""Deadlocks from public reports: found from the spec, and the fix proved. tests/test_scenarios.py replays them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from leftovers import remains

from lockmodel.checker import check
from lockmodel.errors import UsageError
from lockmodel.parser import load, parse
from lockmodel.replay.comparison import Relation
from lockmodel.replay.plain_conformance import conform_plain
from lockmodel.replay.replayer import run_to_the_end
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


@pytest.mark.postgres
@pytest.mark.parametrize("path", [path for path in SPECS if "ooni" not in path.stem], ids=lambda path: path.stem)
def test_the_spec_takes_the_locks_that_postgres_takes(path: Path, dsn: str) -> None:
    """Each transaction alone, with its real SQL."""
    found, _ = run_to_the_end(lambda: conform_plain(load(path), dsn))
    assert found
    for one in found:
        assert one.conforms, one
    assert remains(dsn) == []


@pytest.mark.postgres
def test_a_wrong_spec_is_seen_to_drift(dsn: str) -> None:
    """The foreign key's lock left out, and another mode."""
    text = (ROOT / "specs/real/e2a-sends.yaml").read_text(encoding="utf-8")
    wrong = text.replace("          - agent: FOR KEY SHARE\n", "").replace(
        "usage: FOR NO KEY UPDATE", "usage: FOR UPDATE"
    )
    ((drift,), _) = run_to_the_end(lambda: conform_plain(parse(wrong), dsn))
    relations = {(str(line.planned), str(line.observed)): line.relation for line in drift.comparisons[0].lines}
    assert not drift.conforms
    assert relations[("None", "agent FOR KEY SHARE")] is Relation.MISSING
    assert relations[("usage FOR UPDATE", "usage FOR NO KEY UPDATE")] is Relation.OTHER_MODE


@pytest.mark.postgres
def test_a_spec_that_ties_nothing_to_the_database_is_refused(dsn: str) -> None:
    with pytest.raises(UsageError, match="say what the resources are there"):
        run_to_the_end(lambda: conform_plain(load(ROOT / "specs/real/ooni-do-nothing.yaml"), dsn))


def test_each_has_its_fix_its_scenarios_and_its_report() -> None:
    assert len(SPECS) == 2 * len(REPORTED)
    for path in SPECS:
        assert (ROOT / "scenarios" / "real" / path.name).is_file()
    for path in REPORTED:
        assert re.search(r"^# \S+/\S+#\d+", path.read_text(encoding="utf-8"), re.MULTILINE), path
