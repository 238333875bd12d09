"""What a replay came to, for people: the verdict, the statements with what Postgres made of them, and its own words."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from lockmodel.errors import one_line
from lockmodel.replay.code import CodeReplay
from lockmodel.replay.deadlock import Deadlock
from lockmodel.replay.driver import Performance
from lockmodel.replay.replayer import ReplayOutcome, ScheduleRun, SchedulesReplay, TraceReplay
from lockmodel.replay.scenarios import ScenarioRun
from lockmodel.replay.script import Command, Outcome, Script
from lockmodel.report.page import Page, text
from lockmodel.report.words import listed, plural

_STYLES = {
    ReplayOutcome.CONFIRMED: "bold green",
    ReplayOutcome.REFUTED: "bold red",
    ReplayOutcome.NOT_REALIZABLE: "bold yellow",
}
_LAST = 12
"""How many statements before a difference are shown."""


def trace_report(file: str, claim: str, replay: TraceReplay, page: Page) -> str:
    """The replay of one trace; `claim` is what the model says of it (`deadlock between enqueue and claim`)."""
    parts: list[RenderableType] = [*_head(file, replay.outcome, claim, replay.server, page)]
    if replay.script is None or replay.performance is None:
        return page.render(*parts, _paragraph(f"The trace can't be followed statement by statement: {replay.reason}."))
    performance = replay.performance
    parts += ["", Padding(_statements(replay.script, performance), (0, 0, 0, 2)), ""]
    if replay.script.reordered:
        parts.append(
            _paragraph("The order is another one than the trace's, since that interleaves inside a statement.", "dim")
        )
    if performance.difference is not None:
        parts.append(_paragraph(_difference(replay.script, performance), "red"))
    elif performance.deadlock is None:
        parts.append(_paragraph("Postgres did as the model says, statement by statement."))
    if performance.deadlock is not None:
        parts += _reported(replay.script.workers, performance.deadlock)
    parts += _notes(replay.synthetic)
    return page.render(*parts)


def schedules_report(file: str, replay: SchedulesReplay, page: Page, repeat: str) -> str:
    """The replay of random schedules; `repeat` is the command that repeats it."""
    last = replay.runs[-1]
    workers = plural(len(last.script.workers), "worker")
    if replay.outcome is ReplayOutcome.REFUTED:
        claim = f"in random schedule {last.number} of {replay.asked}, {workers}"
        parts: list[RenderableType] = [*_head(file, replay.outcome, claim, replay.server, page), ""]
        parts += [Padding(_statements(last.script, last.performance, _LAST), (0, 0, 0, 2)), ""]
        parts.append(_paragraph(_difference(last.script, last.performance), "red"))
    else:
        ended = f"{replay.deadlocks} deadlocked, all as foretold" if replay.deadlocks else "none deadlocked"
        claim = f"{plural(len(replay.runs), 'random schedule')} of {workers}: {ended}"
        parts = [*_head(file, replay.outcome, claim, replay.server, page), ""]
        parts.append(_paragraph(_count(replay)))
        if deadlocked := next((run for run in replay.runs if run.performance.deadlock), None):
            parts += ["", *_sample(deadlocked)]
    parts += _notes(replay.synthetic)
    # In one line whatever its length, so that it can be copied.
    return page.render(*parts) + page.fit(f"  Repeat it: {one_line(repeat, limit=5_000)}\n")


def code_report(file: str, claim: str, replay: CodeReplay, page: Page) -> str:
    """The replay of a deadlock on real code."""
    outcome = ReplayOutcome.REFUTED if replay.difference else ReplayOutcome.CONFIRMED
    table = _table()
    for number, step in enumerate(replay.steps, start=1):
        style = "yellow" if step.became.startswith("waits") else "" if step.became == "ok" else "red"
        table.add_row(str(number), text(replay.workers[step.worker]), text(step.statement), text(step.became, style))
    parts: list[RenderableType] = [*_head(file, outcome, claim, replay.server, page)]
    if replay.steps:
        parts += ["", Padding(table, (0, 0, 0, 2)), ""]
    if replay.difference:
        parts.append(_paragraph(f"{replay.difference}.", "red"))
    if replay.deadlock is not None:
        parts += _reported(replay.workers, replay.deadlock)
    return page.render(*parts)


def scenario_report(file: str, run: ScenarioRun, page: Page, *, brief: bool) -> str:
    """A scenario: whether what must come out did; unless that is all that is wanted, the replay itself too."""
    word = Text("AS EXPECTED", "bold green") if run.unmet is None else Text("NOT AS EXPECTED", "bold red")
    lead = Text.assemble(text(file, "bold"), "  ", word)
    head = page.render(lead, _paragraph(run.claim), *([_paragraph(f"{run.unmet}.", "red")] if run.unmet else []))
    if brief and run.unmet is None:
        return head
    match run.replay:
        case TraceReplay():
            return head + trace_report(run.spec.source.file, run.spec.name, run.replay, page)
        case CodeReplay():
            return head + code_report(run.spec.source.file, run.spec.name, run.replay, page)
        case SchedulesReplay(asked=asked, seed=seed):
            repeat = f"lockmodel replay {run.spec.source.file} --schedules {asked} --seed {seed}"
            return head + schedules_report(run.spec.source.file, run.replay, page, repeat)


def _head(file: str, outcome: ReplayOutcome, claim: str, server: str, page: Page) -> list[RenderableType]:
    lead = Text.assemble(text(file, "bold"), "  ", (str(outcome), _STYLES[outcome]), "  ")
    rest = text(claim + (f", on PostgreSQL {server}" if server else ""))
    if lead.cell_len + rest.cell_len <= page.width:
        return [lead + rest]
    return [lead, Padding(rest, (0, 0, 0, 2))]


def _count(replay: SchedulesReplay) -> str:
    return (
        f"{plural(replay.statements, 'statement')} in {replay.seconds:.1f} s, {replay.waits:,} of which waited. "
        "Each was granted, made to wait or refused as the model foretold."
    )


def _sample(run: ScheduleRun) -> list[RenderableType]:
    assert run.performance.deadlock is not None
    return [
        _paragraph(f"The first deadlock, in schedule {run.number}:"),
        *_reported(run.script.workers, run.performance.deadlock),
    ]


def _statements(script: Script, performance: Performance, last: int | None = None) -> Table:
    """Every statement that was sent, and what became of it."""
    table = _table()
    rows = [(done.command, _became(script, performance, number)) for number, done in enumerate(performance.done)]
    if performance.failed is not None and all(command is not performance.failed for command, _ in rows):
        rows.append((performance.failed, performance.difference or ""))
    shown = rows if last is None else rows[-last:]
    for number, (command, became) in enumerate(shown, start=len(rows) - len(shown) + 1):
        style = "red" if command is performance.failed else "yellow" if command.outcome is Outcome.WAITS else ""
        table.add_row(str(number), text(script.workers[command.worker]), text(command.sql), text(became, style))
    return table


def _table() -> Table:
    table = Table(box=box.MINIMAL, show_edge=False, pad_edge=False, header_style="bold")
    table.add_column("", justify="right", style="dim", no_wrap=True)
    table.add_column("worker", no_wrap=True, max_width=16)
    table.add_column("statement", overflow="fold")
    table.add_column("Postgres", overflow="fold", min_width=14)
    return table


def _became(script: Script, performance: Performance, number: int) -> str:
    done = performance.done[number]
    command: Command = done.command
    deadlock = performance.deadlock
    if deadlock is not None and number == len(performance.done) - 1 and deadlock.victim == command.worker:
        return "40P01 deadlock detected"
    if command is performance.failed and performance.difference:
        return performance.difference
    if command.outcome is Outcome.WAITS:
        return f"waits for {listed(script.workers[worker] for worker in done.waits_for)}"
    if command.outcome is Outcome.REFUSED:
        return "refused"
    went_on = f"; {listed(script.workers[worker] for worker in command.resumes)} goes on" if command.resumes else ""
    return "ok" + went_on


def _difference(script: Script, performance: Performance) -> str:
    assert performance.failed is not None
    command = performance.failed
    return f"{script.workers[command.worker]}, at {command.text}: {performance.difference}."


def _reported(workers: Sequence[str], deadlock: Deadlock) -> list[RenderableType]:
    """Postgres's own report of the cycle."""
    at_once = "" if deadlock.seen_waiting else ", at once"
    lead = f"Postgres aborted {workers[deadlock.victim]}{at_once}: {deadlock.message} (SQLSTATE 40P01)."
    return [_paragraph(lead), *(Padding(text(wait.text), (0, 0, 0, 4)) for wait in deadlock.waits)]


def _notes(synthetic: frozenset[str]) -> Sequence[RenderableType]:
    if not synthetic:
        return []
    names = listed(sorted(synthetic))
    return [
        _paragraph(f"The spec has no sql for {names}: lockmodel used statements that take just these locks.", "dim")
    ]


def _paragraph(words: str, style: str = "") -> Padding:
    return Padding(text(words, style), (0, 0, 0, 2))
