"""Whether a table is a partition follows from what the transaction did to it before, and is left open where that is not known."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import indent

import pytest

from lockmodel.checker import check
from lockmodel.compiler import Compilation
from lockmodel.parser import parse
from lockmodel.program import Block, Either, Loop, Step
from lockmodel.replay.comparison import runs
from lockmodel.replay.replayer import ReplayOutcome, prepare, replay_trace
from lockmodel.resolver import resolve
from lockmodel.verdict import Outcome

HEAD = """\
name: partitions
sets: {part: [0, 1]}
resources:
  jobs: {kind: table}
  part: {kind: table, per: [part]}
  queues: {kind: table}
relations:
  job: {table: jobs, partitions: [part], foreign keys: [{columns: [queue], references: queues}]}
"""
DETACH = "{detach partition: 'part[0]', from: job}"
ATTACH = "{attach partition: 'part[0]', to: job}"
DROP = "{drop table: 'part[0]'}"
AS_PARTITION = ("jobs ACCESS EXCLUSIVE", "part[0] ACCESS EXCLUSIVE")
AS_TABLE = ("part[0] ACCESS EXCLUSIVE", "queues ACCESS EXCLUSIVE")
STRONG = "queues ACCESS EXCLUSIVE"


def spec(body: str, more: str = "", relations: str = "") -> str:
    """A spec with the transaction `t`; `more` is another one."""
    return f"{HEAD}{relations}transactions:\n  t:\n{indent(body, '    ')}\n{more}"


def taken(body: str, more: str = "", relations: str = "") -> set[tuple[str, ...]]:
    """What `t` takes, in every way that it can run."""
    compilation = Compilation(resolve(parse(spec(body, more, relations))))
    return {tuple(map(str, run.taken)) for run in runs(compilation, "t", {})}


def left_open(block: Block) -> Iterator[Step]:
    """The statements of `block` that may go one way or the other."""
    for step in block.steps:
        if isinstance(step, Loop):
            yield from (inner for inner in step.body.steps if isinstance(inner, Either) and step.over == ())
            yield from left_open(step.body) if step.over else ()


def test_a_partition_that_nothing_detaches_is_one() -> None:
    """As declared."""
    assert taken(f"steps: [{DROP}]") == {AS_PARTITION}


def test_what_the_transaction_detached_is_a_table_with_keys_of_its_own() -> None:
    """DROP comes to what they refer to."""
    (way,) = taken(f"steps: [{DETACH}, {DROP}]")
    assert way[-1] == STRONG


@pytest.mark.parametrize("step", [DETACH, ATTACH])
def test_what_another_transaction_may_have_done_is_left_open(step: str) -> None:
    """Both ways."""
    assert taken(f"steps: [{DROP}]", f"  other: {{steps: [{step}]}}\n") == {AS_PARTITION, AS_TABLE}


@pytest.mark.parametrize(
    ("body", "count"),
    [
        (f"steps: [{{either: [[{DETACH}], []]}}, {DROP}]", 1),
        (f"steps: [{{either: [[{DETACH}], [{DETACH}, 'queues': SHARE]]}}, {DROP}]", 0),
        (f"steps: [{{savepoint: s}}, {DETACH}, {{rollback to: s}}, {DROP}]", 1),
        (f"steps: [{{for: {{p: part}}, do: [{DETACH.replace('0', 'p')}]}}, {DROP}]", 1),
        (f"steps: [{{for: {{p: part}}, do: [{DETACH.replace('0', 'p')}, {DROP.replace('0', 'p')}]}}]", 0),
        (f"block: false\nsteps: [{DETACH}, {DROP}]", 1),
        (f"let: {{v: 0}}\nsteps: [{DETACH.replace('0', 'v')}, {{set: {{v: 1}}}}, {DROP.replace('0', 'v')}]", 1),
        (f"steps: [{DETACH}, {DETACH.replace('0', '1')}, {DROP}]", 1),
        (f"steps: [{DETACH}, {DROP}]", 0),
    ],
    ids=["branch", "branches", "rollback to", "loop", "round", "no block", "variable", "other mention", "same"],
)
def test_where_the_steps_do_not_tell_it_is_left_open(body: str, count: int) -> None:
    """A way without the DETACH, one that is taken back, another round, another transaction, a name that may mean another table."""
    (transaction,) = resolve(parse(spec(body))).transactions
    assert len([*left_open(transaction.steps)]) == count


def test_an_attach_of_a_declared_partition_may_find_its_key_there() -> None:
    """Unless the partition's own relation says which it has."""
    body = f"steps: [{ATTACH}]"
    assert {STRONG in way for way in taken(body)} == {True, False}
    (without,) = taken(body, relations="  parts: {table: part}\n")
    assert STRONG not in without
    own = "foreign keys: [{columns: [queue], references: queues}]"
    (with_it,) = taken(body, relations=f"  parts: {{table: part, {own}}}\n")
    assert with_it[-1] == STRONG


@pytest.mark.parametrize(("steps", "read"), [(f"{DETACH}, {DROP}", 1), (ATTACH, 0)], ids=["detach and drop", "attach"])
def test_the_deadlock_with_who_reads_the_other_table_first_is_found(steps: str, read: int) -> None:
    """Both were held to be free of deadlocks."""
    second = f"{{select: job, partition: 'part[{read}]'}}" if read else "{select: 'part[0]'}"
    report = f"  report: {{steps: [{{select: queues}}, {second}]}}\n"
    assert check(parse(spec(f"steps: [{steps}]", report))).verdict.outcome is Outcome.VIOLATED


REAL = """\
name: real
resources:
  jobs: {kind: table, stands for: {relation: jobs}}
  jobs_0: {kind: table, stands for: {relation: jobs_0}}
  jobs_1: {kind: table, stands for: {relation: jobs_1}}
  jobs_2: {kind: table, stands for: {relation: jobs_2}}
  queues: {kind: table, stands for: {relation: queues}}
relations:
  job: {table: jobs, partitions: [jobs_0, jobs_1], foreign keys: [{columns: [queue], references: queues}]}
  job_2: {table: jobs_2, foreign keys: [{columns: [queue], references: queues}]}
transactions:
  job: {steps: [JOB]}
  report:
    steps:
      - {select: queues, sql: SELECT FROM queues}
      - READ
schema: |
  CREATE TABLE queues (id int PRIMARY KEY);
  CREATE TABLE jobs (day int, queue int REFERENCES queues) PARTITION BY LIST (day);
  CREATE TABLE jobs_0 PARTITION OF jobs FOR VALUES IN (0);
  CREATE TABLE jobs_1 PARTITION OF jobs FOR VALUES IN (1);
  CREATE TABLE jobs_2 (day int, queue int REFERENCES queues);
"""


@pytest.mark.postgres
@pytest.mark.parametrize(
    ("job", "read"),
    [
        (
            (
                "{detach partition: jobs_0, from: job, sql: ALTER TABLE jobs DETACH PARTITION jobs_0},"
                " {drop table: jobs_0, sql: DROP TABLE jobs_0}"
            ),
            "{select: job, partition: jobs_1, sql: SELECT FROM jobs WHERE day = 1}",
        ),
        (
            "{attach partition: jobs_2, to: job, sql: ALTER TABLE jobs ATTACH PARTITION jobs_2 FOR VALUES IN (2)}",
            "{select: jobs_2, sql: SELECT FROM jobs_2}",
        ),
    ],
    ids=["detach and drop", "attach"],
)
def test_postgres_deadlocks_there_too(job: str, read: str, dsn: str) -> None:
    """The partition's own foreign key is what the report waits behind."""
    spec = parse(REAL.replace("JOB", job).replace("READ", read))
    trace = check(spec).trace
    assert trace is not None
    done = replay_trace(prepare(spec), trace, dsn)
    assert done.outcome is ReplayOutcome.CONFIRMED, done.reason
