"""How a queue is laid out and how patient it is, checked when it is said and not when it first matters."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from enum import StrEnum

from lockmodel.errors import one_line
from lockmodel.queue.errors import SettingsError


class ClaimStrategy(StrEnum):
    """How many stripes one transaction of a claim visits."""

    PER_STRIPE = "per_stripe"
    """One transaction for each stripe: no transaction ever holds the lanes of two."""
    ALL_STRIPES = "all_stripes"
    """One transaction over all of them, as it was historically: it deadlocks with enqueue. Kept to show just that."""


_LEAST = {
    "stripes": 1,
    "queue_slots": 4,
    "lease_slots": 2,
    "claim_slots": 2,
    "enqueue_batch_max": 1,
    "claim_batch": 1,
    "rescue_batch": 1,
    "promote_batch": 1,
    "attempts_max": 1,
}
INTEGER_MAX = 2**31 - 1
BIGINT_MAX = 2**63 - 1
SECONDS_MAX = 100 * 366 * 86_400.0


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What one `StripedQueue` goes by. Raises SettingsError, one line that says which value is wrong and what would be right.

    The slot counts are fixed by `install`. Everything else may differ between processes that share a queue, but for
    `stripes`: jobs of a stripe that no claimer visits wait for ever, so let a queue run empty before taking stripes away.
    """

    stripes: int = 1
    """Physical queues for each logical one."""
    queue_slots: int = 16
    """Partitions of ready_entries and done_entries; at least 4."""
    lease_slots: int = 8
    """Partitions of leases; at least 2."""
    claim_slots: int = 8
    """Partitions of lease_claims and lease_claim_closures; at least 2."""
    claim_strategy: ClaimStrategy = ClaimStrategy.PER_STRIPE
    enqueue_batch_max: int = 10_000
    """The most jobs that one `enqueue` takes, which is one transaction."""
    claim_batch: int = 64
    """How many jobs `claim` asks for when it isn't told."""
    rescue_batch: int = 500
    """The most claims that one rescue takes, which is one transaction."""
    promote_batch: int = 500
    """The most deferred jobs that one `promote` makes ready, which is one transaction."""
    heartbeat_timeout_s: float = 60.0
    """A claim is stale when neither it nor its last heartbeat is younger than this."""
    deadline_s: float | None = None
    """How long a claim may run at all, heartbeats or not; None: as long as it likes."""
    rescue_delay_s: float = 0.0
    """How long a rescued job is deferred; 0: it is ready at once."""
    attempts_max: int | None = None
    """A rescue fails a job that has been attempted this often; None: it is tried for ever."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in _LEAST:
                if value is not None or field.name != "attempts_max":
                    check_count(field.name, value, _LEAST[field.name])
            elif field.name.endswith("_s"):
                if value is not None or field.name != "deadline_s":
                    check_seconds(field.name, value, zero=field.name == "rescue_delay_s")
        try:
            strategy = ClaimStrategy(self.claim_strategy)
        except ValueError:
            known = " or ".join(repr(strategy.value) for strategy in ClaimStrategy)
            raise SettingsError(f"claim_strategy must be {known}, not {_shown(self.claim_strategy)}") from None
        object.__setattr__(self, "claim_strategy", strategy)


def check_count(name: str, value: object, least: int, most: int = INTEGER_MAX) -> int:
    """`value` if it is a whole number from `least` to `most`, Postgres's own limit. Raises SettingsError."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise SettingsError(f"{name} must be a whole number of at least {least}, not {_shown(value)}")
    return value


def check_seconds(name: str, value: object, *, zero: bool) -> float:
    """`value` if it is a number of seconds above zero (`zero`: or zero itself). Raises SettingsError."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        if 0 < value <= SECONDS_MAX or (value == 0 and zero):
            return float(value)
    least = "of at least 0" if zero else "above 0"
    raise SettingsError(f"{name} must be a number of seconds {least} (and below a century), not {_shown(value)}")


def _shown(value: object) -> str:
    """The value, with its type where that is not plain to see."""
    text = one_line(repr(value), 60)
    return text if value is None or isinstance(value, str) else f"{text} ({type(value).__name__})"
