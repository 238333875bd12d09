"use strict";

/* A schedule as a file: the JSON report that `lockmodel replay` and `lockmodel explore` read, or a scenario in YAML. Pure.
   A schedule is {model, source (of the spec), version, steps, states (one more than steps), violated (the property that the last one violates, or null)}. */

function reportOf({ model, source, version, steps, states, violated }) {
  const plain = (state) => ({ locations: state.locations, valuation: state.valuation });
  const told = steps.map((step, number) => {
    const edge = model.location(states[number], step.worker).edges[step.edge];
    return { number: number + 1, worker: step.worker, action: edge.action, label: edge.label, edge: step.edge, after: plain(states[number + 1]) };
  });
  const { scenario, ...spec } = source;
  const reason = violated === null ? "a schedule that was stepped by hand" : "";
  const trace = { workers: model.workers.map(({ name, role }) => ({ name, role })), initial: plain(model.initial), steps: told };
  const result = { ...spec, verdict: violated === null ? "UNDECIDED" : "VIOLATED", violated, reason, trace };
  return `${JSON.stringify({ lockmodel: version, format: 1, results: [result], errors: [], unchecked: [] }, null, 1)}\n`;
}

/* The spec stands in the scenario itself, as its last part, so that nothing that follows can change what its last text is. */
function scenarioOf({ model, source, steps, states, violated }) {
  const end = states[states.length - 1];
  const circle = model.cycle(end);
  const who = [...new Set(circle.map((worker) => model.location(end, worker).transaction))].join(" and ");
  const shows = circle.length ? `a deadlock between ${who}` : violated ? `'${violated}' is violated` : `a schedule of ${steps.length} step${steps.length === 1 ? "" : "s"}`;
  const set = Object.entries(source.scenario.set);
  const lines = [`scenario: ${quoted(`${source.name}: ${shows}.`)}`];
  if (set.length) lines.push(`set: {${set.map(([name, value]) => `${quoted(name)}: ${Array.isArray(value) ? `[${value.map(scalar).join(", ")}]` : scalar(value)}`).join(", ")}}`);
  if (source.scenario.workers !== null) lines.push(`workers: ${source.scenario.workers}`);
  if (steps.length) lines.push("schedule:");
  steps.forEach((step, number) => {
    const edge = model.location(states[number], step.worker).edges[step.edge];
    lines.push(`  - ${word(model.workers[step.worker].name)}: ${word(edge.text + model.then(states[number], step))}`);
  });
  const stall = violated === "no stall" && !model.stall(end).rearranged;
  lines.push(`outcome: ${circle.length ? "deadlock" : stall ? "stall" : "confirmed"}`);
  lines.push(`# A file's name may stand here instead: spec: ${source.file.replace(/[^\x20-\x7e]/g, "?")}`, "spec:");
  return `${lines.join("\n")}\n${indented(source.spec)}\n`;
}

/* The text of a spec as the value of a key: two spaces further in, without the marks of a document's beginning and end. */
function indented(text) {
  const lines = text.replace(/^\ufeff/, "").split(/\r\n|\r|\n/).map((line) => line.replace(/^(---|\.\.\.)(?=\s|$)/, "   "));
  while (lines.length && !lines[lines.length - 1].trim()) lines.pop();
  return lines.map((line) => (line ? `  ${line}` : "")).join("\n");
}

const scalar = (value) => (typeof value === "string" ? quoted(value) : String(value));

/* `text` as a YAML string in quotes. JSON's are, but for some characters that YAML wants escaped. */
function quoted(text) {
  return JSON.stringify(text).replace(/[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]/g, (one) => `\\u${one.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/* `text` without quotes where it needs none. */
const word = (text) => (/^[A-Za-z][\w ()=.,[\]-]*$/.test(text) && !/^(true|false|null)$/i.test(text) && !text.endsWith(" ") ? text : quoted(text));
