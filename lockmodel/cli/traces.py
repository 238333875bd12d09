"""The trace that a command is about: one in a file that `--trace` names, or the one that a check finds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lockmodel.cli.progress import Ticker
from lockmodel.errors import UsageError

if TYPE_CHECKING:
    from lockmodel.exploration import Limits
    from lockmodel.overrides import Overrides
    from lockmodel.report.trace_file import LoadedTrace
    from lockmodel.spec import Spec
    from lockmodel.verdict import CheckResult

TraceOption = Annotated[
    str | None,
    typer.Option(
        "--trace", metavar="FILE", help="The trace in FILE (a JSON report, or ITF) instead of the one that check finds."
    ),
]
DeadlockOption = Annotated[
    str | None,
    typer.Option("--deadlock", metavar="N", help="Of a report of all deadlocks (check --all), number N."),
]


def given_trace(spec: Spec, file: str, overrides: Overrides, deadlock: int | None = None) -> LoadedTrace:
    """The trace of `spec` in `file`; without overrides on the command line, with those of the file. Raises a LockmodelError."""
    from lockmodel.report.trace_file import SeveralTraces, read_trace_of

    try:
        text = Path(file).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UsageError(f"--trace {file}: {getattr(error, 'strerror', None) or error}") from None
    try:
        return read_trace_of(spec, text, file, overrides, deadlock=deadlock)
    except SeveralTraces as error:
        raise UsageError(f"{error} (they have the same name; write a report of one)") from None


def found_trace(spec: Spec, overrides: Overrides, limits: Limits) -> CheckResult | None:
    """The result of a check of `spec`, if it has a trace."""
    from lockmodel.checker import check

    with Ticker(spec.source.file) as ticker:
        result = check(spec, overrides, limits, progress=ticker)
    return None if result.trace is None else result
