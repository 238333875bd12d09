"""`lockmodel replay` as a process: what it prints, its exit codes, and that it leaves nothing behind however it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest
from leftovers import leftovers, remains
from replaying import LIES
from test_replay import NOT_REALIZABLE, SPECS

pytestmark = pytest.mark.postgres

LOCKMODEL = [sys.executable, "-m", "lockmodel"]
HOLDS = LIES.replace("workers: 2\nexpect: deadlock", "workers: 1")
CONFIRMED = LIES.replace("FOR KEY SHARE", "FOR UPDATE")
REFUTED = LIES.replace("WHERE id = 'b' FOR UPDATE", "WHERE id = 'b' FOR NO KEY UPDATE")
SLOW = HOLDS.replace("SELECT * FROM t WHERE id = 'a' FOR UPDATE", "SELECT pg_sleep(60)")


def run(*words: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run `lockmodel replay WORDS`."""
    return subprocess.run([*LOCKMODEL, "replay", *words], input=stdin, capture_output=True, text=True, timeout=120)


def spec(folder: Path, text: str) -> str:
    path = folder / "spec.yaml"
    path.write_text(text)
    return str(path)


def test_a_confirmed_deadlock_shows_what_postgres_said(dsn: str) -> None:
    """The verdict comes first, then the statements, then the server's own report; exit code 0."""
    done = run(str(SPECS / "striped-old-claim.yaml"), "--dsn", dsn)
    assert (done.returncode, done.stderr) == (0, "")
    first, *rest = done.stdout.splitlines()
    assert "CONFIRMED" in first
    assert "between enqueue and claim" in done.stdout
    assert "(SQLSTATE 40P01)" in done.stdout
    assert "waits for ShareLock on transaction" in done.stdout
    assert all(len(line) <= 80 for line in rest)


def test_without_a_dsn_an_embedded_server_is_used(tmp_path: Path) -> None:
    """No server, no root, no service: one command."""
    done = run(spec(tmp_path, CONFIRMED))
    assert (done.returncode, done.stderr) == (0, "")


def test_safe_schedules_are_counted_and_can_be_repeated(dsn: str) -> None:
    """The command that the report ends with gives the same schedules again."""
    words = (str(SPECS / "striped.yaml"), "--schedules", "4", "--dsn", dsn)
    first = run(*words)
    assert first.returncode == 0
    assert "4 random schedules of 3 workers: none deadlocked" in first.stdout
    seed = first.stdout.split("--seed ")[1].split()[0]
    again = run(*words, "--seed", seed)
    assert [line.split(" in ")[0] for line in again.stdout.splitlines()][:3] == [
        line.split(" in ")[0] for line in first.stdout.splitlines()
    ][:3]


def test_a_refuted_model_is_exit_code_1(dsn: str, tmp_path: Path) -> None:
    """The step at which Postgres did otherwise is named, with what it did."""
    done = run(spec(tmp_path, REFUTED), "--dsn", dsn)
    assert done.returncode == 1
    assert "REFUTED" in done.stdout
    assert "is granted, where the model says that it waits for" in " ".join(done.stdout.split())


def test_a_trace_inside_a_statement_is_exit_code_3(dsn: str, tmp_path: Path) -> None:
    """Neither confirmed nor refuted, and said so."""
    done = run(spec(tmp_path, NOT_REALIZABLE), "--dsn", dsn)
    assert done.returncode == 3
    assert "NOT REALIZABLE" in " ".join(done.stdout.split())


def test_an_expectation_that_is_not_met_is_exit_code_1(dsn: str, tmp_path: Path) -> None:
    """A spec that expects a deadlock and has none is replayed, and fails."""
    done = run(spec(tmp_path, HOLDS + "expect: deadlock\n"), "--dsn", dsn)
    assert done.returncode == 1
    assert "Expected a deadlock, found: no violation." in done.stdout


def test_the_json_report_of_a_check_is_replayed(dsn: str, tmp_path: Path) -> None:
    """With the sets that the check had, even when the spec's file is gone."""
    path = spec(tmp_path, (SPECS / "striped-old-claim.yaml").read_text())
    check = [*LOCKMODEL, "check", path, "--set", "stripe=3", "--format", "json"]
    report = subprocess.run(check, capture_output=True, text=True, timeout=60).stdout
    Path(path).unlink()
    trace = tmp_path / "trace.json"
    trace.write_text(report)
    done = run(str(trace), "--dsn", dsn)
    assert (done.returncode, done.stderr) == (0, "")
    assert "stripe = 2" in done.stdout
    changed = json.loads(report)
    changed["results"][0]["trace"]["steps"][0]["label"] = "something else"
    trace.write_text(json.dumps(changed))
    refused = run(str(trace), "--dsn", dsn)
    assert refused.returncode == 2
    assert refused.stderr.startswith(str(trace)) and len(refused.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--dsn", "host=/nonexistent", "SPEC"], "can't connect to Postgres"),
        (["--dsn", "not a dsn", "SPEC"], "can't connect to Postgres"),
        (["--seed", "x", "SPEC"], "--seed 'x'"),
        (["--schedules", "0", "SPEC"], "--schedules '0'"),
        (["missing.yaml"], "missing.yaml"),
        (["missing.json"], "missing.json"),
        ([], "name a spec"),
    ],
)
def test_what_a_user_gets_wrong_is_one_line_and_exit_code_2(words: list[str], said: str, tmp_path: Path) -> None:
    """No traceback, no server left running."""
    path = spec(tmp_path, CONFIRMED)
    done = run(*[path if word == "SPEC" else word for word in words])
    assert done.returncode == 2
    assert said in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("times", [1, 3])
def test_a_signal_ends_the_replay_and_nothing_is_left(
    number: signal.Signals, times: int, dsn: str, tmp_path: Path
) -> None:
    """While a statement runs, on somebody's server: schema, backends and locks go, also if the user is impatient."""
    process = subprocess.Popen(
        [*LOCKMODEL, "replay", spec(tmp_path, SLOW), "--dsn", dsn],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # `nohup pytest` would have it ignored.
    )  # fmt: skip
    until(lambda: sleeping(dsn) == 1)
    for _ in range(times):
        os.killpg(process.pid, number)
        time.sleep(0.02)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "Traceback" not in errors and len(errors.splitlines()) == 1
    assert remains(dsn) == []


def test_an_interrupt_that_was_ignored_from_the_start_stays_ignored(dsn: str, tmp_path: Path) -> None:
    """As `nohup` and a shell's background job have it: Ctrl-C is meant for somebody else."""
    nap = HOLDS.replace("SELECT * FROM t WHERE id = 'a' FOR UPDATE", "SELECT pg_sleep(1)")
    process = subprocess.Popen(
        [*LOCKMODEL, "replay", spec(tmp_path, nap), "--schedules", "1", "--seed", "1", "--dsn", dsn],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )  # fmt: skip
    until(lambda: sleeping(dsn) == 1)
    process.send_signal(signal.SIGINT)
    said, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    assert "CONFIRMED" in said


def report_of(folder: Path, *names: str) -> Path:
    """The JSON report of a check of shipped specs."""
    path = folder / "report.json"
    files = [str(SPECS / f"{name}.yaml") for name in names]
    subprocess.run([*LOCKMODEL, "check", *files, "--format", "json", "-o", str(path)], timeout=60, check=True)
    return path


def test_one_of_several_traces_in_a_report_can_be_chosen(dsn: str, tmp_path: Path) -> None:
    """By the spec's file or its name; without it the line lists them."""
    path = report_of(tmp_path, "striped-old-claim", "deadlock-demo", "striped")
    refused = run(str(path), "--dsn", dsn)
    assert refused.returncode == 2
    old, demo = (str(SPECS / f"{name}.yaml") for name in ("striped-old-claim", "deadlock-demo"))
    assert refused.stderr == f"{path}: it has 2 traces; say which spec's: {old}, {demo} (--spec FILE)\n"
    for word in ("deadlock-demo", demo):
        done = run(str(path), "--spec", word, "--dsn", dsn)
        assert (done.returncode, done.stderr) == (0, "")
        assert "deadlock between pay bob and pay alice" in " ".join(done.stdout.split())
    assert "no spec 'x'" in run(str(path), "--spec", "x", "--dsn", dsn).stderr
    assert "name the spec's file instead" in run(old, "--spec", "striped-old-claim", "--dsn", dsn).stderr


def test_a_seed_without_effect_is_said(dsn: str, tmp_path: Path) -> None:
    """A deadlock's trace is no random schedule; the exit code is that of the replay."""
    path = spec(tmp_path, CONFIRMED)
    done = run(path, "--seed", "4", "--dsn", dsn)
    assert done.returncode == 0
    assert "--seed had no effect" in done.stderr and len(done.stderr.splitlines()) == 1
    assert run(path, "--seed", "4", "--schedules", "2", "--dsn", dsn).stderr == ""


def test_schedules_in_which_nobody_waits_are_said_to_prove_little(dsn: str, tmp_path: Path) -> None:
    """Where waits were possible; where they are not, that is said instead."""
    lonely = run(spec(tmp_path, HOLDS), "--schedules", "2", "--dsn", dsn)
    assert "none of which waited" in " ".join(lonely.stdout.split())
    assert "In the model nobody ever has to wait for a lock." in " ".join(lonely.stdout.split())
    busy = SPECS / "striped.yaml"
    done = json.loads(run(str(busy), "--schedules", "1", "--seed", "2", "--dsn", dsn, "--format", "json").stdout)
    said = " ".join(run(str(busy), "--schedules", "1", "--seed", "2", "--dsn", dsn).stdout.split())
    assert ("hardly put to the test" in said) is (done["replays"][0]["waited"] == 0)


def test_the_json_report_of_replays_has_all_of_them(dsn: str, tmp_path: Path) -> None:
    """A trace, schedules, a difference and an error, as one document with the exit code of the worst."""
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(REFUTED)
    broken = tmp_path / "broken.yaml"
    broken.write_text(CONFIRMED.replace("SELECT * FROM t", "SELECT nothing FROM t", 1))
    old, safe = str(SPECS / "striped-old-claim.yaml"), str(SPECS / "striped.yaml")
    done = run(old, safe, str(wrong), str(broken), "--format", "json", "--dsn", dsn, "--seed", "3")
    assert done.returncode == 2
    document = json.loads(done.stdout)
    assert document["format"] == 1 and document["unreplayed"] == []
    trace, schedules, refuted = document["replays"]
    assert (trace["file"], trace["kind"], trace["verdict"], trace["exit_code"]) == (old, "trace", "CONFIRMED", 0)
    assert trace["claim"] == "deadlock between enqueue and claim"
    assert trace["deadlock"]["sqlstate"] == "40P01" and len(trace["deadlock"]["waits"]) == 2
    assert {w["waiter"] for w in trace["deadlock"]["waits"]} == {0, 1}
    assert [s["foretold"] for s in trace["statements"]].count("waits") == 2
    assert trace["statements"][-2]["waits_for"] == [1]
    assert trace["difference"] is None and trace["reason"] is None
    assert (schedules["kind"], schedules["run"], schedules["seed"], schedules["deadlocks"]) == ("schedules", 20, 3, 0)
    assert schedules["sent"] > schedules["waited"] > 0
    assert (refuted["verdict"], refuted["exit_code"]) == ("REFUTED", 1)
    assert "is granted, where the model says that it waits" in refuted["difference"]["message"]
    assert refuted["difference"]["line"] > 0 and refuted["difference"]["sides"][0]["worker"] == "worker 1"
    described = (SPECS.parent / "docs" / "json.md").read_text()
    assert all(f"`{key}`" in described for one in (*document["replays"], trace["statements"][0]) for key in one)
    (error,) = document["errors"]
    assert error["file"] == str(broken) and error["line"] > 0 and "42703" in error["message"]


def test_a_report_can_be_written_to_a_file(dsn: str, tmp_path: Path) -> None:
    """Both formats; never over a spec."""
    path, out = spec(tmp_path, CONFIRMED), tmp_path / "out"
    assert run(path, "--dsn", dsn, "-o", str(out)).stdout == ""
    assert "CONFIRMED" in out.read_text()
    run(path, "--dsn", dsn, "--format", "json", "-o", str(out))
    assert json.loads(out.read_text())["replays"][0]["verdict"] == "CONFIRMED"
    assert "would be overwritten" in run(path, "--dsn", dsn, "-o", path).stderr
    assert "--format 'xml'" in run(path, "--dsn", dsn, "--format", "xml").stderr


def test_a_killed_replay_is_cleaned_up_by_the_next(dsn: str, tmp_path: Path) -> None:
    """SIGKILL leaves a schema on somebody's server, which the next replay there removes."""
    process = subprocess.Popen([*LOCKMODEL, "replay", spec(tmp_path, SLOW), "--dsn", dsn])
    until(lambda: sleeping(dsn) == 1)
    process.kill()
    process.wait()
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'lockmodel%'"
        )
    until(lambda: sleeping(dsn) == 0)
    assert len(leftovers(dsn)) == 1
    assert run(spec(tmp_path, CONFIRMED), "--dsn", dsn).returncode == 0
    assert remains(dsn) == []


def sleeping(dsn: str) -> int:
    """How many workers of a replay are asleep in the middle of it."""
    with psycopg.connect(dsn) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'lockmodel%' AND wait_event = 'PgSleep'"
        ).fetchone()
        assert row is not None
        return int(row[0])


def until(condition: object, seconds: float = 60) -> None:
    """Wait until `condition()` is true."""
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.05)
