"""The command line as a user meets it: real processes, their exit codes, and what they say where."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pexpect
import pytest

REPOSITORY = Path(__file__).parent.parent
LOCKMODEL = [sys.executable, "-m", "lockmodel"]
DEMO = "specs/deadlock-demo.yaml"
STRIPED = "specs/striped.yaml"
UNMET = "tests/small/other-shape.yaml"
UNDECIDED = "tests/small/unproved.yaml"
SLOW = "specs/awa/storage-authority.yaml"
BAD = "name: x\nresources: {a: {kind: lock}}\ntransactions: {t: {steps: [{a: EXCLUSVE}]}}\n"

ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if name not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "PYTHONIOENCODING", "TERM")
}
# Whatever folder a command runs in, it is this checkout's.
ENVIRONMENT |= {"PYTHONUTF8": "1", "PYTHONPATH": str(REPOSITORY)}


def lockmodel(*arguments: str, stdin: bytes = b"", cwd: Path = REPOSITORY, **environment: str) -> Answer:
    """Run the command and wait for it."""
    process = subprocess.run(
        [*LOCKMODEL, *arguments], input=stdin, capture_output=True, cwd=cwd, env=ENVIRONMENT | environment, timeout=120
    )
    return Answer(process.returncode, process.stdout.decode(), process.stderr.decode())


class Answer(tuple[int, str, str]):
    """Exit code, standard output, standard error."""

    def __new__(cls, code: int, out: str, err: str) -> Answer:
        return super().__new__(cls, (code, out, err))  # type: ignore[type-var]

    code = property(lambda self: self[0])
    out = property(lambda self: self[1])
    err = property(lambda self: self[2])


# Exit codes and what stands where


@pytest.mark.parametrize(
    ("files", "code"),
    [
        ([DEMO], 0),
        ([STRIPED], 0),
        ([UNMET], 1),
        ([UNDECIDED], 3),
        (["absent.yaml"], 2),
        ([DEMO, STRIPED], 0),
        ([DEMO, UNDECIDED], 3),
        ([UNDECIDED, UNMET, DEMO], 1),
        ([UNMET, "absent.yaml", UNDECIDED], 2),
    ],
)
def test_the_exit_code_is_the_verdict(files: list[str], code: int) -> None:
    """Bad input before a finding, a finding before undecided, undecided before all is well."""
    answer = lockmodel("check", *files)
    assert answer.code == code
    assert (answer.err != "") is (code == 2)


def test_several_specs_are_summed_up() -> None:
    """One bad spec does not stop the others; its error is a line on standard error, its row in the table says ERROR."""
    answer = lockmodel("check", DEMO, "absent.yaml", UNMET, STRIPED, UNDECIDED)
    assert answer.err == "absent.yaml: No such file or directory\n"
    golden = REPOSITORY / "tests" / "golden" / "several.txt"
    report = re.sub(r"\d+\.\d\d s\b", "0.00 s", answer.out)
    if os.environ.get("SNAP_UPDATE"):
        golden.write_text(report, encoding="utf-8")
    assert report == golden.read_text(encoding="utf-8")


def test_a_bad_spec_is_one_line_with_its_place(tmp_path: Path) -> None:
    """The line says file, line, what is wrong and what was meant."""
    (tmp_path / "q.yaml").write_text(BAD)
    answer = lockmodel("check", "q.yaml", cwd=tmp_path)
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
    assert answer.err.startswith("q.yaml:3: ")
    assert "EXCLUSIVE" in answer.err


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["chek"], "lockmodel: no command 'chek'; did you mean check? available: check, "),
        (["check"], "name a spec: a file, a folder, a pattern such as 'specs/*.yaml', or - for standard input"),
        (["check", DEMO, "--fromat", "json"], "lockmodel check: no option '--fromat'; did you mean --format? available: --set, "),
        (["--vresion"], "lockmodel: no option '--vresion'; did you mean --version? available: "),
        (["check", DEMO, "--set"], "option '--set' requires an argument"),
        (["check", DEMO, "--format", "jsno"], "--format 'jsno': did you mean json? available: terminal, json"),
        (["check", DEMO, "--max-states", "many"], "--max-states 'many': it must be a whole number from 1 on"),
        (["check", DEMO, "--max-states", "0"], "--max-states '0': it must be a whole number from 1 on"),
        (["check", DEMO, "--timeout", "nan"], "--timeout 'nan': it must be a number of seconds, more than 0"),
        (["check", DEMO, "--timeout", "0"], "--timeout '0': it must be a number of seconds, more than 0"),
        (["check", DEMO, "--workers", "0"], "--workers '0': a number of workers is 1 to 4,096, or any"),
        (["check", DEMO, "--workers", "nobody=2"], "--workers nobody=2: specs/deadlock-demo.yaml has no roles; write --workers 2"),
        (["check", DEMO, "--set", "x"], "--set 'x': write NAME=NUMBER or NAME=ELEMENT,ELEMENT"),
        (["check", DEMO, "--set", "x=2"], "--set 'x': specs/deadlock-demo.yaml has no such set or variable; "),
        (["check", "no/such/*.yaml"], "no/such/*.yaml: no file matches this pattern"),
        (["check", DEMO, "--output", "no/such/file"], "--output 'no/such/file': there is no folder 'no/such'"),
        (["check", DEMO, "--output", "specs"], "--output 'specs': it is a folder"),
        (["check", DEMO, "--output", DEMO], f"--output '{DEMO}': it is one of the specs, which would be overwritten"),
        (["check", "x" * 300], "x" * 300 + ": File name too long"),
        (["schema", "more"], "lockmodel schema: got unexpected extra argument"),
    ],
)  # fmt: skip
def test_a_wrong_command_line_is_one_line(arguments: list[str], line: str) -> None:
    """No box, no traceback: what is wrong and what would be right."""
    answer = lockmodel(*arguments)
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
    assert line in answer.err


def test_no_command_at_all_is_answered_with_the_help() -> None:
    """A CI job that forgot its arguments does not look like a success."""
    answer = lockmodel()
    assert (answer.code, answer.out) == (2, "")
    assert "Usage: lockmodel" in answer.err


def test_help_and_version() -> None:
    """Both are answers, not errors."""
    answer = lockmodel("--help")
    assert (answer.code, answer.err) == (0, "")
    assert "check" in answer.out
    assert lockmodel("check", "-h").code == 0
    assert re.fullmatch(r"lockmodel \d+\.\d+\.\d+\n", lockmodel("--version").out)


def test_a_defect_of_lockmodel_is_no_verdict(tmp_path: Path) -> None:
    """A crash has an exit code of its own, so that no CI job takes it for a deadlock."""
    broken = "import lockmodel.checker as c, sys\nc.check = lambda *a, **k: 1 / 0\nfrom lockmodel.cli import main\nsys.exit(main())"
    process = subprocess.run(
        [sys.executable, "-c", broken, "check", DEMO], capture_output=True, text=True, cwd=REPOSITORY, env=ENVIRONMENT
    )
    assert process.returncode == 70
    assert "ZeroDivisionError" in process.stderr
    assert process.stderr.splitlines()[-1].startswith("lockmodel: this is a defect of lockmodel")


def test_the_installed_script_is_the_same_program() -> None:
    """`lockmodel` and `python -m lockmodel` are one."""
    script = shutil.which("lockmodel", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert script is not None
    process = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert process.stdout == lockmodel("--version").out


def test_the_schema_is_a_json_schema() -> None:
    """`lockmodel schema` prints what editors want."""
    answer = lockmodel("schema")
    schema = json.loads(answer.out)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert "transactions" in schema["properties"]


# Which specs


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of specs, with others around them that don't count."""
    demo = (REPOSITORY / DEMO).read_text()
    for name in ("a.yaml", "inner/b.yml", "inner/.hidden.yaml", ".git/c.yaml", "notes.txt", "-dash.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(demo)
    return tmp_path


def rows(answer: Answer) -> list[str]:
    """The files in the summary's table."""
    lines = answer.out.splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("──")) + 1
    return [line.split()[0] for line in lines[start : lines.index("", start)]]


@pytest.mark.parametrize(
    ("words", "files"),
    [
        (["."], ["-dash.yaml", "a.yaml", "inner/b.yml"]),
        (["inner", "a.yaml"], ["inner/b.yml", "a.yaml"]),
        (["*.yaml", "inner/*"], ["-dash.yaml", "a.yaml", "inner/b.yml"]),
        (["**/*.y*ml", "a.yaml"], ["-dash.yaml", "a.yaml", "inner/b.yml"]),
        (["a.yaml", "./a.yaml", "inner/../a.yaml", "inner"], ["a.yaml", "inner/b.yml"]),
        (["a.yaml", "notes.txt"], ["a.yaml", "notes.txt"]),
        (["a.yaml", "--", "-dash.yaml"], ["a.yaml", "-dash.yaml"]),
    ],
)
def test_files_folders_and_patterns_name_specs(folder: Path, words: list[str], files: list[str]) -> None:
    """Each spec once, in the order of the command line; in folders by name, hidden ones left out."""
    answer = lockmodel("check", *words, cwd=folder)
    assert (answer.code, answer.err) == (0, "")
    assert rows(answer) == files


def test_a_file_in_a_folder_that_is_no_spec_is_an_error(folder: Path) -> None:
    """A misspelt spec that is silently left out would look like one that holds."""
    (folder / "inner" / "compose.yaml").write_text("services: {}\n")
    answer = lockmodel("check", "inner", cwd=folder)
    assert answer.code == 2
    assert answer.err.startswith("inner/compose.yaml:1: ")
    assert "inner/b.yml  DEADLOCK" in answer.out


def test_a_folder_without_specs_is_an_error(folder: Path) -> None:
    """Nothing checked is not everything fine."""
    (folder / "empty").mkdir()
    answer = lockmodel("check", "empty", cwd=folder)
    assert (answer.code, answer.err) == (2, "empty: there is no .yaml or .yml file in this folder\n")


def test_a_spec_may_come_through_standard_input() -> None:
    """`-` is standard input, and errors call it so."""
    answer = lockmodel("check", "-", stdin=(REPOSITORY / DEMO).read_bytes())
    assert answer.code == 0
    assert answer.out.startswith("<stdin>  DEADLOCK")
    assert "lockmodel replay -\n" in answer.out
    assert lockmodel("check", "-", stdin=BAD.encode()).err.startswith("<stdin>:3: ")


def test_overrides_and_limits_reach_the_check() -> None:
    """`--set`, `--workers`, `--max-states` and `--timeout` do what they say."""
    answer = lockmodel("check", "specs/striped-old-claim.yaml", "--set", "stripe=3", "--workers", "3")
    assert "Searched 3 workers" in answer.out
    assert "lane[2]" in answer.out
    limited = lockmodel("check", UNDECIDED, "--workers", "6", "--max-states", "1,000")
    assert (limited.code, "reached the limit of 1,000 states" in limited.out) == (3, True)
    timed = lockmodel("check", SLOW, "--engine", "reference", "--timeout", "0.5")
    assert (timed.code, "reached the time limit" in timed.out) == (3, True)


# Reports


def test_the_json_report_goes_to_a_file(tmp_path: Path) -> None:
    """With --output nothing is on standard output, and errors are in the report as well as on standard error."""
    file = tmp_path / "report.json"
    answer = lockmodel("check", DEMO, "absent.yaml", "--format", "json", "--output", str(file))
    assert (answer.code, answer.out, answer.err) == (2, "", "absent.yaml: No such file or directory\n")
    data = json.loads(file.read_text())
    assert [result["file"] for result in data["results"]] == [DEMO]
    assert [error["file"] for error in data["errors"]] == ["absent.yaml"]


def test_the_terminal_report_goes_to_a_file_too(tmp_path: Path) -> None:
    """The same text as in a pipe."""
    file = tmp_path / "report.txt"
    assert lockmodel("check", DEMO, UNMET, "--output", str(file)).out == ""
    plain = [re.sub(r"\d+\.\d\d s", "", text) for text in (file.read_text(), lockmodel("check", DEMO, UNMET).out)]
    assert plain[0] == plain[1]


def test_json_on_standard_output_is_one_document() -> None:
    """Nothing but JSON, also when a spec is bad."""
    answer = lockmodel("check", DEMO, "absent.yaml", "--format", "json")
    assert len(json.loads(answer.out)["results"]) == 1


def test_an_ascii_stream_gets_ascii() -> None:
    """Python's own setting decides which characters there are."""
    answer = lockmodel("check", DEMO, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert answer.code == 0
    assert answer.out.isascii()
    assert "------+---" in answer.out


def test_a_pipe_gets_no_colour_unless_forced() -> None:
    """FORCE_COLOR is for CI logs."""
    assert "\x1b" not in lockmodel("check", DEMO, TERM="xterm-256color").out
    assert "\x1b[" in lockmodel("check", DEMO, FORCE_COLOR="1").out


# Streams that end


@pytest.mark.parametrize("command", ["check specs/deadlock-demo.yaml", "--help", "schema", "check absent.yaml 2>&1"])
def test_a_reader_that_goes_away_is_no_error(command: str) -> None:
    """`lockmodel … | true` ends quietly, as other tools do."""
    script = f"({sys.executable} -m lockmodel {command}; echo $? >&3) | (sleep 0; exec 0<&-; true)"
    process = subprocess.run(
        ["bash", "-c", f"exec 3>&1; {script}"],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env=ENVIRONMENT,
        timeout=60,
    )
    assert process.stderr == ""
    assert process.stdout.strip() == "141"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_full_disk_is_one_line() -> None:
    """What could not be written is an error, not a success."""
    process = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m lockmodel check {DEMO} >/dev/full"],
        capture_output=True, text=True, cwd=REPOSITORY, env=ENVIRONMENT, timeout=60,
    )  # fmt: skip
    assert (process.returncode, process.stderr) == (2, "can't write <stdout>: No space left on device\n")


def test_a_closed_standard_output_is_no_crash() -> None:
    """The exit code is still the verdict."""
    script = f"{sys.executable} -m lockmodel check {UNMET} >&-"
    process = subprocess.run(["bash", "-c", script], capture_output=True, text=True, cwd=REPOSITORY, env=ENVIRONMENT)
    assert (process.returncode, process.stderr) == (1, "")


# A real terminal


def spawn(*arguments: str, columns: int = 80, **environment: str) -> pexpect.spawn[str]:
    return pexpect.spawn(
        sys.executable,
        ["-m", "lockmodel", *arguments],
        cwd=str(REPOSITORY),
        env=ENVIRONMENT | {"TERM": "xterm-256color"} | environment,  # type: ignore[arg-type]
        dimensions=(24, columns),
        encoding="utf-8",
        timeout=60,
    )


def finish(process: pexpect.spawn[str]) -> tuple[int | None, str]:
    """The exit code and all that was on the screen."""
    shown = str(process.read()).replace("\r\n", "\n")
    process.close()
    return process.exitstatus, shown


def test_a_terminal_gets_colours_and_its_own_width() -> None:
    """The verdict is green as it is the expected one, and 120 columns are used."""
    code, shown = finish(spawn("check", DEMO, columns=120))
    assert code == 0
    assert "\x1b[1;32mDEADLOCK" in shown
    assert "held by worker 2" in re.sub(r"\x1b\[[\d;]*m", "", shown)


def test_no_color_is_respected() -> None:
    """With NO_COLOR there is not one escape sequence."""
    assert "\x1b" not in finish(spawn("check", DEMO, NO_COLOR="1"))[1]


def test_a_quick_check_shows_no_progress() -> None:
    """What is over in a moment does not flicker."""
    assert "states, " not in finish(spawn("check", DEMO))[1].partition("DEADLOCK")[0]


def test_a_long_search_says_how_far_it_is_and_can_be_interrupted() -> None:
    """After a second a line tells states, rate, frontier and depth; Ctrl-C reports what was covered and ends undecided."""
    process = spawn("check", "--engine", "reference", SLOW)
    process.expect(r"[\d,]+ states, [\d,]+ a second; [\d,]+ to expand; depth \d+")
    process.sendintr()
    code, shown = finish(process)
    assert code == 3
    plain = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", shown)
    assert "UNDECIDED" in plain
    assert "interrupted while searching 2 workers" in plain
    assert re.search(r"Searched 2 workers: [\d,]+ states", plain)
    assert "Traceback" not in plain


def test_an_interruption_ends_the_whole_run() -> None:
    """After Ctrl-C the specs that are left are counted, not checked."""
    process = spawn("check", "--engine", "reference", DEMO, SLOW, STRIPED, UNMET)
    process.expect("to expand")
    process.sendintr()
    code, shown = finish(process)
    assert code == 3
    assert "4 specs: 1 as expected, 1 undecided, 2 not checked." in re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", shown)


def test_standard_error_in_a_file_gets_no_progress(tmp_path: Path) -> None:
    """A log is not filled with progress."""
    answer = lockmodel("check", SLOW, "--engine", "reference", "--timeout", "1.5", TERM="xterm")
    assert answer.err == ""


@pytest.mark.parametrize("engine", ["hashed", "rows"])
def test_the_fast_engines_can_be_interrupted_too(engine: str) -> None:
    """The threads end, and what was covered is reported."""
    process = spawn("check", "specs/awa/storage-authority.yaml", "--workers", "4", "--engine", engine)
    process.expect("to expand")
    process.sendintr()
    code, shown = finish(process)
    assert code == 3
    assert "interrupted while searching 4 workers" in re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", shown)
    assert "Traceback" not in shown


def interrupted(after_seconds: float) -> Answer:
    process = subprocess.Popen(
        [*LOCKMODEL, "check", "--engine", "reference", SLOW], cwd=REPOSITORY, env=ENVIRONMENT,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    time.sleep(after_seconds)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    return Answer(process.returncode, out, err)


@pytest.mark.parametrize("after_seconds", [0.12, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0])
def test_ctrl_c_never_shows_a_traceback(after_seconds: float) -> None:
    """During imports and compilation it is one line and 130, in the search a report and 3.

    On a busy machine 0.12 s are over before Python has come to lockmodel; what it says then is its own, and it has to be later.
    """
    answer = interrupted(after_seconds)
    while answer.code == -signal.SIGINT and not re.search(r"lockmodel[/\\](cli|__main__)", answer.err):
        after_seconds *= 2
        answer = interrupted(after_seconds)
    assert (answer.code, answer.err) in ((130, "lockmodel: interrupted\n"), (3, ""))


def test_who_ignores_interruptions_is_not_interrupted() -> None:
    """Under `nohup` and the like Ctrl-C goes to others."""
    process = subprocess.Popen(
        [*LOCKMODEL, "check", "specs/awa/storage.yaml"], cwd=REPOSITORY, env=ENVIRONMENT, text=True,
        stdout=subprocess.PIPE, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )  # fmt: skip
    time.sleep(0.7)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "HOLDS" in out


# Speed


@pytest.mark.parametrize("arguments", [["--help"], ["check", STRIPED]])
def test_a_small_check_is_quick(arguments: list[str]) -> None:
    """At most three times the CPU of a process that only imports the libraries it needs: a pre-commit hook is not felt.

    A ratio, taken in turns: machines differ, and this one does other things too.
    """

    def cpu_seconds(words: list[str]) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(words, cwd=REPOSITORY, env=ENVIRONMENT, check=True, stdout=subprocess.DEVNULL, timeout=60)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    imports = [sys.executable, "-c", "import typer, pydantic, ruamel.yaml, rich.console, networkx"]
    pairs = [(cpu_seconds([*LOCKMODEL, *arguments]), cpu_seconds(imports)) for _ in range(4)]
    ours, least = map(min, zip(*pairs, strict=True))
    assert ours < 3 * least, (ours, least)


@pytest.mark.parametrize(
    ("arguments", "absent"),
    [
        (["--help"], {"networkx", "psycopg", "numba", "numpy", "rich", "ruamel"}),
        (["check", STRIPED], {"psycopg", "numba"}),
        (["check", STRIPED, "--format", "json"], {"psycopg", "numba", "rich"}),
    ],
)
def test_a_command_imports_only_what_it_needs(arguments: list[str], absent: set[str]) -> None:
    """The libraries of other commands are not loaded."""
    code = (
        "import sys\nfrom lockmodel.cli import main\nmain()\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    process = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=REPOSITORY, env=ENVIRONMENT
    )
    loaded = set(process.stderr.split())
    assert "lockmodel" in loaded
    assert absent & loaded == set()


def test_public_names_are_there_and_typed() -> None:
    """Each name of `lockmodel.__all__` can be had, and is the one that type checkers are told of."""
    import lockmodel as package

    for name in package.__all__:
        assert getattr(package, name) is not None
    told = re.findall(r"import \w+ as (\w+)", Path(package.__file__).read_text())
    assert sorted([*told, "__version__"]) == sorted(package.__all__)
    with pytest.raises(AttributeError, match="no attribute 'absent'"):
        _ = package.absent
    assert set(package.__all__) <= set(dir(package))
