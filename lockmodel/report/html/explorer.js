"use strict";

const SHOWN_LANES = 8;
const SHOWN_ACTIONS = 60;
const SHOWN_STRIPS = 8;
const MOST_STATES = 20000;

const NO_SOURCE = "This is the replay of a scenario: for files with other schedules, check its spec with --html.";
const NO_SCENARIO = "A scenario can't give a number of workers to a single role, as --workers did here; s downloads the schedule as JSON.";

const assignments = (values) => values.map(([name, value]) => `${name} = ${value}`).join(", ");

/* Steps one model by hand, in `root`. A schedule is its steps ({worker, edge}), the states between them, and the place where one is. */
class Explorer {
  constructor(root, result, version) {
    Object.assign(this, { root, result, version, model: createModel(result.tables) });
    const families = [...new Set(this.model.resources.map((resource) => resource.family))];
    this.colour = new Map(families.map((family, number) => [family, `var(--lock-${number % 8})`]));
    this.families = new Map();
    this.formulas = createFormulas(this.model);
    this.onmove = () => {};
    this.build();
    this.load(result.steps.map(([worker, edge]) => ({ worker, edge })));
  }

  // The schedule

  get state() {
    return this.states[this.at];
  }

  /* Begin a new schedule and go to its end; false, and as far as it goes, if a step is not possible. */
  load(steps) {
    this.steps = [];
    this.states = [this.model.initial];
    this.slots = [this.model.workers.map(() => [])];
    this.at = 0;
    let possible = true;
    for (const step of steps) {
      if (!this.possible(step)) {
        possible = false;
        break;
      }
      this.push(step);
    }
    this.at = this.steps.length;
    this.drawSchedule();
    this.refresh();
    return possible;
  }

  possible(step) {
    return this.model.actions(this.state).some((one) => one.worker === step.worker && one.edge === step.edge && one.fault === undefined);
  }

  push(step) {
    this.steps.push({ worker: step.worker, edge: step.edge });
    this.states.push(this.model.after(this.state, step));
    this.at = this.steps.length;
    this.slots.push(this.slotsAfter(step.worker));
  }

  /* A lock keeps its strip as long as it is held. */
  slotsAfter(worker) {
    const slots = this.slots[this.at - 1].slice();
    const left = this.model.held(this.state, worker).map((lock) => {
      const name = this.model.lockName(lock);
      this.families.set(name, this.model.resources[lock[0]].family);
      return name;
    });
    const kept = slots[worker].map((name) => {
      const at = left.indexOf(name);
      return at < 0 ? null : left.splice(at, 1)[0];
    });
    for (const name of left) {
      const free = kept.indexOf(null);
      if (free < 0) kept.push(name);
      else kept[free] = name;
    }
    while (kept.length && kept[kept.length - 1] === null) kept.pop();
    slots[worker] = kept;
    return slots;
  }

  /* Go on by `action`, which replaces what was undone. */
  take(action) {
    const next = this.steps[this.at];
    if (next && next.worker === action.worker && next.edge === action.edge) return this.jump(this.at + 1);
    if (!this.possible(action)) return;
    const old = this.at;
    this.steps.length = old;
    this.states.length = old + 1;
    this.slots.length = old + 1;
    while (this.body.rows.length > old + 1) this.body.deleteRow(-1);
    this.push(action);
    if (this.lanes.includes(action.worker)) this.body.append(this.row(this.at));
    else this.drawSchedule();
    this.moved();
  }

  jump(step) {
    this.at = Math.max(0, Math.min(step, this.steps.length));
    this.moved();
  }

  /* Show a step of the schedule found, and bring it into sight. */
  goTo(step) {
    const found = this.result.steps.map(([worker, edge]) => ({ worker, edge }));
    const same = found.length === this.steps.length && found.every((one, number) => one.worker === this.steps[number].worker && one.edge === this.steps[number].edge);
    if (!same) this.load(found);
    this.jump(step);
    this.root.scrollIntoView({ block: "nearest" });
  }

  moved() {
    this.refresh();
    this.say(`Step ${this.at} of ${this.steps.length}. ${this.summary()}`);
    this.onmove();
  }

  /* The schedule up to here as text for a link. */
  get fragment() {
    return this.steps.slice(0, this.at).map((step) => `${step.worker}.${step.edge}`).join("-");
  }

  open(text) {
    const steps = text === "" ? [] : text.split("-").map((word) => {
      const [worker, edge] = word.split(".").map(Number);
      return { worker, edge };
    });
    const possible = this.load(steps);
    this.say(possible ? `The schedule of the link, ${plural(this.at, "step")}.` : `The link is of another model: its step ${this.at + 1} is not possible.`);
  }

  /* The schedule up to here, for a file. */
  get schedule() {
    const { model, version } = this;
    return { model, version, source: this.result.source, steps: this.steps.slice(0, this.at), states: this.states.slice(0, this.at + 1), violated: this.violated() };
  }

  report() {
    return reportOf(this.schedule);
  }

  scenario() {
    return scenarioOf(this.schedule);
  }

  /* Who waits only because of a queue, where the spec asks for that. */
  delayed(state = this.state) {
    return this.model.tables.queues ? this.model.delayed(state) : new Map();
  }

  /* The first property that the state violates: a deadlock comes first, then stalls, then the formulas. */
  violated(state = this.state) {
    const waits = this.model.waiting(state);
    if (this.model.stuck(state, waits).size) return "no deadlock";
    if (this.model.tables.stall && this.model.stalled(state, waits)) return "no global stall";
    if (this.delayed(state).size) return "no stall";
    return this.formulas(state, waits).find((one) => one.broken)?.property.name ?? null;
  }

  // The page

  build() {
    const button = (label, keys, onclick, title) => element("button", { type: "button", onclick, title: `${title} (${keys})`, "aria-keyshortcuts": keys }, label);
    const found = this.result.steps.length > 0;
    this.undoButton = button("◂ Undo", "ArrowLeft", () => this.jump(this.at - 1), "Take back a step");
    this.redoButton = button("Redo ▸", "ArrowRight", () => this.jump(this.at + 1), "Take again what was undone");
    this.firstButton = button("Beginning", "Home", () => this.jump(0), "Go to the beginning");
    this.lastButton = button("End", "End", () => this.jump(this.steps.length), "Go to the last step");
    const tools = element("div", { class: "tools", role: "toolbar", "aria-label": "Schedule" },
      this.firstButton, this.undoButton, this.redoButton, this.lastButton,
      found ? button("Schedule found", "t", () => this.foundTrace(), "Load the schedule that the check found") : null,
      button("Deadlocks from here", "d", () => this.search(), "Search for deadlocks that can be reached from here"),
      button("Copy link", "l", () => this.copyLink(), "Copy a link to this schedule"),
      this.result.source ? button("Download", "s", () => this.download(), "Download the schedule for lockmodel replay and explore") : null,
      this.result.source?.scenario ? button("Scenario", "y", () => this.downloadScenario(), "Download the schedule as a scenario for lockmodel replay") : null);
    this.status = element("p", { class: "status", role: "status", "aria-live": "polite" });
    this.table = element("table", { class: "lanes" });
    this.scroller = element("div", { class: "scroller", tabindex: "0", role: "region", "aria-label": "Schedule: a column for each worker, time goes down" }, this.table);
    this.actions = element("div", { class: "actions" });
    this.filter = element("input", { type: "search", placeholder: "Filter", "aria-label": "Show only actions with these words" });
    this.filter.addEventListener("input", () => this.drawActions());
    this.workers = element("ul", { class: "workers" });
    this.properties = element("div", { class: "properties" });
    this.found = element("div", { class: "found" });
    this.waits = element("div");
    this.order = element("div");
    const legend = element("ul", { class: "legend", "aria-label": "Colours of locks" },
      ...[...this.colour].map(([family, colour]) => element("li", {}, element("span", { class: "swatch", style: `background: ${colour}` }), family)),
      element("li", {}, element("span", { class: "swatch hatch" }), "waits"));
    this.root.replaceChildren(
      element("h3", {}, "Explorer"), tools, this.status,
      element("div", { class: "columns" },
        element("div", { class: "schedule" }, this.scroller, legend),
        element("div", { class: "side" },
          element("h4", {}, "What can happen next"), this.filter, this.actions, this.found,
          element("h4", {}, "Now"), this.workers, this.properties)),
      element("div", { class: "graphs" },
        element("section", {}, element("h4", {}, "Who waits for whom"), this.waits),
        element("section", {}, element("h4", {}, "Lock order"), this.order)),
      element("p", { class: "note keys" }, "Keys: ← undo, → redo, Home, End, 1 to 9 an action, d deadlocks from here, t the schedule found, l link, s download, y scenario."));
    this.drawOrder();
  }

  say(text) {
    this.status.textContent = text;
  }

  summary() {
    const stuck = this.model.stuck(this.state).size;
    const waiting = this.model.waiting(this.state).size;
    const broken = this.formulas(this.state).filter((one) => one.broken).map((one) => one.property.name);
    const violates = broken.length ? ` Violates ${broken.join(", ")}.` : "";
    const delayed = this.delayed().size;
    return this.blocked(stuck, waiting) + (delayed ? ` Stall: ${plural(delayed, "worker")} held up by a queue.` : "") + violates;
  }

  blocked(stuck, waiting) {
    if (stuck) return `Deadlock: ${plural(stuck, "worker")} can never go on.`;
    return waiting ? `${plural(waiting, "worker")} waiting.` : "Nobody waits.";
  }

  drawSchedule() {
    const { workers } = this.model;
    const acting = new Set(this.steps.map((step) => step.worker));
    const all = workers.map((_, worker) => worker);
    this.lanes = workers.length <= SHOWN_LANES ? all : all.filter((worker) => acting.has(worker));
    const strips = Math.min(SHOWN_STRIPS, Math.max(1, ...this.slots.map((slots) => Math.max(...slots.map((one) => one.length)))));
    this.table.style.setProperty("--strips", strips);
    this.table.style.setProperty("--lanes", this.lanes.length);
    const heads = this.lanes.map((worker) => element("th", { scope: "col" }, workers[worker].name));
    this.body = element("tbody", {}, ...this.states.map((_, step) => this.row(step)));
    this.table.replaceChildren(
      element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "step"), ...heads)), this.body);
    this.drawn = null;
  }

  row(step) {
    const state = this.states[step];
    const waits = this.model.waiting(state);
    const before = step ? this.model.waiting(this.states[step - 1]) : new Map();
    const delayed = this.delayed(state);
    const delayedBefore = step ? this.delayed(this.states[step - 1]) : new Map();
    const taken = this.steps[step - 1];
    const go = element("button", { type: "button", onclick: () => this.jump(step), "aria-label": `Go to step ${step}` }, String(step));
    const cells = this.lanes.map((worker) => {
      const cell = element("td", { style: this.strips(this.slots[step][worker]) });
      const held = this.slots[step][worker].filter(Boolean);
      if (held.length) cell.title = `holds ${held.join(", ")}`;
      if (taken && taken.worker === worker) {
        const edge = this.model.location(this.states[step - 1], worker).edges[taken.edge];
        cell.append(element("span", { class: "does" }, edge.says));
      }
      if (waits.has(worker) || delayed.has(worker)) {
        cell.classList.add("waits");
        const acted = taken && taken.worker === worker;
        if (acted || !(before.has(worker) || delayedBefore.has(worker))) cell.append(element("span", { class: "wait" }, this.waitText(state, worker, waits)));
      }
      return cell;
    });
    if (!step) cells[0]?.append(element("span", { class: "does" }, "all are idle"));
    const broken = this.formulas(state, waits).filter((one) => one.broken).map((one) => one.property.name);
    if (broken.length) {
      go.prepend(element("span", { class: "broken", "aria-hidden": "true" }, "✗ "));
      go.setAttribute("aria-label", `Go to step ${step}, which violates ${broken.join(", ")}`);
      go.title = `violates ${broken.join(", ")}`;
    }
    return element("tr", {}, element("th", { scope: "row" }, go), ...cells);
  }

  waitText(state, worker, waits) {
    const request = this.model.location(state, worker).request;
    const names = (waits.get(worker) || this.delayed(state).get(worker)).map((other) => this.model.workers[other].name);
    return `waits for ${this.model.lockName(request)}, ${waits.has(worker) ? "held by" : "in the queue behind"} ${names.slice(0, 3).join(", ")}${names.length > 3 ? ` and ${names.length - 3} more` : ""}`;
  }

  /* The locks held as strips at the left of a cell. */
  strips(slots) {
    const stops = slots.slice(0, SHOWN_STRIPS).flatMap((name, number) => {
      if (name === null) return [];
      const colour = this.colour.get(this.families.get(name));
      const [left, right] = [number, number + 0.65].map((place) => `calc(4px + ${place} * var(--strip))`);
      return [`transparent ${left}`, `${colour} ${left} ${right}`, `transparent ${right}`];
    });
    return stops.length ? `--held: linear-gradient(to right, ${stops.join(", ")})` : undefined;
  }

  refresh() {
    const rows = this.body.rows;
    const [from, to] = this.drawn === null ? [0, rows.length - 1] : [Math.min(this.drawn, this.at), Math.max(this.drawn, this.at)];
    for (let step = from; step <= to && step < rows.length; step++) {
      rows[step].classList.toggle("undone", step > this.at);
      rows[step].classList.toggle("now", step === this.at);
      if (step === this.at) rows[step].setAttribute("aria-current", "step");
      else rows[step].removeAttribute("aria-current");
    }
    this.drawn = this.at;
    this.show(rows[this.at]);
    this.undoButton.disabled = this.firstButton.disabled = this.at === 0;
    this.redoButton.disabled = this.lastButton.disabled = this.at === this.steps.length;
    this.found.replaceChildren();
    this.drawActions();
    this.drawWorkers();
    this.drawProperties();
    this.drawWaits();
  }

  /* Scroll the schedule, and not the page, to `row`. */
  show(row) {
    const box = this.scroller;
    const head = this.table.tHead.offsetHeight;
    if (row.offsetTop - head < box.scrollTop) box.scrollTop = row.offsetTop - head;
    else if (row.offsetTop + row.offsetHeight > box.scrollTop + box.clientHeight) box.scrollTop = row.offsetTop + row.offsetHeight - box.clientHeight;
  }

  drawActions() {
    const all = this.model.actions(this.state);
    const wanted = this.filter.value.toLowerCase();
    const named = all.map((action) => {
      const edge = this.model.location(this.state, action.worker).edges[action.edge];
      return { action, text: edge.text + this.model.then(this.state, action) };
    });
    const shown = named.filter(({ action, text }) => `${this.model.workers[action.worker].name}: ${text}`.toLowerCase().includes(wanted));
    this.filter.hidden = all.length < 10;
    this.numbered = shown.map(({ action }) => action);
    const lists = [];
    shown.slice(0, SHOWN_ACTIONS).forEach(({ action, text }, number) => {
      const name = this.model.workers[action.worker].name;
      if (!lists.length || lists[lists.length - 1].worker !== action.worker) {
        lists.push({ worker: action.worker, list: element("ul", { "aria-label": name }), name });
      }
      const key = number < 9 ? String(number + 1) : "";
      const button = element("button", { type: "button", "aria-label": `${name}: ${text}`, onclick: () => this.take(action), disabled: action.fault !== undefined, "aria-keyshortcuts": key || undefined },
        element("kbd", { "aria-hidden": "true" }, key), element("span", {}, text));
      lists[lists.length - 1].list.append(element("li", {}, button, action.fault === undefined ? null : element("span", { class: "note" }, ` ${action.fault}`)));
    });
    const parts = lists.flatMap(({ name, list }) => [element("h5", {}, name), list]);
    if (!all.length) parts.push(element("p", { class: "note" }, "Nothing can happen here."));
    if (shown.length > SHOWN_ACTIONS) parts.push(element("p", { class: "note" }, `${plural(shown.length - SHOWN_ACTIONS, "more action")}: use the filter.`));
    this.actions.replaceChildren(...parts);
  }

  drawWorkers() {
    const { model, state } = this;
    const waits = model.waiting(state);
    const stuck = model.stuck(state, waits);
    const delayed = this.delayed();
    const items = model.workers.flatMap((worker, number) => {
      const here = model.location(state, number);
      const held = model.held(state, number);
      if (model.workers.length > SHOWN_LANES && here.status === "idle" && !held.length) return [];
      const what = here.transaction && here.status === "running" ? `runs ${here.transaction}` : here.status;
      const locks = held.map((lock) => element("li", {}, element("span", { class: "swatch", style: `background: ${this.colour.get(model.resources[lock[0]].family)}` }), model.lockName(lock)));
      return [element("li", { class: stuck.has(number) ? "stuck" : waits.has(number) || delayed.has(number) ? "waiting" : "" },
        element("strong", {}, worker.name), ` ${what}`, stuck.has(number) ? element("em", {}, " can never go on") : null,
        here.local ? element("div", { class: "note" }, assignments(Object.entries(here.local))) : null,
        locks.length ? element("ul", { class: "locks", "aria-label": `${worker.name} holds` }, ...locks) : null,
        waits.has(number) || delayed.has(number) ? element("div", { class: "wait" }, this.waitText(state, number, waits)) : null)];
    });
    const { variables, valuations } = model.tables;
    if (variables.length) items.push(element("li", {}, assignments(variables.map((name, number) => [name, valuations[state.valuation][number]]))));
    if (!items.length) items.push(element("li", {}, "All workers are idle."));
    this.workers.replaceChildren(...items);
  }

  /* The `never` and `always` formulas, and whether each is kept here. */
  drawProperties() {
    const items = this.formulas(this.state).map(({ property, broken, fault }) => {
      const verdict = fault !== undefined ? `can't be told: ${fault}` : broken ? "violated" : "kept";
      const mark = fault !== undefined ? "?" : broken ? "✗" : "✓";
      return element("li", { class: fault !== undefined ? "" : broken ? "broken" : "kept" },
        element("span", { class: "mark", "aria-hidden": "true" }, mark), element("strong", {}, property.name), ` ${verdict}`,
        element("div", {}, `${property.always ? "always" : "never"}: `, element("code", {}, property.formula)));
    });
    this.properties.replaceChildren(...(items.length ? [element("h4", {}, "Formulas here"), element("ul", {}, ...items)] : []));
  }

  drawWaits() {
    this.waits.replaceChildren(...waitsPicture(this.model, this.state, this.delayed()));
  }

  drawOrder(by) {
    const again = (name) => {
      this.drawOrder(name);
      this.order.querySelector("select").focus();
    };
    this.order.replaceChildren(...orderPicture(this.model, this.result.orders, by, again));
  }

  // What the buttons do

  foundTrace() {
    this.load(this.result.steps.map(([worker, edge]) => ({ worker, edge })));
    this.moved();
  }

  async search() {
    const start = this.at;
    const origin = this.state;
    const rest = async (states) => {
      this.say(`Searching: ${plural(states, "state")}…`);
      await new Promise((resolve) => setTimeout(resolve));
      return this.state === origin; // Whoever goes on does not want the answer any more.
    };
    const answer = await this.model.deadlocksAhead(origin, MOST_STATES, rest);
    if (answer === null || this.state !== origin) return;
    const { deadlocks, states, stopped } = answer;
    const bound = stopped ? `there may be more beyond these ${plural(states, "state")}` : `these are all, in ${plural(states, "state")}`;
    this.say(deadlocks.length ? `${plural(deadlocks.length, "kind")} of deadlock from here; ${bound}.` : stopped ? `No deadlock found in ${plural(states, "state")}; there may be one beyond them.` : `No deadlock can be reached from here (${plural(states, "state")}).`);
    const items = deadlocks.map(({ circle, steps }) => {
      const who = circle.map((one) => `${this.model.workers[one.worker].name} (${one.transaction}) waits for ${one.resource}`).join("; ");
      const text = `${steps.length ? `In ${plural(steps.length, "step")}` : "Here"}: ${who}`;
      return element("li", {}, element("button", { type: "button", onclick: () => this.follow(start, steps) }, text));
    });
    this.found.replaceChildren(...(items.length ? [element("h4", {}, "Deadlocks from here"), element("ol", {}, ...items)] : []));
  }

  follow(start, steps) {
    this.load([...this.steps.slice(0, start), ...steps]);
    this.moved();
  }

  async copyLink() {
    this.onmove(true);
    try {
      await navigator.clipboard.writeText(window.location.href);
      this.say("The link is copied.");
    } catch {
      this.say("The link is in the address bar.");
    }
  }

  download() {
    if (!this.result.source) return this.say(NO_SOURCE);
    this.save(this.report(), "json", "application/json");
  }

  downloadScenario() {
    if (!this.result.source?.scenario) return this.say(this.result.source ? NO_SCENARIO : NO_SOURCE);
    this.save(this.scenario(), "yaml", "application/yaml");
  }

  save(text, suffix, type) {
    const link = URL.createObjectURL(new Blob([text], { type }));
    const name = this.result.source.name.replace(/[^\w.-]+/g, "-") || "schedule";
    const anchor = element("a", { href: link, download: `${name}-schedule.${suffix}` });
    anchor.click();
    setTimeout(() => URL.revokeObjectURL(link), 1000);
    this.say(`Replay it: lockmodel replay ${anchor.download}`);
  }

  key(event) {
    const keys = {
      ArrowLeft: () => this.jump(this.at - 1),
      ArrowRight: () => this.jump(this.at + 1),
      Home: () => this.jump(0),
      End: () => this.jump(this.steps.length),
      d: () => this.search(),
      t: () => this.result.steps.length && this.foundTrace(),
      l: () => this.copyLink(),
      s: () => this.download(),
      y: () => this.downloadScenario(),
    };
    const action = /^[1-9]$/.test(event.key) ? this.numbered[Number(event.key) - 1] : undefined;
    if (action) this.take(action);
    else if (Object.hasOwn(keys, event.key)) keys[event.key]();
    else return;
    event.preventDefault();
  }
}
