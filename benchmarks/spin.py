"""SPIN on the exported model against lockmodel's own search, on the same states.

SPIN is given what suits it best: the counting form of the model (no claim, locks as counters of a few bits), gcc -O3, -DSAFETY, no
partial-order reduction (which would leave states out), and a hash table of about one slot for each state. Its time is the verifier's
alone; lockmodel's has Python's start-up and the reading of the spec in it, and it checks deadlock and global stall in every state.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.ours import contender, export
from benchmarks.process import BenchmarkError, Contender, Counts, compare, run
from benchmarks.section import Section, comparison, skipped

SPEC = "specs/awa/storage.yaml"
_FLAGS = ("-O3", "-w", "-DSAFETY", "-DNOREDUCE")


@dataclass(frozen=True)
class Way:
    """One way to run SPIN."""

    name: str
    spin: tuple[str, ...] = ("-DCOUNT",)
    gcc: tuple[str, ...] = ()
    depth: str = "-m750000"
    """The deepest path of a depth-first search: no more than it needs, since it costs memory."""


WAYS = {
    "spin": (
        Way("SPIN, depth first"),
        Way("SPIN, breadth first", gcc=("-DBFS",)),
        Way("SPIN, -DCOLLAPSE", gcc=("-DCOLLAPSE",)),
        # A claim makes moves of its own.
        Way("SPIN, with deadlock and stall checked", spin=(), depth="-m2000000"),
    ),
    # Exact, too, and the least memory that SPIN can do with, at more than ten times the time.
    "spin-automaton": (Way("SPIN, -DMA", gcc=("-DMA=48",)),),
}
"""By the key of the section."""


def section(key: str, quick: bool, repetitions: int, say: Callable[[str], None]) -> Section:
    """States per second and bytes per state on the awa storage model, with 3 workers or (quick) with 2."""
    workers = 2 if quick else 3
    title = f"SPIN: {SPEC}, {workers} workers"
    missing = [tool for tool in ("spin", "gcc") if shutil.which(tool) is None]
    if missing:
        return skipped(key, title, f"{' and '.join(missing)} not found (Debian: apt-get install spin gcc libc6-dev)")
    # The hash table's size as a power of two, to SPIN's advantage.
    slots = "-w17" if quick else "-w24"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run(export(SPEC, "promela", folder / "model.pml", ["--workers", str(workers)]), Path.cwd())
        theirs = [
            _contender(way, folder / str(number), folder, [slots, way.depth]) for number, way in enumerate(WAYS[key])
        ]
        engine = [] if quick else ["--engine", "dense"]
        measured = compare([contender(SPEC, "--workers", str(workers), *engine), *theirs], repetitions, say)
    return comparison(key, title, [_version(), f"pan -E {slots}; gcc {' '.join(_FLAGS)}."], measured)


def _contender(way: Way, folder: Path, model: Path, options: list[str]) -> Contender:
    """Compile the verifier, which is not part of the measurement."""
    folder.mkdir()
    run(["spin", "-o1", "-o2", "-o3", *way.spin, "-a", str(model / "model.pml")], folder)
    run(["gcc", *_FLAGS, *way.gcc, "-o", "pan", "pan.c"], folder)
    return Contender(way.name, ["./pan", "-E", *options], folder, counts_of)


def counts_of(output: str) -> Counts:
    """The counts in pan's report. Raises BenchmarkError if it did not see every state."""
    if "errors: 0" not in output or "Search not completed" in output or "max search depth too small" in output:
        raise BenchmarkError(f"SPIN did not search all states: {output[-1_500:]}")
    stored = re.search(r"(\d+) states, stored", output)
    # A claim makes moves of its own, which pan counts too.
    steps = None if "never_0" in output else re.search(r"(\d+) transitions \(= stored\+matched\)", output)
    if stored is None:
        raise BenchmarkError(f"no count of states in SPIN's report: {output[-1_500:]}")
    elapsed = re.search(r"elapsed time ([\d.e+-]+) seconds", output)
    return Counts(
        int(stored[1]), int(steps[1]) - 1 if steps else None, search_seconds=float(elapsed[1]) if elapsed else None
    )


def _version() -> str:
    return (
        run(["spin", "-V"], Path.cwd()).output.strip()
        + "; "
        + run(["gcc", "--version"], Path.cwd()).output.split("\n")[0]
    )
