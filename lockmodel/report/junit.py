"""JUnit XML, the form in which CI systems keep test results: a test case for each spec.

A spec that does not do what it expects is a failure, with the report for people as its text. UNDECIDED is a failure too, of a type of its own:
a skipped test looks like success where only the file counts. What can't be read, or was left out, is an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import PurePath
from xml.etree import ElementTree

from lockmodel.errors import one_line
from lockmodel.report import terminal
from lockmodel.report.findings import case_name, findings, of_result
from lockmodel.report.grammar import plural
from lockmodel.report.json import Failure
from lockmodel.report.page import PLAIN, Page
from lockmodel.verdict import CheckResult

_PAGE = Page(width=120)


def report(results: Iterable[CheckResult], failures: Iterable[Failure] = (), *, unchecked: Sequence[str] = ()) -> str:
    """One XML document for all specs."""
    results = list(results)
    suite = ElementTree.Element("testsuite", name="lockmodel check")
    for result in results:
        _checked(suite, result)
    for finding in findings((), failures, unchecked):
        file = one_line(finding.position.file, 1_000)
        case = _case(suite, file, file, finding.position.line, 0)
        # Without the file, which the case has; with the line, which some viewers do not show.
        place = f"line {finding.position.line}: " if finding.position.line else ""
        ElementTree.SubElement(case, "error", type=str(finding.rule), message=f"{place}{finding.message}")
    counts = {"tests": len(suite), "failures": len(suite.findall("*/failure")), "errors": len(suite.findall("*/error"))}
    suites = ElementTree.Element("testsuites", name="lockmodel check")
    suites.append(suite)
    for element in (suites, suite):
        for name, count in (counts | {"skipped": 0}).items():
            element.set(name, str(count))
        element.set("time", f"{sum(result.seconds for result in results):.3f}")
    ElementTree.indent(suites)
    # All characters escaped to ASCII, which is UTF-8 whatever standard output's encoding is.
    document = ElementTree.tostring(suites, encoding="us-ascii", xml_declaration=False).decode("ascii")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{document}\n'


def _checked(suite: ElementTree.Element, result: CheckResult) -> None:
    found = list(of_result(result))
    line = found[0].position.line if found else 0
    case = _case(suite, case_name(result), one_line(result.spec.source.file, 1_000), line, result.seconds)
    said = terminal.full(result, _PAGE).translate(PLAIN)
    if found:
        first = found[0]
        more = f" {plural(len(found) - 1, 'more kind')} of deadlock below." if len(found) > 1 else ""
        message = one_line(first.text, 1_000) + more
        ElementTree.SubElement(case, "failure", type=str(first.rule), message=message).text = said
    else:
        ElementTree.SubElement(case, "system-out").text = said


def _case(suite: ElementTree.Element, name: str, file: str, line: int, seconds: float) -> ElementTree.Element:
    # Viewers group cases by their class name, and take dots in it for the levels of a tree.
    folder = ".".join(part.replace(".", "_") for part in PurePath(file).parts[:-1] if part.strip("./"))
    case = ElementTree.SubElement(suite, "testcase", name=name, classname=folder or "lockmodel", file=file)
    if line:
        case.set("line", str(line))
    case.set("time", f"{seconds:.3f}")
    return case
