"""Who goes next: the order in which the workers are asked, at each step of a schedule."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Protocol

STRATEGIES = ("random", "pct")


class Strategy(Protocol):
    def order(self) -> Sequence[int]:
        """The workers, first those that shall go first: the first of them that can go on does."""

    def went(self, worker: int) -> None:
        """Is told who went."""


class Uniform:
    """Every worker that can go on is as likely as every other."""

    def __init__(self, random: Random, workers: int) -> None:
        self._random = random
        self._workers = list(range(workers))

    def order(self) -> Sequence[int]:
        self._random.shuffle(self._workers)
        return self._workers

    def went(self, worker: int) -> None:
        pass


class Priorities:
    """Probabilistic concurrency testing: random priorities, and `depth` - 1 steps at which whoever goes falls to the end.

    Source: Burckhardt, Kothari, Musuvathi, Nagarakatte, "A Randomized Scheduler with Probabilistic Guarantees of Finding Bugs" (ASPLOS
    2010). A bug that `depth` ordering constraints suffice for is found with probability at least 1 / (n k^(depth - 1)) by each
    schedule of n workers and at most k steps.
    """

    def __init__(self, random: Random, workers: int, steps: int, depth: int) -> None:
        self._order = list(range(workers))
        random.shuffle(self._order)
        # Change points 1 … depth - 1: the later a point stands in this list, the lower the priority that it gives.
        self._changes = {random.randint(1, max(1, steps)): rank for rank in range(depth - 1, 0, -1)}
        self._low: dict[int, int] = {}
        self._step = 0

    def order(self) -> Sequence[int]:
        return self._order

    def went(self, worker: int) -> None:
        self._step += 1
        rank = self._changes.get(self._step)
        if rank is not None:
            self._low[worker] = rank
            high = [other for other in self._order if other not in self._low]
            self._order = [*high, *sorted(self._low, key=lambda other: -self._low[other])]


def bound(workers: int, steps: int, depth: int) -> float:
    """The least probability that one PCT schedule finds a bug of this depth."""
    return 1.0 / (workers * float(max(1, steps)) ** (depth - 1))
