"""The report for programs, and the file that a trace is kept in: docs/json.md describes it.

The report carries the spec's own text, so that a trace can be replayed years later without the file. `read_trace` believes nothing of
it: the spec is compiled again, and each step must be possible and be called what the file calls it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lockmodel.deadlocks import DeadlockGroup
from lockmodel.document import Node
from lockmodel.errors import LockmodelError, Position, ReplayError, SpecError
from lockmodel.explanation import Lock, StallView, WorkerView, explain, view
from lockmodel.exploration import Exploration
from lockmodel.overrides import Overrides
from lockmodel.prover import Certificate, OutOfOrder
from lockmodel.prover.order import Index, Order
from lockmodel.semantics import Semantics, State
from lockmodel.system import NO_DEADLOCK, NO_GLOBAL_STALL, NO_STALL, Status, System
from lockmodel.trace import Trace
from lockmodel.verdict import CheckResult, Outcome

FORMAT = 1
"""Changes when a program that reads today's reports would misread tomorrow's; a new key does not change it."""

Json = dict[str, Any]


@dataclass(frozen=True)
class Failure:
    """A spec that has no result, and why."""

    file: str
    error: LockmodelError


def report(results: Iterable[CheckResult], failures: Iterable[Failure] = (), *, unchecked: Sequence[str] = ()) -> str:
    """One JSON document for all specs; `unchecked`: the files that an interruption left out."""
    from lockmodel import __version__

    document = {
        "lockmodel": __version__,
        "format": FORMAT,
        "results": [_result(result) for result in results],
        "errors": [failure_of(failure) for failure in failures],
        "unchecked": list(unchecked),
    }
    return json.dumps(document, indent=1, ensure_ascii=True, allow_nan=False) + "\n"


def failure_of(failure: Failure) -> Json:
    """A file that has no result."""
    error = failure.error
    position, message = None, str(error)
    if isinstance(error, SpecError | ReplayError):
        position, message = error.position, error.message
    position = position or Position(failure.file)
    return {"file": failure.file, "line": position.line, "column": position.column, "message": message}


def _result(result: CheckResult) -> Json:
    spec, verdict = result.spec, result.verdict
    source = spec.source
    return {
        "file": source.file,
        "name": spec.name,
        "sha256": hashlib.sha256(source.text.encode()).hexdigest(),
        "spec": source.text,
        "overrides": overrides_of(result.overrides),
        "verdict": str(verdict.outcome),
        "scope": verdict.scope,
        "violated": verdict.violated,
        "reason": verdict.reason,
        "expected": _plain(spec.expect),
        "as_expected": {0: True, 1: False}.get(result.exit_code),
        "unmet": result.unmet,
        "properties": _properties(result),
        "searches": [_search(exploration) for exploration in result.explorations],
        "certificate": _certificate(result),
        "trace": None if result.trace is None else _trace(result.compiled, result.trace),
        "cycle": [] if result.view is None else _cycle(result.view.final, result.view.cycle),
        "found_with": None if result.lifted is None else dict(result.lifted.sizes),
        "stall": None if result.view is None or result.view.stall is None else _stall(result.view.stall),
        "deadlocks": _deadlocks(result),
        "seconds": round(result.seconds, 3),
    }


def _plain(value: object) -> object:
    return value.model_dump(by_alias=True, exclude_none=True) if isinstance(value, Node) else value


def overrides_of(overrides: Overrides) -> Json:
    def count(number: int | None) -> int | str:
        return "any" if number is None else number

    sets = {name: list(value) if isinstance(value, tuple) else value for name, value in overrides.sets.items()}
    workers = overrides.workers
    if isinstance(workers, Mapping):
        return {"sets": sets, "workers": {role: count(number) for role, number in workers.items()}}
    return {"sets": sets, "workers": None if isinstance(workers, str) else count(workers)}


def _properties(result: CheckResult) -> list[Json]:
    """Every property, and whether it holds: null where the search ended before that was known."""
    spec, verdict = result.spec, result.verdict
    named = [(NO_DEADLOCK, "deadlock")] + [(NO_GLOBAL_STALL, "global stall")] * spec.no_global_stall
    named += [(NO_STALL, "stall")] * spec.no_stall
    named += [(name, "never") for name in spec.never] + [(name, "always") for name in spec.always]
    certificate = result.certificate
    proved = {NO_DEADLOCK: certificate is not None}
    proved[NO_GLOBAL_STALL] = certificate is not None and certificate.covers_stall
    proved[NO_STALL] = result.queues is not None and result.queues.proved

    def holds(name: str) -> bool | None:
        if verdict.outcome is Outcome.HOLDS or proved.get(name):
            return True
        return False if name == verdict.violated else None

    return [{"name": name, "kind": kind, "holds": holds(name)} for name, kind in named]


def _search(exploration: Exploration) -> Json:
    roles = exploration.crew.roles
    return {
        "workers": {role: roles.count(role) for role in dict.fromkeys(roles)},
        "engine": exploration.engine,
        "reductions": list(exploration.reductions),
        "states": exploration.states,
        "transitions": exploration.transitions,
        "depth": exploration.depth,
        "seconds": round(exploration.seconds, 3),
        "complete": exploration.complete,
        "stopped": exploration.stopped,
    }


def _certificate(result: CheckResult) -> Json | None:
    certificate = result.certificate
    if certificate is None:
        return None
    return {
        "order": _single_order(certificate),
        "groups": None if certificate.order is None else _groups(certificate.order),
        "out_of_order": [_exception(one) for one in certificate.out_of_order],
        "relevant_only": certificate.relevant_only,
        "requests": certificate.requests,
        "waits": certificate.waits,
        "refuted": sum(one.cases for one in certificate.refuted),
        "excluded": [
            {"lock": one.lock, "transactions": list(one.transactions), "cases": one.cases}
            for one in certificate.refuted
        ],
        "every_size": certificate.every_size,
        "as_declared": list(certificate.as_declared),
        "single_roles": list(certificate.single_roles),
    }


def _single_order(certificate: Certificate) -> list[str] | None:
    """The families one after the other, if they come in one order without exception."""
    order = certificate.order
    if (
        order is None
        or certificate.out_of_order
        or certificate.relevant_only
        or any(len(group.families) > 1 for group in order.groups)
    ):
        return None
    return list(order.families)


def _groups(order: Order) -> list[Json]:
    return [
        {
            "families": list(group.families),
            "index": None if group.index is None else _index(group.index),
            "inner": [] if group.inner is None else _groups(group.inner),
        }
        for group in order.groups
    ]


def _index(index: Index) -> Json:
    return {
        "set": index.of,
        "loops": [{"set": name, "direction": str(visit)} for name, visit in sorted(index.visits)],
        "elements": [[before.value, after.value] for before, after in sorted(index.steps, key=str)],
    }


def _exception(one: OutOfOrder) -> Json:
    return {
        "held": one.held,
        "wanted": one.wanted,
        "transactions": list(one.transactions),
        "why": str(one.why),
        "names": list(one.names),
    }


# Deadlocks


def _deadlocks(result: CheckResult) -> Json | None:
    found = result.deadlocks
    if found is None:
        return None
    return {"groups": [_group(result.compiled, group) for group in found.groups], "incomplete": found.incomplete}


def _group(system: System, group: DeadlockGroup) -> Json:
    shown = explain(system, group.trace)
    return {
        "between": list(group.transactions),
        "on": list(group.families),
        "workers": len(shown.cycle),
        "ways": group.ways,
        "trace": _trace(system, group.trace),
        "cycle": _cycle(shown.final, shown.cycle),
    }


# A trace


def _trace(system: System, trace: Trace) -> Json:
    semantics = Semantics(system, trace.crew)
    return {
        "workers": [
            {"name": name, "role": role} for name, role in zip(trace.crew.names, trace.crew.roles, strict=True)
        ],
        "initial": _state(semantics, trace.states[0]),
        "steps": [_step(semantics, trace, index) for index in range(len(trace.actions))],
    }


def _step(semantics: Semantics, trace: Trace, index: int) -> Json:
    action = trace.actions[index]
    edge, before = action.edge, semantics.location(trace.states[index], action.worker)
    resources = semantics.system.resources
    return {
        "number": index + 1,
        "worker": action.worker,
        "action": str(edge.action),
        "label": edge.label,
        "locks": [_lock(Lock(resources[request.resource].name, request.mode)) for request in edge.requests],
        "edge": next(number for number, other in enumerate(before.edges) if other is edge or other == edge),
        "line": edge.position.line if edge.position else 0,
        "column": edge.position.column if edge.position else 0,
        "after": _state(semantics, trace.states[index + 1]),
    }


def _state(semantics: Semantics, state: State) -> Json:
    system = semantics.system
    values = zip(system.variables, system.valuations[state.valuation], strict=True)
    workers = [_worker(worker) for worker in view(semantics, state) if worker.status is not Status.IDLE or worker.holds]
    return {
        "locations": list(state.locations),
        "valuation": state.valuation,
        "variables": dict(values),
        "workers": workers,
    }


def _worker(worker: WorkerView) -> Json:
    return {
        "worker": worker.worker,
        "status": str(worker.status),
        "transaction": worker.transaction,
        "holds": [_lock(lock) for lock in worker.holds],
        "waits_for": _lock(worker.wants) if worker.wants else None,
        "blocked_by": [blocker.worker for blocker in worker.blockers],
        "behind": [blocker.worker for blocker in worker.behind],
        "stuck": worker.stuck,
    }


def _stall(stall: StallView) -> Json:
    return {
        "resource": stall.resource,
        "holders": list(stall.holders),
        "waiter": stall.waiter,
        "delayed": list(stall.delayed),
        "transactions": list(stall.transactions),
        "most": stall.most,
        "convoy": stall.convoy,
        "ends": str(stall.ends),
    }


def _lock(lock: Lock) -> Json:
    return {"resource": lock.resource, "mode": lock.mode}


def _cycle(workers: Sequence[WorkerView], cycle: Sequence[int]) -> list[Json]:
    """Each member of the cycle with what it waits for; the next one holds it, and the last waits for the first."""
    return [
        {"worker": number, "transaction": workers[number].transaction, "waits_for": _lock(wants)}
        for number in cycle
        if (wants := workers[number].wants)
    ]
