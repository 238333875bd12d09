"""SARIF 2.1.0 (https://docs.oasis-open.org/sarif/sarif/v2.1.0/), for code scanning: each finding at its place in the spec.

A deadlock is at the step where the first worker waits; the steps where the others wait are related locations; the trace is a code flow with one
thread flow for each worker, whose execution order says who goes when.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lockmodel.errors import Position, one_line
from lockmodel.report import standstill, words
from lockmodel.report.findings import DESCRIPTIONS, Finding, Rule, case_name, findings, waiting_steps
from lockmodel.report.json import Failure
from lockmodel.system import NO_DEADLOCK
from lockmodel.verdict import CheckResult

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"

Json = dict[str, Any]


def report(results: Iterable[CheckResult], failures: Iterable[Failure] = (), *, unchecked: Sequence[str] = ()) -> str:
    """One SARIF log with one run. A spec that does what it expects has no result in it."""
    failures = list(failures)
    found = findings(results, failures, unchecked)
    run = {
        "tool": {"driver": _driver()},
        # A run that left something out must not look like one that found nothing there.
        "invocations": [{"executionSuccessful": not failures and not unchecked}],
        "columnKind": "unicodeCodePoints",
        "results": [_result(finding) for finding in found],
    }
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=1, allow_nan=False) + "\n"


def _driver() -> Json:
    from lockmodel import __version__

    return {
        "name": "lockmodel",
        "semanticVersion": __version__,
        "rules": [
            {
                "id": str(rule),
                "shortDescription": {"text": DESCRIPTIONS[rule]},
                "defaultConfiguration": {"level": _level(rule)},
            }
            for rule in Rule
        ],
    }


def _level(rule: Rule) -> str:
    return "warning" if rule.warns else "error"


def _result(finding: Finding) -> Json:
    said: Json = {
        "ruleId": str(finding.rule),
        "ruleIndex": list(Rule).index(finding.rule),
        "level": _level(finding.rule),
        "message": _message(finding.text),
        "locations": [_location(finding.position)],
        "partialFingerprints": {"finding/v1": _fingerprint(finding)},
    }
    if finding.result is not None and finding.result.trace is not None and finding.result.view is not None:
        related = _related(finding.result)
        # A formula is violated by a state, not by waiting.
        if related and finding.rule is not Rule.FORMULA:
            said["relatedLocations"] = related
        if flows := _thread_flows(finding.result):
            said["codeFlows"] = [{"message": _message("The shortest schedule."), "threadFlows": flows}]
    return said


def _related(result: CheckResult) -> list[Json]:
    """Where each worker waits."""
    assert result.view is not None
    view = result.view
    return [
        _location(position) | {"id": number, "message": _message(f"{view.workers[worker]} {_waits(result, worker)}")}
        for number, (worker, position) in enumerate(waiting_steps(result))
    ]


def _waits(result: CheckResult, worker: int) -> str:
    assert result.view is not None
    return standstill.waits(result.compiled, result.view, result.view.final[worker])


def _thread_flows(result: CheckResult) -> list[Json]:
    """The trace: a flow for each worker that acts, and where it waits in the end."""
    assert result.trace is not None and result.view is not None
    flows: dict[int, list[Json]] = {}
    sentences = words.step_sentences(result.compiled, result.trace)
    for order, (action, what) in enumerate(zip(result.trace.actions, sentences, strict=True), start=1):
        name = result.view.workers[action.worker]
        flows.setdefault(action.worker, []).append(
            _flow_location(result, action.edge.position, f"{name} {what}", order)
        )
    for worker, position in waiting_steps(result):
        what = f"{result.view.workers[worker]} {_waits(result, worker)}"
        flows.setdefault(worker, []).append(_flow_location(result, position, what, len(sentences) + 1))
    return [{"id": result.view.workers[worker], "locations": locations} for worker, locations in sorted(flows.items())]


def _flow_location(result: CheckResult, position: Position | None, what: str, order: int) -> Json:
    place = _location(position or Position(result.spec.source.file))
    return {"location": place | {"message": _message(what)}, "executionOrder": order, "importance": "essential"}


def _location(position: Position) -> Json:
    place: Json = {"artifactLocation": {"uri": _uri(position.file)}}
    if position.line:
        place["region"] = {"startLine": position.line}
        if position.column:
            place["region"]["startColumn"] = position.column
    return {"physicalLocation": place}


def _uri(file: str) -> str:
    """A path as a URI reference: relative to the folder of the run, as code scanning wants it, or absolute with its scheme."""
    if Path(file).is_absolute():
        return Path(file).as_uri()
    # `safe` leaves out the colon: `a:b.yaml` would have the scheme `a`.
    return quote(os.path.normpath(file), safe="/")


def _message(text: str) -> Json:
    """A plain text message, in which braces mark placeholders and `[…](…)` a link (3.11.5 and 3.11.6)."""
    safe = one_line(text, 5_000).replace("{", "{{").replace("}", "}}")
    return {"text": safe.replace("](", "] (")}


def _fingerprint(finding: Finding) -> str:
    """The same for the same finding after the spec's lines have moved."""
    parts = [str(finding.rule), finding.position.file]
    if finding.result is None:
        parts.append(finding.message)
    else:
        parts.append(case_name(finding.result))
        parts.append(finding.result.verdict.violated or "")
        if finding.result.verdict.violated == NO_DEADLOCK and finding.result.view is not None:
            view = finding.result.view
            wants = [view.final[worker].wants for worker in view.cycle]
            parts += sorted(view.cycle_transactions) + sorted(lock.resource for lock in wants if lock)
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()
