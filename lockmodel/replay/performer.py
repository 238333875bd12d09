"""The run of one script: each command is sent in its turn, and what must become of it is awaited.

A statement that must complete is awaited while the monitor watches `pg_blocking_pids`; one that must wait is seen waiting there before the
script goes on. Nothing rests on sleeping "long enough": each step ends when Postgres shows what became of it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import psycopg
from psycopg import errors

from lockmodel.errors import one_line
from lockmodel.replay.deadlock import Deadlock, read_report
from lockmodel.replay.judgement import Otherwise, failure, found_no_row, judge, no_row
from lockmodel.replay.patience import STEP_SECONDS
from lockmodel.replay.performance import Done, Performance, Standstill
from lockmodel.replay.pools import Pools
from lockmodel.replay.sandbox import POLL_SECONDS
from lockmodel.replay.script import Command, Outcome, Script
from lockmodel.replay.session import Connection, Session

STANDSTILL_SECONDS = 1.0
"""How long nobody may go on before a deadlock that Postgres can't see counts as one: some times the deadlock_timeout of all."""

_LOCK_OUTCOMES = (errors.DeadlockDetected, errors.LockNotAvailable, errors.SerializationFailure)
"""Errors by which Postgres says what became of a lock; all others are the statement's own."""


class Performer:
    """Runs `script` once: the statements of worker n in `sessions[n]`, while `monitor` sees who waits for whom."""

    def __init__(self, monitor: Connection, sessions: Sequence[Session], script: Script, pools: Pools) -> None:
        self.monitor = monitor
        self.sessions = sessions
        self.script = script
        self.pools = pools
        self.done: list[Done] = []

    @property
    def workers(self) -> dict[int, int]:
        """Worker numbers by process number."""
        return {pid: session.worker for session in self.sessions for pid in session.pids}

    async def run(self) -> Performance:
        current: Command | None = None
        deadlock: Deadlock | None = None
        try:
            for index, command in enumerate(self.script.commands):
                current = command
                closes = bool(self.script.cycle) and index == len(self.script.commands) - 1
                deadlock = await self._step(command, closes)
            if self.script.watched:
                return Performance(tuple(self.done), standstill=await self._stand_still())
            if self.script.cycle and deadlock is None:
                deadlock = await self._await_deadlock()
        except Otherwise as difference:
            return Performance(tuple(self.done), None, current, str(difference), waiting=difference.waiting)
        if deadlock is not None and not frozenset(self.script.cycle) <= deadlock.workers:
            found = (
                ", ".join(self.script.workers[worker] for worker in sorted(deadlock.workers)) or "none of the workers"
            )
            return Performance(
                tuple(self.done), deadlock, current, f"the cycle that Postgres reports is another one: {found}"
            )
        return Performance(tuple(self.done), deadlock)

    async def _step(self, command: Command, closes: bool) -> Deadlock | None:
        started = time.monotonic()
        session = self.sessions[command.worker]
        session.send(command)
        waits_for: tuple[int, ...] = ()
        deadlock, missed = None, False
        if command.outcome is Outcome.WAITS:
            deadlock, waits_for = await self._until_waiting(command, started, closes)
        else:
            await self._until_complete(session, command, started)
            missed = found_no_row(session, command)
            if missed and not self.script.rows_may_go:
                raise Otherwise(
                    f"is granted, but has none of the row locks that the model says it takes{no_row(command, 0)}"
                )
            for worker in command.resumes:
                await self._goes_on(self.sessions[worker], started)
            for worker, blockers in command.then_waits:
                await self._waits_again(self.sessions[worker], blockers, started)
        self.done.append(Done(command, time.monotonic() - started, waits_for, missed))
        return deadlock

    async def _until_complete(self, session: Session, command: Command | None, started: float) -> None:
        """Wait for `session`'s statement; `command` is None for one that was waiting and must go on now."""
        assert session.running is not None
        blocked = 0
        while not session.running.done():
            await asyncio.wait({session.running}, timeout=POLL_SECONDS)
            if session.running.done():
                break
            blockers = await self._blockers(session)
            in_pool = self._waits_in_pool(session)
            blocked = blocked + 1 if blockers or in_pool else 0
            # Seen twice, so that a lock released this very moment is not taken for a wait.
            session.waited = session.waited or bool(blockers)
            may_wait = command is None or command.outcome is Outcome.TIMES_OUT
            if blocked > 3 and (ours := [pid for pid in blockers if pid in self.workers]) and not may_wait:
                raise Otherwise(
                    f"waits for {self._names(ours, session)}, where the model says that nobody is in the way"
                )
            if blocked > 3 and in_pool and command is not None:
                raise Otherwise("waits in the pool, where the model says that a connection is left")
            if time.monotonic() - started > STEP_SECONDS:
                raise Otherwise(self._overdue(blockers))
        judge(session, command, self.script.workers[session.worker])

    async def _goes_on(self, session: Session, started: float) -> None:
        """Wait for a statement that waited, and must now come to its end."""
        try:
            await self._until_complete(session, None, started)
        except Otherwise as other:
            raise Otherwise(str(other), session.sent) from None

    async def _waits_again(self, session: Session, blockers: Sequence[int], started: float) -> None:
        """Wait until a statement that waited has taken what it waited for, and waits for one of `blockers`.

        Until then what it is about to take could still be taken by others.
        """
        assert session.running is not None
        wanted = self._workers(blockers)
        while not session.running.done():
            pids = await self._blockers(session)
            if {self.workers.get(pid) for pid in pids} & set(blockers):
                return
            if time.monotonic() - started > STEP_SECONDS:
                still = f"waits for {self._names(pids)}" if pids else "waits for nobody"
                raise Otherwise(f"{still}, where the model says that it goes on and waits for {wanted}", session.sent)
            await asyncio.wait({session.running}, timeout=POLL_SECONDS)
        try:
            judge(session, None, self.script.workers[session.worker])
        except Otherwise as other:
            raise Otherwise(str(other), session.sent) from None
        raise Otherwise(f"is granted, where the model says that it goes on and waits for {wanted}", session.sent)

    def _overdue(self, blockers: Sequence[int]) -> str:
        if outside := [pid for pid in blockers if pid not in self.workers]:
            return f"waits for process {outside[0]}, which is not part of the replay"
        if blockers:
            return f"still waits for {self._names(blockers)}, where the model says that it goes on"
        return f"did not come back within {STEP_SECONDS:g} s"

    async def _until_waiting(
        self, command: Command, started: float, closes: bool
    ) -> tuple[Deadlock | None, tuple[int, ...]]:
        """Wait until the statement is seen to wait for the right worker (or, closing the cycle, is aborted at once)."""
        session = self.sessions[command.worker]
        assert session.running is not None
        while not session.running.done():
            pids = await self._blockers(session)
            waits_for = tuple(self.workers[pid] for pid in pids if pid in self.workers)
            session.waited = session.waited or bool(pids)
            if set(waits_for) & {*command.blockers, *command.behind}:
                return None, waits_for
            if self._waits_in_pool(session):
                return None, self._holders(session.asks)
            if waits_for and time.monotonic() - started > 1.0:
                wanted = self._workers(command.blockers)
                raise Otherwise(f"waits for {self._names(pids)}, where the model says for {wanted}")
            if time.monotonic() - started > STEP_SECONDS:
                raise Otherwise(self._overdue(pids))
            await asyncio.wait({session.running}, timeout=POLL_SECONDS)
        if closes and isinstance(error := session.running.exception(), errors.DeadlockDetected):
            return self._deadlock(command.worker, error, seen_waiting=False), command.blockers
        if session.running.exception() is None:
            if closes and (deadlock := self._already_reported()) is not None:
                return deadlock, command.blockers
            wanted = self._workers(command.blockers)
            hint = self._without_row(command) or no_row(command, session.running.result().rows)
            raise Otherwise(f"is granted, where the model says that it waits for {wanted}{hint}")
        judge(session, command, self.script.workers[session.worker])
        raise Otherwise("ended without waiting")

    def _without_row(self, command: Command) -> str:
        """A hint for a statement that did not wait: whoever should have been in its way had found no row to lock."""
        for number in range(len(self.done), 0, -1):
            one = self.done[number - 1]
            if one.no_row and one.command.worker in command.blockers and self._same_transaction(number):
                name = self.script.workers[one.command.worker]
                return f"; statement {number}, with which {name} would have locked rows, had found none: they were deleted or changed before"
        return ""

    def _same_transaction(self, number: int) -> bool:
        """Whether the worker of statement `number` is still in the transaction that it was in."""
        mine = [
            done.command
            for done in self.done[number - 1 :]
            if done.command.worker == self.done[number - 1].command.worker
        ]
        return mine[0].in_block and not any(one.sql in ("COMMIT", "ROLLBACK") for one in mine)

    def _waits_in_pool(self, session: Session) -> bool:
        """Whether `session` is seen to wait for a connection: all who ask that pool for one are in its queue."""
        pool = session.asks
        if pool is None:
            return False
        return self.pools.waiting(pool) >= sum(one.asks == pool for one in self.sessions)

    def _holders(self, pool: str | None) -> tuple[int, ...]:
        return tuple(one.worker for one in self.sessions if any(name == pool for name, _ in one.units))

    async def _stand_still(self) -> Standstill:
        """Watch those of a cycle that goes through a pool, or of a stall, for a while: none may go on, and Postgres must say nothing."""
        members = [self.sessions[worker] for worker in self.script.watched]
        tasks = {session.running: session for session in members if session.running is not None}
        started = time.monotonic()
        finished, _ = await asyncio.wait(list(tasks), timeout=STANDSTILL_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        for task in finished:
            command = tasks[task].sent
            if (error := task.exception()) is not None:
                raise Otherwise(f"fails: {one_line(str(error), 160)}", command)
            given = command is not None and command.takes_connection
            goes_on = "goes on, and there is no stall" if self.script.queued else "goes on, and there is no deadlock"
            raise Otherwise("is given a connection" if given else goes_on, command)
        in_pool, in_postgres = [], []
        for session in members:
            if (pool := session.asks) is not None:
                in_pool.append((session.worker, pool, self._holders(pool)))
            else:
                pids = await self._blockers(session)
                in_postgres.append((session.worker, tuple(self.workers[pid] for pid in pids if pid in self.workers)))
        seconds, queue = time.monotonic() - started, bool(self.script.queued)
        return Standstill(seconds, tuple(in_pool), tuple(in_postgres), queue)

    async def _await_deadlock(self) -> Deadlock:
        """Wait until Postgres aborts one of the cycle's members."""
        running = {self.sessions[worker].running: worker for worker in self.script.cycle}
        tasks = {task for task in running if task is not None}
        finished, others = await asyncio.wait(tasks, timeout=STEP_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if finished and others:
            # The victim's end lets the next one go on, and either answer may reach us first.
            finished |= (await asyncio.wait(others, timeout=1.0))[0]
        for task in finished:
            if isinstance(error := task.exception(), errors.DeadlockDetected):
                return self._deadlock(running[task], error, seen_waiting=True)
        for task in finished:
            if (error := task.exception()) is None:
                raise Otherwise(f"no deadlock: the statement of {self.script.workers[running[task]]} went on")
            if isinstance(error, psycopg.OperationalError) and self.sessions[running[task]].connection.broken:
                raise error
            if isinstance(error, psycopg.Error) and not isinstance(error, _LOCK_OUTCOMES):
                raise failure(self.sessions[running[task]], error, self.script.workers[running[task]])
            raise Otherwise(f"no deadlock: {self.script.workers[running[task]]} fails with {one_line(str(error), 160)}")
        raise Otherwise(f"no deadlock was reported within {STEP_SECONDS:g} s, though all members of the cycle wait")

    def _deadlock(self, victim: int, error: errors.DeadlockDetected, *, seen_waiting: bool) -> Deadlock:
        return read_report(victim, error, self.workers, self.script.workers, seen_waiting=seen_waiting)

    def _already_reported(self) -> Deadlock | None:
        """The deadlock, if another of its members was aborted before the last one was seen waiting.

        That can be where the replay may not choose the victim.
        """
        for worker in self.script.cycle:
            task = self.sessions[worker].running
            if task is not None and task.done() and isinstance(error := task.exception(), errors.DeadlockDetected):
                return self._deadlock(worker, error, seen_waiting=True)
        return None

    def _workers(self, workers: Sequence[int]) -> str:
        return ", ".join(self.script.workers[worker] for worker in workers)

    async def _blockers(self, session: Session) -> list[int]:
        cursor = await self.monitor.execute("SELECT pg_blocking_pids(%s)", (session.pid,))
        row = await cursor.fetchone()
        assert row is not None
        return list(row[0])  # type: ignore[call-overload, no-any-return]  # A column of integer[].

    def _names(self, pids: Sequence[int], waiter: Session | None = None) -> str:
        """The workers of `pids`; of `waiter` itself it is another connection."""
        workers = [self.workers[pid] for pid in pids if pid in self.workers]
        own = None if waiter is None else waiter.worker
        return ", ".join("another connection of its own" if one == own else self.script.workers[one] for one in workers)
