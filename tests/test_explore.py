"""`lockmodel explore` as its user meets it: lines on standard input, or typed at a terminal.

`SNAP_UPDATE=1 pytest tests/test_explore.py` writes the sessions in docs/explore.md anew; read the difference before you commit it.
"""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import pexpect
import pytest
from test_cli import ENVIRONMENT, LOCKMODEL, REPOSITORY, Answer, finish, lockmodel, spawn

from lockmodel.report.trace_file import read_trace

DEMO = "specs/deadlock-demo.yaml"
OLD_CLAIM = "specs/striped-old-claim.yaml"
DOCUMENT = REPOSITORY / "docs" / "explore.md"
INTO_THE_DEADLOCK = ("1", "1", "4", "2", "deadlocks", "follow 1")
ESCAPES = re.compile(r"\x1b\[[\d;?]*[a-zA-Z]")


def explore(
    *commands: str, spec: str = OLD_CLAIM, arguments: tuple[str, ...] = ("--set", "slot=1"), **more: str
) -> Answer:
    """A session of these lines."""
    return lockmodel("explore", spec, *arguments, stdin="".join(f"{line}\n" for line in commands).encode(), **more)


def shown_after(answer: Answer, command: str) -> str:
    """What was shown after the last time that `command` was given, up to the next one."""
    assert answer.code == 0, answer.err
    return str(answer.out).rpartition(f"> {command}\n")[2].partition("\n> ")[0].rstrip("\n") + "\n"


# What is shown


def test_the_first_state_is_shown_with_what_can_happen() -> None:
    """And the end of the input is the end."""
    answer = explore()
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith(
        "  specs/striped-old-claim.yaml, 2 workers. ? lists the commands.\n\nstep 0: every worker is idle\n"
    )
    assert "  1  worker 1  starts enqueue\n" in answer.out
    assert "  3  worker 1  starts claim (r=0, c=0), then lane[1] FOR UPDATE\n" in answer.out


def test_an_action_is_chosen_by_its_number() -> None:
    """Who holds what and who waits for whom is told after each."""
    answer = explore("1", "1", "4", "2")
    assert answer.out.endswith(
        "> 2\n"
        "step 4: worker 2 takes lane[1] FOR UPDATE\n"
        "  worker 1  enqueue  holds lane[0] FOR UPDATE; waits for lane[1] FOR UPDATE,\n"
        "                     held by worker 2\n"
        "  worker 2  claim    holds lane[1] FOR UPDATE\n"
        "\n"
        "  1  worker 2  takes ready[0] ACCESS SHARE\n"
    )


def test_a_deadlock_is_announced() -> None:
    """As check tells it; nothing can happen any more."""
    answer = explore("1", "1", "4", "2", "1", "1")
    assert answer.out.endswith(
        "  DEADLOCK between enqueue and claim\n"
        "  worker 1 (enqueue) holds lane[0] and waits for lane[1], which worker 2 (claim)\n"
        "  holds; worker 2 waits for lane[0]. Neither can go on.\n"
        "\n"
        "  Nothing can happen here.\n"
    )


@pytest.mark.parametrize(
    ("formula", "words"),
    [
        ("never: {both run: count(w.status == running) == 2}",
         "VIOLATED 'both run' is true here, and it must never be\n  count(w.status == running) == 2\n"),
        ("always: {few run: count(w.status == running) < 2}",
         "VIOLATED 'few run' is false here, and it must always be true\n  count(w.status == running) < 2\n"),
    ],
)  # fmt: skip
def test_a_formula_that_does_not_hold_is_announced(formula: str, words: str, tmp_path: Path) -> None:
    """With its text, in the states where it does not hold and in no other."""
    spec = tmp_path / "x.yaml"
    steps = "resources: {a: {kind: lock}}\ntransactions: {t: {steps: [{a: SHARED}]}}\n"
    spec.write_text(f"name: x\nworkers: 2\n{steps}{formula}\n")
    answer = explore("1", "2", "undo", spec=str(spec), arguments=())
    assert answer.out.count(words) == 1
    assert words in shown_after(answer, "2")


def test_a_global_stall_is_announced() -> None:
    """With who waits for whom: a committed worker that keeps a session lock is in everybody's way."""
    answer = explore("1", "1", "2", "1", "1", spec="tests/small/global-stall.yaml", arguments=())
    assert answer.out.endswith(
        "  GLOBAL STALL\n"
        "  Every running worker waits: follower 1 (follow) waits for leadership\n"
        "  EXCLUSIVE, held by leader 1; leader 1 is committed and keeps its lock.\n"
        "\n"
        "  1  leader 1    is idle again\n"
        "  2  follower 2  starts follow\n"
    )
    assert answer.out.count("GLOBAL STALL") == 1


def test_every_line_fits_into_eighty_columns() -> None:
    """Whatever is shown, on specs with long names too."""
    commands = ("1", "1", "1", "?", "actions", "waits", "order", "order resources", "deadlocks 500", "schedule")
    for spec in (OLD_CLAIM, "specs/awa/storage.yaml", "specs/queue/bulk-retry.yaml", "tests/small/three-roles.yaml"):
        answer = explore(*commands, spec=spec, arguments=())
        assert answer.code == 0, answer.err
        assert max(map(len, answer.out.splitlines())) <= 80


def test_many_actions_are_cut_and_can_be_listed() -> None:
    """By all, or by words in them; the numbers stay."""
    answer = explore("actions", "actions lane[1] ", arguments=())
    assert "… " not in answer.out.split("> actions")[1]
    many = explore("actions", "actions rotate", spec="specs/awa/storage.yaml", arguments=())
    first, every, some = many.out.split("> actions")
    assert re.search(r"… 106 more: actions \[WORDS\] lists all", first)
    assert re.search(r"^ +130  worker 2  starts ", every, re.MULTILINE)
    numbers = re.findall(r"^ +(\d+)  worker \d  starts rotate", some, re.MULTILINE)
    assert 1 < len(numbers) < 130
    assert len(numbers) == len(some.strip().splitlines()) - 1


def test_workers_that_do_nothing_are_counted() -> None:
    """A crew of hundreds does not fill the screen."""
    answer = explore("1", arguments=("--workers", "200"))
    assert "The other 199 are idle.\n" in answer.out
    assert len(answer.out.splitlines()) < 70


def test_shared_variables_are_shown(tmp_path: Path) -> None:
    """By name, with their values."""
    spec = tmp_path / "x.yaml"
    spec.write_text("name: x\nworkers: 1\nvariables: {v: {values: [red, green]}}\nresources: {a: {kind: lock}}\n"
                    "transactions: {t: {steps: [{set: {v: green}}]}}\n")  # fmt: skip
    answer = explore("1", "1", spec=str(spec), arguments=())
    assert "\n  v = red\n" in answer.out
    assert "step 2: worker 1 sets v = green\n  worker 1  t  holds nothing\n  v = green\n" in answer.out


# Going back and forth


def test_undo_redo_and_jump() -> None:
    """To each state that was seen, and on from there another way."""
    answer = explore("1", "1", "4", "undo", "undo 2", "redo", "jump 3", "jump 0", "redo 2", "schedule", "2", "schedule")
    heads = re.findall(r"^(step .*)$", answer.out, re.MULTILINE)
    assert heads[3:] == [
        "step 3: worker 2 starts claim (r=0, c=0), then lane[1] FOR UPDATE",
        "step 2 of 3: worker 1 takes lane[0] FOR UPDATE",
        "step 0 of 3: every worker is idle",
        "step 1 of 3: worker 1 starts enqueue",
        "step 3: worker 2 starts claim (r=0, c=0), then lane[1] FOR UPDATE",
        "step 0 of 3: every worker is idle",
        "step 2 of 3: worker 1 takes lane[0] FOR UPDATE",
        "step 3: worker 2 starts enqueue",
    ]
    before, after = answer.out.split("> schedule\n")[1:]
    assert "  >  2  worker 1  takes lane[0] FOR UPDATE\n     3  worker 2  starts claim" in before
    assert "The last one is undone; redo takes it again." in before
    assert "  >  3  worker 2  starts enqueue\n" in after


# Graphs and what lies ahead


def test_the_waits_for_graph_as_text() -> None:
    """One edge a line, and who can never go on."""
    assert "\n  Nobody waits.\n" in explore("waits").out
    waiting = shown_after(explore("1", "1", "4", "2", "waits"), "waits")
    assert waiting == ("  worker 1 → worker 2  wants lane[1] FOR UPDATE  held FOR UPDATE\n"
                       "  Everybody who waits can go on some time.\n")  # fmt: skip
    stuck = shown_after(explore(*INTO_THE_DEADLOCK, "waits"), "waits")
    assert stuck == ("  worker 1 → worker 2  wants lane[1] FOR UPDATE  held FOR UPDATE\n"
                     "  worker 2 → worker 1  wants lane[0] FOR UPDATE  held FOR UPDATE\n"
                     "  worker 1 and worker 2 can never go on.\n")  # fmt: skip


def test_the_lock_order_graph_as_text() -> None:
    """By family, or by resource; with a cycle if there is one."""
    answer = explore("order", "order resources")
    families, resources = answer.out.split("> order")[1:]
    assert "  lane → claims   claim              FOR UPDATE → ROW EXCLUSIVE\n" in families
    assert "  lane[0] → lane[1]     claim and enqueue  FOR UPDATE → FOR UPDATE\n" in resources
    for shown in (families, resources):
        assert "A cycle: lane[0] → lane[1] → lane[0], in conflicting modes." in " ".join(shown.split())
    safe = explore("order", spec="specs/striped.yaml")
    assert "  No cycle in conflicting modes: no number of workers can deadlock.\n" in safe.out


def test_the_deadlocks_ahead_can_be_followed() -> None:
    """From where one is: nearest first, each kind once."""
    answer = explore("deadlocks", "follow 2", "deadlocks")
    first, then = answer.out.split("> deadlocks\n")[1:]
    assert "  1  6 steps  between enqueue and claim: " in first
    assert "  2  8 steps  between 2 workers in claim: " in first
    assert "These are all: the search saw all 159 states up to a deadlock." in " ".join(first.split())
    assert "\n  DEADLOCK between 2 workers in claim\n" in first
    assert "  1  here  between 2 workers in claim: " in then


def test_a_search_that_ends_early_says_so() -> None:
    """It claims nothing about what it did not see."""
    answer = explore("deadlocks 20", "deadlocks 150")
    first, second = (" ".join(part.split()) for part in answer.out.split("> deadlocks ")[1:])
    assert "None so far: the search saw 20 states and reached the limit of 20 states." in first
    assert (
        "There may be others: the search saw 150 states and reached the limit of 150 states. follow N goes to one."
        in second
    )
    safe = explore("deadlocks", spec="specs/striped.yaml")
    assert re.search(
        r"No deadlock can be reached from here: the search saw all \d+ states\.", " ".join(safe.out.split())
    )


# Traces


def test_what_was_stepped_is_saved_and_loaded(tmp_path: Path) -> None:
    """As a report that read_trace believes; explore takes it as its argument, and as a command."""
    file = str(tmp_path / "my trace.json")
    saved = explore(*INTO_THE_DEADLOCK, f"save {file}")
    assert (saved.code, saved.err) == (0, "")
    loaded = read_trace(Path(file).read_text())
    assert (loaded.violated, len(loaded.trace)) == ("no deadlock", 7)
    assert loaded.overrides.sets == {"slot": 1}
    begun = explore("undo", spec=file, arguments=())
    assert "step 6: worker 2 takes claims[0] ROW EXCLUSIVE\n" in begun.out
    assert "step 5 of 6: " in begun.out
    other = explore(f"load {file}", "schedule", spec=DEMO, arguments=())
    assert "DEADLOCK between enqueue and claim" in other.out
    assert "  >  6  worker 2  takes claims[0] ROW EXCLUSIVE\n" in other.out


def test_only_what_was_not_undone_is_saved(tmp_path: Path) -> None:
    """The schedule up to the state that one looks at; without a violation its verdict is open."""
    file = tmp_path / "trace.json"
    assert explore("1", "1", "undo", f"save {file}").code == 0
    result = json.loads(file.read_text())["results"][0]
    assert (result["verdict"], result["violated"], len(result["trace"]["steps"])) == ("UNDECIDED", None, 1)
    assert result["reason"] == "a schedule that was stepped by hand"


def test_a_trace_of_a_report_with_several_is_named(tmp_path: Path) -> None:
    """By its spec's file or name; without one the error lists them."""
    report = tmp_path / "report.json"
    assert lockmodel("check", DEMO, OLD_CLAIM, "--format", "json", "-o", str(report)).code == 0
    assert "DEADLOCK between enqueue and claim" in explore(f"load {report} {OLD_CLAIM}", spec=DEMO, arguments=()).out
    refused = explore(f"load {report}")
    assert (refused.code, refused.err) == (
        2, f"<commands>:1: {report}: it has 2 traces; say which spec's: {DEMO}, {OLD_CLAIM}\n",
    )  # fmt: skip


@pytest.mark.postgres
def test_a_saved_schedule_can_be_replayed(tmp_path: Path, dsn: str) -> None:
    """A deadlock is confirmed by the server's own 40P01, an unfinished schedule statement by statement."""
    for name, commands in (("dead", INTO_THE_DEADLOCK), ("alive", ("1", "1", "4", "2"))):
        file = str(tmp_path / f"{name}.json")
        assert explore(*commands, f"save {file}").code == 0
        answer = lockmodel("replay", file, "--dsn", dsn)
        assert (answer.code, answer.err) == (0, "")
        assert "CONFIRMED" in answer.out
        assert ("40P01" in answer.out) is (name == "dead")


# Errors


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("7", "no action '7'; there are 1 to 6"),
        ("0", "no action '0'; there are 1 to 6"),
        ("99999999999999999999", "no action '99999999999999999999'; there are 1 to 6"),
        ("dance", "no command 'dance'; available: actions, state, undo, "),
        ("undoo", "no command 'undoo'; did you mean undo? available: "),
        ("undo", "there is nothing to undo"),
        ("redo 2", "there is nothing to redo"),
        ("undo x", "undo 'x': it must be a whole number from 1 on"),
        ("jump", "jump needs STEP: go to a step of the schedule; 0 is the beginning"),
        ("jump 1", "there is no step 1; the schedule has steps 0 to 0"),
        ("quit now", "quit takes nothing after it, not 'now'"),
        ("actions dance", "no action has 'dance' in it; actions lists all"),
        ("order family", "order 'family': nothing for families, or resources"),
        ("follow 1", "search first: deadlocks lists what can be followed"),
        ("deadlocks 99999999999", "deadlocks '99999999999': it looks at 2,000,000 states at the most"),
        ("save", "save needs FILE.json: write the steps so far as a trace for lockmodel replay"),
        ("save x.yaml", "x.yaml: replay knows a trace by its name, which must end with .json"),
        ("save /absent/x.json", "--output '/absent/x.json': there is no folder '/absent'"),
        ("load absent.json", "absent.json: No such file or directory"),
        ("load README.md", "README.md: not JSON: line 1: "),
    ],
)  # fmt: skip
def test_a_script_ends_at_what_can_not_be_done(line: str, message: str) -> None:
    """One line with its number, exit code 2; what comes after it is not done."""
    answer = explore("state", line, "state")
    assert answer.code == 2
    assert answer.err.count("\n") == 1
    assert answer.err.startswith(f"<commands>:2: {message}")
    assert answer.out.count("> ") == 2


def test_a_deadlock_that_was_not_found_can_not_be_followed() -> None:
    """Nor one that was found elsewhere."""
    assert explore("deadlocks", "follow 3").err == "<commands>:2: no deadlock '3'; the search found 2\n"
    assert (
        explore("deadlocks", "1", "follow 1").err
        == "<commands>:3: search first: deadlocks lists what can be followed\n"
    )


def test_a_file_that_is_there_is_not_replaced(tmp_path: Path) -> None:
    """Neither a report nor anything else."""
    file = tmp_path / "x.json"
    file.write_text("mine")
    answer = explore("1", f"save {file}")
    assert answer.err == f"<commands>:2: {file}: there is such a file already; choose another name\n"
    assert file.read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "name a spec: "),
        ((DEMO, OLD_CLAIM), "this command takes one spec, not 2: "),
        (("-",), "explore reads its commands from standard input, so the spec must be a file"),
        (("absent.yaml",), "absent.yaml: No such file"),
        (("absent.json",), "absent.json: No such file"),
        ((DEMO, "--workers", "0"), "--workers '0': "),
        ((DEMO, "--workers", "5000"), "--workers '5000': "),
        (("x.json", "--workers", "2"), "x.json: a report has its sets and workers in it; --set and --workers are for specs"),
        (("scenarios/new-claim-is-safe.yaml",), "scenarios/new-claim-is-safe.yaml:"),
    ],
)  # fmt: skip
def test_a_wrong_command_line_is_one_line(arguments: tuple[str, ...], message: str) -> None:
    """Before anything is shown."""
    answer = lockmodel("explore", *arguments)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith(message)
    assert answer.err.count("\n") == 1


def test_a_step_without_meaning_is_no_end(tmp_path: Path) -> None:
    """It is told where it comes up, and one can go back and do something else."""
    spec = tmp_path / "x.yaml"
    spec.write_text("name: x\nworkers: 1\nvariables: {v: {values: 2}}\nresources: {a: {kind: lock}}\n"
                    "transactions: {t: {steps: [{a: SHARED}, {set: {v: v + 2}}]}, u: {steps: [{a: SHARED}]}}\n")  # fmt: skip
    answer = explore("1", "1", "undo 2", "2", spec=str(spec), arguments=())
    assert (answer.code, answer.err) == (0, "")
    assert f"{spec}:5: " in answer.out
    assert answer.out.count("step 1: worker 1 starts u\n") == 1
    search = explore("deadlocks", spec=str(spec), arguments=())
    assert (search.code, search.err.startswith(f"<commands>:1: {spec}:5: ")) == (2, True)


def test_lines_that_are_no_text_are_refused() -> None:
    """Bytes that are not UTF-8, control characters: one clean line."""
    answer = lockmodel("explore", DEMO, stdin=b"\xff\x1b[2J\xfe\n")
    assert answer.code == 2
    assert answer.err.startswith("<commands>:1: no command '")
    assert "\x1b" not in answer.err
    assert "\x1b" not in answer.out


# At a terminal


def test_a_session_at_a_terminal() -> None:
    """With a prompt and colours; a wrong command is told and forgotten; Ctrl-D leaves."""
    process = spawn("explore", OLD_CLAIM, "--set", "slot=1")
    process.expect("starts enqueue.*> $")
    assert "\x1b[1;36m1" in str(process.before) + str(process.after)
    process.sendline("dance")
    process.expect("  no command 'dance'; .*> $")
    for command in INTO_THE_DEADLOCK:
        process.sendline(command)
        process.expect("> $")
    assert "\x1b[1;31mDEADLOCK between enqueue and claim" in str(process.before)
    process.sendeof()
    code, shown = finish(process)
    assert (code, ESCAPES.sub("", shown).strip()) == (0, "")


def test_no_colour_at_a_terminal() -> None:
    """With NO_COLOR, or where it is no terminal."""
    process = spawn("explore", OLD_CLAIM, NO_COLOR="1", TERM="dumb")
    process.expect("> $")
    process.sendline("quit")
    assert "\x1b" not in str(process.before) + finish(process)[1]
    assert "\x1b" not in explore(*INTO_THE_DEADLOCK).out


def test_a_narrow_terminal_is_used_as_it_is() -> None:
    """Lines are folded at its width."""
    process = spawn("explore", OLD_CLAIM, columns=60, NO_COLOR="1")
    process.expect("> $")
    shown = str(process.before)
    process.sendline("?")
    process.expect("The first letters.*> $")
    shown += str(process.before)
    process.sendeof()
    finish(process)
    assert max(len(line) for line in ESCAPES.sub("", shown).replace("\r", "").splitlines()) <= 60


def test_control_c_leaves() -> None:
    """At the prompt, with the exit code of an interruption and no traceback."""
    process = spawn("explore", OLD_CLAIM)
    process.expect("> $")
    process.sendintr()
    code, shown = finish(process)
    assert code == 128 + signal.SIGINT
    assert "Traceback" not in shown
    assert shown.endswith("\nlockmodel: interrupted\n")


def test_control_c_ends_a_search_only() -> None:
    """What it had found by then is told, and the session goes on."""
    process = spawn("explore", "specs/awa/storage.yaml", "--workers", "4")
    process.expect("> $")
    process.sendline("deadlocks 2000000")
    with pytest.raises(pexpect.TIMEOUT):
        process.expect("> $", timeout=2)
    process.sendintr()
    process.expect(r"the search saw [\d,]+ states\s+and\s+was\s+interrupted\..*> $")
    process.sendline("1")
    process.expect("step 1: .*> $")
    process.sendeof()
    assert finish(process)[0] == 0


def test_a_reader_that_goes_away_is_no_crash() -> None:
    """`lockmodel explore … | head -1`."""
    process = pexpect.spawn(
        "bash", ["-c", f"yes state | {' '.join([*LOCKMODEL, 'explore', DEMO])} | head -1"],
        cwd=str(REPOSITORY), env=ENVIRONMENT, encoding="utf-8", timeout=60,
    )  # fmt: skip
    code, shown = finish(process)
    assert (code, "Traceback" in shown) == (0, False)


# The document


SESSION = re.compile(r"```session\n\$ lockmodel explore (?P<words>.*)\n(?P<body>(?:.*\n)*?)```")


def test_the_sessions_in_the_document_are_what_explore_shows() -> None:
    """Each line behind a `>` is a command; the rest is what is shown."""
    text = DOCUMENT.read_text()
    sessions = list(SESSION.finditer(text))
    assert sessions
    for session in sessions:
        commands = re.findall(r"^> (.*)$", session["body"], re.MULTILINE)
        answer = lockmodel("explore", *session["words"].split(), stdin="".join(f"{c}\n" for c in commands).encode())
        assert (answer.code, answer.err) == (0, "")
        if os.environ.get("SNAP_UPDATE"):
            DOCUMENT.write_text(DOCUMENT.read_text().replace(session["body"], answer.out))
        else:
            assert answer.out == session["body"]


def test_the_document_has_every_command() -> None:
    """And nothing else."""
    helped = shown_after(explore("?"), "?")
    commands = set(re.findall(r"^  ([a-z]+) ", helped, re.MULTILINE))
    rows = re.findall(r"^\| `([^|]*)` \|", DOCUMENT.read_text(), re.MULTILINE)
    assert {word.split()[0] for row in rows for word in row.replace("`", "").split(", ")} == commands
