"""Random schedules whose outcome the model foretells, statement by statement.

A schedule is a seeded random walk of the crew. Whoever is not waiting may go on; a request that is not free is sent all the same, and waits;
when its holder ends, it goes on. The model has no wait queue, so a schedule never asks for what somebody already waits for, and
never lets two workers go on at once where their next requests could meet: what is left has one outcome only.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from lockmodel.compiler import Compilation
from lockmodel.errors import SpecError
from lockmodel.explanation import find_cycle, view
from lockmodel.machine import Config, Move
from lockmodel.modes import Wait
from lockmodel.replay.script import Command, Outcome, Script, commands_of, request_command
from lockmodel.replay.sides import foretell
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
        pools = tuple(self.statements.pools.items())
        return Script(self.semantics.crew.names, tuple(self.commands), self.cycle, pools=pools, rows_may_go=True)

    def _close_cycle(self) -> bool:
        """If the model is in a deadlock, send the requests of the cycle that have not been sent yet."""
        workers = view(self.semantics, self.now.state)
        self.cycle = find_cycle(workers)
        open_requests = [worker for worker in self.cycle if not self.now.waits(worker)]
        if any(self.now.wanted(self._request(self.now, worker).resource) for worker in open_requests):
            # It would wait behind another waiter, whom Postgres then names as its blocker: the walk ends before that.
            self.cycle = ()
            return True
        waiting = [worker for worker, _ in self.now.waiting]
        for worker in self.cycle:
            if not self.now.waits(worker):
                waiting.append(worker)
                model = foretell(self.semantics, self.now.state, waiting)
                config = self.now.configs[worker]
                step = ConcreteStep(worker, config, self._granted(config), begins=True)
                blockers = tuple(blocker.worker for blocker in workers[worker].blockers)
                command = self._command(step, Outcome.WAITS)
                self.commands.append(replace(command, blockers=blockers, foretold=model))
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
        valuation = self.now.state.valuation
        if move.action is ActionKind.START and not self._may_start(worker, move):
            return False
        if valuation in move.faults and not any(self._blockers(self.now, worker, r) for r in move.requests):
            raise self._fault(move)
        return move.guard is None or valuation in move.guard

    def _fault(self, move: Move) -> SpecError:
        """That `move` has no meaning in the state at hand: what a check says of it too."""
        position = move.position or self.compilation.program.position
        return SpecError(position, move.faults[self.now.state.valuation])

    def _may_start(self, worker: int, move: Move) -> bool:
        transaction = move.target.transaction
        # A start that has no meaning leads to no transaction.
        mine = transaction is None or transaction.name in self.semantics.crew.transactions[worker]
        return self.left[worker] > 0 and mine

    def _plain(self, worker: int, move: Move) -> None:
        """A transition that takes no lock by a statement of its own; it may let others go on."""
        step = ConcreteStep(worker, self.now.configs[worker], move, begins=True)
        self._complete(self.now.apply(self.compilation, step), [step])
        self.left[worker] -= move.action is ActionKind.START

    def _complete(self, after: _Moment, steps: Sequence[ConcreteStep]) -> None:
        """Send the command that makes `steps`, with which the model comes to `after`, and let go on whom it frees."""
        after, resumed, again = self._wake(after)
        commands = list(commands_of(steps, None, self.statements))
        if commands:
            # Of several it is the last one, a rollback, that gives locks back.
            commands[-1] = replace(commands[-1], resumes=resumed, then_waits=again)
        self._send(after, *commands)

    def _wake(self, now: _Moment) -> tuple[_Moment, tuple[int, ...], tuple[tuple[int, tuple[int, ...]], ...]]:
        """Let those go on whose locks have become free.

        Returns those whose whole statement is then complete, and those that wait again, with the workers that are in their way. A statement
        that is complete may give back what it took, and so free others.
        """
        resumed: list[int] = []
        again: list[tuple[int, tuple[int, ...]]] = []
        while free := [
            (worker, resource)
            for worker, resource in now.waiting
            if not self._blockers(now, worker, self._request(now, worker))
        ]:
            now = self._wake_these(now, free, resumed, again)
        return now, tuple(resumed), tuple(again)

    def _wake_these(
        self,
        now: _Moment,
        free: Sequence[tuple[int, int]],
        resumed: list[int],
        again: list[tuple[int, tuple[int, ...]]],
    ) -> _Moment:
        now = replace(now, waiting=tuple(pair for pair in now.waiting if pair not in free))
        for worker, _ in free:
            now, steps, waits_at = self._take(now, worker)
            if len(free) > 1 and (len(steps) > 1 or waits_at is not None):
                raise _Unforeseeable
            if _fails(steps):
                raise _Unforeseeable
            if waits_at is None:
                resumed.append(worker)
            else:
                now = replace(now, waiting=(*now.waiting, (worker, waits_at)))
                again.append((worker, tuple(self._blockers(now, worker, self._request(now, worker)))))
        return now

    def _statement(self, worker: int) -> None:
        """Send the next statement of `worker`: it completes, is refused, or waits."""
        after, steps, waits_at = self._take(self.now, worker)
        if waits_at is None:
            self._complete(after, steps)
            if _fails(steps):
                self._clear_error(worker)
            return
        before = self.now.configs[worker]
        first = steps[0] if steps else ConcreteStep(worker, before, self._granted(before), begins=True)
        after = replace(after, waiting=(*after.waiting, (worker, waits_at)))
        blockers = tuple(self._blockers(after, worker, self._request(after, worker)))
        self._send(after, replace(self._command(first, Outcome.WAITS), blockers=blockers))

    def _command(self, step: ConcreteStep, outcome: Outcome = Outcome.COMPLETES) -> Command:
        """The statement that `step`, a lock, begins."""
        return request_command(step, self.statements, step.move.label, outcome)

    def _send(self, after: _Moment, *commands: Command) -> None:
        """Add `commands`, after which the model is at `after`."""
        self.now = after
        model = foretell(self.semantics, after.state, [worker for worker, _ in after.waiting])
        self.commands += [replace(command, foretold=model) for command in commands]

    def _clear_error(self, worker: int) -> None:
        """After an error Postgres gives back the locks at once, so the rollback that must follow is not put off."""
        moves = list(self.compilation.machine.moves(self.now.configs[worker]))
        if moves and all(move.action in (ActionKind.ROLLBACK, ActionKind.ROLLBACK_TO) for move in moves):
            self._plain(worker, self.rng.choice(moves))

    def _take(self, now: _Moment, worker: int) -> tuple[_Moment, list[ConcreteStep], int | None]:
        """Take the lock that `worker` asks for and the others of the same statement, or go on without, where it does not wait.

        Returns the steps, and the resource that it comes to wait for, if any.
        """
        steps: list[ConcreteStep] = []
        while True:
            config = now.configs[worker]
            asks = any(move.action is ActionKind.ACQUIRE for move in self.compilation.machine.moves(config))
            if steps and (_fails(steps) or not asks or begins_statement(config, now.last[worker])):
                return now, steps, None
            request = self._request(now, worker)
            if now.wanted(request.resource):
                raise _Unforeseeable
            if not self._blockers(now, worker, request):
                move = self._granted(config)
                if now.state.valuation in move.faults:
                    raise self._fault(move)
            elif request.wait is Wait.BLOCK:
                return now, steps, request.resource
            else:
                refusals = [m for m in self.compilation.machine.moves(config) if m.action is ActionKind.REFUSE]
                move = self.rng.choice(refusals)
            steps.append(ConcreteStep(worker, config, move, begins_statement(config, now.last[worker])))
            now = now.apply(self.compilation, steps[-1])

    def _granted(self, config: Config) -> Move:
        moves = [move for move in self.compilation.machine.moves(config) if move.action is ActionKind.ACQUIRE]
        return self.rng.choice(moves)

    def _request(self, now: _Moment, worker: int) -> Request:
        request = self.semantics.location(now.state, worker).request
        assert request is not None
        return request

    def _blockers(self, now: _Moment, worker: int, request: Request) -> list[int]:
        return self.semantics.blockers(now.state, worker, request)


def _fails(steps: Sequence[ConcreteStep]) -> bool:
    """Whether the statement that made `steps` ends in an error: NOWAIT, where it would have to wait."""
    return any(
        step.move.action is ActionKind.REFUSE and request.wait.fails
        for step in steps[-1:]
        for request in step.move.requests
    )


def schedule_seeds(seed: int, count: int) -> Iterable[str]:
    """The seeds of the single schedules of a run with `seed`."""
    return (f"{seed}/{number}" for number in range(1, count + 1))
