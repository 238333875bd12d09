"""Deadlocks of specs that are too large to write down: found with smaller sets, followed with the sets as they are."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from generated import Tape, spec_of, to_yaml

from lockmodel.checker import check
from lockmodel.compiler import Compilation
from lockmodel.errors import SpecError, TooLarge
from lockmodel.lift import lift, smaller
from lockmodel.overrides import apply, parse_overrides
from lockmodel.parser import load, parse
from lockmodel.replay.replayer import ReplayOutcome, prepare, replay_trace
from lockmodel.report.page import Page
from lockmodel.report.terminal import full
from lockmodel.resolver import resolve
from lockmodel.semantics import Action, Semantics, State
from lockmodel.system import NO_DEADLOCK
from lockmodel.trace import Trace

ROOT = Path(__file__).parent.parent

GATE = """
name: gate
sets: {{n: {size}}}
resources: {{row: {{kind: row, per: [n]}}, z: {{kind: lock}}}}
transactions:
  all:
    steps:
      - {{for: {{x: n}}, order: any, do: [{{"row[x]": FOR UPDATE}}]}}
      - z: EXCLUSIVE
  late:
    steps:
      - z: EXCLUSIVE
      - row[0]: FOR UPDATE
roles: {{a: {{count: 1, runs: [all]}}, b: {{count: 1, runs: [late]}}}}
"""


def assert_is_deadlock(compilation: Compilation, trace: Trace) -> None:
    """By the meaning of each step, and of the last state."""
    semantics = Semantics(compilation.system, trace.crew)
    state = trace.states[0]
    assert state == semantics.initial
    for action, following in zip(trace.actions, trace.states[1:], strict=True):
        assert action.edge in semantics.location(state, action.worker).edges
        assert semantics.enabled(state, action.worker, action.edge)
        state = semantics.after(state, action)
        assert state == following
    assert semantics.stuck(state)


@pytest.mark.parametrize("size", [24, 300])
def test_an_unordered_statement_of_many_rows(size: int) -> None:
    """24! orders: nothing is listed, and the deadlock is one of the whole."""
    spec = load(ROOT / "specs/real/diode-upserts.yaml")
    overrides = parse_overrides([f"counter={size}"], [])
    with pytest.raises(TooLarge):
        Compilation(resolve(apply(spec, overrides)))
    result = check(spec, overrides)
    assert result.exit_code == 0 and result.lifted is not None and result.trace is not None
    assert result.lifted.sizes == {"counter": 2}
    assert len({resource.name for resource in result.compiled.resources}) == size
    assert_is_deadlock(result.lifted.compilation, result.trace)
    assert "found with a smaller counter of 2" in " ".join(full(result, Page()).split())


def test_a_fixed_number_of_workers_need_no_long_search() -> None:
    """Ten rows in any order, two workers: 2^10 places each, which a search for counts would take minutes for."""
    overrides = parse_overrides(["counter=10"], ["2"])
    result = check(load(ROOT / "specs/real/diode-upserts.yaml"), overrides)
    assert result.lifted is not None and result.explorations == ()
    assert result.verdict.scope == "2 workers"
    few = check(load(ROOT / "specs/real/diode-upserts.yaml"), parse_overrides(["counter=4"], ["2"]))
    assert few.lifted is None and len(few.explorations) == 1


ELEMENTS = """
name: walk
sets: {s: 9}
resources: {lane: {kind: row, per: [s]}}
transactions:
  walk: {steps: [{for: {i: s}, order: any, do: [{"lane[i]": FOR UPDATE}]}]}
workers: 2
"""


def test_smaller_sets_do_not_hide_another_violation() -> None:
    """A formula about an element that smaller sets lack is violated before any deadlock."""
    result = check(parse(f"{ELEMENTS}never: {{last: 'any(count(w.holds(lane[i])) > 0 and i > 6 for i in s)'}}\n"))
    assert (result.verdict.violated, result.lifted) == ("last", None)
    assert check(parse(f"{ELEMENTS}expect: {{deadlock: {{states: 5}}}}\n")).unmet is None


def test_all_deadlocks_of_what_could_be_compiled_are_looked_for() -> None:
    """And of what is too large to compile, the one that was found is told."""
    few = check(parse(ELEMENTS), every=True)
    assert few.lifted is None and few.deadlocks is not None and few.deadlocks.groups
    large = check(parse(ELEMENTS.replace("s: 9", "s: 40")), every=True)
    assert large.lifted is not None and large.deadlocks is not None and large.deadlocks.incomplete
    (group,) = large.deadlocks.groups
    assert (group.transactions, group.families, group.trace) == (("walk", "walk"), ("lane",), large.trace)


def test_what_the_smaller_trace_does_not_tell_is_done_as_it_comes() -> None:
    """All forty rows have to be locked before the deadlock on the gate can come about."""
    result = check(parse(GATE.format(size=40)))
    assert result.lifted is not None and result.trace is not None
    assert len(result.trace.actions) == 43
    assert_is_deadlock(result.lifted.compilation, result.trace)


def test_what_is_proved_needs_no_smaller_sets() -> None:
    """One order for all: the proof does not look at the sizes."""
    text = GATE.format(size=300).replace("order: any", "order: forward")
    result = check(parse(text.split("  late:")[0]))
    assert (result.exit_code, result.lifted) == (0, None)


def test_where_no_smaller_deadlock_comes_about_the_size_is_an_error() -> None:
    """Nothing is claimed: here the gate keeps everybody apart, but variables keep the proof from seeing it."""
    text = """
name: apart
sets: {n: 30}
variables: {free: {values: [true, false]}}
resources: {row: {kind: row, per: [n]}, z: {kind: lock}}
transactions:
  one:
    start when: free
    take at start: {z: EXCLUSIVE}
    steps: [{set: {free: false}}, {for: {x: n}, order: any, do: [{"row[x]": FOR UPDATE}]}]
    on commit: {free: true}
  two:
    start when: free
    steps: [{set: {free: false}}, {for: {x: n}, order: any, do: [{"row[x]": FOR UPDATE}]}]
    on commit: {free: true}
workers: 1
"""
    with pytest.raises(SpecError, match=r"more than 50,000 different places|too many steps"):
        check(parse(text))


@pytest.mark.parametrize("seed", range(4))
def test_what_is_lifted_is_a_deadlock_of_the_whole_on_generated_specs(seed: int) -> None:
    """Each lifted trace is possible, step by step, in the system with all its places."""
    rng = random.Random(seed)
    lifted = 0
    for _ in range(60):
        made = spec_of(Tape(rng.randbytes(500)))
        for key in ("never", "always", "no global stall", "no stall"):
            made.pop(key, None)
        spec = apply(
            parse(to_yaml(made)),
            parse_overrides([f"{name}=4" for name in made["sets"] if isinstance(made["sets"][name], int)], []),
        )
        try:
            program = resolve(spec)
            whole = Compilation(program)
            overrides = smaller(spec, program, 2)
            found = check(spec, overrides) if overrides else None
        except SpecError:
            continue  # An element that the spec names is gone, or it is too large.
        if found is None or found.trace is None or found.verdict.violated != NO_DEADLOCK:
            continue
        if (made_whole := lift(program, found.compiled, found.trace)) is None:
            continue
        partial, trace = made_whole
        assert_is_deadlock(partial, trace)
        assert_is_deadlock(whole, in_the_whole(whole, partial, trace))
        lifted += 1
    assert lifted >= 3


def in_the_whole(whole: Compilation, partial: Compilation, trace: Trace) -> Trace:
    """`trace` with the locations that its places have in the system of all places."""
    states = [trace.states[0]]
    actions = []
    for action, following in zip(trace.actions, trace.states[1:], strict=True):
        here = states[-1].locations[action.worker]
        target = whole.locate(partial.config(action.edge.target))
        wanted = (target, action.edge.action, action.edge.requests)
        edges = whole.system.locations[here].edges
        actions.append(Action(action.worker, next(e for e in edges if (e.target, e.action, e.requests) == wanted)))
        locations = list(states[-1].locations)
        locations[action.worker] = target
        states.append(State(tuple(locations), following.valuation))
    return Trace(trace.crew, tuple(states), tuple(actions))


@pytest.mark.postgres
def test_it_is_confirmed_on_postgres(dsn: str) -> None:
    """The replay needs only the places on the way."""
    result = check(load(ROOT / "specs/real/diode-upserts.yaml"), parse_overrides(["counter=60"], []))
    assert result.lifted is not None and result.trace is not None
    done = replay_trace(prepare(result.spec, result.lifted.compilation), result.trace, dsn)
    assert done.outcome is ReplayOutcome.CONFIRMED, done.performance


def lockmodel(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lockmodel", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


@pytest.mark.postgres
@pytest.mark.parametrize("form", ["json", "itf"])
def test_a_trace_of_the_whole_is_read_back(dsn: str, tmp_path: Path, form: str) -> None:
    """What it is written in is read, compared step by step with the deadlock found once more, and replayed."""
    spec, large, file = "specs/real/diode-upserts.yaml", ["--set", "counter=60"], tmp_path / "trace.json"
    if form == "json":
        lockmodel("check", spec, *large, "--format", "json", "--output", str(file))
        replayed = lockmodel("replay", str(file), "--dsn", dsn)
    else:
        lockmodel("export", spec, *large, "--to", "itf", "--output", str(file))
        replayed = lockmodel("replay", spec, "--trace", str(file), "--dsn", dsn)
    assert (replayed.returncode, replayed.stderr) == (0, "")
    assert "CONFIRMED" in replayed.stdout and "40P01" in replayed.stdout


def test_a_trace_of_the_whole_that_was_changed_is_refused(tmp_path: Path) -> None:
    """Nothing of it is believed; and it can't be stepped, as there are no other places to go to."""
    file = tmp_path / "report.json"
    lockmodel(
        "check", "specs/real/diode-upserts.yaml", "--set", "counter=60", "--format", "json", "--output", str(file)
    )
    refused = lockmodel("explore", str(file))
    assert (refused.returncode, refused.stdout) == (2, "") and "too large to be stepped" in refused.stderr
    text = file.read_text()
    file.write_text(text.replace('"counter_row[1] FOR NO KEY UPDATE"', '"counter_row[2] FOR NO KEY UPDATE"', 1))
    assert file.read_text() != text
    changed = lockmodel("replay", str(file))
    assert (changed.returncode, changed.stdout) == (2, "")
    assert changed.stderr.startswith(f"{file}: step 4: worker 2 would do") and changed.stderr.count("\n") == 1
    report = json.loads(text)
    report["results"][0]["found_with"] = None
    file.write_text(json.dumps(report))
    large = lockmodel("replay", str(file))
    assert large.returncode == 2 and large.stderr.count("\n") == 1
