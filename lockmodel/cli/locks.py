"""`lockmodel locks`: which locks each statement of a spec takes."""

from __future__ import annotations

import sys

import typer

from lockmodel.cli.common import ExitCode, SetOption, SpecArguments, complain, worst, write
from lockmodel.cli.files import find_specs, read_spec
from lockmodel.cli.startup import importing
from lockmodel.errors import LockmodelError
from lockmodel.report.page import Page


def register(app: typer.Typer) -> None:
    app.command("locks")(locks)


def locks(specs: SpecArguments = None, settings: SetOption = None) -> int:
    """Print the locks of each statement, with those that foreign keys and triggers add."""
    with importing():
        from lockmodel.overrides import apply, parse_overrides
        from lockmodel.report.locks import report
        from lockmodel.resolver import resolve
    overrides = parse_overrides(settings or (), ())
    codes: list[int] = []
    for found in find_specs(specs or ()):
        try:
            spec = apply(read_spec(found), overrides)
            page = Page.of(sys.stdout)
            write(sys.stdout, ("\n" if codes else "") + report(found.name, spec, resolve(spec), page))
            codes.append(ExitCode.EXPECTED)
        except LockmodelError as error:
            complain(error)
            codes.append(ExitCode.BAD_INPUT)
    return worst(codes)
