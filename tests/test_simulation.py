"""`lockmodel simulate`: seeded schedules, what they cover and find, and how small the traces are made."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from generated import spec_of, to_yaml
from test_differential import numbered

from lockmodel import reference
from lockmodel.compiler import compile_spec
from lockmodel.errors import SpecError
from lockmodel.exploration import Limits
from lockmodel.parser import parse
from lockmodel.properties import broken_property, evaluators
from lockmodel.report.trace_file import read_trace
from lockmodel.semantics import Crew, Semantics, crew
from lockmodel.simulation.minimize import group_of, switches
from lockmodel.simulation.simulator import Plan, Simulation, simulate
from lockmodel.simulation.statistics import wilson
from lockmodel.simulation.strategies import Priorities, bound
from lockmodel.simulation.walker import Seen, Walker, longest_transaction, possible_waits
from lockmodel.system import NO_DEADLOCK, System
from lockmodel.trace import Trace

ROOT = Path(__file__).parent.parent


def load(file: str, **changes: object) -> System:
    system = compile_spec(parse((ROOT / "specs" / file).read_text(encoding="utf-8"), file))
    return replace(system, **changes)


def generated(numbers: range) -> list[tuple[int, System]]:
    return [(number, compile_spec(parse(to_yaml(spec_of(numbered(number)))))) for number in numbers]


def run(system: System, workers: Crew, strategy: str = "random", **plan: int) -> Simulation | None:
    """None if a step has no meaning in some state."""
    try:
        return simulate(system, workers, Plan(**{"seed": 7, "schedules": 60, **plan}, strategy=strategy))
    except SpecError:
        return None


def check_legal(system: System, trace: Trace) -> None:
    semantics = Semantics(system, trace.crew)
    assert trace.states[0] == semantics.initial
    for before, action, after in zip(trace.states[:-1], trace.actions, trace.states[1:], strict=True):
        assert action in list(semantics.actions(before))
        assert semantics.after(before, action) == after


@pytest.mark.parametrize("strategy", ["random", "pct"])
def test_the_same_seed_gives_the_same_simulation(strategy: str) -> None:
    system = load("striped-old-claim.yaml")
    first, again, other = (run(system, crew(system, 4), strategy, seed=seed) for seed in (3, 3, 4))
    assert first is not None and again is not None and other is not None
    assert replace(first, seconds=0) == replace(again, seconds=0)
    assert first.steps != other.steps


@pytest.mark.parametrize("chunk", range(4))
def test_a_walk_can_do_what_the_meaning_allows(chunk: int) -> None:
    """At each step of a random walk, each worker's options are those of `semantics`, as long as it has transactions left."""
    steps = 0
    for number, system in generated(range(chunk, 80, 4)):
        workers = crew(system, 3)
        semantics = Semantics(system, workers)
        walker = Walker(system, workers, 10**6, Seen())
        random = Random(number)
        for _ in range(60):
            try:
                allowed = list(semantics.actions(walker.state))
            except SpecError:
                break
            options = [(worker, edge) for worker in range(len(workers)) for edge in walker.options(worker)]
            assert options == [(action.worker, action.edge) for action in allowed], number
            if not options:
                break
            worker, edge = random.choice(options)
            after = semantics.after(walker.state, next(a for a in allowed if (a.worker, a.edge) == (worker, edge)))
            walker.take(worker, edge)
            assert walker.state == after
            stuck = semantics.stuck(after)
            if not any(resource.capacity is not None for resource in system.resources):
                # The walk ends at its first deadlock, so whoever made it is in its cycle.
                assert walker.closes_a_cycle(worker) is bool(stuck), number
                assert not stuck or worker in stuck, number
            steps += 1
            if stuck:
                break
    assert steps > 300


@pytest.mark.parametrize("strategy", ["random", "pct"])
@pytest.mark.parametrize("chunk", range(4))
def test_what_is_found_is_real_and_what_is_proved_is_never_found(strategy: str, chunk: int) -> None:
    found = clean = 0
    for number, system in generated(range(chunk, 120, 4)):
        workers = crew(system, 2)
        try:
            expected = reference.explore(system, workers, Limits(5_000), stop_at_violation=False)
        except SpecError:
            continue
        if expected.stopped:
            continue
        simulation = run(system, workers, strategy)
        assert simulation is not None
        if expected.violation is None:
            assert simulation.found == (), number
            clean += 1
            continue
        for one in simulation.found:
            check_legal(system, one.trace)
            semantics = Semantics(system, one.trace.crew)
            assert broken_property(semantics, evaluators(semantics), one.trace.last) == one.violated
            assert group_of(system, one.trace, one.violated) == one.group
            shortest = reference.explore(system, one.trace.crew, Limits(5_000)).violation
            assert shortest is not None
            if one.group == group_of(system, shortest.trace, shortest.property):
                assert len(one.trace) == len(shortest.trace), number
            found += 1
    assert found > 3 and clean > 3


def test_a_trace_has_only_the_workers_of_the_cycle_and_few_switches() -> None:
    """Six workers meet; two are enough, and each goes its way in one piece."""
    system = load("striped-old-claim.yaml")
    simulation = run(system, crew(system, 6), schedules=200)
    assert simulation is not None
    lengths = {one.group[1]: (len(one.trace.crew), len(one.trace), switches(one.trace)) for one in simulation.found}
    assert lengths[("claim", "enqueue")] == (2, 7, 1)
    assert lengths[("claim", "claim")] == (2, 9, 1)


def test_coverage_tells_what_was_never_seen() -> None:
    system = load("awa/storage.yaml")
    few = run(system, crew(system, 2), schedules=1, rounds=1)
    many = run(system, crew(system, 4), schedules=400)
    assert few is not None and many is not None
    assert len(few.reached) < len(many.reached) == many.locations == 269
    assert few.waits <= many.possible_waits and many.waits <= many.possible_waits
    assert ("complete", "closure_child", "prune claims") in many.possible_waits
    assert ("complete", "closure_child", "complete") not in many.possible_waits  # both SHARED


def test_every_wait_of_the_reference_is_possible() -> None:
    for number, system in generated(range(30)):
        semantics = Semantics(system, crew(system, 2))
        possible = possible_waits(system)
        state = semantics.initial
        random = Random(number)
        for _ in range(80):
            for worker, blockers in semantics.waiting(state).items():
                mine = semantics.location(state, worker)
                assert mine.request is not None
                for other in blockers:
                    theirs = semantics.location(state, other).transaction
                    if theirs is not None and other != worker:
                        family = system.resources[mine.request.resource].family
                        assert (mine.transaction, family, theirs) in possible, number
            try:
                actions = list(semantics.actions(state))
            except SpecError:
                break
            if not actions:
                break
            state = semantics.after(state, random.choice(actions))


def test_the_longest_transaction_is_the_longest_way_through_it() -> None:
    """Prune ready of the storage model: start, five locks, commit, recycle."""
    assert longest_transaction(load("awa/storage.yaml")) == 8


@pytest.mark.parametrize(("successes", "trials", "expected"), [
    # Computed with R: binom::binom.wilson.
    (0, 1000, (0.0, 0.0038267)),
    (10, 100, (0.0552291, 0.1743657)),
    (50, 100, (0.4038315, 0.5961685)),
    (100, 100, (0.9630065, 1.0)),
    (0, 0, (0.0, 1.0)),
])  # fmt: skip
def test_the_confidence_interval(successes: int, trials: int, expected: tuple[float, float]) -> None:
    assert wilson(successes, trials) == pytest.approx(expected, abs=1e-6)


def test_the_pct_bound_holds() -> None:
    """The demo's deadlock has depth 2: worker a gets one lock before worker b gets the other. n = 2, k as the simulation says."""
    system = load("deadlock-demo.yaml")
    workers = crew(system, 2)
    simulation = run(system, workers, "pct", schedules=4_000, depth=2, rounds=1, seed=11)
    assert simulation is not None
    least = bound(2, simulation.longest, 2)
    assert simulation.bound == least == 1 / (2 * simulation.longest)
    # Each worker must also draw the right transaction, one of two: half of the pairs can deadlock at all.
    assert simulation.violations / simulation.schedules > least / 2
    assert simulation.interval[1] > least / 2


def test_priorities_change_at_the_chosen_steps_only() -> None:
    for seed in range(50):
        priorities = Priorities(Random(seed), 5, 20, 3)
        orders = [tuple(priorities.order())]
        for _ in range(20):
            priorities.went(priorities.order()[0])
            orders.append(tuple(priorities.order()))
        changes = sum(first != second for first, second in itertools.pairwise(orders))
        assert changes <= 2
        assert all(sorted(order) == list(range(5)) for order in orders)


# The command


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "lockmodel", "simulate", *arguments]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120)


OLD = "specs/striped-old-claim.yaml"


def test_a_deadlock_that_is_expected_is_exit_code_0() -> None:
    done = command(OLD, "--seed", "1", "--workers", "3", "--schedules", "100")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"DEADLOCK  between (enqueue and claim|claim and enqueue) \(as expected\)", done.stdout)
    assert "Saw 4 of 4 waits" in done.stdout
    assert all(len(line) <= 80 for line in done.stdout.splitlines() if "Repeat it" not in line)


def test_the_printed_command_repeats_it_byte_by_byte() -> None:
    first = command(OLD, "--schedules", "50", "--strategy", "pct", "--depth", "2", "--rounds", "2")
    repeat = first.stdout.splitlines()[-1].partition("Repeat it: lockmodel simulate ")[2].split()
    assert command(*repeat).stdout == first.stdout


def test_finding_nothing_is_undecided() -> None:
    done = command("specs/striped.yaml", "--schedules", "20", "--seed", "1")
    assert done.returncode == 3
    assert "UNDECIDED" in done.stdout and "proves nothing" in done.stdout


def test_pct_prints_its_bound() -> None:
    done = command("specs/deadlock-demo.yaml", "--strategy", "pct", "--depth", "2", "--seed", "5", "--workers", "2")
    assert "a bug of depth 2 is found by each schedule with a probability of at least 1/(2 ·" in " ".join(
        done.stdout.split()
    )


def test_the_json_report_is_replayable(tmp_path: Path) -> None:
    done = command(OLD, "--seed", "1", "--format", "json")
    data = json.loads(done.stdout)
    assert data["simulation"]["violations"] == sum(one["schedules"] for one in data["simulation"]["found"])
    low, high = data["simulation"]["confidence_95"]
    assert low < data["simulation"]["violations"] / data["simulation"]["schedules"] <= high
    loaded = read_trace(done.stdout)
    assert loaded.violated == NO_DEADLOCK and len(loaded.trace) == 7
    second = read_trace(done.stdout, deadlock=1)
    assert len(second.trace) == 9


@pytest.mark.parametrize(("arguments", "said"), [
    (["--strategy", "fair"], "--strategy 'fair': available: random, pct"),
    (["--depth", "2"], "--depth is for --strategy pct"),
    (["--schedules", "0"], "--schedules '0': it must be a whole number from 1 on"),
    (["--schedules", "5", "--timeout", "1"], "give --schedules or --timeout, not both"),
    (["--seed", "x"], "--seed 'x': it must be a whole number from 1 on"),
])  # fmt: skip
def test_a_wrong_option_is_one_line(arguments: list[str], said: str) -> None:
    done = command(OLD, *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", said + "\n")


def test_a_wrong_spec_is_one_line() -> None:
    done = command("tests/malformed/missing-lock.yaml")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
