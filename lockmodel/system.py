"""The compiled form of a spec: what engines explore. It knows nothing of YAML.

A worker is always at one *location*. A location knows the locks held there and, where the worker waits for one, the
request; *edges* lead from a location to the next. A global state is the location of each worker and the valuation of
the shared variables, so that everything an engine needs to know of a state is a look-up by small integers.

The contract of an engine is three things: `System.initial`, `System.starts` / `Location.edges`, and the meaning of `Edge`
(when it is enabled, what it does). `reference.py` is that meaning in plain code.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from lockmodel.errors import Position
from lockmodel.expressions import Expression, Value
from lockmodel.modes import Kind, Wait

NO_DEADLOCK = "no deadlock"
NO_GLOBAL_STALL = "no global stall"
NO_STALL = "no stall"


class Status(StrEnum):
    IDLE = "idle"
    RUNNING = "running"
    COMMITTED = "committed"
    ABORTED = "aborted"


class ActionKind(StrEnum):
    """What a transition does."""

    START = "start"
    ACQUIRE = "acquire"
    REFUSE = "refuse"
    """A NOWAIT, SKIP LOCKED or TRY request that would wait, and goes on without the lock."""
    TEST = "if"
    SET = "set"
    SAVEPOINT = "savepoint"
    ROLLBACK_TO = "rollback to"
    RELEASE = "release"
    COMMIT = "commit"
    ROLLBACK = "rollback"
    RECYCLE = "recycle"


@dataclass(frozen=True)
class Resource:
    """One lockable thing, such as `lane[0]`. `family` is its name without arguments; `capacity` is a pool's size."""

    name: str
    family: str
    arguments: tuple[Value, ...]
    kind: Kind
    capacity: int | None = None
    session: bool = False


@dataclass(frozen=True)
class Hold:
    """A lock as a location has it: the resource's index and the mode."""

    resource: int
    mode: str


@dataclass(frozen=True)
class Request:
    """A lock wanted: the resource's index, the mode, and what happens if it is not free."""

    resource: int
    mode: str
    wait: Wait = Wait.BLOCK
    bounded: bool = False
    """Whether a wait ends by itself in the end, by a lock_timeout that is not shorter than deadlock_timeout."""
    kept: bool = True
    """Whether the lock is taken in the end; if not, the worker waits for those who hold it, and does not stand in its queue."""

    @property
    def queues(self) -> bool:
        """Whether it stands in the queue, if the resource has one."""
        return self.wait.queues and self.kept

    @property
    def endless(self) -> bool:
        """Whether it waits as long as somebody is in the way."""
        return self.wait is Wait.BLOCK and not self.bounded


@dataclass(frozen=True)
class Edge:
    """One way on from a location.

    It is enabled when `guard` allows the valuation and, for ACQUIRE and START, every request in `requests` is free of
    other workers' conflicting locks; for REFUSE, when its one request is not. Taking it moves the worker to `target` and the shared
    variables to `update[valuation]`.
    """

    action: ActionKind
    target: int
    requests: tuple[Request, ...] = ()
    guard: frozenset[int] | None = None
    """The valuations in which the edge is enabled; None: in all."""
    update: tuple[int, ...] | None = None
    """The valuation after the step, by the valuation before it; None: unchanged."""
    faults: Mapping[int, str] = field(default_factory=dict, hash=False)
    """Valuations in which the step has no meaning (a value outside its domain), and why. Reaching one is a SpecError."""
    transaction: str | None = None
    """For START: the transaction that starts."""
    label: str = ""
    """The step as a person would say it, such as `lane[1] FOR UPDATE`."""
    position: Position | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Location:
    """Where a worker can be. All edges that wait ask for the same one request, `request`."""

    index: int
    status: Status
    transaction: str | None
    held: tuple[Hold, ...]
    """In the order in which they were taken; session locks that outlived their transaction come first."""
    request: Request | None
    """The lock that the worker asks for here, if its next step is a lock."""
    edges: tuple[Edge, ...]
    local: Mapping[str, Value] = field(default_factory=dict, hash=False)
    """The parameters and local variables, as far as a formula observes them."""

    @property
    def waits(self) -> bool:
        """Whether a worker can be stuck here: its request has no way round a lock that is not free."""
        return self.request is not None and self.request.wait is Wait.BLOCK


@dataclass(frozen=True)
class Role:
    """`count` workers that run `transactions`; a count of None means any number."""

    name: str
    count: int | None
    transactions: tuple[str, ...]


@dataclass(frozen=True)
class Property:
    """A formula that must be false in every reachable state (`never`) or true in every one (`always`).

    `lockmodel.properties` evaluates it.
    """

    name: str
    always: bool
    expression: Expression
    position: Position | None = field(default=None, compare=False)


@dataclass(frozen=True)
class System:
    """A compiled spec. Location 0 is idle with nothing held."""

    name: str
    resources: tuple[Resource, ...]
    locations: tuple[Location, ...]
    variables: tuple[str, ...]
    valuations: tuple[tuple[Value, ...], ...]
    """Every combination of values of `variables`; a state holds an index into this."""
    initial_valuation: int
    roles: tuple[Role, ...]
    properties: tuple[Property, ...] = ()
    no_global_stall: bool = False
    """Whether a state in which some worker runs and all running ones wait is a violation."""
    no_stall: bool = False
    """Whether a state in which a worker only waits because of the queue, behind one that waits without end, is a violation."""
    sets: Mapping[str, tuple[Value, ...]] = field(default_factory=dict, hash=False)

    def distances(self) -> dict[int, int]:
        """For each location, how many transitions it is from idle, whatever guards and other workers say."""
        distances = {0: 0}
        pending = deque([0])
        while pending:
            here = pending.popleft()
            for edge in self.locations[here].edges:
                if edge.target not in distances:
                    distances[edge.target] = distances[here] + 1
                    pending.append(edge.target)
        return distances

    def conflicts(self, hold: Hold, request: Request) -> bool:
        """Whether another worker's `hold` makes `request` wait. Never so for pools, which are counted."""
        return hold.resource == request.resource and self.resources[hold.resource].kind.conflict(
            hold.mode, request.mode
        )
