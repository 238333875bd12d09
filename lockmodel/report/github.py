"""GitHub annotations: a workflow command on a line for each finding, which GitHub shows beside the spec's line.

The commands are documented at https://docs.github.com/actions/reference/workflow-commands-for-github-actions. What must be escaped is in the
runner's source: `%`, CR and LF everywhere, `:` and `,` in the properties.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lockmodel.report.findings import Finding, findings
from lockmodel.report.json import Failure
from lockmodel.verdict import CheckResult

_STEPS_SHOWN = 40


def report(results: Iterable[CheckResult], failures: Iterable[Failure] = (), *, unchecked: Sequence[str] = ()) -> str:
    """The workflow commands of all findings; empty if all is as expected."""
    return "".join(f"{_command(finding)}\n" for finding in findings(results, failures, unchecked))


def _command(finding: Finding) -> str:
    position = finding.position
    properties: dict[str, str | int] = {}
    if position.file != "<stdin>":
        properties["file"] = position.file
        if position.line:
            properties["line"] = position.line
        if position.column:
            properties["col"] = position.column
    properties["title"] = f"lockmodel: {finding.title}"
    said = ",".join(f"{name}={_property(str(value))}" for name, value in properties.items())
    return f"::{'warning' if finding.rule.warns else 'error'} {said}::{_data(_message(finding))}"


def _message(finding: Finding) -> str:
    steps = finding.schedule
    shown = [*steps[:_STEPS_SHOWN], *([f"… {len(steps) - _STEPS_SHOWN} more steps"] if steps[_STEPS_SHOWN:] else [])]
    return "\n".join([finding.message, *shown])


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
