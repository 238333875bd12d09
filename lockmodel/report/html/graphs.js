"use strict";

/* The two graphs of the explorer, as elements: who waits for whom, and the lock order. */

const [MOST_NODES, EDGES_A_NODE] = [40, 1.6];

const plural = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;

/* Who waits for whom in `state`; `delayed`: who is held up by a queue only, behind whom. */
function waitsPicture(model, state, delayed) {
  const waits = model.waiting(state);
  if (!waits.size) {
    return [element("p", { class: "note" }, "Nobody waits.")];
  }
  const circle = model.cycle(state, waits);
  const follows = (from, to) => circle.some((worker, number) => worker === from && circle[(number + 1) % circle.length] === to);
  const ids = new Set([...waits.keys(), ...[...waits.values()].flat(), ...delayed.keys()]);
  const nodes = [...ids].sort((a, b) => a - b).map((id) => {
    const here = model.location(state, id);
    return { id, label: model.workers[id].name, lines: [here.transaction || here.status], marked: circle.includes(id) };
  });
  const edges = [...waits].flatMap(([from, others]) => others.map((to) => {
    const wanted = model.lockName(model.location(state, from).request);
    return { from, to, label: model.resources[model.location(state, from).request[0]].name, marked: follows(from, to), title: `${model.workers[from].name} waits for ${wanted}, which ${model.workers[to].name} holds` };
  }));
  for (const [from, ahead] of delayed) {
    const wanted = model.lockName(model.location(state, from).request);
    for (const to of ahead) edges.push({ from, to, label: model.resources[model.location(state, from).request[0]].name, weak: true, title: `${model.workers[from].name} waits for ${wanted}, in the queue behind ${model.workers[to].name}` });
  }
  const summary = edges.slice(0, 30).map((edge) => edge.title).join("; ");
  return [
    drawGraph(nodes, edges, `Who waits for whom: ${summary}`),
    element("p", { class: "note" }, circle.length ? "Red: the circle of waits. None of its workers can ever go on." : "No circle: everybody can go on once those in their way have.",
      delayed.size ? " Dashed: held up by a queue only." : ""),
  ];
}

/* The lock order `by` resource or family (undefined: what can be read), with a menu that calls `chosen` with the other. */
function orderPicture(model, orders, by, chosen) {
  const prepared = Object.fromEntries(Object.entries(orders).map(([name, graph]) => [name, paired(reduced(graph.nodes, withCircles(graph.nodes, graph.edges)))]));
  const readable = orders.resource && orders.resource.nodes.length <= MOST_NODES && prepared.resource.length <= EDGES_A_NODE * orders.resource.nodes.length;
  const shown = by || (readable ? "resource" : "family");
  const graph = orders[shown];
  const parts = [];
  if (orders.resource && orders.resource.nodes.length !== orders.family.nodes.length) {
    const choose = element("select", { "aria-label": "Draw the lock order by" },
      ...["resource", "family"].map((name) => element("option", { value: name, selected: name === shown }, `by ${name}`)));
    choose.addEventListener("change", () => chosen(choose.value));
    parts.push(choose);
  }
  if (!graph.edges.length) parts.push(element("p", { class: "note" }, "Nobody asks for a lock while holding another one."));
  else {
    const tell = (edge) => `${edge.transactions.join(", ")}: ${edge.modes.slice(0, 4).map(([held, wanted]) => `holds ${edge.from} ${held}, asks for ${edge.to} ${wanted}`).join("; ")}${edge.lines.length ? ` (${edge.lines.join(", ")})` : ""}`;
    const edges = prepared[shown].map((edge) => ({
      from: edge.from, to: edge.to, both: edge.both, marked: edge.from === edge.to ? loops(model, orders, shown, edge.from) : edge.circular,
      against: edge.against, thick: edge.circular && (edge.against || edge.both), weak: !edge.waits && !edge.back?.waits, title: edge.both ? `${tell(edge)}\n${tell(edge.back)}` : tell(edge),
    }));
    const said = edges.slice(0, 40).map((edge) => `${edge.from} ${edge.both ? "before and after" : "before"} ${edge.to}`).join(", ");
    const left = graph.edges.length - edges.length - edges.filter((edge) => edge.both).length;
    const thick = edges.some((edge) => edge.thick) && !edges.every((edge) => edge.thick || !edge.marked);
    const notes = ["An arrow goes from what is held to what is asked for."];
    if (left) notes.push(`${plural(left, "arrow")} that a longer way implies ${left === 1 ? "is" : "are"} left out.`);
    if (edges.some((edge) => edge.marked)) notes.push("Red: on a circle, without which there is no deadlock. A circle can be harmless; the verdict says.");
    if (thick) notes.push("Thick: against the order that most others keep.");
    if (shown === "family" && edges.some((edge) => edge.from === edge.to)) notes.push("A loop: one of the family is held while another is asked for, or a stronger mode of it.");
    if (edges.some((edge) => edge.weak)) notes.push("Dashed: requests that never wait.");
    parts.push(drawGraph(graph.nodes.map((id) => ({ id, label: id })), edges, `Lock order: ${said}`), element("p", { class: "note" }, notes.join(" ")));
  }
  return parts;
}

/* Whether an edge from a node to itself is a circle: of a resource always; of a family if two of its members are on one. */
function loops(model, orders, by, name) {
  if (by === "resource") return true;
  const { resource } = orders;
  const family = new Map(model.resources.map((one) => [one.name, one.family]));
  const within = (resource ? withCircles(resource.nodes, resource.edges) : []).filter((edge) => family.get(edge.from) === name && family.get(edge.to) === name);
  return within.some((edge) => edge.circular);
}
