"""Deadlocks from public reports: found from the spec, and the fix proved. tests/test_scenarios.py replays them."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from leftovers import remains

from lockmodel.checker import check
from lockmodel.errors import UsageError
from lockmodel.expectations import DeadlockExpected, StallExpected
from lockmodel.parser import load, parse
from lockmodel.replay.comparison import Relation
from lockmodel.replay.plain_conformance import conform_plain
from lockmodel.replay.replayer import run_to_the_end
from lockmodel.verdict import Outcome

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # The benchmarks are no part of the installed package.

from benchmarks.deadlocks import COLUMNS, DOCUMENT, Facts, facts, markdown, render, reported, table  # noqa: E402

SPECS = sorted((ROOT / "specs" / "real").glob("*.yaml"))
REPORTED = reported()


@pytest.mark.parametrize("path", REPORTED, ids=lambda path: path.stem)
def test_the_reported_cycle_is_found(path: Path) -> None:
    """Between the transactions of the report, on its resources."""
    spec = load(path)
    if isinstance(spec.expect, DeadlockExpected):
        assert spec.expect.deadlock.between and spec.expect.deadlock.on and spec.expect.deadlock.workers
    else:
        assert isinstance(spec.expect, StallExpected)
    result = check(spec)
    assert result.exit_code == 0, result.unmet
    assert result.trace is not None


def test_the_table_says_what_the_specs_say() -> None:
    """Report, resources, workers and states of each; it was confirmed on PostgreSQL 15 and 18 both. Times are left alone.

    `python -m benchmarks.deadlocks --render` makes the table anew.
    """
    found = re.search(r"<!-- table -->\n(.*?)<!-- end -->", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    rows = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in found[1].splitlines()]
    assert rows[0] == COLUMNS
    assert [row[:6] for row in rows[2:]] == [facts(path).cells() for path in REPORTED]
    for *_, time, servers in rows[2:]:
        assert re.fullmatch(r"\d+ ms", time)
        assert [version.partition(".")[0] for version in servers.split(", ")] == ["15", "18"]


def test_a_table_is_put_into_the_document() -> None:
    """Between the marks, and nowhere else."""
    one = Facts("name", "a/b#1", "It deadlocks", ("row", "table"), 2, 5, 0.0123)
    made = table([one], {"name": ["15.1"]})
    assert markdown(made).splitlines()[2] == "| name | a/b#1 | It deadlocks | row, table | 2 | 5 | 12 ms | 15.1 |"
    document = "head\n<!-- table -->\nold\n<!-- end -->\ntail\n"
    assert render(document, made) == document.replace("old\n", markdown(made))
    assert "none" in markdown(table([one], {"name": []}))


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
    wrong = text.replace("    foreign keys: [{columns: [agent], references: agent}]\n", "").replace(
        "do: [update: usage]", "do: [delete: usage]"
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
