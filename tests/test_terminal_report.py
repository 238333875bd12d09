"""What a person reads. Each report is compared with a file in tests/golden; `SNAP_UPDATE=1 pytest` writes them anew."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path

import pytest

from lockmodel.checker import check
from lockmodel.exploration import Limits
from lockmodel.overrides import Overrides, arguments, parse_overrides
from lockmodel.parser import load, parse
from lockmodel.report import words
from lockmodel.report.page import Page, text
from lockmodel.report.terminal import Row, brief, full, summary
from lockmodel.verdict import CheckResult

REPOSITORY = Path(__file__).parent.parent
GOLDEN = Path(__file__).parent / "golden"

SPECS = {
    "deadlock": "specs/deadlock-demo.yaml",
    "reverse-walk": "specs/awa/old-striped-claim.yaml",
    "holds-by-order": "specs/striped.yaml",
    "holds-by-exclusion": "specs/awa/storage.yaml",
    "three-roles": "tests/small/three-roles.yaml",
    "other-modes": "tests/small/upgrade.yaml",
    "pool": "tests/small/pool-starved.yaml",
    "pool-and-row": "tests/small/pool-and-row.yaml",
    "never": "tests/small/mixed-fleet.yaml",
    "always": "tests/small/always.yaml",
    "global-stall": "tests/small/global-stall.yaml",
    "many-workers": "tests/small/many-workers.yaml",
    "undecided": "tests/small/unproved.yaml",
    "unmet-shape": "tests/small/other-shape.yaml",
    "unmet-holds": "tests/small/no-deadlock-there.yaml",
}


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports name files as the user did, so the tests name them from one place."""
    monkeypatch.chdir(REPOSITORY)


def checked(file: str, overrides: Overrides | None = None, **limits: int) -> CheckResult:
    return check(load(file), overrides, Limits(**limits))


def compare(name: str, report: str) -> None:
    """`report` is the golden file `name`, but for the seconds."""
    report = re.sub(r"\d+\.\d\d s\b", "0.00 s", report)
    file = GOLDEN / f"{name}.txt"
    if os.environ.get("SNAP_UPDATE"):
        file.write_text(report, encoding="utf-8")
    assert file.read_text(encoding="utf-8") == report


@pytest.mark.parametrize("name", SPECS)
def test_the_whole_report_of_one_spec(name: str) -> None:
    """Each kind of verdict, on a page of 80 columns."""
    report = full(checked(SPECS[name]), Page())
    compare(name, report)
    long = [line for line in report.splitlines() if len(line) > 80 and "Replay it" not in line]
    assert not long


def test_a_limit_is_reported_with_what_was_covered() -> None:
    """An unfinished search says how far it came."""
    compare("limit", full(checked("tests/small/unproved.yaml", Overrides(workers=6), max_states=500), Page()))


def test_characters_that_the_stream_lacks_are_replaced() -> None:
    """On an ASCII stream the lines and arrows are made of ASCII, and so is everything else."""
    for name in ("deadlock", "many-workers"):
        report = full(checked(SPECS[name]), Page(encoding="ascii"))
        assert report.isascii()
        compare(f"{name}-ascii", report)


def test_words_of_a_spec_that_the_stream_lacks_are_escaped() -> None:
    """A transaction called in Greek is still reported on a Latin-1 stream."""
    spec = parse("name: x\nresources: {a: {kind: lock}, b: {kind: lock}}\nworkers: 2\ntransactions:\n"
                 "  πληρωμή: {steps: [{a: EXCLUSIVE}, {b: EXCLUSIVE}]}\n  é: {steps: [{b: EXCLUSIVE}, {a: EXCLUSIVE}]}\n")  # fmt: skip
    report = full(check(spec), Page(encoding="latin-1"))
    assert "starts \\u03c0" in report
    assert "starts é" in report


def test_a_wide_terminal_has_room_for_more_columns() -> None:
    """Twelve workers stand side by side if there is room, and in a list if not."""
    report = full(checked(SPECS["many-workers"]), Page(width=300))
    assert "│ service 11 1" in report
    assert all(len(line) <= 300 for line in report.splitlines())


@pytest.mark.parametrize("width", [40, 57, 100, 200])
def test_no_line_is_longer_than_the_page(width: int) -> None:
    """Whatever the width, only the command to copy and a file's name with its verdict may be longer than the page."""
    for file in SPECS.values():
        heading, *rest = full(checked(file, max_states=2_000), Page(width=width)).splitlines()
        assert len(heading) <= max(width, len(f"{file}  GLOBAL STALL"))
        assert not [line for line in rest if len(line) > width and "Replay it" not in line]


def test_a_verdict_stands_beside_its_file_however_long_the_name() -> None:
    """Whoever searches the output for a verdict finds it in the line of its file."""
    file = f"{'deep/' * 30}striped.yaml"
    page = Page()
    assert page.render(*page.heading(file, text("AS EXPECTED"))) == f"{file}  AS EXPECTED\n"
    assert page.render(*page.heading(file, text("HOLDS"), "for all")) == f"{file}  HOLDS\n  for all\n"
    assert page.render(*page.heading("a.yaml", text("HOLDS"), "for all")) == "a.yaml  HOLDS  for all\n"


def test_a_spec_as_expected_is_told_in_one_line_among_many() -> None:
    """Among many specs only the unexpected ones are told in full; the rest can be asked for."""
    assert brief(checked(SPECS["deadlock"]), Page()).count("\n") == 1
    unmet = checked(SPECS["unmet-shape"])
    assert brief(unmet, Page()) == full(unmet, Page())


def test_the_summary_counts_what_was_left_out() -> None:
    """A file with an error has a row, files not checked are counted."""
    table = summary([Row("specs/absent.yaml", None)], Page(), unchecked=2)
    assert "specs/absent.yaml  ERROR" in table
    assert table.endswith("3 specs: 1 with an error, 2 not checked.\n")


@pytest.mark.parametrize(
    ("length", "heads"),
    [
        (40, "spec verdict expected? states seconds"),
        (48, "spec verdict expected? states"),
        (58, "spec verdict expected?"),
        (90, "spec verdict expected?"),
    ],
)
def test_a_long_name_has_more_room_than_counts(length: int, heads: str) -> None:
    """Names are broken only where there is no other way; in 80 columns."""
    result = checked(SPECS["three-roles"])
    name = "x" * length
    table = summary([Row(name, result), Row("short.yaml", result)], Page())
    assert " ".join(table.splitlines()[0].split()) == heads
    assert (f"{name}  " in table) == (length < 80)
    assert all(len(line) <= 80 for line in table.splitlines())


def test_colours_come_only_when_asked_for() -> None:
    """A page without colour has no escape sequence in it."""
    result = checked(SPECS["deadlock"])
    assert "\x1b" not in full(result, Page())
    coloured = full(result, Page(colour=True))
    assert "\x1b[1;32mDEADLOCK" in coloured
    plain = re.sub(r"\x1b\[[\d;]*m", "", coloured)
    assert [line.rstrip() for line in plain.splitlines()] == full(result, Page()).splitlines()


def test_a_file_name_can_not_speak_to_the_terminal() -> None:
    """An escape sequence or a new line in a name is shown, not performed."""
    spec = parse(Path(SPECS["deadlock"]).read_text(), "a\x1b[31m\nb.yaml")
    report = full(check(spec), Page())
    assert "\x1b" not in report
    assert report.startswith("a\\x1b[31m b.yaml  DEADLOCK")


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    encoding = "utf-8"  # type: ignore[assignment]

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("environment", "colour"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "dumb"}, False),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
        ({"TERM": "xterm", "NO_COLOR": ""}, True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
    ],
)
def test_colour_follows_the_terminal_and_the_environment(environment: dict[str, str], colour: bool) -> None:
    """NO_COLOR is stronger than everything, an empty one says nothing."""
    assert Page.of(Terminal(), environment).colour is colour


def test_a_pipe_has_colour_only_by_force() -> None:
    """A CI log shows colours if FORCE_COLOR says so."""
    assert Page.of(io.StringIO(), {"TERM": "xterm"}) == Page(80, False, "utf-8")
    assert Page.of(io.StringIO(), {"FORCE_COLOR": "1"}).colour


def test_the_replay_command_is_quoted_and_has_the_overrides(tmp_path: Path) -> None:
    """What the report says to run can be pasted into a shell."""
    file = tmp_path / "my spec.yaml"
    file.write_bytes(Path("specs/striped-old-claim.yaml").read_bytes())
    result = checked(str(file), parse_overrides(["stripe=3", "slot=[a]"], ["2"]))
    command = words.replay_command(result)
    assert command == f"lockmodel replay '{file}' --set stripe=3 --set 'slot=[a]' --workers 2"
    assert f"Replay it: {command}\n" in full(result, Page())


@pytest.mark.parametrize(
    ("settings", "workers"),
    [
        ([], []),
        (["a=3"], ["7"]),
        (["a=x,y", "b=[3]", "c=[true]", "d=word"], ["any"]),
        (["a=-1,0"], ["producer=2", "consumer=any"]),
    ],
)
def test_overrides_can_be_written_as_they_are_read(settings: list[str], workers: list[str]) -> None:
    """The arguments made from overrides are read as the same overrides."""
    overrides = parse_overrides(settings, workers)
    given = arguments(overrides)
    pairs = list(zip(given[::2], given[1::2], strict=True))
    again = parse_overrides([v for k, v in pairs if k == "--set"], [v for k, v in pairs if k == "--workers"])
    assert again == overrides


def test_a_deadlock_of_one_worker_is_told_as_one() -> None:
    """A worker that holds all units of a pool and wants one more waits for itself."""
    spec = parse(
        "name: x\nworkers: 2\nresources: {c: {kind: pool, size: 1}}\ntransactions: {t: {steps: [{c: TAKE}, {c: TAKE}]}}\n"
    )
    report = full(check(spec), Page())
    assert "DEADLOCK  of t with itself" in report
    assert "Of 1 unit of c, worker 1 has 1. It can never go on." in " ".join(report.split())


def test_a_violation_in_the_initial_state_has_no_schedule() -> None:
    """Where nothing has happened yet there is no table."""
    spec = parse("name: x\nworkers: 1\nresources: {a: {kind: lock}}\ntransactions: {t: {steps: [{a: SHARED}]}}\n"
                 "always: {busy: count(w.status == running) == 1}\n")  # fmt: skip
    report = full(check(spec), Page())
    assert "step" not in report
    assert "In the last state 'busy' is false" in report


def test_an_undecided_says_which_part_is_proved() -> None:
    """A formula that no proof covers, of transactions that can't deadlock."""
    spec = parse("name: x\nresources: {a: {kind: row}, b: {kind: row}}\n"
                 "transactions: {t: {steps: [{a: FOR UPDATE}, {b: FOR UPDATE}]}}\n"
                 "never: {crowd: count(w.transaction == t and w.holds(b)) > 1}\n")  # fmt: skip
    said = " ".join(full(check(spec), Page()).split())
    assert (
        "UNDECIDED never crowd: holds for up to 4 workers, but is not proved for any number (no deadlock is proved)"
        in said
    )
