"""lockmodel's engines against each other, on the same states."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.ours import ROOT, check_command, contender
from benchmarks.process import compare, run
from benchmarks.section import Section, comparison
from lockmodel.engines import AUTO, ENGINES

_BASE = "rows"
_ONE_SLOT = ("--set", "lease_slot=1", "--set", "ready_slot=1", "--set", "claim_slot=1")


@dataclass(frozen=True)
class Model:
    """A spec with a number of workers, and the engines that it is too large for."""

    spec: str
    workers: int
    too_large_for: tuple[str, ...] = ()


MODELS = {
    "engines": Model("specs/awa/storage.yaml", 2),
    "engines-authority": Model("specs/awa/storage-authority.yaml", 2),
    # The reference engine keeps each state as a Python object: some 5 GB here.
    "engines-large": Model("specs/awa/storage.yaml", 3, ("reference",)),
}
"""By the key of the section."""


def section(key: str, quick: bool, repetitions: int, say: Callable[[str], None]) -> Section:
    """Each engine that `--engine` knows, as a whole process; quick: with one slot of each ring."""
    model = MODELS[key]
    options = ["--workers", str(model.workers), *(_ONE_SLOT if quick else ())]
    names = [_BASE, *(name for name in ENGINES if name not in (AUTO, _BASE, *model.too_large_for))]
    say("compiling the compiled engines, if that has not happened before")
    for name in names:
        run(check_command("specs/deadlock-demo.yaml", "--workers", "2", "--engine", name), ROOT)
    contenders = [contender(model.spec, *options, "--engine", name, name=name) for name in names]
    notes = ["Whole processes, Python's start included; the compiled engines had been compiled before."]
    return comparison(key, f"Engines: {model.spec}, {' '.join(options)}", notes, compare(contenders, repetitions, say))
