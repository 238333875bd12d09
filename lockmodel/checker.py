"""`check`: from a spec to a verdict. It chooses the engine and compares the outcome with what the spec expects."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from lockmodel.compiler import compile_spec
from lockmodel.engines import EngineOptions, search
from lockmodel.explanation import explain
from lockmodel.exploration import INTERRUPTED, Exploration, Limits, Progress
from lockmodel.overrides import Overrides, apply
from lockmodel.prover import Certificate, prove
from lockmodel.semantics import Crew, crew
from lockmodel.spec import Spec
from lockmodel.system import System
from lockmodel.verdict import CheckResult, Outcome, Verdict, compare

ANY_COUNTS = (2, 3, 4)
"""The numbers of workers that a search tries where the spec says `any`."""


def check(
    spec: Spec,
    overrides: Overrides | None = None,
    limits: Limits | None = None,
    *,
    engine: EngineOptions | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> CheckResult:
    """Decide whether all properties of `spec` hold.

    Where the number of workers is open, a proof for any number is tried first; then, or else, a search with few workers.
    Raises SpecError and UsageError for what is wrong with the spec or the overrides.
    """
    started = time.monotonic()
    overrides = overrides or Overrides()
    limits = limits or Limits()
    spec = apply(spec, overrides)
    system = compile_spec(spec)
    open_number = any(role.count is None for role in system.roles)
    certificate = prove(system)
    explorations: list[Exploration] = []
    for count in ANY_COUNTS if open_number else (1,):
        left = replace(limits, spent_seconds=time.monotonic() - started)
        explorations.append(search(system, crew(system, count), left, options=engine, progress=progress))
        latest = explorations[-1]
        if latest.violation or not latest.complete or _settled(system, certificate):
            break
    verdict = _verdict(system, certificate, explorations, open_number)
    violation = explorations[-1].violation
    trace = violation.trace if violation else None
    view = explain(system, trace) if trace else None
    return CheckResult(
        spec=spec,
        overrides=overrides,
        system=system,
        verdict=verdict,
        unmet=compare(spec, verdict, trace, view),
        explorations=tuple(explorations),
        certificate=certificate,
        trace=trace,
        view=view,
        seconds=time.monotonic() - started,
    )


def _settled(system: System, certificate: Certificate | None) -> bool:
    """Whether a certificate answers all that the spec asks."""
    return certificate is not None and not system.properties and not system.no_global_stall


def _verdict(
    system: System, certificate: Certificate | None, explorations: list[Exploration], open_number: bool
) -> Verdict:
    latest = explorations[-1]
    if latest.violation:
        return Verdict(Outcome.VIOLATED, how_many(latest.crew), latest.violation.property)
    if _settled(system, certificate):
        return Verdict(Outcome.HOLDS, "any number of workers")
    covered = [exploration for exploration in explorations if exploration.complete]
    if not latest.complete:
        reason = f"{latest.stopped} with {how_many(latest.crew)}"
        if latest.stopped == INTERRUPTED:
            reason = f"interrupted while searching {how_many(latest.crew)}"
        return Verdict(
            Outcome.UNDECIDED, reason=reason + (f"; holds for {how_many(covered[-1].crew)}" if covered else "")
        )
    if open_number:
        reason = f"holds for up to {how_many(latest.crew)}, but is not proved for any number"
        return Verdict(Outcome.UNDECIDED, reason=reason)
    return Verdict(Outcome.HOLDS, how_many(latest.crew))


def how_many(workers: Crew) -> str:
    """`2 workers`, or with roles `1 producer and 3 consumers`-like counts: `producer 1, consumer 3`."""
    roles = list(dict.fromkeys(workers.roles))
    if roles == ["worker"]:
        return f"{len(workers)} worker" + ("s" if len(workers) != 1 else "")
    return ", ".join(f"{workers.roles.count(role)} {role}" for role in roles)
