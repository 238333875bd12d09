"""docs/tutorial.md, from its first line to its last, in an empty folder: its files are written, its commands run.

`SNAP_UPDATE=1 pytest tests/test_tutorial.py` writes the outputs anew; read the difference before you commit it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from transcripts import ROOT, Block, Shell, blocks

TUTORIAL = ROOT / "docs" / "tutorial.md"
TEXT = TUTORIAL.read_text()
WORKFLOW = ".github/workflows/lockmodel.yml"
NOT_RUN = "pip install"
"""What needs a network; tests install lockmodel otherwise."""


def changed(text: str, diff: str) -> str:
    """`text` with the change that `diff` shows: what it takes away must be there, once."""
    lines = diff.splitlines(keepends=True)
    assert all(line[0] in " +-" for line in lines), diff
    before = "".join(line[1:] for line in lines if line[0] != "+")
    after = "".join(line[1:] for line in lines if line[0] != "-")
    assert text.count(before) == 1, f"{text.count(before)} times in the file:\n{before}"
    return text.replace(before, after)


def follow(block: Block, folder: Path, shell: Shell) -> str:
    """Do what a reader does with `block`; its text, as it is now."""
    verb, _, name = block.mark.partition(": ")
    path = folder / name
    if verb == "file":
        path.parent.mkdir(parents=True, exist_ok=True)
        assert not path.exists(), name
        path.write_text(block.body)
    elif verb == "change":
        path.write_text(changed(path.read_text(), block.body))
    elif block.language == "console":
        return shell.session(block.body)
    else:
        assert block.language == "sh" and NOT_RUN in block.body, f"line {block.line}: nobody looks at this block"
    return block.body


@pytest.mark.postgres
def test_the_tutorial_is_what_happens(tmp_path: Path, dsn: str) -> None:
    """Each command prints what stands below it, and has the exit code that the page shows; so has each command of the CI job."""
    folder, commands = tmp_path / "shop", tmp_path / "bin"
    folder.mkdir()
    commands.mkdir()
    shell = Shell(folder, commands, dsn)
    text = TEXT
    for block in blocks(TEXT):
        now = follow(block, folder, shell)
        if os.environ.get("SNAP_UPDATE"):
            text = text.replace(f"```{block.language}\n{block.body}```", f"```{block.language}\n{now}```", 1)
        else:
            assert now == block.body, f"line {block.line}"
    TUTORIAL.write_text(text) if text != TEXT else None
    workflow: dict[str, Any] = YAML(typ="safe", pure=True).load(folder / WORKFLOW)
    runs = [step["run"] for step in workflow["jobs"]["deadlocks"]["steps"] if "run" in step]
    assert len(runs) == 4
    for command in runs:
        if NOT_RUN not in command:
            assert shell.run(command)[1] == 0, command
    further = re.findall(r"`(lockmodel [^`]*)`", TEXT[TEXT.index("## Where to go next") :])
    assert len(further) >= 4
    for command in further:
        assert shell.run(command)[1] == 0, command
    # "Take the change of jobs.py back, and the same scenario fails."
    code = folder / "jobs.py"
    undone = [block.body for block in blocks(TEXT) if block.mark == "change: jobs.py"]
    assert len(undone) == 1
    code.write_text(changed(code.read_text(), undone[0].translate(str.maketrans("+-", "-+"))))
    printed, exit_code = shell.run("lockmodel replay scenarios/pause.yaml")
    assert exit_code == 1 and "NOT AS EXPECTED" in printed and "CONFIRMED" in printed, printed


def test_a_reader_is_told_which_file_a_block_is() -> None:
    """Its name stands in the paragraph above, not only in the comment that the test reads."""
    for block in blocks(TEXT):
        if ": " in block.mark:
            name = block.mark.partition(": ")[2]
            above = "\n".join(TEXT.splitlines()[: block.line - 2])
            paragraph = re.sub(r"<!-- change: .*\n```diff\n(?:[ +-].*\n)*```", "", above).rstrip().rpartition("\n\n")[2]
            assert f"`{name}`" in paragraph, f"line {block.line}: {paragraph}"


def test_what_is_installed_is_what_the_workflow_installs() -> None:
    """On this page, in its CI job, and in the workflow of docs/ci.md."""
    whole = TEXT + (ROOT / "docs" / "examples" / "github-workflow.yml").read_text()
    assert set(re.findall(r'"(lockmodel\[.*?)"', whole)) == {
        "lockmodel[fast,replay] @ git+https://github.com/lockmodel/lockmodel"
    }
    assert whole.count("pip install") == 3
