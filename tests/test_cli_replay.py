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
from test_replay import LIES, NOT_REALIZABLE, SPECS, remains

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
    first, *_ = done.stdout.splitlines()
    assert "CONFIRMED" in first
    assert "between enqueue and claim" in done.stdout
    assert "(SQLSTATE 40P01)" in done.stdout
    assert "waits for ShareLock on transaction" in done.stdout
    assert all(len(line) <= 80 for line in done.stdout.splitlines())


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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("times", [1, 3])
def test_a_signal_ends_the_replay_and_nothing_is_left(
    number: signal.Signals, times: int, dsn: str, tmp_path: Path
) -> None:
    """While a statement runs, on somebody's server: schema, backends and locks go, also if the user is impatient."""
    process = subprocess.Popen(
        [*LOCKMODEL, "replay", spec(tmp_path, SLOW), "--dsn", dsn],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    until(lambda: sleeping(dsn) == 1)
    for _ in range(times):
        os.killpg(process.pid, number)
        time.sleep(0.02)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "Traceback" not in errors and len(errors.splitlines()) == 1
    assert remains(dsn) == []


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
    assert len(remains(dsn)) == 1
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
