"""Runs a scenario: its spec, with its schedule, on a real Postgres, and compares what comes out with what must."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lockmodel.checker import check
from lockmodel.compiler import Compilation
from lockmodel.errors import SpecError, UsageError, quote, suggestion
from lockmodel.explanation import step_text
from lockmodel.exploration import Limits
from lockmodel.overrides import Overrides, apply
from lockmodel.parser import load
from lockmodel.replay.code import CodeReplay, replay_code
from lockmodel.replay.replayer import (
    ReplayOutcome,
    SchedulesReplay,
    TraceReplay,
    prepare,
    replay_schedules,
    replay_trace,
    run_to_the_end,
)
from lockmodel.replay.script import Ask
from lockmodel.resolver import resolve
from lockmodel.scenario import RefutedOutcome, SafeOutcome, Scenario
from lockmodel.semantics import Action, Semantics, State, crew
from lockmodel.spec import Spec
from lockmodel.stepping import named_action
from lockmodel.system import Edge, System
from lockmodel.trace import Trace

ANY_COUNT = 2
"""How many workers a schedule has where the spec says any."""
SAFE_COUNT = 3


@dataclass(frozen=True)
class ScenarioRun:
    """What came of a scenario; `unmet` says why that is not what must come out (None: it is)."""

    scenario: Scenario
    spec: Spec
    replay: TraceReplay | CodeReplay | SchedulesReplay
    claim: str
    unmet: str | None
    system: System | None = None
    """With `trace`, what was replayed; None for random schedules."""
    trace: Trace | None = None


def run(scenario: Scenario, dsn: str, limits: Limits | None = None) -> ScenarioRun:
    """Run `scenario` on the server behind `dsn`. Raises a LockmodelError for what keeps it from being run."""
    spec = _spec(scenario)
    if isinstance(scenario.outcome, SafeOutcome):
        return _safe(scenario, scenario.outcome, spec, dsn)
    compilation = Compilation(resolve(spec))
    trace = _trace(scenario, spec, compilation, limits)
    asks = schedule_asks(scenario, compilation, trace)
    if asks and spec.replay is not None:
        message = (
            "`asks for` needs a spec with its own sql; on real code each worker asks when the others have got that far"
        )
        raise SpecError(scenario.at("schedule"), message)
    replay: TraceReplay | CodeReplay
    if spec.replay is not None:
        replay = run_to_the_end(lambda: replay_code(spec, compilation, trace, dsn))
        outcome, deadlocked = outcome_of(replay), replay.deadlock is not None
        said = replay.difference or ""
    else:
        replay = replay_trace(prepare(spec), trace, dsn, asks)
        outcome, deadlocked = replay.outcome, replay.performance is not None and replay.performance.deadlocked
        said = (replay.performance.difference if replay.performance else None) or replay.reason
    unmet = _unmet(scenario, outcome, said)
    if unmet is None and scenario.outcome == "deadlock" and not deadlocked:
        unmet = "expected a deadlock; the schedule ended in none, as the model says"
    if unmet is None and scenario.outcome == "stall" and not _stalled(replay):
        unmet = "expected a stall; the schedule ended in none, as the model says"
    return ScenarioRun(scenario, spec, replay, scenario.scenario, unmet, compilation.system, trace)


def _stalled(replay: TraceReplay | CodeReplay) -> bool:
    """Whether workers were seen to be held up by a queue alone."""
    return isinstance(replay, TraceReplay) and replay.script is not None and bool(replay.script.queued)


def outcome_of(replay: CodeReplay) -> ReplayOutcome:
    """The verdict of a replay on real code."""
    if not replay.realizable:
        return ReplayOutcome.NOT_REALIZABLE
    return ReplayOutcome.CONFIRMED if replay.difference is None else ReplayOutcome.REFUTED


def _unmet(scenario: Scenario, outcome: ReplayOutcome, said: str) -> str | None:
    if isinstance(scenario.outcome, RefutedOutcome):
        words = scenario.outcome.refuted
        if outcome is not ReplayOutcome.REFUTED:
            return f"expected REFUTED, found: {outcome}"
        return None if words in said else f"expected it to be refuted with {quote(words)}, found: {said}"
    return None if outcome is ReplayOutcome.CONFIRMED else f"expected CONFIRMED, found: {outcome} ({said})"


def _spec(scenario: Scenario) -> Spec:
    """The scenario's spec, with its own sets, workers and options."""
    here = scenario.spec
    try:
        spec = here if isinstance(here, Spec) else load(os.path.normpath(Path(scenario.at().file).parent / here))
    except UsageError as error:  # The file can't be read.
        raise SpecError(scenario.at("spec"), str(error)) from None
    sets = {name: tuple(value) if isinstance(value, list) else value for name, value in scenario.set.items()}
    given = {name: value if isinstance(value, int | tuple) else (value,) for name, value in sets.items()}
    workers: str | int | None = ""
    if scenario.workers is not None:
        workers = None if scenario.workers == "any" else int(scenario.workers)
    spec = apply(spec, Overrides(given, workers))
    if scenario.options:
        if spec.replay is None:
            raise SpecError(scenario.at("options"), f"options are for a target, and {spec.source.file} has no `replay`")
        options = {**spec.replay.options, **scenario.options}
        spec = spec.model_copy(update={"replay": spec.replay.model_copy(update={"options": options})})
    return spec


def _safe(scenario: Scenario, outcome: SafeOutcome, spec: Spec, dsn: str) -> ScenarioRun:
    prepared = prepare(spec)
    workers = crew(prepared.compilation.system, SAFE_COUNT)
    replay = replay_schedules(prepared, workers, outcome.safe.schedules, outcome.safe.seed, dsn)
    unmet = None
    if replay.outcome is not ReplayOutcome.CONFIRMED:
        unmet = f"expected no difference, found one in schedule {replay.runs[-1].number}"
    elif replay.deadlocks:
        unmet = f"expected no deadlock, found {replay.deadlocks} in {len(replay.runs)} schedules"
    return ScenarioRun(scenario, spec, replay, scenario.scenario, unmet)


def _trace(scenario: Scenario, spec: Spec, compilation: Compilation, limits: Limits | None) -> Trace:
    if scenario.schedule:
        return schedule_trace(scenario, compilation)
    result = check(spec, limits=limits)
    if result.trace is None:
        raise SpecError(scenario.at(), f"{spec.source.file} has no violation to replay, and there is no `schedule`")
    return result.trace


def schedule_trace(scenario: Scenario, compilation: Compilation) -> Trace:
    """The trace that the scenario's schedule describes. Raises SpecError at the first step that can't be taken."""
    system = compilation.system
    semantics = Semantics(system, crew(system, ANY_COUNT))
    numbers = {name: number for number, name in enumerate(semantics.crew.names)}
    steps = []
    for index, entry in enumerate(scenario.schedule):
        position = scenario.at("schedule", index)
        if len(entry) != 1:
            raise SpecError(position, "a step of a schedule is one `worker: what it does`")
        [(name, text)] = entry.items()
        if name not in numbers:
            raise SpecError(position, f"unknown worker {quote(name)}; {suggestion(name, numbers)}")
        if _asked(text) is None:
            steps.append((index, numbers[name], " ".join(text.split())))
    found = _follow(semantics, semantics.initial, [(worker, text) for _, worker, text in steps])
    reached = len(found) - 1
    if reached < len(steps):
        index, worker, text = steps[reached]
        can = [step_text(edge.action, edge.label) for edge in _possible(semantics, found[-1][1], worker)]
        position = scenario.at("schedule", index)
        what = f"{semantics.crew.names[worker]} can't do {quote(text)} here"
        raise SpecError(position, f"{what}; it can: {', '.join(can[:6]) or 'nothing, it waits'}")
    actions = tuple(action for action, _ in found if action is not None)
    return Trace(semantics.crew, tuple(state for _, state in found), actions)


def _means(semantics: Semantics, state: State, action: Action, text: str) -> bool:
    """Whether `text` is said of `action`: what it does, or also what comes after a choice that takes no time (`…, then lane[1] …`)."""
    edge = action.edge
    said = " ".join(step_text(edge.action, edge.label).split())
    if text in (said, f"start {edge.transaction}"):
        return True
    if not text.startswith(f"{said}, then "):
        return False
    return text == " ".join(f"{said}, {named_action(semantics, state, action).then}".split())


def schedule_asks(scenario: Scenario, compilation: Compilation, trace: Trace) -> tuple[Ask, ...]:
    """The requests that the schedule says are sent and wait: `worker 3: asks for lane[0] FOR UPDATE`.

    Raises SpecError for one that does not wait, from there to the end.
    """
    semantics = Semantics(compilation.system, trace.crew)
    found: list[Ask] = []
    taken = 0
    for index, entry in enumerate(scenario.schedule):
        [(name, text)] = entry.items()
        wanted, worker = _asked(text), trace.crew.names.index(name)
        position = scenario.at("schedule", index)
        if wanted is None:
            taken += 1
            if any(ask.worker == worker for ask in found):
                raise SpecError(position, f"{name} waits since it asked above; it can do nothing more")
            continue
        for state in (trace.states[taken], trace.last):
            request = semantics.location(state, worker).request
            if request is None or worker not in semantics.waiting(state):
                when = "here" if state is trace.states[taken] else "at the end of the schedule"
                raise SpecError(
                    position, f"{name} does not have to wait for a lock {when}; write its step without `asks for`"
                )
            asks_for = f"{semantics.system.resources[request.resource].name} {request.mode}"
            if asks_for != wanted:
                raise SpecError(position, f"{name} can't ask for {quote(wanted)} here; its next request is {asks_for}")
        found.append(Ask(worker, taken))
    return tuple(found)


def _asked(text: str) -> str | None:
    """The lock that an entry of a schedule says is asked for; None if the entry is a step."""
    words = " ".join(text.split())
    return words.removeprefix("asks for ") if words.startswith("asks for ") else None


def _possible(semantics: Semantics, state: State, worker: int) -> list[Edge]:
    return [edge for edge in semantics.location(state, worker).edges if semantics.enabled(state, worker, edge)]


def _follow(
    semantics: Semantics, initial: State, steps: Sequence[tuple[int, str]]
) -> list[tuple[Action | None, State]]:
    """The longest way to follow `steps`: each action with the state after it, the initial state first.

    A text may mean several actions (a branch that is chosen silently), so all ways are kept until they part.
    """
    ways: list[Mapping[State, tuple[Action | None, State | None]]] = [{initial: (None, None)}]
    for worker, text in steps:
        following: dict[State, tuple[Action | None, State | None]] = {}
        for state in ways[-1]:
            for edge in _possible(semantics, state, worker):
                action = Action(worker, edge)
                if _means(semantics, state, action, text):
                    following.setdefault(semantics.after(state, action), (action, state))
        if not following:
            break
        ways.append(following)
    path: list[tuple[Action | None, State]] = []
    here: State | None = next(iter(ways[-1]))
    for level in reversed(ways):
        assert here is not None
        taken, before = level[here]
        path.append((taken, here))
        here = before
    return path[::-1]
