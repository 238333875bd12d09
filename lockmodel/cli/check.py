"""`lockmodel check`: decide each spec, report it, and say by the exit code whether all is as expected."""

from __future__ import annotations

from typing import Annotated

import typer

from lockmodel.cli.common import (
    ExitCode,
    MaxStatesOption,
    OutputOption,
    SetOption,
    SpecArguments,
    TimeoutOption,
    WorkersOption,
    complain,
    one_of,
    seconds,
    size,
    whole_number,
    worst,
)
from lockmodel.cli.files import check_output, find_specs, read_spec
from lockmodel.cli.progress import Ticker
from lockmodel.cli.reporters import FORMATS, reporter, targets
from lockmodel.cli.startup import importing
from lockmodel.errors import LockmodelError

MemoryOption = Annotated[
    str | None,
    typer.Option("--memory", metavar="SIZE", help="Give up a search at this size (if left out, half of the memory)."),
]
EngineOption = Annotated[
    str,
    typer.Option("--engine", metavar="NAME", help="Search with auto, reference, rows, dense or hashed."),
]
SymmetryOption = Annotated[
    bool, typer.Option("--symmetry", help="Count states that differ only in which worker is where as one.")
]
PartialOrderOption = Annotated[
    bool, typer.Option("--partial-order", help="Leave out orders that can't matter for deadlocks.")
]
AllOption = Annotated[bool, typer.Option("--all", help="Show all kinds of deadlock, not only the shortest.")]
FormatOption = Annotated[
    list[str] | None,
    typer.Option(
        "--format",
        metavar="NAME[=FILE]",
        help=f"{', '.join(FORMATS)}; several at once, each into a FILE of its own.",
        autocompletion=lambda: list(FORMATS),
    ),
]
HtmlOption = Annotated[
    str | None,
    typer.Option("--html", metavar="FILE", help="Also write a page with pictures and an explorer."),
]


def register(app: typer.Typer) -> None:
    app.command("check")(check)


def check(
    specs: SpecArguments = None,
    settings: SetOption = None,
    workers: WorkersOption = None,
    max_states: MaxStatesOption = None,
    timeout: TimeoutOption = None,
    memory: MemoryOption = None,
    engine: EngineOption = "auto",
    symmetry: SymmetryOption = False,
    partial_order: PartialOrderOption = False,
    every: AllOption = False,
    formats: FormatOption = None,
    output: OutputOption = None,
    html: HtmlOption = None,
) -> int:
    """Decide for each spec whether its transactions can deadlock."""
    with importing():
        from lockmodel.checker import check as decide
        from lockmodel.engines import ENGINES, EngineOptions
        from lockmodel.exploration import INTERRUPTED, Limits
        from lockmodel.overrides import parse_overrides
        from lockmodel.report.json import Failure
    asked = targets(formats or (), output, html)
    overrides = parse_overrides(settings or (), workers or ())
    options = EngineOptions(one_of("--engine", engine, ENGINES), symmetry, partial_order)
    limits = Limits(
        max_states=whole_number("--max-states", max_states),
        timeout_seconds=seconds("--timeout", timeout),
        memory_bytes=size("--memory", memory),
    )
    files = find_specs(specs or ())
    for target in asked:
        check_output(target.output, [found.file for found in files], target.option)
    with importing():
        report = reporter(asked, several=len(files) > 1)
    codes: list[int] = []
    unchecked: list[str] = []
    for number, found in enumerate(files, start=1):
        try:
            spec = read_spec(found)
            with Ticker(spec.source.file) as ticker:
                result = decide(spec, overrides, limits, engine=options, progress=ticker, every=every)
        except LockmodelError as error:
            complain(error)
            codes.append(ExitCode.BAD_INPUT)
            report.fail(Failure(found.name, error))
            continue
        codes.append(result.exit_code)
        report.add(result)
        if any(exploration.stopped == INTERRUPTED for exploration in result.explorations):
            unchecked = [left.name for left in files[number:]]
            break
    report.end(unchecked)
    return worst([*codes, *[ExitCode.UNDECIDED] * len(unchecked)])
