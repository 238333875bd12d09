"""`lockmodel export --to itf`, and traces in files read back as traces of a spec: in the Informal Trace Format, and from JSON reports."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import itf_py
import pytest
from generated import spec_of, to_yaml
from test_differential import numbered
from test_export import lockmodel

from lockmodel.checker import check
from lockmodel.compiler import compile_spec
from lockmodel.errors import LockmodelError, SpecError
from lockmodel.explanation import view
from lockmodel.overrides import Overrides, apply
from lockmodel.parser import load, parse
from lockmodel.properties import broken_property, evaluators
from lockmodel.report.json import report
from lockmodel.report.trace_file import LoadedTrace, read_trace, read_trace_of, write_itf, write_trace
from lockmodel.semantics import Semantics, crew
from lockmodel.spec import Spec
from lockmodel.stepping import Model
from lockmodel.system import System
from lockmodel.trace import Trace

ROOT = Path(__file__).parent.parent
OLD_CLAIM = "specs/striped-old-claim.yaml"
Json = Any


def wandering(system: System, seed: int, steps: int = 40) -> Trace:
    """A random schedule of `system`, not only one to a violation. Raises SpecError where a step has no meaning."""
    rng = random.Random(seed)
    semantics = Semantics(system, crew(system, 2))
    states, actions = [semantics.initial], []
    for _ in range(steps):
        possible = list(semantics.actions(states[-1]))
        if not possible:
            break
        actions.append(rng.choice(possible))
        states.append(semantics.after(states[-1], actions[-1]))
    return Trace(semantics.crew, tuple(states), tuple(actions))


def violated(system: System, trace: Trace) -> str | None:
    semantics = Semantics(system, trace.crew)
    return broken_property(semantics, evaluators(semantics), trace.last)


def old_claim() -> tuple[Spec, str]:
    """A spec with a deadlock, and its trace."""
    spec = load(str(ROOT / OLD_CLAIM))
    result = check(spec)
    assert result.trace is not None
    return spec, write_itf(
        LoadedTrace(result.spec, Overrides(), result.compiled, result.trace, result.verdict.violated)
    )


# There and back


def test_a_trace_comes_back_as_it_was() -> None:
    """Of generated specs, by both formats."""
    compared, kinds = 0, set()
    for number in range(120):
        spec = parse(to_yaml(spec_of(numbered(number))), f"generated {number}")
        system = compile_spec(spec)
        try:
            trace = wandering(system, number)
            broken = violated(system, trace)
            texts = [
                write_itf(LoadedTrace(spec, Overrides(), system, trace, broken)),
                write_trace(Model(spec, Overrides(), system, trace.crew), trace),
            ]
        except SpecError:
            continue
        for text in texts:
            loaded = read_trace_of(spec, text, "file")
            assert (loaded.trace, loaded.violated) == (trace, broken), f"generated {number}"
        kinds |= {action.edge.action for action in trace.actions}
        compared += 1
    assert compared > 80 and len(kinds) >= 10, (compared, kinds)


def test_the_trace_of_a_check_comes_back_with_its_overrides() -> None:
    spec = load(str(ROOT / OLD_CLAIM))
    changes = Overrides({"stripe": 3, "slot": ("a", "b")}, 3)
    result = check(spec, changes)
    assert result.trace is not None
    text = write_itf(LoadedTrace(result.spec, changes, result.compiled, result.trace, result.verdict.violated))
    for loaded in (read_trace_of(spec, text, "file"), read_trace_of(spec, report([result]), "file")):
        assert isinstance(loaded, LoadedTrace)
        assert (loaded.trace, loaded.overrides, loaded.violated) == (result.trace, changes, "no deadlock")
        assert loaded.spec == apply(spec, changes)


def test_overrides_of_the_command_line_are_not_those_of_the_file() -> None:
    spec, text = old_claim()
    assert len(read_trace_of(spec, text, "file", Overrides({}, 2)).trace.crew) == 2
    with pytest.raises(
        LockmodelError,
        match=r"^file: the workers of the trace are not those of its spec: worker 1, worker 2, not worker 1, worker 2, worker 3$",
    ):
        read_trace_of(spec, text, "file", Overrides({}, 3))


# For other tools


def test_another_tool_reads_the_same_states() -> None:
    """itf-py, by the authors of the format: each variable in each state is what the trace says."""
    for number in range(60):
        spec = parse(to_yaml(spec_of(numbered(number))), f"generated {number}")
        system = compile_spec(spec)
        try:
            trace = wandering(system, number, 25)
            text = write_itf(LoadedTrace(spec, Overrides(), system, trace, None))
        except SpecError:
            continue
        read = itf_py.trace_from_json(json.loads(text))
        assert read.meta["format"] == "ITF" and read.loop is None and len(read.states) == len(trace.states)
        semantics = Semantics(system, trace.crew)
        for index, (theirs, state) in enumerate(zip(read.states, trace.states, strict=True)):
            values = theirs.values
            assert theirs.meta == {"index": index} and set(values) == set(read.vars)
            workers = view(semantics, state)
            assert values["location"] == dict(zip(trace.crew.names, state.locations, strict=True))
            assert values["held"] == {one.name: [(lock.resource, lock.mode) for lock in one.holds] for one in workers}
            names = {one.worker: one.name for one in workers}
            assert values["waits_for"] == {
                one.name: {names[blocker.worker] for blocker in one.blockers} for one in workers if one.wants
            }
            shared = dict(zip(system.variables, system.valuations[state.valuation], strict=True))
            assert values["shared"]._asdict() == shared
            action = trace.actions[index - 1].edge.action if index else "init"
            assert values["action"].name == str(action)


def test_other_spellings_of_the_same_values_are_read() -> None:
    """Small numbers may stand bare, and sets and maps have no order."""

    def respelt(value: Json) -> Json:
        if isinstance(value, list):
            return [respelt(one) for one in value]
        if not isinstance(value, dict):
            return value
        if "#bigint" in value:
            return int(value["#bigint"])
        order = (
            [respelt(one) for one in next(iter(value.values()))] if value.keys() <= {"#set", "#map"} and value else None
        )
        return (
            {next(iter(value)): order[::-1]} if order is not None else {key: respelt(one) for key, one in value.items()}
        )

    spec, text = old_claim()
    document = json.loads(text)
    document["states"] = respelt(document["states"])
    assert json.dumps(document) != json.dumps(json.loads(text))
    assert read_trace_of(spec, json.dumps(document), "file").trace == read_trace_of(spec, text, "file").trace


# Damaged files


def changed(change: Callable[[Json], object]) -> str:
    document = json.loads(old_claim()[1])
    change(document)
    return json.dumps(document)


def state(document: Json, number: int) -> Json:
    return document["states"][number]


@pytest.mark.parametrize(("change", "line"), [
    (lambda d: d["states"].clear(), "its states must be a list of objects, the first of them the initial state"),
    (lambda d: d.update(states={}), "its states must be a list of objects, the first of them the initial state"),
    (lambda d: d["vars"].remove("held"), "it is a trace of something else: it has no variable 'held'; lockmodel writes action, location, held, waits_for, shared"),
    (lambda d: d.update(vars=7), "it is a trace of something else: it has no variable 'action'; lockmodel writes action, location, held, waits_for, shared"),
    (lambda d: state(d, 0).pop("location"), "state 0: location must be a #map from names of workers"),
    (lambda d: state(d, 0)["location"]["#map"][1].__setitem__(0, "cron"), "the workers of the trace are not those of its spec: worker 1, cron, not worker 1"),
    (lambda d: state(d, 0)["location"]["#map"].pop(), 'state 0 is another one than the spec\'s: its held is \'{"#map": [["worker 1", []], ["worker 2", []]]}\', not \'{"#map": [["worker 1", []]]}\''),
    (lambda d: state(d, 2).pop("action"), "state 2 has no action"),
    (lambda d: state(d, 2)["action"].update(worker="worker 9"), "state 2: there is no worker 'worker 9'; there are worker 1, worker 2"),
    (lambda d: state(d, 2)["action"].update(edge={"#bigint": "7"}), "state 2: there is no edge '7'; there are 1, counted from 0"),
    (lambda d: state(d, 2)["action"].update(edge={"#bigint": "x"}), 'state 2: there is no edge \'{"#bigint": "x"}\'; there are 1, counted from 0'),
    (lambda d: state(d, 2)["action"].update(label="lane[1] FOR UPDATE"), "state 2: worker 1 would do 'acquire lane[0] FOR UPDATE', not 'acquire lane[1] FOR UPDATE'"),
    (lambda d: d["states"].append(state(d, 6) | {"action": {"worker": "worker 1", "name": "acquire", "label": "lane[1] FOR UPDATE", "edge": 0}}),
     "state 7: worker 1 can't do 'acquire lane[1] FOR UPDATE' in the state before it"),
    (lambda d: state(d, 3).pop("held"), "state 3 has no held"),
    (lambda d: state(d, 2)["held"]["#map"][0][1].clear(),
     ('state 2 is another one than the spec\'s: its held is \'{"#map": [["worker 1", []], ["worker 2", []]]}\', '
      'not \'{"#map": [["worker 1", [{"#tup": ["lane[0]", "FOR UPDATE"]}]], ["worker 2", []]]}\'')),
    (lambda d: state(d, 1)["shared"].update(x=True), 'state 1 is another one than the spec\'s: its shared is \'{"x": true}\', not \'{}\''),
    (lambda d: d["#meta"].update(overrides=[]), "its overrides must be an object"),
    (lambda d: d["#meta"].update(overrides={"sets": {"stripe": 1.5}}), "overrides: set 'stripe' must be a number or a list"),
])  # fmt: skip
def test_a_damaged_trace_is_one_line(change: Callable[[Json], object], line: str) -> None:
    with pytest.raises(LockmodelError) as caught:
        read_trace_of(old_claim()[0], changed(change), "file")
    assert str(caught.value) == f"file: {line}"


@pytest.mark.parametrize(("text", "line"), [
    ("", "file: not JSON: line 1: Expecting value"),
    ("[]", "file: not a report of lockmodel check --format json"),
    ("7", "file: not a report of lockmodel check --format json"),
    ("[" * 100_000, "file: not a report of lockmodel check: "),
    ('{"vars": [], "states": []}', "file: its states must be a list of objects"),
])  # fmt: skip
def test_another_file_is_one_line(text: str, line: str) -> None:
    with pytest.raises(LockmodelError) as caught:
        read_trace_of(old_claim()[0], text, "file")
    assert str(caught.value).startswith(line)


def places(value: Json, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of each part of a document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] + [one for key, part in inner for one in places(part, (*path, key))]


def test_whatever_is_changed_the_trace_is_the_same_or_refused() -> None:
    """Each part of a file in turn is removed or replaced; nothing else than a LockmodelError may come of it."""
    spec, text = old_claim()
    trace = read_trace_of(spec, text, "file").trace
    rng = random.Random(11)
    paths = places(json.loads(text))[1:]
    refused = 0
    for path in paths:
        document = json.loads(text)
        holder = document
        for key in path[:-1]:
            holder = holder[key]
        if rng.random() < 0.3:
            del holder[path[-1]]
        else:
            holder[path[-1]] = rng.choice(
                [None, True, 0, -1, 1.5, "x", [], {}, [[]], {"#map": 3}, {"#bigint": []}, 10**30]
            )
        try:
            loaded = read_trace_of(spec, json.dumps(document), "file")
        except LockmodelError as error:
            assert "\n" not in str(error)
            refused += 1
        else:
            assert loaded.trace == trace or len(loaded.trace) < len(trace)
    assert refused > len(paths) // 2


def test_a_spec_that_has_changed_is_told_to_have(tmp_path: Path) -> None:
    _, text = old_claim()
    file = tmp_path / "spec.yaml"
    file.write_text((ROOT / OLD_CLAIM).read_text().replace("order: rotated", "order: reverse"))
    with pytest.raises(LockmodelError) as caught:
        read_trace_of(load(str(file)), text, "file")
    assert str(caught.value).startswith("file: state 2 ")
    assert str(caught.value).endswith(f"(it was written for another text of the spec than {file} has)")


# The commands


def test_itf_of_what_holds_is_refused() -> None:
    answer = lockmodel("export", "specs/striped.yaml", "--to", "itf")
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr.split() == [
        "specs/striped.yaml:",
        "check",
        "finds",
        "no",
        "violation,",
        "so",
        "there",
        "is",
        "no",
        "trace;",
        "name",
        "one",
        "with",
        "--trace",
        "FILE",
    ]


def test_a_report_becomes_itf_and_an_isolation_test(tmp_path: Path) -> None:
    """`--trace` takes what check, simulate and export write."""
    report_, itf = tmp_path / "report.json", tmp_path / "trace.itf.json"
    assert lockmodel("check", OLD_CLAIM, "--set", "stripe=3", "--format", "json", "-o", str(report_)).returncode == 0
    assert lockmodel("export", OLD_CLAIM, "--to", "itf", "--trace", str(report_), "-o", str(itf)).returncode == 0
    assert json.loads(itf.read_text())["#meta"]["overrides"]["sets"] == {"stripe": 3}
    texts = [
        lockmodel("export", OLD_CLAIM, "--to", "isolation", "--trace", str(file)).stdout for file in (report_, itf)
    ]
    assert texts[0] == texts[1] and f"{OLD_CLAIM} --set stripe=3" in texts[0] and "permutation" in texts[0]


@pytest.mark.postgres
def test_replay_reads_traces_back(tmp_path: Path, dsn: str) -> None:
    itf, report_ = tmp_path / "trace.itf.json", tmp_path / "report.json"
    lockmodel("export", OLD_CLAIM, "--to", "itf", "-o", str(itf))
    lockmodel("check", OLD_CLAIM, "specs/deadlock-demo.yaml", "--all", "--format", "json", "-o", str(report_))
    for arguments in ([str(itf)], [str(report_)], [str(report_), "--deadlock", "1"]):
        answer = lockmodel("replay", OLD_CLAIM, "--dsn", dsn, "--trace", *arguments)
        assert answer.returncode == 0 and "CONFIRMED" in answer.stdout, answer.stderr
        assert "deadlock between enqueue and claim, in striped-old-claim" in answer.stdout


@pytest.mark.postgres
def test_replay_takes_what_simulate_writes_of_several_specs(tmp_path: Path, dsn: str) -> None:
    file = str(tmp_path / "simulated.json")
    simulated = lockmodel(
        "simulate",
        OLD_CLAIM,
        "specs/deadlock-demo.yaml",
        "--schedules",
        "50",
        "--seed",
        "1",
        "--format",
        "json",
        "-o",
        file,
    )
    assert simulated.returncode == 0
    assert [name.name for name in [read_trace(Path(file).read_text(), file, spec="deadlock-demo").spec]] == [
        "deadlock-demo"
    ]
    answer = lockmodel("replay", file, "--dsn", dsn)
    assert answer.returncode == 2 and "it has 2 traces; say which spec's" in answer.stderr
    for answer in (
        lockmodel("replay", file, "--spec", "specs/deadlock-demo.yaml", "--dsn", dsn),
        lockmodel("replay", "specs/deadlock-demo.yaml", "--trace", file, "--dsn", dsn),
    ):
        assert answer.returncode == 0 and "CONFIRMED" in answer.stdout and "in deadlock-demo" in answer.stdout


@pytest.mark.postgres
@pytest.mark.parametrize(("arguments", "line"), [
    (["TRACE"], "TRACE: it is a trace in the Informal Trace Format, without its spec: lockmodel replay SPEC --trace FILE"),
    (["specs/striped.yaml", "--trace", "TRACE"], "TRACE: state 3: worker 2 would do 'start claim (s=0, r=0, c=1)', not 'start claim (r=0, c=0)' (it was written for another text"),
    ([OLD_CLAIM, "--trace", "nowhere.json"], "--trace nowhere.json: No such file or directory"),
    ([OLD_CLAIM, "--trace", "TRACE", "--schedules", "2"], f"{OLD_CLAIM}: replay either --trace TRACE or --schedules, not both"),
    ([OLD_CLAIM, "--trace", "TRACE", "--deadlock", "2"], "TRACE: it has one trace; a deadlock can be chosen in a JSON report of check --all"),
    (["scenarios/old-claim-against-enqueue.yaml", "--trace", "TRACE"], "scenarios/old-claim-against-enqueue.yaml: a scenario has its own schedule; --trace is for specs"),
])  # fmt: skip
def test_a_replay_that_can_not_be_is_one_line(arguments: list[str], line: str, tmp_path: Path, dsn: str) -> None:
    trace = tmp_path / "trace.json"
    trace.write_text(old_claim()[1])
    named = [str(trace) if word == "TRACE" else word for word in arguments]
    answer = lockmodel("replay", *named, "--dsn", dsn)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert " ".join(answer.stderr.split()).startswith(line.replace("TRACE", str(trace)))
