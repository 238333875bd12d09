"""What replays came to as one HTML file: what the model foretold and what Postgres did, statement by statement, beside each other.

All of it can be read without a script. Where a trace was replayed, the explorer stands below with that trace, and the numbers of the
statements lead to its steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from lockmodel.explanation import explain
from lockmodel.replay.code import CodeReplay
from lockmodel.replay.performance import Performance
from lockmodel.replay.replayer import ReplayOutcome, ScheduleRun, SchedulesReplay, TraceReplay
from lockmodel.replay.scenarios import outcome_of
from lockmodel.replay.script import Command, Outcome, Script
from lockmodel.replay.sides import Foretold, WorkerSides
from lockmodel.report import standstill
from lockmodel.report.grammar import listed, plural, sentence
from lockmodel.report.html import tables
from lockmodel.report.html.document import (
    Json,
    as_document,
    badge,
    class_of,
    explorable,
    explorer,
    failures_and_rest,
    links,
    text,
)
from lockmodel.report.json import Failure
from lockmodel.report.replay import (
    difference_sentence,
    ending_lines,
    note_lines,
    reported_lines,
    schedules_sentence,
    sides_notes,
    statement_rows,
)
from lockmodel.report.replay_json import Replayed

MAX_LOCKS = 20_000
"""How many locks the statements of one replay may show; of a longer one the last statements show theirs."""


def report(done: Iterable[Replayed], failures: Iterable[Failure] = (), *, unreplayed: Sequence[str] = ()) -> str:
    """One HTML document for all files; `unreplayed`: those that an interruption left out."""
    done, failures = list(done), list(failures)
    data = [_data(one) for one in done]
    several = len(done) > 1
    articles = [
        _article(number, one, its, folded=several and one.exit_code == 0)
        for number, (one, its) in enumerate(zip(done, data, strict=True))
    ]
    articles += failures_and_rest(failures, unreplayed, "replayed")
    title = f"lockmodel: {plural(len(done) + len(failures), 'replay')}"
    if len(done) == 1 and not failures:
        title = f"{_outcome(done[0])}: {done[0].file}"
    return as_document(title, links([(one.file, _badge(one)) for one in done], "Replays"), articles, data)


def _data(one: Replayed) -> Json:
    """What the script needs for the explorer of one replay; nothing where no trace was replayed."""
    if one.model is None or one.trace is None:
        return {}
    # The text of a scenario is no spec, so that its explorer has nothing to download.
    source = {} if one.scenario else {"source": tables.source(one.model.spec, one.model.overrides, one.model)}
    try:
        return {"violated": None, **source, **explorable(one.model, one.trace)}
    except tables.TooLarge as error:
        return {"reason": str(error)}


def _outcome(one: Replayed) -> ReplayOutcome:
    return outcome_of(one.replay) if isinstance(one.replay, CodeReplay) else one.replay.outcome


def _badge(one: Replayed) -> str:
    """The verdict; of a scenario, whether it is what must come out."""
    if one.scenario:
        return badge("AS EXPECTED" if one.unmet is None else "NOT AS EXPECTED", one.exit_code)
    return badge(str(_outcome(one)), one.exit_code)


def _claim(one: Replayed) -> str:
    """What the model or the scenario says, and where it was put to the test."""
    outcome = f"{_outcome(one)} " if one.scenario else ""
    server = f"{outcome}on PostgreSQL {one.replay.server}" if one.replay.server else outcome.strip()
    if not server:
        return one.claim
    return f"{one.claim} {sentence(server)}" if one.claim.endswith(".") else f"{one.claim}, {server}"


def _article(number: int, one: Replayed, data: Json, *, folded: bool) -> str:
    head = [
        f'<article id="result-{number}" class="{class_of(one.exit_code)}" data-result="{number}" tabindex="-1">',
        f"<h2>{text(one.file)}</h2>",
        f'<p class="verdict">{_badge(one)} {text(_claim(one))}</p>',
    ]
    if one.unmet is not None:
        head.append(f'<p class="unmet">{text(sentence(one.unmet))}</p>')
    body = [*_body(one)]
    if data:
        body.append(explorer(data))
    if folded:
        body = ["<details><summary>The replay</summary>", *body, "</details>"]
    return "\n".join([*head, *filter(None, body), "</article>"])


def _body(one: Replayed) -> Iterator[str]:
    match one.replay:
        case TraceReplay() as replay:
            yield from _trace(one, replay)
        case CodeReplay() as replay:
            yield from _code(one, replay)
        case SchedulesReplay() as replay:
            yield from _schedules(replay)


def _trace(one: Replayed, replay: TraceReplay) -> Iterator[str]:
    script, performance = replay.script, replay.performance
    if script is None or performance is None:
        yield f"<p>The trace can't be followed statement by statement: {text(replay.reason)}.</p>"
        return
    yield _beside(_foretold(one), _observed(script, performance))
    yield from _run(script, performance, replay.sides, numbers=one.trace is not None)
    if script.reordered:
        yield _note("The order is another one than the trace's, since that interleaves inside a statement.")
    yield from map(_note, note_lines(replay.synthetic))


def _code(one: Replayed, replay: CodeReplay) -> Iterator[str]:
    said = reported_lines(replay.workers, replay.deadlock) if replay.deadlock is not None else []
    if replay.difference is not None:
        said = [f"{replay.difference}.", *said]
    yield _beside(_foretold(one), said)
    rows = [
        f"<tr{_differs(step.became not in ('ok', 'ok, alone') and not step.became.startswith('waits'))}><th scope=row>{number}</th>"
        f"<td>{text(replay.workers[step.worker])}</td><td><code>{text(step.statement)}</code></td>{_became(step.became)}</td></tr>"
        for number, step in enumerate(replay.steps, start=1)
    ]
    if rows:
        yield "<h3>Statements of the code</h3>"
        yield _table("Statements", ("", "worker", "statement", "Postgres"), rows)
    yield from _sides(replay.sides)


def _schedules(replay: SchedulesReplay) -> Iterator[str]:
    last = replay.runs[-1]
    workers = plural(len(last.script.workers), "worker")
    seed = f"Seed {replay.seed}."
    if replay.outcome is ReplayOutcome.REFUTED:
        yield f"<p>In random schedule {last.number} of {replay.asked}, with {workers}. {seed}</p>"
        yield _beside(["Postgres does as the model foretells."], _observed(last.script, last.performance))
        yield from _run(last.script, last.performance, last.sides)
    else:
        ended = f"{replay.deadlocks} deadlocked, all as foretold" if replay.deadlocks else "none deadlocked"
        yield f"<p>{plural(len(replay.runs), 'random schedule')} of {workers}: {ended}. {seed}</p>"
        yield f"<p>{text(schedules_sentence(replay))}</p>"
        yield from _example(replay.runs)
    yield from map(_note, note_lines(replay.synthetic))


def _example(runs: Sequence[ScheduleRun]) -> Iterator[str]:
    """One of the schedules: the first that ended in a deadlock, or else that with the most waits."""
    shown = next((run for run in runs if run.performance.deadlock is not None), None) or max(runs, key=_waits)
    yield f"<h3>One of them: schedule {shown.number}</h3>"
    if ending := ending_lines(shown.script, shown.performance):
        yield "".join(f"<p>{text(line)}</p>" for line in ending)
    yield from _run(shown.script, shown.performance, ())


def _waits(run: ScheduleRun) -> int:
    return sum(done.command.outcome is Outcome.WAITS for done in run.performance.done)


def _foretold(one: Replayed) -> list[str]:
    """What the model says of the end of the schedule."""
    if one.model is None or one.trace is None:
        return [one.claim]
    view = explain(one.model.system, one.trace)
    if view.cycle:
        return [standstill.cycle_sentences(one.model.system, view)]
    if view.stall is not None:
        return [standstill.queue_sentences(one.model.system, view)]
    waits = any(worker.wants for worker in view.final)
    return ["Nobody is in a deadlock; whoever waits can still go on." if waits else "Nobody waits at the end."]


def _observed(script: Script, performance: Performance) -> list[str]:
    """What Postgres did, if it did otherwise; and its report of a deadlock."""
    lines = [] if performance.difference is None else [difference_sentence(script, performance)]
    lines += ending_lines(script, performance)
    return lines or ["Postgres did as the model says, statement by statement."]


def _beside(model: Sequence[str], postgres: Sequence[str]) -> str:
    """Both accounts, side by side where there is room."""
    columns = (("The model", model), ("Postgres", postgres))
    parts = [
        f"<section><h3>{title}</h3>{''.join(f'<p>{text(line)}</p>' for line in lines)}</section>"
        for title, lines in columns
    ]
    return f'<div class="beside">{"".join(parts)}</div>'


def _run(
    script: Script, performance: Performance, sides: Sequence[WorkerSides], *, numbers: bool = False
) -> Iterator[str]:
    """The statements with both accounts of each, then each worker's locks where these parted. `numbers`: they lead to the trace's steps."""
    rows = statement_rows(script, performance)
    with_locks = _from_where_locks_are_shown([command for command, _ in rows])
    seconds = [done.seconds for done in performance.done]
    items = []
    for number, (command, became) in enumerate(rows):
        differs = command is performance.failed
        took = f"{1000 * seconds[number]:,.0f} ms" if number < len(seconds) else ""
        step = f' data-step="{command.step or "end"}"' if numbers else ""
        locks = _locks(script, command.foretold) if number >= with_locks else ""
        cells = (
            f'<th scope="row">{number + 1}</th>',
            f"<td>{text(script.workers[command.worker])}</td>",
            f"<td><code>{text(command.shown)}</code>{_place(command)}</td>",
            f'<td data-head="model">{text(_expected(script, command))}{locks}</td>',
            f"{_became(became)}{_mark(differs)}</td>",
            f'<td class="number">{took}</td>',
        )
        items.append(f"<tr{_differs(differs)}{step}>{''.join(cells)}</tr>")
    yield "<h3>Statements</h3>"
    yield _table("Statements", ("", "worker", "statement", "the model foretells", "Postgres", "took"), items)
    yield from _sides(sides)
    if performance.seen:
        yield _raw(script, performance)


def _expected(script: Script, command: Command) -> str:
    """What must come of `command`: `completes; worker 2 goes on`, `waits for worker 1`."""

    def names(workers: Sequence[int]) -> str:
        return listed(script.workers[worker] for worker in workers)

    if command.outcome is Outcome.WAITS:
        closes = script.cycle and command is script.commands[-1]
        return f"waits for {names(command.blockers)}{': the circle is closed' if closes else ''}"
    said = [str(command.outcome)]
    if command.resumes:
        said.append(f"{names(command.resumes)} {'goes' if len(command.resumes) == 1 else 'go'} on")
    said += [
        f"{script.workers[worker]} goes on, then waits for {names(blockers)}" for worker, blockers in command.then_waits
    ]
    return "; ".join(said)


def _place(command: Command) -> str:
    line = "" if command.position is None else f", line {command.position.line}"
    return f'<div class="note">{text(command.text + line)}</div>'


def _from_where_locks_are_shown(commands: Sequence[Command]) -> int:
    """The number of the first statement whose locks are shown: the last ones matter most."""
    left = MAX_LOCKS
    for number in range(len(commands) - 1, -1, -1):
        left -= sum(len(worker.holds) + 1 for worker in commands[number].foretold)
        if left < 0:
            return number + 1
    return 0


def _locks(script: Script, foretold: Sequence[Foretold]) -> str:
    """The locks that the model says all workers have after a statement."""
    items = []
    for name, worker in zip(script.workers, foretold, strict=False):
        holds = ", ".join(str(lock) for lock in sorted(worker.holds)) or "nothing"
        waits = f"; waits for {worker.wants}" if worker.wants else ""
        items.append(f"<li>{text(f'{name} holds {holds}{waits}')}</li>")
    return f"<details><summary>locks then</summary><ul>{''.join(items)}</ul></details>" if items else ""


def _sides(sides: Sequence[WorkerSides]) -> Iterator[str]:
    """Each worker's locks on both sides at the step where these parted."""
    if not sides:
        return
    rows = []
    for one in sides:
        for number, line in enumerate(one.lines):
            name = f'<th scope="rowgroup" rowspan="{len(one.lines)}">{text(one.worker)}</th>' if number == 0 else ""
            rows.append(
                f"<tr{_differs(line.differs)}>{name}<td>{text(line.model)}</td><td>{text(line.postgres)}{_mark(line.differs)}</td></tr>"
            )
    yield "<h3>Each worker's locks where model and Postgres parted</h3>"
    yield _table("Locks on both sides", ("worker", "the model", "Postgres"), rows)
    yield from map(_note, sides_notes(sides))


def _raw(script: Script, performance: Performance) -> str:
    """The locks in Postgres's own words."""
    items = []
    for name, seen in zip(script.workers, performance.seen, strict=False):
        locks = "".join(f"<li>{text(f'{lock.kind} {lock}')}</li>" for lock in sorted(seen.locks)) or "<li>no lock</li>"
        waits = f"; waits for {listed(seen.blockers)}" if seen.blockers else ""
        items.append(f"<li>{text(name + waits)}<ul>{locks}</ul></li>")
    return f"<details><summary>As pg_locks and pgrowlocks showed it</summary><ul>{''.join(items)}</ul></details>"


def _table(caption: str, heads: Sequence[str], rows: Sequence[str]) -> str:
    """A table that scrolls within itself where it is too wide; on a phone, one of statements stands as a list."""
    stacked = " stacked" if "statement" in heads else ""
    number = {"took": ' class="number"'}
    cells = "".join(
        f'<th scope="col"{number.get(head, "")}>{text(head)}</th>' if head else "<td></td>" for head in heads
    )
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{text(caption)}"><table class="plain{stacked}">'
        f"<thead><tr>{cells}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _became(words: str) -> str:
    """What became of a statement, in a cell that is left open."""
    waits = " class=waits" if words.startswith("waits ") else ""
    return f'<td data-head="Postgres"{waits}>{text(words)}'


def _differs(differs: bool) -> str:
    return ' class="differs"' if differs else ""


def _mark(differs: bool) -> str:
    return ' <strong class="unmet">✗ differs</strong>' if differs else ""


def _note(line: str) -> str:
    return f'<p class="note">{text(line)}</p>'
