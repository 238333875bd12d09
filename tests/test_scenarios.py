"""Scenarios: a spec, a schedule and what must come out, in one file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from leftovers import remains
from test_conform import TRANSFERS

from lockmodel.compiler import compile_spec
from lockmodel.errors import LockmodelError, SpecError
from lockmodel.parser import load_any, parse
from lockmodel.replay.replayer import TraceReplay
from lockmodel.replay.scenarios import run
from lockmodel.report.page import Page
from lockmodel.report.replay import scenario_report
from lockmodel.scenario import Scenario

ROOT = Path(__file__).parent.parent
SHIPPED = sorted((ROOT / "scenarios").rglob("*.yaml"))

STRIPED = f"""
scenario: It deadlocks.
spec: {ROOT}/specs/striped-old-claim.yaml
workers: 2
schedule:
  - worker 1: start enqueue
  - worker 1: lane[0] FOR UPDATE
  - worker 2: start claim (r=0, c=0)
  - worker 2: lane[1] FOR UPDATE
  - worker 2: ready[0] ACCESS SHARE
  - worker 2: claims[0] ROW EXCLUSIVE
outcome: deadlock
"""


def scenario(text: str, folder: Path) -> Scenario:
    path = folder / "scenario.yaml"
    path.write_text(text)
    found = load_any(path)
    assert isinstance(found, Scenario)
    return found


@pytest.mark.postgres
@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_scenario_comes_out_as_it_must(path: Path, dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each finding stays a regression."""
    monkeypatch.chdir(ROOT)
    found = load_any(path)
    assert isinstance(found, Scenario)
    done = run(found, dsn)
    assert done.unmet is None, done
    assert remains(dsn) == []


@pytest.mark.postgres
def test_a_folder_is_run_by_one_command(dsn: str) -> None:
    """A line for each, and exit code 0. (All of them, one by one, are the test above.)"""
    folder = ROOT / "scenarios" / "queue"
    words = [sys.executable, "-m", "lockmodel", "replay", str(folder), "--dsn", dsn]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("AS EXPECTED") == len(list(folder.glob("*.yaml")))


@pytest.mark.postgres
@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("outcome: deadlock", "outcome: {refuted: granted}", "expected REFUTED, found: CONFIRMED"),
        ("outcome: deadlock", "outcome: {safe: {schedules: 30}}", "expected no deadlock, found"),
        ("  - worker 2: lane[1] FOR UPDATE\n  - worker 2: ready[0] ACCESS SHARE\n  - worker 2: claims[0] ROW EXCLUSIVE\n", "",
         "expected a deadlock; the schedule ended in none"),
    ],
)  # fmt: skip
def test_another_outcome_is_said(old: str, new: str, said: str, dsn: str, tmp_path: Path) -> None:
    """What was expected, and what was found instead."""
    assert old in STRIPED
    done = run(scenario(STRIPED.replace(old, new), tmp_path), dsn)
    assert done.unmet is not None and said in done.unmet


@pytest.mark.postgres
def test_a_scenario_on_code_can_have_other_options(dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same trace on the fixed code is refuted; the spec stands in the scenario itself."""
    monkeypatch.chdir(Path(__file__).parent)
    inline = "\n".join("  " + line for line in TRANSFERS.strip().splitlines())
    text = f"scenario: The fix holds.\nspec:\n{inline}\noptions: {{ordered: true}}\noutcome: {{refuted: 'without account[1]'}}\n"
    done = run(scenario(text, tmp_path), dsn)
    assert done.unmet is None, done.unmet


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("worker 1: start enqueue", "worker 9: start enqueue", ":6: unknown worker 'worker 9'; did you mean worker"),
        ("worker 1: lane[0] FOR UPDATE", "worker 1: lane[1] FOR UPDATE", ":7: worker 1 can't do 'lane[1] FOR UPDATE' here; it can: lane[0]"),
        ("worker 2: lane[1] FOR UPDATE", "worker 2: lane[0] FOR UPDATE", "nothing, it waits"),
        ("outcome: deadlock", "outcome: maybe", "'outcome' can't be 'maybe'"),
        ("outcome: deadlock", "", "lacks the key 'outcome'"),
        ("workers: 2", "wokers: 2", "did you mean workers"),
        ("specs/striped-old-claim.yaml", "specs/none.yaml", f"scenario.yaml:3: {ROOT}/specs/none.yaml: No such file"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_scenario_is_one_line(old: str, new: str, said: str, tmp_path: Path) -> None:
    """With the line of the step that can't be taken, and what could."""
    assert old in STRIPED
    with pytest.raises(LockmodelError) as caught:
        run(scenario(STRIPED.replace(old, new), tmp_path), "host=/nowhere")
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_scenario_is_not_a_spec() -> None:
    """`check` says which command it is for."""
    with pytest.raises(SpecError, match="this is a scenario"):
        compile_spec(parse(STRIPED))


QUEUE = (ROOT / "scenarios/real/airflow-row-queue.yaml").read_text().replace("../../specs", f"{ROOT}/specs")


@pytest.mark.postgres
def test_a_process_that_only_heads_the_queue_is_explained(dsn: str, tmp_path: Path) -> None:
    """Postgres names three, the model's cycle has two of them: confirmed, with the reason."""
    done = run(scenario(QUEUE, tmp_path), dsn)
    assert done.unmet is None
    assert isinstance(done.replay, TraceReplay) and done.replay.script and done.replay.performance
    deadlock = done.replay.performance.deadlock
    assert deadlock is not None
    assert done.replay.script.cycle == (0, 1) and deadlock.workers == {0, 1, 2}
    assert deadlock.bystanders(done.replay.script.cycle) == (2,)
    said = " ".join(scenario_report("s.yaml", done, Page(), brief=False).split())
    assert "worker 3 is named, but is not part of the deadlock: it was first in the queue for dag_run" in said


@pytest.mark.postgres
def test_without_the_third_in_the_queue_two_are_named(dsn: str, tmp_path: Path) -> None:
    """The same deadlock, and nothing to be explained."""
    done = run(scenario(QUEUE.replace("  - worker 3: asks for dag_run FOR NO KEY UPDATE\n", ""), tmp_path), dsn)
    assert done.unmet is None and isinstance(done.replay, TraceReplay) and done.replay.performance
    assert done.replay.performance.deadlock and done.replay.performance.deadlock.workers == {0, 1}
    assert "is named" not in scenario_report("s.yaml", done, Page(), brief=False)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("asks for dag_run FOR NO KEY UPDATE", "asks for dag_run FOR UPDATE", ":11: worker 3 can't ask for 'dag_run FOR UPDATE' here; its next request is dag_run FOR NO KEY UPDATE"),
        ("worker 3: asks for dag_run FOR NO KEY UPDATE", "worker 3: asks for dag_run FOR NO KEY UPDATE\n  - worker 3: commit", "can't do 'commit' here"),
        ("  - worker 1: dag_run FOR NO KEY UPDATE\n", "", ":10: worker 3 does not have to wait for a lock here"),
        ("worker 3: asks", "worker 4: asks", ":11: unknown worker 'worker 4'"),
        ("outcome: deadlock", "  - worker 1: task_instance FOR NO KEY UPDATE\noutcome: deadlock", "it waits"),
    ],
)  # fmt: skip
def test_a_request_that_can_not_wait_is_one_line(old: str, new: str, said: str, tmp_path: Path) -> None:
    """Nobody can ask for what is free, or do more after asking."""
    assert old in QUEUE
    with pytest.raises(LockmodelError) as caught:
        run(scenario(QUEUE.replace(old, new), tmp_path), "host=/nowhere")
    assert said in str(caught.value) and "\n" not in str(caught.value)
