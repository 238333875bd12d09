"""Postgres's own report of a deadlock: SQLSTATE 40P01, with a line in its DETAIL for each process of the cycle."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from psycopg import errors

_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True)
class Wait:
    """One line of Postgres's deadlock report: `waiter` waits for `blocker` (worker numbers); `text` is the line itself."""

    waiter: int | None
    blocker: int | None
    text: str


@dataclass(frozen=True)
class Deadlock:
    """A 40P01 as Postgres reported it."""

    victim: int
    message: str
    waits: tuple[Wait, ...]
    seen_waiting: bool
    """Whether the victim was seen waiting before it was aborted; an upgrade is refused at once."""

    @property
    def workers(self) -> frozenset[int]:
        """The workers of the cycle, as far as they are ours."""
        return frozenset(w for wait in self.waits for w in (wait.waiter, wait.blocker) if w is not None)

    def bystanders(self, cycle: Sequence[int]) -> tuple[int, ...]:
        """Workers that Postgres names though they are not in the model's `cycle`: they stand before one of its members in a queue.

        Who is first in the queue for a row holds the row's tuple lock, and whoever comes later waits for that lock first
        (heap_acquire_tuplock in src/backend/access/heap/heapam.c). So the cycle of Postgres goes through the head of the queue, which itself
        waits for a member of the cycle, and holds nothing that the cycle needs.
        """
        return tuple(sorted(self.workers - frozenset(cycle)))


def read_report(
    victim: int,
    error: errors.DeadlockDetected,
    workers: Mapping[int, int],
    names: Sequence[str],
    *,
    seen_waiting: bool,
) -> Deadlock:
    """The report in `error`, which worker `victim` got; `workers`: worker numbers by process number."""

    def name(match: re.Match[str]) -> str:
        worker = workers.get(int(match.group(0)))
        return match.group(0) if worker is None else f"{match.group(0)} ({names[worker]})"

    waits = []
    for line in (error.diag.message_detail or "").splitlines():
        # The line's words depend on the server's language; the process numbers in it do not.
        found = [workers[int(number)] for number in _NUMBER.findall(line) if int(number) in workers]
        if found:
            waits.append(Wait(found[0], found[-1] if len(found) > 1 else None, _NUMBER.sub(name, line)))
    return Deadlock(victim, error.diag.message_primary or str(error), tuple(waits), seen_waiting)
