"""`lockmodel replay`: confirm or refute what the model says, on a real Postgres."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    whole_number,
    worst,
    write,
)
from lockmodel.cli.files import Found, check_output, deliver, find_specs, read_any
from lockmodel.cli.progress import Ticker
from lockmodel.cli.startup import INTERRUPTED, importing
from lockmodel.cli.traces import TraceOption, given_trace
from lockmodel.errors import LockmodelError, UsageError, quote
from lockmodel.report.page import Page

if TYPE_CHECKING:
    from lockmodel.exploration import Limits
    from lockmodel.overrides import Overrides
    from lockmodel.replay.replayer import ReplayOutcome
    from lockmodel.report.json import Failure
    from lockmodel.report.replay_json import Replay, Replayed
    from lockmodel.report.trace_file import LoadedTrace
    from lockmodel.scenario import Scenario
    from lockmodel.spec import Spec
    from lockmodel.system import System
    from lockmodel.trace import Trace
    from lockmodel.verdict import CheckResult

FORMATS = ("terminal", "json")
DEFAULT_SCHEDULES = 20
DEFAULT_WORKERS = 3
"""How many workers a random schedule has where the spec says any."""

DsnOption = Annotated[
    str | None,
    typer.Option(
        "--dsn",
        metavar="DSN",
        help="The server to use. If left out: the one that PGHOST, PGSERVICE or PGDATABASE name, else an embedded one.",
    ),
]
SchedulesOption = Annotated[
    str | None,
    typer.Option("--schedules", metavar="N", help="Replay N random schedules (for a spec that holds: 20 if left out)."),
]
SeedOption = Annotated[
    str | None, typer.Option("--seed", metavar="N", help="The seed of the random schedules, to repeat them exactly.")
]
SpecOption = Annotated[
    str | None,
    typer.Option("--spec", metavar="FILE", help="Of a report with several traces, replay that of this spec."),
]
FormatOption = Annotated[str, typer.Option("--format", metavar="|".join(FORMATS), help="For people or for programs.")]
DeadlockOption = Annotated[
    str | None,
    typer.Option("--deadlock", metavar="N", help="Of a report of all deadlocks (check --all), replay number N."),
]
HtmlOption = Annotated[
    str | None,
    typer.Option("--html", metavar="FILE", help="Also write a page: what the model foretold beside what Postgres did."),
]


def register(app: typer.Typer) -> None:
    app.command("replay")(replay)


def replay(
    specs: SpecArguments = None,
    settings: SetOption = None,
    workers: WorkersOption = None,
    schedules: SchedulesOption = None,
    seed: SeedOption = None,
    which: SpecOption = None,
    deadlock: DeadlockOption = None,
    trace: TraceOption = None,
    dsn: DsnOption = None,
    max_states: MaxStatesOption = None,
    timeout: TimeoutOption = None,
    form: FormatOption = FORMATS[0],
    output: OutputOption = None,
    html: HtmlOption = None,
) -> int:
    """Replay the deadlock that check finds, or random schedules of a spec that holds, on a real Postgres.

    Also takes the JSON report of a check, and replays its trace; with --trace, that of a file on the spec that is named.
    """
    with importing():
        import lockmodel.checker
        import lockmodel.report.replay_json
        import lockmodel.report.trace_file  # noqa: F401
        from lockmodel.exploration import Limits
        from lockmodel.overrides import parse_overrides
        from lockmodel.replay.replayer import default_dsn, server
    quiet_psycopg()
    one_of("--format", form, FORMATS)
    overrides = parse_overrides(settings or (), workers or ())
    limits = Limits(whole_number("--max-states", max_states), seconds("--timeout", timeout))
    count = None if schedules is None else whole_number("--schedules", schedules, DEFAULT_SCHEDULES)
    files = find_specs(specs or ())
    check_output(output, [found.file for found in files])
    _check_page(html, output, [found.file for found in files])
    job = _Job(
        overrides, limits, count, _seed(seed), dsn, len(files) > 1, Page.of(sys.stdout) if output is None else Page()
    )
    job.which, job.deadlock = which, whole_number("--deadlock", deadlock)
    job.trace = trace
    report = _Report(form, output, html)
    try:
        with server(default_dsn() if dsn is None else dsn) as address:
            for found in files:
                report.add(found, job, address)
    except KeyboardInterrupt:
        report.end([found.name for found in files[report.begun - 1 :]] if report.begun else [])
        complain("lockmodel: interrupted; nothing is left behind on the server")
        return INTERRUPTED
    except SystemExit:
        complain("lockmodel: terminated; nothing is left behind on the server")
        raise
    report.end()
    if seed is not None and not job.seed_used and not report.failures:
        complain(
            "lockmodel: --seed had no effect, since no random schedules were replayed; --schedules N asks for them"
        )
    return worst(report.codes)


def _check_page(html: str | None, output: str | None, inputs: Sequence[str]) -> None:
    """Refuse a file for the page that could not be written, or that something else goes to."""
    if html == "":
        raise UsageError("--html: it names no file; write --html replay.html")
    check_output(html, inputs, "--html")
    if html is not None and output is not None and os.path.realpath(html) == os.path.realpath(output):
        raise UsageError(f"--html {quote(html)}: another format goes to this file, too")


def quiet_psycopg() -> None:
    """Its warnings are about connections that a replay ends on purpose."""
    import logging

    logging.getLogger("psycopg").addHandler(logging.NullHandler())


class _Report:
    """Writes what each file came to: for people as it comes, for programs as one document at the end."""

    def __init__(self, form: str, output: str | None, html: str | None) -> None:
        self.form = form
        self.output = output
        self.html = html
        self.codes: list[int] = []
        self.done: list[Replayed] = []
        self.failures: list[Failure] = []
        self.begun = 0

    def add(self, found: Found, job: _Job, address: str) -> None:
        """Replay `found` and report it."""
        from lockmodel.report.json import Failure

        self.begun += 1
        try:
            one = job.trace_file(found, address) if found.file.endswith(".json") else job.document(found, address)
        except LockmodelError as error:
            complain(error)
            self.codes.append(ExitCode.BAD_INPUT)
            self.failures.append(Failure(found.name, error))
            return
        if self.form == FORMATS[0] and self.output is None:
            write(sys.stdout, ("\n" if self.codes else "") + one.text)
        self.codes.append(one.exit_code)
        self.done.append(one)

    def end(self, unreplayed: Sequence[str] = ()) -> None:
        """`unreplayed`: the files that an interruption left out."""
        if self.html is not None:
            from lockmodel.report.html.replay import report

            deliver(report(self.done, self.failures, unreplayed=unreplayed), self.html, "--html")
        if self.form == FORMATS[0]:
            if self.output is not None:
                deliver("\n".join(one.text for one in self.done), self.output)
            return
        from lockmodel.report.replay_json import replay_report

        deliver(replay_report(self.done, self.failures, unreplayed), self.output)


def _seed(given: str | None) -> int:
    if given is not None:
        return whole_number("--seed", given, 1)
    import secrets

    return secrets.randbelow(1_000_000) + 1


class _Job:
    """What the command line asks for, for each of its files."""

    def __init__(
        self,
        overrides: Overrides,
        limits: Limits,
        schedules: int | None,
        seed: int,
        dsn: str | None,
        several: bool,
        page: Page,
    ) -> None:
        self.several = several
        self.overrides = overrides
        self.limits = limits
        self.schedules = schedules
        self.seed = seed
        self.dsn = dsn
        self.deadlock: int | None = None
        """Which one of a report of all deadlocks; None: the trace of the verdict."""
        self.which: str | None = None
        """The spec whose trace is meant, where a report has several."""
        self.trace: str | None = None
        """The file whose trace is replayed instead of the one that a check finds."""
        self.page = page
        self.seed_used = False

    def document(self, found: Found, address: str) -> Replayed:
        """Replay a spec or a scenario."""
        from lockmodel.spec import Spec

        if self.deadlock is not None and self.trace is None:
            raise UsageError(f"{found.file}: --deadlock is for the JSON report of check --all")
        if self.which is not None:
            raise UsageError(
                f"{found.file}: --spec is for a JSON report with several traces; name the spec's file instead"
            )
        document = read_any(found)
        return self.spec(document, address) if isinstance(document, Spec) else self.scenario(document, address)

    def scenario(self, scenario: Scenario, address: str) -> Replayed:
        """Run a scenario as it stands in its file."""
        from lockmodel.replay.scenarios import run
        from lockmodel.report.replay import scenario_report
        from lockmodel.report.replay_json import Replayed

        file = scenario.at().file
        if self.trace is not None:
            raise UsageError(f"{file}: a scenario has its own schedule; --trace is for specs")
        if self.overrides.sets or self.overrides.workers != "" or self.schedules is not None:
            raise UsageError(
                f"{file}: a scenario has its own sets and workers; --set, --workers and --schedules are for specs"
            )
        done = run(scenario, address, self.limits)
        code = ExitCode.EXPECTED if done.unmet is None else ExitCode.UNEXPECTED
        text = scenario_report(file, done, self.page, brief=self.several)
        one = Replayed(file, done.spec.name, done.replay, done.claim, done.unmet, code, text, scenario=True)
        return _with_trace(one, done.spec, self.overrides, done.system, done.trace)

    def spec(self, spec: Spec, address: str) -> Replayed:
        """Check the spec and replay its trace, or random schedules."""
        from lockmodel.checker import check
        from lockmodel.replay.replayer import prepare, replay_trace
        from lockmodel.report.replay import trace_report

        if self.trace is not None:
            return self._given(spec, self.trace, address)
        if self.schedules is not None:
            return self._schedules(spec, address)
        with Ticker(spec.source.file) as ticker:
            result = check(spec, self.overrides, self.limits, progress=ticker)
        if result.trace is None:
            return self._compared(self._schedules(spec, address), result)
        if spec.replay is not None:
            return self._code(result, address)
        prepared = prepare(result.spec, result.lifted.compilation if result.lifted else None)
        replayed = replay_trace(prepared, result.trace, address)
        text = trace_report(spec.source.file, _claim(result), replayed, self.page)
        return self._compared(_replayed(spec, _claim(result), replayed, _code(replayed.outcome), text), result)

    def _compared(self, one: Replayed, result: CheckResult) -> Replayed:
        """`one`, with what the spec expects of the check."""
        from lockmodel.report.replay import unmet_line
        from lockmodel.report.words import expectation

        one = _with_trace(one, result.spec, result.overrides, result.system, result.trace)
        unexpected = expectation(result)
        if unexpected is None:
            return one
        code = worst([one.exit_code, ExitCode.UNEXPECTED])
        text = one.text + unmet_line(unexpected, self.page)
        return replace(one, unmet=result.unmet, exit_code=code, text=text)

    def _code(self, result: CheckResult, address: str) -> Replayed:
        """Replay the trace on the code that the spec names."""
        assert result.trace is not None
        from lockmodel.compiler import Compilation
        from lockmodel.replay.code import replay_code
        from lockmodel.replay.replayer import run_to_the_end
        from lockmodel.replay.scenarios import outcome_of
        from lockmodel.report.replay import code_report
        from lockmodel.resolver import resolve

        spec, trace = result.spec, result.trace
        replayed = run_to_the_end(lambda: replay_code(spec, Compilation(resolve(spec)), trace, address))
        text = code_report(spec.source.file, _claim(result), replayed, self.page)
        return self._compared(_replayed(spec, _claim(result), replayed, _code(outcome_of(replayed)), text), result)

    def trace_file(self, found: Found, address: str) -> Replayed:
        """Replay the trace in a JSON report."""
        from lockmodel.report.trace_file import SeveralTraces, read_trace

        file = found.file
        if self.trace is not None:
            raise UsageError(f"{file}: a report has its trace in it; --trace is for specs")
        if self.overrides.sets or self.overrides.workers != "" or self.schedules is not None:
            raise UsageError(
                f"{file}: a report has its sets and workers in it; --set, --workers and --schedules are for specs"
            )
        try:
            text = Path(file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{file}: {getattr(error, 'strerror', None) or error}") from None
        try:
            loaded = read_trace(text, file, spec=self.which, deadlock=self.deadlock)
        except SeveralTraces as error:
            raise UsageError(f"{error} (--spec FILE)") from None
        return self._loaded(loaded, file, address)

    def _given(self, spec: Spec, trace: str, address: str) -> Replayed:
        """Replay the trace in the file `trace` on `spec`."""
        if self.schedules is not None:
            raise UsageError(f"{spec.source.file}: replay either --trace {trace} or --schedules, not both")
        return self._loaded(given_trace(spec, trace, self.overrides, self.deadlock), trace, address)

    def _loaded(self, loaded: LoadedTrace, file: str, address: str) -> Replayed:
        from lockmodel.replay.replayer import prepare, replay_trace
        from lockmodel.report.replay import trace_report
        from lockmodel.report.replay_json import Replayed
        from lockmodel.report.words import trace_claim

        part = loaded.lifted.compilation if loaded.lifted else None
        replayed = replay_trace(prepare(loaded.spec, part), loaded.trace, address)
        claim = f"{trace_claim(loaded.spec, loaded.system, loaded.trace, loaded.violated)}, in {loaded.spec.name}"
        text = trace_report(file, claim, replayed, self.page)
        one = Replayed(file, loaded.spec.name, replayed, claim, None, _code(replayed.outcome), text)
        return _with_trace(one, loaded.spec, loaded.overrides, loaded.system, loaded.trace)

    def _schedules(self, spec: Spec, address: str) -> Replayed:
        from lockmodel.overrides import apply
        from lockmodel.replay.replayer import prepare, replay_schedules
        from lockmodel.report.grammar import plural
        from lockmodel.report.replay import schedules_report
        from lockmodel.semantics import crew

        prepared = prepare(apply(spec, self.overrides))
        count = self.schedules or DEFAULT_SCHEDULES
        workers = crew(prepared.compilation.system, DEFAULT_WORKERS)
        replayed = replay_schedules(prepared, workers, count, self.seed, address)
        self.seed_used = True
        text = schedules_report(spec.source.file, replayed, self.page, self._repeat(spec.source.file, count))
        return _replayed(spec, plural(count, "random schedule"), replayed, _code(replayed.outcome), text)

    def _repeat(self, file: str, count: int) -> str:
        from lockmodel.overrides import arguments

        words = [
            "lockmodel",
            "replay",
            file,
            *arguments(self.overrides),
            "--schedules",
            str(count),
            "--seed",
            str(self.seed),
        ]
        # The DSN may hold a password, so the user adds it again.
        return shlex.join(words) + (" --dsn …" if self.dsn is not None else "")


def _replayed(spec: Spec, claim: str, replay: Replay, code: int, text: str) -> Replayed:
    from lockmodel.report.replay_json import Replayed

    return Replayed(spec.source.file, spec.name, replay, claim, None, code, text)


def _with_trace(
    one: Replayed, spec: Spec, overrides: Overrides, system: System | None, trace: Trace | None
) -> Replayed:
    """`one`, with the trace that was replayed, if it was one."""
    if system is None or trace is None:
        return one
    from lockmodel.stepping import Model

    return replace(one, model=Model(spec, overrides, system, trace.crew), trace=trace)


def _claim(result: CheckResult) -> str:
    from lockmodel.report.words import headline, verdict_word

    return f"{verdict_word(result).lower()} {headline(result)}"


def _code(outcome: ReplayOutcome) -> int:
    return {
        "CONFIRMED": ExitCode.EXPECTED,
        "REFUTED": ExitCode.UNEXPECTED,
        "NOT REALIZABLE": ExitCode.UNDECIDED,
    }[str(outcome)]
