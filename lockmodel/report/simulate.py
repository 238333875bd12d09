"""What a simulation says, for people and for programs."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from rich import box
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table

from lockmodel.deadlocks import DeadlockGroup, Deadlocks
from lockmodel.errors import one_line
from lockmodel.explanation import explain
from lockmodel.overrides import Overrides, arguments
from lockmodel.report import json as json_report
from lockmodel.report import terminal, words
from lockmodel.report.grammar import listed, plural, sentence
from lockmodel.report.page import Page, text
from lockmodel.semantics import Crew
from lockmodel.simulation.minimize import switches
from lockmodel.simulation.simulator import DEFAULT_ROUNDS, Found, Simulation
from lockmodel.simulation.strategies import bound
from lockmodel.spec import Spec
from lockmodel.system import NO_DEADLOCK, System
from lockmodel.verdict import CheckResult, Outcome, Verdict, compare

_INDENT = 2


@dataclass(frozen=True)
class Judged:
    """A simulation and what it means for the spec: `best` is the violation that decides, the one expected if that is among them."""

    simulation: Simulation
    overrides: Overrides
    results: tuple[CheckResult, ...]
    """One for each kind of violation; or, if there is none, the one that nothing is decided."""

    @property
    def best(self) -> CheckResult:
        return next((result for result in self.results if result.exit_code == 0), self.results[0])

    @property
    def exit_code(self) -> int:
        return self.best.exit_code


def judge(spec: Spec, overrides: Overrides, system: System, simulation: Simulation, seconds: float) -> Judged:
    """Compare what a simulation found with what the spec expects. Finding nothing decides nothing."""
    results = [_result(spec, overrides, system, found, seconds) for found in simulation.found]
    if not results:
        reason = f"{_schedules(simulation)} of {words_of(simulation.crew)} found nothing, which proves nothing"
        verdict = Verdict(Outcome.UNDECIDED, reason=reason)
        results = [CheckResult(spec, overrides, system, verdict, None, (), None, None, None, seconds)]
    return Judged(simulation, overrides, tuple(results))


def _result(spec: Spec, overrides: Overrides, system: System, found: Found, seconds: float) -> CheckResult:
    workers = found.trace.crew
    verdict = Verdict(Outcome.VIOLATED, words_of(workers), found.violated)
    view = explain(system, found.trace)
    return CheckResult(
        spec=spec,
        overrides=replace(overrides, workers=_counts(system, workers)),
        system=system,
        verdict=verdict,
        unmet=compare(spec, verdict, found.trace, view),
        explorations=(),
        certificate=None,
        trace=found.trace,
        view=view,
        seconds=seconds,
    )


def _counts(system: System, workers: Crew) -> int | Mapping[str, int | None]:
    """`--workers` for a trace of `workers`."""
    if [role.name for role in system.roles] == ["worker"]:
        return len(workers)
    return {role.name: workers.roles.count(role.name) for role in system.roles}


def words_of(workers: Crew) -> str:
    """`4 workers`, or `5 workers (1 cron, 4 runner)`."""
    counts = Counter(workers.roles)
    inner = ", ".join(f"{count} {role}" for role, count in counts.items())
    return plural(len(workers), "worker") + (f" ({inner})" if len(counts) > 1 else "")


def _schedules(simulation: Simulation) -> str:
    return f"{plural(simulation.schedules, 'random schedule')}"


# For people


def text_report(judged: Judged, page: Page) -> str:
    """The verdict, how often what was found, a trace of each kind, and what was covered."""
    simulation = judged.simulation
    parts: list[RenderableType] = [*terminal.head(judged.best, page), ""]
    parts += [_paragraph(line) for line in _frequency(simulation)]
    if len(simulation.found) > 1:
        parts += ["", Padding(_groups(simulation), (0, 0, 0, _INDENT - 1))]
    for number, result in enumerate(judged.results, start=1):
        if result.trace is not None:
            if len(judged.results) > 1:
                parts += ["", _paragraph(f"{number}. {sentence(words.headline(result))}", "bold")]
            parts += terminal.evidence(result, page)
    parts += ["", *(_paragraph(line, "dim") for line in (*_coverage(judged), *_bound(simulation)))]
    report = page.render(*parts)
    return report + page.fit(f"  Repeat it: {one_line(_command(judged), limit=5_000)}\n")


def _frequency(simulation: Simulation) -> list[str]:
    plan = simulation.plan
    how = "uniformly random" if plan.strategy == "random" else f"by random priorities (PCT, depth {plan.depth})"
    ran = f"{_schedules(simulation)} of {words_of(simulation.crew)}, {how}: {plural(simulation.steps, 'step')}"
    stopped = "; interrupted" if simulation.interrupted else ""
    low, high = simulation.interval
    share = simulation.violations / simulation.schedules if simulation.schedules else 0.0
    often = (
        f"{simulation.violations:,} of them ended in a violation: {percent(share)}; "
        f"95 % confidence {percent(low)} to {percent(high)}."
    )
    return [f"{ran}{stopped}. {often}"]


def percent(share: float) -> str:
    """A share for a person: `0.37 %`."""
    if share in (0.0, 1.0):
        return f"{share * 100:.0f} %"
    return f"{share * 100:.3g} %"


def _groups(simulation: Simulation) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, header_style="bold")
    table.add_column("", justify="right")
    table.add_column("violation", overflow="fold")
    for name in ("schedules", "first in", "steps", "switches"):
        table.add_column(name, justify="right")
    for number, found in enumerate(simulation.found, start=1):
        table.add_row(
            str(number), text(_group_words(found)), f"{found.count:,}", f"{found.first:,}",
            str(len(found.trace.actions)), str(switches(found.trace)),
        )  # fmt: skip
    return table


def _group_words(found: Found) -> str:
    violated, transactions, families = found.group
    if violated != NO_DEADLOCK:
        return violated
    return f"deadlock {words.between(transactions)} on {listed(families)}"


def _coverage(judged: Judged) -> list[str]:
    simulation = judged.simulation
    system = judged.best.compiled
    missing = Counter(
        location.transaction or "idle" for location in system.locations if location.index not in simulation.reached
    )
    reached = f"Reached {len(simulation.reached):,} of {simulation.locations:,} places that a worker alone can come to"
    if missing:
        reached += "; not reached: " + listed(f"{count} in {name}" for name, count in missing.most_common())
    unseen = sorted(simulation.possible_waits - simulation.waits)
    waits = f"Saw {len(simulation.waits):,} of {len(simulation.possible_waits):,} waits that the modes allow between transactions"
    if unseen:
        waits += "; not seen: " + listed(f"{mine} for {theirs}'s {family}" for mine, family, theirs in unseen)
    return [sentence(reached), sentence(waits)]


def _bound(simulation: Simulation) -> list[str]:
    plan = simulation.plan
    if plan.strategy != "pct":
        return []
    workers, depth = len(simulation.crew), plan.depth
    least = bound(workers, simulation.longest, depth)
    power = f"{simulation.longest}^{depth - 1}"
    missed = (1 - least) ** simulation.schedules
    return [
        (
            f"PCT: a bug of depth {depth} is found by each schedule with a probability of at least 1/({workers} · {power}) = "
            f"{percent(least)}, given the parameters it draws; {simulation.schedules:,} schedules miss it with at most {percent(missed)}."
        )
    ]


def _command(judged: Judged) -> str:
    plan = judged.simulation.plan
    result = judged.results[0]
    file = result.spec.source.file
    shown = ["lockmodel", "simulate", "-" if file == "<stdin>" else file]
    shown += arguments(judged.overrides)
    if plan.strategy != "random":
        shown += ["--strategy", plan.strategy, "--depth", str(plan.depth)]
    shown += ["--rounds", str(plan.rounds)] if plan.rounds != DEFAULT_ROUNDS else []
    shown += ["--steps", str(plan.steps)] if plan.steps else []
    return shlex.join([*shown, "--schedules", str(judged.simulation.schedules), "--seed", str(plan.seed)])


def _paragraph(line: str, style: str = "") -> Padding:
    return Padding(text(line, style), (0, 0, 0, _INDENT))


# For programs


def document(judged: Judged) -> str:
    """The JSON report of a check, with all deadlocks found and a `simulation` beside the result: `replay` takes it."""
    simulation = judged.simulation
    groups = [
        DeadlockGroup(found.group[1], found.group[2], found.count, found.trace)
        for found in simulation.found
        if found.violated == NO_DEADLOCK
    ]
    best = replace(judged.best, deadlocks=Deadlocks(tuple(groups), "random schedules prove no absence"))
    data = json.loads(json_report.report([best]))
    plan = simulation.plan
    data["simulation"] = {
        "seed": plan.seed,
        "strategy": plan.strategy,
        "depth": plan.depth if plan.strategy == "pct" else None,
        "bound": simulation.bound if plan.strategy == "pct" else None,
        "rounds": plan.rounds,
        "most_steps": simulation.longest,
        "workers": dict(Counter(simulation.crew.roles)),
        "schedules": simulation.schedules,
        "steps": simulation.steps,
        "interrupted": simulation.interrupted,
        "violations": simulation.violations,
        "confidence_95": list(simulation.interval),
        "found": [
            {
                "violated": found.violated,
                "transactions": list(found.group[1]),
                "resources": list(found.group[2]),
                "schedules": found.count,
                "first": found.first,
                "steps": len(found.trace.actions),
            }
            for found in simulation.found
        ],
        "coverage": {
            "locations": [len(simulation.reached), simulation.locations],
            "waits": [len(simulation.waits), len(simulation.possible_waits)],
        },
    }
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"
