"""The report for people: the verdict first, then the schedule with one column a worker, then why nobody can go on.

`full` is the report of one spec, `brief` its first lines where many are checked, `summary` the table after many.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rich import box
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from lockmodel.errors import one_line
from lockmodel.explanation import explain
from lockmodel.report import grounds, standstill, words
from lockmodel.report.grammar import assignments, plural
from lockmodel.report.page import Page, text
from lockmodel.system import NO_DEADLOCK
from lockmodel.verdict import CheckResult, Outcome, Verdict

_INDENT = 2
_LANE_MIN = 18
"""Columns that a worker's lane needs to be readable; with less for each, the schedule becomes a list."""
_STYLES = {0: "bold green", 1: "bold red", 3: "bold yellow"}


def full(result: CheckResult, page: Page) -> str:
    """Everything there is to say about the check of one spec."""
    parts: list[RenderableType] = [*head(result, page)]
    if result.deadlocks is not None and (result.deadlocks.groups or result.deadlocks.incomplete):
        parts += _all_deadlocks(result, page)
    if result.trace is not None and not _among_all(result):
        parts += evidence(result, page)
    parts += ["", *(_paragraph(line, "dim") for line in _knowledge(result))]
    report = page.render(*parts)
    if result.trace is not None:
        # In one line whatever its length, so that it can be copied.
        what = "the first" if _among_all(result) else "it"
        report += page.fit(f"  Replay {what}: {one_line(words.replay_command(result), limit=5_000)}\n")
    return report


def brief(result: CheckResult, page: Page) -> str:
    """The verdict, and where it is not the expected one, all that leads to it."""
    if result.exit_code == 1:
        return full(result, page)
    return page.render(*head(result, page))


@dataclass(frozen=True)
class Row:
    """One spec in the summary. A file that could not be read has no result."""

    file: str
    result: CheckResult | None


def summary(rows: Sequence[Row], page: Page, *, unchecked: int = 0) -> str:
    """A table of all specs; `unchecked`: how many an interruption left out. What leaves no room for the names of the files is left out."""
    for columns in (5, 4, 3):
        table = _summary_table(rows, columns)
        if page.has_room_for(table):
            break
    return page.render(table, "", text(totals(rows, unchecked)))


def _summary_table(rows: Sequence[Row], columns: int) -> Table:
    """With the first so many of its columns."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for name in ("spec", "verdict", "expected?", "states", "seconds")[:columns]:
        table.add_column(name, overflow="fold", justify="right" if name in ("states", "seconds") else "left")
    for row in rows:
        table.add_row(*_summary_cells(row)[:columns])
    return table


def _summary_cells(row: Row) -> list[Text]:
    result = row.result
    if result is None:
        return [text(row.file), text("ERROR", _STYLES[1]), text(""), text(""), text("")]
    style = _STYLES[result.exit_code]
    states = sum(exploration.states for exploration in result.explorations)
    return [
        text(row.file),
        text(words.verdict_word(result), style),
        text({0: "yes", 1: "no", 3: "undecided"}[result.exit_code], style),
        text(f"{states:,}" if result.explorations else "-"),
        text(f"{result.seconds:.2f} s"),
    ]


def totals(rows: Sequence[Row], unchecked: int) -> str:
    """`5 specs: 4 as expected, 1 undecided.`"""
    codes = [None if row.result is None else row.result.exit_code for row in rows]
    counts = (
        (codes.count(0), "as expected"), (codes.count(1), "not as expected"), (codes.count(3), "undecided"),
        (codes.count(None), "with an error"), (unchecked, "not checked"),
    )  # fmt: skip
    told = [f"{count:,} {what}" for count, what in counts if count]
    return f"{plural(len(rows) + unchecked, 'spec')}: {', '.join(told)}."


# The first lines


def head(result: CheckResult, page: Page) -> list[RenderableType]:
    style = _STYLES[result.exit_code]
    verdict = text(words.verdict_word(result), style)
    parts = page.heading(result.spec.source.file, verdict, words.headline(result) + _suffix(result))
    expectation = words.expectation(result)
    if expectation:
        parts.append(_paragraph(expectation, style))
    return parts


def _suffix(result: CheckResult) -> str:
    if result.exit_code == 1:
        return " (not as expected)"
    return " (as expected)" if result.verdict.outcome is Outcome.VIOLATED else ""


def evidence(result: CheckResult, page: Page) -> list[RenderableType]:
    """The trace, and why nobody can go on."""
    schedule = _schedule(result, page)
    # The table begins with a space of its own.
    table: list[RenderableType] = ["", Padding(schedule, (0, 0, 0, _INDENT - 1))] if schedule else []
    return [*table, "", *_why(result)]


def _all_deadlocks(result: CheckResult, page: Page) -> list[RenderableType]:
    """Every kind of deadlock with its trace."""
    assert result.deadlocks is not None
    parts: list[RenderableType] = ["", _paragraph(words.all_deadlocks(result.deadlocks))]
    for number, group in enumerate(result.deadlocks.groups, start=1):
        verdict = Verdict(Outcome.VIOLATED, violated=NO_DEADLOCK)
        alone = replace(result, trace=group.trace, view=explain(result.compiled, group.trace), verdict=verdict)
        parts += ["", _paragraph(words.group_title(number, group), "bold"), *evidence(alone, page)]
    return parts


def _among_all(result: CheckResult) -> bool:
    """Whether the trace is told with all deadlocks."""
    found = result.deadlocks
    return found is not None and bool(found.groups) and result.verdict.violated == NO_DEADLOCK


# The schedule


def _schedule(result: CheckResult, page: Page) -> Table | None:
    """The trace and its last state; None if nothing happens in it."""
    assert result.view is not None and result.trace is not None
    acting = sorted({action.worker for action in result.trace.actions})
    if not acting:
        return None
    # The step column and its edge take 8 columns, the edge of each lane 3.
    lane = (page.width - _INDENT - 8) // len(acting) - 3
    return _lanes(result, acting, lane) if lane >= _LANE_MIN else _list(result, acting)


def _lanes(result: CheckResult, acting: Sequence[int], lane: int) -> Table:
    """One column a worker."""
    assert result.view is not None and result.trace is not None
    view, system = result.view, result.compiled
    table = Table(box=box.MINIMAL, show_edge=False, header_style="bold")
    table.add_column("step", justify="right", style="dim", no_wrap=True)
    for worker in acting:
        table.add_column(text(view.workers[worker]), overflow="fold", max_width=lane)
    for number, (action, said) in enumerate(
        zip(result.trace.actions, words.step_sentences(system, result.trace), strict=True), 1
    ):
        table.add_row(str(number), *(text(said) if worker == action.worker else "" for worker in acting))
    table.add_section()
    final = [view.final[worker] for worker in acting]
    table.add_row("holds", *(text(standstill.holdings(system, worker) or "nothing") for worker in final))
    if any(worker.wants for worker in final):
        waits = [standstill.waits(system, view, worker).removeprefix("waits ") for worker in final]
        table.add_row("waits", *(text(said, "red") for said in waits))
    known = [assignments(_locals(result, worker).items()) for worker in acting]
    if any(known):
        table.add_row("has", *(text(said) for said in known))
    return table


def _list(result: CheckResult, acting: Sequence[int]) -> Table:
    """One line a step, for more workers than have room side by side."""
    assert result.view is not None and result.trace is not None
    view, system = result.view, result.compiled
    table = Table(box=box.MINIMAL, show_edge=False, header_style="bold")
    table.add_column("step", justify="right", style="dim", no_wrap=True)
    table.add_column("worker", overflow="fold", max_width=24)
    table.add_column("what", overflow="fold")
    for number, (action, said) in enumerate(
        zip(result.trace.actions, words.step_sentences(system, result.trace), strict=True), 1
    ):
        table.add_row(str(number), text(view.workers[action.worker]), text(said))
    table.add_section()
    for worker in acting:
        here = view.final[worker]
        clauses = [f"holds {standstill.holdings(system, here) or 'nothing'}", standstill.waits(system, view, here)]
        clauses.append(assignments(_locals(result, worker).items()))
        table.add_row("end", text(here.name), text("; ".join(filter(None, clauses))))
    return table


def _locals(result: CheckResult, worker: int) -> dict[str, object]:
    """The worker's local variables at the end, as far as a formula observes them."""
    assert result.trace is not None
    return dict(result.compiled.locations[result.trace.last.locations[worker]].local)


# The sentences below


def _why(result: CheckResult) -> list[Padding]:
    assert result.view is not None and result.trace is not None
    violated = result.verdict.violated
    assert violated is not None
    if (why := standstill.why(result.compiled, result.view, violated)) is not None:
        return [_paragraph(why)]
    lead, formula = words.formula_sentences(result.compiled, result.trace, violated)
    return [_paragraph(lead), Padding(text(formula), (0, 0, 0, 2 * _INDENT))]


def _knowledge(result: CheckResult) -> list[str]:
    """What was searched, and what is proved."""
    lines = [grounds.searched(exploration) for exploration in result.explorations]
    if result.certificate is not None:
        lines += grounds.proved(result.certificate, bool(result.spec.sets))
    if result.queues is not None and result.queues.proved:
        lines.append(grounds.no_queue(result.queues.requests))
    return [*lines, *filter(None, [grounds.by_circle(result), grounds.advice(result)])]


def _paragraph(words_: str, style: str = "") -> Padding:
    return Padding(text(words_, style), (0, 0, 0, _INDENT))
