"""docs/ci.md does what it says: the commands of its workflow are run, and its tables are those of the code."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from junitparser import JUnitXml
from ruamel.yaml import YAML

from lockmodel.cli.init import SHAPES
from lockmodel.cli.reporters import FORMATS
from lockmodel.report.findings import Rule

REPOSITORY = Path(__file__).parent.parent
PAGE = (REPOSITORY / "docs" / "ci.md").read_text()
WORKFLOW: dict[str, Any] = YAML(typ="safe", pure=True).load(REPOSITORY / "docs" / "examples" / "github-workflow.yml")
STEPS: list[dict[str, Any]] = WORKFLOW["jobs"]["deadlocks"]["steps"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project after `lockmodel init`, with a `lockmodel` command that is this checkout's."""
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "lockmodel"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m lockmodel "$@"\n')
    command.chmod(0o755)
    for shape in SHAPES:
        assert shell(f"lockmodel init --like {shape}", tmp_path).returncode == 0
    return tmp_path


def shell(script: str, project: Path) -> subprocess.CompletedProcess[str]:
    """Run as GitHub runs a step: `bash -e`, with the file of the job's summary."""
    environment = os.environ | {
        "PATH": f"{project / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
        "PYTHONUTF8": "1",
        "GITHUB_STEP_SUMMARY": str(project / "summary.md"),
    }
    return subprocess.run(
        ["bash", "-e", "-c", script], cwd=project, env=environment, capture_output=True, text=True, timeout=300
    )


def step(name: str) -> str:
    (script,) = [step["run"] for step in STEPS if step.get("name") == name]
    return str(script)


def test_the_check_of_the_workflow_passes_a_project_that_is_fine(project: Path) -> None:
    """And writes each report where the later steps look for it."""
    answer = shell(step("Check"), project)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert "2 specs: 2 as expected." in answer.stdout
    assert (project / "summary.md").read_text().startswith("<!-- lockmodel check -->")
    (upload,) = [step["with"] for step in STEPS if "upload-sarif" in step.get("uses", "")]
    assert json.loads((project / upload["sarif_file"]).read_text())["version"] == "2.1.0"
    (kept,) = [step["with"]["path"] for step in STEPS if "upload-artifact" in step.get("uses", "")]
    assert sorted(path.name for path in (project / kept).iterdir()) == [
        "lockmodel.json",
        "lockmodel.sarif",
        "lockmodel.xml",
    ]


def test_the_check_of_the_workflow_fails_for_a_deadlock(project: Path) -> None:
    """With an annotation at the line, in the log and in every file."""
    spec = project / "specs" / "queue.yaml"
    spec.write_text(spec.read_text().replace("order: forward", "order: any"))
    answer = shell(step("Check"), project)
    assert (answer.returncode, answer.stderr) == (1, "")
    assert re.search(r"(?m)^::error file=specs/queue\.yaml,line=\d+,col=\d+,title=lockmodel", answer.stdout)
    assert "**no**" in (project / "summary.md").read_text()
    assert JUnitXml.fromfile(str(project / "reports" / "lockmodel.xml")).failures == 1
    (result,) = json.loads((project / "reports" / "lockmodel.sarif").read_text())["runs"][0]["results"]
    assert result["ruleId"] == "deadlock"


@pytest.mark.postgres
def test_the_replay_of_the_workflow(project: Path, dsn: str) -> None:
    """The specs that init writes are true."""
    answer = shell(f"{step('Replay')} --dsn {dsn!r} --schedules 3", project)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout.count("CONFIRMED") == len(SHAPES)


def test_the_other_commands_of_the_page_run(project: Path) -> None:
    """GitLab's and Jenkins's."""
    commands = re.findall(r"lockmodel check specs/ --format [^'`\n]*", PAGE)
    assert len(commands) == 2
    for command in commands:
        answer = shell(command, project)
        assert (answer.returncode, answer.stderr) == (0, "")
        assert JUnitXml.fromfile(str(project / "lockmodel.xml")).tests == 2


def test_the_answer_of_init_is_what_it_prints(tmp_path: Path, project: Path) -> None:
    """The transcript at the top."""
    transcript = re.search(r"```text\n\$ (lockmodel init.*)\n([^`]*)```", PAGE)
    assert transcript
    (project / "specs" / "queue.yaml").unlink()
    assert shell(transcript[1], project).stdout == transcript[2]


def test_each_later_step_comes_after_a_failure_too() -> None:
    """Reports are wanted most when the check fails."""
    for step in STEPS:
        if "upload" in step.get("uses", ""):
            assert step["if"].startswith("always()")


def test_the_tables_of_the_page_are_complete() -> None:
    """Formats, shapes, kinds of findings."""
    for name in (*FORMATS, *SHAPES):
        assert re.search(rf"(?m)^\| `{name}`", PAGE), name
    kinds = PAGE[PAGE.index("The kinds of findings are") : PAGE.index("In SARIF these are the rules")]
    assert set(re.findall(r"`([a-z-]+)`", kinds)) - {"never", "always"} == {str(rule) for rule in Rule}
