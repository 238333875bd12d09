"""How `check` hands results on, one class a way of writing: as they come, or as one document at the end."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

from lockmodel.cli.common import one_of, write
from lockmodel.cli.files import deliver
from lockmodel.errors import UsageError, quote
from lockmodel.report.page import Page

if TYPE_CHECKING:
    from lockmodel.report.json import Failure
    from lockmodel.verdict import CheckResult


@dataclass(frozen=True)
class Target:
    """A format, the file that it goes to (None: standard output), and what errors about the file call the option that named it."""

    form: str
    output: str | None
    option: str


class Reporter(Protocol):
    """Is told each result or failure in its turn, and at the end which files an interruption left out."""

    def add(self, result: CheckResult) -> None: ...

    def fail(self, failure: Failure) -> None: ...

    def end(self, unchecked: Sequence[str]) -> None: ...


class TerminalReporter:
    """For people: each report as soon as it is there; of several specs short ones, and a table at the end."""

    def __init__(self, target: Target, *, several: bool) -> None:
        from lockmodel.report import terminal

        self._terminal = terminal
        self._target, self._several = target, several
        self._page = Page.of(sys.stdout) if target.output is None else Page()
        self._rows: list[terminal.Row] = []
        self._kept: list[str] = []
        self._apart = False

    def add(self, result: CheckResult) -> None:
        self._rows.append(self._terminal.Row(result.spec.source.file, result))
        report = (self._terminal.brief if self._several else self._terminal.full)(result, self._page)
        # A report of several paragraphs stands apart from the next.
        self._say(report + "\n" * (self._several and "\n\n" in report))
        self._apart = "\n\n" in report

    def fail(self, failure: Failure) -> None:
        self._rows.append(self._terminal.Row(failure.file, None))

    def end(self, unchecked: Sequence[str]) -> None:
        if self._several:
            self._say("" if self._apart else "\n")
            self._say(self._terminal.summary(self._rows, self._page, unchecked=len(unchecked)))
        if self._target.output is not None:
            deliver("".join(self._kept), self._target.output, self._target.option)

    def _say(self, text: str) -> None:
        if self._target.output is None:
            write(sys.stdout, text)
        else:
            self._kept.append(text)


class DocumentReporter:
    """For programs: all in one document, which the function `report` of the format's module writes."""

    def __init__(self, target: Target) -> None:
        self._report: Callable[..., str] = import_module(f"lockmodel.report.{target.form}").report
        self._target = target
        self._results: list[CheckResult] = []
        self._failures: list[Failure] = []

    def add(self, result: CheckResult) -> None:
        self._results.append(result)

    def fail(self, failure: Failure) -> None:
        self._failures.append(failure)

    def end(self, unchecked: Sequence[str]) -> None:
        text = self._report(self._results, self._failures, unchecked=unchecked)
        deliver(text, self._target.output, self._target.option)


class Reporters:
    """Several at once."""

    def __init__(self, reporters: Sequence[Reporter]) -> None:
        self._reporters = reporters

    def add(self, result: CheckResult) -> None:
        for each in self._reporters:
            each.add(result)

    def fail(self, failure: Failure) -> None:
        for each in self._reporters:
            each.fail(failure)

    def end(self, unchecked: Sequence[str]) -> None:
        for each in self._reporters:
            each.end(unchecked)


HTML = "html"
FORMATS = ("terminal", "json", "junit", "sarif", "github", "markdown", HTML)
_SHARE_A_LOG = {"terminal", "github"}
"""GitHub finds its commands between the lines of a log, so these two may go to one place."""


def targets(formats: Sequence[str], output: str | None, html: str | None = None) -> list[Target]:
    """What `--format NAME[=FILE] …`, `--output FILE` and `--html FILE` ask for, files first. Raises UsageError.

    `--output` is the file of the one format that has none of its own; `--html FILE` is `--format html=FILE` beside all the others.
    """
    if html == "":
        raise UsageError("--html: it names no file; write --html report.html")
    asked = [_target(text) for text in formats or FORMATS[:1]]
    without = [target for target in asked if target.output is None]
    if output is not None:
        if len(without) != 1:
            why = "each format has its own file" if not without else "there are several formats"
            raise UsageError(f"--output {quote(output)}: {why}; write --format NAME=FILE for each")
        asked = [Target(target.form, output, "--output") if target in without else target for target in asked]
    elif len(without) > 1 and {target.form for target in without} != _SHARE_A_LOG:
        one = next(target.form for target in without if target.form != "terminal" or len(set(without)) == 1)
        what = " and ".join(target.form for target in without)
        raise UsageError(f"--format {what}: only one of them can go to standard output; write --format {one}=FILE")
    if html is not None:
        asked.append(Target(HTML, html, "--html"))
    files = [os.path.realpath(target.output) for target in asked if target.output is not None]
    for target in asked:
        if target.output is not None and files.count(os.path.realpath(target.output)) > 1:
            raise UsageError(f"{target.option} {quote(target.output)}: another format goes to this file, too")
    return sorted(asked, key=lambda target: (target.output is None, target.form != "terminal"))


def _target(text: str) -> Target:
    form, equals, file = text.partition("=")
    one_of("--format", form, FORMATS)
    if equals and not file:
        raise UsageError(f"--format {quote(text)}: it names no file; write --format {form}=FILE")
    return Target(form, file or None, f"--format {form}")


def reporter(asked: Sequence[Target], *, several: bool) -> Reporter:
    """The reporter that serves all that is asked for."""
    return Reporters([_reporter(target, several=several) for target in asked])


def _reporter(target: Target, *, several: bool) -> Reporter:
    if target.form == "terminal":
        return TerminalReporter(target, several=several)
    return DocumentReporter(target)
