"""`lockmodel export`: a spec, its trace or its graphs in the language of another tool."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from lockmodel.cli.common import (
    MaxStatesOption,
    SetOption,
    SpecArguments,
    TimeoutOption,
    WorkersOption,
    complain,
    one_of,
    seconds,
    whole_number,
    write,
)
from lockmodel.cli.files import check_output, deliver, one_spec, read_spec
from lockmodel.cli.startup import importing
from lockmodel.cli.traces import DeadlockOption, TraceOption, found_trace, given_trace
from lockmodel.errors import SpecError, UsageError, quote

if TYPE_CHECKING:
    from lockmodel.exploration import Limits
    from lockmodel.export import Exported
    from lockmodel.overrides import Overrides
    from lockmodel.report.trace_file import LoadedTrace
    from lockmodel.spec import Spec

_CHECKERS = ("promela", "tla")
"""`export.FORMATS`, which the help must not import."""
_PICTURES = ("dot", "mermaid", "graphml")
_FORMATS = (*_CHECKERS, "isolation", "itf", *_PICTURES)
_GRAPHS = ("lock-order", "waits-for", "state")
_BY = ("resource", "family")
DEFAULT_SCHEDULES = 5
DEFAULT_SEED = 1
"""Not a random one: the same spec gives the same file."""

ToOption = Annotated[
    str | None,
    typer.Option(
        "--to",
        metavar="|".join(_FORMATS),
        help="promela (SPIN) or tla (TLA+ for TLC, with a .cfg): the spec. isolation (PostgreSQL's isolationtester) or itf "
        "(Informal Trace Format): the trace. dot, mermaid or graphml: a graph.",
    ),
]
FileOption = Annotated[
    str | None,
    typer.Option("--output", "-o", metavar="FILE", help="Write to FILE; what belongs beside it goes there too."),
]
GraphOption = Annotated[
    str | None,
    typer.Option("--graph", metavar="|".join(_GRAPHS), help="Which graph (if left out, the lock order)."),
]
ByOption = Annotated[
    str | None,
    typer.Option("--by", metavar="|".join(_BY), help="The nodes of the lock order (if left out, what can be read)."),
]
SchedulesOption = Annotated[
    str | None,
    typer.Option(
        "--schedules",
        metavar="N",
        help=f"For isolation: N random schedules instead of the trace (where there is none, {DEFAULT_SCHEDULES}).",
    ),
]
SeedOption = Annotated[
    str | None,
    typer.Option("--seed", metavar="N", help=f"Which random schedules (if left out, {DEFAULT_SEED})."),
]


def register(app: typer.Typer) -> None:
    app.command("export")(export)


@dataclass(frozen=True)
class _Job:
    """What the command line asks for. `spec` has no overrides applied."""

    form: str
    spec: Spec
    overrides: Overrides
    limits: Limits
    max_states: int | None
    graph: str
    by: Literal["resource", "family"] | None
    trace: str | None
    deadlock: int | None
    schedules: int | None
    seed: int | None

    def source(self, overrides: Overrides) -> str:
        """For a comment at the top: where the export comes from."""
        from lockmodel.overrides import arguments

        return f"Exported by lockmodel from {' '.join([self.spec.source.file, *arguments(overrides)])}"

    def traced(self) -> LoadedTrace | None:
        """The trace that is given, or found."""
        from lockmodel.report.trace_file import LoadedTrace

        if self.trace is not None:
            return given_trace(self.spec, self.trace, self.overrides, self.deadlock)
        result = found_trace(self.spec, self.overrides, self.limits)
        if result is None:
            return None
        assert result.trace is not None
        violated = result.verdict.violated
        return LoadedTrace(result.spec, self.overrides, result.compiled, result.trace, violated, result.lifted)

    def needed(self) -> LoadedTrace:
        """The same, where there is no doing without."""
        if (traced := self.traced()) is None:
            raise UsageError(
                f"{self.spec.source.file}: check finds no violation, so there is no trace; name one with --trace FILE"
            )
        return traced


def export(
    specs: SpecArguments = None,
    to: ToOption = None,
    settings: SetOption = None,
    workers: WorkersOption = None,
    output: FileOption = None,
    graph: GraphOption = None,
    by: ByOption = None,
    trace: TraceOption = None,
    deadlock: DeadlockOption = None,
    schedules: SchedulesOption = None,
    seed: SeedOption = None,
    max_states: MaxStatesOption = None,
    timeout: TimeoutOption = None,
) -> int:
    """Write a spec, its trace or its graphs in the language of another tool.

    SPIN and TLC find the same states and verdicts, isolationtester runs into the same deadlock. See docs/export.md.
    """
    if to is None:
        raise UsageError(f"say the language: --to {' or --to '.join(_FORMATS)}")
    form = one_of("--to", to, _FORMATS)
    which = "lock-order" if graph is None else one_of("--graph", graph, _GRAPHS)
    _check_fit(form, which, {
        "--graph": graph, "--by": by, "--trace": trace, "--deadlock": deadlock, "--schedules": schedules, "--seed": seed,
        "--max-states": max_states, "--timeout": timeout,
    })  # fmt: skip
    with importing():
        from lockmodel.exploration import Limits
        from lockmodel.overrides import parse_overrides
    found = one_spec(specs or ())
    overrides = parse_overrides(settings or (), workers or ())
    most = whole_number("--max-states", max_states)
    limits = Limits(most, seconds("--timeout", timeout))
    stem = _stem(form, output)
    check_output(output, [found.file, *([trace] if trace else [])])
    job = _Job(
        form, read_spec(found), overrides, limits, most, which,
        cast('Literal["resource", "family"] | None', None if by is None else one_of("--by", by, _BY)),
        trace, whole_number("--deadlock", deadlock), whole_number("--schedules", schedules), whole_number("--seed", seed),
    )  # fmt: skip
    if form not in _CHECKERS:
        deliver(_isolation(job) if form == "isolation" else _itf(job) if form == "itf" else _graph(job), output)
        return 0
    result = _exported(job, stem)
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


def _check_fit(form: str, graph: str, options: dict[str, str | None]) -> None:
    """Refuse options that would have no effect."""
    traced = form in ("isolation", "itf") or (form in _PICTURES and graph == "waits-for")
    fits = {
        "--graph": (form in _PICTURES, "--to dot, mermaid or graphml"),
        "--by": (form in _PICTURES and graph == "lock-order", "--graph lock-order"),
        "--trace": (traced, "--to isolation, --to itf and --graph waits-for"),
        "--deadlock": (traced and options["--trace"] is not None, "a --trace"),
        "--schedules": (form == "isolation" and options["--trace"] is None, "--to isolation without --trace"),
        "--seed": (form == "isolation" and options["--trace"] is None, "--to isolation without --trace"),
        "--max-states": (traced or (form in _PICTURES and graph == "state"), "traces and --graph state"),
        "--timeout": (traced, "--to isolation, --to itf and --graph waits-for"),
    }
    for option, (fit, what) in fits.items():
        if options[option] is not None and not fit:
            raise UsageError(f"{option} is for {what}")


# For other checkers


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


def _exported(job: _Job, stem: str | None) -> Exported:
    with importing():
        from lockmodel.compiler import compile_spec
        from lockmodel.export import export as write_out
        from lockmodel.overrides import apply
        from lockmodel.semantics import crew
    spec = apply(job.spec, job.overrides)
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
    return write_out(job.form, system, crew(system, 1), job.source(job.overrides), stem)


# Traces


def _isolation(job: _Job) -> str:
    with importing():
        from lockmodel.export.isolation import isolation_of_schedules, isolation_of_trace
        from lockmodel.export.isolation_text import isolation_text
        from lockmodel.overrides import apply
    traced = None if job.schedules is not None else job.traced()
    if traced is not None:
        if job.seed is not None:
            complain(
                "lockmodel: --seed had no effect, since the trace was exported; --schedules N asks for random schedules"
            )
        part = traced.lifted.compilation if traced.lifted else None
        test = isolation_of_trace(traced.spec, traced.trace, part)
        return isolation_text(test, job.source(traced.overrides))
    count, seed = job.schedules or DEFAULT_SCHEDULES, job.seed or DEFAULT_SEED
    test = isolation_of_schedules(apply(job.spec, job.overrides), count, seed)
    return isolation_text(test, f"{job.source(job.overrides)} --schedules {count} --seed {seed}")


def _itf(job: _Job) -> str:
    with importing():
        from lockmodel.report.trace_file import write_itf
    return write_itf(job.needed())


# Graphs


def _graph(job: _Job) -> str:
    with importing():
        from lockmodel.export.graph_files import lock_order_file, state_file, waits_for_file
        from lockmodel.report.words import trace_claim
        from lockmodel.stepping import Model, model_of
    if job.graph == "waits-for":
        loaded = job.needed()
        model = Model(loaded.spec, loaded.overrides, loaded.system, loaded.trace.crew)
        claim = trace_claim(loaded.spec, loaded.system, loaded.trace, loaded.violated)
        what = f"{loaded.spec.name}, {claim}, after {len(loaded.trace.actions)} steps"
        return waits_for_file(job.form, model, job.source(loaded.overrides), loaded.trace.last, what)
    model = model_of(job.spec, job.overrides)
    source = job.source(job.overrides)
    if job.graph == "state":
        return state_file(job.form, model, source, job.max_states)
    return lock_order_file(job.form, model, source, job.by)
