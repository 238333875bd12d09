"""Replays for tests: of the trace of a spec, of random schedules, and one that is interrupted."""

from __future__ import annotations

import asyncio

import pytest

from lockmodel.checker import check
from lockmodel.parser import parse
from lockmodel.replay.driver import Driver
from lockmodel.replay.replayer import Prepared, SchedulesReplay, TraceReplay, prepare, replay_schedules, replay_trace
from lockmodel.replay.script import Script
from lockmodel.semantics import crew

LIES = """
name: lies
resources:
  a: {kind: row}
  b: {kind: row}
transactions:
  one:
    steps:
      - a: FOR UPDATE
        sql: SELECT * FROM t WHERE id = 'a' FOR UPDATE
      - b: FOR UPDATE
        sql: SELECT * FROM t WHERE id = 'b' FOR UPDATE
  two:
    steps:
      - b: FOR UPDATE
        sql: SELECT * FROM t WHERE id = 'b' FOR KEY SHARE
      - a: FOR UPDATE
        sql: SELECT * FROM t WHERE id = 'a' FOR UPDATE
workers: 2
expect: deadlock
schema: |
  CREATE TABLE t (id text PRIMARY KEY);
  INSERT INTO t VALUES ('a'), ('b');
"""


def replay(text: str, dsn: str) -> TraceReplay:
    """Check the spec in `text` and replay the trace that violates it."""
    spec = parse(text)
    result = check(spec)
    assert result.trace is not None, result.verdict
    return replay_trace(prepare(spec), result.trace, dsn)


def schedules(text: str, dsn: str, workers: int = 3, count: int = 15, seed: int = 1) -> SchedulesReplay:
    """Replay random schedules of the spec in `text`."""
    prepared = prepare(parse(text))
    return replay_schedules(prepared, crew(prepared.compilation.system, workers), count, seed=seed, dsn=dsn)


def interrupt(script: Script, prepared: Prepared, seconds: float, dsn: str) -> None:
    """Begin to perform `script`, and cancel that after so many seconds."""

    async def interrupted() -> None:
        async with Driver(dsn) as driver:
            task = asyncio.create_task(driver.perform(script, prepared.setup))
            await asyncio.sleep(seconds)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(interrupted())
