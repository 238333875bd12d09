"""Every error that a spec can have is one line: file, line, what is wrong, and what would be right.

Each file in tests/malformed says in its first line what must be said of it: `# expect: LINE: text`, where `text` is a part of the message.
A second line, `# with: --set stripe=1`, gives overrides to check it with.
"""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from lockmodel.checker import check
from lockmodel.errors import LockmodelError, SpecError, UsageError
from lockmodel.exploration import Limits
from lockmodel.overrides import parse_overrides
from lockmodel.parser import MAX_BYTES, load, parse

FOLDER = Path(__file__).parent / "malformed"
FILES = sorted(FOLDER.glob("*.yaml"))
EXPECT = re.compile(r"# expect: (?P<line>\d+): (?P<text>.+)\n(?:# with: (?P<words>.+)\n)?")
LIMITS = Limits(max_states=2_000, timeout_seconds=10)
PROGRAMMING = re.compile(r"Traceback|<class|<lockmodel|object at 0x|\w+Error\b|pydantic|ruamel|NoneType")
"""What only a programmer would say."""


def words_after(option: str, words: list[str]) -> list[str]:
    return [value for name, value in itertools.pairwise(words) if name == option]


def fault(data: bytes | str) -> SpecError:
    """The error in a spec, which must have one; a warning would be a second line."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(SpecError) as caught:
            check(parse(data, "q.yaml"), limits=LIMITS)
    assert_clear(caught.value)
    return caught.value


def assert_clear(error: LockmodelError) -> None:
    """One line, short enough to be read, without what only a terminal or a programmer understands."""
    said = str(error)
    assert len(said.splitlines()) == 1
    assert said.isprintable()
    assert len(said) < 600
    assert not PROGRAMMING.search(said), said


def test_there_are_many_malformed_specs() -> None:
    """The folder was found, and covers the language."""
    assert len(FILES) >= 250


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_malformed_spec_is_refused_in_one_clear_line(path: Path) -> None:
    """The line in the file is right, and the message says what the file's first line wants it to say."""
    expected = EXPECT.match(path.read_text())
    assert expected, "the first line is `# expect: LINE: text`"
    words = (expected["words"] or "").split()
    overrides = parse_overrides(words_after("--set", words), words_after("--workers", words))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(SpecError) as caught:
            check(load(path), overrides, LIMITS)
    assert_clear(caught.value)
    assert str(caught.value).startswith(f"{path}:{expected['line']}: ")
    assert expected["text"] in caught.value.message


@pytest.mark.parametrize(
    ("data", "line", "text"),
    [
        (b"", 1, "the file is empty; a spec has at least: name, resources, transactions"),
        (b"\n\n# only a comment\n", 1, "the file is empty"),
        (b"---\n...\n", 2, "the file is empty"),
        (b"\xef\xbb\xbf", 1, "the file is empty"),
        (b"name: x\nsets: {s: [\xff]}\n", 2, "not UTF-8 text (byte 0xff); save the file as UTF-8"),
        (b"name: caf\xe9\n", 1, "not UTF-8 text (byte 0xe9)"),
        ("name: x\n".encode("utf-16"), 1, "not UTF-8 text (byte 0xff)"),
        (b"name: x\ndoc: a\x00b\n", 2, r"the character \x00 is not allowed"),
        (b"name: x\n\ndoc: a\x07b\n", 3, r"the character \x07 is not allowed"),
        (b'{\n "lockmodel": "0.1.0", "results": [' + b"1," * MAX_BYTES, 1, "this is a JSON report, not a spec; `lockmodel replay` takes it"),
        (b"name: x\r\nnome: x\r\n", 2, "unknown key 'nome' in the spec; did you mean name?"),
        (b"x" * (MAX_BYTES + 1), 0, "larger than 256 KiB, the most that a spec may have"),
        ("name: x\ndoc: a\ud800b\n", 2, "not allowed"),
    ],
    ids=["nothing", "comment", "empty document", "byte order mark", "byte", "latin-1", "utf-16", "nul", "bell", "report", "crlf", "large", "surrogate"],
)  # fmt: skip
def test_bytes_that_are_no_spec_are_refused_with_their_line(data: bytes | str, line: int, text: str) -> None:
    """What an editor or a wrong file can contain is refused as clearly as a misspelt word."""
    error = fault(data)
    assert error.position.line == line
    assert str(error).startswith(f"q.yaml:{line}: " if line else "q.yaml: ")
    assert text in error.message


def test_a_list_that_hides_no_more_than_two_hides_none() -> None:
    """Who misspelt a key sees all that a step may have."""
    error = fault("name: x\nresources: {l: {kind: lock}}\ntransactions: {t: {steps: [{select: l, form: UPDATE}]}}\n")
    words = "sql, label, select, for, of, partition, rows, order"
    assert error.message.endswith(f"did you mean for? available: {words}")


def test_a_repeated_anchor_is_no_reason_for_a_warning() -> None:
    """YAML allows it; the library would write several lines to standard error."""
    fault("a: &x 1\nb: &x 2\nc: *x\n")


def test_an_odd_spelling_in_a_formula_is_no_reason_for_a_warning() -> None:
    """Python warns of `1or 2` and of an unknown escape; a spec is not Python."""
    base = 'name: x\nresources: {l: {kind: lock}}\ntransactions: {t: {steps: []}}\nworkers: 1\nnever: {p: "%s"}\n'
    for formula in ("1or 2", "count(w.status == 'a\\\\d') > 1"):
        fault(base % formula)


@pytest.mark.parametrize(
    ("settings", "workers", "text"),
    [
        (["stripe"], [], "write NAME=NUMBER or NAME=ELEMENT,ELEMENT"),
        (["stripe="], [], "write NAME=NUMBER"),
        (["stripe=2", "stripe=3"], [], "--set 'stripe=3': stripe is set twice; drop one"),
        (["stripe=2", "stripe=2"], [], "stripe is set twice"),
        ([], ["2", "3"], "--workers '3': there is a number of workers already; drop one"),
        ([], ["producer=2", "producer=3"], "--workers 'producer=3': producer has a number already; drop one"),
        (["strip=2"], [], "no such set or variable; did you mean stripe?"),
        (["stripe=0"], [], "the size of a set is 1 to 4,096"),
        (["stripe=5000"], [], "the size of a set is 1 to 4,096"),
        (["stripe=a,,b"], [], "an element is empty"),
        (["stripe=a,a"], [], "the element 'a' stands there twice"),
        (["stripe=a b,c"], [], "the element 'a b' must be a word of letters, digits"),
        (["state=on,off"], [], "state is a variable and takes one initial value"),
        ([], ["0"], "a number of workers is 1 to 4,096, or any"),
        ([], ["many"], "a number of workers is 1 to 4,096, or any"),
        ([], ["2"], "every role of <spec> has a count; say which to change: producer=N"),
        (["stripe=" + ",".join(map(str, range(4097)))], [], "a set has at most 4,096 elements"),
        ([], ["producr=2"], "unknown role; did you mean producer?"),
        ([], ["2", "producer=2"], "either one number or ROLE=N"),
        ([], ["producer=4096", "consumer=4096"], "workers are too many"),
    ],
)
def test_a_wrong_override_is_refused_in_one_clear_line(settings: list[str], workers: list[str], text: str) -> None:
    """What is wrong with the command line has no line in a file, but says as much."""
    spec = parse(
        "name: x\nsets: {stripe: 2}\nvariables: {state: {values: [on, off]}}\nresources: {l: {kind: lock}, m: {kind: lock}}\n"
        "transactions: {t: {steps: [l: SHARED, m: EXCLUSIVE, l: EXCLUSIVE]}}\nroles: {producer: {count: 1, runs: [t]}, consumer: {count: 1, runs: [t]}}\n"
    )
    with pytest.raises(UsageError) as caught:
        check(spec, parse_overrides(settings, workers), LIMITS)
    assert_clear(caught.value)
    assert text in str(caught.value)


def test_a_number_for_a_role_needs_roles() -> None:
    """The line says what to write for a spec without any."""
    spec = parse("name: x\nresources: {l: {kind: lock}}\ntransactions: {t: {steps: []}}\n")
    with pytest.raises(UsageError) as caught:
        check(spec, parse_overrides([], ["r=1"]), LIMITS)
    assert_clear(caught.value)
    assert str(caught.value) == "--workers r=1: <spec> has no roles; write --workers 1"


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 'commit; begin'",
        "DO $x$ BEGIN PERFORM 1; END $x$",
        "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; END",
        "UPDATE t SET rollback = 1 -- ; commit",
        "SAVEPOINT a; RELEASE SAVEPOINT a",
        "DECLARE c CURSOR FOR SELECT 1; FETCH c",
        'SELECT 1 AS "a; commit"',
    ],
)
def test_sql_that_only_mentions_a_commit_is_accepted(sql: str) -> None:
    """In a text, a comment, a name or the body of a function."""
    spec = parse(
        f"name: x\nresources: {{l: {{kind: lock}}}}\ntransactions: {{t: {{steps: [{{l: EXCLUSIVE, sql: {json.dumps(sql)}}}]}}}}\nworkers: 1\n"
    )
    assert check(spec, limits=LIMITS).exit_code == 0


@pytest.mark.parametrize(("name", "text"), [("none.yaml", "No such file"), ("", "Is a directory"), ("a\0b", "null")])
def test_a_file_that_cannot_be_read_is_refused_in_one_line(tmp_path: Path, name: str, text: str) -> None:
    """A missing file, a folder, a name that no file can have."""
    with pytest.raises(UsageError) as caught:
        load(f"{tmp_path}/{name}")
    assert_clear(caught.value)
    assert text in str(caught.value)


def test_a_file_name_cannot_break_the_line() -> None:
    """A name with a newline or an escape sequence is shown as one line of plain characters."""
    with pytest.raises(SpecError) as caught:
        parse("", "a\nb\x1b[31m.yaml")
    assert_clear(caught.value)


def test_the_command_line_says_each_error_once_and_exits_with_2() -> None:
    """All of the folder in one run: one line on standard error for each file, none of them a traceback."""
    run = subprocess.run(
        [sys.executable, "-m", "lockmodel", "check", "--timeout", "10", str(FOLDER)],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert run.returncode == 2, run.stderr
    said = [re.sub(r":\d+: .*|: .*", "", line) for line in run.stderr.splitlines()]
    with_overrides = [path for path in FILES if "\n# with: " in path.read_text()[:400]]
    assert [Path(name) for name in said] == [path for path in FILES if path not in with_overrides]
