"""What can go wrong with a queue by its user's doing, each one line; what Postgres itself refuses stays a `psycopg.Error`."""

from __future__ import annotations

from lockmodel.errors import LockmodelError, one_line


class QueueError(LockmodelError):
    """Base of the queue's own errors; `str()` is the one line to show."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class SettingsError(QueueError, ValueError):
    """A setting, a schema or an argument of an operation that has no meaning."""


class JobError(QueueError, ValueError):
    """A job that can't be enqueued: nothing of its batch has been."""


class InstallationError(QueueError):
    """The schema holds no queue, another layout of one, or somebody else's tables."""
