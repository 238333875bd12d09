"""`simulate`: many seeded random schedules, what they covered, and what they ran into."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from lockmodel.properties import broken_property, evaluators
from lockmodel.semantics import Action, Crew, Semantics
from lockmodel.simulation.minimize import Group, Minimizer, group_of
from lockmodel.simulation.statistics import wilson
from lockmodel.simulation.strategies import Priorities, Strategy, Uniform, bound
from lockmodel.simulation.walker import Seen, WaitsFor, Walker, longest_transaction, possible_waits
from lockmodel.system import System
from lockmodel.trace import Trace

DEFAULT_SCHEDULES = 1_000
DEFAULT_ROUNDS = 3
DEFAULT_DEPTH = 3
DEFAULT_WORKERS = 4
"""Of a role that may have any number."""


@dataclass(frozen=True)
class Plan:
    """What to simulate.

    `schedules` of them, or as many as `seconds` allow if that is given; each worker runs `rounds` transactions; a schedule has at most
    `steps` transitions (None: as many as it takes); `depth` is the bug depth that PCT looks for.
    """

    seed: int
    strategy: str = "random"
    schedules: int = DEFAULT_SCHEDULES
    seconds: float | None = None
    rounds: int = DEFAULT_ROUNDS
    steps: int | None = None
    depth: int = DEFAULT_DEPTH


@dataclass(frozen=True)
class Progress:
    schedules: int
    violations: int
    seconds: float


@dataclass(frozen=True)
class Found:
    """Violations that are alike: how many schedules ended in one, the first of them, and the shortest trace made of it."""

    group: Group
    count: int
    first: int
    trace: Trace

    @property
    def violated(self) -> str:
        return self.group[0]


@dataclass(frozen=True)
class Simulation:
    """What came out."""

    plan: Plan
    crew: Crew
    schedules: int
    """Those that were run to their end."""
    steps: int
    longest: int
    """The most steps that a schedule can have: PCT's k."""
    seconds: float
    interrupted: bool
    reached: frozenset[int]
    """Locations."""
    locations: int
    waits: frozenset[WaitsFor]
    possible_waits: frozenset[WaitsFor]
    found: tuple[Found, ...]
    """The most frequent first."""

    @property
    def violations(self) -> int:
        return sum(one.count for one in self.found)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % confidence: how probable it is that such a schedule ends in a violation."""
        return wilson(self.violations, self.schedules)

    @property
    def bound(self) -> float:
        """PCT's least probability to find a bug of the plan's depth in one schedule."""
        return bound(len(self.crew), self.longest, self.plan.depth)


@dataclass
class _Tally:
    count: int
    first: int
    trace: Trace
    violated: str = field(default="")


def simulate(
    system: System, workers: Crew, plan: Plan, *, progress: Callable[[Progress], None] | None = None
) -> Simulation:
    """Run the schedules of `plan`. The same seed gives the same result, but for `seconds` of it.

    An interruption (Ctrl-C) ends the simulation; what was found until then is returned.
    Raises SpecError where a step or a formula has no meaning in a state that a schedule comes to.
    """
    return _Simulator(system, workers, plan, progress).run()


class _Simulator:
    def __init__(self, system: System, workers: Crew, plan: Plan, progress: Callable[[Progress], None] | None) -> None:
        self.system = system
        self.workers = workers
        self.plan = plan
        self.progress = progress
        self.seen = Seen()
        self.semantics = Semantics(system, workers)
        self.properties = evaluators(self.semantics)
        self.everywhere = bool(self.properties) or system.no_global_stall or system.no_stall
        self.longest = plan.steps or len(workers) * plan.rounds * longest_transaction(system)
        self.tallies: dict[Group, _Tally] = {}
        self.schedules = self.steps = 0
        self.started = time.monotonic()

    def run(self) -> Simulation:
        interrupted = False
        try:
            while self._more():
                self._schedule(self.schedules + 1)
                self.schedules += 1
                if self.progress:
                    violations = sum(tally.count for tally in self.tallies.values())
                    self.progress(Progress(self.schedules, violations, time.monotonic() - self.started))
        except KeyboardInterrupt:
            interrupted = True
        minimizer = Minimizer(self.system, self.workers)
        found = []
        for group, tally in self.tallies.items():
            trace = tally.trace if interrupted else minimizer.minimize(tally.trace, tally.violated)
            found.append(Found(group, tally.count, tally.first, trace))
        possible = possible_waits(self.system)
        return Simulation(
            plan=self.plan,
            crew=self.workers,
            schedules=self.schedules,
            steps=self.steps,
            longest=self.longest,
            seconds=time.monotonic() - self.started,
            interrupted=interrupted,
            reached=frozenset(self.seen.locations),
            locations=len(self.system.locations),
            waits=frozenset(self.seen.waits & possible),
            possible_waits=frozenset(possible),
            found=tuple(sorted(found, key=lambda one: (-one.count, one.group))),
        )

    def _more(self) -> bool:
        if self.plan.seconds is not None:
            return time.monotonic() - self.started < self.plan.seconds
        return self.schedules < self.plan.schedules

    def _schedule(self, number: int) -> None:
        # Each schedule has a source of its own, so that one can be repeated without those before it.
        random = Random(f"{self.plan.seed} {number}")
        walker = Walker(self.system, self.workers, self.plan.rounds, self.seen)
        strategy = self._strategy(random)
        actions: list[Action] = []
        if self._violated(walker, None, actions, number):
            return
        while len(actions) < self.longest:
            step = self._next(walker, strategy, random)
            if step is None:
                break
            walker.take(step.worker, step.edge)
            strategy.went(step.worker)
            actions.append(step)
            self.steps += 1
            if self._violated(walker, step.worker, actions, number):
                return

    def _strategy(self, random: Random) -> Strategy:
        if self.plan.strategy == "pct":
            return Priorities(random, len(self.workers), self.longest, self.plan.depth)
        return Uniform(random, len(self.workers))

    @staticmethod
    def _next(walker: Walker, strategy: Strategy, random: Random) -> Action | None:
        for worker in strategy.order():
            options = walker.options(worker)
            if options:
                return Action(worker, options[0] if len(options) == 1 else random.choice(options))
        return None

    def _violated(self, walker: Walker, worker: int | None, actions: list[Action], number: int) -> bool:
        """Whether the walk has come to a violation, which is then counted."""
        if not self.everywhere and (worker is None or not walker.closes_a_cycle(worker)):
            return False
        violated = broken_property(self.semantics, self.properties, walker.state)
        if violated is None:
            return False
        trace = self._trace(actions)
        group = group_of(self.system, trace, violated)
        tally = self.tallies.get(group)
        if tally is None:
            self.tallies[group] = _Tally(1, number, trace, violated)
        else:
            tally.count += 1
            if len(trace) < len(tally.trace):
                tally.trace = trace
        return True

    def _trace(self, actions: list[Action]) -> Trace:
        states = [self.semantics.initial]
        for action in actions:
            states.append(self.semantics.after(states[-1], action))
        return Trace(self.workers, tuple(states), tuple(actions))
