"""What a replay or a controlled schedule may have left on a server."""

from __future__ import annotations

import time

import psycopg

SETTLING_SECONDS = 10.0
"""How long a backend may take to see that its client has closed the connection."""


def leftovers(dsn: str) -> list[object]:
    """Schemas, sessions and advisory locks that are there now."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        return [
            *connection.execute("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'lockmodel%'").fetchall(),
            *connection.execute(
                "SELECT application_name FROM pg_stat_activity WHERE application_name LIKE 'lockmodel%'"
            ),
            *connection.execute("SELECT classid, objid FROM pg_locks WHERE locktype = 'advisory'").fetchall(),
        ]


def remains(dsn: str) -> list[object]:
    """What is still there once the backends of closed connections have had the time to end.

    Closing a connection doesn't wait for its backend, so a session that was closed a moment ago may still be listed.
    """
    end = time.monotonic() + SETTLING_SECONDS
    while (left := leftovers(dsn)) and time.monotonic() < end:
        time.sleep(0.02)
    return left
