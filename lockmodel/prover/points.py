"""Where workers wait, for every size of the sets: the points of a program and what a worker may and must hold there.

Each transaction is walked once, with symbolic parameters, as a compiler analyses a program: where ways meet, what a worker *may* hold is
all that it holds on some way, and what it *must* hold is what it holds on each. Conditions and guards are not looked at. So every
real place of a worker is covered by a point: it holds at least the must and at most the may, and asks for the request.

A loop is walked twice, for its first element and for a later one; in the later round the locks of earlier rounds are those of a `Former`
element. After the loop they are of `SOME` element, and where each round surely took one, of `Every` element. `lockmodel.prover.holdings` says how.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from lockmodel.errors import Position
from lockmodel.expressions import Expression
from lockmodel.modes import Wait
from lockmodel.program import (
    Assign,
    Block,
    Either,
    End,
    If,
    Lock,
    Loop,
    Program,
    Reference,
    Release,
    RollbackTo,
    Savepoint,
    Step,
    TransactionProgram,
)
from lockmodel.prover.holdings import NO_LOCKS, Holding, Locks, RoundNames, either, join
from lockmodel.prover.terms import SOME, Choice, Literal, SymbolicLock, Term, Visit

MAX_WORK = 1_000_000
"""Steps walked and locks copied in all, some 2 µs each. A program that needs more is left to other proofs."""


@dataclass(frozen=True)
class Point:
    """A situation in which a worker asks for a lock and waits if it must."""

    transaction: str
    request: SymbolicLock
    may: Locks
    must: Locks
    position: Position


@dataclass(frozen=True)
class Points:
    """All points of a program. `taken`: every lock that some step takes, waiting or not, with its transaction."""

    points: tuple[Point, ...]
    taken: frozenset[tuple[str, SymbolicLock]]
    outlive: bool
    """Whether a session lock may outlive its transaction."""


class TooLarge(Exception):
    """The walk would take too long."""


def points_of(program: Program) -> Points:
    """The points of all transactions that some role runs. Raises TooLarge."""
    run_by = {
        transaction.name: [
            role.name for role in program.roles if role.count != 0 and transaction.name in role.transactions
        ]
        for transaction in program.transactions
    }
    transactions = [transaction for transaction in program.transactions if run_by[transaction.name]]
    left: dict[str, Locks] = {role.name: NO_LOCKS for role in program.roles}
    work = _Work()
    while True:
        # What a worker kept from an earlier transaction it may hold everywhere in the next one.
        walks = [
            _Walk(program, transaction, frozenset().union(*(left[role] for role in run_by[transaction.name])), work)
            for transaction in transactions
        ]
        following = {
            role: locks.union(*(walk.kept for walk in walks if role in run_by[walk.transaction.name]))
            for role, locks in left.items()
        }
        if following == left:
            break
        left = following
    return Points(
        tuple(point for walk in walks for point in walk.points.values()),
        frozenset((walk.transaction.name, lock) for walk in walks for lock in walk.taken),
        any(left.values()),
    )


class _Work:
    def __init__(self) -> None:
        self.left = MAX_WORK

    def spend(self, cost: int) -> None:
        self.left -= cost
        if self.left < 0:
            raise TooLarge


_Body = Callable[[Holding, tuple[object, ...]], Holding | None]
"""What a loop does in a round."""


class _Walk:
    """One transaction, walked from a start at which it may hold `ambient`. The results are its attributes."""

    def __init__(self, program: Program, transaction: TransactionProgram, ambient: Locks, work: _Work) -> None:
        self.program = program
        self.transaction = transaction
        self.work = work
        self.points: dict[object, Point] = {}
        self.taken: set[SymbolicLock] = set()
        self.kept = NO_LOCKS
        """What may be left of session locks at the end, by family."""
        self._places: dict[tuple[int, str], int] = {}
        self._in_statement = False
        chosen: dict[str, Term] = {name: Choice(name, of) for name, of in transaction.choose}
        env = dict(chosen)
        for name, expression in transaction.let:
            # A `let` does not see the others: what one of them is called may be an element here.
            env[name] = chosen.get(expression.tree.id, SOME) if isinstance(expression.tree, ast.Name) else SOME
            if env[name] == SOME:
                env[name] = Choice(name, None)
        here = Holding(ambient, NO_LOCKS, ambient, env, {})
        for reference, mode in transaction.take_at_start:
            here = self._acquire(here, self._lock(reference, mode, here))
        self._end(self._block(transaction.steps, here, ()))

    def _block(self, block: Block, here: Holding, rounds: tuple[object, ...]) -> Holding | None:
        """What is known after `block`; None if it always ends the transaction. `rounds` tells first rounds of loops from later ones."""
        following: Holding | None = here
        for step in block.steps:
            if following is None:
                return None
            self.work.spend(1 + len(following.may) // 4)
            following = self._step(step, following, rounds)
        return following

    def _step(self, step: Step, here: Holding, rounds: tuple[object, ...]) -> Holding | None:
        match step:
            case Lock():
                return self._take(step, here, rounds)
            case Loop():
                return self._loop(step, here, rounds)
            case Either():
                ways = [self._block(branch, here, rounds) for branch in step.branches]
                found = ways[0]
                for way in ways[1:]:
                    found = join(found, way)
                return found
            case If():
                return join(self._block(step.then, here, rounds), self._block(step.otherwise, here, rounds))
            case Assign():
                changed = {name: SOME for name, _ in step.values if name in here.env}
                return replace(here, env={**here.env, **changed})
            case Savepoint():
                # One of the same name may come back when this one is gone, so both are kept together.
                now = here.may, here.must
                kept = either(here.saved[step.name], now) if step.name in here.saved else now
                return replace(here, saved={**here.saved, step.name: kept})
            case RollbackTo():
                return self._roll_back(here, step.name)
            case Release():
                return self._release(here, self._lock(step.reference, step.mode, here))
            case End():
                self._end(here)
                return None

    # Locks

    def _take(self, step: Lock, here: Holding, rounds: tuple[object, ...]) -> Holding | None:
        parts = len(step.table_modes)
        for part, mode in enumerate(step.table_modes):
            assert step.table is not None
            table = self._lock(step.table, mode, here)
            gives_up = step.wait is Wait.TIMEOUT
            here = self._acquire(here, table) if gives_up else self._request(step, part, table, here, rounds)
        wanted = self._lock(step.reference, step.mode, here)
        if step.wait is Wait.BLOCK:
            here = self._request(step, parts, wanted, here, rounds, kept=step.kept)
            return self._block(step.then, self._alone(here), rounds)
        taken = self._acquire(here, wanted) if step.kept else here
        granted = self._block(step.then, self._alone(taken), rounds)
        here = self._alone(here)
        if step.otherwise is not None:
            return join(granted, self._block(step.otherwise, here, rounds))
        if step.wait.fails:
            self._end(here)
            return granted
        return join(granted, here)

    def _request(
        self,
        step: Lock,
        part: int,
        wanted: SymbolicLock,
        here: Holding,
        rounds: tuple[object, ...],
        *,
        kept: bool = True,
    ) -> Holding:
        point = Point(self.transaction.name, wanted, here.may, here.must, step.position)
        # A later walk of the same place knows more ways to it.
        self.points[(step, part, rounds)] = point
        return self._acquire(here, wanted) if kept else here

    # The end of a statement

    def _alone(self, here: Holding) -> Holding:
        """What is known after a lock, which is a statement of its own if it is inside none."""
        return here if self._in_statement else self._after_statement(here)

    def _after_statement(self, here: Holding) -> Holding:
        """Without a transaction block each statement gives back what it took, but session locks and units of pools."""
        if self.transaction.block:
            return here
        return replace(here, may=self._outliving(here.may), must=self._outliving(here.must))

    def _outliving(self, locks: Locks) -> Locks:
        families = self.program.families
        return frozenset(lock for lock in locks if families[lock.family].session or families[lock.family].capacity)

    def _acquire(self, here: Holding, lock: SymbolicLock) -> Holding:
        self.taken.add(lock)
        family = self.program.families[lock.family]
        if family.capacity is not None:
            # Its holders keep nobody away from it, as long as there is another unit.
            return replace(here, may=here.may | {lock})
        stacked = here.stacked | {lock} if family.session and lock in here.may else here.stacked
        must = here.must | {lock} if lock.definite else here.must
        return replace(here, may=here.may | {lock}, must=must, stacked=stacked)

    def _release(self, here: Holding, lock: SymbolicLock) -> Holding:
        """Gives back one of a session lock. Any of the same family and mode may be the one, and only a sole one is surely gone."""
        must = frozenset(
            held for held in here.must if (held.family, held.mode) != (lock.family, lock.mode)
        )  # fmt: skip
        sole = lock.definite and lock not in here.stacked
        return replace(here, must=must, may=here.may - {lock} if sole else here.may)

    def _roll_back(self, here: Holding, name: str) -> Holding | None:
        if name not in here.saved:
            return here  # The compiler refuses this step.
        may, must = here.saved[name]
        return replace(
            here,
            may=self._transaction_locks(may) | self._session_locks(here.may),
            must=self._transaction_locks(must) | self._session_locks(here.must),
        )

    def _session_locks(self, locks: Locks) -> Locks:
        return frozenset(lock for lock in locks if self.program.families[lock.family].session)

    def _transaction_locks(self, locks: Locks) -> Locks:
        return locks - self._session_locks(locks)

    def _end(self, here: Holding | None) -> None:
        if here is not None:
            self.kept |= {
                replace(lock, arguments=tuple(SOME for _ in lock.arguments)) for lock in self._session_locks(here.may)
            }

    def _lock(self, reference: Reference, mode: str, here: Holding) -> SymbolicLock:
        arguments = tuple(_term(argument, here.env) for argument in reference.arguments)
        return SymbolicLock(reference.family, arguments, mode)

    # Loops

    def _loop(self, loop: Loop, here: Holding, rounds: tuple[object, ...]) -> Holding | None:
        if loop.sql is None or self._in_statement:
            return self._all_rounds(loop, here, rounds)
        self._in_statement = True
        after = self._all_rounds(loop, here, rounds)
        self._in_statement = False
        return None if after is None else self._after_statement(after)

    def _all_rounds(self, loop: Loop, here: Holding, rounds: tuple[object, ...]) -> Holding | None:
        if not loop.over:
            return self._block(loop.body, here, rounds)
        if loop.order in ("forward", "reverse"):
            # The last name varies fastest, so that this is a loop in a loop.
            visit = Visit.ASCENDING if loop.order == "forward" else Visit.DESCENDING
            return self._nested(loop, loop.over, visit, here, rounds)
        return self._rounds(loop, loop.over, Visit.OTHER, here, rounds, self._body(loop))

    def _nested(
        self, loop: Loop, over: tuple[tuple[str, str], ...], visit: Visit, here: Holding, rounds: tuple[object, ...]
    ) -> Holding | None:
        def inner(here: Holding, rounds: tuple[object, ...]) -> Holding | None:
            return self._nested(loop, over[1:], visit, here, rounds)

        return self._rounds(loop, over[:1], visit, here, rounds, inner if over[1:] else self._body(loop))

    def _body(self, loop: Loop) -> _Body:
        return lambda here, rounds: self._block(loop.body, here, rounds)

    def _rounds(
        self,
        loop: Loop,
        over: tuple[tuple[str, str], ...],
        visit: Visit,
        here: Holding,
        rounds: tuple[object, ...],
        body: _Body,
    ) -> Holding | None:
        """What is known after all rounds for the elements of the sets in `over`, which are visited together."""
        current = [
            Choice(name, of, self._places.setdefault((id(loop), name), len(self._places) + 1)) for name, of in over
        ]
        names = RoundNames(current, visit)
        here = replace(here, env={**here.env, **{choice.name: choice for choice in current}})
        only = body(here, (*rounds, False))
        later: Holding | None = None
        if only is not None:
            entry = only.mapped(names.former, names.every_former_after_one)
            while True:
                self.work.spend(1)
                later = body(entry, (*rounds, True))
                if later is None:
                    break
                again = join(entry, later.mapped(names.former, names.every_former))
                assert again is not None
                if again == entry:
                    break
                entry = again
        first = None if only is None else only.mapped(names.some, names.every_after_one)
        rest = None if later is None else later.mapped(names.some, names.every)
        return join(first, rest)


def _term(argument: Expression, env: Mapping[str, Term]) -> Term:
    match argument.tree:
        case ast.Name(id=name):
            return env.get(name, SOME)
        case ast.Constant(value=bool() | int() | str() as value):
            return Literal(value, type(value))
    return SOME
