"""Markdown as GitHub writes it, for a comment on a pull request or a job's summary: a table of all specs, then what is wrong, with its trace.

Words from a spec can't do anything: they are escaped, and mention nobody.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from lockmodel.errors import one_line
from lockmodel.report import terminal, words
from lockmodel.report.findings import Finding, case_name, findings
from lockmodel.report.grammar import plural
from lockmodel.report.json import Failure
from lockmodel.report.page import Page
from lockmodel.verdict import CheckResult

MARK = "<!-- lockmodel check -->"
"""The first line, by which a workflow finds its comment again."""
LIMIT = 60_000
"""Characters; GitHub takes 65,536 in a comment. Traces that would go beyond are left out, and the report says so."""

_PAGE = Page(width=100)
_ANSWERS = {0: "yes", 1: "**no**", 3: "undecided"}


def report(results: Iterable[CheckResult], failures: Iterable[Failure] = (), *, unchecked: Sequence[str] = ()) -> str:
    """One Markdown document for all specs."""
    results, failures = list(results), list(failures)
    rows = [terminal.Row(failure.file, None) for failure in failures]
    rows += [terminal.Row(result.spec.source.file, result) for result in results]
    totals = terminal.totals(rows, len(unchecked))
    parts = [MARK, f"### lockmodel: {totals.removesuffix('.')}"]
    table = [f"| {_cell(failure.file)} | **ERROR** | | |" for failure in failures]
    table += [_row(result) for result in sorted(results, key=lambda result: result.exit_code == 0)]
    table += [f"| {_cell(file)} | not checked | | |" for file in unchecked]
    parts.append(_table(table))
    size, left_out = sum(map(len, parts)), 0
    for section in (section for finding in findings(results, failures) for section in _sections(finding)):
        if size + len(section) > LIMIT:
            left_out += 1
            continue
        size += len(section) + 2
        parts.append(section)
    if left_out:
        parts.append(f"Left out for want of room: {plural(left_out, 'section')}. The report in the terminal has all.")
    return "\n\n".join(parts) + "\n"


def _table(rows: Sequence[str]) -> str:
    """What is wrong first, so that this is there if not all have room."""
    lines = ["| spec | verdict | as expected? | states |", "|---|---|---|--:|"]
    room = LIMIT // 2
    for number, row in enumerate(rows):
        room -= len(row) + 1
        if room < 0:
            return "\n".join([*lines, "", f"And {plural(len(rows) - number, 'more spec')}."])
        lines.append(row)
    return "\n".join(lines)


def _row(result: CheckResult) -> str:
    verdict = f"{words.verdict_word(result)} {escape(words.headline(result))}"
    states = sum(exploration.states for exploration in result.explorations)
    return (
        f"| {_cell(case_name(result))} | {verdict} | {_ANSWERS[result.exit_code]} | {f'{states:,}' if states else ''} |"
    )


def _sections(finding: Finding) -> list[str]:
    """A finding in words, and its trace to unfold, which may be left out by itself."""
    position = finding.position
    place = f"{position.file}:{position.line}" if position.line else position.file
    lead = f"**{code(place)}** {escape(finding.title)}\n\n{escape(finding.message)}"
    if finding.result is None or finding.result.trace is None:
        return [lead]
    evidence = _PAGE.render(*terminal.evidence(finding.result, _PAGE)).strip("\n")
    trace = f"<details><summary>The schedule</summary>\n\n{fenced(evidence)}\n\n</details>"
    every = finding.result.deadlocks
    if every is not None and every.groups and finding.result.trace is not every.groups[0].trace:
        return [lead, trace]  # The command replays the first.
    return [lead, f"{trace}\n\nReplay it: {code(words.replay_command(finding.result))}"]


def escape(text: str) -> str:
    """`text` as Markdown that shows just that: no markup, no HTML, no link, and nobody is mentioned."""
    safe = re.sub(r"([\\`*_{}\[\]<>#|~&$!]|:(?=\S))", r"\\\1", one_line(text, 5_000))
    safe = re.sub(r"(?i)(www)\.", r"\1\.", safe)
    # A backslash does not keep GitHub from mentions and references to issues: it looks for them in the text that results.
    return safe.replace("@", "@<!-- -->").replace("\\#", "\\#<!-- -->")


def code(text: str) -> str:
    """`text` as code within a line."""
    text = one_line(text, 2_000)
    ticks = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    space = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{ticks}{space}{text}{space}{ticks}"


def _cell(text: str) -> str:
    """`text` as code in a table, where a bar ends a cell even inside code."""
    return code(text).replace("|", "\\|")


def fenced(text: str) -> str:
    """`text` as a block of code that it can't end."""
    ticks = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{ticks}text\n{text}\n{ticks}"
