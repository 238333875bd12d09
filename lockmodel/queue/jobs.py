"""The nouns of the queue: what goes in (`Job`), what a worker holds (`Claim`), and what the operations answer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, overload

from lockmodel.errors import one_line
from lockmodel.queue.errors import JobError
from lockmodel.queue.stripes import check_queue_name

PRIORITY_DEFAULT = 100
_SMALLINT = range(-(2**15), 2**15)


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job to be done. Raises JobError for one that can't be stored.

    `queue` is the logical queue. Of the jobs in one stripe those with the smallest `priority` number go first, and those
    of one priority in the order they were enqueued. `payload` is anything that `json.dumps` takes.

    `unique_key` chooses the stripe and nothing else: jobs with the same key share a stripe, so that those of one priority
    are claimed in order. It does not deduplicate; two jobs with one key are two jobs.
    """

    queue: str
    payload: Any = None
    priority: int = PRIORITY_DEFAULT
    unique_key: str | bytes | None = None
    payload_text: str = field(init=False, repr=False, compare=False)
    """`payload` as JSON, written when the job is made: a later change of the payload changes nothing."""

    def __post_init__(self) -> None:
        check_queue_name(self.queue, JobError)
        if isinstance(self.priority, bool) or not isinstance(self.priority, int) or self.priority not in _SMALLINT:
            raise JobError(
                f"priority must be a whole number from -32768 to 32767, not {one_line(repr(self.priority), 60)}"
            )
        if self.unique_key is not None and not isinstance(self.unique_key, str | bytes):
            raise JobError(f"unique_key must be a string or bytes, not {type(self.unique_key).__name__}")
        try:
            text = json.dumps(self.payload, allow_nan=False, separators=(",", ":"))
        except (TypeError, ValueError, RecursionError) as error:
            raise JobError(f"the payload is no JSON: {error}") from None
        object.__setattr__(self, "payload_text", text)

    @property
    def key_bytes(self) -> bytes | None:
        """The unique key as it is stored and hashed."""
        return self.unique_key.encode("utf-8", "surrogatepass") if isinstance(self.unique_key, str) else self.unique_key


@dataclass(frozen=True)
class Claim:
    """One attempt at a job, and the handle to complete it, fail it or keep it alive with.

    `attempt` counts from 1 and goes up with each rescue; `run_lease` goes up with each claim of the job, for ever, so
    that whoever holds an older one can't touch the job any more.
    """

    job_id: int
    run_lease: int
    claim_slot: int
    queue: str
    """The physical queue; `lockmodel.queue.logical_name` has the logical one."""
    priority: int
    lane_seq: int
    attempt: int
    payload: Any = field(compare=False)
    unique_key: bytes | None
    enqueued_at: datetime
    deadline_at: datetime | None


@dataclass(frozen=True)
class ClaimedBatch(Sequence[Claim]):
    """What a claim has claimed, in order.

    `error` is what stopped it after some stripes had been claimed from; these claims are good nevertheless. A batch that
    is shorter than asked for does not mean that nothing is left: a lane that another claimer holds is passed over.
    """

    claims: tuple[Claim, ...] = ()
    error: Exception | None = None

    def __len__(self) -> int:
        return len(self.claims)

    def __iter__(self) -> Iterator[Claim]:
        return iter(self.claims)

    @overload
    def __getitem__(self, index: int) -> Claim: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Claim, ...]: ...
    def __getitem__(self, index: int | slice) -> Claim | tuple[Claim, ...]:
        return self.claims[index]


@dataclass(frozen=True)
class Rescued:
    """The jobs that a rescue took from their workers, by what became of them: ids in ascending order."""

    ready: tuple[int, ...] = ()
    deferred: tuple[int, ...] = ()
    failed: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.ready) + len(self.deferred) + len(self.failed)


@dataclass(frozen=True)
class Counts:
    """How many jobs of a logical queue are in each state; done, failed and cancelled ones whether pruned or not."""

    ready: int = 0
    running: int = 0
    deferred: int = 0
    done: int = 0
    failed: int = 0
    cancelled: int = 0


class Ring(StrEnum):
    """The three rings of partitions."""

    QUEUE = "queue"
    """ready_entries and done_entries"""
    LEASE = "lease"
    """leases"""
    CLAIM = "claim"
    """lease_claims and lease_claim_closures"""


@dataclass(frozen=True)
class Rotation:
    """Whether a ring has moved on to `slot`; if not, there is still something in that slot."""

    ring: Ring
    slot: int
    rotated: bool


class PruneOutcome(StrEnum):
    """What became of an attempt to empty a ring's oldest slot."""

    PRUNED = "pruned"
    EMPTY = "empty"
    """There is no slot but the current one, or the oldest is empty as it is."""
    LIVE = "live"
    """Something in it is still needed."""
    BLOCKED = "blocked"
    """Others used it for all of 50 ms."""


@dataclass(frozen=True)
class Pruning:
    """What became of pruning `ring`; `slot` is its oldest, `live` how many rows there are still needed."""

    ring: Ring
    outcome: PruneOutcome
    slot: int | None = None
    live: int = 0


@dataclass(frozen=True)
class Maintenance:
    """What one round of maintenance has done."""

    stale: Rescued
    expired: Rescued
    promoted: tuple[int, ...]
    prunings: tuple[Pruning, ...]
    rotations: tuple[Rotation, ...]
