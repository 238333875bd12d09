"""The pytest plugin: specs and scenarios as tests, and a fixture for controlled schedules on a real Postgres.

It is loaded in every pytest run of an environment that has lockmodel, so it imports nothing beyond what pytest has loaded anyway; all else
waits for the first spec, scenario or fixture.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from _pytest._code.code import ExceptionInfo, TerminalRepr

    from lockmodel.exploration import Limits
    from lockmodel.replay.controlled import ControlledSchedule
    from lockmodel.replay.server import EmbeddedServer

SPECS, SCENARIOS, TIMEOUT = "lockmodel_specs", "lockmodel_scenarios", "lockmodel_timeout"
DSN = "LOCKMODEL_TEST_DSN"
_SUFFIXES = (".yaml", ".yml")
# The key that tells a scenario from a spec; enough of YAML for folders that hold both.
_IS_SCENARIO = re.compile(rb"""^\{?\s*["']?scenario["']?\s*:""", re.MULTILINE)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini(SPECS, "Folders or files of lockmodel specs, each of which is checked as a test.", "paths")
    parser.addini(SCENARIOS, "Folders or files of lockmodel scenarios, each replayed on Postgres as a test.", "paths")
    parser.addini(TIMEOUT, "Seconds after which the search of one spec gives up, which fails its test.", "string", "")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "lockmodel_spec: a lockmodel spec that is checked")
    config.addinivalue_line("markers", "lockmodel_scenario: a lockmodel scenario that is replayed on a Postgres server")
    folders = [*config.getini(SPECS), *config.getini(SCENARIOS)]
    if not folders:
        return
    _seconds(config)
    for folder in folders:
        if not folder.exists():
            raise pytest.UsageError(
                f"lockmodel: there is no {folder}, which lockmodel_specs or lockmodel_scenarios names"
            )
    # Who names what to run, or stands in a folder of the project, wants that alone.
    if config.args_source != config.ArgsSource.ARGS and config.invocation_params.dir == config.rootpath:
        known = [config.rootpath / argument for argument in config.args]
        config.args += [str(one) for one in dict.fromkeys(folders) if not any(_below(one, other) for other in known)]


def pytest_unconfigure(config: pytest.Config) -> None:
    if (server := config.stash.get(_SERVER, None)) is not None:
        config.stash[_SERVER] = None
        server.stop()


_SERVER: pytest.StashKey[EmbeddedServer | None] = pytest.StashKey()


def _server(config: pytest.Config) -> str:
    """The server for the whole run: the one that the environment names, else an embedded one that starts with the first who asks."""
    if given := os.environ.get(DSN):
        return given
    server = config.stash.get(_SERVER, None)
    if server is None:
        from lockmodel.replay.server import EmbeddedServer

        server = config.stash[_SERVER] = EmbeddedServer.start()
    return server.dsn


# Specs and scenarios


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    if file_path.suffix not in _SUFFIXES or file_path.name.startswith("."):
        return None
    spec = _among(file_path, parent.config.getini(SPECS))
    scenario = _among(file_path, parent.config.getini(SCENARIOS))
    if spec and scenario:
        scenario = _IS_SCENARIO.search(file_path.read_bytes()) is not None
    if spec or scenario:
        return DocumentFile.from_parent(parent, path=file_path, kind=ScenarioItem if scenario else SpecItem)
    return None


def _among(file: Path, folders: Iterable[Path]) -> bool:
    return any(_below(file, folder) for folder in folders)


def _below(path: Path, folder: Path) -> bool:
    return path == folder or folder in path.parents


class NotAsExpected(Exception):
    """A spec or scenario that failed; `str()` is the report."""


class DocumentFile(pytest.File):
    """A spec's or scenario's file. It is read when its test runs: what is wrong in it fails that test, not the collection."""

    def __init__(self, *, kind: type[DocumentItem], **rest: object) -> None:
        super().__init__(**rest)  # type: ignore[arg-type]  # pytest passes its own on.
        self.kind = kind

    def collect(self) -> Iterator[DocumentItem]:
        yield self.kind.from_parent(self, name=self.kind.verb)


class DocumentItem(pytest.Item):
    """One file as a test."""

    verb = ""
    marker = ""

    def __init__(self, **rest: object) -> None:
        super().__init__(**rest)  # type: ignore[arg-type]  # pytest passes its own on.
        self.add_marker(self.marker)

    @property
    def file(self) -> str:
        """The file as the user would name it."""
        return os.path.relpath(self.path)

    def limits(self) -> Limits:
        from lockmodel.exploration import Limits

        return Limits(timeout_seconds=_seconds(self.config))

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, None, f"{self.verb} {self.file}"

    def repr_failure(self, excinfo: ExceptionInfo[BaseException], style: Any = None) -> str | TerminalRepr:
        """The report, or the one line that says what is wrong; a traceback only for what is a defect of lockmodel."""
        from lockmodel.errors import LockmodelError

        if isinstance(excinfo.value, NotAsExpected | LockmodelError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)


class SpecItem(DocumentItem):
    """Checks a spec, which must do what it expects."""

    verb = "check"
    marker = "lockmodel_spec"

    def runtest(self) -> None:
        from lockmodel.checker import check
        from lockmodel.parser import load
        from lockmodel.report.page import Page
        from lockmodel.report.terminal import full

        result = check(load(self.file), limits=self.limits())
        if result.exit_code != 0:
            raise NotAsExpected(full(result, Page()).rstrip("\n"))


class ScenarioItem(DocumentItem):
    """Replays a scenario, out of which must come what it says."""

    verb = "replay"
    marker = "lockmodel_scenario"

    def runtest(self) -> None:
        from lockmodel.errors import SpecError
        from lockmodel.parser import load_any
        from lockmodel.replay.scenarios import run
        from lockmodel.report.page import Page
        from lockmodel.report.replay import scenario_report
        from lockmodel.scenario import Scenario

        scenario = load_any(self.file)
        if not isinstance(scenario, Scenario):
            raise SpecError(scenario.at(), f"this is a spec, not a scenario; name its folder in {SPECS}")
        done = run(scenario, _server(self.config), self.limits())
        if done.unmet is not None:
            raise NotAsExpected(scenario_report(self.file, done, Page(), brief=False).rstrip("\n"))


def _seconds(config: pytest.Config) -> float | None:
    text = str(config.getini(TIMEOUT)).strip()
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e9:
        raise pytest.UsageError(f"lockmodel: {TIMEOUT} = {text!r}: it must be a number of seconds, such as 60")
    return seconds


# Fixtures


@pytest.fixture(scope="session")
def lockmodel_dsn(pytestconfig: pytest.Config) -> str:
    """The server behind LOCKMODEL_TEST_DSN, or an embedded one that lives as long as the run."""
    from lockmodel.errors import LockmodelError

    try:
        return _server(pytestconfig)
    except LockmodelError as error:
        problem = str(error)
    pytest.fail(f"lockmodel: {problem}", pytrace=False)


@pytest.fixture
def lockmodel_schedule(lockmodel_dsn: str) -> Iterator[ControlledSchedule]:
    """A controlled schedule in a schema of its own, of which nothing remains after the test. See lockmodel.replay.controlled."""
    from lockmodel.errors import LockmodelError
    from lockmodel.replay.controlled import ControlledSchedule

    schedule = ControlledSchedule(lockmodel_dsn)
    problem = ""
    try:
        schedule.__enter__()
    except LockmodelError as error:
        problem = str(error)
    if problem:
        pytest.fail(f"lockmodel: {problem}", pytrace=False)
    try:
        yield schedule
    finally:
        schedule.__exit__()
