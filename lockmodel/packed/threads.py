"""How many threads the packed engines use."""

from __future__ import annotations

import os


def thread_count() -> int:
    """The processors that this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
