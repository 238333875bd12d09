"""How `check` hands results on, one class a way of writing: as they come, or as one document at the end."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

from lockmodel.cli.common import write
from lockmodel.cli.files import deliver
from lockmodel.report.page import Page

if TYPE_CHECKING:
    from lockmodel.report.json import Failure
    from lockmodel.verdict import CheckResult


class Reporter(Protocol):
    """Is told each result or failure in its turn, and at the end which files an interruption left out."""

    def add(self, result: CheckResult) -> None: ...

    def fail(self, failure: Failure) -> None: ...

    def end(self, unchecked: Sequence[str]) -> None: ...


class TerminalReporter:
    """For people: each report as soon as it is there; of several specs short ones, and a table at the end."""

    def __init__(self, output: str | None, *, several: bool) -> None:
        from lockmodel.report import terminal

        self._terminal = terminal
        self._output, self._several = output, several
        self._page = Page.of(sys.stdout) if output is None else Page()
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
        if self._output is not None:
            deliver("".join(self._kept), self._output)

    def _say(self, text: str) -> None:
        if self._output is None:
            write(sys.stdout, text)
        else:
            self._kept.append(text)


class DocumentReporter:
    """For programs: all in one document, which `module`'s function `report` writes."""

    def __init__(self, module: str, output: str | None) -> None:
        self._report: Callable[..., str] = import_module(module).report
        self._output = output
        self._results: list[CheckResult] = []
        self._failures: list[Failure] = []

    def add(self, result: CheckResult) -> None:
        self._results.append(result)

    def fail(self, failure: Failure) -> None:
        self._failures.append(failure)

    def end(self, unchecked: Sequence[str]) -> None:
        deliver(self._report(self._results, self._failures, unchecked=unchecked), self._output)


FORMATS = ("terminal", "json")


def reporter(form: str, output: str | None, *, several: bool) -> Reporter:
    """The reporter of format `form`; `output`: the file to write, or None for standard output."""
    if form == "terminal":
        return TerminalReporter(output, several=several)
    return DocumentReporter(f"lockmodel.report.{form}", output)
