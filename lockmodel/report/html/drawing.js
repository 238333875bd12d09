"use strict";

/* Makes elements. Text only ever becomes text nodes and attributes, so that words from a spec can't do anything. */

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "onclick") made.addEventListener("click", value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== undefined && value !== false && value !== null) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function shape(tag, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== undefined) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

let markers = 0;

/* A graph as SVG. Nodes: {id, label, lines, marked}; edges: {from, to, label, title, marked, weak}. `summary` is said to screen readers. */
function drawGraph(nodes, edges, summary) {
  const byId = new Map(nodes.map((node) => [node.id, node]));
  const textWidth = (text) => 7.3 * text.length + 22;
  const widthOf = (id) => Math.max(46, ...[byId.get(id).label, ...(byId.get(id).lines || [])].map(textWidth));
  const lines = Math.max(0, ...nodes.map((node) => (node.lines || []).length));
  const nodeHeight = 28 + 16 * lines;
  const labelled = edges.some((edge) => edge.label);
  const widest = Math.max(0, ...edges.map((edge) => (edge.label ? textWidth(edge.label) : 0)));
  const plan = layered(nodes.map((node) => node.id), edges, widthOf, { nodeHeight, layerGap: labelled ? 76 : 44, nodeGap: labelled ? Math.min(90, 20 + widest / 2) : edges.some((edge) => edge.from === edge.to) ? 42 : 18 });
  const margin = Math.max(16, labelled ? widest / 2 : 34);
  const width = plan.width + 2 * margin;
  const height = plan.height + 32;
  const picture = shape("svg", {
    class: "graph", role: "img", "aria-label": summary, style: `max-width: ${Math.ceil(width)}px; min-width: ${Math.ceil(width * 0.6)}px`, viewBox: `${-margin} -16 ${width} ${height}`,
  });
  const name = `arrow-${++markers}`;
  const arrow = (id, kind) =>
    shape("marker", { id, viewBox: "0 0 10 10", refX: 9, refY: 5, markerUnits: "userSpaceOnUse", markerWidth: 12, markerHeight: 12, orient: "auto-start-reverse", class: kind },
      shape("path", { d: "M0 0 10 5 0 10z" }));
  picture.append(shape("defs", {}, arrow(name, "arrow"), arrow(`${name}-marked`, "arrow marked")));
  const pairs = new Set(edges.map((edge) => JSON.stringify([edge.from, edge.to])));
  const labels = [];
  for (const { edge, points } of plan.edges) {
    const both = edge.from !== edge.to && pairs.has(JSON.stringify([edge.to, edge.from]));
    const { path, middle } = route(points, nodeHeight, edge.from === edge.to, both ? 22 : 0);
    const kind = ["edge", edge.marked ? "marked" : "", edge.weak ? "weak" : "", edge.thick ? "thick" : ""].join(" ").trim();
    const line = shape("path", { d: path, class: kind, "marker-end": `url(#${name}${edge.marked ? "-marked" : ""})`,
      "marker-start": edge.both ? `url(#${name}${edge.marked ? "-marked" : ""})` : undefined });
    picture.append(shape("g", {}, shape("title", {}, edge.title || ""), line));
    if (edge.label) labels.push(shape("text", { class: `label ${edge.marked ? "marked" : ""}`, x: middle[0], y: middle[1] + 4 }, edge.label));
  }
  for (const node of nodes) {
    const { x, y, width: wide } = plan.nodes.get(node.id);
    const words = [node.label, ...(node.lines || [])];
    const top = y - (words.length - 1) * 8 + 4;
    picture.append(
      shape("g", { class: node.marked ? "node marked" : "node" }, shape("title", {}, node.title || node.label),
        shape("rect", { x: x - wide / 2, y: y - nodeHeight / 2, width: wide, height: nodeHeight, rx: 6 }),
        ...words.map((word, number) => shape("text", { x, y: top + 16 * number, class: number ? "small" : "" }, word))));
  }
  picture.append(...labels);
  return element("div", { class: "picture", tabindex: "0", role: "group", "aria-label": `${summary} (scrolls)` }, picture);
}

/* The line through `points`, from border to border of the nodes at its ends; `bow` pixels to its right where another comes back. */
function route(points, nodeHeight, loop, bow) {
  if (loop) {
    const { x, y, width } = points[0];
    const right = x + width / 2;
    return { path: `M${right} ${y - 7} C${right + 30} ${y - 18} ${right + 30} ${y + 18} ${right + 1} ${y + 7}`, middle: [right + 30, y] };
  }
  const first = points[0], last = points[points.length - 1];
  const sign = Math.sign(last.y - first.y) || 1;
  const towards = (point, other, side) => [
    Math.max(point.x - point.width / 2 + 8, Math.min(point.x + point.width / 2 - 8, point.x + (other.x - point.x) * 0.15)) - bow * 0.6 * sign,
    point.y + (side * nodeHeight) / 2,
  ];
  const way = [towards(first, points[1], sign), ...points.slice(1, -1).map((one) => [one.x - bow * sign, one.y]), towards(last, points[points.length - 2], -sign)];
  let path = `M${way[0].join(" ")}`;
  for (let at = 1; at < way.length; at++) {
    const [[x1, y1], [x2, y2]] = [way[at - 1], way[at]];
    const half = (y1 + y2) / 2;
    const out = at === 1 || at === way.length - 1 ? bow * 0.8 * sign : 0;
    path += ` C${x1 - out} ${half} ${x2 - out} ${half} ${x2} ${y2}`;
  }
  const at = Math.floor((way.length - 1) / 2);
  const middle = [(way[at][0] + way[at + 1][0]) / 2 - bow * 0.6 * sign, (way[at][1] + way[at + 1][1]) / 2 + (bow ? 13 * sign : 0)];
  return { path, middle };
}
