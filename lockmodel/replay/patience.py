"""How long the driver waits for Postgres, and who of a deadlock looks for it first."""

from __future__ import annotations

STEP_SECONDS = 15.0
"""How long a statement may take before a replay gives up on it. Statements take milliseconds, so this is for a machine under load."""
VICTIM_TIMEOUT_MS = 300.0
"""The deadlock_timeout of the worker that closes the cycle, and is aborted: long enough to be seen waiting first."""
OTHERS_TIMEOUT = "1h"
"""The deadlock_timeout of the others, who are not to look for deadlocks."""
