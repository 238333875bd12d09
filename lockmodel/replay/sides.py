"""Both sides of a replay at the step where they part: the locks of each worker as the model has them, and as Postgres showed them.

Pure: what Postgres showed comes as data. A lock is compared where the spec tells what its resource is in the database (`stands for`), or
where the statement is lockmodel's own; otherwise each side is listed in its own words.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import zip_longest

from lockmodel.explanation import view
from lockmodel.replay.comparison import ROW_MODES, Taken, of_one_row
from lockmodel.replay.observe import SeenLock
from lockmodel.replay.target import ORDINARY, Bindings
from lockmodel.semantics import Semantics, State


@dataclass(frozen=True)
class Foretold:
    """What the model says of one worker: its locks, and what it waits for, held by the workers `blockers`."""

    holds: frozenset[Taken] = frozenset()
    wants: Taken | None = None
    blockers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Seen:
    """What Postgres showed of one worker: its locks in the words of the spec, and who blocks it.

    `rows`: whether row locks could be looked at.
    """

    holds: frozenset[Taken] = frozenset()
    blockers: tuple[str, ...] = ()
    rows: bool = True


@dataclass(frozen=True)
class Observation:
    """What Postgres showed of one worker, in Postgres's own words."""

    locks: frozenset[SeenLock]
    blockers: tuple[str, ...]
    rows: bool


@dataclass(frozen=True)
class SideLine:
    """A lock, or a wait, on both sides; an empty text where a side has none."""

    model: str
    postgres: str
    differs: bool


@dataclass(frozen=True)
class WorkerSides:
    """One worker's locks and waits on both sides.

    `told`: whether the spec tells of all its resources what they are in the database; `rows`: whether row locks could be looked at.
    """

    worker: str
    lines: tuple[SideLine, ...]
    told: bool = True
    rows: bool = True


def foretell(semantics: Semantics, state: State, waiting: Collection[int]) -> tuple[Foretold, ...]:
    """What the model says of each worker in `state`, where those in `waiting` have sent the request that they stand at."""
    found = []
    for worker in view(semantics, state):
        holds = frozenset(Taken(lock.resource, lock.mode) for lock in worker.holds)
        if worker.wants is None or worker.worker not in waiting:
            found.append(Foretold(holds))
            continue
        blockers = tuple(semantics.crew.names[blocker.worker] for blocker in worker.blockers)
        found.append(Foretold(holds, Taken(worker.wants.resource, worker.wants.mode), blockers))
    return tuple(found)


def compare_sides(worker: str, model: Foretold, seen: Seen, told: Collection[str], *, complete: bool) -> WorkerSides:
    """`model` and `seen` line by line, equal ones beside each other.

    `told`: the resources that are known in the database; `complete`: whether these are all, so that whatever else is seen
    differs.
    """
    lines = [*_locks(model, seen, told, complete=complete), *_waits(model, seen)]
    if not lines:
        lines = [SideLine("holds nothing", "holds nothing", differs=False)]
    return WorkerSides(worker, tuple(lines), complete, seen.rows)


def _locks(model: Foretold, seen: Seen, told: Collection[str], *, complete: bool) -> Iterator[SideLine]:
    """The locks of both, then those that could be compared and differ, then those that could not."""
    for lock in sorted(model.holds & seen.holds):
        yield SideLine(f"holds {lock}", f"holds {lock}", differs=False)
    unseen, unplanned = sorted(model.holds - seen.holds), sorted(seen.holds - model.holds)
    absent = [lock for lock in unseen if _must_be_seen(lock, model, seen, told)]
    extra = [lock for lock in unplanned if complete or lock.resource in told]
    for lock in absent:
        yield SideLine(f"holds {lock}", "", differs=True)
    for lock in extra:
        yield SideLine("", f"holds {lock}", differs=True)
    left = [f"holds {lock}" for lock in unseen if lock not in absent]
    right = [f"holds {lock}" for lock in unplanned if lock not in extra]
    for planned, found in zip_longest(left, right, fillvalue=""):
        yield SideLine(planned, found, differs=False)


def _must_be_seen(lock: Taken, model: Foretold, seen: Seen, told: Collection[str]) -> bool:
    if lock.resource not in told or (lock.mode in ROW_MODES and not seen.rows):
        return False
    return not _absorbed(lock, model, seen)


def _absorbed(lock: Taken, model: Foretold, seen: Seen) -> bool:
    """Whether `lock`, of a row, is not seen since the same worker has the row in another mode too, as the model says.

    That is the strongest one, or, of a row that the worker has changed, the mode of the change: nobody sees what it does to the new version.
    """
    return any(of_one_row(other, lock) and other in model.holds and other != lock for other in seen.holds)


def _waits(model: Foretold, seen: Seen) -> Iterator[SideLine]:
    if model.wants is None and not seen.blockers:
        return
    planned = f"waits for {model.wants}, held by {' and '.join(model.blockers)}" if model.wants else "does not wait"
    found = f"waits for {' and '.join(seen.blockers)}" if seen.blockers else "does not wait"
    agrees = bool(model.wants) and bool(set(model.blockers) & set(seen.blockers))
    yield SideLine(planned, found, differs=not agrees)


def seen(observation: Observation, bindings: Bindings) -> Seen:
    """`observation` in the words of the spec, as far as it tells what its resources are."""
    with_rows = {lock.name for lock in observation.locks if lock.kind == "row"}
    holds = set()
    for lock in observation.locks:
        comes_with_rows = lock.kind == "table" and lock.name in with_rows and lock.mode in ORDINARY
        if comes_with_rows and not bindings.knows_table(lock.name):
            continue
        if (taken := bindings.taken(lock)) is not None:
            holds.add(taken)
    return Seen(frozenset(holds), observation.blockers, observation.rows)
