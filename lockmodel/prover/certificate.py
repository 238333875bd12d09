"""Why no number of workers can deadlock, as data. `lockmodel.report.grounds` says it in sentences."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from lockmodel.prover.order import Order


class Harmless(StrEnum):
    """Why waiting for a lock while holding another one that comes later in the order can't be part of a circle of waits."""

    WAITERS_HOLD_NOTHING = "waiters hold nothing"
    """Whoever waits for the held lock holds nothing, so nobody waits for them."""
    BLOCKERS_GO_ON = "blockers go on"
    """Whoever holds the wanted lock in a conflicting mode waits for nothing any more."""
    KEPT_APART = "kept apart"
    """Whoever could be in the way can't hold its locks at the same time: `names` are the locks, or the role of one worker, that exclude it."""
    NO_WAY_BACK = "no way back"
    """It can wait and be waited for, but no chain of waits leads back to it; `names` are the transactions that wait for its lock."""


@dataclass(frozen=True)
class OutOfOrder:
    """Transactions that wait for a lock of family `wanted` while they hold one of `held`, which the order has later; and why it is harmless."""

    held: str
    wanted: str
    transactions: tuple[str, ...]
    why: Harmless
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Exclusion:
    """A lock that keeps the `transactions` from being where they would wait in a circle: they hold it in conflicting modes there.

    `cases`: in how many beginnings of circles.
    """

    lock: str
    transactions: tuple[str, ...]
    cases: int


@dataclass(frozen=True)
class Certificate:
    """Why no number of workers can deadlock.

    `order`: whoever waits for a lock holds only earlier ones, but for `out_of_order`; None if no order says so, and it is the locks held
    together that exclude each circle. `relevant_only`: requests that never have to wait, and held locks that nobody waits for, are left
    out of it.
    `requests` and `waits`: the situations in which a worker asks for a lock while it holds others, and the pairs of them in which one
    may wait for the other.
    `every_size`: whether the proof is for every size of the sets, but for those in `as_declared`.
    `single_roles`: the roles that may have only one worker, as the spec says, for the proof to hold.
    `refuted`: what excludes the circles of waits that were looked at, the most frequent first; empty if there are no circles at all.
    `covers_stall`: whether there can be no global stall either, since every lock is given back at the end of its transaction.
    """

    order: Order | None
    requests: int
    waits: int
    out_of_order: tuple[OutOfOrder, ...] = ()
    relevant_only: bool = False
    every_size: bool = False
    as_declared: tuple[str, ...] = ()
    single_roles: tuple[str, ...] = ()
    refuted: tuple[Exclusion, ...] = ()
    covers_stall: bool = True

    @property
    def workers(self) -> str:
        """For which workers it holds: `any number of workers`, with the roles of one worker that it needs."""
        singles = ", ".join(f"1 {role}" for role in self.single_roles)
        return f"any number of workers, but {singles}" if singles else "any number of workers"
