"""Traces in the Informal Trace Format, which Apalache and Quint write and other tools show (https://apalache-mc.org/docs/adr/015adr-trace.html).

A state has these variables: `action`, the step that led to it (its `name` is `init` in the first state); `location`, a number for each worker;
`held`, the locks of each worker as pairs in the order in which they were taken; `waits_for`, those that wait with the workers in their
way; `shared`, the values of the shared variables. The file has no spec in it, so reading it takes the spec, and believes nothing of the file:
each step must be possible, and lead to the state that the file has.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NoReturn

from lockmodel.errors import LockmodelError, one_line, quote
from lockmodel.explanation import view
from lockmodel.expressions import Value
from lockmodel.semantics import Action, Crew, Semantics, State
from lockmodel.system import Edge, System
from lockmodel.trace import Trace

DESCRIPTION = "https://apalache-mc.org/docs/adr/015adr-trace.html"
VARIABLES = ("action", "location", "held", "waits_for", "shared")
INIT = "init"

Json = Any


class ItfError(LockmodelError):
    """A trace in this format that can't be read, or is not one of its spec; `str()` is the one line to show."""


# Writing


def itf(system: System, trace: Trace, about: dict[str, str], overrides: Json) -> str:
    """`trace` of `system` as a document. `about` is said of it in its `#meta`; `overrides` is what replaced the spec's own constants there."""
    semantics = Semantics(system, trace.crew)
    head = {
        "#meta": {"format": "ITF", "format-description": DESCRIPTION, **about, "overrides": overrides},
        "params": [],
        "vars": list(VARIABLES),
    }
    states = [{"#meta": {"index": index}, **state} for index, state in enumerate(_states(semantics, trace))]
    # A state on a line: traces are compared by eye, and by diff.
    lines = ",\n".join(f"  {_json(state)}" for state in states)
    entries = "".join(f" {_json(key)}: {_json(value)},\n" for key, value in head.items())
    return f'{{\n{entries} "states": [\n{lines}\n ]\n}}\n'


def _json(value: Json) -> str:
    return json.dumps(value, ensure_ascii=True, allow_nan=False)


def _states(semantics: Semantics, trace: Trace) -> Iterator[dict[str, Json]]:
    yield {"action": _action("", INIT, "", 0), **_state(semantics, trace.states[0])}
    for before, action, after in zip(trace.states, trace.actions, trace.states[1:], strict=False):
        edges = semantics.location(before, action.worker).edges
        number = next(number for number, edge in enumerate(edges) if edge is action.edge or edge == action.edge)
        name = trace.crew.names[action.worker]
        yield {
            "action": _action(name, str(action.edge.action), action.edge.label, number),
            **_state(semantics, after),
        }


def _action(worker: str, name: str, label: str, edge: int) -> Json:
    return {"worker": worker, "name": name, "label": label, "edge": _number(edge)}


def _state(semantics: Semantics, state: State) -> dict[str, Json]:
    system, names = semantics.system, semantics.crew.names
    workers = view(semantics, state)
    values = zip(system.variables, system.valuations[state.valuation], strict=True)
    return {
        "location": _map((names[worker], _number(location)) for worker, location in enumerate(state.locations)),
        "held": _map((one.name, [_tuple(lock.resource, lock.mode) for lock in one.holds]) for one in workers),
        "waits_for": _map(
            (one.name, {"#set": [names[blocker.worker] for blocker in one.blockers]}) for one in workers if one.wants
        ),
        "shared": {name: _value(value) for name, value in values},
    }


def _value(value: Value) -> Json:
    return _number(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _number(number: int) -> Json:
    return {"#bigint": str(number)}


def _tuple(*values: str) -> Json:
    return {"#tup": list(values)}


def _map(pairs: Iterator[tuple[str, Json]]) -> Json:
    return {"#map": [list(pair) for pair in pairs]}


# Reading


def is_itf(document: object) -> bool:
    """Whether a JSON document looks like a trace in this format."""
    return isinstance(document, dict) and "states" in document and "vars" in document


def workers_of(document: Json, file: str) -> tuple[str, ...]:
    """The names of the workers in `document`, in no particular order. Raises ItfError."""
    reader = _Reader(file, None)
    states = reader.states(document)
    return tuple(reader.mapping(states[0], "location", 0))


def trace_of(document: Json, system: System, crew: Crew, file: str, max_steps: int) -> Trace:
    """The trace of `system` with the workers in `crew` that `document` has; errors call it `file`. Raises ItfError."""
    return _Reader(file, Semantics(system, crew)).trace(document, max_steps)


class _Reader:
    def __init__(self, file: str, semantics: Semantics | None) -> None:
        self.file = file
        self._semantics = semantics

    def fail(self, message: str) -> NoReturn:
        raise ItfError(one_line(f"{self.file}: {message}"))

    @property
    def semantics(self) -> Semantics:
        assert self._semantics is not None
        return self._semantics

    def states(self, document: Json) -> list[dict[str, Json]]:
        states = document["states"]
        if not isinstance(states, list) or not states or not all(isinstance(state, dict) for state in states):
            self.fail("its states must be a list of objects, the first of them the initial state")
        missing = [name for name in VARIABLES if not isinstance(document["vars"], list) or name not in document["vars"]]
        if missing:
            self.fail(
                f"it is a trace of something else: it has no variable {quote(missing[0])}; lockmodel writes {', '.join(VARIABLES)}"
            )
        return states

    def trace(self, document: Json, max_steps: int) -> Trace:
        told = self.states(document)
        if len(told) - 1 > max_steps:
            self.fail(f"the trace has {len(told) - 1:,} steps; the most is {max_steps:,}")
        states = [self.semantics.initial]
        actions = []
        self.check(told[0], 0, {"worker": "", "name": INIT, "label": "", "edge": _number(0)}, states[0])
        for number, state in enumerate(told[1:], start=1):
            action = self.action(state, number, states[-1])
            actions.append(action)
            states.append(self.semantics.after(states[-1], action))
            self.check(state, number, state["action"], states[-1])
        return Trace(self.semantics.crew, tuple(states), tuple(actions))

    def action(self, state: dict[str, Json], number: int, before: State) -> Action:
        told = state.get("action")
        if not isinstance(told, dict):
            self.fail(f"state {number} has no action")
        names = self.semantics.crew.names
        if told.get("worker") not in names:
            self.fail(
                f"state {number}: there is no worker {quote(told.get('worker'))}; there are {', '.join(names[:12])}"
            )
        worker = names.index(told["worker"])
        edges = self.semantics.location(before, worker).edges
        edge = self.edge(told, edges, number)
        words = f"{told.get('name')} {told.get('label')}"
        if words != f"{edge.action} {edge.label}":
            self.fail(
                f"state {number}: {names[worker]} would do {quote(f'{edge.action} {edge.label}')}, not {quote(words)}"
            )
        if not self.semantics.enabled(before, worker, edge):
            self.fail(f"state {number}: {names[worker]} can't do {quote(words)} in the state before it")
        return Action(worker, edge)

    def edge(self, told: dict[str, Json], edges: tuple[Edge, ...], number: int) -> Edge:
        index = self.integer(told.get("edge"))
        if index is None or not 0 <= index < len(edges):
            wrong = _short(told.get("edge")) if index is None else quote(index)
            self.fail(f"state {number}: there is no edge {wrong}; there are {len(edges)}, counted from 0")
        return edges[index]

    def check(self, told: dict[str, Json], number: int, action: Json, state: State) -> None:
        """Compare a state with the one that the spec makes of it."""
        for name, value in {"action": action, **_state(self.semantics, state)}.items():
            if name not in told:
                self.fail(f"state {number} has no {name}")
            if not _same(told[name], value):
                self.fail(
                    f"state {number} is another one than the spec's: its {name} is {_short(told[name])}, not {_short(value)}"
                )

    def mapping(self, state: dict[str, Json], name: str, number: int) -> dict[str, Json]:
        value = state.get(name)
        pairs = value.get("#map") if isinstance(value, dict) else None
        if not isinstance(pairs, list) or not all(
            isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) for pair in pairs
        ):
            self.fail(f"state {number}: {name} must be a #map from names of workers")
        return dict(pairs)

    @staticmethod
    def integer(value: Json) -> int | None:
        """The number that `value` is, bare or as #bigint; None if it is none."""
        digits = value.get("#bigint") if isinstance(value, dict) else value
        if isinstance(digits, str) and re.fullmatch(r"-?[0-9]{1,18}", digits):
            return int(digits)
        return digits if isinstance(digits, int) and not isinstance(digits, bool) else None


def _same(told: Json, value: Json) -> bool:
    try:
        first, second = _comparable(told), _comparable(value)
    except (TypeError, ValueError, RecursionError):
        return False
    return type(first) is type(second) and first == second


def _comparable(value: Json) -> Any:
    """A value with sets, maps and numbers as such: other tools write them in another order, and small numbers bare."""
    if isinstance(value, list):
        return ("list", *map(_comparable, value))
    if not isinstance(value, dict):
        # True is no 1.
        return ("truth", value) if isinstance(value, bool) else value
    if len(value) == 1:
        ((key, inner),) = value.items()
        match key:
            case "#bigint":
                return int(inner)
            case "#tup":
                return ("tuple", *map(_comparable, inner))
            case "#set":
                return ("set", frozenset(map(_comparable, inner)))
            case "#map":
                return ("map", frozenset((_comparable(name), _comparable(one)) for name, one in inner))
    return ("record", frozenset((name, _comparable(one)) for name, one in value.items()))


def _short(value: Json) -> str:
    return quote(json.dumps(value), 120)
