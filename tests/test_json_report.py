"""The JSON report says all that the terminal says, and a trace in it can be read back and is believed in nothing."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lockmodel.checker import check
from lockmodel.errors import LockmodelError, Position, SpecError, UsageError
from lockmodel.exploration import Limits
from lockmodel.overrides import parse_overrides
from lockmodel.parser import load, parse
from lockmodel.report.json import Failure, report
from lockmodel.report.trace_file import read_trace
from lockmodel.verdict import CheckResult

REPOSITORY = Path(__file__).parent.parent
DEMO = "specs/deadlock-demo.yaml"
SMALL = sorted(str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "tests" / "small").glob("*.yaml"))
OLD_CLAIM = "specs/striped-old-claim.yaml"


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)


def checked(file: str, settings: tuple[str, ...] = (), workers: tuple[str, ...] = ()) -> CheckResult:
    return check(load(file), parse_overrides(settings, workers))


def document(*results: CheckResult) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(report(results))
    return loaded


def test_the_report_of_a_deadlock() -> None:
    """A program finds the verdict, the counts, the schedule and the cycle."""
    (result,) = document(checked(DEMO))["results"]
    assert result["file"] == DEMO
    assert result["sha256"] == hashlib.sha256(Path(DEMO).read_bytes()).hexdigest()
    assert result["spec"] == Path(DEMO).read_text()
    assert (result["verdict"], result["violated"], result["as_expected"]) == ("VIOLATED", "no deadlock", True)
    assert result["expected"]["deadlock"]["between"] == ["pay alice", "pay bob"]
    assert result["properties"] == [{"name": "no deadlock", "kind": "deadlock", "holds": False}]
    assert result["searches"] == []
    (search,) = document(checked(DEMO, (), ("2",)))["results"][0]["searches"]
    assert (search["workers"], search["complete"]) == ({"worker": 2}, False)
    steps = [(step["worker"], step["action"], step["label"]) for step in result["trace"]["steps"]]
    assert steps == [
        (0, "start", "pay bob"),
        (0, "acquire", "alice FOR UPDATE"),
        (1, "start", "pay alice"),
        (1, "acquire", "bob FOR UPDATE"),
    ]
    line = result["trace"]["steps"][1]["line"]
    assert Path(DEMO).read_text().splitlines()[line - 1].strip() == "- alice: FOR UPDATE"
    first, second = result["trace"]["steps"][-1]["after"]["workers"]
    assert first["holds"] == [second["waits_for"]] and second["blocked_by"] == [0]
    assert [(member["worker"], member["waits_for"]["resource"]) for member in result["cycle"]] == [
        (0, "bob"),
        (1, "alice"),
    ]


def test_the_report_of_a_proof() -> None:
    """A certificate says that no deadlock is possible even where the search was cut short."""
    result = check(load("specs/awa/storage-authority.yaml"), limits=Limits(max_states=500))
    (data,) = document(result)["results"]
    assert (data["verdict"], data["as_expected"], data["trace"], data["cycle"]) == ("UNDECIDED", None, None, [])
    certificate = data["certificate"]
    assert certificate["order"] is None, "there is no single one"
    assert certificate["groups"][0]["index"] == {
        "set": "queue", "loops": [{"set": "stripe", "direction": "ascending"}], "elements": [],
    }  # fmt: skip
    assert [one["why"] for one in certificate["out_of_order"] if one["wanted"] == "lease_ring_slot"] == ["kept apart"]
    assert (certificate["every_size"], certificate["as_declared"], certificate["single_roles"]) == (True, [], [])
    assert [prop["holds"] for prop in data["properties"]] == [True, True, None]
    (holds,) = document(checked("specs/striped.yaml"))["results"]
    assert (holds["verdict"], holds["certificate"]["order"]) == ("HOLDS", ["lane", "ready", "claims"])
    assert holds["searches"] == []


def test_overrides_are_in_the_report() -> None:
    """What the command line changed is told apart from what the spec says."""
    (data,) = document(checked(OLD_CLAIM, ("stripe=a,b", "slot=1"), ("3",)))["results"]
    assert data["overrides"] == {"sets": {"stripe": ["a", "b"], "slot": 1}, "workers": 3}
    (data,) = document(checked("tests/small/three-roles.yaml", (), ("billing=any",)))["results"]
    assert data["overrides"] == {"sets": {}, "workers": {"billing": "any"}}


def test_errors_are_in_the_report() -> None:
    """A spec that can't be read is not silently missing."""
    failures = [
        Failure("a.yaml", SpecError(Position("a.yaml", 3, 5), "unknown key")),
        Failure("b.yaml", UsageError("b.yaml: No such file or directory")),
    ]
    data = json.loads(report([], failures, unchecked=["c.yaml"]))
    assert data["errors"] == [
        {"file": "a.yaml", "line": 3, "column": 5, "message": "unknown key"},
        {"file": "b.yaml", "line": 0, "column": 0, "message": "b.yaml: No such file or directory"},
    ]
    assert data["unchecked"] == ["c.yaml"]


@pytest.mark.parametrize("file", [DEMO, OLD_CLAIM, "specs/awa/old-striped-claim.yaml", *SMALL])
def test_a_trace_can_be_read_back(file: str) -> None:
    """The trace that comes back is the one that was found, from the text alone."""
    result = checked(file)
    text = report([result])
    if result.trace is None:
        with pytest.raises(LockmodelError, match="it has no trace"):
            read_trace(text)
        return
    loaded = read_trace(text)
    assert loaded.trace == result.trace
    assert loaded.system == result.system
    assert loaded.spec.source.text == Path(file).read_text()
    assert loaded.violated == result.verdict.violated


@pytest.mark.parametrize(
    ("file", "settings", "workers"),
    [
        (OLD_CLAIM, ("stripe=3",), ("any",)),
        (OLD_CLAIM, ("stripe=x,y", "slot=[s]"), ("2",)),
        ("tests/small/three-roles.yaml", (), ("billing=1", "shop=2")),
        ("tests/small/three-roles.yaml", (), ("billing=any",)),
        ("tests/small/mixed-fleet.yaml", ("plan=old", "queue=x,y"), ("3",)),
    ],
)
def test_overrides_survive_the_round_trip(file: str, settings: tuple[str, ...], workers: tuple[str, ...]) -> None:
    """A trace found with other constants is read back with them."""
    result = checked(file, settings, workers)
    loaded = read_trace(report([result]))
    assert (loaded.overrides, loaded.trace) == (result.overrides, result.trace)


def test_of_several_traces_one_is_chosen_by_name() -> None:
    """A report of many specs is a file of many traces."""
    text = report([checked(DEMO), checked("specs/striped.yaml"), checked(OLD_CLAIM)])
    with pytest.raises(
        LockmodelError,
        match=r"2 traces; say which spec's: specs/deadlock-demo.yaml, specs/striped-old",
    ):
        read_trace(text)
    assert read_trace(text, spec=OLD_CLAIM).spec.name == "striped-old-claim"
    assert read_trace(text, spec="deadlock-demo").spec.source.file == DEMO
    with pytest.raises(LockmodelError, match="no spec 'striped-old'; did you mean"):
        read_trace(text, spec="striped-old")
    with pytest.raises(LockmodelError, match=r"no trace \(specs/striped.yaml HOLDS\)"):
        read_trace(text, spec="specs/striped.yaml")


def test_one_trace_among_proofs_needs_no_name() -> None:
    """If there is only one trace, it is the one that is meant."""
    assert read_trace(report([checked("specs/striped.yaml"), checked(DEMO)])).spec.name == "deadlock-demo"


Edit = Callable[[dict[str, Any]], None]


def put(*path: str | int, value: object) -> Edit:
    """An edit of the only result: what is at `path` becomes `value`."""

    def edit(result: dict[str, Any]) -> None:
        here: Any = result
        for part in path[:-1]:
            here = here[part]
        here[path[-1]] = value

    return edit


def swap_steps(result: dict[str, Any]) -> None:
    steps = result["trace"]["steps"]
    steps[1], steps[2] = steps[2], steps[1]


def shorten(result: dict[str, Any]) -> None:
    result["trace"]["steps"].pop()


def other_spec(result: dict[str, Any]) -> None:
    """The same deadlock, but bob's payment begins with a lock that the trace does not take."""
    result["spec"] = result["spec"].replace("pay bob:\n    steps:", "pay bob:\n    steps:\n      - bob: FOR KEY SHARE")
    result["sha256"] = hashlib.sha256(result["spec"].encode()).hexdigest()


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (put("spec", value="name: other"), "sha256 is not that of the spec's text"),
        (put("spec", value=7), "lacks 'spec'"),
        (put("sha256", value=None), "sha256"),
        (other_spec, "step 2: worker 1 would do 'acquire bob FOR KEY SHARE', not 'acquire alice FOR UPDATE'"),
        (put("overrides", value=[]), "lacks 'overrides'"),
        (put("overrides", "sets", value={"x": {}}), "set 'x' must be a number or a list"),
        (put("overrides", "sets", value={"x": 3}), "no such set or variable"),
        (put("overrides", "workers", value=2.5), "the workers must be"),
        (put("overrides", "workers", value=True), "the workers must be"),
        (put("overrides", "workers", value=10**9), "the workers must be"),
        (put("overrides", "workers", value={"nobody": 1}), "has no roles"),
        (put("trace", "workers", value=[]), "the workers of the trace are not those of its spec"),
        (put("trace", "workers", 0, "name", value="someone"), "the workers of the trace are not those of its spec"),
        (put("trace", "workers", 0, value=3), "the workers of the trace are not those of its spec"),
        (put("trace", "steps", value={}), "the trace lacks 'steps'"),
        (put("trace", "steps", 1, value=None), "step 2 must be an object"),
        (put("trace", "steps", 1, "worker", value=-1), "step 2: there is no worker '-1'"),
        (put("trace", "steps", 1, "worker", value=True), "step 2: there is no worker 'True'"),
        (put("trace", "steps", 1, "worker", value=1), "step 2: worker 2 would do 'start pay bob'"),
        (put("trace", "steps", 1, "edge", value=5), "step 2: there is no edge '5'; there are 1"),
        (put("trace", "steps", 1, "label", value="bob FOR SHARE"), "not 'acquire bob FOR SHARE'"),
        (put("trace", "steps", 1, "action", value="refuse"), "would do 'acquire alice FOR UPDATE'"),
        (put("trace", "steps", 1, "after", "locations", value=[0, 0]), "step 2 leads to another state"),
        (put("trace", "steps", 1, "after", value=None), "step 2 lacks the state after it"),
        (swap_steps, "step 3 leads to another state|step 2 leads to another state"),
        (shorten, "does not end in a violation of 'no deadlock'"),
        (put("violated", value="no global stall"), "not end in a violation"),
        (put("violated", value="some formula"), "not end in a violation of 'some formula'"),
    ],
)  # fmt: skip
def test_a_trace_that_was_tampered_with_is_refused(edit: Edit, message: str) -> None:
    """Every step must be possible, be called what the file calls it, and lead where it says."""
    data = document(checked(DEMO))
    edit(data["results"][0])
    with pytest.raises(LockmodelError, match=message) as caught:
        read_trace(json.dumps(data), "report.json")
    assert "\n" not in str(caught.value)


def test_a_step_that_is_not_possible_is_refused() -> None:
    """A trace that goes on through a lock that is taken is no trace."""
    data = document(checked(DEMO))
    result = data["results"][0]
    last = result["trace"]["steps"][-1]
    step = {**last, "worker": 0, "label": "bob FOR UPDATE", "edge": 0, "number": 5}
    result["trace"]["steps"].append(step)
    with pytest.raises(
        LockmodelError, match="step 5: worker 1 can't do 'acquire bob FOR UPDATE' in the state before it"
    ):
        read_trace(json.dumps(data))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON: line 1"),
        ("name: x\n", "not JSON: line 1"),
        ("[]", "not a report"),
        ("{}", "not a report"),
        ("7", "not a report"),
        ("[" * 100_000, "not a report|not JSON"),
        ('{"lockmodel": "1", "results": [], "format": 2}', "its format is '2'; this lockmodel reads format 1"),
        ('{"lockmodel": "1", "results": {}, "format": 1}', "the report lacks 'results'"),
        ('{"lockmodel": "1", "results": [3], "format": 1}', "must be an object"),
        ('{"lockmodel": "1", "results": [], "format": 1}', r"it has no trace \(no results\)"),
        ('{"lockmodel": "1", "results": [{"trace": 1}], "format": 1}', "the result lacks 'spec'"),
        ("9" * 10_000, "not a report"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_report_is_refused(text: str, message: str) -> None:
    """Whatever is given, the answer is one line."""
    with pytest.raises(LockmodelError, match=message) as caught:
        read_trace(text, "x.json")
    assert str(caught.value).startswith("x.json: ")
    assert "\n" not in str(caught.value)


def keys(data: object, inside: str = "") -> Iterator[str]:
    """Every key of a report, but for those that are names from a spec."""
    if isinstance(data, list):
        for item in data:
            yield from keys(item, inside)
    elif isinstance(data, dict) and inside not in ("sets", "variables", "workers", "expected"):
        for key, value in data.items():
            yield key
            yield from keys(value, key)
    elif isinstance(data, dict) and inside == "workers" and "status" in data:
        yield from data


def test_every_key_of_the_report_is_documented() -> None:
    """docs/json.md explains each key by its name."""
    page = (REPOSITORY / "docs" / "json.md").read_text()
    results = [checked(file) for file in (DEMO, "specs/striped.yaml", *SMALL)]
    failure = Failure("x", UsageError("x"))
    told = set(re.findall(r"`(\w+)`", page))
    assert set(keys(json.loads(report(results, [failure])))) - told == set()


def test_the_documented_actions_are_those_that_there_are() -> None:
    """The page's list of actions is complete."""
    from lockmodel.system import ActionKind

    (line,) = [
        line for line in (REPOSITORY / "docs" / "json.md").read_text().splitlines() if line.startswith("| `action`")
    ]
    assert re.findall(r"`([^`]+)`", line)[1:] == [str(action) for action in ActionKind]


def test_the_text_of_a_spec_from_standard_input_is_kept() -> None:
    """A spec that came through a pipe can be replayed from its report too."""
    result = check(parse(Path(DEMO).read_bytes(), "<stdin>"))
    assert read_trace(report([result])).spec.source.file == "<stdin>"
