"""lockmodel as a contender: the command line, as a user runs it."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.process import BenchmarkError, Contender, Counts

ROOT = Path(__file__).parent.parent


def check_command(spec: str, *options: str) -> list[str]:
    """The command that checks `spec` and prints a JSON report."""
    return [sys.executable, "-m", "lockmodel", "check", spec, "--format", "json", *options]


def result_of(output: str) -> dict[str, Any]:
    """The one spec's result in a JSON report."""
    results: list[dict[str, Any]] = json.loads(output)["results"]
    return results[0]


def counts_of(output: str) -> Counts:
    """The counts of the last search."""
    searches = result_of(output)["searches"]
    if not searches:
        raise BenchmarkError("lockmodel proved it without a search, so there is nothing to count; use --engine")
    last = searches[-1]
    if not last["complete"]:
        raise BenchmarkError(f"lockmodel's search {last['stopped']}")
    return Counts(last["states"], last["transitions"], last["depth"], f"{last['engine']} engine", last["seconds"])


def contender(spec: str, *options: str, name: str = "lockmodel", repetitions: int | None = None) -> Contender:
    """`lockmodel check SPEC`, Python's start-up included."""
    return Contender(name, check_command(spec, *options), ROOT, counts_of, repetitions)


def export(spec: str, form: str, file: Path, options: Sequence[str] = ()) -> list[str]:
    """The command that exports `spec` to `file`."""
    return [sys.executable, "-m", "lockmodel", "export", spec, "--to", form, "--output", str(file), *options]
