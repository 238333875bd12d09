"""A deadlock's trace on real code: each worker of the cycle runs the operation that its transaction stands for, unmodified.

The trace is not followed statement by statement, since the code has statements that the spec does not speak of. It is followed by what is
really locked: each worker in turn goes on until it holds what the trace says that it holds; then each goes on until it
waits. (Holding compatible locks one after another and then asking is the canonical order of any such trace.)

How far a worker is to go is learnt in a rehearsal, in which its operation runs alone. Where one statement takes both a lock that the trace
has it hold and the one that it is to wait for, it stops before that statement, which is the first to be sent at the end: it takes the one
lock and waits for the other.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from psycopg import errors

from lockmodel.compiler import Compilation
from lockmodel.errors import ReplayError, SpecError, one_line, quote
from lockmodel.explanation import TraceView, explain
from lockmodel.replay.comparison import Taken
from lockmodel.replay.conformance import Stage, connecting, stage
from lockmodel.replay.deadlock import Deadlock, read_report
from lockmodel.replay.patience import OTHERS_TIMEOUT, STEP_SECONDS, VICTIM_TIMEOUT_MS
from lockmodel.replay.pausing import Blocked, CodeWorker, Ended, Paused, Standing
from lockmodel.replay.sandbox import POLL_SECONDS
from lockmodel.replay.sides import Foretold, Seen, WorkerSides, compare_sides
from lockmodel.replay.target import Bindings, operation
from lockmodel.replay.walk import walk
from lockmodel.semantics import Semantics
from lockmodel.spec import Spec
from lockmodel.system import ActionKind
from lockmodel.trace import Trace

_MEMBERS_MAX = 6


@dataclass(frozen=True)
class CodeStep:
    """A statement that a worker's code sent, and what became of it."""

    worker: int
    statement: str
    became: str


@dataclass(frozen=True)
class CodeReplay:
    """What came of it: confirmed, or refuted by `difference`; or not `realizable`, for the reason in `difference`."""

    server: str
    seconds: float
    workers: tuple[str, ...]
    steps: tuple[CodeStep, ...]
    deadlock: Deadlock | None = None
    difference: str | None = None
    sides: tuple[WorkerSides, ...] = ()
    """Where the code did otherwise: each worker's locks, as the trace has them and as they were."""
    realizable: bool = True


class Otherwise(Exception):
    """The code or Postgres did something else than the trace says; `sides` are the locks on both sides then."""

    sides: tuple[WorkerSides, ...] = ()


class NotRealizable(Exception):
    """No order of whole statements leads into the cycle; `str()` says why."""


async def replay_code(spec: Spec, compilation: Compilation, trace: Trace, dsn: str) -> CodeReplay:
    """Run the cycle of `trace` on the target of `spec`. Raises SpecError or ReplayError for what keeps it from being done."""
    started = time.monotonic()
    view = explain(compilation.system, trace)
    if not view.cycle:
        raise ReplayError("on real code only deadlocks are replayed, and this trace ends in none")
    bindings = Bindings(spec, compilation.program, compilation.system.resources)
    parts = {worker: _Part(spec, compilation, trace, view, worker, bindings) for worker in view.cycle}
    steps: list[CodeStep] = []
    deadlock, difference, version, realizable = None, None, "", True
    sides: tuple[WorkerSides, ...] = ()
    try:
        plans = {}
        for worker, part in parts.items():
            rehearsal = _Rehearsal(part, worker, view, bindings, steps)
            async with stage(spec, dsn) as scene:
                version = scene.version
                plans[worker] = await rehearsal.perform(scene)
            steps.clear()
        order = prefix_order(Semantics(compilation.system, trace.crew), trace, view.cycle)
        closing = _closing_order(order, plans, view)
        async with stage(spec, dsn) as scene:
            deadlock = await _Run(order, closing, view, plans, bindings, scene, steps).perform()
    except Otherwise as other:
        difference, sides = str(other), other.sides
    except NotRealizable as error:
        difference, realizable = str(error), False
    seconds = time.monotonic() - started
    return CodeReplay(version, seconds, view.workers, tuple(steps), deadlock, difference, sides, realizable)


def prefix_order(semantics: Semantics, trace: Trace, cycle: Sequence[int]) -> list[int]:
    """The members of `cycle` in an order in which each can do all of its part of `trace` before the next begins.

    Where all locks are held to the end any order will do, and it is that of the trace. But a request that was granted and given
    back at once may have to come before another worker's.
    """
    starts = [action.worker for action in trace.actions if action.edge.action is ActionKind.START]
    members = sorted(cycle, key=starts.index)
    # Longer cycles have too many orders to try.
    orders = itertools.permutations(members) if len(members) <= _MEMBERS_MAX else iter([tuple(members)])
    possible = (order for order in orders if _one_by_one(semantics, trace, order))
    return list(next(possible, members))


def _one_by_one(semantics: Semantics, trace: Trace, order: Sequence[int]) -> bool:
    state = trace.states[0]
    for worker in order:
        for action in (action for action in trace.actions if action.worker == worker):
            if not semantics.enabled(state, worker, action.edge):
                return False
            state = semantics.after(state, action)
    return True


class _Part:
    """What one worker of the cycle has to do in the trace."""

    def __init__(
        self, spec: Spec, compilation: Compilation, trace: Trace, view: TraceView, worker: int, bindings: Bindings
    ) -> None:
        mine = [step for step in walk(compilation, trace).steps if step.worker == worker]
        start = [step for step in mine if step.move.action is ActionKind.START][-1]
        transaction = start.move.target.transaction
        assert transaction is not None
        self.declared = spec.transactions[transaction.name]
        if self.declared.call is None:
            message = f"transaction {quote(transaction.name)} has no `call`, so no real code to run"
            raise SpecError(self.declared.at(), message)
        self.values = dict(start.move.target.env)
        final = view.final[worker]
        assert final.wants is not None
        self.held = frozenset(Taken(lock.resource, lock.mode) for lock in final.holds)
        self.wanted = Taken(final.wants.resource, final.wants.mode)
        self.blockers = tuple(view.workers[blocker.worker] for blocker in final.blockers)
        self.must = frozenset(filter(bindings.seen, self.held))
        """What is to be seen of the locks that it holds."""

    def sides(self, name: str, seen: Seen, *, waits: bool) -> WorkerSides:
        """The trace's side of worker `name` beside what was seen; `waits`: whether it is to wait by then."""
        model = Foretold(self.held, self.wanted, self.blockers) if waits else Foretold(self.held)
        told = {lock.resource for lock in self.must}
        return compare_sides(name, model, seen, told, complete=True)

    def operation(self, scene: Stage, code: CodeWorker) -> Callable[[], Awaitable[object]]:
        """The operation, on the connection of `code`."""
        assert self.declared.call is not None
        return operation(scene.target, self.declared.call, self.values, connecting(code.connection))


@dataclass(frozen=True)
class _Plan:
    """How far a worker goes before the cycle is closed: `statements` are sent, and then it holds `holding`.

    `partial`: the next one takes both locks that the trace has it hold and the one that it is to wait for.
    """

    part: _Part
    statements: int
    holding: frozenset[Taken]
    partial: bool = False


class _Rehearsal:
    """One operation run alone, to find the statement after which it holds what the trace says."""

    def __init__(self, part: _Part, worker: int, view: TraceView, bindings: Bindings, steps: list[CodeStep]) -> None:
        self.part = part
        self.worker = worker
        self.name = view.workers[worker]
        self.bindings = bindings
        self.steps = steps

    async def perform(self, scene: Stage) -> _Plan:
        """Raises Otherwise if there is no such statement: the code takes its locks in another order, or never holds them together."""
        part = self.part
        code = await scene.worker("rehearsal")
        code.start(part.operation(scene, code))
        standing = await code.settle(scene.observer.blocking_pids)
        closest: tuple[int, frozenset[Taken]] = (0, frozenset())
        before: frozenset[Taken] = frozenset()
        while isinstance(standing, Paused):
            statement = standing.statement
            standing = await code.step(scene.observer.blocking_pids)
            self.steps.append(CodeStep(self.worker, scene.short(statement), "ok, alone"))
            held = await scene.held(code, self.bindings) if isinstance(standing, Paused) else frozenset()
            if part.wanted not in held and part.must <= held:
                return _Plan(part, len(code.sent), held)
            if part.wanted in held and part.must <= held:
                return _Plan(part, len(code.sent) - 1, before, partial=True)
            if part.wanted in held:
                missing = ", ".join(map(str, sorted(part.must - held)))
                raise self._otherwise(f"comes to hold {part.wanted} without {missing}", held)
            if len(part.must & held) > len(part.must & closest[1]):
                closest = len(code.sent), held
            before = held
        if isinstance(standing, Ended) and standing.error is not None:
            raise ReplayError(f"{part.declared.at('call')}: the operation fails{_error(standing)}")
        together = ", ".join(map(str, sorted(part.must)))
        # What is shown is the moment when it came closest.
        del self.steps[closest[0] :]
        raise self._otherwise(f"never holds {together} together", closest[1])

    def _otherwise(self, what: str, held: frozenset[Taken]) -> Otherwise:
        other = Otherwise(f"{self.name}, run alone, {what}")
        other.sides = (self.part.sides(self.name, Seen(held), waits=False),)
        return other


def _closing_order(order: Sequence[int], plans: Mapping[int, _Plan], view: TraceView) -> list[int]:
    """The members in an order in which each finds its request taken when it asks.

    A statement that takes some locks before it waits takes them when it is sent, so whoever waits for one of these comes later.
    Raises NotRealizable if each would have to be sent before another.
    """
    # Those that have only to wait can as well come last.
    left, closing = sorted(order, key=lambda worker: not plans[worker].partial), []
    holding = {worker: plans[worker].holding & plans[worker].part.held for worker in order}
    while left:
        for worker in left:
            wanted = plans[worker].part.wanted.resource
            blockers = [blocker.worker for blocker in view.final[worker].blockers if blocker.worker in holding]
            if any(lock.resource == wanted for blocker in blockers for lock in holding[blocker]):
                break
        else:
            names = " and ".join(view.workers[worker] for worker in left)
            raise NotRealizable(f"{names} must each be halfway through a statement before the other is sent")
        closing.append(worker)
        left.remove(worker)
        holding[worker] = plans[worker].part.held
    return closing


class _Run:
    def __init__(
        self,
        order: Sequence[int],
        closing: Sequence[int],
        view: TraceView,
        plans: dict[int, _Plan],
        bindings: Bindings,
        scene: Stage,
        steps: list[CodeStep],
    ) -> None:
        self.order = order
        self.closes_in = closing
        self.view = view
        self.plans = plans
        self.bindings = bindings
        self.scene = scene
        self.steps = steps
        self.workers: dict[int, CodeWorker] = {}
        self.standing: dict[int, Standing] = {}
        self.closing: int | None = None
        """The worker that is to come to wait now."""

    async def perform(self) -> Deadlock:
        """Bring the cycle about; returns Postgres's report of it. Raises Otherwise."""
        try:
            return await self._perform()
        except Otherwise as other:
            other.sides = await self._sides()
            raise

    async def _sides(self) -> tuple[WorkerSides, ...]:
        """Both sides of every worker that has begun, as it stands."""
        found = []
        for worker, code in sorted(self.workers.items()):
            standing = self.standing.get(worker)
            over = standing is None or isinstance(standing, Ended)
            held = frozenset() if over else await self.scene.held(code, self.bindings)
            pids = await self.scene.observer.blocking_pids(code.pid)
            names = {other.pid: other.name for other in self.workers.values()}
            seen = Seen(held, tuple(names.get(pid, f"process {pid}") for pid in pids))
            waits = isinstance(standing, Blocked) or worker == self.closing
            found.append(self.plans[worker].part.sides(self._name(worker), seen, waits=waits))
        return tuple(found)

    async def _perform(self) -> Deadlock:
        last = self.closes_in[-1]
        for worker in self.order:
            await self._begin(worker, last=worker == last)
            await self._go_ahead(worker)
        for worker in self.closes_in:
            self.closing = worker
            if (deadlock := await self._until_waiting(worker, closes=worker == last)) is not None:
                return deadlock
        return await self._await_deadlock()

    async def _begin(self, worker: int, *, last: bool) -> None:
        """Connect, and let the operation stop before its first statement."""
        code = self.workers[worker] = await self.scene.worker(self.view.workers[worker])
        timeout = f"{VICTIM_TIMEOUT_MS:g}ms" if last else OTHERS_TIMEOUT
        for setting, value in (("deadlock_timeout", timeout), ("lc_messages", "C")):
            try:
                await code.connection.execute("SELECT set_config(%s, %s, false)", (setting, value))
            except errors.InsufficientPrivilege:
                continue
        code.start(self.plans[worker].part.operation(self.scene, code))
        self.standing[worker] = await code.settle(self.scene.observer.blocking_pids)

    async def _go_ahead(self, worker: int) -> None:
        """Send as many statements as in the rehearsal; then the worker must hold what the trace says."""
        plan = self.plans[worker]
        for _ in range(plan.statements):
            standing = self.standing[worker]
            if isinstance(standing, Paused):
                await self._step(worker)
                standing = self.standing[worker]
            if isinstance(standing, Blocked):
                names = self._blockers(standing)
                raise Otherwise(
                    f"{self._name(worker)} waits for {names}, where the trace says that nobody is in the way"
                )
            if isinstance(standing, Ended):
                raise Otherwise(f"{self._name(worker)} ends before it holds what the trace says{_error(standing)}")
        held = await self._held(worker)
        if not plan.partial and (missing := plan.part.must - held):
            names = ", ".join(map(str, sorted(missing)))
            raise Otherwise(f"{self._name(worker)} does not hold {names} here, as it did when it ran alone")

    async def _until_waiting(self, worker: int, *, closes: bool) -> Deadlock | None:
        """Let the code go on until its statement waits for the next of the cycle (or is aborted, closing it)."""
        next_one = self.plans[worker].part.wanted
        while isinstance(self.standing[worker], Paused):
            await self._step(worker)
            if closes and (deadlock := self._reported()) is not None:
                return deadlock
            if not isinstance(self.standing[worker], Paused):
                break
            held = await self._held(worker)
            if next_one in held:
                raise Otherwise(f"{self._name(worker)} is granted {next_one}, where the trace says that it waits")
            if not self.plans[worker].partial and (missing := self.plans[worker].part.must - held):
                first, *more = sorted(missing)
                names = f"{first} and {len(more)} more" if more else f"{first}"
                raise Otherwise(f"{self._name(worker)} gives back {names} before it waits for {next_one}")
        standing = self.standing[worker]
        if isinstance(standing, Ended):
            raise Otherwise(f"{self._name(worker)} goes on to its end without waiting for {next_one}{_error(standing)}")
        assert isinstance(standing, Blocked)
        expected = {
            self.workers[blocker.worker].pid
            for blocker in self.view.final[worker].blockers
            if blocker.worker in self.workers
        }
        if not expected & set(standing.blockers):
            raise Otherwise(f"{self._name(worker)} waits for {self._blockers(standing)}, not for whom the trace says")
        return None

    async def _await_deadlock(self) -> Deadlock:
        deadline = time.monotonic() + STEP_SECONDS
        while time.monotonic() < deadline:
            if (deadlock := self._reported()) is not None:
                return deadlock
            for worker, code in self.workers.items():
                if code.gate.pending is not None or (code.task and code.task.done()):
                    await asyncio.sleep(
                        0.2
                    )  # The victim's end lets the next one go on; the victim's answer may come second.
                    if (deadlock := self._reported()) is not None:
                        return deadlock
                    raise Otherwise(f"no deadlock: {self._name(worker)} went on")
            await asyncio.sleep(POLL_SECONDS)
        raise Otherwise(f"no deadlock was reported within {STEP_SECONDS:g} s, though all members of the cycle wait")

    def _reported(self) -> Deadlock | None:
        """The 40P01 that one of the workers got, if any, also if its code made nothing of it."""
        numbers = {code.pid: worker for worker, code in self.workers.items()}
        for worker, code in self.workers.items():
            for failure in code.connection.failures:
                if isinstance(failure, errors.DeadlockDetected):
                    seen = any(step.became.startswith("waits") for step in self.steps if step.worker == worker)
                    if not seen:
                        self.steps[-1] = CodeStep(worker, self.steps[-1].statement, "40P01 deadlock detected")
                    return read_report(worker, failure, numbers, self.view.workers, seen_waiting=seen)
        return None

    async def _step(self, worker: int) -> None:
        code = self.workers[worker]
        statement = code.gate.pending or ""
        standing = await code.step(self.scene.observer.blocking_pids)
        self.standing[worker] = standing
        became = f"waits for {self._blockers(standing)}" if isinstance(standing, Blocked) else "ok"
        if isinstance(standing, Ended) and standing.error is not None:
            became = one_line(str(standing.error), 120)
        self.steps.append(CodeStep(worker, self.scene.short(statement), became))

    async def _held(self, worker: int) -> frozenset[Taken]:
        if isinstance(self.standing[worker], Ended):
            return frozenset()
        return await self.scene.held(self.workers[worker], self.bindings)

    def _blockers(self, standing: Blocked) -> str:
        names = {code.pid: self._name(worker) for worker, code in self.workers.items()}
        return ", ".join(names.get(pid, f"process {pid}") for pid in standing.blockers)

    def _name(self, worker: int) -> str:
        return self.view.workers[worker]


def _error(standing: Ended) -> str:
    return f" ({one_line(repr(standing.error), 160)})" if standing.error is not None else ""
