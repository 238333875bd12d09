"""When a search gives up: its states, its time, its memory."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from lockmodel.exploration import Limits

_LOOK_AT_MEMORY_SECONDS = 0.05


class Budget:
    """Says when `limits` are used up; the clock starts now."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._started = time.monotonic()
        self._looked = self._started
        self.memory_bytes = limits.memory_bytes or machine_memory_bytes() // 2

    def exceeded(self, states: int) -> str | None:
        """Why the search has to stop now, or None."""
        most = self._limits.max_states
        if most is not None and states > most:
            return f"reached the limit of {most:,} states"
        now = time.monotonic()
        timeout = self._limits.timeout_seconds
        if timeout is not None and now - self._started + self._limits.spent_seconds > timeout:
            return f"reached the time limit of {timeout:g} s"
        if now - self._looked > _LOOK_AT_MEMORY_SECONDS:
            self._looked = now
            if resident_bytes() > self.memory_bytes:
                return self.out_of_memory
        return None

    @property
    def out_of_memory(self) -> str:
        return f"reached the memory limit of {in_units(self.memory_bytes)}"


def resident_bytes() -> int:
    """The memory of this process; where the system does not tell, the most it ever had."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def machine_memory_bytes() -> int:
    """The memory of this machine, or what this container may have of it."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            total = min(total, int(Path(file).read_text(encoding="ascii")))
        except (OSError, ValueError):
            continue
    return total


def in_units(size: int) -> str:
    """`size` bytes for a person: 1536 MiB as 1.5 GiB."""
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= unit:
            return f"{size / unit:.3g} {name}"
    return f"{size} bytes"
