"""`lockmodel init` and the shell's completion, as real processes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lockmodel.checker import check
from lockmodel.cli.init import SHAPES
from lockmodel.parser import load, parse
from lockmodel.verdict import Outcome

REPOSITORY = Path(__file__).parent.parent
ENVIRONMENT = os.environ | {"PYTHONPATH": str(REPOSITORY), "PYTHONUTF8": "1"}


def lockmodel(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lockmodel", *arguments]
    return subprocess.run(command, cwd=cwd, env=ENVIRONMENT | environment, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_first_spec_passes_at_once(shape: str, tmp_path: Path) -> None:
    """The commands that init names are the ones to type; those in the file are the same."""
    answer = lockmodel("init", "my specs", "--like", shape, cwd=tmp_path)
    assert (answer.returncode, answer.stderr) == (0, "")
    commands = re.findall(r"lockmodel (?:check|replay) .*", answer.stdout)
    assert commands == [f"lockmodel {word} 'my specs/{shape}.yaml'" for word in ("check", "replay")]
    written = (tmp_path / "my specs" / f"{shape}.yaml").read_text()
    assert re.findall(r"lockmodel (?:check|replay) .*", written) == commands
    checked = lockmodel("check", "my specs", cwd=tmp_path)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert "HOLDS  no deadlock, for any number of workers" in checked.stdout


@pytest.mark.postgres
@pytest.mark.parametrize("shape", SHAPES)
def test_a_first_spec_is_true(shape: str, tmp_path: Path, dsn: str) -> None:
    """Postgres does what it says."""
    lockmodel("init", "--like", shape, cwd=tmp_path)
    answer = lockmodel("replay", f"specs/{shape}.yaml", "--schedules", "5", "--seed", "1", "--dsn", dsn, cwd=tmp_path)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert "CONFIRMED" in answer.stdout


def test_without_a_shape_it_is_the_small_one_in_specs(tmp_path: Path) -> None:
    """What a newcomer types."""
    assert lockmodel("init", cwd=tmp_path).returncode == 0
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.yaml")] == ["specs/transfer.yaml"]


def shape_text(shape: str) -> str:
    return (REPOSITORY / "lockmodel" / "cli" / "shapes" / f"{shape}.yaml").read_text()


def test_the_comment_about_two_steps_is_true() -> None:
    """Exchanged in the second transaction, they deadlock."""
    first, second = re.search(
        r"pay_back:\n    steps:\n((?:      .*\n){2})((?:      .*\n){2})", shape_text("transfer")
    ).groups()  # type: ignore[union-attr]
    text = shape_text("transfer").replace(first + second, second + first)
    assert text != shape_text("transfer")
    result = check(parse(text))
    assert result.view is not None
    assert sorted(result.view.cycle_transactions) == ["pay", "pay_back"]


def test_the_comment_about_the_order_is_true() -> None:
    """With `any`, two sweeps meet head-on, and with more jobs it holds as it is."""
    result = check(parse(shape_text("queue").replace("order: forward", "order: any")))
    assert result.view is not None
    assert result.view.cycle_transactions == ("sweep", "sweep")
    assert check(parse(shape_text("queue").replace("job: 3", "job: 4"))).verdict.outcome is Outcome.HOLDS


def test_the_claim_takes_one_job_and_only_one() -> None:
    """LIMIT 1: a worker in the transaction never holds two jobs, and two workers hold different ones."""
    never = (
        "never:\n"
        "  two jobs: any(any(a != b and count(w.transaction == claim and w.holds(job[a]) and w.holds(job[b])) > 0"
        " for a in job) for b in job)\n"
        "  no job: any(count(w.transaction == claim and w.holds(job[a])) > 1 for a in job)\n"
    )
    text = shape_text("queue").replace("workers: any", f"{never}workers: 3")
    result = check(parse(text))
    assert (result.verdict.outcome, result.verdict.violated) == (Outcome.HOLDS, None)
    claimed = text.replace("two jobs: any(any(a != b and", "two jobs: any(any(").replace("and w.holds(job[b])", "")
    assert check(parse(claimed)).verdict.violated == "two jobs"


@pytest.mark.parametrize("existing", ["a file", "a link to nowhere", "a folder"])
def test_nothing_is_overwritten(existing: str, tmp_path: Path) -> None:
    """Whatever stands there, stays."""
    there = tmp_path / "specs" / "transfer.yaml"
    there.parent.mkdir()
    if existing == "a file":
        there.write_text("mine")
    elif existing == "a folder":
        there.mkdir()
    else:
        there.symlink_to("nowhere")
    answer = lockmodel("init", cwd=tmp_path)
    assert answer.returncode == 2
    assert (
        answer.stderr == "specs/transfer.yaml: it exists, and is not overwritten; name another folder, or remove it\n"
    )
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["specs", "transfer.yaml"]
    assert existing != "a file" or there.read_text() == "mine"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--like", "qeue"], "--like 'qeue': did you mean queue? available: transfer, queue\n"),
        (["file"], "'file': it is no folder; name one for the new spec\n"),
        (["file/inner"], "'file/inner': it is no folder; name one for the new spec\n"),
        (["x" * 300], f"{'x' * 300}/transfer.yaml: File name too long\n"),
    ],
)
def test_what_can_not_be_written_is_one_line(words: list[str], line: str, tmp_path: Path) -> None:
    """And exit code 2."""
    (tmp_path / "file").write_text("")
    answer = lockmodel("init", *words, cwd=tmp_path)
    assert (answer.returncode, answer.stdout, answer.stderr) == (2, "", line)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_with_a_line_break_breaks_no_comment(tmp_path: Path) -> None:
    """Its name stands in the file."""
    assert lockmodel("init", "a\nname: b", cwd=tmp_path).returncode == 0
    assert load(str(next(tmp_path.rglob("transfer.yaml")))).name == "transfer"


# Completion


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("lockmodel che", ["check"]),
        ("lockmodel check --for", ["--format"]),
        ("lockmodel check --format ", ["terminal", "json", "junit", "sarif", "github", "markdown", "html"]),
        ("lockmodel init --like q", ["queue"]),
    ],
)
def test_words_are_completed(line: str, words: list[str], tmp_path: Path) -> None:
    """Commands, options, and values."""
    count = str(len(line.split(" ")) - 1)
    answer = lockmodel(cwd=tmp_path, _LOCKMODEL_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=count)
    assert (answer.stdout.split(), answer.stderr) == (words, "")


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_completion_is_installed_for_bash(tmp_path: Path) -> None:
    """As docs/ci.md says; what is installed works in a shell."""
    script = """
        lockmodel --install-completion > /dev/null || exit 1
        source ~/.bashrc
        COMP_WORDS=(lockmodel sim); COMP_CWORD=1
        _lockmodel_completion lockmodel
        echo "${COMPREPLY[@]}"
    """
    (tmp_path / "lockmodel").write_text(f'#!/bin/sh\nexec {sys.executable} -m lockmodel "$@"\n')
    (tmp_path / "lockmodel").chmod(0o755)
    environment = ENVIRONMENT | {"HOME": str(tmp_path), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    answer = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=120)
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "simulate\n", "")
