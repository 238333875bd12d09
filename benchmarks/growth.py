"""The proof for any number of workers as stripes and slots grow: time and memory of whole processes."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks.ours import ROOT, check_command, result_of
from benchmarks.process import run
from benchmarks.section import Section, ratio

KEY = "growth"
SPEC = "specs/awa/storage.yaml"
COLUMNS = (
    "stripes",
    "slots (ready, lease, claim)",
    "workers",
    "verdict",
    "time, min",
    "median",
    "ratio",
    "peak memory",
    "ratio",
)
_TIMEOUT_SECONDS = 120.0


@dataclass(frozen=True)
class Size:
    stripes: int
    slots: tuple[int, int, int]
    workers: str = "any"

    def options(self) -> Iterator[str]:
        """The constants of the spec as options of `lockmodel check`."""
        stripes = [f"q1#{number}" for number in range(self.stripes)]
        sets = {"queue": ",".join(["q1", *stripes]), "stripe": ",".join(stripes)}
        sets |= {
            name: str(count) for name, count in zip(("ready_slot", "lease_slot", "claim_slot"), self.slots, strict=True)
        }
        for name, value in sets.items():
            yield from ("--set", f"{name}={value}")
        yield from ("--workers", self.workers)


SIZES = [
    *(Size(stripes, (2, 2, 2)) for stripes in (2, 4, 8, 16, 32, 64)),
    *(Size(2, slots) for slots in ((4, 2, 2), (8, 4, 4), (16, 8, 8))),
    Size(16, (8, 4, 4)),
    Size(64, (16, 8, 8)),
    Size(64, (16, 8, 8), "256"),
]


def section(quick: bool, repetitions: int, say: Callable[[str], None]) -> Section:
    """Each size, one after the other; quick: the smallest and the largest."""
    sizes = [SIZES[0], SIZES[-2], SIZES[-1]] if quick else SIZES
    runs: dict[Size, list[tuple[float, int, str]]] = {size: [] for size in sizes}
    for _ in range(repetitions):
        for size in sizes:
            one = run(check_command(SPEC, *size.options()), ROOT, _TIMEOUT_SECONDS, accept=(0, 1, 3))
            verdict = f"no answer in {_TIMEOUT_SECONDS:.0f} s" if one.timed_out else _verdict(one.output)
            say(f"{size.stripes} stripes, slots {size.slots}, {size.workers} workers: {verdict}, {one.seconds:.2f} s")
            runs[size].append((one.seconds, one.peak_bytes, verdict))
    first_seconds = min(seconds for seconds, _, _ in runs[sizes[0]])
    first_bytes = statistics.median(peak for _, peak, _ in runs[sizes[0]])
    rows, figures = [], []
    for size in sizes:
        seconds = [one for one, _, _ in runs[size]]
        peak = statistics.median(one for _, one, _ in runs[size])
        verdict = runs[size][-1][2]
        rows.append(
            [
                str(size.stripes),
                ", ".join(map(str, size.slots)),
                size.workers,
                verdict,
                f"{min(seconds):.2f} s",
                f"{statistics.median(seconds):.2f} s",
                ratio(min(seconds) / first_seconds),
                f"{peak / 2**20:,.0f} MiB",
                ratio(peak / first_bytes),
            ]
        )
        figures.append(
            {
                "stripes": size.stripes,
                "slots": list(size.slots),
                "workers": size.workers,
                "verdict": verdict,
                "seconds": [round(one, 3) for one in seconds],
                "peak_bytes": [one for _, one, _ in runs[size]],
            }
        )
    notes = ["Whole processes, Python's start included. Ratios are to the first row."]
    return Section(KEY, f"Proof for any number of workers: {SPEC}", notes, COLUMNS, rows, figures)


def _verdict(output: str) -> str:
    result = result_of(output)
    searched = ", ".join(f"{search['states']:,} states searched" for search in result["searches"])
    return f"{result['verdict']}, {result['scope']}" + (f" ({searched})" if searched else "")
