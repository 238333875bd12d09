"""The prover against the reference search on generated specs, in both directions.

Each test prints the seed of the spec that it fails on. `LOCKMODEL_SPECS=5000` makes it try more than in CI.
"""

from __future__ import annotations

import os
import random
from dataclasses import replace
from typing import Any

import pytest
from generated import Tape, spec_of, to_yaml
from straight import straight_spec

from lockmodel.compiler import compile_program
from lockmodel.deadlocks import MAX_STATES, deadlocks
from lockmodel.errors import SpecError
from lockmodel.explanation import explain
from lockmodel.exploration import Limits
from lockmodel.parser import parse
from lockmodel.program import Program
from lockmodel.prover import examine, prove_program, surely_compiles
from lockmodel.prover.places import is_straight
from lockmodel.reference import explore
from lockmodel.resolver import resolve
from lockmodel.semantics import Semantics, crew
from lockmodel.system import System

COUNT = int(os.environ.get("LOCKMODEL_SPECS", "200"))
FIRST = int(os.environ.get("LOCKMODEL_FIRST_SEED", "0"))
SEEDS = range(FIRST, FIRST + COUNT)
SEARCHED = Limits(max_states=5_000)


def resolved(spec: dict[str, Any]) -> Program:
    return resolve(parse(to_yaml(spec)))


def found_by_search(system: System, count: int) -> int | None:
    """The length of the shortest trace to a deadlock of `count` workers a role; None if there is none within the limit."""
    found = explore(replace(system, properties=(), no_global_stall=False), crew(system, count), SEARCHED)
    return len(found.violation.trace) if found.violation else None


def exhausted(system: System, count: int) -> bool:
    return explore(replace(system, properties=(), no_global_stall=False), crew(system, count), SEARCHED).complete


def rich_spec(seed: int) -> dict[str, Any]:
    """A generated spec of the whole language, for any number of workers."""
    rnd = random.Random(seed)
    spec = spec_of(Tape(rnd.randbytes(600)))
    for key in ("never", "always", "no global stall", "no stall", "workers"):
        spec.pop(key, None)
    if rnd.random() < 0.6 or "roles" not in spec:
        spec.pop("roles", None)
        spec["workers"] = "any"
    return spec


def test_what_is_proved_has_no_deadlock() -> None:
    """Any language construct, 2 and 3 workers: neither proof ever says that there is none where the search finds one."""
    proved = dead = 0
    for seed in SEEDS:
        try:
            program = resolved(rich_spec(seed))
            system = compile_program(program)
            symbolic, examined = prove_program(program), examine(system)
            lengths = [found_by_search(system, count) for count in (2, 3)]
        except SpecError:
            continue
        if symbolic is not None or examined.certificate is not None:
            proved += 1
            assert lengths == [None, None], (seed, symbolic is not None)
        if symbolic is not None:
            assert examined.certificate is not None, seed
        if examined.trace is not None:
            semantics = Semantics(system, examined.trace.crew)
            assert semantics.stuck(examined.trace.last), seed
        dead += any(lengths)
    assert proved > COUNT / 5 and dead > COUNT / 10


def test_transactions_that_only_take_locks_are_decided() -> None:
    """Not proved: a deadlock that the search finds too, with that number of workers, as short, and not with fewer."""
    traced = long = 0
    for seed in SEEDS:
        program = resolved(straight_spec(random.Random(seed)))
        system = compile_program(program)
        assert is_straight(system), seed
        examined = examine(system)
        one_role = len(system.roles) == 1
        if examined.trace is None:
            assert examined.certificate is not None, (seed, examined.reason)
            assert found_by_search(system, 2) is None, seed
            assert found_by_search(system, 3) is None, seed
            continue
        assert examined.certificate is None
        assert prove_program(program) is None, seed
        trace = examined.trace
        members = explain(system, trace).cycle
        assert len(members) == len({action.worker for action in trace.actions}), seed
        switches = sum(a.worker != b.worker for a, b in zip(trace.actions, trace.actions[1:], strict=False))
        assert switches == len(members) - 1, seed
        traced += 1
        long += len(members) > 2
        if one_role and len(members) <= 3:
            assert found_by_search(system, len(members)) in (len(trace), None), seed
            assert len(members) == 2 or found_by_search(system, 2) is None, seed
            if exhausted(system, len(members)):
                pytest.fail(f"seed {seed}: the search finds no deadlock")
    assert traced > COUNT / 5
    assert long > 0


def test_a_proof_on_the_program_holds_at_other_sizes() -> None:
    """What is proved without looking at the sizes is proved by the instances of 1 to 4 elements."""
    proved = 0
    for seed in SEEDS:
        spec = straight_spec(random.Random(seed))
        if spec["name"] == "ring":
            continue
        certificate = prove_program(resolved(spec))
        if certificate is None:
            continue
        proved += 1
        least = spec["sets"]["s"]
        for size in range(least, 5 if not certificate.as_declared else least + 1):
            program = resolved({**spec, "sets": {"s": size}})
            assert prove_program(program) is not None, (seed, size)
            try:
                system = compile_program(program)
            except SpecError:
                continue
            examined = examine(system)
            assert examined.certificate is not None or "too many" in examined.reason, (seed, size)
    assert proved > COUNT / 5


def test_all_deadlocks_are_those_of_the_search() -> None:
    """The groups made of circles are the groups of all deadlocked states, and each has a trace into it."""
    several = 0
    for seed in SEEDS:
        spec = straight_spec(random.Random(seed))
        if "roles" in spec:
            continue
        system = compile_program(resolved({**spec, "workers": 2}))
        by_circles = deadlocks(system)
        if by_circles.incomplete:
            assert "too many" in by_circles.incomplete, seed
            continue
        named = {(group.transactions, group.families) for group in by_circles.groups}
        several += len(named) > 1
        for group in by_circles.groups:
            view = explain(system, group.trace)
            assert tuple(sorted(view.cycle_transactions)) == group.transactions, seed
        found = searched_groups(system)
        if found is not None:
            assert named == found, seed
    assert several > 0


def searched_groups(system: System) -> set[tuple[tuple[str, ...], tuple[str, ...]]] | None:
    """The groups of two that deadlock in any reachable state; None if there are too many states."""
    semantics = Semantics(system, crew(system, 1))
    seen, queue = {semantics.initial}, [semantics.initial]
    found = set()
    for state in queue:
        if len(seen) > min(MAX_STATES, 6_000):
            return None
        waiting = semantics.waiting(state)
        if len(semantics.stuck(state, waiting)) == 2:
            places = [semantics.location(state, worker) for worker in (0, 1)]
            requests = [place.request for place in places if place.request is not None]
            families = {system.resources[request.resource].family for request in requests}
            found.add((tuple(sorted(str(place.transaction) for place in places)), tuple(sorted(families))))
        for action in semantics.actions(state):
            following = semantics.after(state, action)
            if following not in seen:
                seen.add(following)
                queue.append(following)
    return found


def test_a_program_that_surely_compiles_does() -> None:
    """Where compiling is left out, it would not have complained."""
    sure = 0
    for seed in SEEDS:
        for spec in (rich_spec(seed), straight_spec(random.Random(seed))):
            try:
                program = resolved(spec)
            except SpecError:
                continue
            if surely_compiles(program):
                sure += 1
                system = compile_program(program)
                assert not any(edge.faults for location in system.locations for edge in location.edges), seed
    assert sure > COUNT / 5
