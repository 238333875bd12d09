"""Which engine searches: the reference engine for small systems, a fast one for the others, all with the same answer.

| engine | what it is | what it is for |
|---|---|---|
| reference | plain breadth-first search in Python | small systems; whatever the others can't do |
| rows | all places of the last worker in one operation, in Python | two or three workers: starts at once |
| dense | one bit for each combination of places, in numpy | spaces that fit into memory as bits |
| hashed | packed states in an open-addressing table, compiled | larger or thinner spaces, pools, symmetry, partial-order reduction |
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module

from lockmodel import reference, rows
from lockmodel.errors import UsageError
from lockmodel.exploration import AskReference, Exploration, Limits, Progress, Unsupported
from lockmodel.places import places_of
from lockmodel.semantics import Crew
from lockmodel.system import System

AUTO = "auto"
ENGINES = (AUTO, "reference", "rows", "dense", "hashed")
MAX_ROWS = 5_000
"""Up to this many rows the row engine is faster than importing numpy."""
MAX_QUICK_WORDS = 1 << 21
"""Up to this many words of 64 combinations the dense engine is asked at once: filling them takes milliseconds."""
SMALL_STATES = 5_000
"""What the reference engine searches before an engine with a compiler or a large table is loaded."""


@dataclass(frozen=True)
class EngineOptions:
    """Which engine (one of ENGINES), and the reductions of the hashed one."""

    engine: str = AUTO
    symmetry: bool = False
    partial_order: bool = False


_LIBRARY = {"dense": "numpy", "hashed": "numba"}


class _NotInstalled(Exception):
    """numpy or numba is missing or broken; the message says so for a person."""


def search(
    system: System,
    workers: Crew,
    limits: Limits | None = None,
    *,
    options: EngineOptions | None = None,
    progress: Callable[[Progress], None] | None = None,
    stop_at_violation: bool = True,
) -> Exploration:
    """Search all states of `system` with `workers`, as `reference.explore` does, by the engine that suits.

    The counts of a search that stops at a violation depend on the engine, the violation does not.
    Raises UsageError where the engine asked for can't search this system, SpecError where a step or a formula has no meaning.
    """
    request = _Request(system, workers, limits or Limits(), progress, stop_at_violation)
    options = options or EngineOptions()
    try:
        if options.symmetry or options.partial_order:
            return _reduced(request, options)
        if options.engine == AUTO:
            return _suitable(request)
        return _forced(request, options.engine)
    except AskReference:
        return request.reference()


@dataclass(frozen=True)
class _Request:
    system: System
    workers: Crew
    limits: Limits
    progress: Callable[[Progress], None] | None
    stop_at_violation: bool

    def reference(self, limits: Limits | None = None) -> Exploration:
        return self._run(reference.explore, limits)

    def rows(self) -> Exploration:
        return self._run(rows.explore)

    def packed(self, engine: str, **reductions: bool) -> Exploration:
        """Raises _NotInstalled, and the engine's Unsupported."""
        try:
            module = import_module(f"lockmodel.packed.{engine}")
        except ImportError as error:
            library = _LIBRARY[engine]
            raise _NotInstalled(
                f"the {engine} engine needs {library} ({error}): pip install 'lockmodel[fast]'"
            ) from None
        except Exception as error:
            # A numba that does not fit its numpy or its Python fails in many ways, none of them the user's fault.
            raise _NotInstalled(f"{_LIBRARY[engine]} does not work here ({type(error).__name__}: {error})") from None
        return self._run(partial(module.explore, **reductions))

    def _run(self, explore: Callable[..., Exploration], limits: Limits | None = None) -> Exploration:
        return explore(
            self.system,
            self.workers,
            limits or self.limits,
            progress=self.progress,
            stop_at_violation=self.stop_at_violation,
        )


def _suitable(request: _Request) -> Exploration:
    if rows.supports(request.system) and _row_count(request) <= MAX_ROWS:
        with suppress(Unsupported):
            return request.rows()
    if _dense_words(request) <= MAX_QUICK_WORDS:
        with suppress(Unsupported, _NotInstalled):
            return request.packed("dense")
    most = request.limits.max_states
    small = request.reference(replace(request.limits, max_states=min(SMALL_STATES, most or SMALL_STATES)))
    if small.violation or small.complete or small.stopped != f"reached the limit of {SMALL_STATES:,} states":
        return small
    reasons: list[str] = []
    for attempt in _larger(request):
        try:
            found = attempt()
            return replace(found, note="; ".join(reasons))
        except _NotInstalled as error:
            reasons[:] = [str(error)]
        except Unsupported:
            continue
    raise AssertionError("the reference engine searches everything")


def _larger(request: _Request) -> Iterator[Callable[[], Exploration]]:
    """The engines for what is not small, the fastest first."""
    yield partial(request.packed, "dense")
    yield partial(request.packed, "hashed")
    if rows.supports(request.system):
        yield request.rows
    yield request.reference


def _row_count(request: _Request) -> int:
    others = places_of(request.system, request.workers)[:-1]
    return len(request.system.valuations) * math.prod(len(places) for places in others)


def _dense_words(request: _Request) -> int:
    last = places_of(request.system, request.workers)[-1]
    return _row_count(request) * (len(last) // 64 + 1)


def _forced(request: _Request, engine: str) -> Exploration:
    if engine == "reference":
        return request.reference()
    if engine == "rows":
        if not rows.supports(request.system):
            raise UsageError("--engine rows can't search systems with pools; use hashed or reference")
    try:
        return request.rows() if engine == "rows" else request.packed(engine)
    except _NotInstalled as error:
        raise UsageError(f"--engine {engine}: {error}") from None
    except Unsupported as error:
        raise UsageError(f"--engine {engine} can't search this system: {error}; use auto") from None


def _reduced(request: _Request, options: EngineOptions) -> Exploration:
    if options.engine not in (AUTO, "hashed"):
        raise UsageError(f"--engine {options.engine} knows no --symmetry or --partial-order; use hashed or auto")
    asked = request.system.properties or request.system.no_global_stall or request.system.no_stall
    if options.partial_order and asked:
        message = (
            "--partial-order finds every deadlock, but not every state: it can't answer for never, always and stalls; "
            "leave it out"
        )
        raise UsageError(message)
    try:
        return request.packed("hashed", symmetry=options.symmetry, partial_order=options.partial_order)
    except _NotInstalled as error:
        raise UsageError(f"--symmetry and --partial-order: {error}") from None
    except Unsupported as error:
        raise UsageError(f"--symmetry and --partial-order can't search this system: {error}") from None
