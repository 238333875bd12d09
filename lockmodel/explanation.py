"""Who holds what and who waits for whom, as data. `lockmodel.report` turns it into words and pictures."""

from __future__ import annotations

from dataclasses import dataclass

from lockmodel.semantics import Semantics, State
from lockmodel.system import ActionKind, Status, System
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


@dataclass(frozen=True)
class StepView:
    """One transition of a trace in words."""

    number: int
    worker: int
    action: ActionKind
    text: str


@dataclass(frozen=True)
class TraceView:
    """A whole trace: its steps, the workers in the last state, and the cycle in it (worker numbers, each waiting for the next)."""

    workers: tuple[str, ...]
    steps: tuple[StepView, ...]
    final: tuple[WorkerView, ...]
    cycle: tuple[int, ...]

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
    return TraceView(trace.crew.names, steps, final, find_cycle(final))


def view(semantics: Semantics, state: State) -> tuple[WorkerView, ...]:
    """Every worker in `state`."""
    waiting = semantics.waiting(state)
    stuck = semantics.stuck(state, waiting)
    return tuple(
        _worker(semantics, state, worker, waiting.get(worker), worker in stuck) for worker in range(len(semantics.crew))
    )


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
