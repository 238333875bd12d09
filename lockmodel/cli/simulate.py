"""`lockmodel simulate`: seeded random schedules of a spec that is too large to search."""

from __future__ import annotations

import secrets
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from lockmodel.cli.common import (
    ExitCode,
    OutputOption,
    SetOption,
    SpecArguments,
    TimeoutOption,
    WorkersOption,
    complain,
    one_of,
    seconds,
    whole_number,
    worst,
    write,
)
from lockmodel.cli.files import Found, check_output, deliver, find_specs, read_spec
from lockmodel.cli.startup import importing
from lockmodel.errors import LockmodelError, UsageError
from lockmodel.report.page import Page

if TYPE_CHECKING:
    from lockmodel.overrides import Overrides
    from lockmodel.simulation.simulator import Plan, Progress

_FORMATS = ("terminal", "json")
_STRATEGIES = ("random", "pct")
_MAX_SEED = 2**62
_SAY_EVERY_SECONDS = 0.5


def register(app: typer.Typer) -> None:
    app.command("simulate")(simulate)


def simulate(
    specs: SpecArguments = None,
    settings: SetOption = None,
    workers: WorkersOption = None,
    schedules: Annotated[
        str | None, typer.Option("--schedules", metavar="N", help="How many schedules (if left out, 1,000).")
    ] = None,
    duration: TimeoutOption = None,
    strategy: Annotated[
        str, typer.Option("--strategy", metavar="|".join(_STRATEGIES), help="Who goes next: anyone, or by priorities.")
    ] = "random",
    depth: Annotated[
        str | None, typer.Option("--depth", metavar="D", help="The bug depth that pct looks for (if left out, 3).")
    ] = None,
    rounds: Annotated[
        str | None, typer.Option("--rounds", metavar="N", help="Transactions of each worker (if left out, 3).")
    ] = None,
    steps: Annotated[str | None, typer.Option("--steps", metavar="K", help="The most steps of a schedule.")] = None,
    seed: Annotated[str | None, typer.Option("--seed", metavar="N", help="Repeat a simulation exactly.")] = None,
    form: Annotated[
        str, typer.Option("--format", metavar="|".join(_FORMATS), help="For people or for programs.")
    ] = "terminal",
    output: OutputOption = None,
) -> int:
    """Run random schedules of each spec: what they cover, how often they deadlock, and the shortest trace of each kind."""
    with importing():
        from lockmodel.overrides import parse_overrides
        from lockmodel.simulation.simulator import DEFAULT_DEPTH, DEFAULT_ROUNDS, DEFAULT_SCHEDULES, Plan
    one_of("--format", form, _FORMATS)
    overrides = parse_overrides(settings or (), workers or ())
    if depth is not None and strategy != "pct":
        raise UsageError("--depth is for --strategy pct")
    if schedules is not None and duration is not None:
        raise UsageError("give --schedules or --timeout, not both")
    plan = Plan(
        seed=_seed(seed),
        strategy=one_of("--strategy", strategy, _STRATEGIES),
        schedules=whole_number("--schedules", schedules, DEFAULT_SCHEDULES),
        seconds=seconds("--timeout", duration),
        rounds=whole_number("--rounds", rounds, DEFAULT_ROUNDS),
        steps=whole_number("--steps", steps),
        depth=whole_number("--depth", depth, DEFAULT_DEPTH),
    )
    files = find_specs(specs or ())
    check_output(output, [found.file for found in files])
    codes: list[int] = []
    documents: list[str] = []
    for found in files:
        try:
            code, text, interrupted = _one(found, overrides, plan, form, to_file=output is not None)
        except LockmodelError as error:
            complain(error)
            codes.append(ExitCode.BAD_INPUT)
            continue
        codes.append(code)
        documents.append(text)
        if interrupted:
            break
    if form == "json":
        document = documents[0] if len(documents) == 1 else "[" + ",\n".join(documents) + "]\n"
        deliver(document if documents else "[]\n", output)
    elif output is not None:
        deliver("\n".join(documents), output)
    else:
        write(sys.stdout, "\n".join(documents))
    return worst(codes)


def _one(found: Found, overrides: Overrides, plan: Plan, form: str, *, to_file: bool) -> tuple[int, str, bool]:
    """The exit code and the report of one spec, and whether it was interrupted."""
    with importing():
        from lockmodel.compiler import compile_spec
        from lockmodel.overrides import apply
        from lockmodel.report import simulate as report
        from lockmodel.semantics import crew
        from lockmodel.simulation.simulator import DEFAULT_WORKERS
        from lockmodel.simulation.simulator import simulate as run
    started = time.monotonic()
    spec = apply(read_spec(found), overrides)
    system = compile_spec(spec)
    simulation = run(system, crew(system, DEFAULT_WORKERS), plan, progress=_Says(spec.source.file))
    result = report.judge(spec, overrides, system, simulation, time.monotonic() - started)
    if form == "json":
        return result.exit_code, report.document(result), simulation.interrupted
    page = Page() if to_file else Page.of(sys.stdout)
    return result.exit_code, report.text_report(result, page), simulation.interrupted


def _seed(text: str | None) -> int:
    if text is None:
        return secrets.randbelow(10**6) + 1
    number = whole_number("--seed", text, 1)
    if number >= _MAX_SEED:
        raise UsageError(f"--seed {number}: at most {_MAX_SEED - 1}")
    return number


class _Says:
    """One line on a terminal's standard error that tells how far a long simulation is."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._silent = sys.stderr is None or not sys.stderr.isatty()
        self._last = time.monotonic()

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if self._silent or now - self._last < _SAY_EVERY_SECONDS:
            return
        self._last = now
        line = f"{progress.schedules:,} schedules, {progress.violations:,} violations; {progress.seconds:.0f} s; {self._file}"
        page = Page.of(sys.stderr)
        write(
            sys.stderr,
            "\r" + page.fit(line)[: page.width - 1].ljust(page.width - 1) + "\r" + " " * (page.width - 1) + "\r",
        )
