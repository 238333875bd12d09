"""SPIN and TLC on exported systems: their states, transitions and verdicts are ours.

SPIN and gcc are Debian packages (`apt-get install spin gcc`). TLC runs where LOCKMODEL_TLC is a class path that has it, such as a
tla2tools.jar. Generated specs are numbered as in test_differential; `LOCKMODEL_SPECS=500` tries more.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from checkers import GCC, JAVA, SPIN, TLC, spin, tlc
from generated import spec_of, to_yaml
from test_differential import numbered

from lockmodel import reference
from lockmodel.compiler import compile_spec
from lockmodel.errors import SpecError
from lockmodel.exploration import Exploration, Limits
from lockmodel.parser import load, parse
from lockmodel.semantics import crew
from lockmodel.system import System

ROOT = Path(__file__).parent.parent
SPECS = int(os.environ.get("LOCKMODEL_SPECS", "24"))
CHUNKS = 4
MAX_STATES = 6_000

needs_spin = pytest.mark.skipif(
    not (SPIN and GCC), reason="spin or gcc is not installed (Debian: apt-get install spin gcc)"
)
needs_tlc = pytest.mark.skipif(
    not (TLC and JAVA), reason="LOCKMODEL_TLC is not a class path with TLC, or there is no java"
)


def searched(system: System, most: int = MAX_STATES) -> Exploration | None:
    """By the reference engine; None where it gives up or meets a step without meaning."""
    try:
        found = reference.explore(system, crew(system, 2), Limits(most), stop_at_violation=False)
    except SpecError:
        return None
    return found if found.complete else None


def agrees_with_spin(name: str, system: System, expected: Exploration, folder: Path, *, quick: bool = False) -> None:
    """The same states and verdict; unless `quick` (each run compiles anew), the same transitions and length of the shortest trace."""
    workers = crew(system, 2)
    folder.mkdir()
    checked = spin(system, workers, folder)
    assert checked.states == expected.states, name
    assert (checked.violated is None) == (expected.violation is None), name
    if quick:
        return
    counted = spin(system, workers, folder, count=True)
    assert (counted.states, counted.transitions) == (expected.states, expected.transitions), name
    if expected.violation:
        # SPIN counts steps, and looks at a state before the step that leads on from it.
        shortest = spin(system, workers, folder, first=True)
        assert shortest.depth == max(len(expected.violation.trace) - 2, 0), name


def agrees_with_tlc(name: str, system: System, expected: Exploration, folder: Path) -> None:
    folder.mkdir()
    found = tlc(system, crew(system, 2), folder, all_states=True)
    assert (found.states, found.transitions, found.depth) == (expected.states, expected.transitions, expected.depth), (
        name
    )
    assert (found.violated is None) == (expected.violation is None), name


# Shipped specs


def shipped() -> list[str]:
    """Specs of this repository, by their files."""
    folders = [ROOT / "specs", ROOT / "specs" / "queue", ROOT / "specs" / "real"]
    files = [str(path.relative_to(ROOT)) for folder in folders for path in sorted(folder.glob("*.yaml"))]
    return [*files, "specs/awa/deadlock-demo.yaml", "specs/awa/old-striped-claim.yaml"]


@needs_spin
@pytest.mark.parametrize("part", range(4))
def test_spin_agrees_on_the_shipped_specs(part: int, tmp_path: Path) -> None:
    """With two workers where a spec leaves their number open; those of more than 20,000 states are left out."""
    compared = 0
    for number, file in enumerate(shipped()[part::4]):
        system = replace(compile_spec(load(ROOT / file)), no_stall=False)  # Others know no queues.
        expected = searched(system, 20_000)
        if expected:
            agrees_with_spin(file, system, expected, tmp_path / str(number), quick=True)
            compared += 1
    assert compared >= 3


@needs_tlc
def test_tlc_agrees_on_the_shipped_specs(tmp_path: Path) -> None:
    for number, file in enumerate(shipped()):
        system = replace(compile_spec(load(ROOT / file)), no_stall=False)  # Others know no queues.
        expected = searched(system, 20_000)
        if expected:
            agrees_with_tlc(file, system, expected, tmp_path / str(number))


AWA = [
    ("storage", 69_057, 170_018, 12),
    ("storage-authority", 480_721, 1_107_342, 39),
]
"""Counts of TLC on the published TLA+ module; see test_awa_counts."""


@needs_spin
@pytest.mark.parametrize(("name", "states", "transitions", "depth"), AWA)
def test_spin_has_the_published_counts_of_awa(
    name: str, states: int, transitions: int, depth: int, tmp_path: Path
) -> None:
    system = compile_spec(load(ROOT / "specs" / "awa" / f"{name}.yaml"))
    workers = crew(system, 2)
    counted = spin(system, workers, tmp_path, count=True)
    assert (counted.states, counted.transitions) == (states, transitions)
    checked = spin(system, workers, tmp_path)
    assert (checked.states, checked.violated) == (states, None)


@needs_tlc
@pytest.mark.parametrize(("name", "states", "transitions", "depth"), AWA)
def test_tlc_has_the_published_counts_of_awa(
    name: str, states: int, transitions: int, depth: int, tmp_path: Path
) -> None:
    system = compile_spec(load(ROOT / "specs" / "awa" / f"{name}.yaml"))
    found = tlc(system, crew(system, 2), tmp_path)
    assert (found.states, found.transitions, found.depth, found.violated) == (states, transitions, depth, None)


# Generated specs


@needs_spin
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_spin_agrees_on_generated_specs(chunk: int, tmp_path: Path) -> None:
    compared = 0
    for number in range(chunk, SPECS, CHUNKS):
        system = replace(compile_spec(parse(to_yaml(spec_of(numbered(number))))), no_stall=False)
        expected = searched(system)
        if expected:
            agrees_with_spin(f"spec {number}", system, expected, tmp_path / str(number))
            compared += 1
    assert compared > SPECS // CHUNKS // 2


@needs_tlc
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_tlc_agrees_on_generated_specs(chunk: int, tmp_path: Path) -> None:
    compared = 0
    for number in range(chunk, SPECS, CHUNKS):
        system = replace(compile_spec(parse(to_yaml(spec_of(numbered(number))))), no_stall=False)
        expected = searched(system)
        if expected:
            agrees_with_tlc(f"spec {number}", system, expected, tmp_path / str(number))
            compared += 1
    assert compared > SPECS // CHUNKS // 2


# What a naive export would get wrong

CASES = {
    "a deadlock of two while a third goes on for ever": (True, """\
name: x
resources: {a: {kind: lock}, b: {kind: lock}, c: {kind: lock}}
transactions: {p: {steps: [{a: EXCLUSIVE}, {b: EXCLUSIVE}]}, q: {steps: [{b: EXCLUSIVE}, {a: EXCLUSIVE}]}, r: {steps: [{c: SHARED}]}}
workers: 3
"""),
    "waiting for a session lock of an idle worker is no deadlock": (False, """\
name: x
resources: {a: {kind: advisory, scope: session}}
transactions: {p: {start when: more, steps: [{a: EXCLUSIVE}, {set: {more: false}}]}}
variables: {more: {values: [true, false]}}
workers: 2
"""),
    "a pool whose units are held by those who want more": (True, """\
name: x
resources: {c: {kind: pool, size: 3}}
transactions: {p: {steps: [{c: TAKE}, {c: TAKE}]}}
workers: 3
"""),
    "a pool with a unit to spare": (False, """\
name: x
resources: {c: {kind: pool, size: 4}}
transactions: {p: {steps: [{c: TAKE}, {c: TAKE}]}}
workers: 3
"""),
    "an upgrade that deadlocks with itself": (True, """\
name: x
resources: {a: {kind: row}}
transactions: {p: {steps: [{a: FOR SHARE}, {a: FOR UPDATE}]}}
workers: 2
"""),
    "an upgrade that refuses to wait": (False, """\
name: x
resources: {a: {kind: row}}
transactions: {p: {steps: [{a: FOR SHARE}, {a: FOR UPDATE NOWAIT, else: [rollback]}]}}
workers: 2
"""),
    "a stall without a deadlock": (True, """\
name: x
resources: {a: {kind: advisory, scope: session}}
variables: {fresh: {values: [true, false]}}
transactions:
  p: {start when: fresh, steps: [{a: EXCLUSIVE}, {set: {fresh: false}}]}
  q: {steps: [{a: EXCLUSIVE}, {release: a}]}
roles: {one: {count: 1, runs: [p]}, two: {count: 1, runs: [q]}}
no global stall: true
"""),
    "a role that a formula names": (True, """\
name: x
resources: {a: {kind: lock}}
transactions: {p: {steps: [{a: SHARED}]}}
roles: {one: {count: 1, runs: [p]}, two: {count: 2, runs: [p]}}
never: {no: 'count(w.role == two and w.holds(a)) > 1 and count(w.role == one and w.holds(a)) == 1'}
"""),
    "who waits, as a formula sees it": (True, """\
name: x
resources: {a: {kind: lock}}
transactions: {p: {steps: [{a: EXCLUSIVE}]}}
workers: 3
always: {few: 'count(w.waits_for(a)) < 2 and count(not w.waits_for(a)) > 0'}
"""),
    "statements that are transactions of their own, and locks that are only waited for": (True, """\
name: x
resources: {s: {kind: advisory, scope: session}, t: {kind: table}, snapshots: {kind: lock}}
transactions:
  migrate:
    block: false
    steps:
      - statement: SELECT pg_advisory_lock(1)
        takes: [{snapshots: SHARED}, {s: EXCLUSIVE}]
      - statement: CREATE INDEX CONCURRENTLY ON t (c)
        takes: [{t: SHARE UPDATE EXCLUSIVE}, {t: SHARE, until: granted}, {snapshots: EXCLUSIVE, until: granted}]
      - t: ROW EXCLUSIVE
      - release: s
workers: 2
"""),
    "names that look alike": (False, """\
name: chan
sets: {s: ['x-y', 'x_y', 'x.y']}
resources: {init: {kind: lock, per: [s]}, end: {kind: lock}}
variables: {byte: {values: ['1-', 1, true]}}
transactions: {é: {choose: {i: s}, steps: [{'init[i]': EXCLUSIVE}, {set: {byte: true}}, {end: SHARED}]}, è: {steps: [{end: SHARED}]}}
roles: {ä: {count: 1, runs: [é]}, ö: {count: 1, runs: [è]}}
"""),
}  # fmt: skip
"""Whether a property is violated, and the spec."""


@needs_spin
@pytest.mark.parametrize("case", CASES)
def test_spin_agrees_on_the_odd_cases(case: str, tmp_path: Path) -> None:
    violated, text = CASES[case]
    system = compile_spec(parse(text))
    expected = searched(system)
    assert expected and (expected.violation is not None) == violated
    agrees_with_spin(case, system, expected, tmp_path / "spin")


@needs_tlc
@pytest.mark.parametrize("case", CASES)
def test_tlc_agrees_on_the_odd_cases(case: str, tmp_path: Path) -> None:
    violated, text = CASES[case]
    system = compile_spec(parse(text))
    expected = searched(system)
    assert expected and (expected.violation is not None) == violated
    agrees_with_tlc(case, system, expected, tmp_path / "tlc")


FAULT = """\
name: fault
variables: {n: {values: [0, 1, 2]}}
resources: {a: {kind: lock}}
transactions: {t: {steps: [{a: EXCLUSIVE}, {set: {n: n + 1}}]}}
workers: 2
"""


def test_a_step_without_meaning_is_a_violation_elsewhere_too(tmp_path: Path) -> None:
    """Here it is an error of the spec; another checker must not pass over it in silence."""
    system = compile_spec(parse(FAULT))
    with pytest.raises(SpecError):
        reference.explore(system, crew(system, 1))
    if SPIN and GCC:
        (tmp_path / "spin").mkdir()
        assert spin(system, crew(system, 1), tmp_path / "spin").violated
    if TLC and JAVA:
        (tmp_path / "tlc").mkdir()
        assert tlc(system, crew(system, 1), tmp_path / "tlc").violated == "NoFault"


@needs_spin
def test_a_mutated_export_is_noticed(tmp_path: Path) -> None:
    """The comparison can fail: with another number of workers, SPIN counts other states."""
    system = compile_spec(load(ROOT / "specs" / "striped.yaml"))
    more = replace(system, roles=(replace(system.roles[0], count=3),))
    expected = searched(system)
    assert expected
    with pytest.raises(AssertionError):
        agrees_with_spin("mutated", more, expected, tmp_path / "spin")


def documented(mark: str) -> str:
    """The commands in docs/export.md behind `<!-- spin: MARK -->`."""
    block = re.search(rf"<!-- spin: {mark} -->\n```sh\n(.*?)```", (ROOT / "docs" / "export.md").read_text(), re.DOTALL)
    assert block
    # gcc takes most of the time, and what it makes of -O0 says the same.
    return block[1].replace("lockmodel ", f"{sys.executable} -m lockmodel ").replace("-O3", "-O0")


@needs_spin
@pytest.mark.parametrize(("mark", "words"), [
    ("check", "assertion violated (stuck==0)"),
    ("count", "69057 states, stored"),
])  # fmt: skip
def test_the_commands_of_the_documentation_do_what_it_says(mark: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "specs").symlink_to(ROOT / "specs")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = ["sh", "-ec", documented(mark)]
    answer = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert answer.returncode == 0, answer.stderr
    assert words in answer.stdout
    if mark == "check":
        assert "lane_q1_0_1_EXCLUSIVE" in answer.stdout  # The trace, with the names of the spec.
