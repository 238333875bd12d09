"""Planned and observed locks of one transaction, side by side. Pure: what was observed comes as data.

A transaction of the spec can run in several ways (parameters, branches, orders). What a real one was seen to lock conforms if one of
these ways takes the same locks in the same order, where the locks of one statement have no order among themselves. If none
does, the way that has most in common is shown, with what differs.

Of a row that one transaction locks in several modes Postgres shows the strongest. So a row lock is left out on both sides where the row is held
at least as strongly.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from enum import StrEnum

from lockmodel.compiler import Compilation
from lockmodel.expressions import Value
from lockmodel.machine import Config
from lockmodel.modes import KINDS, SHARED
from lockmodel.system import ActionKind, Edge, Hold, Request, System

MAX_RUNS = 20_000
ROW_MODES = KINDS["row"].modes
"""Weakest first."""


@dataclass(frozen=True, order=True)
class Taken:
    """A lock taken: the resource by its name in the spec (or, if the spec has none for it, Postgres's), and the mode."""

    resource: str
    mode: str

    def __str__(self) -> str:
        return f"{self.resource} {self.mode}"


def of_one_row(lock: Taken, other: Taken) -> bool:
    """Whether both are locks of one row."""
    return lock.resource == other.resource and lock.mode in ROW_MODES and other.mode in ROW_MODES


def covers(other: Taken, lock: Taken) -> bool:
    """Whether `lock`, of a row, leaves nothing to be seen where `other` is held: a stronger one of that row, or the same."""
    return of_one_row(lock, other) and ROW_MODES.index(other.mode) >= ROW_MODES.index(lock.mode)


def strongest(held: Iterable[Taken]) -> frozenset[Taken]:
    """`held`, of each row only the strongest mode: a savepoint's own transaction is shown apart from the one around it."""
    locks = frozenset(held)
    return frozenset(lock for lock in locks if not any(covers(other, lock) for other in locks if other != lock))


@dataclass(frozen=True)
class Run:
    """One way for a transaction to run alone: `label` names its parameters, `taken` the locks in order, each once.

    `covered` are those of `taken` that leave nothing to be seen, since their row is held at least as strongly when their statement ends.
    """

    label: str
    taken: tuple[Taken, ...]
    covered: frozenset[Taken] = frozenset()


@dataclass(frozen=True)
class Observed:
    """One statement of a real transaction, and the locks that it held more after it than before.

    `number`: which statement of its transaction it is, from 1; None: they are counted as they come.
    """

    statement: str
    taken: frozenset[Taken]
    number: int | None = None


class Relation(StrEnum):
    EQUAL = "equal"
    MISSING = "missing in the model"
    UNSEEN = "not seen in reality"
    OTHER_MODE = "other mode"
    OTHER_ORDER = "other order"
    COVERED = "held already"
    """Planned only, and not to be seen: the row is held at least as strongly."""

    @property
    def agrees(self) -> bool:
        """Whether plan and reality don't differ there."""
        return self in (Relation.EQUAL, Relation.COVERED)


@dataclass(frozen=True)
class Line:
    """One line of the comparison; `statement` is the number (from 1) of the statement that took `observed`."""

    relation: Relation
    planned: Taken | None
    observed: Taken | None
    statement: int | None = None


@dataclass(frozen=True)
class Comparison:
    """A transaction as planned (the way `run`) and as observed."""

    run: Run | None
    statements: tuple[Observed, ...]
    lines: tuple[Line, ...]

    @property
    def conforms(self) -> bool:
        return self.run is not None and all(line.relation.agrees for line in self.lines)


@dataclass(frozen=True)
class Path:
    """What a transaction has taken on its way: each lock once and in order; `covered` as in `Run`."""

    taken: tuple[Taken, ...] = ()
    covered: frozenset[Taken] = frozenset()
    statements: tuple[tuple[int, frozenset[Taken]], ...] = ()
    """For each statement with locks the location that it began at, and what it took anew. What one statement takes has no order in itself."""

    def started(self, system: System, requests: Sequence[Request]) -> Path:
        """With what the transaction takes as it starts."""
        return self._with(((lock, ()) for lock in _seen(system, requests)), self.statements)

    def after(self, compilation: Compilation, source: int, edge: Edge) -> Path:
        """With what `edge`, which leads on from the location `source`, takes; without what is given back as its statement ends.

        What is taken for the statement alone can't be seen when it has ended.
        """
        if edge.action is not ActionKind.ACQUIRE:
            return self
        system = compilation.system
        before, after = system.locations[source].held, system.locations[edge.target].held
        running = compilation.config(source).statement
        statements = self.statements
        if running is None or not running[1] or not statements:
            statements = (*statements, (source, frozenset()))
        held = [_taken(system, hold) for hold in before]
        longer = self._with(((lock, held) for lock in _seen(system, edge.requests)), statements)
        wanted = {Hold(request.resource, request.mode) for request in edge.requests}
        gone = {_taken(system, hold) for hold in wanted.union(before) - set(after)}
        if not gone:
            return longer
        kept = tuple(lock for lock in longer.taken if lock not in gone)
        return Path(kept, longer.covered - gone, longer.statements)

    def _with(
        self, requests: Iterable[tuple[Taken, Sequence[Taken]]], statements: tuple[tuple[int, frozenset[Taken]], ...]
    ) -> Path:
        """With each of `requests`, a lock and what was held before it; they belong to the last of `statements`."""
        taken, covered = list(self.taken), set(self.covered)
        begun, fresh = statements[-1] if statements else (-1, frozenset[Taken]())
        for lock, held in requests:
            if any(covers(other, lock) for other in held if other != lock):
                if lock not in taken:
                    taken.append(lock)
                    covered.add(lock)
                continue
            if lock in covered and lock not in fresh:
                # A savepoint gave back what it was covered by, so it is seen only now.
                taken.remove(lock)
                covered.remove(lock)
            if lock not in taken:
                taken.append(lock)
                covered |= {other for other in fresh if covers(lock, other)}
                fresh |= {lock}
        return Path(tuple(taken), frozenset(covered), (*statements[:-1], (begun, fresh)) if statements else ())


def _taken(system: System, hold: Hold) -> Taken:
    return Taken(system.resources[hold.resource].name, hold.mode)


def _seen(system: System, requests: Iterable[Request]) -> Iterator[Taken]:
    """What is taken by `requests`. Who waits for another's change of a row takes no lock by that, so there is nothing to be seen."""
    for request in requests:
        if system.resources[request.resource].kind.name != "lock" or request.mode != SHARED:
            yield _taken(system, Hold(request.resource, request.mode))


def runs(compilation: Compilation, transaction: str, values: Mapping[str, Value]) -> Iterator[Run]:
    """Every way for `transaction` with the parameters `values` (others as they like) to run when nobody else is there.

    No request is refused then. At most MAX_RUNS.
    """
    system, machine = compilation.system, compilation.machine
    found: set[tuple[tuple[Taken, ...], frozenset[Taken]]] = set()
    pending = []
    for move in machine.moves(Config()):
        started = move.target.transaction
        env = dict(move.target.env)
        if started is not None and started.name == transaction and all(env.get(n) == v for n, v in values.items()):
            path = Path().started(system, move.requests)
            pending.append((compilation.locate(move.target), move.label, path))
    while pending and len(found) < MAX_RUNS:
        index, label, path = pending.pop()
        for edge in system.locations[index].edges:
            if edge.action in (ActionKind.COMMIT, ActionKind.ROLLBACK):
                if (path.taken, path.covered) not in found:
                    found.add((path.taken, path.covered))
                    yield Run(label, path.taken, path.covered)
            elif edge.action is not ActionKind.REFUSE:
                pending.append((edge.target, label, path.after(compilation, index, edge)))


def compare(possible: Sequence[Run], statements: Sequence[Observed]) -> Comparison:
    """The way of `possible` that `statements` follow, or else the closest one, with the differences."""
    statements = tuple(statements)
    visible = [visible_of(run, statements) for run in possible]
    for run, taken in zip(possible, visible, strict=True):
        if follows(taken, statements):
            return Comparison(run, statements, tuple(_woven(run, taken, _equal(taken, statements))))
    if not possible:
        return Comparison(None, statements, tuple(_differences((), statements)))
    observed = [lock for statement in statements for lock in sorted(statement.taken)]
    run, taken = max(zip(possible, visible, strict=True), key=lambda one: _common(one[1], observed))
    return Comparison(run, statements, tuple(_woven(run, taken, _differences(taken, statements))))


def visible_of(run: Run, statements: Sequence[Observed]) -> tuple[Taken, ...]:
    """What `run` takes without what is covered, by what was really seen too."""
    seen = frozenset[Taken]().union(*(statement.taken for statement in statements))
    hidden = {lock for lock in run.covered - seen if any(covers(other, lock) for other in seen)}
    return tuple(lock for lock in run.taken if lock not in hidden)


def follows(taken: tuple[Taken, ...], statements: Sequence[Observed]) -> bool:
    """Whether `taken`, cut into pieces, is what the statements took, one piece each."""
    at = 0
    for statement in statements:
        piece = taken[at : at + len(statement.taken)]
        if frozenset(piece) != statement.taken:
            return False
        at += len(statement.taken)
    return at == len(taken)


def _common(taken: tuple[Taken, ...], observed: Sequence[Taken]) -> tuple[float, int]:
    return SequenceMatcher(None, list(taken), list(observed), autojunk=False).ratio(), -len(taken)


def _woven(run: Run, visible: tuple[Taken, ...], lines: Iterable[Line]) -> Iterator[Line]:
    """`lines`, and what `run` has besides `visible`, each behind what it takes before."""
    behind: dict[Taken | None, list[Taken]] = {}
    last: Taken | None = None
    for lock in run.taken:
        if lock in visible:
            last = lock
        else:
            behind.setdefault(last, []).append(lock)
    yield from (Line(Relation.COVERED, lock, None) for lock in behind.get(None, ()))
    for line in lines:
        yield line
        if line.planned is not None:
            yield from (Line(Relation.COVERED, lock, None) for lock in behind.get(line.planned, ()))


def _numbered(statements: Sequence[Observed]) -> Iterator[tuple[int, Observed]]:
    for count, statement in enumerate(statements, start=1):
        yield count if statement.number is None else statement.number, statement


def _equal(taken: tuple[Taken, ...], statements: Sequence[Observed]) -> Iterator[Line]:
    at = 0
    for number, statement in _numbered(statements):
        for lock in taken[at : at + len(statement.taken)]:
            yield Line(Relation.EQUAL, lock, lock, number)
        at += len(statement.taken)


def _differences(taken: tuple[Taken, ...], statements: Sequence[Observed]) -> Iterator[Line]:
    """The two sequences aligned. Locks of one statement are first put in the order of the plan."""
    place = {lock: index for index, lock in enumerate(taken)}
    observed = [
        (lock, number)
        for number, statement in _numbered(statements)
        for lock in sorted(statement.taken, key=lambda lock: (place.get(lock, len(place)), lock))
    ]
    seen = {lock for lock, _ in observed}
    matcher = SequenceMatcher(None, list(taken), [lock for lock, _ in observed], autojunk=False)
    for tag, first, last, begin, end in matcher.get_opcodes():
        if tag == "equal":
            for lock, (_, number) in zip(taken[first:last], observed[begin:end], strict=True):
                yield Line(Relation.EQUAL, lock, lock, number)
            continue
        yield from _replaced(list(taken[first:last]), observed[begin:end], seen, set(taken))


def _replaced(
    planned: list[Taken], observed: list[tuple[Taken, int]], seen: set[Taken], plan: set[Taken]
) -> Iterator[Line]:
    """A stretch in which plan and reality differ: other modes are paired, the rest stands alone."""
    for lock, number in observed:
        partner = next((one for one in planned if one.resource == lock.resource and one.mode != lock.mode), None)
        if partner is not None:
            planned.remove(partner)
            yield Line(Relation.OTHER_MODE, partner, lock, number)
        else:
            yield Line(Relation.OTHER_ORDER if lock in plan else Relation.MISSING, None, lock, number)
    for lock in planned:
        yield Line(Relation.OTHER_ORDER if lock in seen else Relation.UNSEEN, lock, None)
