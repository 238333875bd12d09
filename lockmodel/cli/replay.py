"""`lockmodel replay`: confirm or refute what the model says, on a real Postgres."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lockmodel.cli.common import (
    ExitCode,
    MaxStatesOption,
    SetOption,
    SpecArguments,
    TimeoutOption,
    WorkersOption,
    complain,
    seconds,
    whole_number,
    worst,
    write,
)
from lockmodel.cli.files import Found, find_specs, read_any
from lockmodel.cli.progress import Ticker
from lockmodel.cli.startup import INTERRUPTED, importing
from lockmodel.errors import LockmodelError, UsageError
from lockmodel.report.page import Page

if TYPE_CHECKING:
    from lockmodel.exploration import Limits
    from lockmodel.overrides import Overrides
    from lockmodel.replay.replayer import ReplayOutcome
    from lockmodel.scenario import Scenario
    from lockmodel.spec import Spec
    from lockmodel.verdict import CheckResult

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


def register(app: typer.Typer) -> None:
    app.command("replay")(replay)


def replay(
    specs: SpecArguments = None,
    settings: SetOption = None,
    workers: WorkersOption = None,
    schedules: SchedulesOption = None,
    seed: SeedOption = None,
    dsn: DsnOption = None,
    max_states: MaxStatesOption = None,
    timeout: TimeoutOption = None,
) -> int:
    """Replay the deadlock that check finds, or random schedules of a spec that holds, on a real Postgres.

    Also takes the JSON report of a check, and replays its trace.
    """
    with importing():
        import lockmodel.checker
        import lockmodel.report.replay
        import lockmodel.report.trace_file  # noqa: F401
        from lockmodel.exploration import Limits
        from lockmodel.overrides import parse_overrides
        from lockmodel.replay.replayer import default_dsn, server
    quiet_psycopg()
    overrides = parse_overrides(settings or (), workers or ())
    limits = Limits(whole_number("--max-states", max_states), seconds("--timeout", timeout))
    count = None if schedules is None else whole_number("--schedules", schedules, DEFAULT_SCHEDULES)
    files = find_specs(specs or ())
    job = _Job(overrides, limits, count, _seed(seed), dsn, len(files) > 1)
    codes: list[int] = []
    try:
        with server(default_dsn() if dsn is None else dsn) as address:
            for found in files:
                codes.append(_one(found, job, address, separate=bool(codes)))
    except KeyboardInterrupt:
        complain("lockmodel: interrupted; nothing is left behind on the server")
        return INTERRUPTED
    except SystemExit:
        complain("lockmodel: terminated; nothing is left behind on the server")
        raise
    return worst(codes)


def quiet_psycopg() -> None:
    """Its warnings are about connections that a replay ends on purpose."""
    import logging

    logging.getLogger("psycopg").addHandler(logging.NullHandler())


def _one(found: Found, job: _Job, address: str, *, separate: bool) -> int:
    try:
        code, report = job.trace_file(found, address) if found.file.endswith(".json") else job.document(found, address)
    except LockmodelError as error:
        complain(error)
        return ExitCode.BAD_INPUT
    write(sys.stdout, ("\n" if separate else "") + report)
    return code


def _seed(given: str | None) -> int:
    if given is not None:
        return whole_number("--seed", given, 1)
    import secrets

    return secrets.randbelow(1_000_000) + 1


class _Job:
    """What the command line asks for, for each of its files."""

    def __init__(
        self, overrides: Overrides, limits: Limits, schedules: int | None, seed: int, dsn: str | None, several: bool
    ) -> None:
        self.several = several
        self.overrides = overrides
        self.limits = limits
        self.schedules = schedules
        self.seed = seed
        self.dsn = dsn
        self.page = Page.of(sys.stdout)

    def document(self, found: Found, address: str) -> tuple[int, str]:
        """Replay a spec or a scenario; the exit code and the report."""
        from lockmodel.spec import Spec

        document = read_any(found)
        return self.spec(document, address) if isinstance(document, Spec) else self.scenario(document, address)

    def scenario(self, scenario: Scenario, address: str) -> tuple[int, str]:
        """Run a scenario as it stands in its file."""
        from lockmodel.replay.scenarios import run
        from lockmodel.report.replay import scenario_report

        file = scenario.at().file
        if self.overrides.sets or self.overrides.workers != "" or self.schedules is not None:
            raise UsageError(
                f"{file}: a scenario has its own sets and workers; --set, --workers and --schedules are for specs"
            )
        done = run(scenario, address, self.limits)
        code = ExitCode.EXPECTED if done.unmet is None else ExitCode.UNEXPECTED
        return code, scenario_report(file, done, self.page, brief=self.several)

    def spec(self, spec: Spec, address: str) -> tuple[int, str]:
        """Check the spec and replay its trace, or random schedules."""
        from lockmodel.checker import check
        from lockmodel.replay.replayer import prepare, replay_trace
        from lockmodel.report.replay import trace_report
        from lockmodel.report.words import expectation

        if self.schedules is not None:
            return self._schedules(spec, address)
        with Ticker(spec.source.file) as ticker:
            result = check(spec, self.overrides, self.limits, progress=ticker)
        if result.trace is None:
            code, report = self._schedules(spec, address)
            if result.unmet is not None:
                report += self.page.fit(f"  {expectation(result)}\n")
            return worst([code, ExitCode.EXPECTED if result.unmet is None else ExitCode.UNEXPECTED]), report
        if spec.replay is not None:
            return self._code(result, address)
        replayed = replay_trace(prepare(result.spec), result.trace, address)
        report = trace_report(spec.source.file, _claim(result), replayed, self.page)
        code = _code(replayed.outcome)
        if unexpected := expectation(result):
            report += self.page.fit(f"  {unexpected}\n")
            code = worst([code, ExitCode.UNEXPECTED])
        return code, report

    def _code(self, result: CheckResult, address: str) -> tuple[int, str]:
        """Replay the trace on the code that the spec names."""
        assert result.trace is not None
        from lockmodel.compiler import Compilation
        from lockmodel.replay.code import replay_code
        from lockmodel.replay.replayer import run_to_the_end
        from lockmodel.report.replay import code_report
        from lockmodel.report.words import expectation
        from lockmodel.resolver import resolve

        spec, trace = result.spec, result.trace
        replayed = run_to_the_end(lambda: replay_code(spec, Compilation(resolve(spec)), trace, address))
        report = code_report(spec.source.file, _claim(result), replayed, self.page)
        code = ExitCode.UNEXPECTED if replayed.difference else ExitCode.EXPECTED
        if unexpected := expectation(result):
            report += self.page.fit(f"  {unexpected}\n")
            code = ExitCode(worst([code, ExitCode.UNEXPECTED]))
        return code, report

    def trace_file(self, found: Found, address: str) -> tuple[int, str]:
        """Replay the trace in a JSON report."""
        from lockmodel.replay.replayer import prepare, replay_trace
        from lockmodel.report.replay import trace_report
        from lockmodel.report.trace_file import read_trace
        from lockmodel.system import NO_DEADLOCK

        file = found.file
        if self.overrides.sets or self.overrides.workers != "" or self.schedules is not None:
            raise UsageError(
                f"{file}: a report has its sets and workers in it; --set, --workers and --schedules are for specs"
            )
        try:
            text = Path(file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{file}: {getattr(error, 'strerror', None) or error}") from None
        loaded = read_trace(text, file)
        replayed = replay_trace(prepare(loaded.spec), loaded.trace, address)
        violated = loaded.violated or "the trace"
        claim = f"{'deadlock' if violated == NO_DEADLOCK else violated} in {loaded.spec.name}"
        return _code(replayed.outcome), trace_report(file, claim, replayed, self.page)

    def _schedules(self, spec: Spec, address: str) -> tuple[int, str]:
        from lockmodel.overrides import apply
        from lockmodel.replay.replayer import prepare, replay_schedules
        from lockmodel.report.replay import schedules_report
        from lockmodel.semantics import crew

        prepared = prepare(apply(spec, self.overrides))
        count = self.schedules or DEFAULT_SCHEDULES
        workers = crew(prepared.compilation.system, DEFAULT_WORKERS)
        replayed = replay_schedules(prepared, workers, count, self.seed, address)
        report = schedules_report(spec.source.file, replayed, self.page, self._repeat(spec.source.file, count))
        return _code(replayed.outcome), report

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


def _claim(result: CheckResult) -> str:
    from lockmodel.report.words import headline, verdict_word

    return f"{verdict_word(result).lower()} {headline(result)}"


def _code(outcome: ReplayOutcome) -> int:
    return {
        "CONFIRMED": ExitCode.EXPECTED,
        "REFUTED": ExitCode.UNEXPECTED,
        "NOT REALIZABLE": ExitCode.UNDECIDED,
    }[str(outcome)]
