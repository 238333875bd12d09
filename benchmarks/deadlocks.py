"""`python -m benchmarks.deadlocks`: the deadlocks from public reports, found and replayed on one server after another; prints a table.

`--render` also puts it into docs/deadlocks.md. What the table says besides times and servers follows from the specs, which
tests/test_real_deadlocks.py checks.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.ours import ROOT
from benchmarks.report import text
from benchmarks.section import Section
from lockmodel.checker import check
from lockmodel.parser import load, load_any
from lockmodel.replay.scenarios import run
from lockmodel.replay.server import EmbeddedServer
from lockmodel.scenario import Scenario

SPECS = ROOT / "specs" / "real"
SCENARIOS = ROOT / "scenarios" / "real"
DOCUMENT = ROOT / "docs" / "deadlocks.md"
COLUMNS = ("spec", "report", "what happens", "waits for", "workers", "states", "found in", "confirmed on PostgreSQL")
REPETITIONS = 3
_REPORT = re.compile(r"[\w.-]+/[\w.-]+#\d+")
_BETWEEN = re.compile(r"(?<=<!-- table -->\n).*?(?=<!-- end -->)", re.DOTALL)


@dataclass(frozen=True)
class Facts:
    """What a spec, its scenario and its check say of a reported deadlock.

    `waits_for`: the families of resources that its workers wait for; `states`: on the shortest trace, the initial one included.
    """

    spec: str
    report: str
    happens: str
    waits_for: tuple[str, ...]
    workers: int
    states: int
    seconds: float = field(compare=False)

    def cells(self) -> tuple[str, ...]:
        """All but time and servers."""
        return (self.spec, self.report, self.happens, ", ".join(self.waits_for), str(self.workers), str(self.states))


def reported() -> list[Path]:
    """The specs of the reports, without those of the fixes."""
    return sorted(path for path in SPECS.glob("*.yaml") if not path.stem.endswith("-fixed"))


def facts(path: Path) -> Facts:
    """Check the spec `path`. Raises AssertionError if nothing is found."""
    results = [check(load(path)) for _ in range(REPETITIONS)]
    result = results[0]
    assert result.trace is not None and result.view is not None, path
    view = result.view
    # A stall has no cycle: all who are in a transaction have their part in it.
    involved = [view.final[worker] for worker in view.cycle] or [one for one in view.final if one.transaction]
    families = {worker.wants.resource.partition("[")[0] for worker in involved if worker.wants}
    scenario = _scenario(path.stem)
    report = _REPORT.search(path.read_text(encoding="utf-8"))
    assert report is not None, f"{path}: its first line names the report"
    return Facts(
        path.stem,
        report[0],
        scenario.scenario.rstrip("."),
        tuple(sorted(families)),
        len(involved),
        len(result.trace),
        min(one.seconds for one in results),
    )


def confirmed(name: str, dsn: str) -> bool:
    """Whether the server behind `dsn` does what the two scenarios of `name` say, that of the report and that of its fix."""
    return all(run(_scenario(stem), dsn).unmet is None for stem in (name, f"{name}-fixed"))


def table(found: Iterable[Facts], servers: dict[str, list[str]]) -> Section:
    """`servers`: for each spec, the versions on which it was confirmed."""
    rows = [(*one.cells(), f"{one.seconds * 1000:.0f} ms", ", ".join(servers[one.spec]) or "none") for one in found]
    return Section("deadlocks", "Deadlocks that really happened", (), COLUMNS, tuple(rows))


def markdown(section: Section) -> str:
    rows: list[Sequence[str]] = [section.columns, ["---"] * len(section.columns), *section.rows]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def render(document: str, section: Section) -> str:
    """`document` with the table between its marks `<!-- table -->` and `<!-- end -->`."""
    rendered, count = _BETWEEN.subn(lambda _: markdown(section), document)
    assert count == 1, "the document has one place for the table"
    return rendered


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.deadlocks", description=__doc__)
    parser.add_argument(
        "--bin",
        action="append",
        metavar="FOLDER",
        help="a server's programs; can be given several times (else: the embedded one)",
    )
    parser.add_argument("--render", action="store_true", help="put the table into docs/deadlocks.md")
    options = parser.parse_args()
    found = [facts(path) for path in reported()]
    servers: dict[str, list[str]] = {one.spec: [] for one in found}
    for folder in options.bin or [None]:
        with EmbeddedServer.start(None if folder is None else Path(folder)) as server:
            for one in found:
                print(f"  … {one.spec} on PostgreSQL {server.version}", file=sys.stderr, flush=True)
                if confirmed(one.spec, server.dsn):
                    servers[one.spec].append(server.version)
    section = table(found, servers)
    print(text(section))
    if options.render:
        DOCUMENT.write_text(render(DOCUMENT.read_text(encoding="utf-8"), section), encoding="utf-8")
    return 0 if all(len(versions) == len(options.bin or [None]) for versions in servers.values()) else 1


def _scenario(stem: str) -> Scenario:
    found = load_any(SCENARIOS / f"{stem}.yaml")
    assert isinstance(found, Scenario)
    return found


if __name__ == "__main__":
    sys.exit(main())
