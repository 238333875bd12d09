"""What replays came to, for programs: docs/json.md describes it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lockmodel.replay.code import CodeReplay
from lockmodel.replay.deadlock import Deadlock
from lockmodel.replay.performance import Done, Performance, Standstill
from lockmodel.replay.replayer import SchedulesReplay, TraceReplay
from lockmodel.replay.scenarios import outcome_of
from lockmodel.replay.script import Command, Outcome, Script
from lockmodel.replay.sides import WorkerSides
from lockmodel.report.json import FORMAT, Failure, Json, failure_of
from lockmodel.stepping import Model
from lockmodel.trace import Trace

Replay = TraceReplay | CodeReplay | SchedulesReplay


@dataclass(frozen=True)
class Replayed:
    """One file that was replayed, with its exit code.

    `claim` is what the model, or the scenario, says; `unmet` why what was expected is not what came out; `text` the report for people.
    """

    file: str
    name: str
    replay: Replay
    claim: str
    unmet: str | None
    exit_code: int
    text: str
    model: Model | None = None
    """With `trace`, what was replayed; None for random schedules."""
    trace: Trace | None = None
    scenario: bool = False
    """Whether the file is a scenario."""


def replay_report(done: Iterable[Replayed], failures: Iterable[Failure], unreplayed: Sequence[str] = ()) -> str:
    """One JSON document for all files; `unreplayed`: those that an interruption left out."""
    from lockmodel import __version__

    document = {
        "lockmodel": __version__,
        "format": FORMAT,
        "replays": [_replayed(one) for one in done],
        "errors": [failure_of(failure) for failure in failures],
        "unreplayed": list(unreplayed),
    }
    return json.dumps(document, indent=1, ensure_ascii=True, allow_nan=False) + "\n"


def _replayed(one: Replayed) -> Json:
    replay = one.replay
    outcome = outcome_of(replay) if isinstance(replay, CodeReplay) else replay.outcome
    head = {
        "file": one.file,
        "name": one.name,
        "verdict": str(outcome),
        "claim": one.claim,
        "unmet": one.unmet,
        "exit_code": int(one.exit_code),
        "server": replay.server or None,
        "seconds": round(replay.seconds, 3),
    }
    match replay:
        case TraceReplay():
            return {**head, "kind": "trace", **_trace(replay)}
        case CodeReplay():
            return {**head, "kind": "code", **_code(replay)}
        case SchedulesReplay():
            return {**head, "kind": "schedules", **_schedules(replay)}


def _trace(replay: TraceReplay) -> Json:
    nothing = {"reordered": False, "own_sql_for": [], **_run(None, None, ())}
    if replay.script is None or replay.performance is None:
        return {**nothing, "reason": replay.reason}
    return {
        "reordered": replay.script.reordered,
        "own_sql_for": sorted(replay.synthetic),
        **_run(replay.script, replay.performance, replay.sides),
        "reason": None,
    }


def _schedules(replay: SchedulesReplay) -> Json:
    """The statements are those of the schedule in which Postgres did otherwise, or else of the first deadlock."""
    wanted = [run for run in replay.runs if not run.as_foretold or run.performance.deadlocked]
    shown = wanted[-1] if wanted and not wanted[-1].as_foretold else next(iter(wanted), None)
    return {
        "seed": replay.seed,
        "asked": replay.asked,
        "run": len(replay.runs),
        "sent": replay.statements,
        "waited": replay.waits,
        "found_no_row": replay.without_row,
        "deadlocks": replay.deadlocks,
        "own_sql_for": sorted(replay.synthetic),
        "schedule": None if shown is None else shown.number,
        **(_run(shown.script, shown.performance, shown.sides) if shown else _run(None, None, ())),
    }


def _code(replay: CodeReplay) -> Json:
    steps = [{"worker": step.worker, "sql": step.statement, "became": step.became} for step in replay.steps]
    difference = None if replay.difference is None else {"message": replay.difference, "sides": _sides(replay.sides)}
    return {
        "workers": list(replay.workers),
        "statements": steps,
        "deadlock": None if replay.deadlock is None else _deadlock(replay.deadlock),
        "difference": difference if replay.realizable else None,
        "reason": None if replay.realizable else replay.difference,
    }


def _run(script: Script | None, performance: Performance | None, sides: Sequence[WorkerSides]) -> Json:
    """One schedule that was performed."""
    if script is None or performance is None:
        return {"workers": [], "statements": [], "deadlock": None, "standstill": None, "difference": None}
    return {
        "workers": list(script.workers),
        "statements": [_done(done) for done in performance.done],
        "deadlock": None if performance.deadlock is None else _deadlock(performance.deadlock),
        "standstill": None if performance.standstill is None else _standstill(performance.standstill),
        "difference": _difference(performance, sides),
    }


def _done(done: Done) -> Json:
    command = done.command
    return {
        **_command(command),
        "waits_for": list(done.waits_for) if command.outcome is Outcome.WAITS else [],
        "seconds": round(done.seconds, 4),
    }


def _command(command: Command) -> Json:
    return {
        "worker": command.worker,
        "sql": command.shown,
        "step": command.text,
        "line": 0 if command.position is None else command.position.line,
        "foretold": str(command.outcome),
    }


def _difference(performance: Performance, sides: Sequence[WorkerSides]) -> Json | None:
    if performance.failed is None or performance.difference is None:
        return None
    command = performance.waiting or performance.failed
    return {
        **_command(command),
        "had_waited": performance.waiting is not None,
        "message": performance.difference,
        "sides": _sides(sides),
    }


def _sides(sides: Sequence[WorkerSides]) -> list[Json]:
    return [
        {
            "worker": one.worker,
            "locks": [{"model": line.model, "postgres": line.postgres, "differs": line.differs} for line in one.lines],
        }
        for one in sides
    ]


def _standstill(seen: Standstill) -> Json:
    return {
        "seconds": round(seen.seconds, 3),
        "in_pool": [
            {"waiter": worker, "pool": pool, "holders": list(holders)} for worker, pool, holders in seen.in_pool
        ],
        "in_postgres": [{"waiter": worker, "blockers": list(blockers)} for worker, blockers in seen.in_postgres],
    }


def _deadlock(deadlock: Deadlock) -> Json:
    return {
        "victim": deadlock.victim,
        "sqlstate": "40P01",
        "message": deadlock.message,
        "waits": [{"waiter": wait.waiter, "blocker": wait.blocker, "text": wait.text} for wait in deadlock.waits],
    }
