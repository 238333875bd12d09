"""Stepping a system by hand from Python: models, actions with names, schedules, what lies ahead, traces that are kept.

`SNAP_UPDATE=1 pytest tests/test_stepping.py` writes the examples in docs/python.md and their output anew.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import networkx
import pytest
from generated import spec_of, to_yaml
from test_differential import numbered

import lockmodel
from lockmodel.ahead import deadlocks_ahead
from lockmodel.errors import LockmodelError, SpecError, UsageError
from lockmodel.graphs import state_graph
from lockmodel.report.trace_file import read_trace, write_trace
from lockmodel.stepping import Model, Schedule, model, schedule_of

ROOT = Path(__file__).parent.parent
DOCUMENT = ROOT / "docs" / "python.md"
DEMO = "specs/deadlock-demo.yaml"
OLD_CLAIM = "specs/striped-old-claim.yaml"
BAD_STEP = "name: x\nworkers: 1\nvariables: {v: {values: 2}}\nresources: {a: {kind: lock}}\ntransactions: {t: {steps: [{a: SHARED}, {set: {v: v + 2}}]}}\n"


def parsed(text: str) -> Model:
    return model(lockmodel.parse(text))


def follow(made: Model, *words: str) -> Schedule:
    """The schedule that these actions are."""
    schedule = Schedule(made, (), (made.initial,))
    for word in words:
        schedule = schedule.take(made.action(schedule.state, word))
    return schedule


# Models


def test_a_model_has_the_workers_and_sets_that_it_is_given() -> None:
    """As the command line's overrides do; two workers where the spec says any."""
    assert model(OLD_CLAIM).workers == ("worker 1", "worker 2")
    made = model(lockmodel.load(OLD_CLAIM), workers=3, sets={"stripe": 4, "slot": ["a"]})
    assert made.workers == ("worker 1", "worker 2", "worker 3")
    assert made.system.sets == {"stripe": (0, 1, 2, 3), "slot": ("a",)}
    roles = model("tests/small/three-roles.yaml")
    changed = model("tests/small/three-roles.yaml", workers={roles.crew.roles[0]: 3})
    assert changed.crew.roles.count(roles.crew.roles[0]) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"workers": 0}, "workers: '0' is no number of workers; it is 1 to 4,096"),
        ({"workers": 2.5}, "workers: '2.5' is no number of workers"),
        ({"workers": True}, "workers: 'True' is no number of workers"),
        ({"workers": {"worker": "x"}}, "workers: 'x' is no number of workers"),
        ({"workers": {"boss": 1}}, "--workers boss=1: "),
        ({"sets": {"stripes": 2}}, "--set 'stripes': specs/striped-old-claim.yaml has no such set or variable; did you mean stripe?"),
        ({"sets": {"stripe": 0}}, "--set stripe=0: the size of a set is 1 to 4,096"),
        ({"sets": {"stripe": []}}, "sets: stripe must be a size, or a list of numbers and words with one element at least"),
        ({"sets": {"stripe": [1.5]}}, "sets: stripe must be a size, or a list"),
        ({"sets": {"stripe": 1.5}}, "sets: stripe must be a size, or a list"),
    ],
)  # fmt: skip
def test_wrong_constants_are_one_line(arguments: dict[str, object], message: str) -> None:
    """Whatever someone types in a notebook."""
    with pytest.raises(UsageError) as caught:
        model(OLD_CLAIM, **arguments)  # type: ignore[arg-type]
    assert str(caught.value).startswith(message)


# Steps


def test_a_deadlock_is_stepped_into_by_words() -> None:
    """Who holds what, who waits for whom, and who can never go on, at each state."""
    made = model(OLD_CLAIM)
    schedule = follow(made, "worker 1: start enqueue", "worker 2: start claim (r=0, c=0), then lane[1] FOR UPDATE",
                      "worker 1: lane[0] FOR UPDATE", "worker 2: lane[1] FOR UPDATE")  # fmt: skip
    state = schedule.state
    holds = {worker: [str(lock) for lock in locks] for worker, locks in made.holds(state).items()}
    assert holds == {0: ["lane[0] FOR UPDATE"], 1: ["lane[1] FOR UPDATE"]}
    assert made.waits_for(state) == {0: (1,)}
    assert (made.deadlocked(state), made.violated(state)) == (frozenset(), None)
    for word in ("worker 2: ready[0] ACCESS SHARE", "worker 2: claims[0] ROW EXCLUSIVE"):
        schedule = schedule.take(made.action(schedule.state, word))
    assert made.waits_for(schedule.state) == {0: (1,), 1: (0,)}
    assert (made.deadlocked(schedule.state), made.violated(schedule.state)) == ({0, 1}, "no deadlock")
    assert made.actions(schedule.state) == ()
    assert [worker.wants.resource for worker in made.view(schedule.state) if worker.wants] == ["lane[1]", "lane[0]"]


def test_an_action_that_can_not_happen_is_refused() -> None:
    """One line says what can."""
    made = model(DEMO)
    first = made.actions(made.initial)[0]
    state = made.next(made.initial, first)
    with pytest.raises(UsageError, match=f"'{first.name}: {first.text}' can't happen in this state; actions"):
        made.next(state, first)
    with pytest.raises(UsageError, match=r"'worker 1: dance' can't happen in this state; .*available: "):
        made.action(state, "worker 1: dance")
    with pytest.raises(UsageError):
        made.trace([first, first])


def test_shared_variables_are_told_by_name() -> None:
    """And they change as the steps say."""
    made = parsed("name: x\nworkers: 1\nvariables: {v: {values: [red, green]}}\nresources: {a: {kind: lock}}\n"
                  "transactions: {t: {steps: [{set: {v: green}}]}}\n")  # fmt: skip
    schedule = follow(made, "worker 1: start t", "worker 1: set v = green")
    assert made.variables(made.initial) == {"v": "red"}
    assert made.variables(schedule.state) == {"v": "green"}


def test_a_step_without_meaning_is_said_with_its_line() -> None:
    """Where its actions are asked for, not before."""
    made = parsed(BAD_STEP)
    state = follow(made, "worker 1: start t").state
    assert made.actions(state)
    with pytest.raises(SpecError, match=r"^<spec>:5: "):
        made.actions(made.next(state, made.actions(state)[0]))


def test_no_two_actions_of_a_state_say_the_same() -> None:
    """So that each can be chosen by its words; on generated specs, with branches, loops in any order and equal steps."""
    hints = 0
    for number in range(100):
        made = parsed(to_yaml(spec_of(numbered(number))))
        try:
            graph = state_graph(made, max_states=1_000)
        except UsageError:
            continue
        for state in graph:
            actions = made.actions(state)
            said = [str(action) for action in actions]
            assert len(set(said)) == len(said), (number, said)
            assert [made.action(state, words) for words in said] == list(actions)
            hints += sum(action.then != "" for action in actions)
    assert hints > 10


def test_states_and_actions_can_be_keys() -> None:
    """Of sets and dictionaries."""
    made = model(DEMO)
    assert len({made.initial, model(DEMO).initial}) == 1
    actions = made.actions(made.initial)
    assert len({*actions, *model(DEMO).actions(made.initial)}) == len(actions)


# Schedules


def test_a_schedule_goes_back_and_on_again() -> None:
    """What was undone can be taken again; another action replaces it."""
    made = model(DEMO)
    first, second = made.actions(made.initial)[:2]
    start = Schedule(made, (), (made.initial,))
    one = start.take(first)
    two = one.take(made.actions(one.state)[0])
    back = two.jump(0)
    assert (back.state, back.at, len(back.actions)) == (made.initial, 0, 2)
    assert back.take(first) == two.jump(1)
    other = back.take(second)
    assert (other.actions, other.at, other.state) == ((second,), 1, made.next(made.initial, second))
    assert two.trace.states == two.states
    assert two.jump(1).trace.actions == (first.action,)
    with pytest.raises(UsageError, match="there is no step 3; the schedule has steps 0 to 2"):
        two.jump(3)


# What lies ahead


def test_the_deadlocks_ahead_are_those_of_the_state_graph() -> None:
    """On generated specs: there is one exactly if there is one, and the first is as near as the nearest."""
    found = 0
    for number in range(100):
        made = parsed(to_yaml(spec_of(numbered(number))))
        try:
            graph = state_graph(made, max_states=1_000)
        except UsageError:
            continue
        ahead = deadlocks_ahead(made, made.initial, max_states=1_000)
        dead = [state for state in graph if graph.nodes[state]["deadlock"]]
        assert ahead.stopped is None, number
        assert bool(ahead.deadlocks) is bool(dead), number
        lengths = [len(deadlock.actions) for deadlock in ahead.deadlocks]
        assert lengths == sorted(lengths), number
        if dead:
            assert lengths[0] == min(graph.nodes[state]["depth"] for state in dead) - 1, number
            found += 1
        for deadlock in ahead.deadlocks:
            assert made.trace(deadlock.actions).last == deadlock.state
            assert {member.worker for member in deadlock.members} <= made.deadlocked(deadlock.state)
    assert found >= 5


def test_deadlocks_ahead_differ_in_more_than_numbers() -> None:
    """By the transactions and the families of resources round the cycle, whichever worker and stripe it is."""
    made = model(OLD_CLAIM, workers=3, sets={"stripe": 3, "slot": 1})
    ahead = deadlocks_ahead(made, made.initial, max_states=100_000)
    kinds = [tuple(member.transaction for member in found.members) for found in ahead.deadlocks]
    assert ahead.stopped is None
    assert sorted(map(tuple, map(sorted, kinds))) == [
        ("claim", "claim"), ("claim", "claim", "claim"), ("claim", "claim", "enqueue"), ("claim", "enqueue"),
    ]  # fmt: skip
    graph = state_graph(made)
    for found in ahead.deadlocks:
        assert networkx.has_path(graph, made.initial, found.state)


def test_a_search_ahead_ends_at_each_deadlock() -> None:
    """From a deadlock that two of three workers are in, there is nothing further to see, though the third can go on."""
    made = model(OLD_CLAIM, workers=3)
    near = deadlocks_ahead(made, made.initial).deadlocks[0]
    assert made.actions(near.state)
    here = deadlocks_ahead(made, near.state)
    assert (here.states, here.stopped) == (1, None)
    assert [(found.actions, found.state, found.members) for found in here.deadlocks] == [((), near.state, near.members)]


def test_a_search_ahead_is_bounded() -> None:
    """It says so, and claims nothing beyond."""
    made = model("specs/striped.yaml")
    ahead = deadlocks_ahead(made, made.initial, max_states=100)
    assert (ahead.deadlocks, ahead.states, ahead.stopped) == ((), 100, "reached the limit of 100 states")
    whole = deadlocks_ahead(made, made.initial)
    assert (whole.deadlocks, whole.states, whole.stopped) == ((), 1_005, None)


# Traces that are kept


def test_what_was_stepped_can_be_read_back() -> None:
    """On generated specs: the same spec, workers and steps; the violation of the last state, if there is one."""
    violated = set()
    for number in range(60):
        made = parsed(to_yaml(spec_of(numbered(number))))
        try:
            ahead = deadlocks_ahead(made, made.initial, max_states=2_000)
        except SpecError:
            continue
        actions = ahead.deadlocks[0].actions if ahead.deadlocks else made.actions(made.initial)[:1]
        trace = made.trace(actions)
        loaded = read_trace(write_trace(made, trace))
        assert loaded.trace == trace, number
        assert loaded.violated == made.violated(trace.last)
        assert schedule_of(made, loaded.trace).actions == actions
        violated.add(loaded.violated)
    assert {None, "no deadlock"} <= violated


def test_a_kept_trace_has_its_overrides() -> None:
    """And roles: it is read back with the same constants."""
    made = model(OLD_CLAIM, workers=3, sets={"stripe": 3, "slot": ["x"]})
    trace = made.trace(deadlocks_ahead(made, made.initial).deadlocks[0].actions)
    loaded = read_trace(write_trace(made, trace))
    assert (loaded.overrides, loaded.trace, loaded.system.sets) == (made.overrides, trace, made.system.sets)


def test_the_public_names_are_there() -> None:
    """What docs/python.md uses."""
    for name in ("model", "Model", "deadlocks_ahead", "state_graph", "lock_order_graph", "waits_for_graph",
                 "may_wait_graph", "write_trace"):  # fmt: skip
        assert callable(getattr(lockmodel, name)), name
    with pytest.raises(LockmodelError):
        lockmodel.model("absent.yaml")


# The document

EXAMPLE = re.compile(
    r"<!-- example: (?P<file>\S+) -->\n(?P<body>(?:\n```python\n.*?```\n\n```text\n.*?```\n)?)", re.DOTALL
)


def examples() -> list[re.Match[str]]:
    return list(EXAMPLE.finditer(DOCUMENT.read_text()))


@pytest.mark.parametrize("example", examples(), ids=lambda example: example["file"])
def test_an_example_runs_and_prints_what_the_document_says(example: re.Match[str]) -> None:
    """The document shows the file as it is, and what it prints."""
    source = (ROOT / example["file"]).read_text()
    run = subprocess.run(
        [sys.executable, example["file"]], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True,
        text=True, timeout=60,
    )  # fmt: skip
    assert (run.returncode, run.stderr) == (0, "")
    body = f"\n```python\n{source}```\n\n```text\n{run.stdout}```\n"
    if os.environ.get("SNAP_UPDATE"):
        head = f"<!-- example: {example['file']} -->\n"
        DOCUMENT.write_text(DOCUMENT.read_text().replace(head + example["body"], head + body))
    else:
        assert example["body"] == body


def test_every_example_is_in_the_document() -> None:
    """None is forgotten."""
    files = {str(path.relative_to(ROOT)) for path in (ROOT / "docs" / "examples").glob("*.py")}
    assert {example["file"] for example in examples()} == files


def test_the_code_in_the_document_runs() -> None:
    """What is no example of its own, too."""
    text = EXAMPLE.sub("", DOCUMENT.read_text())
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "docs/python.md", "exec"), {})


def test_the_document_names_what_there_is() -> None:
    """Each method in its table is one of the class, and each attribute of a graph is there."""
    text = DOCUMENT.read_text()
    made = model(OLD_CLAIM)
    table = text.partition("| of a model |")[2].partition("\n\n")[0]
    names = {name for row in re.findall(r"^\| (`.*?`) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)", row)}
    assert names == {name for name in dir(made) if not name.startswith("_")} - {"overrides", "named"}
    graph = state_graph(made)
    attributes = {*graph.nodes[made.initial], *next(iter(graph.edges(data=True)))[2], *graph.graph}
    order = lockmodel.lock_order_graph(made)
    attributes |= {*order.nodes["lane[0]"], *order.edges["lane[0]", "lane[1]"]}
    tables = "".join(re.findall(r"^\| `.*? \| (?:node|edge|graph) \|", text, re.MULTILINE))
    assert set(re.findall(r"`(\w+)`", tables)) == attributes
