"""The benchmark harness itself: what it measures, what it refuses, and that its document has a place for every table."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # It is no part of the installed package.

from benchmarks import spin, tlc  # noqa: E402
from benchmarks.__main__ import DOCUMENT, SECTIONS  # noqa: E402
from benchmarks.process import BenchmarkError, Contender, Counts, compare, run  # noqa: E402
from benchmarks.report import as_json, from_json, render  # noqa: E402
from benchmarks.section import comparison, ratio, skipped  # noqa: E402


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_a_run_is_measured_as_a_whole(tmp_path: Path) -> None:
    """Its wall time, and the largest memory that it ever had."""
    one = run(python("import time; block = bytearray(200 << 20); del block; time.sleep(0.3); print('done')"), tmp_path)
    assert one.output == "done\n" and not one.timed_out
    assert 0.3 <= one.seconds < 30
    assert 200 << 20 <= one.peak_bytes < 400 << 20


def test_a_failure_and_a_run_without_end_are_not_figures(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="ended with 3: why"):
        run(python("print('why'); raise SystemExit(3)"), tmp_path)
    assert run(python("raise SystemExit(3)"), tmp_path, accept=(0, 3)).output == ""
    assert run(python("import time; time.sleep(60)"), tmp_path, timeout_seconds=0.2).timed_out


def contender(name: str, states: int, folder: Path, repetitions: int | None = None) -> Contender:
    return Contender(name, python(f"print({states})"), folder, lambda output: Counts(int(output)), repetitions)


def test_contenders_take_turns(tmp_path: Path) -> None:
    said: list[str] = []
    measured = compare([contender("a", 7, tmp_path), contender("b", 7, tmp_path, 1)], 2, said.append)
    assert [line.partition(":")[0] for line in said] == ["a", "b", "a"]
    assert [(one.name, len(one.runs)) for one in measured] == [("a", 2), ("b", 1)]
    section = comparison("x", "X", [], measured)
    assert section.rows[0][5] == section.rows[0][-1] == "1.0x"
    again: dict[str, Any] = json.loads(json.dumps(as_json(section)))
    assert from_json(again).rows == section.rows


def test_figures_for_different_work_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="b counted"):
        compare([contender("a", 7, tmp_path), contender("b", 8, tmp_path)], 1, lambda line: None)


@pytest.mark.parametrize(
    ("value", "text"), [(1.0, "1.0x"), (3.14, "3.1x"), (23.4, "23x"), (0.5, "1/2.0"), (0.01, "1/100")]
)
def test_a_ratio_is_said_as_people_say_it(value: float, text: str) -> None:
    assert ratio(value) == text


@pytest.mark.parametrize("read", [spin.counts_of, tlc.counts_of])
def test_a_search_that_did_not_end_is_no_figure(read: Any) -> None:
    with pytest.raises(BenchmarkError, match="did not search all states"):
        read("2 states, stored\n10 states generated, 5 distinct states found, 2 states left on queue.\nerrors: 1\n")


def test_the_document_has_a_place_for_every_table() -> None:
    marks = re.findall(r"<!-- table ([\w-]+) -->", DOCUMENT.read_text())
    assert sorted(marks) == sorted(["machine", *SECTIONS])


def test_new_tables_replace_old_ones_and_leave_the_rest() -> None:
    machine = {"processor": "P", "processors": "2", "memory": "1 GiB", "system": "S", "python": "3"}
    results = {"date": "2026-01-02", "machine": machine, "sections": [as_json(skipped("spin", "SPIN", "no spin"))]}
    old = "a\n<!-- table spin -->\nold\n<!-- end -->\nb\n<!-- table tlc -->\nkept\n<!-- end -->\n"
    new = render(old, results)
    assert (
        new
        == "a\n<!-- table spin -->\n**SPIN.** Not measured: no spin\n<!-- end -->\nb\n<!-- table tlc -->\nkept\n<!-- end -->\n"
    )
    assert render(new, results) == new


def test_the_command_measures_and_writes_json(tmp_path: Path) -> None:
    """The quickest section, for real."""
    file = tmp_path / "results.json"
    environment = {**os.environ, "LOCKMODEL_TLC": ""}
    command = [sys.executable, "-m", "benchmarks", "--quick", "--only", "growth", "--only", "tlc", "--json", str(file)]
    answer = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert answer.returncode == 0, answer.stderr
    growth, skipped_one = json.loads(file.read_text())["sections"]
    assert len(growth["rows"]) == 3 and all(figure["seconds"] for figure in growth["figures"])
    assert "Not measured" in skipped_one["notes"][0] and "Not measured" in answer.stdout
