"""Planned and observed locks of one transaction, side by side. Pure: what was observed comes as data.

A transaction of the spec can run in several ways (parameters, branches, orders). What a real one was seen to lock conforms if one of
these ways takes the same locks in the same order, where the locks of one statement have no order among themselves. If none
does, the way that has most in common is shown, with what differs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from enum import StrEnum

from lockmodel.compiler import Compilation
from lockmodel.expressions import Value
from lockmodel.machine import Config
from lockmodel.modes import SHARED
from lockmodel.system import ActionKind, Edge, Hold, System

MAX_RUNS = 20_000


@dataclass(frozen=True, order=True)
class Taken:
    """A lock taken: the resource by its name in the spec (or, if the spec has none for it, Postgres's), and the mode."""

    resource: str
    mode: str

    def __str__(self) -> str:
        return f"{self.resource} {self.mode}"


@dataclass(frozen=True)
class Run:
    """One way for a transaction to run alone: `label` names its parameters, `taken` the locks in order, each once."""

    label: str
    taken: tuple[Taken, ...]


@dataclass(frozen=True)
class Observed:
    """One statement of a real transaction, and the locks that it held more after it than before."""

    statement: str
    taken: frozenset[Taken]


class Relation(StrEnum):
    EQUAL = "equal"
    MISSING = "missing in the model"
    UNSEEN = "not seen in reality"
    OTHER_MODE = "other mode"
    OTHER_ORDER = "other order"


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
        return self.run is not None and all(line.relation is Relation.EQUAL for line in self.lines)


def runs(compilation: Compilation, transaction: str, values: Mapping[str, Value]) -> Iterator[Run]:
    """Every way for `transaction` with the parameters `values` (others as they like) to run when nobody else is there.

    No request is refused then. At most MAX_RUNS.
    """
    system, machine = compilation.system, compilation.machine
    found: set[tuple[Taken, ...]] = set()
    pending = []
    for move in machine.moves(Config()):
        started = move.target.transaction
        env = dict(move.target.env)
        if started is not None and started.name == transaction and all(env.get(n) == v for n, v in values.items()):
            taken = add((), system, [(request.resource, request.mode) for request in move.requests])
            pending.append((compilation.locate(move.target), move.label, taken))
    while pending and len(found) < MAX_RUNS:
        index, label, taken = pending.pop()
        for edge in system.locations[index].edges:
            if edge.action in (ActionKind.COMMIT, ActionKind.ROLLBACK):
                if taken not in found:
                    found.add(taken)
                    yield Run(label, taken)
            elif edge.action is not ActionKind.REFUSE:
                pending.append((edge.target, label, after(taken, system, index, edge)))


def after(taken: tuple[Taken, ...], system: System, source: int, edge: Edge) -> tuple[Taken, ...]:
    """`taken`, and what `edge`, which leads on from the location `source`, takes; without what is given back as its statement ends.

    What is taken for the statement alone can't be seen when it has ended.
    """
    if edge.action is not ActionKind.ACQUIRE:
        return taken
    wanted = {Hold(request.resource, request.mode) for request in edge.requests}
    lost = wanted.union(system.locations[source].held) - set(system.locations[edge.target].held)
    gone = {Taken(system.resources[hold.resource].name, hold.mode) for hold in lost}
    kept = [(request.resource, request.mode) for request in edge.requests]
    return tuple(one for one in add(taken, system, kept) if one not in gone)


def add(taken: tuple[Taken, ...], system: System, locks: Sequence[tuple[int, str]]) -> tuple[Taken, ...]:
    """`taken` and `locks` (the resource's number, the mode), each lock once and in order."""
    new = (
        Taken(system.resources[resource].name, mode)
        for resource, mode in locks
        # Who waits for another's change of a row takes no lock by that, so there is nothing to be seen.
        if not (system.resources[resource].kind.name == "lock" and mode == SHARED)
    )
    return tuple(dict.fromkeys((*taken, *new)))


def compare(possible: Sequence[Run], statements: Sequence[Observed]) -> Comparison:
    """The way of `possible` that `statements` follow, or else the closest one, with the differences."""
    statements = tuple(statements)
    following = next((run for run in possible if follows(run.taken, statements)), None)
    if following is not None:
        return Comparison(following, statements, tuple(_equal(following, statements)))
    if not possible:
        return Comparison(None, statements, tuple(_differences((), statements)))
    observed = [lock for statement in statements for lock in sorted(statement.taken)]
    closest = max(possible, key=lambda run: _common(run.taken, observed))
    return Comparison(closest, statements, tuple(_differences(closest.taken, statements)))


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


def _equal(run: Run, statements: Sequence[Observed]) -> Iterator[Line]:
    at = 0
    for number, statement in enumerate(statements, start=1):
        for lock in run.taken[at : at + len(statement.taken)]:
            yield Line(Relation.EQUAL, lock, lock, number)
        at += len(statement.taken)


def _differences(taken: tuple[Taken, ...], statements: Sequence[Observed]) -> Iterator[Line]:
    """The two sequences aligned. Locks of one statement are first put in the order of the plan."""
    place = {lock: index for index, lock in enumerate(taken)}
    observed = [
        (lock, number)
        for number, statement in enumerate(statements, start=1)
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
