"""The explorer of the HTML report in a real Chromium: what its script reaches, what its buttons, keys and links do."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from chromium import answer, needs_chromium
from generated import Tape, spec_of, to_yaml
from test_html import HOSTILE, OLD_CLAIM

import lockmodel
from lockmodel.ahead import deadlocks_ahead
from lockmodel.errors import LockmodelError
from lockmodel.report import html
from lockmodel.report.html import tables
from lockmodel.report.trace_file import read_trace
from lockmodel.semantics import State
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


def reached(made: Model) -> dict[State, tuple[bool, int, int]] | None:
    """All states by the reference semantics, each with whether it is a stall, how many are stuck and how many wait; None beyond the bound."""
    semantics = made.semantics
    found = {semantics.initial: None}
    queue = [semantics.initial]
    for state in queue:
        for action in semantics.actions(state):
            successor = semantics.after(state, action)
            if successor not in found:
                found[successor] = None
                queue.append(successor)
        if len(found) > MOST_STATES:
            return None
    return {s: (semantics.stalled(s), len(semantics.stuck(s)), len(semantics.waiting(s))) for s in found}


def test_the_script_reaches_the_states_of_the_reference(tmp_path: Path) -> None:
    """On generated specs: the same states, and in each the same workers that wait, can never go on, or stall."""
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    models: list[tuple[Model, dict[State, tuple[bool, int, int]]]] = []
    while len(models) < SPECS:
        try:
            made = model(lockmodel.parse(to_yaml(spec_of(Tape(chance.randbytes(400))))))
            states = reached(made)
        except LockmodelError:
            continue  # A value leaves its domain: there is nothing to compare.
        if states is not None:
            models.append((made, states))
    assert sum(any(stuck for _, stuck, _ in states.values()) for _, states in models) >= SPECS // 6
    assert sum(len(states) for _, states in models) > 2_000
    all_tables = html.embedded({"all": [tables.tables(made) for made, _ in models]})
    document = f"<!DOCTYPE html><body><script>{html.resource('model.js')}; const tables = {all_tables};</script></body>"
    script = """
      return tables.all.map((one) => {
        const model = createModel(one);
        const seen = new Map([[model.key(model.initial), model.initial]]);
        for (const state of seen.values()) {
          for (const action of model.actions(state)) {
            const next = model.after(state, action);
            if (!seen.has(model.key(next))) seen.set(model.key(next), next);
          }
        }
        return [...seen].map(([key, state]) => [key, model.stalled(state), model.stuck(state).size, model.waiting(state).size]);
      });
    """
    for (made, states), found in zip(models, answer(document, script, tmp_path), strict=True):
        told = {key: (stalled, stuck, waiting) for key, stalled, stuck, waiting in found}
        expected = {f"{','.join(map(str, s.locations))}|{s.valuation}": facts for s, facts in states.items()}
        assert told == expected, made.spec.source.text


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


def test_a_phone_shows_it_without_scrolling_sideways(tmp_path: Path) -> None:
    """390 pixels: only tables and pictures scroll, within themselves."""
    inner = page_of("specs/queue/bulk-retry.yaml")
    script = """
      const frame = document.querySelector("iframe");
      if (!frame.contentDocument?.querySelector(".lanes")) await new Promise((resolve) => frame.addEventListener("load", resolve));
      const root = frame.contentDocument.documentElement;
      return [frame.contentWindow.innerWidth, root.scrollWidth - root.clientWidth];
    """
    # A page may look into a frame only if both come from one place, which files do not.
    frame = f"<!DOCTYPE html><body><iframe style='width:390px;height:900px;border:0'></iframe><script>document.querySelector('iframe').srcdoc = {html.embedded({'page': inner})}.page</script></body>"
    width, beyond = answer(frame, script, tmp_path)
    assert (width, beyond) == (390, 0)


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
