"""The result of one benchmark: a table for people, and the same figures as data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.process import Measured


@dataclass(frozen=True)
class Section:
    """A table: its key (what `--only` takes), a title, sentences about it, and its rows as texts. `figures` has the numbers."""

    key: str
    title: str
    notes: Sequence[str]
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    figures: Sequence[dict[str, Any]] = field(default_factory=list)


def skipped(key: str, title: str, why: str) -> Section:
    """A benchmark that can't be run here."""
    return Section(key, title, [f"Not measured: {why}"])


COLUMNS = (
    "checker",
    "states",
    "time, min",
    "median",
    "states/s",
    "ratio",
    "search alone",
    "ratio",
    "peak memory",
    "bytes/state",
    "ratio",
)


def comparison(key: str, title: str, notes: Sequence[str], measured: Sequence[Measured]) -> Section:
    """A table in which the ratios are to the first entry; speeds are those of the fastest run."""
    base = measured[0]
    base_rate = base.counts.states / base.seconds_min
    base_bytes = base.peak_bytes / base.counts.states
    rows, figures = [], []
    for one in measured:
        rate, per_state = one.counts.states / one.seconds_min, one.peak_bytes / one.counts.states
        rows.append(
            [
                one.name + (f" ({one.counts.detail})" if one.counts.detail else ""),
                f"{one.counts.states:,}",
                f"{one.seconds_min:.2f} s",
                f"{one.seconds_median:.2f} s",
                f"{rate:,.0f}",
                ratio(rate / base_rate),
                *_search(one, base),
                f"{one.peak_bytes / 2**20:,.0f} MiB",
                f"{per_state:.1f}",
                ratio(per_state / base_bytes),
            ]
        )
        figures.append(
            {
                "checker": one.name,
                "detail": one.counts.detail,
                "states": one.counts.states,
                "transitions": one.counts.transitions,
                "depth": one.counts.depth,
                "seconds": [round(run.seconds, 3) for run in one.runs],
                "search_seconds": one.search_seconds,
                "cpu_seconds": [round(run.cpu_seconds, 3) for run in one.runs],
                "peak_bytes": [run.peak_bytes for run in one.runs],
                "states_per_second": round(rate),
                "states_per_second_ratio": rate / base_rate,
                "bytes_per_state": per_state,
                "bytes_per_state_ratio": per_state / base_bytes,
            }
        )
    return Section(key, title, notes, COLUMNS, rows, figures)


def _search(one: Measured, base: Measured) -> tuple[str, str]:
    """The fastest search by the checker's own clock, and how many times the states per second of the first entry's that is."""
    if not one.search_seconds:
        return "-", "-"
    mine = max(min(one.search_seconds), 0.001)
    if not base.search_seconds:
        return f"{mine:.2f} s", "-"
    return f"{mine:.2f} s", ratio(max(min(base.search_seconds), 0.001) / mine)


def ratio(value: float) -> str:
    """`1/23` or `4.1x`: a ratio as one says it."""
    if value >= 1:
        return f"{value:.0f}x" if value >= 20 else f"{value:.1f}x"
    return f"1/{1 / value:.0f}" if value <= 1 / 20 else f"1/{1 / value:.1f}"
