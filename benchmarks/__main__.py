"""`python -m benchmarks`: measures, prints every figure as a ratio from one run, and writes them as JSON."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from benchmarks import engines, growth, spin, tlc
from benchmarks.machine import load, machine
from benchmarks.ours import ROOT
from benchmarks.process import BenchmarkError
from benchmarks.report import as_json, render, text
from benchmarks.section import Section

DOCUMENT = ROOT / "docs" / "benchmarks.md"
SECTIONS: dict[str, Callable[[bool, int, Callable[[str], None]], Section]] = {
    **{key: partial(spin.section, key) for key in spin.WAYS},
    **{key: partial(tlc.section, key) for key in tlc.MODELS},
    growth.KEY: growth.section,
    **{key: partial(engines.section, key) for key in engines.MODELS},
}
SLOW = ("spin-automaton",)
"""Sections that are measured only by name: more than ten minutes for one figure."""


def main() -> int:
    options = _options()
    if options.render:
        results = json.loads(Path(options.render).read_text(encoding="utf-8"))
        DOCUMENT.write_text(render(DOCUMENT.read_text(encoding="utf-8"), results), encoding="utf-8")
        return 0
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    results = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "quick": options.quick, "machine": machine(), "sections": []}
    print(", ".join(f"{name} {value}" for name, value in machine().items()), end="\n\n")
    try:
        for key in options.only or [key for key in SECTIONS if key not in SLOW]:
            before = load()
            section = SECTIONS[key](options.quick, options.repetitions, _say)
            print(text(section), flush=True)
            results["sections"].append({**as_json(section), "load": [before, load()]})
    except BenchmarkError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        if options.json:
            Path(options.json).write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return 0


def _say(line: str) -> None:
    print(f"  … {line}", file=sys.stderr, flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure lockmodel beside other checkers."
    )
    parser.add_argument("--quick", action="store_true", help="small models: to see that everything runs")
    parser.add_argument(
        "--only", action="append", choices=list(SECTIONS), help="one section; can be given several times"
    )
    parser.add_argument(
        "--repetitions", type=_positive, default=None, metavar="N", help="of each measurement (5; quick: 1)"
    )
    parser.add_argument("--json", metavar="FILE", help="write all figures to FILE")
    parser.add_argument(
        "--render", metavar="FILE", help="only put the tables of an earlier FILE into docs/benchmarks.md"
    )
    options = parser.parse_args()
    options.repetitions = options.repetitions or (1 if options.quick else 5)
    return options


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("it must be 1 or more")
    return value


if __name__ == "__main__":
    sys.exit(main())
