"""`lockmodel conform`: what real code locks, beside what the spec says."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from lockmodel.cli.common import ExitCode, SetOption, SpecArguments, complain, worst, write
from lockmodel.cli.files import Found, find_specs, read_spec
from lockmodel.cli.replay import DsnOption, quiet_psycopg
from lockmodel.cli.startup import INTERRUPTED, importing
from lockmodel.errors import LockmodelError
from lockmodel.report.page import Page


def register(app: typer.Typer) -> None:
    app.command("conform")(conform)


def conform(
    specs: SpecArguments = None,
    settings: SetOption = None,
    dsn: DsnOption = None,
    propose: Annotated[bool, typer.Option("--write", help="Also print the steps that would agree, as YAML.")] = False,
) -> int:
    """Run each transaction of a spec alone, its SQL or the code that it stands for, and compare their locks.

    Exit code 1 if they differ, 3 if not all ways of a transaction were run. The spec says what its resources are in the
    database (`stands for`) and where the code is (`replay`, `call`).
    """
    with importing():
        import lockmodel.report.conform
        from lockmodel.overrides import parse_overrides
        from lockmodel.replay.replayer import default_dsn, server
    quiet_psycopg()
    overrides = parse_overrides(settings or (), ())
    files = find_specs(specs or ())
    codes: list[int] = []

    def one(found: Found, address: str) -> int:
        from lockmodel.overrides import apply
        from lockmodel.replay.conformance import conform as compare
        from lockmodel.replay.plain_conformance import conform_plain
        from lockmodel.replay.replayer import run_to_the_end

        spec = apply(read_spec(found), overrides)
        result, version = run_to_the_end(lambda: (compare if spec.replay else conform_plain)(spec, address))
        page = Page.of(sys.stdout)
        write(sys.stdout, ("\n" if codes else "") + lockmodel.report.conform.report(found.name, result, version, page))
        drift = any(not one.conforms for one in result)
        if drift and propose:
            write(sys.stdout, "\n" + page.fit(lockmodel.report.conform.proposal(result)))
        if drift:
            return ExitCode.UNEXPECTED
        return ExitCode.UNDECIDED if lockmodel.report.conform.incomplete(result) else ExitCode.EXPECTED

    try:
        with server(default_dsn() if dsn is None else dsn) as address:
            for found in files:
                try:
                    codes.append(one(found, address))
                except LockmodelError as error:
                    complain(error)
                    codes.append(ExitCode.BAD_INPUT)
    except KeyboardInterrupt:
        complain("lockmodel: interrupted; nothing is left behind on the server")
        return INTERRUPTED
    except SystemExit:
        complain("lockmodel: terminated; nothing is left behind on the server")
        raise
    return worst(codes)
