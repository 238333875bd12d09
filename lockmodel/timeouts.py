"""lock_timeout: requests that give up, with SQLSTATE 55P03, before they can be part of a deadlock.

Postgres looks for a deadlock when a session has waited for `deadlock_timeout`, counted from when its own wait began. A circle of waits is closed by
its last member; so a member whose lock_timeout is shorter gives up before anybody reports the deadlock, and the others go on. With a
lock_timeout as long or longer, 40P01 may come first, and the circle counts as a deadlock (manual, Client Connection Defaults: lock_timeout; Lock
Management: deadlock_timeout).
"""

from __future__ import annotations

import re
from dataclasses import replace

from lockmodel.document import Node
from lockmodel.errors import SpecError, quote
from lockmodel.modes import Wait
from lockmodel.program import Block, Either, If, Lock, Loop, Step

DEADLOCK_TIMEOUT_MS = 1000.0
"""Postgres's default."""
_UNITS_MS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "min": 60_000.0, "h": 3_600_000.0, "d": 86_400_000.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)")


def milliseconds(text: int | str) -> float | None:
    """A duration as Postgres's settings have it: `2s`, `200ms`, or a number of milliseconds. None if it is none."""
    found = _DURATION.fullmatch(str(text).strip())
    unit = found[2] or "ms" if found else ""
    return float(found[1]) * _UNITS_MS[unit] if found and unit in _UNITS_MS else None


def duration_ms(node: Node, key: str, text: int | str | None) -> float | None:
    """The duration `text` that stands under `key` in `node`, in milliseconds; None if none does. Raises SpecError."""
    if text is None:
        return None
    found = milliseconds(text)
    if found is None:
        raise SpecError(node.at(key), f"{quote(str(text))} is no duration; write one such as 200ms, 2s or 1min")
    return found


def with_timeout(block: Block, timeout_ms: float, deadlock_timeout_ms: float) -> Block:
    """`block` in which the locks that wait give up after their own `lock_timeout`, or else after `timeout_ms`; 0: never."""

    def timed(step: Step) -> Step:
        match step:
            case Lock():
                inner = replace(
                    step, then=all_of(step.then), otherwise=None if step.otherwise is None else all_of(step.otherwise)
                )
                limit = timeout_ms if step.timeout_ms is None else step.timeout_ms
                if not step.timed or step.wait is not Wait.BLOCK:
                    return inner
                gives_up = 0 < limit < deadlock_timeout_ms
                return replace(inner, wait=Wait.TIMEOUT if gives_up else Wait.BLOCK, timeout_ms=limit)
            case Loop():
                return replace(step, body=all_of(step.body))
            case Either():
                return replace(step, branches=tuple(all_of(branch) for branch in step.branches))
            case If():
                return replace(step, then=all_of(step.then), otherwise=all_of(step.otherwise))
            case _:
                return step

    def all_of(inner: Block) -> Block:
        return Block(tuple(timed(step) for step in inner.steps))

    return all_of(block)
