"""Steps a system by hand: a model is a spec with its constants fixed, and says for each state what can happen in it.

    model = lockmodel.model("specs/striped-old-claim.yaml", workers=2, sets={"stripe": 3})
    state = model.initial
    for action in model.actions(state):
        print(action, model.next(state, action))

It is for people in a notebook: the same `Semantics` that the engines are tested against, with names for all that those number. Workers are
counted from 0 everywhere; `workers` has their names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from os import PathLike

from lockmodel.compiler import compile_spec
from lockmodel.errors import UsageError, quote, suggestion
from lockmodel.explanation import Lock, WorkerView, step_text, view
from lockmodel.expressions import Value
from lockmodel.fields import MAX_WORKERS
from lockmodel.overrides import Overrides, apply
from lockmodel.parser import load
from lockmodel.properties import Evaluator, broken_property, evaluators
from lockmodel.semantics import Action, Crew, Semantics, State, crew
from lockmodel.spec import Spec
from lockmodel.system import ActionKind, Edge, System
from lockmodel.trace import Trace

DEFAULT_WORKERS = 2
"""How many workers a role has that may have any number: as few as most deadlocks need."""


@dataclass(frozen=True)
class NamedAction:
    """Something that a worker can do in a state; `str()` says it: `worker 1: lane[0] FOR UPDATE`."""

    worker: int
    name: str
    """The worker's name."""
    kind: ActionKind
    text: str
    """What it does: `start claim (s=1)`, `lane[0] FOR UPDATE`, `lane[0] FOR UPDATE NOWAIT: refused`, `commit`."""
    then: str
    """What tells it from the worker's other actions of the same text, which differ in a choice that takes no time (a branch, the order of
    a loop): `then lane[1] FOR UPDATE`. Empty if there are none."""
    action: Action
    """The same by numbers, as engines and traces have it."""

    def __str__(self) -> str:
        return f"{self.name}: {self.text}" + (f", {self.then}" if self.then else "")


@dataclass(frozen=True)
class Model:
    """A spec with its constants fixed; `model` makes one.

    A state is a `State`, which is hashable: the location of each worker and the valuation of the shared variables, both by number.
    """

    spec: Spec
    """With `overrides` applied."""
    overrides: Overrides
    system: System
    crew: Crew

    @cached_property
    def semantics(self) -> Semantics:
        """What states mean, by numbers: for what this class has no method for."""
        return Semantics(self.system, self.crew)

    @property
    def workers(self) -> tuple[str, ...]:
        """The name of each worker."""
        return self.crew.names

    @property
    def initial(self) -> State:
        """The state in which all begins: every worker is idle."""
        return self.semantics.initial

    def actions(self, state: State) -> tuple[NamedAction, ...]:
        """All that can happen in `state`, worker by worker, always in the same order.

        Raises SpecError where a step has no meaning in this state (a variable would leave its domain).
        """
        return tuple(self.named(state, action) for action in self.semantics.actions(state))

    def action(self, state: State, words: str) -> NamedAction:
        """The action in `state` that `str()` says with just these words. Raises UsageError if there is none."""
        available = {str(action): action for action in self.actions(state)}
        if words not in available:
            raise UsageError(f"{quote(words)} can't happen in this state; {suggestion(words, available)}")
        return available[words]

    def next(self, state: State, action: NamedAction) -> State:
        """The state that `action` leads to. Raises UsageError if it can't happen in `state`."""
        worker, edge = action.action.worker, action.action.edge
        if edge not in self.semantics.location(state, worker).edges or not self.semantics.enabled(state, worker, edge):
            raise UsageError(f"{quote(action)} can't happen in this state; actions(state) lists what can")
        return self.semantics.after(state, action.action)

    def trace(self, actions: Iterable[NamedAction]) -> Trace:
        """The schedule of `actions` from the initial state on. Raises UsageError at the first that can't happen."""
        actions = tuple(actions)
        states = [self.initial]
        for action in actions:
            states.append(self.next(states[-1], action))
        return Trace(self.crew, tuple(states), tuple(action.action for action in actions))

    def named(self, state: State, action: Action) -> NamedAction:
        """`action`, which can happen in `state`, with its names."""
        return named_action(self.semantics, state, action)

    def view(self, state: State) -> tuple[WorkerView, ...]:
        """Each worker in `state`: its status, transaction, locks, what it waits for and who is in its way."""
        return view(self.semantics, state)

    def holds(self, state: State) -> dict[int, tuple[Lock, ...]]:
        """Each worker that holds locks, with its locks in the order in which it took them."""
        return {worker.worker: worker.holds for worker in self.view(state) if worker.holds}

    def waits_for(self, state: State) -> dict[int, tuple[int, ...]]:
        """Each worker that waits, with the workers that it waits for. For a pool these are all that hold units."""
        return {worker: tuple(blockers) for worker, blockers in self.semantics.waiting(state).items()}

    def deadlocked(self, state: State) -> frozenset[int]:
        """The workers that can never go on, whatever the others do; empty if there is no deadlock."""
        return self.semantics.stuck(state)

    def violated(self, state: State) -> str | None:
        """The first property that does not hold in `state`: `no deadlock`, `no global stall` or a formula's name."""
        return broken_property(self.semantics, self._evaluators, state)

    def variables(self, state: State) -> dict[str, Value]:
        """The values of the shared variables."""
        return dict(zip(self.system.variables, self.system.valuations[state.valuation], strict=True))

    @cached_property
    def _evaluators(self) -> list[Evaluator]:
        return evaluators(self.semantics)


@dataclass(frozen=True)
class Schedule:
    """A path through a model's states that is being made, and the place in it where one is.

    `actions[i]` leads from `states[i]` to `states[i + 1]`; one is at `states[at]`. What comes after that was undone.
    """

    model: Model
    actions: tuple[NamedAction, ...]
    states: tuple[State, ...]
    at: int = 0

    @property
    def state(self) -> State:
        return self.states[self.at]

    def take(self, action: NamedAction) -> Schedule:
        """Go on by `action`, which replaces what was undone. Raises UsageError if it can't happen here."""
        if self.at < len(self.actions) and self.actions[self.at].action == action.action:
            return replace(self, at=self.at + 1)
        state = self.model.next(self.state, action)
        return Schedule(
            self.model, (*self.actions[: self.at], action), (*self.states[: self.at + 1], state), self.at + 1
        )

    def jump(self, step: int) -> Schedule:
        """Go to where one was after `step` steps. Raises UsageError if there are fewer."""
        if not 0 <= step <= len(self.actions):
            raise UsageError(f"there is no step {step}; the schedule has steps 0 to {len(self.actions)}")
        return replace(self, at=step)

    @property
    def trace(self) -> Trace:
        """What was done up to here."""
        done = tuple(action.action for action in self.actions[: self.at])
        return Trace(self.model.crew, self.states[: self.at + 1], done)


def schedule_of(model: Model, trace: Trace) -> Schedule:
    """`trace` as a schedule, at its end."""
    named = tuple(model.named(state, action) for state, action in zip(trace.states, trace.actions, strict=False))
    return Schedule(model, named, trace.states, len(named))


def named_action(semantics: Semantics, state: State, action: Action) -> NamedAction:
    """`action`, which can happen in `state`, with its names."""
    edge = action.edge
    siblings = [other for other in semantics.location(state, action.worker).edges if _alike(other, edge)]
    return NamedAction(
        worker=action.worker,
        name=semantics.crew.names[action.worker],
        kind=edge.action,
        text=step_text(edge.action, edge.label),
        then=_then(semantics.system, siblings, edge) if len(siblings) > 1 else "",
        action=action,
    )


def _then(system: System, siblings: list[Edge], edge: Edge) -> str:
    """What comes after `edge`, with a number where that is the same for several of its siblings."""
    following = [_next_text(system, sibling) for sibling in siblings]
    index = siblings.index(edge)
    same = [number for number, text in enumerate(following) if text == following[index]]
    return f"then {following[index]}" + (f" ({same.index(index) + 1})" if len(same) > 1 else "")


def _next_text(system: System, edge: Edge) -> str:
    target = system.locations[edge.target]
    if target.request is not None:
        return f"{system.resources[target.request.resource].name} {target.request.mode}"
    return step_text(target.edges[0].action, target.edges[0].label) if target.edges else "nothing"


def _alike(first: Edge, second: Edge) -> bool:
    """Whether two ways out of a location read the same."""
    return (first.action, first.label) == (second.action, second.label)


def model(
    spec: Spec | str | PathLike[str],
    *,
    workers: int | Mapping[str, int] | None = None,
    sets: Mapping[str, int | str | Sequence[Value]] | None = None,
) -> Model:
    """The model of `spec`, a file's name or what `load` and `parse` return.

    `workers`: how many there are in all, or for each role; if left out, the spec's own, and 2 where it says any. `sets` replaces sets (by
    a size or a list of elements) and initial values of variables, as `--set` does.
    Raises SpecError and UsageError for what is wrong with the spec or these.
    """
    changes = Overrides({name: _setting(name, value) for name, value in (sets or {}).items()}, _workers(workers))
    return model_of(spec if isinstance(spec, Spec) else load(str(spec)), changes)


def model_of(spec: Spec, overrides: Overrides) -> Model:
    """The model of `spec` with `overrides`, as a command line has them."""
    spec = apply(spec, overrides)
    system = compile_spec(spec)
    return Model(spec, overrides, system, crew(system, DEFAULT_WORKERS))


def _setting(name: str, value: int | str | Sequence[Value]) -> int | tuple[Value, ...]:
    if isinstance(value, int):
        return value
    elements = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, Sequence) else ()
    if not elements or not all(isinstance(one, int | str) for one in elements):
        raise UsageError(f"sets: {name} must be a size, or a list of numbers and words with one element at least")
    return elements


def _workers(workers: int | Mapping[str, int] | None) -> int | Mapping[str, int | None] | str:
    counts = [] if workers is None else list(workers.values()) if isinstance(workers, Mapping) else [workers]
    for count in counts:
        if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= MAX_WORKERS:
            raise UsageError(f"workers: {quote(count)} is no number of workers; it is 1 to {MAX_WORKERS:,}")
    if isinstance(workers, Mapping):
        return dict(workers.items())
    return "" if workers is None else workers
