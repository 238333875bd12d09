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
from lockmodel.replay.patience import VICTIM_TIMEOUT_MS
from lockmodel.replay.performance import Done, Performance, Standstill
from lockmodel.replay.replayer import ReplayOutcome, ScheduleRun, SchedulesReplay, TraceReplay
from lockmodel.replay.scenarios import ScenarioRun, outcome_of
from lockmodel.replay.script import Command, Outcome, Script
from lockmodel.replay.sides import WorkerSides
from lockmodel.report.grammar import listed, plural
from lockmodel.report.page import Page, plain, text
from lockmodel.scenario import RefutedOutcome

_STYLES = {
    ReplayOutcome.CONFIRMED: "bold green",
    ReplayOutcome.REFUTED: "bold red",
    ReplayOutcome.NOT_REALIZABLE: "bold yellow",
}
_LAST = 12
"""How many statements before a difference are shown."""
_DIFFERS = "!"


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
        parts.append(_paragraph(difference_sentence(replay.script, performance), "red"))
        parts += _sides(replay.sides)
    elif not performance.deadlocked:
        parts.append(_paragraph("Postgres did as the model says, statement by statement."))
    parts += _ending(replay.script, performance)
    parts += _notes(replay.synthetic)
    return page.render(*parts)


def schedules_report(file: str, replay: SchedulesReplay, page: Page, repeat: str) -> str:
    """The replay of random schedules; `repeat` is the command that repeats it."""
    last = replay.runs[-1]
    workers = plural(len(last.script.workers), "worker")
    if replay.outcome is ReplayOutcome.REFUTED:
        claim = f"in random schedule {last.number} of {replay.asked}, {workers}"
        parts: list[RenderableType] = [*_head(file, replay.outcome, claim, replay.server, page), ""]
        rows = len(statement_rows(last.script, last.performance))
        if rows > _LAST:
            parts += [_paragraph(f"The last {_LAST} of {rows} statements:"), ""]
        parts += [Padding(_statements(last.script, last.performance, _LAST), (0, 0, 0, 2)), ""]
        parts.append(_paragraph(difference_sentence(last.script, last.performance), "red"))
        parts += _sides(last.sides)
    else:
        ended = f"{replay.deadlocks} deadlocked, all as foretold" if replay.deadlocks else "none deadlocked"
        claim = f"{plural(len(replay.runs), 'random schedule')} of {workers}: {ended}"
        parts = [*_head(file, replay.outcome, claim, replay.server, page), ""]
        parts.append(_paragraph(schedules_sentence(replay)))
        if deadlocked := next((run for run in replay.runs if run.performance.deadlocked), None):
            parts += ["", *_sample(deadlocked)]
    parts += _notes(replay.synthetic)
    # In one line whatever its length, so that it can be copied.
    return page.render(*parts) + page.fit(f"  Repeat it: {one_line(repeat, limit=5_000)}\n")


def code_report(file: str, claim: str, replay: CodeReplay, page: Page) -> str:
    """The replay of a deadlock on real code."""
    outcome = outcome_of(replay)
    table = _table()
    for number, step in enumerate(replay.steps, start=1):
        style = "yellow" if step.became.startswith("waits") else "" if step.became == "ok" else "red"
        table.add_row(str(number), text(replay.workers[step.worker]), text(step.statement), text(step.became, style))
    parts: list[RenderableType] = [*_head(file, outcome, claim, replay.server, page)]
    if replay.steps:
        parts += ["", Padding(table, (0, 0, 0, 2)), ""]
    if replay.difference:
        parts.append(_paragraph(f"{replay.difference}.", "red"))
        parts += _sides(replay.sides)
    if replay.deadlock is not None:
        parts += _reported(replay.workers, replay.deadlock)
    return page.render(*parts)


def scenario_report(file: str, run: ScenarioRun, page: Page, *, brief: bool) -> str:
    """A scenario: whether what must come out did; unless that is all that is wanted, the replay itself too."""
    word = Text("AS EXPECTED", "bold green") if run.unmet is None else Text("NOT AS EXPECTED", "bold red")
    head = page.render(
        *page.heading(file, word), _paragraph(run.claim), *([_paragraph(f"{run.unmet}.", "red")] if run.unmet else [])
    )
    if brief and run.unmet is None:
        return head
    refuted = isinstance(run.scenario.outcome, RefutedOutcome) and run.unmet is None
    claim = f"{run.spec.name} (as expected)" if refuted else run.spec.name
    match run.replay:
        case TraceReplay():
            return head + trace_report(run.spec.source.file, claim, run.replay, page)
        case CodeReplay():
            return head + code_report(run.spec.source.file, claim, run.replay, page)
        case SchedulesReplay(asked=asked, seed=seed):
            repeat = f"lockmodel replay {run.spec.source.file} --schedules {asked} --seed {seed}"
            return head + schedules_report(run.spec.source.file, run.replay, page, repeat)


def unmet_line(words: str, page: Page) -> str:
    """What the spec expects of the check, where that is not what came out."""
    return page.render(_paragraph(words))


def ending_lines(script: Script, performance: Performance) -> list[str]:
    """The deadlock in Postgres's words, with what there is to say about it; nothing if there was none."""
    return _plain(_ending(script, performance))


def reported_lines(workers: Sequence[str], deadlock: Deadlock) -> list[str]:
    """Whom Postgres aborted, and the lines of its report."""
    return _plain(_reported(workers, deadlock))


def note_lines(synthetic: frozenset[str]) -> list[str]:
    """Which statements are lockmodel's own."""
    return _plain(_notes(synthetic))


def _plain(parts: Sequence[RenderableType]) -> list[str]:
    """The words of paragraphs, for other formats."""
    return [plain(one.renderable) for one in parts if isinstance(one, Padding) and isinstance(one.renderable, Text)]


def statement_rows(script: Script, performance: Performance) -> list[tuple[Command, str]]:
    """Each statement that was sent, and what became of it in words."""
    rows = [(done.command, _became(script, performance, number)) for number, done in enumerate(performance.done)]
    if performance.failed is not None and all(command is not performance.failed for command, _ in rows):
        rows.append((performance.failed, _told(script, performance)))
    return rows


def _head(file: str, outcome: ReplayOutcome, claim: str, server: str, page: Page) -> list[RenderableType]:
    return page.heading(
        file, Text(str(outcome), _STYLES[outcome]), claim + (f", on PostgreSQL {server}" if server else "")
    )


def schedules_sentence(replay: SchedulesReplay) -> str:
    """How much was sent, and that all became of it that was foretold."""
    waited = f"{replay.waits:,} of which waited" if replay.waits else "none of which waited"
    told = (
        f"{plural(replay.statements, 'statement')} in {replay.seconds:.1f} s, {waited}. "
        "Each was granted, made to wait or refused as the model foretold."
    )
    if replay.without_row:
        they = "it" if replay.without_row == 1 else "they"
        told += (
            f" But {plural(replay.without_row, 'statement')} found no row to lock, so {they} did not put the locks to the test: the row was "
            "deleted or changed before, or the schema's SQL does not insert it."
        )
    if replay.waits:
        return told
    if not replay.can_wait:
        return f"{told} In the model nobody ever has to wait for a lock."
    return f"{told} Without a wait the locks were hardly put to the test: more --schedules or more --workers would."


def _sample(run: ScheduleRun) -> list[RenderableType]:
    lead = _paragraph(f"The first deadlock, in schedule {run.number}:")
    if run.performance.standstill is not None:
        return [lead, *_stood_still(run.script, run.performance.standstill)]
    assert run.performance.deadlock is not None
    return [
        lead,
        *_reported(run.script.workers, run.performance.deadlock),
        *_other_victim(run.script, run.performance),
    ]


def _statements(script: Script, performance: Performance, last: int | None = None) -> Table:
    """Every statement that was sent, and what became of it."""
    table = _table()
    rows = statement_rows(script, performance)
    shown = rows if last is None else rows[-last:]
    for number, (command, became) in enumerate(shown, start=len(rows) - len(shown) + 1):
        style = "red" if command is performance.failed else "yellow" if command.outcome is Outcome.WAITS else ""
        table.add_row(str(number), text(script.workers[command.worker]), text(command.shown), text(became, style))
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
    mine = [index for index, one in enumerate(performance.done) if one.command.worker == command.worker]
    if deadlock is not None and deadlock.victim == command.worker and number == mine[-1]:
        waited = f"{_waits(script, done)}, then "
        return f"{waited if number < len(performance.done) - 1 else ''}40P01 deadlock detected"
    if command is performance.failed and performance.difference:
        return _told(script, performance)
    if command.outcome is Outcome.WAITS:
        return _waits(script, done)
    if command.outcome is Outcome.REFUSED:
        return "refused"
    if command.outcome is Outcome.TIMES_OUT:
        return "waits, then 55P03 lock timeout"
    goes = "goes" if len(command.resumes) == 1 else "go"
    said = [f"{listed(script.workers[worker] for worker in command.resumes)} {goes} on"] * bool(command.resumes)
    said += [
        f"{script.workers[worker]} goes on, then waits for {listed(script.workers[blocker] for blocker in blockers)}"
        for worker, blockers in command.then_waits
    ]
    return "; ".join(["ok", *said])


def _waits(script: Script, done: Done) -> str:
    workers = listed(script.workers[worker] for worker in done.waits_for)
    if done.command.takes_connection:
        return f"waits in the pool, whose connections {workers} {'have' if len(done.waits_for) > 1 else 'has'}"
    return f"waits for {workers}"


def difference_sentence(script: Script, performance: Performance) -> str:
    """Where Postgres did otherwise, and what it did."""
    assert performance.failed is not None
    command = performance.waiting or performance.failed
    had_waited = ", which had waited" if performance.waiting is not None else ""
    told = f"{script.workers[command.worker]}, at {command.text}{had_waited}: {performance.difference}"
    return told if told.endswith("?") else f"{told}."


def _told(script: Script, performance: Performance) -> str:
    """What Postgres did otherwise at the statement that was sent last; or after it, at one that had waited."""
    if performance.waiting is None:
        return performance.difference or ""
    return f"ok; but {script.workers[performance.waiting.worker]} {performance.difference}"


def _sides(sides: Sequence[WorkerSides]) -> list[RenderableType]:
    """Each worker's locks at the step where the two parted, equal ones beside each other."""
    if not sides:
        return []
    table = Table(box=box.MINIMAL, show_edge=False, pad_edge=False, header_style="bold")
    table.add_column("worker", no_wrap=True, max_width=16)
    table.add_column("the model", overflow="fold", ratio=1)
    table.add_column("Postgres", overflow="fold", ratio=1)
    table.add_column("", no_wrap=True)
    for one in sides:
        name = one.worker
        for line in one.lines:
            style, mark = ("red", _DIFFERS) if line.differs else ("", "")
            table.add_row(text(name), text(line.model, style), text(line.postgres, style), text(mark, style))
            name = ""
    differs = any(line.differs for one in sides for line in one.lines)
    marked = f" ({_DIFFERS}: here they differ)" if differs else ""
    parts: list[RenderableType] = [
        "",
        _paragraph(f"Each worker's locks at that step{marked}:"),
        "",
        Padding(table, (0, 0, 0, 2)),
    ]
    notes = sides_notes(sides)
    return [*parts, *([""] if notes else []), *(_paragraph(note, "dim") for note in notes)]


def sides_notes(sides: Sequence[WorkerSides]) -> list[str]:
    """What could not be compared."""
    notes = []
    if not all(one.told for one in sides):
        notes.append("What the spec does not tell of (stands for) can't be compared, and is in Postgres's words.")
    if not all(one.rows for one in sides):
        notes.append("Row locks could not be looked at: that needs the extension pgrowlocks.")
    return notes


def _ending(script: Script, performance: Performance) -> list[RenderableType]:
    """The deadlock that the schedule ended in."""
    parts: list[RenderableType] = []
    if performance.deadlock is not None:
        parts += _reported(script.workers, performance.deadlock)
        parts += _bystanders(script, performance.deadlock)
        parts += _other_victim(script, performance)
    if performance.standstill is not None:
        parts += _stood_still(script, performance.standstill)
    return parts


def _reported(workers: Sequence[str], deadlock: Deadlock) -> list[RenderableType]:
    """Postgres's own report of the cycle."""
    at_once = "" if deadlock.seen_waiting else ", at once"
    lead = f"Postgres aborted {workers[deadlock.victim]}{at_once}: {deadlock.message} (SQLSTATE 40P01)."
    return [_paragraph(lead), *(Padding(text(wait.text), (0, 0, 0, 4)) for wait in deadlock.waits)]


def _bystanders(script: Script, deadlock: Deadlock) -> list[RenderableType]:
    """Why Postgres names workers that are not in the model's cycle."""
    last = {command.worker: command for command in script.commands}
    return [
        _paragraph(
            f"{script.workers[worker]} is named, but is not part of the deadlock: it was first in the queue for {last[worker].text}, and "
            "who comes later waits for the first in the queue, which waits for the lock itself. Without it the others wait for each other just "
            "the same."
        )
        for worker in deadlock.bystanders(script.cycle)
    ]


def _stood_still(script: Script, seen: Standstill) -> list[RenderableType]:
    """Who waited where, in a deadlock that Postgres can't see."""
    workers = script.workers
    waits = [
        f"{workers[worker]} waits for a connection of {pool}; {listed(workers[one] for one in holders)} "
        f"{'have' if len(holders) > 1 else 'has'} them all."
        for worker, pool, holders in seen.in_pool
    ]
    waits += [
        f"{workers[worker]} waits in Postgres for {listed(workers[one] for one in blockers)}."
        for worker, blockers in seen.in_postgres
    ]
    if script.queued:
        said = f"Nobody went on for {seen.seconds:.1f} s, and Postgres reported no deadlock (deadlock_timeout was {VICTIM_TIMEOUT_MS:g}ms): there is none."
        end = "The replay ended the wait; else it lasts until the holder ends."
        return [_paragraph(said), *(Padding(text(wait), (0, 0, 0, 4)) for wait in waits), _paragraph(end)]
    lead = (
        f"Nobody went on for {seen.seconds:.1f} s, and Postgres reported no deadlock (deadlock_timeout was {VICTIM_TIMEOUT_MS:g}ms): it sees nothing of "
        "waits in a pool."
    )
    end = "The replay ended the wait; a program would end it by the pool's timeout (PoolTimeout), if it has one."
    return [_paragraph(lead), *(Padding(text(wait), (0, 0, 0, 4)) for wait in waits), _paragraph(end)]


def _other_victim(script: Script, performance: Performance) -> Sequence[RenderableType]:
    """Why it is not the worker that closed the cycle, where that could not be arranged."""
    deadlock = performance.deadlock
    if deadlock is None or performance.victim_chosen or deadlock.victim == script.victim or script.victim is None:
        return []
    return [
        _paragraph(
            f"{script.workers[script.victim]} closed the cycle, but only a superuser may set deadlock_timeout, so "
            "Postgres chose whom to abort. The deadlock is the same.",
            "dim",
        )
    ]


def _notes(synthetic: frozenset[str]) -> Sequence[RenderableType]:
    if not synthetic:
        return []
    names = listed(sorted(synthetic))
    return [
        _paragraph(f"The spec has no sql for {names}: lockmodel used statements that take just these locks.", "dim")
    ]


def _paragraph(words: str, style: str = "") -> Padding:
    return Padding(text(words, style), (0, 0, 0, 2))
