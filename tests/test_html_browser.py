"""The explorer of the HTML report in a real Chromium: what its script reaches, what its buttons, keys and links do."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import networkx
import pytest
from chromium import answer, needs_chromium
from generated import Tape, spec_of, to_yaml
from test_html import HOSTILE, OLD_CLAIM

import lockmodel
from lockmodel.ahead import deadlocks_ahead
from lockmodel.compiler import Compilation, compile_spec
from lockmodel.errors import LockmodelError, SpecError
from lockmodel.explanation import Ends, stall_in
from lockmodel.overrides import Overrides, apply
from lockmodel.parser import load_any
from lockmodel.properties import Evaluator, evaluators
from lockmodel.replay.replayer import TraceReplay
from lockmodel.replay.scenarios import run, schedule_trace
from lockmodel.report import html
from lockmodel.report.html import document, tables
from lockmodel.report.trace_file import read_trace
from lockmodel.resolver import resolve
from lockmodel.scenario import Scenario
from lockmodel.semantics import Semantics, State
from lockmodel.spec import Spec
from lockmodel.stepping import Model, model

pytestmark = [pytest.mark.chromium, needs_chromium]

SEED = 20
SPECS = 60
MOST_STATES = 1_500

BUTTON = """
const root = document.querySelector(".explorer");
const press = (words) => {
  const button = [...root.querySelectorAll("button")].find((one) => (one.getAttribute("aria-label") || one.textContent) === words);
  if (!button) throw new Error(`no button ${words}; there are ${[...root.querySelectorAll("button")].map((one) => one.getAttribute("aria-label") || one.textContent)}`);
  button.click();
};
const key = (name) => document.body.dispatchEvent(new KeyboardEvent("keydown", { key: name, bubbles: true, cancelable: true }));
const explorer = page.explorer(0);
const told = () => root.querySelector(".status").textContent;
const steps = () => [...root.querySelectorAll("tbody tr")].map((row) => row.textContent);
const sleep = (time) => new Promise((resolve) => setTimeout(resolve, time));
"""


def page_of(spec: str) -> str:
    return html.report([lockmodel.check(lockmodel.load(spec))])


Facts = tuple[bool, int, int, tuple[bool | str, ...], object]
"""Of a state: whether it is a global stall, how many are stuck, how many wait, of each formula whether it is violated, or FAULT, and the stall:
who is held up by a queue behind whom, and whether Postgres ends it."""
FAULT = "it has no meaning here"


def reached(made: Model, most: int = MOST_STATES) -> dict[State, Facts] | None:
    """All states by the reference semantics; None beyond the bound."""
    semantics = made.semantics
    found = {semantics.initial: None}
    queue = [semantics.initial]
    for state in queue:
        for action in semantics.actions(state):
            successor = semantics.after(state, action)
            if successor not in found:
                found[successor] = None
                queue.append(successor)
        if len(found) > most:
            return None
    formulas = evaluators(semantics)
    return {state: facts(made, state, formulas) for state in found}


def facts(made: Model, state: State, formulas: list[Evaluator]) -> Facts:
    semantics = made.semantics
    waiting = semantics.waiting(state)
    verdicts = tuple(verdict(one, state, waiting) for one in formulas)
    # The view of a stall is for specs that ask for it, so that here all do.
    semantics = Semantics(replace(semantics.system, no_stall=True), semantics.crew)
    stall = stall_in(semantics, state)
    queue = [
        [[worker, ahead] for worker, ahead in semantics.delayed(state).items()],
        stall and [stall.waiter, list(stall.delayed), stall.ends is Ends.REARRANGED],
    ]
    return semantics.stalled(state), len(semantics.stuck(state)), len(waiting), verdicts, queue


def verdict(formula: Evaluator, state: State, waiting: dict[int, list[int]]) -> bool | str:
    try:
        return formula.violated(state, waiting)
    except SpecError:
        return FAULT


REACH = """
  const queue = (model, state) => {
    const stall = model.stall(state);
    return [[...model.delayed(state)], stall && [stall.waiter, stall.heldUp, stall.rearranged]];
  };
  const reach = (one) => {
    const model = createModel(one);
    const formulas = createFormulas(model);
    const seen = new Map([[model.key(model.initial), model.initial]]);
    for (const state of seen.values()) {
      for (const action of model.actions(state)) {
        const next = model.after(state, action);
        if (!seen.has(model.key(next))) seen.set(model.key(next), next);
      }
    }
    const told = (state) => formulas(state).map((one) => (one.fault === undefined ? one.broken : "it has no meaning here"));
    return [...seen].map(([key, state]) => [key, model.stalled(state), model.stuck(state).size, model.waiting(state).size, told(state), queue(model, state)]);
  };
  return tables.all.map(reach);
"""


def compare_all(models: list[tuple[Model, dict[State, Facts]]], folder: Path) -> None:
    """The script reaches the states of each model, and says the same of each."""
    all_tables = document.embedded({"all": [tables.tables(made) for made, _ in models]})
    scripts = document.resource("model.js") + document.resource("formulas.js").removeprefix('"use strict";')
    page = f"<!DOCTYPE html><body><script>{scripts}; const tables = {all_tables};</script></body>"
    for (made, states), found in zip(models, answer(page, REACH, folder), strict=True):
        told = {key: (*facts, tuple(formulas), queue) for key, *facts, formulas, queue in found}
        expected = {f"{','.join(map(str, s.locations))}|{s.valuation}": facts for s, facts in states.items()}
        assert told == expected, made.spec.source.text


def test_the_script_reaches_the_states_of_the_reference(tmp_path: Path) -> None:
    """On generated specs: the same states, and in each the same workers that wait, can never go on, or stall, and the same formulas."""
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    models: list[tuple[Model, dict[State, Facts]]] = []
    while len(models) < SPECS:
        try:
            made = model(lockmodel.parse(to_yaml(spec_of(Tape(chance.randbytes(400))))))
            states = reached(made)
        except LockmodelError:
            continue  # A value leaves its domain: there is nothing to compare.
        if states is not None:
            models.append((made, states))
    all_facts = [facts for _, states in models for facts in states.values()]
    assert sum(any(stuck for _, stuck, *_ in states.values()) for _, states in models) >= SPECS // 6
    assert len(all_facts) > 2_000
    violated = [formula for *_, formulas, _ in all_facts for formula in formulas]
    assert min(violated.count(True), violated.count(False)) > 500
    compare_all(models, tmp_path)


FORMULAS = """
name: formulas
sets: {stripe: 2, queue: [mail, 7]}
variables:
  number: {values: [-3, -2, 0, 2, 5]}
  word: {values: ["7", other, "true"]}
  truth: {values: [false, true]}
resources:
  lane: {kind: row, per: [stripe, queue]}
  gate: {kind: lock}
transactions:
  put:
    choose: {s: stripe, q: queue}
    let: {mine: s}
    steps:
      - if: number == -3
        then: [set: {number: -2}]
        else: [set: {number: 0 if number == -2 else 2 if number == 0 else 5}]
      - lane[s, q]: FOR UPDATE
      - set: {word: "'7' if word == 'true' else other", truth: not truth}
      - gate: SHARED
      - gate: EXCLUSIVE
      - set: {mine: 1 - s}
      - set: {word: "'true'"}
roles: {crew: {count: 2, runs: [put]}}
never:
FORMULAS
"""
WRITTEN = """
number == 2 and word != other
number // 2 == -2 or number % 2 == 1 and number % -3 == -1
number // -2 + number * 3 - 1 > 4
-number <= 2 < number + 5 <= 10
number in (-3, 5) and word not in ['7', other]
count(w.q == 7) == 2
word == 'true' and truth == true
(number == 2) == truth
count(w.mine == 1) == 1
count(w.mine != 0) > 0
count(w.mine in (0, 5)) == 2
count(w.mine not in (0, 5)) == 1
count(w.transaction == put) >= 1 and count(w.status == idle) == 1
count(w.role == crew) == 2 and truth
count(w.holds(lane)) == 2
any(any(count(w.holds(lane[s, q])) > 0 and count(w.holds(lane[1 - s, q], 'FOR UPDATE')) > 0 for q in queue) for s in stripe)
count(w.holds(lane[0, 7])) == 1
count(w.waits_for(gate, 'EXCLUSIVE')) == 2
count(w.waits_for(lane) and not w.holds(gate, 'SHARED')) + count(w.waits_for(gate)) == 1
all(count(w.holds(lane[(s + 1) % 2, mail])) >= s for s in stripe)
count(w.mine == 0 if truth else w.mine == 1) == 1
10 // number > 2
all(number != 0 or 1 // (number + s) > 0 for s in stripe)
number == 5 or truth + 1 > 0
count(w.mine + 1 > 1) > 0
number * 1000000000000 > 0
not (number - 1 > 0 and not truth)
"""


def test_every_kind_of_formula_is_evaluated_as_in_python(tmp_path: Path) -> None:
    """Each operator and each thing that a formula can ask, in every state; also where it has no meaning."""
    written = [line for line in WRITTEN.splitlines() if line]
    listed = "".join(f"  f{number}: {json.dumps(text)}\n" for number, text in enumerate(written))
    made = model(lockmodel.parse(FORMULAS.replace("FORMULAS\n", listed)))
    states = reached(made, most=100_000)
    assert states is not None
    by_formula = list(zip(*(formulas for *_, formulas, _ in states.values()), strict=True))
    assert not [text for text, values in zip(written, by_formula, strict=True) if len(set(values)) == 1]
    assert sum(FAULT in values for values in by_formula) >= 5
    compare_all([(made, states)], tmp_path)


QUEUES = """
name: queues
resources:
  t: {kind: table}
  u: {kind: table}
  key: {kind: advisory}
transactions:
  read: {steps: [t: ACCESS SHARE, u: ROW EXCLUSIVE]}
  alter: {steps: [t: ACCESS EXCLUSIVE, key: EXCLUSIVE]}
  back: {steps: [u: SHARE, t: SHARE]}
  lock: {steps: [key: SHARED, t: EXCLUSIVE]}
workers: 3
no stall: true
expect: stall
"""


def test_who_is_held_up_by_a_queue_is_told_as_in_python(tmp_path: Path) -> None:
    """In every state of a spec with three workers; both kinds of stall occur."""
    made = model(lockmodel.parse(QUEUES))
    states = reached(made, most=100_000)
    assert states is not None
    stalls = [queue[1] for *_, queue in states.values() if isinstance(queue, list) and queue[1] is not None]
    assert {rearranged for *_, rearranged in stalls} == {False, True}
    compare_all([(made, states)], tmp_path)


def test_a_stall_is_shown_and_downloaded_as_one(tmp_path: Path) -> None:
    """Who waits behind whom, in the schedule, in the pictures, and as the outcome of the scenario."""
    script = """
      return { told: (explorer.moved(), told()), last: steps().at(-1), now: root.querySelector(".workers").textContent, outcome: /outcome: (.*)/.exec(explorer.scenario())[1],
        violated: JSON.parse(explorer.report()).results[0].violated, dashed: root.querySelectorAll(".graphs section:first-child .edge.weak").length };
    """
    told = answer(html.report([lockmodel.check(lockmodel.parse(STALL))]), BUTTON + script, tmp_path)
    assert "Stall: 1 worker held up by a queue." in told["told"]
    assert "waits for t ACCESS SHARE, in the queue behind worker " in told["now"]
    assert (told["outcome"], told["violated"], told["dashed"]) == ("stall", "no stall", 1)


STALL = """
name: stall
resources: {t: {kind: table}}
transactions:
  read: {steps: [t: ACCESS SHARE]}
  alter: {steps: [t: ACCESS EXCLUSIVE]}
workers: 3
no stall: true
expect: stall
"""


def test_one_clicks_into_the_deadlock(tmp_path: Path) -> None:
    """From the beginning, action by action, until the page says that nobody can go on."""
    script = """
      press("Beginning");
      for (const words of ["worker 2: start claim (r=1, c=1), then lane[1] FOR UPDATE", "worker 1: start enqueue", "worker 1: lane[0] FOR UPDATE", "worker 2: lane[1] FOR UPDATE",
          "worker 2: ready[1] ACCESS SHARE", "worker 2: claims[1] ROW EXCLUSIVE"]) press(words);
      return { told: told(), steps: steps(), now: root.querySelector(".workers").textContent, circle: root.querySelectorAll(".graphs section:first-child .edge.marked").length };
    """
    told = answer(page_of(OLD_CLAIM), BUTTON + script, tmp_path)
    assert told["told"] == "Step 6 of 6. Deadlock: 2 workers can never go on."
    assert "waits for lane[0] FOR UPDATE, held by worker 1" in told["steps"][-1]
    assert told["now"].count("can never go on") == 2
    assert told["circle"] == 2


def test_undo_redo_and_jump_by_buttons_and_keys(tmp_path: Path) -> None:
    """Each way to move leads to the same places; what was undone is kept until something else is done."""
    script = """
      const places = [explorer.at];
      const note = () => places.push(explorer.at);
      press("◂ Undo"); note(); key("ArrowLeft"); note(); press("Redo ▸"); note(); key("Home"); note(); key("End"); note();
      press("Go to step 2"); note(); key("1"); note(); key("t"); note();
      return { places, current: root.querySelector("[aria-current=step] th").textContent };
    """
    told = answer(page_of(OLD_CLAIM), BUTTON + script, tmp_path)
    assert told == {"places": [6, 5, 4, 5, 0, 6, 2, 3, 6], "current": "6"}


def test_the_deadlocks_from_here_are_those_of_the_search_in_python(tmp_path: Path) -> None:
    """As many kinds, with ways of the same lengths; following one leads into it."""
    made = model(OLD_CLAIM)
    found = deadlocks_ahead(made, made.initial)
    script = """
      key("Home");
      await explorer.search();
      const lengths = [...root.querySelectorAll(".found button")].map((one) => Number(/In (\\d+) step/.exec(one.textContent)[1]));
      const said = told();
      root.querySelector(".found button").click();
      return { lengths, said, after: told() };
    """
    told = answer(page_of(OLD_CLAIM), BUTTON + script, tmp_path)
    assert sorted(told["lengths"]) == sorted(len(one.actions) for one in found.deadlocks)
    assert f"in {found.states:,} states" in told["said"]
    assert "can never go on" in told["after"]


def test_no_deadlock_from_here_is_said_only_if_all_was_seen(tmp_path: Path) -> None:
    """A complete search says no; one that ended early says that it did."""
    script = """
      await explorer.search();
      const short = await explorer.model.deadlocksAhead(explorer.state, 50);
      return { said: told(), short: [short.stopped, short.states] };
    """
    told = answer(page_of("specs/striped.yaml"), BUTTON + script, tmp_path)
    assert told["said"].startswith("No deadlock can be reached from here (")
    assert told["short"] == [True, 50]


def test_a_link_leads_to_its_schedule(tmp_path: Path) -> None:
    """The fragment has the steps; a link of another model is not followed, and neither is an impossible step."""
    page = page_of(OLD_CLAIM)
    script = 'press("Go to step 3"); await sleep(500); return location.hash;'
    fragment = answer(page, BUTTON + script, tmp_path)
    assert fragment.startswith("#result-0/")
    look = "return [explorer.at, explorer.steps.length, told()];"
    assert answer(page, BUTTON + look, tmp_path, fragment=fragment) == [3, 3, "The schedule of the link, 3 steps."]
    digest = fragment.split("/")[1]
    other = answer(page, BUTTON + look, tmp_path, fragment=f"#result-0/00000000/{fragment.split('/')[2]}")
    assert other[2] == "The link is of another version of this spec, so it is not followed."
    wrong = answer(page, BUTTON + look, tmp_path, fragment=f"#result-0/{digest}/9.9-0.0")
    assert wrong == [0, 0, "The link is of another model: its step 1 is not possible."]


def test_a_downloaded_schedule_is_one_that_replay_reads(tmp_path: Path) -> None:
    """It is checked step by step when it is read, whatever the page says."""
    text = answer(page_of(OLD_CLAIM), BUTTON + "return explorer.report();", tmp_path)
    loaded = read_trace(text, "schedule.json")
    assert len(loaded.trace.actions) == 6
    assert json.loads(text)["results"][0]["violated"] == "no deadlock"
    part = answer(page_of(OLD_CLAIM), BUTTON + 'key("ArrowLeft"); return explorer.report();', tmp_path)
    assert len(read_trace(part, "schedule.json").trace.actions) == 5


def scenario_of(text: str, folder: Path) -> Scenario:
    """A downloaded scenario, read from a file as `lockmodel replay` reads it."""
    file = folder / "schedule.yaml"
    file.write_text(text, encoding="utf-8")
    found = load_any(file)
    assert isinstance(found, Scenario)
    return found


CLICKS = """
  press("Beginning");
  for (const words of ["worker 2: start claim (r=1, c=1), then lane[1] FOR UPDATE", "worker 1: start enqueue", "worker 1: lane[0] FOR UPDATE", "worker 2: lane[1] FOR UPDATE",
      "worker 2: ready[1] ACCESS SHARE", "worker 2: claims[1] ROW EXCLUSIVE"]) press(words);
"""


@pytest.mark.postgres
def test_a_clicked_schedule_is_a_scenario_that_postgres_confirms(dsn: str, tmp_path: Path) -> None:
    """The deadlock into which one clicked comes about on a server; the steps before it end in none."""
    script = f"{CLICKS} const deadlock = explorer.scenario(); press('◂ Undo'); return [deadlock, explorer.scenario()];"
    deadlock, before = answer(page_of(OLD_CLAIM), BUTTON + script, tmp_path)
    done = run(scenario_of(deadlock, tmp_path), dsn)
    assert isinstance(done.replay, TraceReplay)
    assert (done.unmet, done.scenario.outcome) == (None, "deadlock")
    assert done.trace is not None and len(done.trace.actions) == 6
    assert "worker 2: start claim (r=1, c=1), then lane[1] FOR UPDATE" in deadlock
    assert done.replay.performance is not None and done.replay.performance.deadlock is not None
    earlier = run(scenario_of(before, tmp_path), dsn)
    assert (earlier.unmet, earlier.scenario.outcome) == (None, "confirmed")


def test_a_download_hands_over_what_the_scenario_says(tmp_path: Path) -> None:
    """The button makes a file of the spec's name, and the line below says what to do with it."""
    script = """
      const made = [];
      URL.createObjectURL = (blob) => { made.push(blob); return "#"; };
      HTMLAnchorElement.prototype.click = function () { made.push(this.download); };
      press("Scenario"); key("s");
      return [made[1], await made[0].text() === explorer.scenario(), made[3], await made[2].text() === explorer.report(), told()];
    """
    name = "striped-old-claim-schedule"
    told = answer(page_of(OLD_CLAIM), BUTTON + script, tmp_path)
    assert told == [f"{name}.yaml", True, f"{name}.json", True, f"Replay it: lockmodel replay {name}.json"]


CHOICE = """
name: 'it''s a choice: "quoted"'
sets: {item: [x, y]}
resources:
  a: {kind: lock}
  b: {kind: lock, per: [item]}
transactions:
  first:
    choose: {i: item}
    steps:
      - a: EXCLUSIVE
      - either:
          - [{"b[i]": SHARED}]
          - [{"b[i]": EXCLUSIVE}]
  second:
    steps:
      - b[x]: SHARED
      - {a: EXCLUSIVE, label: "the last  lock: a # here"}
expect: deadlock
"""


def test_a_choice_that_takes_no_time_is_told_apart_in_a_scenario(tmp_path: Path) -> None:
    """Which branch is taken can be seen only by what comes next, and a schedule may end before that."""
    result = lockmodel.check(lockmodel.parse(CHOICE), Overrides({"item": ("x",)}, 3))
    script = """
      press("Beginning");
      press("worker 3: start second"); press("worker 3: b[x] SHARED");
      press("worker 1: start first (i=x)");
      const clicked = ["SHARED", "EXCLUSIVE"].map((mode) => {
        press(`worker 1: a EXCLUSIVE, then b[x] ${mode}`);
        const text = explorer.scenario();
        press("◂ Undo");
        return [text, explorer.at];
      });
      press("Beginning"); press("worker 3: start second"); press("worker 3: b[x] SHARED"); press("worker 3: the last  lock: a # here: a EXCLUSIVE");
      return [...clicked.map(([text]) => text), explorer.scenario()];
    """
    shared, exclusive, labelled = answer(html.report([result]), BUTTON + script, tmp_path)
    found = scenario_of(labelled, tmp_path)
    assert isinstance(found.spec, Spec)
    spec = apply(found.spec, Overrides({"item": ("x",)}, 3))
    assert len(schedule_trace(found, Compilation(resolve(spec))).actions) == 3
    assert (scenario_of(shared, tmp_path).outcome, scenario_of(exclusive, tmp_path).outcome) == (
        "confirmed",
        "deadlock",
    )
    for text, stuck in ((shared, 0), (exclusive, 2)):
        found = scenario_of(text, tmp_path)
        assert (found.workers, found.set) == (3, {"item": ["x"]})
        assert isinstance(found.spec, Spec)
        spec = apply(found.spec, Overrides({"item": ("x",)}, 3))
        trace = schedule_trace(found, Compilation(resolve(spec)))
        assert len(Semantics(compile_spec(spec), trace.crew).stuck(trace.last)) == stuck


def test_a_scenario_has_the_spec_as_it_is(tmp_path: Path) -> None:
    """Two spaces further in, every spec that ships still says the same; and so do odd ones."""
    odd = (
        "\ufeff--- # begins\r\n"
        + "\r\n".join(CHOICE.splitlines())
        + "\r\nschema: |+\r\n   SELECT '---';\r\n\r\n    SELECT 2\r\n...\r\n"
    )
    texts = [path.read_text(encoding="utf-8") for path in sorted(Path("specs").rglob("*.yaml"))]
    texts += [odd, "--- {" + ", ".join(f'"{key}": {json.dumps(value)}' for key, value in FLOW.items()) + "}\n"]
    page = f"<!DOCTYPE html><body><script>{document.resource('downloads.js')}; const texts = {document.embedded({'all': texts})}.all;</script></body>"
    indented = answer(page, "return texts.map(indented);", tmp_path)
    assert len(texts) > 20
    for text, moved in zip(texts, indented, strict=True):
        found = scenario_of(f"scenario: x\noutcome: deadlock\nspec:\n{moved}\n", tmp_path)
        assert isinstance(found.spec, Spec)
        assert repr(found.spec) == repr(lockmodel.parse(text.encode()))


FLOW = {"name": "flow", "resources": {"a": {"kind": "lock"}}, "transactions": {"t": {"steps": [{"a": "SHARED"}]}}}


def test_numbers_for_single_roles_are_no_scenario(tmp_path: Path) -> None:
    """A scenario can't say them, so there is no button, and the key says why."""
    spec = "name: r\nresources: {a: {kind: lock}}\ntransactions: {t: {steps: [a: SHARED]}}\nroles: {x: {runs: [t]}}\n"
    page = html.report([lockmodel.check(lockmodel.parse(spec), Overrides({}, {"x": 2}))])
    script = (
        'key("y"); return [told(), [...root.querySelectorAll("button")].some((one) => one.textContent === "Scenario")];'
    )
    told, button = answer(page, BUTTON + script, tmp_path)
    assert told.startswith("A scenario can't give a number of workers to a single role")
    assert not button


def test_nothing_in_a_spec_runs(tmp_path: Path) -> None:
    """Names full of markup are shown as they are, in the schedule, the buttons and the graphs."""
    page = html.report([lockmodel.check(lockmodel.parse(HOSTILE))])
    script = """
      const text = root.textContent;
      key("Home");
      return { images: document.images.length, scripts: document.scripts.length, text: text + root.textContent };
    """
    told = answer(page, BUTTON + script, tmp_path)
    assert told["images"] == 0
    assert told["scripts"] == 3  # The data, the page's script and this test's.
    assert "starts <img src=x onerror=alert(1)>" in told["text"]
    assert 'start it\'s "quoted" & 🔒' in told["text"]


def test_every_control_has_a_name_and_pictures_are_described(tmp_path: Path) -> None:
    """What a screen reader needs: names of controls, headings, a live region, descriptions."""
    script = """
      const unnamed = [...root.querySelectorAll("button, input, select")].filter((one) => !(one.getAttribute("aria-label") || one.textContent).trim());
      return { unnamed: unnamed.length, pictures: [...root.querySelectorAll("svg")].map((one) => one.getAttribute("aria-label")), live: root.querySelectorAll("[aria-live]").length,
        heads: [...root.querySelectorAll("thead th")].map((one) => one.getAttribute("scope")), lang: document.documentElement.lang };
    """
    told = answer(page_of(OLD_CLAIM), BUTTON + script, tmp_path)
    assert (told["unnamed"], told["live"], told["lang"]) == (0, 1, "en")
    assert told["pictures"][0].startswith(
        "Who waits for whom: worker 1 waits for lane[1] FOR UPDATE, which worker 2 holds"
    )
    assert set(told["heads"]) == {"col"}


def on_a_phone(page: str, folder: Path) -> list[int]:
    """How wide `page` is in a window of 390 pixels, and how many pixels of it are beyond the edge."""
    script = """
      const frame = document.querySelector("iframe");
      if (!frame.contentDocument?.querySelector(".lanes")) await new Promise((resolve) => frame.addEventListener("load", resolve));
      const root = frame.contentDocument.documentElement;
      return [frame.contentWindow.innerWidth, root.scrollWidth - root.clientWidth];
    """
    # A page may look into a frame only if both come from one place, which files do not.
    frame = f"<!DOCTYPE html><body><iframe style='width:390px;height:900px;border:0'></iframe><script>document.querySelector('iframe').srcdoc = {document.embedded({'page': page})}.page</script></body>"
    found: list[int] = answer(frame, script, folder)
    return found


@pytest.mark.parametrize("spec", ["specs/queue/bulk-retry.yaml", "specs/awa/storage-authority.yaml"])
def test_a_phone_shows_it_without_scrolling_sideways(spec: str, tmp_path: Path) -> None:
    """390 pixels: only tables and pictures scroll, within themselves."""
    assert on_a_phone(page_of(spec), tmp_path) == [390, 0]


LEADERS = """
name: leaders
variables: {term: {values: 3}}
resources: {leader: {kind: lock}}
transactions:
  lead:
    let: {mine: term}
    steps:
      - leader: SHARED
      - set: {term: "(term + 1) % 3"}
workers: 2
never:
  two leaders: count(w.holds(leader)) > 1
always:
  early: term < 2
  whole: 6 // (2 - term) > 0
expect: {violated: two leaders}
"""


def test_each_step_tells_which_formulas_are_kept(tmp_path: Path) -> None:
    """One goes into a violation by clicks: the list, the step's number, the live region and the download say so."""
    script = """
      const list = () => [...root.querySelectorAll(".properties li")].map((one) => [one.className, one.querySelector("strong").textContent]);
      key("Home");
      const before = list();
      for (const words of ["worker 1: start lead", "worker 1: leader SHARED", "worker 1: set term = (term + 1) % 3", "worker 2: start lead", "worker 2: leader SHARED"]) press(words);
      const two = [list(), told(), JSON.parse(explorer.report()).results[0].violated, root.querySelector("tr.now button").getAttribute("aria-label")];
      press("worker 2: set term = (term + 1) % 3");
      return { before, two, after: list(), text: root.querySelector(".properties").textContent };
    """
    result = lockmodel.check(lockmodel.parse(LEADERS.replace("  whole: 6 // (2 - term) > 0\n", "")))
    data = html.report([result])
    told = answer(data, BUTTON + script, tmp_path)
    assert told["before"] == [["kept", "two leaders"], ["kept", "early"]]
    marked, said, violated, label = told["two"]
    assert marked == [["broken", "two leaders"], ["kept", "early"]]
    assert said.endswith("Violates two leaders.") and violated == "two leaders"
    assert label == "Go to step 5, which violates two leaders"
    assert told["after"] == [["broken", "two leaders"], ["broken", "early"]]
    assert "never: count(w.holds(leader)) > 1" in told["text"]


def test_two_thousand_steps_stay_quick(tmp_path: Path) -> None:
    """Loading them, and each step after, takes time that nobody notices."""
    script = """
      const walk = [];
      let state = explorer.model.initial;
      while (walk.length < 2000) {
        const next = explorer.model.actions(state)[walk.length % 3 ? 0 : explorer.model.actions(state).length - 1];
        walk.push(next);
        state = explorer.model.after(state, next);
      }
      const began = Date.now();
      explorer.load(walk);
      document.body.offsetHeight;
      const loaded = Date.now() - began;
      const then = Date.now();
      for (let step = 0; step < 20; step++) { explorer.jump(explorer.at - 1); document.body.offsetHeight; }
      return { rows: steps().length, loaded, each: (Date.now() - then) / 20, at: explorer.at };
    """
    told = answer(page_of("specs/striped.yaml"), BUTTON + script.replace("Date.now", "performance.now"), tmp_path)
    print(told)
    assert (told["rows"], told["at"]) == (2001, 1980)
    # A quiet machine needs a fraction of this.
    assert told["loaded"] < 5_000
    assert told["each"] < 500


def test_thirty_resources_in_one_order_are_a_picture_one_can_read(tmp_path: Path) -> None:
    """Of 435 arrows, the 29 that imply the others are drawn; nodes don't lie on each other, and arrows lead down."""
    script = """
      const nodes = Array.from({ length: 30 }, (_, number) => `r${number}`);
      const edges = nodes.flatMap((from, low) => nodes.slice(low + 1).map((to) => ({ from, to })));
      const left = reduced(nodes, edges);
      const wide = nodes.slice(0, 12).flatMap((from, number) => [nodes[12 + number], nodes[12 + (number * 5) % 12], nodes[29]].map((to) => ({ from, to })));
      const overlaps = (plan) => {
        const boxes = [...plan.nodes.values()];
        return boxes.flatMap((a, number) => boxes.slice(number + 1).filter((b) => a.y === b.y && Math.abs(a.x - b.x) < (a.width + b.width) / 2)).length;
      };
      const plans = [layered(nodes, left, () => 60), layered(nodes, wide, () => 60)];
      const down = plans.every((plan) => plan.edges.every(({ edge }) => plan.nodes.get(edge.from).y < plan.nodes.get(edge.to).y));
      const ring = withCircles(["a", "b", "c", "d"], [{ from: "a", to: "b" }, { from: "b", to: "c" }, { from: "c", to: "a" }, { from: "c", to: "d" }]);
      return { left: left.length, overlaps: plans.map(overlaps), down, circular: ring.map((edge) => edge.circular) };
    """
    told = answer(page_of("specs/striped.yaml"), script, tmp_path)
    assert told == {"left": 29, "overlaps": [0, 0], "down": True, "circular": [True, True, True, False]}


def test_arrows_are_left_out_only_where_a_longer_way_implies_them(tmp_path: Path) -> None:
    """On random graphs, most with circles: whatever leads from one node to another still does, and no fewer arrows would do in an order."""
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    graphs = []
    for number in range(200):
        nodes = list(range(chance.randint(2, 12)))
        pairs = {(chance.choice(nodes), chance.choice(nodes)) for _ in range(chance.randint(0, 40))}
        if number % 4 == 0:
            pairs = {(low, high) for low, high in pairs if low < high}
        graphs.append({"nodes": nodes, "edges": [{"from": a, "to": b} for a, b in sorted(pairs)]})
    page = f"<!DOCTYPE html><body><script>{document.resource('layout.js')}; const graphs = {document.embedded({'all': graphs})}.all;</script></body>"
    script = "return graphs.map(({ nodes, edges }) => reduced(nodes, edges).map((edge) => [edge.from, edge.to, edge.against]));"
    for graph, left in zip(graphs, answer(page, script, tmp_path), strict=True):
        full, some = networkx.DiGraph(), networkx.DiGraph()
        full.add_nodes_from(graph["nodes"])
        some.add_nodes_from(graph["nodes"])
        full.add_edges_from((edge["from"], edge["to"]) for edge in graph["edges"])
        some.add_edges_from((low, high) for low, high, _ in left)
        assert set(some.edges) <= set(full.edges)
        assert set(networkx.transitive_closure(some).edges) == set(networkx.transitive_closure(full).edges)
        with_the_order = networkx.DiGraph([(low, high) for low, high, against in left if not against and low != high])
        assert networkx.is_directed_acyclic_graph(with_the_order)
        if networkx.is_directed_acyclic_graph(full):
            assert set(some.edges) == set(networkx.transitive_reduction(full).edges)


def test_every_spec_that_ships_makes_a_page_without_errors(tmp_path: Path) -> None:
    """All in one report, more articles than are begun at once, and each explorer draws its graphs."""
    specs = sorted(str(path) for path in Path("specs").glob("*.yaml")) + sorted(
        map(str, Path("specs/queue").glob("*.yaml"))
    )
    page = html.report([lockmodel.check(lockmodel.load(spec)) for spec in specs])
    script = """
      page.data.results.forEach((_, number) => page.explorer(number));
      return [page.explorers.size, document.querySelectorAll(".explorer .lanes").length];
    """
    told: Any = answer(page, script, tmp_path)
    assert told == [len(specs), len(specs)]
