"""The fast engines against the reference engine: the same counts, verdicts and traces, action by action.

Generated specs are numbered as in test_differential: a failure prints the number. `LOCKMODEL_SPECS=5000` tries more.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from generated import spec_of, to_yaml
from test_differential import numbered

from lockmodel import packed, reference, rows
from lockmodel.budget import resident_bytes
from lockmodel.compiler import compile_spec
from lockmodel.engines import EngineOptions, search
from lockmodel.errors import SpecError, UsageError
from lockmodel.exploration import AskReference, Exploration, Limits, Unsupported
from lockmodel.packed import dense, hashed
from lockmodel.parser import parse
from lockmodel.semantics import Action, Crew, Semantics, State, crew
from lockmodel.system import System

SPECS = int(os.environ.get("LOCKMODEL_SPECS", "240"))
CHUNKS = 8
SPECS_FOLDER = Path(__file__).parent.parent / "specs"
MAX_STATES = 6_000
ENGINES: dict[str, Callable[..., Exploration]] = {
    "rows": rows.explore,
    "dense": dense.explore,
    "hashed": hashed.explore,
}

# The share of the systems that an engine must have compared, a little under what it does (most of the generated systems are small enough
# for the reference engine; rows and dense leave out pools, dense also formulas that ask who waits).
LEAST_COMPARED = {"rows": 0.35, "dense": 0.25, "hashed": 0.75}


def systems(chunk: int) -> list[tuple[str, System]]:
    """Generated systems, each with its own number of workers and with one worker more in its first role."""
    result = []
    for number in range(chunk, SPECS, CHUNKS):
        # Queues are for the reference engine alone.
        system = replace(compile_spec(parse(to_yaml(spec_of(numbered(number))))), no_stall=False)
        result.append((f"spec {number}", system))
        first, *others = system.roles
        more = replace(system, roles=(replace(first, count=(first.count or 1) + 1), *others))
        result.append((f"spec {number}, one more {first.name}", more))
    return result


def agree(engine: str, name: str, system: System) -> bool:
    """Compare `engine` with the reference; False: there are too many states, or the engine says that it can't search them."""
    workers = crew(system, 1)
    explore = ENGINES[engine]
    try:
        expected = reference.explore(system, workers, Limits(MAX_STATES), stop_at_violation=False)
    except SpecError:
        with pytest.raises((AskReference, Unsupported)):
            explore(system, workers, stop_at_violation=False)
        return True
    if expected.stopped:
        return False
    if engine == "rows" and not rows.supports(system):
        return False
    try:
        found = explore(system, workers, stop_at_violation=False)
    except Unsupported:
        return False
    assert summary(found) == summary(expected), name
    first = explore(system, workers)
    assert first.violation == expected.violation, name
    if expected.violation is None:
        assert summary(first) == summary(expected), name
    return True


def summary(exploration: Exploration) -> tuple[object, ...]:
    found = exploration
    return (found.states, found.transitions, found.depth, found.stopped, found.violation)


@pytest.mark.parametrize("chunk", range(CHUNKS))
@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_agrees_with_the_reference_on_generated_specs(engine: str, chunk: int) -> None:
    tried = systems(chunk)
    compared = sum(agree(engine, name, system) for name, system in tried)
    assert compared > len(tried) * LEAST_COMPARED[engine]


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_number_of_threads_changes_nothing(threads: int) -> None:
    for _, system in systems(0)[:12]:
        workers = crew(system, 2)
        for explore in (dense.explore, hashed.explore):
            try:
                one = explore(system, workers, threads=1)
            except (AskReference, Unsupported):
                continue
            assert summary(explore(system, workers, threads=threads)) == summary(one)


def load(file: str, count: int | None = None) -> System:
    system = compile_spec(parse((SPECS_FOLDER / file).read_text(encoding="utf-8"), file))
    return system if count is None else replace(system, roles=(replace(system.roles[0], count=count),))


@pytest.mark.parametrize(("file", "expected"), [
    ("awa/storage.yaml", (69_057, 170_018, 12)),
    ("awa/storage-authority.yaml", (480_721, 1_107_342, 39)),
])  # fmt: skip
@pytest.mark.parametrize("engine", ENGINES)
def test_the_counts_are_those_of_tlc(engine: str, file: str, expected: tuple[int, int, int]) -> None:
    """Distinct states, transitions and depth; source: shared reference counts, measured with TLC."""
    system = load(file)
    found = ENGINES[engine](system, crew(system, 2))
    assert (found.states, found.transitions, found.depth) == expected
    assert found.complete and found.violation is None


def test_three_workers_on_the_storage_model() -> None:
    """17,031,457 states: TLC's number."""
    system = load("awa/storage.yaml", 3)
    assert dense.explore(system, crew(system, 3)).states == 17_031_457


@pytest.mark.parametrize("chunk", range(4))
def test_symmetry_counts_orbits_and_keeps_every_verdict(chunk: int) -> None:
    reduced = 0
    for name, system in systems(chunk)[::2]:
        workers = crew(system, 2)
        states, violated, length = orbits(system, workers)
        if states is None:
            continue
        found = hashed.explore(system, workers, symmetry=True, stop_at_violation=False)
        assert found.states == states, name
        assert (found.violation is not None) == violated, name
        if found.violation is not None:
            trace = found.violation.trace
            assert len(trace) == length, name
            legal(system, trace.states, trace.actions)
        reduced += 1
    assert reduced > 8


def orbits(system: System, workers: Crew) -> tuple[int | None, bool, int]:
    """By plain search: the classes of states that differ only in which worker of a role is where; the shortest violation's length."""
    semantics = Semantics(system, workers)
    try:
        full = reference.explore(system, workers, Limits(MAX_STATES), stop_at_violation=False)
    except SpecError:
        return None, False, 0
    if full.stopped:
        return None, False, 0
    seen = {semantics.initial}
    pending = [semantics.initial]
    while pending:
        state = pending.pop()
        for action in semantics.actions(state):
            after = semantics.after(state, action)
            if after not in seen:
                seen.add(after)
                pending.append(after)
    classes = {(state.valuation, *sorted(zip(workers.roles, state.locations, strict=True))) for state in seen}
    return len(classes), full.violation is not None, len(full.violation.trace) if full.violation else 0


def legal(system: System, states: tuple[State, ...], actions: tuple[Action, ...]) -> None:
    """Every step of a trace is one that the meaning allows."""
    semantics = Semantics(system, crew(system, 2))
    assert states[0] == semantics.initial
    for before, action, after in zip(states[:-1], actions, states[1:], strict=True):
        assert action in list(semantics.actions(before))
        assert semantics.after(before, action) == after


@pytest.mark.parametrize("chunk", range(4))
def test_partial_order_reduction_finds_a_deadlock_whenever_there_is_one(chunk: int) -> None:
    compared = saved = 0
    for name, system in systems(chunk)[::2]:
        plain = replace(system, properties=(), no_global_stall=False)
        workers = crew(plain, 2)
        try:
            full = reference.explore(plain, workers, Limits(MAX_STATES), stop_at_violation=False)
        except SpecError:
            continue
        if full.stopped:
            continue
        found = hashed.explore(plain, workers, partial_order=True, stop_at_violation=False)
        assert (found.violation is None) == (full.violation is None), name
        assert found.states <= full.states, name
        saved += full.states - found.states
        compared += 1
        if found.violation is not None:
            legal(plain, found.violation.trace.states, found.violation.trace.actions)
            both = hashed.explore(plain, workers, partial_order=True, symmetry=True)
            assert both.violation is not None, name
    assert compared > 8 and saved > 0


def test_states_wider_than_a_word() -> None:
    """Fourteen workers need more than 64 bits."""
    system = load("deadlock-demo.yaml", 14)
    found = hashed.explore(system, crew(system, 14))
    expected = rows.explore(system, crew(system, 14))
    assert found.violation is not None and found.violation == expected.violation


def test_a_search_stops_at_its_memory_limit() -> None:
    system = load("awa/storage.yaml", 3)
    room = resident_bytes() + (60 << 20)
    found = hashed.explore(system, crew(system, 3), Limits(memory_bytes=room))
    assert found.stopped is not None and "memory limit" in found.stopped
    assert 10_000 < found.states < 17_031_457
    assert resident_bytes() < room + (120 << 20)


def test_the_reference_engine_keeps_to_the_memory_limit_too() -> None:
    system = load("awa/storage.yaml", 3)
    found = reference.explore(system, crew(system, 3), Limits(memory_bytes=resident_bytes() + (20 << 20)))
    assert found.stopped is not None and "memory limit" in found.stopped


def test_the_dense_engine_refuses_a_table_that_does_not_fit() -> None:
    system = load("awa/storage.yaml", 3)
    with pytest.raises(Unsupported, match="memory"):
        dense.explore(system, crew(system, 3), Limits(memory_bytes=1 << 20))


def replace_library(monkeypatch: pytest.MonkeyPatch, library: str, other: object) -> None:
    """Import `other` in the library's place (None: nothing is there), and the packed engines anew."""
    monkeypatch.setitem(sys.modules, library, other)
    for name in [name for name in sys.modules if name.startswith("lockmodel.packed.")]:
        monkeypatch.delattr(packed, name.removeprefix("lockmodel.packed."))
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.parametrize("library", ["numpy", "numba"])
def test_small_systems_need_no_library(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_library(monkeypatch, library, None)
    system = load("striped.yaml", 3)
    assert search(system, crew(system, 3)).note == ""


def test_without_numpy_a_large_search_goes_on_with_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    replace_library(monkeypatch, "numpy", None)
    system = load("awa/storage.yaml", 3)
    found = search(system, crew(system, 3), Limits(max_states=100_000))
    assert found.engine == "rows" and "numpy" in found.note
    assert found.stopped == "reached the limit of 100,000 states"
    with pytest.raises(UsageError, match="the dense engine needs numpy"):
        search(system, crew(system, 3), options=EngineOptions("dense"))


def test_without_numba_only_the_hashed_engine_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    replace_library(monkeypatch, "numba", None)
    system = load("awa/storage.yaml", 3)
    limits = Limits(max_states=20_000)
    assert search(system, crew(system, 3), limits).engine == "dense"
    found = search(system, crew(system, 3), replace(limits, memory_bytes=resident_bytes() + (1 << 20)))
    assert found.engine == "rows" and "the hashed engine needs numba" in found.note
    with pytest.raises(UsageError, match="needs numba"):
        search(system, crew(system, 3), options=EngineOptions("hashed"))


def test_a_broken_numba_is_no_defect_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def __getattr__(self, name: str) -> object:
            raise RuntimeError("needs NumPy 1")

    replace_library(monkeypatch, "numba", Broken())
    system = load("awa/storage.yaml", 3)
    small = Limits(max_states=20_000, memory_bytes=resident_bytes() + (1 << 20))
    found = search(system, crew(system, 3), small)
    assert "numba does not work here" in found.note


@pytest.mark.parametrize(("count", "engine"), [(2, "rows"), (3, "dense")])
def test_the_engine_is_chosen_by_size(count: int, engine: str) -> None:
    system = load("awa/storage.yaml", count)
    assert search(system, crew(system, count)).engine == engine


def test_what_the_dense_engine_cannot_do_goes_to_the_hashed_one() -> None:
    system = load("awa/storage.yaml", 3)
    found = search(system, crew(system, 3), Limits(memory_bytes=resident_bytes() + (1 << 20), max_states=20_000))
    assert found.engine == "hashed"


@pytest.mark.parametrize(("options", "words"), [
    (EngineOptions("rows", symmetry=True), "knows no --symmetry"),
    (EngineOptions(partial_order=True), "stalls; leave it out"),
])  # fmt: skip
def test_a_reduction_that_is_not_sound_is_refused(options: EngineOptions, words: str) -> None:
    system = load("awa/storage.yaml", 2)
    with pytest.raises(UsageError, match=words):
        search(system, crew(system, 2), options=options)
