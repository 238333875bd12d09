"""How sure a frequency is."""

from __future__ import annotations

import math

_Z = 1.959963984540054
"""The 97.5 % quantile of the normal distribution: an interval of 95 %."""


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """The 95 % confidence interval of a probability (Wilson 1927): good for small numbers and for none at all."""
    if trials == 0:
        return 0.0, 1.0
    share = successes / trials
    scale = 1 + _Z**2 / trials
    centre = (share + _Z**2 / (2 * trials)) / scale
    spread = _Z / scale * math.sqrt(share * (1 - share) / trials + _Z**2 / (4 * trials**2))
    # At the ends the two terms cancel but for rounding.
    low = centre - spread if successes else 0.0
    high = centre + spread if successes < trials else 1.0
    return max(0.0, low), min(1.0, high)
