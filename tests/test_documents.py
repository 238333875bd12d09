"""The transcripts and examples in README.md and docs/ are true: each command is run, each YAML example is read.

`SNAP_UPDATE=1 pytest tests/test_documents.py` writes the outputs anew; read the difference before you commit it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lockmodel.checker import check
from lockmodel.parser import parse
from lockmodel.verdict import Outcome

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
CONSOLE = re.compile(r"```console\n(?P<body>.*?)```", re.DOTALL)


def transcripts() -> list[tuple[Path, int, str, str]]:
    """(document, where its block begins, command, output) of every console block."""
    found = []
    for path in DOCUMENTS:
        for match in CONSOLE.finditer(path.read_text()):
            command, _, output = match["body"].removeprefix("$ ").partition("\n")
            found.append((path, match.start(), command, output))
    return found


def run(command: str, dsn: str) -> str:
    """The output of a `lockmodel` command line, run in the repository's root."""
    assert command.startswith("lockmodel "), command
    words = [sys.executable, "-m", *command.split()]
    if words[3] == "replay":
        words += ["--dsn", dsn]
    answer = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def steady(output: str) -> str:
    """`output` without what differs from run to run: times, process and transaction numbers, the server's version."""
    output = " ".join(output.split())
    for pattern, word in (
        (r"\d+\.\d+ s\b", "TIME"),
        (r"Process \d+|process \d+", "PROCESS"),
        (r"transaction \d+", "TRANSACTION"),
        (r"PostgreSQL [\d.]+", "POSTGRES"),
        (r" --dsn …", ""),
    ):
        output = re.sub(pattern, word, output)
    return output


@pytest.mark.postgres
@pytest.mark.parametrize(("path", "start", "command", "output"), transcripts(), ids=lambda value: str(value)[:60])
def test_a_transcript_is_what_the_command_prints(path: Path, start: int, command: str, output: str, dsn: str) -> None:
    """But for times, process numbers and the like."""
    printed = run(command, dsn).replace(" --dsn …", "")
    if os.environ.get("SNAP_UPDATE"):
        text = path.read_text()
        path.write_text(text.replace(f"```console\n$ {command}\n{output}```", f"```console\n$ {command}\n{printed}```"))
        return
    assert steady(printed) == steady(output)


def test_the_example_at_the_top_is_a_spec_that_deadlocks() -> None:
    """What a reader copies first works."""
    example = re.search(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert example
    result = check(parse(example[1]))
    assert result.verdict.outcome is Outcome.VIOLATED
    assert result.view and set(result.view.cycle_transactions) == {"enqueue", "claim"}


def test_links_between_documents_lead_somewhere() -> None:
    """A file that is named is there."""
    for path in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
            assert target.startswith("https://") or (path.parent / target).exists(), f"{path.name}: {target}"


def test_the_set_up_commands_stand_where_ci_looks_for_them() -> None:
    """`.ci/run` runs the README's own two commands."""
    text = (ROOT / "README.md").read_text()
    for mark, part in (("run", "lockmodel check specs/striped.yaml"), ("test", "pytest")):
        block = re.search(rf"<!-- {mark} -->\n```sh\n(.*?)```", text, re.DOTALL)
        assert block and part in block[1] and len(block[1].splitlines()) == 1
    assert shutil.which("bash") is None or subprocess.run(["bash", "-n", str(ROOT / ".ci" / "run")]).returncode == 0
