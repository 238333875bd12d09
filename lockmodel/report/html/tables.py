"""The compiled tables of a system as plain data, which the report's script steps: docs/html.md describes them."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from lockmodel.compiler import compile_spec
from lockmodel.errors import LockmodelError, UsageError
from lockmodel.explanation import step_text
from lockmodel.graphs import LockOrderGraph, lock_order_graph
from lockmodel.overrides import Overrides
from lockmodel.report import words
from lockmodel.report.html.formulas import formula, size
from lockmodel.report.json import overrides_of
from lockmodel.semantics import Crew, crew
from lockmodel.spec import Spec
from lockmodel.stepping import DEFAULT_WORKERS, Model
from lockmodel.system import Edge, Location, System
from lockmodel.trace import Trace
from lockmodel.verdict import CheckResult

MAX_LOCATIONS = 20_000
"""Of a system that is embedded: a file of some 10 MB, which a browser reads in a second."""
MAX_NUMBERS = 2_000_000
"""Entries of all guards, updates, formulas and lists of held locks that are embedded."""
MAX_CREW = 64
"""Workers of a system that is embedded."""
MAX_ORDER_EDGES = 4_000
"""Of the lock-order graph of resources; a larger one is drawn by families only."""

Json = dict[str, Any]


class TooLarge(Exception):
    """The tables are not for a browser; the message says what is too many."""


def model_of_result(result: CheckResult) -> Model:
    """The model that `result` is about, compiled if a proof on the program answered. Raises TooLarge.

    Its workers are those of the trace; without one the spec's, and 2 where it says any.
    """
    if result.lifted is not None:
        raise TooLarge("too many locations of a worker to write them all down")
    try:
        system = compile_spec(result.spec) if result.system is None else result.system
        workers = crew(system, DEFAULT_WORKERS) if result.trace is None else result.trace.crew
    except LockmodelError as error:
        raise TooLarge(str(error)) from None
    return Model(result.spec, result.overrides, system, workers)


def tables(model: Model) -> Json:
    """What a script needs to step `model`: resources, conflicts, locations with their edges, workers. Raises TooLarge."""
    system = model.system
    if len(system.locations) > MAX_LOCATIONS:
        raise TooLarge(f"{len(system.locations):,} locations of a worker; the most is {MAX_LOCATIONS:,}")
    if len(model.crew) > MAX_CREW:
        raise TooLarge(f"{len(model.crew):,} workers; the most is {MAX_CREW:,}")
    shared = _Shared()
    locations = [_location(system, location, shared) for location in system.locations]
    kinds = {resource.kind.name: resource.kind for resource in system.resources}
    properties = [formula(model.semantics, prop) for prop in system.properties]
    shared.charge(sum(size(one.get(key)) for one in properties for key in ("tree", "counts")))
    return {
        "workers": _workers(model.crew),
        "resources": [
            {
                "name": one.name,
                "family": one.family,
                "arguments": list(one.arguments),
                "kind": one.kind.name,
                "capacity": one.capacity,
            }
            for one in system.resources
        ],
        "conflicts": {name: {mode: list(kind.conflicts[mode]) for mode in kind.modes} for name, kind in kinds.items()},
        "locations": locations,
        "lists": shared.lists,
        "variables": list(system.variables),
        "valuations": [list(values) for values in system.valuations] if system.variables else [[]],
        "initial": system.initial_valuation,
        "stall": system.no_global_stall,
        "queues": system.no_stall,
        "properties": properties,
    }


def digest(data: Json) -> str:
    """Eight letters that tell these tables from others, so that a link to a schedule of another spec is noticed."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:8]


def steps(model: Model, trace: Trace) -> list[list[int]]:
    """The trace as pairs: the worker, and which edge of its location it takes."""
    pairs = []
    for state, action in zip(trace.states, trace.actions, strict=False):
        edges = model.semantics.location(state, action.worker).edges
        number = next(number for number, other in enumerate(edges) if other is action.edge or other == action.edge)
        pairs.append([action.worker, number])
    return pairs


def orders(model: Model) -> Json:
    """The lock-order graph by family, and by resource unless it is too large."""
    graphs = {"family": lock_order_graph(model, "family")}
    with contextlib.suppress(UsageError):
        graphs["resource"] = lock_order_graph(model, "resource", max_edges=MAX_ORDER_EDGES)
    return {by: _order(graph) for by, graph in graphs.items()}


def source(spec: Spec, overrides: Overrides, model: Model | None) -> Json:
    """What a downloaded schedule says of the spec, so that `lockmodel replay` takes it; `scenario` for one in a scenario."""
    text = spec.source.text
    return {
        "file": spec.source.file,
        "name": spec.name,
        "spec": text,
        "sha256": hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest(),
        "overrides": overrides_of(overrides),
        "scenario": None if model is None else _scenario(model),
    }


def _scenario(model: Model) -> Json | None:
    """The keys `set` and `workers` that give a scenario this model; None where single roles were given numbers, which it can't do."""
    workers = model.overrides.workers
    if isinstance(workers, Mapping):
        return None
    open_roles = [role.name for role in model.system.roles if role.count is None]
    count = model.crew.roles.count(open_roles[0]) if open_roles else workers
    sets = {name: list(value) if isinstance(value, tuple) else value for name, value in model.overrides.sets.items()}
    return {"set": sets, "workers": count if isinstance(count, int) else None}


class _Shared:
    """Lists of numbers that many locations share, each kept once."""

    def __init__(self) -> None:
        self.lists: list[list[object]] = []
        self._numbers: dict[tuple[object, ...], int] = {}
        self._size = 0

    def number(self, entries: Sequence[object]) -> int:
        key = tuple(entries)
        if key not in self._numbers:
            self.charge(len(key))
            self._numbers[key] = len(self.lists)
            self.lists.append([list(entry) if isinstance(entry, tuple) else entry for entry in entries])
        return self._numbers[key]

    def charge(self, entries: int) -> None:
        """Count `entries` more. Raises TooLarge."""
        self._size += entries
        if self._size > MAX_NUMBERS:
            raise TooLarge(f"guards, updates, formulas and held locks with more than {MAX_NUMBERS:,} entries")


def _workers(workers: Crew) -> list[Json]:
    each = zip(workers.names, workers.roles, workers.transactions, strict=True)
    return [{"name": name, "role": role, "runs": list(runs)} for name, role, runs in each]


def _location(system: System, location: Location, shared: _Shared) -> Json:
    request = location.request
    data: Json = {
        "status": str(location.status),
        "held": shared.number([(hold.resource, hold.mode) for hold in location.held]),
        "edges": [_edge(system, edge, shared) for edge in location.edges],
    }
    if location.transaction is not None:
        data["transaction"] = location.transaction
    if request is not None:
        data["request"] = [request.resource, request.mode]
        data["waits"] = location.waits
        if request.queues and system.resources[request.resource].kind.first_come:
            data["queues"], data["endless"] = True, request.endless
    if location.local:
        data["local"] = dict(location.local)
    return data


def _edge(system: System, edge: Edge, shared: _Shared) -> Json:
    data: Json = {
        "action": str(edge.action),
        "to": edge.target,
        "label": edge.label,
        "text": step_text(edge.action, edge.label),
        "says": words.step_sentence(system, edge),
    }
    if edge.requests:
        data["requests"] = [[request.resource, request.mode] for request in edge.requests]
    if edge.guard is not None:
        data["guard"] = shared.number(sorted(edge.guard))
    if edge.update is not None:
        data["update"] = shared.number(edge.update)
    if edge.faults:
        data["faults"] = {str(valuation): why for valuation, why in edge.faults.items()}
    if edge.transaction is not None:
        data["starts"] = edge.transaction
    if edge.position is not None:
        data["line"] = edge.position.line
    return data


def _order(graph: LockOrderGraph) -> Json:
    names = [name for name in graph if graph.degree(name)]
    return {
        "nodes": names,
        "alone": len(graph) - len(names),
        "edges": [
            {
                "from": held,
                "to": wanted,
                "waits": bool(facts["waits"]),
                "transactions": list(facts["transactions"]),
                "modes": [list(pair) for pair in facts["modes"]],
                "lines": list(facts["positions"])[:6],
            }
            for held, wanted, facts in graph.edges(data=True)
        ],
    }
