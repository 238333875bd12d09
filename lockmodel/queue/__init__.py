"""A striped job queue in Postgres, whose transactions are what lockmodel's models of queues are models of.

    from psycopg_pool import AsyncConnectionPool
    from lockmodel.queue import Job, Settings, StripedQueue

    pool = AsyncConnectionPool("dbname=app", open=False)
    queue = StripedQueue(pool.connection, schema="jobs", settings=Settings(stripes=2))
    await queue.install()
    await queue.enqueue([Job(queue="mail", payload={"to": "a@example.org"})])
    batch = await queue.claim("mail", 8)
    await queue.complete(batch)

A logical queue is N physical ones, its stripes, so that N claimers work side by side. Which locks each operation takes, and in which order,
stands at the head of the module that does it; `ClaimStrategy.ALL_STRIPES` keeps the historical claim, which deadlocks with enqueue.
"""

from __future__ import annotations

from lockmodel.queue.errors import InstallationError, JobError, QueueError, SettingsError
from lockmodel.queue.jobs import (
    PRIORITY_DEFAULT,
    Claim,
    ClaimedBatch,
    Counts,
    Job,
    Maintenance,
    PruneOutcome,
    Pruning,
    Rescued,
    Ring,
    Rotation,
)
from lockmodel.queue.settings import ClaimStrategy, Settings
from lockmodel.queue.striped import SCHEMA_DEFAULT, StripedQueue
from lockmodel.queue.stripes import choose_stripe, logical_name, physical_name

__all__ = [
    "PRIORITY_DEFAULT",
    "SCHEMA_DEFAULT",
    "Claim",
    "ClaimStrategy",
    "ClaimedBatch",
    "Counts",
    "InstallationError",
    "Job",
    "JobError",
    "Maintenance",
    "PruneOutcome",
    "Pruning",
    "QueueError",
    "Rescued",
    "Ring",
    "Rotation",
    "Settings",
    "SettingsError",
    "StripedQueue",
    "choose_stripe",
    "logical_name",
    "physical_name",
]
