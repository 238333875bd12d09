"""What someone sees who steps a system by hand: a state and what can happen in it, graphs as text, what lies ahead, the way so far."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table

from lockmodel.ahead import Ahead, DeadlockAhead
from lockmodel.explanation import TraceView, WorkerView, find_cycle
from lockmodel.exploration import INTERRUPTED
from lockmodel.graphs import LockOrderGraph, lock_order_cycle
from lockmodel.report import standstill, words
from lockmodel.report.grammar import assignments, listed, plural
from lockmodel.report.page import Page, text
from lockmodel.semantics import State
from lockmodel.stepping import Model, NamedAction, Schedule
from lockmodel.system import NO_DEADLOCK, NO_GLOBAL_STALL, NO_STALL, Status

_INDENT = 2
SHOWN_ACTIONS = 24
"""How many actions are shown with a state; all are, when they are asked for."""
SHOWN_ROWS = 60
"""How many edges of a graph are shown."""
_ALERT = "bold red"


def state_page(schedule: Schedule, page: Page) -> str:
    """Where one is: the step that led here, every worker, the shared variables, and what is wrong here, if anything."""
    model, state = schedule.model, schedule.state
    view = _view(model, state)
    head = f"step {schedule.at}" + (f" of {len(schedule.actions)}" if schedule.at < len(schedule.actions) else "")
    last = said(model, schedule.actions[schedule.at - 1]) if schedule.at else "every worker is idle"
    parts: list[RenderableType] = [text(f"{head}: {last}", "bold")]
    active = [worker for worker in view.final if worker.status is not Status.IDLE or worker.holds]
    if active:
        parts.append(_indented(_workers(model, view, active)))
    if 0 < len(active) < len(view.final):
        idle = len(view.final) - len(active)
        parts.append(_paragraph("The other one is idle." if idle == 1 else f"The other {idle:,} are idle.", "dim"))
    if known := assignments(model.variables(state).items()):
        parts.append(_paragraph(known))
    return page.render(*parts, *_alerts(model, state, view))


def _workers(model: Model, view: TraceView, workers: Sequence[WorkerView]) -> Table:
    """One line a worker: what it runs, holds and waits for."""
    table = _grid(3)
    for worker in workers:
        what = text(f"holds {standstill.holdings(model.system, worker) or 'nothing'}")
        if worker.wants:
            what = what.append("; ") + text(standstill.waits(model.system, view, worker), "red")
        runs = worker.transaction or ""
        if worker.status is not Status.RUNNING:
            runs = f"{runs} ({worker.status})" if runs else str(worker.status)
        table.add_row(text(worker.name), text(runs), what)
    return table


def _alerts(model: Model, state: State, view: TraceView) -> list[RenderableType]:
    """The deadlock that has been reached, or another property that does not hold here."""
    violated = model.violated(state)
    if violated is None:
        return []
    if violated == NO_DEADLOCK:
        who = words.between([view.final[worker].transaction or "" for worker in standstill.members(model.system, view)])
        return [_paragraph(f"DEADLOCK {who}", _ALERT), _paragraph(standstill.cycle_sentences(model.system, view))]
    if violated == NO_GLOBAL_STALL:
        return [_paragraph("GLOBAL STALL", _ALERT), _paragraph(standstill.stall_sentences(model.system, view))]
    if violated == NO_STALL and view.stall is not None:
        claim = f"{words.stall_word(view.stall)} {standstill.queue_claim(view, view.stall)}"
        return [_paragraph(claim, _ALERT), _paragraph(standstill.queue_sentences(model.system, view))]
    prop = next(prop for prop in model.system.properties if prop.name == violated)
    what = "is false here, and it must always be true" if prop.always else "is true here, and it must never be"
    return [_paragraph(f"VIOLATED '{violated}' {what}", _ALERT), _paragraph(prop.expression.text)]


def actions_page(model: Model, actions: Sequence[tuple[int, NamedAction]], page: Page, shown: int | None = None) -> str:
    """The actions with the numbers to choose them by, `shown` of them at the most."""
    if not actions:
        return page.render(_paragraph("Nothing can happen here.", "yellow"))
    table = _grid(3)
    table.columns[0].justify = "right"
    for number, action in actions[:shown]:
        table.add_row(text(str(number), "bold cyan"), text(action.name), text(_deed(model, action)))
    parts: list[RenderableType] = [_indented(table)]
    if shown is not None and len(actions) > shown:
        parts.append(
            _paragraph(
                f"… {len(actions) - shown:,} more: actions [WORDS] lists all, or those with WORDS in them", "dim"
            )
        )
    return page.render(*parts)


def said(model: Model, action: NamedAction) -> str:
    """`worker 1 takes lane[0] FOR UPDATE`."""
    return f"{action.name} {_deed(model, action)}"


def _deed(model: Model, action: NamedAction) -> str:
    return words.step_sentence(model.system, action.action.edge) + (f", {action.then}" if action.then else "")


def waits_page(model: Model, state: State, page: Page) -> str:
    """The waits-for graph of a state, one edge a line, and the workers that can never go on."""
    view = _view(model, state)
    table = _grid(3)
    for worker in view.final:
        for blocker in worker.blockers:
            held = Counter(lock.mode for lock in blocker.locks)
            modes = listed(mode if count == 1 else f"{mode} ({count} units)" for mode, count in held.items())
            edge = f"{worker.name} → {view.workers[blocker.worker]}"
            table.add_row(text(edge), text(f"wants {worker.wants}"), text(f"held {modes}"))
    if not table.rows:
        return say("Nobody waits.", page)
    stuck = [worker.name for worker in view.final if worker.stuck]
    end = f"{listed(stuck)} can never go on." if stuck else "Everybody who waits can go on some time."
    return page.render(_indented(table), _paragraph(end, _ALERT if stuck else ""))


def order_page(shown: LockOrderGraph, resources: LockOrderGraph, page: Page) -> str:
    """A lock-order graph, one edge a line; `resources` is the one that tells whether there is a cycle."""
    parts: list[RenderableType] = []
    table = _grid(3)
    table.add_row(*(text(head, "bold") for head in ("held → wanted", "by", "modes held → wanted")))
    edges = list(shown.edges(data=True))
    for held, wanted, data in edges[:SHOWN_ROWS]:
        modes = listed(f"{one} → {other}" for one, other in data["modes"])
        table.add_row(
            text(f"{held} → {wanted}"), text(listed(data["transactions"])),
            text(modes + ("" if data["waits"] else " (never waits)")),
        )  # fmt: skip
    if edges:
        parts.append(_indented(table))
    if len(edges) > SHOWN_ROWS:
        parts.append(_paragraph(f"… {len(edges) - SHOWN_ROWS:,} more", "dim"))
    cycle = lock_order_cycle(resources)
    if cycle:
        around = " → ".join([*cycle, cycle[0]])
        parts.append(
            _paragraph(f"A cycle: {around}, in conflicting modes. Whether workers can meet in it, deadlocks tells.")
        )
    elif edges:
        parts.append(_paragraph("No cycle in conflicting modes: no number of workers can deadlock."))
    else:
        parts.append(_paragraph("Nobody asks for a lock while holding another."))
    return page.render(*parts)


def ahead_page(ahead: Ahead, page: Page) -> str:
    """The deadlocks that can be reached, with the numbers to follow them by, and how far the search went."""
    parts: list[RenderableType] = []
    if ahead.deadlocks:
        table = _grid(3)
        table.columns[0].justify = "right"
        for number, found in enumerate(ahead.deadlocks, start=1):
            steps = plural(len(found.actions), "step") if found.actions else "here"
            table.add_row(text(str(number), "bold cyan"), text(steps), text(_ahead(found)))
        parts.append(_indented(table))
    seen = plural(ahead.states, "state")
    if ahead.stopped is None:
        end = f"These are all: the search saw all {seen} up to a deadlock." if ahead.deadlocks else (
            f"No deadlock can be reached from here: the search saw all {seen}."
        )  # fmt: skip
    else:
        more = "There may be others" if ahead.deadlocks else "None so far"
        stopped = f"was {INTERRUPTED}" if ahead.stopped == INTERRUPTED else ahead.stopped
        end = f"{more}: the search saw {seen} and {stopped}."
    if ahead.deadlocks:
        end += " follow N goes to one."
    return page.render(*parts, _paragraph(end))


def _ahead(found: DeadlockAhead) -> str:
    between = words.between([member.transaction for member in found.members])
    waits = listed(f"{member.transaction} waits for {member.resource}" for member in found.members)
    return f"{between}: {waits}"


def schedule_page(schedule: Schedule, page: Page) -> str:
    """All steps, those that were undone too, and where one is."""
    if not schedule.actions:
        return say("No steps yet.", page)
    table = _grid(4)
    table.columns[1].justify = "right"
    for number, action in enumerate(schedule.actions, start=1):
        style = "" if number <= schedule.at else "dim"
        here = ">" if number == schedule.at else ""
        table.add_row(
            here, text(str(number), style), text(action.name, style), text(_deed(schedule.model, action), style)
        )
    undone = len(schedule.actions) - schedule.at
    end = f"The last {undone} are undone; redo takes them again." if undone > 1 else (
        "The last one is undone; redo takes it again." if undone else ""
    )  # fmt: skip
    return page.render(_indented(table), *([_paragraph(end)] if end else []))


def say(sentence: str, page: Page) -> str:
    """One paragraph."""
    return page.render(_paragraph(sentence))


def lines_page(lines: Iterable[tuple[str, str]], page: Page) -> str:
    """Two columns, such as commands and what they do."""
    table = _grid(2)
    for left, right in lines:
        table.add_row(text(left, "bold"), text(right))
    return page.render(_indented(table))


def _view(model: Model, state: State) -> TraceView:
    workers = model.view(state)
    return TraceView(model.workers, (), workers, find_cycle(workers))


def _grid(columns: int) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    for _ in range(columns):
        table.add_column(overflow="fold")
    return table


def _indented(part: RenderableType) -> Padding:
    return Padding(part, (0, 0, 0, _INDENT))


def _paragraph(words_: str, style: str = "") -> Padding:
    return _indented(text(words_, style))
