"""Random schedules whose outcome the model foretells, statement by statement.

A schedule is a seeded random walk of the crew. Whoever is not waiting may go on; a request that is not free is sent all the same, and waits;
when its holder ends, it goes on. The model has no wait queue, so a schedule never asks for what somebody already waits for, and
never lets two workers go on at once where their next requests could meet: what is left has one outcome only.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, replace

from lockmodel.compiler import Compilation
from lockmodel.explanation import find_cycle, view
from lockmodel.machine import Config, Move
from lockmodel.modes import Wait
from lockmodel.replay.script import Command, Outcome, Script, commands_of
from lockmodel.replay.statements import Statements
from lockmodel.replay.walk import ConcreteStep, begins_statement
from lockmodel.semantics import Crew, Semantics, State
from lockmodel.system import ActionKind, Request

TRANSACTIONS_PER_WORKER = 3
MAX_TURNS = 400


class _Unforeseeable(Exception):
    """What Postgres does next would depend on the order of a queue, or of two processes waking up."""


@dataclass(frozen=True)
class _Moment:
    """The model's side of a schedule: where everybody is, and who waits with which open statement."""

    state: State
    configs: tuple[Config, ...]
    last: tuple[ConcreteStep | None, ...]
    waiting: tuple[tuple[int, int], ...] = ()
    """(worker, resource) of each statement that waits."""

    def waits(self, worker: int) -> bool:
        return any(worker == waiter for waiter, _ in self.waiting)

    def wanted(self, resource: int) -> bool:
        return any(resource == other for _, other in self.waiting)

    def apply(self, compilation: Compilation, step: ConcreteStep) -> _Moment:
        worker, target = step.worker, step.move.target
        locations = list(self.state.locations)
        locations[worker] = compilation.locate(target)
        update, valuation = step.move.update, self.state.valuation
        return _Moment(
            State(tuple(locations), valuation if update is None else update[valuation]),
            (*self.configs[:worker], target, *self.configs[worker + 1 :]),
            (*self.last[:worker], step, *self.last[worker + 1 :]),
            self.waiting,
        )


def random_schedule(
    compilation: Compilation, statements: Statements, crew: Crew, seed: str, transactions: int = TRANSACTIONS_PER_WORKER
) -> Script:
    """A schedule of `crew` in which each worker runs up to `transactions` transactions. `seed` repeats it exactly.

    It ends when all are done, or in a deadlock, which is then the script's `cycle`.
    """
    return _Walk(compilation, statements, crew, random.Random(seed), transactions).script()


class _Walk:
    def __init__(
        self, compilation: Compilation, statements: Statements, crew: Crew, rng: random.Random, transactions: int
    ) -> None:
        self.compilation = compilation
        self.statements = statements
        self.semantics = Semantics(compilation.system, crew)
        self.rng = rng
        self.left = [transactions] * len(crew)
        count = len(crew)
        self.now = _Moment(self.semantics.initial, (Config(),) * count, (None,) * count)
        self.commands: list[Command] = []
        self.cycle: tuple[int, ...] = ()

    def script(self) -> Script:
        workers = list(range(len(self.left)))
        for _ in range(MAX_TURNS):
            self.rng.shuffle(workers)
            if not any(self._turn(worker) for worker in workers) or self._close_cycle():
                break
        return Script(self.semantics.crew.names, tuple(self.commands), self.cycle)

    def _close_cycle(self) -> bool:
        """If the model is in a deadlock, send the requests of the cycle that have not been sent yet."""
        workers = view(self.semantics, self.now.state)
        self.cycle = find_cycle(workers)
        open_requests = [worker for worker in self.cycle if not self.now.waits(worker)]
        if any(self.now.wanted(self._request(self.now, worker).resource) for worker in open_requests):
            # It would wait behind another waiter, whom Postgres then names as its blocker: the walk ends before that.
            self.cycle = ()
            return True
        for worker in self.cycle:
            if not self.now.waits(worker):
                config = self.now.configs[worker]
                step = ConcreteStep(worker, config, self._granted(config), begins=True)
                blockers = tuple(blocker.worker for blocker in workers[worker].blockers)
                sql = self.statements.for_lock(step)
                self.commands.append(Command(worker, sql, step.move.label, Outcome.WAITS, blockers))
        return bool(self.cycle)

    def _turn(self, worker: int) -> bool:
        """Let `worker` do one thing; False if it can't, or not with a foreseeable outcome."""
        if self.now.waits(worker):
            return False
        moves = [
            move for move in self.compilation.machine.moves(self.now.configs[worker]) if self._guarded(worker, move)
        ]
        try:
            if any(move.action is ActionKind.ACQUIRE for move in moves):
                self._statement(worker)
                return True
            moves = [move for move in moves if not any(self._blockers(self.now, worker, r) for r in move.requests)]
            moves = [move for move in moves if not any(self.now.wanted(r.resource) for r in move.requests)]
            if not moves:
                return False
            self._plain(worker, self.rng.choice(moves))
        except _Unforeseeable:
            return False
        return True

    def _guarded(self, worker: int, move: Move) -> bool:
        if move.guard is not None and self.now.state.valuation not in move.guard:
            return False
        if move.action is not ActionKind.START:
            return True
        transaction = move.target.transaction
        assert transaction is not None
        return self.left[worker] > 0 and transaction.name in self.semantics.crew.transactions[worker]

    def _plain(self, worker: int, move: Move) -> None:
        """A transition that takes no lock by a statement of its own; it may let others go on."""
        step = ConcreteStep(worker, self.now.configs[worker], move, begins=True)
        after, resumed = self._wake(self.now.apply(self.compilation, step))
        self.commands += commands_of(step, None, self.statements, move.label, resumed)
        self.now = after
        self.left[worker] -= move.action is ActionKind.START

    def _wake(self, now: _Moment) -> tuple[_Moment, tuple[int, ...]]:
        """Let those go on whose locks have become free; returns those whose whole statement is then complete."""
        free = [
            (worker, resource)
            for worker, resource in now.waiting
            if not self._blockers(now, worker, self._request(now, worker))
        ]
        now = replace(now, waiting=tuple(pair for pair in now.waiting if pair not in free))
        resumed = []
        for worker, _ in free:
            now, taken, waits_at = self._take(now, worker)
            if len(free) > 1 and (taken > 1 or waits_at is not None):
                raise _Unforeseeable
            if waits_at is None:
                resumed.append(worker)
            else:
                now = replace(now, waiting=(*now.waiting, (worker, waits_at)))
        return now, tuple(resumed)

    def _statement(self, worker: int) -> None:
        """Send the next statement of `worker`: it completes, is refused, or waits."""
        before = self.now.configs[worker]
        request = self._request(self.now, worker)
        if self.now.wanted(request.resource):
            raise _Unforeseeable
        if request.wait is not Wait.BLOCK and self._blockers(self.now, worker, request):
            refusals = [m for m in self.compilation.machine.moves(before) if m.action is ActionKind.REFUSE]
            self._plain(worker, self.rng.choice(refusals))
            self._clear_error(worker)
            return
        step = ConcreteStep(worker, before, self._granted(before), begins=True)
        conditional = any(request.wait for request in step.move.requests)
        command = Command(worker, self.statements.for_lock(step), step.move.label, conditional=conditional)
        after, _, waits_at = self._take(self.now, worker)
        if waits_at is not None:
            after = replace(after, waiting=(*after.waiting, (worker, waits_at)))
            blockers = tuple(self._blockers(after, worker, self._request(after, worker)))
            command = replace(command, outcome=Outcome.WAITS, blockers=blockers)
        self.commands.append(command)
        self.now = after

    def _clear_error(self, worker: int) -> None:
        """After an error Postgres gives back the locks at once, so the rollback that must follow is not put off."""
        moves = list(self.compilation.machine.moves(self.now.configs[worker]))
        if moves and all(move.action in (ActionKind.ROLLBACK, ActionKind.ROLLBACK_TO) for move in moves):
            self._plain(worker, self.rng.choice(moves))

    def _take(self, now: _Moment, worker: int) -> tuple[_Moment, int, int | None]:
        """Take the lock that `worker` asks for and the others of the same statement.

        Returns how many were taken, and the resource that it comes to wait for, if any.
        """
        taken = 0
        while True:
            config = now.configs[worker]
            asks = any(move.action is ActionKind.ACQUIRE for move in self.compilation.machine.moves(config))
            if taken and (not asks or begins_statement(config, now.last[worker])):
                return now, taken, None
            request = self._request(now, worker)
            if now.wanted(request.resource):
                raise _Unforeseeable
            if self._blockers(now, worker, request):
                if request.wait is not Wait.BLOCK:
                    raise _Unforeseeable
                return now, taken, request.resource
            begins = begins_statement(config, now.last[worker])
            now = now.apply(self.compilation, ConcreteStep(worker, config, self._granted(config), begins))
            taken += 1

    def _granted(self, config: Config) -> Move:
        moves = [move for move in self.compilation.machine.moves(config) if move.action is ActionKind.ACQUIRE]
        return self.rng.choice(moves)

    def _request(self, now: _Moment, worker: int) -> Request:
        request = self.semantics.location(now.state, worker).request
        assert request is not None
        return request

    def _blockers(self, now: _Moment, worker: int, request: Request) -> list[int]:
        return self.semantics.blockers(now.state, worker, request)


def schedule_seeds(seed: int, count: int) -> Iterable[str]:
    """The seeds of the single schedules of a run with `seed`."""
    return (f"{seed}/{number}" for number in range(1, count + 1))
