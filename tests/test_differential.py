"""Generated specs: the compiled system against a naive interpretation of the YAML, and the model against a real Postgres.

Each spec is known by its number, which a failure prints: `spec_of(numbered(17))` makes it again.
`LOCKMODEL_SPECS=5000 pytest tests/test_differential.py` tries more than the usual ones.
"""

from __future__ import annotations

import os
import random
from typing import Any

import naive
import pytest
from generated import Tape, spec_of, specs, to_yaml
from hypothesis import HealthCheck, given, settings

from lockmodel.compiler import compile_spec
from lockmodel.exploration import Limits
from lockmodel.parser import parse
from lockmodel.reference import explore
from lockmodel.replay.replayer import ReplayOutcome, prepare, replay_schedules
from lockmodel.semantics import crew

MAX_STATES = 20_000
SPECS = int(os.environ.get("LOCKMODEL_SPECS", "240"))
CHUNKS = 12


def numbered(number: int) -> Tape:
    """The source of all choices that spec `number` is made of."""
    return Tape(random.Random(number).randbytes(600))


def numbers(chunk: int, total: int) -> range:
    return range(chunk, total, CHUNKS)


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_the_compiled_system_agrees_with_the_naive_interpretation(chunk: int) -> None:
    """States, transitions, depth, and the shortest trace to a violation of any property are the same."""
    compared = sum(agree(spec_of(numbered(number)), number) for number in numbers(chunk, SPECS))
    assert compared > SPECS // CHUNKS * 0.9


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(specs())
def test_they_agree_on_what_hypothesis_makes_up_too(spec: dict[str, Any]) -> None:
    """With examples that it shrinks when they fail."""
    agree(spec, to_yaml(spec))


def agree(spec: dict[str, Any], name: object) -> bool:
    """Compare the two on `spec`, which a failure calls `name`; False: it has too many states to compare."""
    try:
        expected = naive.explore(spec, max_states=MAX_STATES)
    except naive.TooManyStates:
        return False
    system = compile_spec(parse(to_yaml(spec)))
    found = explore(system, crew(system, 1), Limits(MAX_STATES + 1), stop_at_violation=False)
    counts = (found.states, found.transitions, found.depth)
    assert counts == (expected.states, expected.transitions, expected.depth), name
    shortest = {prop: length for prop, length in expected.violated.items() if length}
    shortest |= {"no deadlock": expected.deadlock} if expected.deadlock else {}
    shortest |= {"no global stall": expected.stall} if expected.stall else {}
    shortest |= {"no stall": expected.held_up} if expected.held_up else {}
    if found.violation is None:
        assert not shortest, name
    else:
        length = len(found.violation.trace)
        assert length == min(shortest.values()) == shortest[found.violation.property], name
    return True


def without_sql(part: Any) -> Any:
    """The spec without its SQL, which the generator makes up, so that each lock has a real statement of lockmodel's own."""
    if isinstance(part, dict):
        return {key: without_sql(value) for key, value in part.items() if key not in ("sql", "label")}
    if isinstance(part, list):
        return [without_sql(step) for value in part for step in _taken_alone(value)]
    return part


def _taken_alone(step: Any) -> list[Any]:
    """A statement of several locks as so many steps."""
    return step["takes"] if isinstance(step, dict) and "statement" in step else [step]


@pytest.mark.postgres
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_postgres_does_what_the_model_foretells(chunk: int, dsn: str) -> None:
    """Random schedules of generated specs: who goes on, who waits for whom, who is refused, and who deadlocks."""
    statements = 0
    for number in numbers(chunk, SPECS // 4):
        spec = without_sql(spec_of(numbered(number)))
        if any(resource["kind"] == "pool" for resource in spec["resources"].values()):
            continue
        if "until: granted" in to_yaml(spec):
            continue  # lockmodel has no statement of its own for that.
        prepared = prepare(parse(to_yaml(spec)))
        done = replay_schedules(prepared, crew(prepared.compilation.system, 2), 2, seed=number, dsn=dsn)
        assert done.outcome is ReplayOutcome.CONFIRMED, (number, done.runs[-1].performance)
        statements += done.statements
    assert statements > 20
