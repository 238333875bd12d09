"""Who holds what and who waits for whom, as data. `lockmodel.report` turns it into words and pictures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from lockmodel.semantics import Semantics, State
from lockmodel.system import ActionKind, Hold, Request, Status, System
from lockmodel.trace import Trace


@dataclass(frozen=True)
class Lock:
    """A lock in words: `lane[0]`, `FOR UPDATE`."""

    resource: str
    mode: str

    def __str__(self) -> str:
        return f"{self.resource} {self.mode}"


@dataclass(frozen=True)
class Blocker:
    """A worker in the way of a request, and the conflicting locks that it holds."""

    worker: int
    locks: tuple[Lock, ...]


@dataclass(frozen=True)
class WorkerView:
    """One worker in one state."""

    worker: int
    name: str
    role: str
    status: Status
    transaction: str | None
    holds: tuple[Lock, ...]
    wants: Lock | None
    """The lock that it waits for; None if it does not wait."""
    blockers: tuple[Blocker, ...]
    stuck: bool
    """Whether it can never go on."""
    behind: tuple[Blocker, ...] = ()
    """For one that waits only because of a queue: who is ahead, and what those wait for."""


@dataclass(frozen=True)
class StepView:
    """One transition of a trace in words."""

    number: int
    worker: int
    action: ActionKind
    text: str


class Ends(StrEnum):
    """What ends a stall."""

    HOLDER = "holder"
    """The end of the holder's transaction, and nothing before it."""
    REARRANGED = "rearranged"
    """After deadlock_timeout Postgres lets those past who are held up, since the holder waits for one of them."""


@dataclass(frozen=True)
class StallView:
    """Workers that wait only because of the queue of `resource`: `delayed` behind `waiter`, which waits for `holders`.

    `transactions`: those that can be held up so; `most`: how many workers at the same time, None: any number.
    """

    resource: str
    delayed: tuple[int, ...]
    waiter: int
    holders: tuple[int, ...]
    transactions: tuple[str, ...]
    most: int | None
    ends: Ends

    @property
    def convoy(self) -> bool:
        """Whether more than one worker can be held up."""
        return self.most is None or self.most > 1


@dataclass(frozen=True)
class TraceView:
    """A whole trace: its steps, the workers in the last state, and the cycle in it (worker numbers, each waiting for the next)."""

    workers: tuple[str, ...]
    steps: tuple[StepView, ...]
    final: tuple[WorkerView, ...]
    cycle: tuple[int, ...]
    stall: StallView | None = None

    @property
    def cycle_transactions(self) -> tuple[str, ...]:
        """The transactions of the cycle's members, in its order."""
        return tuple(self.final[worker].transaction or "" for worker in self.cycle)


def explain(system: System, trace: Trace) -> TraceView:
    """The trace and its last state, in words."""
    semantics = Semantics(system, trace.crew)
    steps = tuple(
        StepView(number, action.worker, action.edge.action, step_text(action.edge.action, action.edge.label))
        for number, action in enumerate(trace.actions, start=1)
    )
    final = view(semantics, trace.last)
    return TraceView(trace.crew.names, steps, final, find_cycle(final), stall_in(semantics, trace.last))


def view(semantics: Semantics, state: State) -> tuple[WorkerView, ...]:
    """Every worker in `state`."""
    waiting = semantics.waiting(state)
    stuck = semantics.stuck(state, waiting)
    delayed = semantics.delayed(state) if semantics.system.no_stall else {}
    found = []
    for worker in range(len(semantics.crew)):
        seen = _worker(semantics, state, worker, waiting.get(worker), worker in stuck)
        if ahead := delayed.get(worker):
            seen = replace(seen, wants=_wanted(semantics, state, worker), behind=_ahead(semantics, state, ahead))
        found.append(seen)
    return tuple(found)


def _wanted(semantics: Semantics, state: State, worker: int) -> Lock:
    request = semantics.location(state, worker).request
    assert request is not None
    return Lock(semantics.system.resources[request.resource].name, request.mode)


def _ahead(semantics: Semantics, state: State, workers: Sequence[int]) -> tuple[Blocker, ...]:
    return tuple(Blocker(other, (_wanted(semantics, state, other),)) for other in workers)


def stall_in(semantics: Semantics, state: State) -> StallView | None:
    """The stall in `state`, of those who wait behind the first that holds somebody up."""
    delayed = semantics.delayed(state) if semantics.system.no_stall else {}
    if not delayed or semantics.stuck(state):
        return None
    system, waiting = semantics.system, semantics.waiting(state)
    waiter = min(ahead[0] for ahead in delayed.values())
    held_up = tuple(worker for worker, ahead in delayed.items() if waiter in ahead)
    request = semantics.location(state, waiter).request
    assert request is not None
    busy = {waiter, *waiting[waiter]}
    transactions = tuple(
        transaction
        for transaction in dict.fromkeys(_held_up(semantics, state, waiter, waiting[waiter]))
        if _most(semantics, [transaction], busy) != 0
    )
    return StallView(
        system.resources[request.resource].name,
        held_up,
        waiter,
        tuple(waiting[waiter]),
        transactions,
        _most(semantics, transactions, busy),
        Ends.REARRANGED if _waits_for(waiting, waiting[waiter], held_up) else Ends.HOLDER,
    )


def _held_up(semantics: Semantics, state: State, waiter: int, holders: Sequence[int]) -> Iterator[str]:
    """The transactions that can come to stand behind `waiter`, with locks that fit to those of the others."""
    system = semantics.system
    here = [hold for worker in (waiter, *holders) for hold in semantics.location(state, worker).held]
    earlier = semantics.location(state, waiter).request
    assert earlier is not None
    for location in system.locations:
        later = location.request
        if later is None or later.resource != earlier.resource or not later.queues or not location.transaction:
            continue
        fits = not any(
            system.conflicts(hold, Request(other.resource, other.mode)) for hold in here for other in location.held
        )
        free = not any(system.conflicts(hold, later) for hold in here)
        jumps = any(system.conflicts(hold, earlier) for hold in location.held)
        if fits and free and not jumps and system.conflicts(Hold(earlier.resource, earlier.mode), later):
            yield location.transaction


def _most(semantics: Semantics, transactions: Sequence[str], busy: set[int]) -> int | None:
    """How many workers can be held up, besides those that are `busy`; None: any number."""
    roles = [role for role in semantics.system.roles if set(role.transactions) & set(transactions)]
    if any(role.count is None for role in roles):
        return None
    names = {role.name for role in roles}
    return sum(role in names for worker, role in enumerate(semantics.crew.roles) if worker not in busy)


def _waits_for(waiting: Mapping[int, Sequence[int]], holders: Iterable[int], delayed: Iterable[int]) -> bool:
    """Whether one of the holders waits, if through others, for one of those who are held up."""
    seen = set(holders)
    pending = list(seen)
    while pending:
        new = [other for other in waiting.get(pending.pop(), ()) if other not in seen]
        seen.update(new)
        pending += new
    return bool(seen & set(delayed))


def find_cycle(workers: tuple[WorkerView, ...]) -> tuple[int, ...]:
    """A shortest cycle of stuck workers, each waiting for the next and the last for the first; empty if none is stuck."""
    waits = {w.worker: [b.worker for b in w.blockers if workers[b.worker].stuck] for w in workers if w.stuck}
    # Of a pool's units a worker may hold some itself; it waits for itself only if nobody else has any.
    waits = {worker: [other for other in others if other != worker] or others for worker, others in waits.items()}
    cycles = [cycle for start in waits if (cycle := _shortest_way_back(waits, start))]
    return min(cycles, key=len, default=())


def _shortest_way_back(waits: dict[int, list[int]], start: int) -> tuple[int, ...]:
    paths: list[tuple[int, ...]] = [(start,)]
    seen: set[int] = set()
    for path in paths:
        for following in waits[path[-1]]:
            if following == start:
                return path
            if following not in seen:
                seen.add(following)
                paths.append((*path, following))
    return ()


def _worker(semantics: Semantics, state: State, worker: int, blockers: list[int] | None, stuck: bool) -> WorkerView:
    location = semantics.location(state, worker)
    resources = semantics.system.resources
    request = location.request if blockers else None
    found: tuple[Blocker, ...] = ()
    if request is not None and blockers:
        pool = resources[request.resource].capacity is not None
        found = tuple(
            Blocker(
                other,
                tuple(
                    Lock(resources[hold.resource].name, hold.mode)
                    for hold in semantics.location(state, other).held
                    if (hold.resource == request.resource if pool else semantics.system.conflicts(hold, request))
                ),
            )
            for other in blockers
        )
    return WorkerView(
        worker=worker,
        name=semantics.crew.names[worker],
        role=semantics.crew.roles[worker],
        status=location.status,
        transaction=location.transaction,
        holds=tuple(Lock(resources[hold.resource].name, hold.mode) for hold in location.held),
        wants=Lock(resources[request.resource].name, request.mode) if request else None,
        blockers=found,
        stuck=stuck,
    )


def step_text(action: ActionKind, label: str) -> str:
    """A transition in the words of schedules: `start claim (s=1)`, `lane[1] FOR UPDATE`, `commit`."""
    match action:
        case ActionKind.START:
            return f"start {label}"
        case ActionKind.REFUSE:
            return f"{label}: refused"
        case ActionKind.COMMIT | ActionKind.ROLLBACK | ActionKind.RECYCLE:
            return str(action)
        case _:
            return label
