"""README.md and docs/ are true: each command is run, each YAML example is read, each link leads somewhere.

`SNAP_UPDATE=1 pytest tests/test_documents.py` writes the outputs anew; read the difference before you commit it.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from transcripts import ROOT, Shell, blocks

from lockmodel.checker import check
from lockmodel.cli.common import ExitCode
from lockmodel.parser import parse
from lockmodel.replay.replayer import ReplayOutcome
from lockmodel.verdict import Outcome

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
ELSEWHERE = {ROOT / "docs" / "tutorial.md"}
"""Documents whose commands run in a folder of their own: tests/test_tutorial.py."""


def sessions() -> list[tuple[Path, int, str]]:
    """(document, line, text) of every console block that runs in the repository's root."""
    return [
        (path, block.line, block.body)
        for path in DOCUMENTS
        if path not in ELSEWHERE
        for block in blocks(path.read_text())
        if block.language == "console"
    ]


RUN_BY_OTHERS = {
    "lockmodel replay scenarios/": "test_scenarios.py and test_real_deadlocks.py",
    "lockmodel replay scenarios/real": "test_real_deadlocks.py",
    "lockmodel conform specs/queue/": "test_queue_specs.py",
    "lockmodel conform specs/real": "test_real_deadlocks.py",
    "lockmodel check specs/striped.yaml --workers 5": "the benchmarks; it takes ten seconds",
}
"""Commands in the documents that are not run here."""


def commands() -> list[str]:
    """Every command line with a file in it that a sentence or a block of shell commands has, as one types it: not with SPEC or […]."""
    found = set()
    for path in DOCUMENTS:
        if path in ELSEWHERE:
            continue
        text = path.read_text()
        shell = [line for block in blocks(text) if block.language == "sh" for line in block.body.splitlines()]
        prose = re.sub(r"(?ms)^```.*?^```$", "", text)
        found |= {line for line in (*shell, *re.findall(r"`([^`\n]*)`", prose)) if line.startswith("lockmodel ")}
    typed = [line for line in found if not re.search(r"\b[A-Z]{3,}\b|[\[…]", line)]
    return sorted(line for line in typed if re.search(r"\w/|\.json|schema|init", line))


@pytest.mark.postgres
@pytest.mark.parametrize("command", [command for command in commands() if command not in RUN_BY_OTHERS])
def test_a_command_that_a_document_names_is_one(command: str, tmp_path: Path, dsn: str) -> None:
    """It finds its files and knows its options: whatever comes out, it is neither bad input nor a defect."""
    (tmp_path / "bin").mkdir()
    folder = tmp_path / "here"
    folder.mkdir()
    # Not links: `lockmodel init` writes into specs/.
    for name in ("specs", "scenarios", "docs"):
        shutil.copytree(ROOT / name, folder / name)
    shell = Shell(folder, tmp_path / "bin", dsn)
    if "report.json" in command and "--output" not in command:
        assert shell.run("lockmodel check specs/striped-old-claim.yaml --all --format json -o report.json")[1] == 0
    printed, exit_code = shell.run(command)
    assert exit_code in (0, 1, 3), printed


def test_commands_that_others_run_are_still_named() -> None:
    """No exception outlives its command."""
    assert set(RUN_BY_OTHERS) <= set(commands())


@pytest.mark.postgres
@pytest.mark.parametrize(("path", "line", "session"), sessions(), ids=lambda value: getattr(value, "name", None))
def test_a_transcript_is_what_the_commands_print(path: Path, line: int, session: str, tmp_path: Path, dsn: str) -> None:
    """But for times, process numbers and the like."""
    now = Shell(ROOT, tmp_path, dsn).session(session)
    if os.environ.get("SNAP_UPDATE"):
        path.write_text(path.read_text().replace(f"```console\n{session}```", f"```console\n{now}```"))
        return
    assert now == session, f"{path.name}:{line}"


def test_the_example_at_the_top_is_a_spec_that_deadlocks() -> None:
    """What a reader copies first works."""
    example = re.search(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert example
    result = check(parse(example[1]))
    assert result.verdict.outcome is Outcome.VIOLATED
    assert result.view and set(result.view.cycle_transactions) == {"enqueue", "claim"}


def links(path: Path) -> list[str]:
    """Where the links of a document lead, as they are written; not those in code."""
    inline = [token for token in MarkdownIt("commonmark").enable("table").parse(path.read_text()) if token.children]
    children = [child for token in inline for child in token.children or ()]
    return [str(child.attrs["href"]) for child in children if child.type == "link_open"]


def anchors(path: Path) -> set[str]:
    """The fragments that GitHub gives the headings of a document."""
    found: set[str] = set()
    known: Counter[str] = Counter()
    tokens = MarkdownIt("commonmark").parse(path.read_text())
    for opening, heading in itertools.pairwise(tokens):
        if opening.type == "heading_open":
            words = "".join(child.content for child in heading.children or ())
            slug = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
            found.add(f"{slug}-{known[slug]}" if known[slug] else slug)
            known[slug] += 1
    return found


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    """A file that is named is there, and so is the heading behind a `#`."""
    for link in links(path):
        if link.startswith("https://"):
            continue
        file, _, fragment = link.partition("#")
        target = path.parent / file if file else path
        assert target.exists(), link
        if fragment:
            assert fragment in anchors(target), link


def test_the_anchors_are_those_that_github_makes() -> None:
    """Small letters, dashes for spaces, no punctuation; a number behind what is there already."""
    assert {"from-nothing-to-a-job", "exit-codes", "gitlab-and-jenkins"} <= anchors(ROOT / "docs" / "ci.md")
    assert "a-deadlock-as-a-test-on-a-real-postgres" in anchors(ROOT / "docs" / "pytest.md")


def test_the_readme_lists_each_document_once() -> None:
    """With one line about it."""
    text = (ROOT / "README.md").read_text()
    listed = re.findall(r"(?m)^- \[docs/([\w-]+\.md)\]\(docs/\1\): [A-Za-z`].*[.]$", text[text.index("## Read on") :])
    assert sorted(listed) == [path.name for path in DOCUMENTS[1:]]


def test_every_verdict_and_exit_code_is_explained() -> None:
    """In docs/reading-a-trace.md, by the word or number that is printed."""
    text = (ROOT / "docs" / "reading-a-trace.md").read_text()
    verdicts = text[text.index("## All verdicts") : text.index("## Exit codes")]
    for word in (
        *Outcome,
        *ReplayOutcome,
        "DEADLOCK",
        "STALL",
        "CONVOY",
        "GLOBAL STALL",
        "AS EXPECTED",
        "CONFORMS",
        "DRIFT",
    ):
        assert re.search(rf"(?m)^\| [^|]*\| [^|]*\b{word}\b[^|]* \|", verdicts), word
    for code in ExitCode:
        assert re.search(rf"(?m)^\| {int(code)} \|", text), code


@pytest.mark.parametrize(
    ("second", "always", "sometimes"),
    [("x, y", Outcome.HOLDS, Outcome.HOLDS), ("y, x", Outcome.HOLDS, Outcome.VIOLATED)],
    ids=["one order", "kept apart"],
)
def test_a_proof_by_order_stands_without_a_lock_and_one_by_a_gate_does_not(
    second: str, always: Outcome, sometimes: Outcome
) -> None:
    """What docs/limits.md says of locks that depend on data: both take `gate`, then x and y; or only sometimes `gate`."""
    names = "resources: {gate: {kind: row}, x: {kind: row}, y: {kind: row}}\n"

    def outcome(gate: str) -> Outcome:
        steps = [[gate, *(f"{{{lock}: FOR UPDATE}}" for lock in order.split(", "))] for order in ("x, y", second)]
        first, other = (", ".join(one) for one in steps)
        text = f"name: x\n{names}transactions: {{a: {{steps: [{first}]}}, b: {{steps: [{other}]}}}}\n"
        return check(parse(text)).verdict.outcome

    assert outcome("{gate: FOR UPDATE}") is always
    assert outcome("{either: [[{gate: FOR UPDATE}], []]}") is sometimes


def test_the_set_up_commands_stand_where_ci_looks_for_them() -> None:
    """`.ci/run` runs the README's own two commands."""
    text = (ROOT / "README.md").read_text()
    for mark, part in (("run", "lockmodel check specs/striped.yaml"), ("test", "pytest")):
        block = re.search(rf"<!-- {mark} -->\n```sh\n(.*?)```", text, re.DOTALL)
        assert block and part in block[1] and len(block[1].splitlines()) == 1
    assert shutil.which("bash") is None or subprocess.run(["bash", "-n", str(ROOT / ".ci" / "run")]).returncode == 0
