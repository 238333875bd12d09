"""The formats for CI: each is read by a program that is not ours, says all there is to say, and can't be broken by words from a spec."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from junitparser import Error, Failure, JUnitXml, TestCase
from markdown_it import MarkdownIt
from markdown_it.token import Token
from pydantic_sarif.model import StaticAnalysisResultsFormatSarifVersion210JsonSchema as SarifLog

from lockmodel.checker import check
from lockmodel.errors import UsageError
from lockmodel.exploration import Limits
from lockmodel.overrides import parse_overrides
from lockmodel.parser import load, parse
from lockmodel.report import github, junit, markdown, sarif
from lockmodel.report import json as json_report
from lockmodel.report.findings import DESCRIPTIONS, Rule, findings
from lockmodel.verdict import CheckResult

REPOSITORY = Path(__file__).parent.parent
DEMO = "specs/deadlock-demo.yaml"
OTHER_SHAPE = "tests/small/other-shape.yaml"
NOT_THERE = "tests/small/no-deadlock-there.yaml"
UNPROVED = "tests/small/unproved.yaml"
SMALL = sorted(str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "tests" / "small").glob("*.yaml"))

UNEXPECTED = """
name: pay
resources: {a: {kind: row}, b: {kind: row}}
transactions:
  forth:
    steps:
      - a: FOR UPDATE
      - b: FOR UPDATE
  back:
    steps:
      - b: FOR UPDATE
      - a: FOR UPDATE
"""

HOSTILE = "x|`]](y), <b>&amp;</b> ::error::pwned%0A @octocat #1 {0} \\ ]]> *_~ www.a.b http://c :tada: $x$ ```"
"""A name that means something in each of the formats."""


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports name files as the user did, so the tests name them from one place."""
    monkeypatch.chdir(REPOSITORY)


def checked(
    file: str, *, every: bool = False, settings: Iterable[str] = (), limits: Limits | None = None
) -> CheckResult:
    return check(load(file), parse_overrides(list(settings), []), limits, every=every)


def unexpected(file: str = "pay.yaml", text: str = UNEXPECTED) -> CheckResult:
    return check(parse(text, file))


def bad(file: str = "bad.yaml") -> json_report.Failure:
    """A spec with an error on its line 3."""
    text = "name: x\nresources: {a: {kind: lock}}\ntransactions: {t: {steps: [{a: EXCLUSVE}]}}\n"
    with pytest.raises(Exception, match="EXCLUSVE") as raised:
        check(parse(text, file))
    return json_report.Failure(file, raised.value)  # type: ignore[arg-type]


def hostile() -> CheckResult:
    """A deadlock that is expected otherwise, with `HOSTILE` for the names of its transactions and file."""
    name = json.dumps(HOSTILE)
    return unexpected(HOSTILE.replace("/", ""), UNEXPECTED.replace("forth:", f"{name}:"))


ABSENT = json_report.Failure("absent.yaml", UsageError("absent.yaml: No such file or directory"))


# What is a finding


@pytest.mark.parametrize(
    ("file", "rule", "line"),
    [
        (DEMO, None, 0),
        ("specs/striped.yaml", None, 0),
        (OTHER_SHAPE, Rule.DEADLOCK, 5),
        (NOT_THERE, Rule.NOT_FOUND, 6),
        (UNPROVED, Rule.UNDECIDED, 1),
    ],
)
def test_what_is_as_expected_is_no_finding(file: str, rule: Rule | None, line: int) -> None:
    """And what is not has a rule and a line."""
    found = findings([checked(file)])
    assert [(finding.rule, finding.position.line) for finding in found] == ([(rule, line)] if rule else [])


@pytest.mark.parametrize(
    ("file", "rule", "place"),
    [
        ("tests/small/global-stall.yaml", Rule.GLOBAL_STALL, "FOR|EXCLUSIVE|TAKE|SHARE"),
        ("tests/small/mixed-fleet.yaml", Rule.FORMULA, "never|count|:"),
    ],
)
def test_other_violations_stand_where_they_are_written(file: str, rule: Rule, place: str) -> None:
    """With the expectation taken out, so that the violation is unexpected."""
    text = re.sub(r"(?m)^expect:.*\n", "", Path(file).read_text())
    (finding,) = findings([unexpected(file, text)])
    assert finding.rule is rule
    assert re.search(place, text.splitlines()[finding.position.line - 1])


def test_a_deadlock_stands_where_the_first_worker_waits() -> None:
    """The line of the request that is not granted."""
    (finding,) = findings([unexpected()])
    assert finding.rule is Rule.DEADLOCK
    assert UNEXPECTED.splitlines()[finding.position.line - 1].strip() in ("- a: FOR UPDATE", "- b: FOR UPDATE")
    assert finding.position.line in (8, 12)
    assert len(finding.schedule) == 4
    assert finding.schedule[0].startswith("1. worker 1 starts ")


def test_all_kinds_of_deadlock_are_a_finding_each() -> None:
    """With `--all`."""
    text = Path("specs/striped-old-claim.yaml").read_text().replace("expect: ", "doc2: ")
    text = re.sub(r"(?m)^doc2: .*\n", "", text)
    result = check(parse(text, "q.yaml"), every=True)
    assert result.deadlocks is not None
    assert len(findings([result])) == len(result.deadlocks.groups) > 1


def test_certain_findings_come_first() -> None:
    """A viewer that shows ten shows those."""
    found = findings([checked(UNPROVED), unexpected()], [ABSENT], ["later.yaml"])
    assert [finding.rule for finding in found] == [Rule.BAD_INPUT, Rule.DEADLOCK, Rule.UNDECIDED, Rule.NOT_CHECKED]
    assert set(DESCRIPTIONS) == set(Rule)


# JUnit, read by junitparser


def cases(text: str) -> dict[str, TestCase]:
    document = JUnitXml.fromstring(text.encode())
    found = {case.name: case for suite in document for case in suite}
    assert document.tests == len(found)
    assert document.failures == sum(isinstance(case.result[0], Failure) for case in found.values() if case.result)
    assert document.errors == sum(isinstance(case.result[0], Error) for case in found.values() if case.result)
    assert document.skipped == 0
    return found


def test_junit_has_a_case_for_each_spec() -> None:
    """Passed, failed with the trace as text, undecided, unreadable, left out."""
    text = junit.report([checked(DEMO), unexpected(), checked(UNPROVED)], [ABSENT, bad()], unchecked=["later.yaml"])
    found = cases(text)
    assert set(found) == {DEMO, "pay.yaml", UNPROVED, "absent.yaml", "bad.yaml", "later.yaml"}
    assert not found[DEMO].result
    assert found[DEMO].system_out and "HOLDS" not in found[DEMO].system_out and "DEADLOCK" in found[DEMO].system_out
    (failure,) = found["pay.yaml"].result
    assert (type(failure), failure.type) == (Failure, "deadlock")
    assert failure.message.startswith("DEADLOCK between ")
    for part in ("worker 1", "takes a FOR UPDATE", "waits", "Neither can go on.", "lockmodel replay pay.yaml"):
        assert part in (failure.text or "")
    (undecided,) = found[UNPROVED].result
    assert (type(undecided), undecided.type) == (Failure, "undecided")
    (error,) = found["bad.yaml"].result
    assert (type(error), error.type) == (Error, "bad-input")
    assert error.message.startswith("line 3: ") and "EXCLUSIVE" in error.message
    assert found["later.yaml"].result[0].type == "not-checked"
    assert [found[name].classname for name in (DEMO, UNPROVED, "pay.yaml")] == ["specs", "tests.small", "lockmodel"]


def test_junit_tells_runs_with_other_overrides_apart() -> None:
    """Two results of one file are two cases."""
    striped = "specs/striped.yaml"
    found = cases(junit.report([checked(striped), checked(striped, settings=["stripe=3"])]))
    assert set(found) == {striped, f"{striped} --set stripe=3"}


def test_junit_is_well_formed_whatever_a_spec_says() -> None:
    """The names come back as they were, and no control character gets in."""
    found = cases(junit.report([hostile()], [json_report.Failure("\x00\x1b[31m\udcff\n", UsageError("a\x07b\ufffe"))]))
    assert HOSTILE.replace("/", "") in found
    assert HOSTILE in found[HOSTILE.replace("/", "")].result[0].text


def test_junit_is_ascii() -> None:
    """Whatever the encoding of standard output; without a character reference for each line of a table."""
    text = junit.report([unexpected(text=UNEXPECTED.replace("forth", "vør"))])
    assert text.isascii()
    assert set(re.findall(r"&#\d+;", text)) == {"&#248;"}
    assert "starts vør" in cases(text)["pay.yaml"].result[0].text


# SARIF, read by the types that are generated from its JSON Schema


def log(
    *results: CheckResult, failures: Iterable[json_report.Failure] = (), unchecked: Iterable[str] = ()
) -> dict[str, Any]:
    """The only run of the SARIF log, after the schema has been held to it."""
    text = sarif.report(results, failures, unchecked=list(unchecked))
    SarifLog.model_validate_json(text)
    (run,) = json.loads(text)["runs"]
    loaded: dict[str, Any] = run
    for result in loaded["results"]:
        assert loaded["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
    return loaded


def region(result: dict[str, Any]) -> tuple[str, int | None]:
    place = result["locations"][0]["physicalLocation"]
    return place["artifactLocation"]["uri"], place.get("region", {}).get("startLine")


def test_sarif_of_what_is_as_expected_is_an_empty_run() -> None:
    """Code scanning then closes the alerts of before."""
    run = log(checked(DEMO), checked("specs/striped.yaml"))
    assert run["results"] == []
    assert run["invocations"] == [{"executionSuccessful": True}]


def test_sarif_has_a_deadlock_with_its_schedule() -> None:
    """The place, where the others wait, and a thread for each worker in the trace's order."""
    (result,) = log(unexpected())["results"]
    assert (result["ruleId"], result["level"]) == ("deadlock", "error")
    assert region(result)[0] == "pay.yaml"
    related = [place["physicalLocation"]["region"]["startLine"] for place in result["relatedLocations"]]
    assert sorted(related) == [8, 12]
    (flow,) = result["codeFlows"]
    steps = [
        (place["executionOrder"], thread["id"], place["location"]["message"]["text"])
        for thread in flow["threadFlows"]
        for place in thread["locations"]
    ]
    assert [thread["id"] for thread in flow["threadFlows"]] == ["worker 1", "worker 2"]
    assert sorted(order for order, _, _ in steps) == [1, 2, 3, 4, 5, 5]
    assert all(text.startswith(worker) for _, worker, text in steps)
    assert next(text for order, _, text in steps if order == 5).startswith("worker 1 waits for ")


@pytest.mark.parametrize("file", SMALL)
def test_sarif_of_every_small_spec_is_valid(file: str) -> None:
    """Also where the expectation is taken out, so that there are all sorts of findings."""
    text = re.sub(r"(?m)^expect:.*\n", "", Path(file).read_text())
    result = unexpected(file, text)
    assert len(log(result)["results"]) == (result.exit_code != 0)


def test_sarif_says_what_was_not_checked() -> None:
    """A run that could not read a spec did not succeed."""
    run = log(failures=[bad(), ABSENT], unchecked=["later.yaml"])
    assert run["invocations"] == [{"executionSuccessful": False}]
    assert [(result["ruleId"], *region(result)) for result in run["results"]] == [
        ("bad-input", "bad.yaml", 3),
        ("bad-input", "absent.yaml", None),
        ("not-checked", "later.yaml", None),
    ]


@pytest.mark.parametrize(
    ("file", "uri"),
    [
        ("./specs/a.yaml", "specs/a.yaml"),
        ("my specs/ä#?.yaml", "my%20specs/%C3%A4%23%3F.yaml"),
        ("a:b.yaml", "a%3Ab.yaml"),
        ("/tmp/a b.yaml", "file:///tmp/a%20b.yaml"),
        ("<stdin>", "%3Cstdin%3E"),
    ],
)
def test_sarif_names_files_by_uris(file: str, uri: str) -> None:
    """Relative ones stay so; nothing in a name is taken for a part of the URI."""
    (result,) = log(unexpected(file))["results"]
    assert region(result)[0] == uri
    assert unquote(uri).endswith(os.path.normpath(file))


def test_sarif_knows_a_finding_again_after_lines_have_moved() -> None:
    """The fingerprint goes by what deadlocks, not by where it stands."""
    prints = [
        log(result)["results"][0]["partialFingerprints"]["finding/v1"]
        for result in (
            unexpected(),
            unexpected(text="# moved\n\n" + UNEXPECTED),
            unexpected(text=UNEXPECTED.replace("back", "home")),
        )
    ]
    assert prints[0] == prints[1] != prints[2]


def test_sarif_messages_have_no_placeholders_or_links_of_a_spec() -> None:
    """`{0}` and `[…](…)` have a meaning in messages."""
    (result,) = log(hostile())["results"]
    text = result["message"]["text"]
    assert "{{0}}" in text
    assert "](" not in text


# GitHub annotations, read by the runner's grammar


def commands(text: str) -> list[tuple[str, dict[str, str], str]]:
    """The workflow commands in a log, as ActionCommand.TryParseV2 of actions/runner reads them."""
    found = []
    for line in text.splitlines():
        line = line.lstrip()
        if not line.startswith("::"):
            continue
        end = line.find("::", 2)
        assert end > 0, line
        head, data = line[2:end], line[end + 2 :]
        command, _, properties = head.partition(" ")
        pairs = [pair.partition("=") for pair in properties.strip().split(",") if pair.strip()]
        decoded = {key: _decoded(value, {"%0D": "\r", "%0A": "\n", "%3A": ":", "%2C": ","}) for key, _, value in pairs}
        found.append((command, decoded, _decoded(data, {"%0D": "\r", "%0A": "\n"})))
    return found


def _decoded(text: str, codes: dict[str, str]) -> str:
    for code, char in codes.items():
        text = text.replace(code, char)
    return text.replace("%25", "%")


def test_github_annotates_each_finding() -> None:
    """The file, the line, the words, the schedule."""
    text = github.report([checked(DEMO), unexpected(), checked(UNPROVED)], [ABSENT, bad()], unchecked=["later.yaml"])
    found = commands(text)
    assert len(found) == len(text.splitlines())
    assert [(command, where["file"], where.get("line")) for command, where, _ in found] == [
        ("error", "absent.yaml", None),
        ("error", "bad.yaml", "3"),
        ("error", "pay.yaml", found[2][1]["line"]),
        ("warning", UNPROVED, "1"),
        ("warning", "later.yaml", None),
    ]
    _, where, message = found[2]
    assert where["title"].startswith("lockmodel: DEADLOCK between ")
    first, *steps = message.splitlines()
    assert "Neither can go on." in first
    assert len(steps) == 4 and steps[0].startswith("1. worker 1 starts ")


def test_github_says_nothing_if_all_is_well() -> None:
    """No annotation is no news."""
    assert github.report([checked(DEMO)]) == ""


def test_github_words_of_a_spec_are_no_commands() -> None:
    """The names come back as they were, on one line for each finding."""
    failure = json_report.Failure("a\n::error::b", UsageError("c\r\n::warning::d"))
    (unreadable, deadlock) = commands(github.report([hostile()], [failure]))
    assert unreadable[2] == "c ::warning::d"
    assert deadlock[1]["file"] == HOSTILE.replace("/", "")
    assert HOSTILE in deadlock[2]


def test_github_has_no_file_for_standard_input() -> None:
    """There is none to annotate."""
    ((_, where, _),) = commands(github.report([unexpected("<stdin>")]))
    assert set(where) == {"title"}


# Markdown, read by markdown-it


def tokens(text: str) -> list[Token]:
    parser = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    return parser.parse(text)


def plain(token: Token) -> str:
    """What a reader sees of an inline token, its comments left out."""
    return "".join(
        child.content for child in token.children or () if child.type in ("text", "text_special", "code_inline")
    )


def table(text: str) -> list[list[str]]:
    rows: list[list[str]] = []
    inside = False
    for token in tokens(text):
        inside = inside or token.type == "table_open"
        if token.type == "tr_open":
            rows.append([])
        elif token.type == "table_close":
            return rows
        elif inside and token.type == "inline":
            rows[-1].append(plain(token))
    raise AssertionError("no table")


def test_markdown_has_a_table_and_the_schedules() -> None:
    """All specs in the table; what is wrong below, the trace as a block of code."""
    text = markdown.report([checked(DEMO), unexpected(), checked(UNPROVED)], [ABSENT], unchecked=["later.yaml"])
    assert text.splitlines()[0] == markdown.MARK
    head, *rows = table(text)
    assert head == ["spec", "verdict", "as expected?", "states"]
    assert [row[0] for row in rows] == ["absent.yaml", "pay.yaml", UNPROVED, DEMO, "later.yaml"]
    assert [row[2] for row in rows] == ["", "no", "undecided", "yes", ""]
    (heading,) = [
        token for before, token in zip(tokens(text), tokens(text)[1:], strict=False) if before.type == "heading_open"
    ]
    assert plain(heading).startswith(
        "lockmodel: 5 specs: 1 as expected, 1 not as expected, 1 undecided, 1 with an error"
    )
    (block,) = [token for token in tokens(text) if token.type == "fence"]
    assert "takes a FOR UPDATE" in block.content and "Neither can go on." in block.content
    seen = " ".join(plain(token) for token in tokens(text) if token.type == "inline")
    assert "absent.yaml: No such file or directory" in seen
    assert "lockmodel replay pay.yaml" in seen


def test_markdown_words_of_a_spec_are_words() -> None:
    """No markup, no HTML, no link; cells stay apart; nobody is mentioned, no issue is referred to."""
    text = markdown.report([hostile()])
    html = [child.content for token in tokens(text) for child in token.children or () if child.type == "html_inline"]
    html += [token.content.strip() for token in tokens(text) if token.type == "html_block"]
    assert set(html) <= {markdown.MARK, "<!-- -->", "<details><summary>The schedule</summary>", "</details>"}
    kinds = {child.type for token in tokens(text) for child in token.children or ()}
    assert kinds <= {"text", "text_special", "code_inline", "html_inline", "strong_open", "strong_close", "softbreak"}
    (_, row) = table(text)
    assert row[0] == HOSTILE.replace("/", "")
    assert HOSTILE in row[1]
    # GitHub looks for mentions and references in the texts between tags, comments included, and for the rest before it reads escapes.
    texts = [child.content for token in tokens(text) for child in token.children or () if child.type == "text"]
    assert any("octocat" in part for part in texts)
    assert not any(re.search(r"@\w|#\d", part) for part in texts)
    escaped = markdown.escape(HOSTILE)
    assert not re.search(r"https?://|www\.|(?<!\\)[$:]\S", escaped)
    (block,) = [token for token in tokens(text) if token.type == "fence"]
    assert "Neither can go on." in block.content


@pytest.mark.parametrize("text", ["a", "```", "````\n```\n~~~", "    x"])
def test_markdown_blocks_of_code_end_where_they_should(text: str) -> None:
    """Whatever lines are in them."""
    (block,) = tokens(markdown.fenced(text))
    assert (block.type, block.content) == ("fence", f"{text}\n")


@pytest.mark.parametrize("word", ["", "a", "`", "``a`", "a|b", " x ", "\\", "a\nb"])
def test_markdown_code_is_what_it_was(word: str) -> None:
    """Also with backticks at its ends."""
    (inline,) = [token for token in tokens(f"x {markdown.code(word)} y") if token.type == "inline"]
    if word:
        assert [child.content for child in inline.children or () if child.type == "code_inline"] == [
            " ".join(word.split())
        ]


def test_markdown_fits_into_a_comment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has no room is left out, with a word about it, and the blocks that are there are whole."""
    monkeypatch.setattr(markdown, "LIMIT", 3_000)
    text = markdown.report([unexpected(f"{number}.yaml") for number in range(12)])
    assert len(text) < 3_200
    assert len(table(text)) == 13
    assert re.search(r"Left out for want of room: \d+ sections\.", text)
    assert text.count("<details>") == text.count("</details>")


def test_markdown_of_very_many_specs_fits_too() -> None:
    """What is wrong stands first in the table."""
    well = checked(DEMO)
    text = markdown.report([well] * 2_000 + [unexpected()])
    assert len(text) < markdown.LIMIT
    assert table(text)[1][0] == "pay.yaml"
    assert re.search(r"(?m)^And [\d,]+ more specs\.$", text)
    assert "Neither can go on." in text


# The command line


def lockmodel(*arguments: str, cwd: Path = REPOSITORY) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "PYTHONUTF8": "1"}
    command = [sys.executable, "-m", "lockmodel", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120)


def test_several_formats_at_once(tmp_path: Path) -> None:
    """Each into its file, two into the log; the exit code is the same."""
    names = {form: tmp_path / f"report.{form}" for form in ("json", "junit", "sarif", "markdown")}
    words = [word for form, file in names.items() for word in ("--format", f"{form}={file}")]
    answer = lockmodel("check", DEMO, OTHER_SHAPE, UNPROVED, "--format", "github", "--format", "terminal", *words)
    assert (answer.returncode, answer.stderr) == (1, "")
    assert answer.stdout.startswith(f"{DEMO}  DEADLOCK")
    assert [command for command, _, _ in commands(answer.stdout)] == ["error", "warning"]
    assert len(json.loads(names["json"].read_text())["results"]) == 3
    assert len(cases(names["junit"].read_text())) == 3
    SarifLog.model_validate_json(names["sarif"].read_text())
    assert len(table(names["markdown"].read_text())) == 4


def test_output_is_the_file_of_the_format_without_one(tmp_path: Path) -> None:
    """Beside others that have theirs."""
    one, other = tmp_path / "a.xml", tmp_path / "b.sarif"
    answer = lockmodel("check", DEMO, "--format", f"junit={one}", "--format", "sarif", "--output", str(other))
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")
    assert len(cases(one.read_text())) == 1
    assert json.loads(other.read_text())["version"] == "2.1.0"


def test_every_report_is_written_of_bad_specs_too(tmp_path: Path) -> None:
    """A file from the run before must not stay there."""
    file = tmp_path / "a.xml"
    file.write_text("old")
    assert lockmodel("check", "absent.yaml", "--format", f"junit={file}").returncode == 2
    assert isinstance(cases(file.read_text())["absent.yaml"].result[0], Error)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["junti"], "--format 'junti': did you mean junit? available: terminal, json, junit, sarif, github, markdown"),
        (["=x"], "--format '': available: terminal, json"),
        (["junit="], "--format 'junit=': it names no file; write --format junit=FILE"),
        (["json", "sarif"], "--format json and sarif: only one of them can go to standard output; write --format json=FILE"),
        (["terminal", "sarif"], "--format terminal and sarif: only one of them can go to standard output; write --format sarif=FILE"),
        (["json", "json"], "--format json and json: only one of them can go to standard output; write --format json=FILE"),
        (["terminal", "terminal"], "only one of them can go to standard output; write --format terminal=FILE"),
        (["json=x/y/z"], "--format json 'x/y/z': there is no folder 'x/y'"),
        (["json=specs"], "--format json 'specs': it is a folder"),
        ([f"json={DEMO}"], f"--format json '{DEMO}': it is one of the specs, which would be overwritten"),
        (["json=no.out", "junit=./no.out"], "--format json 'no.out': another format goes to this file, too"),
    ],
)  # fmt: skip
def test_formats_that_make_no_sense_are_refused(words: list[str], line: str) -> None:
    """Before anything is checked or written."""
    answer = lockmodel("check", DEMO, *(part for word in words for part in ("--format", word)))
    assert (answer.returncode, answer.stdout, answer.stderr.count("\n")) == (2, "", 1)
    assert line in answer.stderr
    assert not Path("no.out").exists()


@pytest.mark.parametrize(
    ("words", "why"),
    [(["json=a", "junit=b"], "each format has its own file"), (["json", "junit"], "there are several formats")],
)
def test_output_needs_one_format_without_a_file(tmp_path: Path, words: list[str], why: str) -> None:
    """Which of them it is for would be a guess."""
    named = [part for word in words for part in ("--format", word)]
    answer = lockmodel("check", str(REPOSITORY / DEMO), *named, "--output", "out", cwd=tmp_path)
    assert answer.returncode == 2
    assert answer.stderr == f"--output 'out': {why}; write --format NAME=FILE for each\n"
    assert list(tmp_path.iterdir()) == []
