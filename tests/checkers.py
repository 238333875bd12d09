"""SPIN and TLC as second opinions: runs them on an exported system and says what they found."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from lockmodel.export import Exported, export
from lockmodel.semantics import Crew
from lockmodel.system import System

SPIN = shutil.which("spin")
GCC = shutil.which("gcc")
JAVA = shutil.which("java")
TLC = os.environ.get("LOCKMODEL_TLC", "")
"""A class path with TLC in it, such as a tla2tools.jar."""


@dataclass(frozen=True)
class Opinion:
    """What another checker found. `violated` is the invariant's name, where it says one."""

    states: int
    transitions: int
    depth: int | None
    violated: str | None


def spin(system: System, crew: Crew, folder: Path, *, count: bool = False, first: bool = False) -> Opinion:
    """SPIN's opinion: by -DCOUNT if `count`, else with all properties; up to the first violation if `first`, else of all states."""
    assert SPIN and GCC
    (folder / "model.pml").write_text(export("promela", system, crew, "a test").text, encoding="utf-8")
    said = _run([SPIN, "-o1", "-o2", "-o3", *(["-DCOUNT"] if count else []), "-a", "model.pml"], folder)
    said += _run(
        [GCC, "-O0", "-w", "-DSAFETY", "-DNOREDUCE", *(["-DBFS"] if first else []), "-o", "pan", "pan.c"], folder
    )
    assert (folder / "pan").exists(), said[-3000:]
    out = _run(["./pan", "-E", "-m200000", "-w18", *(["-c1"] if first else ["-c0"])], folder)
    assert "max search depth too small" not in out
    states = int(_found(r"(\d+) states, stored", out))
    transitions = int(_found(r"(\d+) transitions \(= stored\+matched\)", out)) - 1
    errors = int(_found(r"errors: (\d+)", out))
    depth = int(_found(r"at depth (\d+)\)", out)) if first and errors else None
    return Opinion(states, transitions, depth, _found(r"assertion violated (.*) \(at depth", out) if errors else None)


def tlc(system: System, crew: Crew, folder: Path, *, all_states: bool = False) -> Opinion:
    """TLC's opinion; with `all_states` it goes on after a violation. `depth` is that of the search, in states."""
    assert JAVA and TLC
    exported: Exported = export("tla", system, crew, "a test", "Model")
    (folder / "Model.tla").write_text(exported.text, encoding="utf-8")
    (folder / "Model.cfg").write_text(exported.beside[".cfg"], encoding="utf-8")
    command = [
        JAVA,
        f"-Djava.io.tmpdir={folder}",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-Xmx1g",
        "-cp",
        TLC,
        "tlc2.TLC",
        "-workers",
        "1",
    ]
    command += [*(["-continue"] if all_states else []), "-metadir", str(folder / "meta"), "-noGenerateSpecTE", "Model"]
    out = _run(command, folder)
    generated, states = map(
        int,
        _found_all(
            r"(\d+) states generated, (\d+) distinct states found",
            out.replace(",", "").replace("generated ", "generated, "),
        ),
    )
    depth = int(_found(r"depth of the complete state graph search is (\d+)", out))
    violated = re.search(r"Invariant (\w+) is violated", out)
    if not violated:
        assert "No error has been found" in out, out[-3000:]
    return Opinion(states, generated - 1, depth, violated[1] if violated else None)


def _run(command: list[str], folder: Path) -> str:
    """What `command` says. TLC exits with a code of its own when an invariant is violated; a crash shows in what it says."""
    answer = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    out = answer.stdout + answer.stderr
    assert answer.returncode == 0 or command[0] == JAVA, f"{' '.join(command)}: {out[-3000:]}"
    return out


def _found(pattern: str, text: str) -> str:
    return _found_all(pattern, text)[0]


def _found_all(pattern: str, text: str) -> tuple[str, ...]:
    match = re.search(pattern, text)
    assert match, f"no {pattern} in: {text[-3000:]}"
    return match.groups()
