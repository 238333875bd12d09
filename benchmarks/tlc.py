"""TLC against `lockmodel check`: whole processes, start-up included, on models that TLC finishes in a minute or so.

TLC runs the module that lockmodel exports and, where LOCKMODEL_AWA is a folder with the published modules
(`d930e72/AwaStorageLockOrder.tla` and `fdeb8dd/…`, each with its .cfg), those too: with one worker, TLC's default and the only number for
which it promises the depth that it prints, and with one for each processor.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from benchmarks.ours import contender, export
from benchmarks.process import BenchmarkError, Contender, Counts, compare, run
from benchmarks.section import Section, comparison, skipped

MODELS = {
    "tlc": ("specs/awa/storage.yaml", "d930e72"),
    "tlc-authority": ("specs/awa/storage-authority.yaml", "fdeb8dd"),
}
"""For each section: the spec and the published module's commit."""
_ALL_PROCESSORS = "auto"
ONE_SLOT = ("--set", "lease_slot=1", "--set", "ready_slot=1", "--set", "claim_slot=1")


def section(key: str, quick: bool, repetitions: int, say: Callable[[str], None]) -> Section:
    """The wall time of `lockmodel check` and of TLC, on two workers; quick: with one slot of each ring, and the exported module only."""
    spec, commit = MODELS[key]
    title = f"TLC: {spec}, 2 workers"
    class_path = os.environ.get("LOCKMODEL_TLC", "")
    if not class_path or shutil.which("java") is None:
        return skipped(key, title, "LOCKMODEL_TLC is not a class path with TLC, or there is no java")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        options = ONE_SLOT if quick else ()
        theirs = list(_contenders(spec, commit, folder, class_path, options, published=not quick))
        measured = compare([contender(spec, *options), *theirs], repetitions, say)
    notes = [
        "Whole processes, the start of Python and of Java included. TLC's default is one worker; with more, its depth may be off by a little."
    ]
    return comparison(key, title, notes, measured)


def _contenders(
    spec: str, commit: str, folder: Path, class_path: str, options: tuple[str, ...], *, published: bool
) -> Iterator[Contender]:
    ours = folder / "exported"
    ours.mkdir()
    run(export(spec, "tla", ours / "Model.tla", ["--workers", "2", *options]), Path.cwd())
    every = _command(class_path, "Model", ours, _ALL_PROCESSORS)
    yield Contender("TLC, exported module, all processors", every, ours, _without_depth(counts_of))
    source = Path(os.environ.get("LOCKMODEL_AWA", "")) / commit
    if published and (source / "AwaStorageLockOrder.tla").is_file():
        theirs = folder / "published"
        theirs.mkdir()
        for suffix in (".tla", ".cfg"):
            shutil.copy(source / f"AwaStorageLockOrder{suffix}", theirs)
        one, every = (
            _command(class_path, "AwaStorageLockOrder", theirs, workers) for workers in ("1", _ALL_PROCESSORS)
        )
        yield Contender("TLC, published module, one worker", one, theirs, published_counts_of)
        yield Contender("TLC, published module, all processors", every, theirs, _without_depth(published_counts_of))


def _command(class_path: str, module: str, folder: Path, workers: str) -> list[str]:
    command = [
        "java",
        f"-Djava.io.tmpdir={folder}",
        "-XX:+UseParallelGC",
        "-cp",
        class_path,
        "tlc2.TLC",
        "-workers",
        workers,
    ]
    return [*command, "-metadir", str(folder / "states"), module]


def _without_depth(read: Callable[[str], Counts]) -> Callable[[str], Counts]:
    """With several workers TLC may print a depth that is off by a little, as it says itself."""
    return lambda output: replace(read(output), depth=None)


def counts_of(output: str) -> Counts:
    """The counts in TLC's report. Raises BenchmarkError if it did not see every state."""
    found = re.search(
        r"^([\d,]+) states generated, ([\d,]+) distinct states found, 0 states left", output, re.MULTILINE
    )
    depth = re.search(r"depth of the complete state graph search is (\d+)", output)
    if not found or not depth or "No error has been found" not in output:
        raise BenchmarkError(f"TLC did not search all states: {output[-1_500:]}")
    generated, states = (int(number.replace(",", "")) for number in found.groups())
    return Counts(states, generated - 1, int(depth[1]))


def published_counts_of(output: str) -> Counts:
    """The published modules stutter, and one of them starts a transaction in several equal ways; states and depth compare."""
    found = counts_of(output)
    return Counts(found.states, None, found.depth)
