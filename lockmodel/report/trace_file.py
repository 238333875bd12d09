"""Reads a trace back from a JSON report, and believes nothing of it but the spec's text; writes one that was stepped by hand.

The spec is compiled again and the trace walked again, so what comes back is as sound as a trace that was just found. Where the spec
is given, not even its text is taken from the file, which may then be a trace in the Informal Trace Format, too.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from lockmodel.checker import check, how_many
from lockmodel.compiler import compile_spec
from lockmodel.errors import LockmodelError, one_line, quote, suggestion
from lockmodel.explanation import explain
from lockmodel.overrides import Overrides, apply
from lockmodel.parser import parse
from lockmodel.properties import broken_property, evaluators
from lockmodel.report import itf
from lockmodel.report.json import FORMAT, Json, overrides_of, report
from lockmodel.semantics import MAX_CREW, Action, Crew, Semantics, State, crew
from lockmodel.spec import Spec
from lockmodel.stepping import Model
from lockmodel.system import NO_DEADLOCK, NO_GLOBAL_STALL, NO_STALL, System
from lockmodel.trace import Trace
from lockmodel.verdict import CheckResult, Lifted, Outcome, Verdict, compare

MAX_STEPS = 100_000


class TraceFileError(LockmodelError):
    """A file that is no report, or whose trace is not one of its spec; `str()` is the one line to show."""

    def __init__(self, file: str, message: str) -> None:
        super().__init__(one_line(f"{file}: {message}"))


class SeveralTraces(TraceFileError):
    """A file with the traces of several specs, when it was not said which is meant; `str()` lists them."""


@dataclass(frozen=True)
class LoadedTrace:
    """A trace with all it belongs to; `spec` has the overrides applied, `violated` is the property that it violates."""

    spec: Spec
    overrides: Overrides
    system: System
    trace: Trace
    violated: str | None
    lifted: Lifted | None = None
    """Set if `system` is only the part of the compiled spec that the trace goes through."""


def read_trace(
    text: str, file: str = "<trace>", *, spec: str | None = None, deadlock: int | None = None
) -> LoadedTrace:
    """The trace in the JSON report `text`, which errors call `file`.

    If several of the report's specs have a trace, `spec` says which: its file or its name. In a report of all deadlocks (`check --all`),
    `deadlock` says which one, counted from 1; without it the trace is that of the verdict.
    Raises a LockmodelError that says in one line what is wrong.
    """
    return _Reader(file).read(text, spec, deadlock)


def read_trace_of(
    spec: Spec, text: str, file: str, overrides: Overrides | None = None, *, deadlock: int | None = None
) -> LoadedTrace:
    """The trace of `spec` in `text`: a JSON report that has one of this spec, or a trace in the Informal Trace Format.

    `overrides` of the command line are applied to `spec`; if there are none, those that the file names are. `deadlock` is as in `read_trace`.
    Raises a LockmodelError that says in one line what is wrong.
    """
    reader = _Reader(file)
    document = reader.json(text)
    result = reader.itf_result(document) if itf.is_itf(document) else reader.result_of(spec, reader.results(document))
    if deadlock is not None and itf.is_itf(document):
        raise reader.error("it has one trace; a deadlock can be chosen in a JSON report of check --all")
    if overrides is None or overrides == Overrides():
        told = result.get("overrides")
        overrides = Overrides() if told is None else reader.overrides(told)
    spec = apply(spec, overrides)
    try:
        return reader.trace_in(spec, overrides, result, deadlock)
    except (TraceFileError, itf.ItfError) as error:
        if result.get("sha256") in (None, _sha256(spec.source.text)):
            raise
        message = str(error).removeprefix(f"{file}: ")
        raise TraceFileError(
            file, f"{message} (it was written for another text of the spec than {spec.source.file} has)"
        ) from None


def write_itf(loaded: LoadedTrace) -> str:
    """The trace in the Informal Trace Format, which `read_trace_of` and `lockmodel replay --trace` take."""
    what = "a schedule" if loaded.violated is None else f"violates {loaded.violated}"
    about: Json = {
        "description": f"lockmodel: {what}",
        "source": loaded.spec.source.file,
        "sha256": _sha256(loaded.spec.source.text),
    }
    if loaded.lifted is not None:
        about["found_with"] = dict(loaded.lifted.sizes)
    return itf.itf(loaded.system, loaded.trace, about, overrides_of(loaded.overrides))


def write_trace(model: Model, trace: Trace) -> str:
    """A JSON report with `trace`, which `read_trace` and `lockmodel replay` take.

    Its verdict is that of the last state: a violation, or else UNDECIDED.
    """
    violated = model.violated(trace.last)
    verdict = Verdict(Outcome.UNDECIDED, reason="a schedule that was stepped by hand")
    if violated is not None:
        verdict = Verdict(Outcome.VIOLATED, how_many(model.crew), violated)
    view = explain(model.system, trace)
    result = CheckResult(
        spec=model.spec,
        overrides=model.overrides,
        system=model.system,
        verdict=verdict,
        unmet=compare(model.spec, verdict, trace, view),
        explorations=(),
        certificate=None,
        trace=trace,
        view=view,
        seconds=0.0,
    )
    return report([result])


class _Reader:
    def __init__(self, file: str) -> None:
        self.file = file

    def error(self, message: str) -> TraceFileError:
        return TraceFileError(self.file, message)

    def read(self, text: str, wanted: str | None, deadlock: int | None = None) -> LoadedTrace:
        result = self._choose(self.results(self.json(text)), wanted)
        source = self._field(result, "spec", str, "the result")
        if _sha256(source) != result.get("sha256"):
            raise self.error("the sha256 is not that of the spec's text; one of them was edited")
        name = str(result.get("file", "<spec>"))
        overrides = self.overrides(self._field(result, "overrides", dict, "the result"))
        spec = apply(parse(source, name), overrides)
        return self.trace_in(spec, overrides, result, deadlock)

    def trace_in(self, spec: Spec, overrides: Overrides, result: Json, deadlock: int | None) -> LoadedTrace:
        """The trace in a result of a report, as one of `spec` (overrides applied)."""
        system, lifted = self._compiled(spec, result)
        if "itf" in result:
            return self._itf_trace(spec, overrides, system, lifted, result["itf"])
        holder, violated = result, result.get("violated")
        if deadlock is not None:
            holder, violated = self._deadlock(result, deadlock), NO_DEADLOCK
        trace = self._trace(system, self._field(holder, "trace", dict, "the result"))
        self._check_violation(system, trace, violated)
        return LoadedTrace(spec, overrides, system, trace, violated, lifted)

    def _compiled(self, spec: Spec, result: Json) -> tuple[System, Lifted | None]:
        """The compiled spec; of one that is too large, the part that its deadlock goes through, which is looked for once more."""
        if result.get("found_with") is not None:
            found = check(spec)
            if found.lifted is not None:
                return found.compiled, found.lifted
        return compile_spec(spec), None

    def itf_result(self, document: Json) -> Json:
        """A trace in the Informal Trace Format as if it stood in a report: under `itf`, with what its `#meta` tells."""
        about = document.get("#meta")
        about = about if isinstance(about, dict) else {}
        return {"itf": document, **{key: about.get(key) for key in ("overrides", "sha256", "found_with")}}

    def _itf_trace(
        self, spec: Spec, overrides: Overrides, system: System, lifted: Lifted | None, document: Json
    ) -> LoadedTrace:
        workers = self._named_crew(system, itf.workers_of(document, self.file))
        trace = itf.trace_of(document, system, workers, self.file, MAX_STEPS)
        semantics = Semantics(system, workers)
        violated = broken_property(semantics, evaluators(semantics), trace.last)
        return LoadedTrace(spec, overrides, system, trace, violated, lifted)

    def json(self, text: str) -> Any:
        """What the file has in it."""
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            raise self.error(f"not JSON: line {error.lineno}: {error.msg}") from None
        except (RecursionError, ValueError) as error:
            raise self.error(f"not a report of lockmodel check: {error}") from None

    def results(self, document: Any) -> list[Json]:
        """The results in a report, or in a list of reports, which `simulate` writes of several specs."""
        if isinstance(document, list) and document:
            return [result for one in document for result in self.results(one)]
        if itf.is_itf(document):
            raise self.error(
                "it is a trace in the Informal Trace Format, without its spec: lockmodel replay SPEC --trace FILE"
            )
        if not isinstance(document, dict) or "lockmodel" not in document or "results" not in document:
            raise self.error("not a report of lockmodel check --format json")
        if document.get("format") != FORMAT:
            raise self.error(f"its format is {quote(document.get('format'))}; this lockmodel reads format {FORMAT}")
        results: list[Json] = self._field(document, "results", list, "the report")
        if not all(isinstance(result, dict) for result in results):
            raise self.error("each of its results must be an object")
        return results

    def result_of(self, spec: Spec, results: list[Json]) -> Json:
        """The result that is about `spec`, by its file or else by its name."""
        files = [result.get("file") for result in results]
        return self._choose(results, spec.source.file if spec.source.file in files else spec.name)

    def _choose(self, results: list[Json], wanted: str | None) -> Json:
        if wanted is not None:
            file = [result for result in results if result.get("file") == wanted][:1]
            named = file or [result for result in results if result.get("name") == wanted]
            if not named:
                available = [str(result.get(key)) for key in ("file", "name") for result in results]
                raise self.error(f"it has no spec {quote(wanted)}; {suggestion(wanted, available)}")
            results = named
        traced = [result for result in results if result.get("trace") is not None]
        if not traced:
            verdicts = ", ".join(f"{result.get('file')} {result.get('verdict')}" for result in results[:3])
            raise self.error(f"it has no trace ({verdicts or 'no results'})")
        if len(traced) > 1:
            files = ", ".join(str(result.get("file")) for result in traced[:12])
            more = f", … ({len(traced)} in all)" if len(traced) > 12 else ""
            raise SeveralTraces(self.file, f"it has {len(traced)} traces; say which spec's: {files}{more}")
        return traced[0]

    def _deadlock(self, result: Json, number: int) -> Json:
        found = self._field(result, "deadlocks", dict, "without --all, the result")
        groups: list[Json] = self._field(found, "groups", list, "deadlocks")
        if not 1 <= number <= len(groups) or not isinstance(groups[number - 1], dict):
            raise self.error(f"it has no deadlock {number}; it has {len(groups)}")
        return groups[number - 1]

    def overrides(self, data: Json) -> Overrides:
        """Checked as far as `apply` does not."""
        if not isinstance(data, dict):
            raise self.error("its overrides must be an object")
        sets = self._field(data, "sets", dict, "overrides")
        workers = data.get("workers")
        for name, value in sets.items():
            if not (_is_value(value) or (isinstance(value, list) and value and all(map(_is_value, value)))):
                raise self.error(f"overrides: set {quote(name)} must be a number or a list")
        counts = list(workers.values()) if isinstance(workers, dict) else [] if workers is None else [workers]
        if any(count != "any" and not _is_index(count, MAX_CREW + 1) for count in counts):
            raise self.error('overrides: the workers must be a number, "any" or null')
        return Overrides(
            {name: tuple(value) if isinstance(value, list) else value for name, value in sets.items()},
            {role: None if count == "any" else count for role, count in workers.items()}
            if isinstance(workers, dict)
            else "" if workers is None else None if workers == "any" else workers,
        )  # fmt: skip

    def _trace(self, system: System, data: Json) -> Trace:
        workers = self._crew(system, self._field(data, "workers", list, "the trace"))
        semantics = Semantics(system, workers)
        steps = self._field(data, "steps", list, "the trace")
        if len(steps) > MAX_STEPS:
            raise self.error(f"the trace has {len(steps):,} steps; the most is {MAX_STEPS:,}")
        states, actions = [semantics.initial], []
        for number, step in enumerate(steps, start=1):
            action = self._action(semantics, states[-1], number, step)
            actions.append(action)
            states.append(semantics.after(states[-1], action))
            self._check_state(states[-1], number, step.get("after"))
        return Trace(workers, tuple(states), tuple(actions))

    def _crew(self, system: System, data: list[Any]) -> Crew:
        """The workers as the spec makes them, if they are those of the file."""
        roles = [worker.get("role") if isinstance(worker, dict) else None for worker in data]
        open_counts = {roles.count(role.name) for role in system.roles if role.count is None} or {1}
        expected = crew(system, max(1, min(max(open_counts), MAX_CREW)))
        if list(expected.roles) != roles or [worker.get("name") for worker in data] != list(expected.names):
            raise self.error("the workers of the trace are not those of its spec")
        return expected

    def _named_crew(self, system: System, names: tuple[str, ...]) -> Crew:
        """The workers as the spec makes them, if they are called `names`."""
        open_roles = {role.name for role in system.roles if role.count is None}
        counts = [sum(name.rpartition(" ")[0] == role for name in names) for role in open_roles]
        expected = crew(system, max(1, min(max(counts, default=1), MAX_CREW)))
        if sorted(expected.names) != sorted(names):
            told, wanted = (", ".join(some[:6]) for some in (names, expected.names))
            raise self.error(f"the workers of the trace are not those of its spec: {told}, not {wanted}")
        return expected

    def _action(self, semantics: Semantics, state: State, number: int, step: object) -> Action:
        if not isinstance(step, dict):
            raise self.error(f"step {number} must be an object")
        worker = self._index(step, "worker", len(semantics.crew), number)
        edges = semantics.location(state, worker).edges
        edge = edges[self._index(step, "edge", len(edges), number)]
        name = semantics.crew.names[worker]
        told = f"{step.get('action')} {step.get('label')}"
        if told != f"{edge.action} {edge.label}":
            raise self.error(
                f"step {number}: {name} would do {quote(f'{edge.action} {edge.label}')}, not {quote(told)}"
            )
        if not semantics.enabled(state, worker, edge):
            raise self.error(f"step {number}: {name} can't do {quote(told)} in the state before it")
        return Action(worker, edge)

    def _check_state(self, state: State, number: int, told: object) -> None:
        if not isinstance(told, dict):
            raise self.error(f"step {number} lacks the state after it")
        if told.get("locations") != list(state.locations) or told.get("valuation") != state.valuation:
            raise self.error(f"step {number} leads to another state than the file says")

    def _check_violation(self, system: System, trace: Trace, violated: object) -> None:
        semantics = Semantics(system, trace.crew)
        waiting = semantics.waiting(trace.last)
        if violated == NO_DEADLOCK:
            found = bool(semantics.stuck(trace.last, waiting))
        elif violated == NO_GLOBAL_STALL:
            found = system.no_global_stall and semantics.stalled(trace.last, waiting)
        elif violated == NO_STALL:
            found = system.no_stall and bool(semantics.delayed(trace.last))
        else:
            named = [evaluator for evaluator in evaluators(semantics) if evaluator.property.name == violated]
            found = any(evaluator.violated(trace.last, waiting) for evaluator in named)
        if not found and violated is not None:
            raise self.error(f"the trace does not end in a violation of {quote(violated)}")

    def _index(self, step: Json, key: str, length: int, number: int) -> int:
        value = step.get(key)
        if not _is_index(value, length):
            raise self.error(f"step {number}: there is no {key} {quote(value)}; there are {length}, counted from 0")
        assert isinstance(value, int)
        return value

    def _field(self, data: Json, key: str, kind: type, owner: str) -> Any:
        if not isinstance(data.get(key), kind):
            raise self.error(f"{owner} lacks {quote(key)}, or it is of another type")
        return data[key]


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _is_value(value: object) -> bool:
    return isinstance(value, int | str)


def _is_index(value: object, length: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < length
