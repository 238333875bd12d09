"""Runs a command to its end and says how long it took and how much memory it had at most."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

_UNIT = 1 if sys.platform == "darwin" else 1024
"""Of `ru_maxrss`, in bytes."""


class BenchmarkError(Exception):
    """A command that failed, or whose answer is not what it must be; `str()` says which and how."""


@dataclass(frozen=True)
class Run:
    """One process from its start to its end: wall time, processor time of all its threads, and its largest resident memory."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    output: str
    timed_out: bool = False


def run(command: Sequence[str], folder: Path, timeout_seconds: float = 3_600.0, accept: Collection[int] = (0,)) -> Run:
    """Run `command` in `folder`; a run that takes too long is ended and says so.

    Raises BenchmarkError if it ends with an exit code that is not in `accept`.
    """
    with tempfile.TemporaryFile() as stream:
        started = perf_counter()
        process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT
        )
        timer = threading.Timer(timeout_seconds, process.kill)
        timer.start()
        try:
            # Not `Popen.wait`, which keeps no account of this one child.
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()  # Interrupted: a search that nobody waits for must not go on.
            raise
        finally:
            timed_out = not timer.is_alive()
            timer.cancel()
        seconds = perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        stream.seek(0)
        output = stream.read().decode(errors="replace")
    if process.returncode not in accept and not timed_out:
        raise BenchmarkError(f"{' '.join(command)} ended with {process.returncode}: {output[-1_000:]}")
    return Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * _UNIT, output, timed_out)


@dataclass(frozen=True)
class Counts:
    """What a search found; None: the checker does not say."""

    states: int
    transitions: int | None = None
    depth: int | None = None
    detail: str = ""
    search_seconds: float | None = None
    """What the checker itself says that the search took, without its start."""

    def agrees(self, other: Counts) -> bool:
        pairs = ((self.states, other.states), (self.transitions, other.transitions), (self.depth, other.depth))
        return all(one is None or two is None or one == two for one, two in pairs)


@dataclass(frozen=True)
class Contender:
    """One way to get an answer: a command, and how to read its counts. `repetitions` caps how often it is run (None: no cap)."""

    name: str
    command: Sequence[str]
    folder: Path
    read: Callable[[str], Counts]
    repetitions: int | None = None


@dataclass
class Measured:
    """The runs of a contender. Every run gave the same counts."""

    name: str
    counts: Counts
    runs: list[Run] = field(default_factory=list)
    search_seconds: list[float] = field(default_factory=list)

    @property
    def seconds_min(self) -> float:
        return min(run.seconds for run in self.runs)

    @property
    def seconds_median(self) -> float:
        return statistics.median(run.seconds for run in self.runs)

    @property
    def peak_bytes(self) -> int:
        """The median: a run's peak hardly differs from that of the next."""
        return int(statistics.median(run.peak_bytes for run in self.runs))


def compare(contenders: Sequence[Contender], repetitions: int, say: Callable[[str], None]) -> list[Measured]:
    """Run all contenders in turn, `repetitions` times, so that a slow minute of the machine hits them all.

    Raises BenchmarkError where counts differ: figures for different work are no comparison.
    """
    measured: dict[str, Measured] = {}
    for repetition in range(repetitions):
        for contender in contenders:
            if contender.repetitions is not None and repetition >= contender.repetitions:
                continue
            one = run(contender.command, contender.folder)
            counts = contender.read(one.output)
            say(f"{contender.name}: {counts.states:,} states, {one.seconds:.2f} s, {one.peak_bytes / 2**20:,.0f} MiB")
            entry = measured.setdefault(contender.name, Measured(contender.name, counts))
            entry.runs.append(one)
            if counts.search_seconds is not None:
                entry.search_seconds.append(counts.search_seconds)
            for other in measured.values():
                if not other.counts.agrees(counts):
                    raise BenchmarkError(f"{contender.name} counted {counts}, but {other.name} {other.counts}")
    return list(measured.values())
