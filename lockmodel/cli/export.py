"""`lockmodel export`: a spec in the language of another checker."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lockmodel.cli.common import SetOption, SpecArguments, WorkersOption, one_of, write
from lockmodel.cli.files import check_output, deliver, one_spec, read_spec
from lockmodel.cli.startup import importing
from lockmodel.errors import SpecError, UsageError, quote

if TYPE_CHECKING:
    from lockmodel.export import Exported
    from lockmodel.overrides import Overrides
    from lockmodel.spec import Spec

_FORMATS = ("promela", "tla")
"""`export.FORMATS`, which the help must not import."""
ToOption = Annotated[
    str | None,
    typer.Option(
        "--to", metavar="|".join(_FORMATS), help="The language: promela (SPIN) or tla (TLA+ for TLC, with a .cfg)."
    ),
]
FileOption = Annotated[
    str | None,
    typer.Option("--output", "-o", metavar="FILE", help="Write to FILE; what belongs beside it goes there too."),
]


def register(app: typer.Typer) -> None:
    app.command("export")(export)


def export(
    specs: SpecArguments = None,
    to: ToOption = None,
    settings: SetOption = None,
    workers: WorkersOption = None,
    output: FileOption = None,
) -> int:
    """Write a spec, with a fixed number of workers, in the language of another checker.

    SPIN and TLC then find the same states, transitions and verdicts. See docs/export.md.
    """
    if to is None:
        raise UsageError(f"say the language: --to {' or --to '.join(_FORMATS)}")
    form = one_of("--to", to, _FORMATS)
    with importing():
        from lockmodel.overrides import apply, parse_overrides
    found = one_spec(specs or ())
    overrides = parse_overrides(settings or (), workers or ())
    stem = _stem(form, output)
    check_output(output, [found.file])
    result = _exported(form, apply(read_spec(found), overrides), overrides, stem)
    for suffix, text in result.beside.items():
        if stem is None:
            continue
        assert output is not None
        beside = str(Path(output).with_name(stem + suffix))
        check_output(beside, [found.file])
        deliver(text, beside)
    deliver(result.text, output)
    if stem is None:
        for suffix, text in result.beside.items():
            # Behind the end of a module, where no tool reads on.
            write(sys.stdout, f"\nThis belongs into a file of the same name that ends in {suffix}:\n\n{text}")
    return 0


def _stem(form: str, output: str | None) -> str | None:
    """The name of the output file without its suffix, which is a module's name, too; None: standard output."""
    if output is None:
        return None
    stem = Path(output).stem
    with importing():
        from lockmodel.export.tla import module_name
    if form == "tla" and module_name(stem) != stem:
        raise UsageError(
            f"--output {quote(output)}: a TLA+ module has the name of its file, so that must be letters, digits and _, "
            f"such as {module_name(stem)}.tla"
        )
    return stem


def _exported(form: str, spec: Spec, overrides: Overrides, stem: str | None) -> Exported:
    with importing():
        from lockmodel.compiler import compile_spec
        from lockmodel.export import export as write_out
        from lockmodel.overrides import arguments
        from lockmodel.semantics import crew
    for name, role in spec.roles.items():
        if role.count == "any":
            raise SpecError(
                role.at("count"),
                f"the role {quote(name)} has any number of workers, and other checkers need a fixed one: --workers {name}=2",
            )
    if not spec.roles and spec.workers in ("any", None):
        message = "there may be any number of workers, and other checkers need a fixed one: --workers 2"
        raise SpecError(spec.at("workers"), message)
    system = compile_spec(spec)
    words = " ".join([spec.source.file, *arguments(overrides)])
    return write_out(form, system, crew(system, 1), f"Exported by lockmodel from {words}", stem)
