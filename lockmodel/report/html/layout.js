"use strict";

/* Where the nodes of a directed graph go: in layers, so that edges point down where there is no circle (after Sugiyama). Pure. */

/* The strongly connected component of each node, by number. */
function components(nodes, edges) {
  const out = new Map(nodes.map((node) => [node, []]));
  for (const edge of edges) out.get(edge.from).push(edge.to);
  const index = new Map(), low = new Map(), component = new Map(), stack = [];
  let count = 0;
  for (const root of nodes) {
    if (index.has(root)) continue;
    const work = [[root, 0]];
    while (work.length) {
      const top = work[work.length - 1];
      const [node, at] = top;
      if (at === 0) {
        index.set(node, index.size);
        low.set(node, index.get(node));
        stack.push(node);
      }
      if (at < out.get(node).length) {
        top[1]++;
        const other = out.get(node)[at];
        if (!index.has(other)) work.push([other, 0]);
        else if (!component.has(other)) low.set(node, Math.min(low.get(node), index.get(other)));
        continue;
      }
      work.pop();
      if (work.length) {
        const parent = work[work.length - 1][0];
        low.set(parent, Math.min(low.get(parent), low.get(node)));
      }
      if (low.get(node) === index.get(node)) {
        for (let member; member !== node; ) {
          member = stack.pop();
          component.set(member, count);
        }
        count++;
      }
    }
  }
  return component;
}

/* `edges` without those that a longer way implies: with 30 resources in one order, 29 edges instead of 435. Each has `against`: whether it
   leads against the order in which most others lead, and so closes circles; all of these are kept, and so is the other one of a pair to and fro. */
function reduced(nodes, edges) {
  const component = components(nodes, edges);
  const between = covering([...new Set(component.values())], edges.map((edge) => [component.get(edge.from), component.get(edge.to)]));
  const rank = ranks(nodes, edges);
  const directed = edges.map((edge) => ({ ...edge, against: rank.get(edge.from) > rank.get(edge.to) }));
  const within = covering(nodes, directed.filter((edge) => !edge.against).map((edge) => [edge.from, edge.to]));
  const known = new Set(edges.map((edge) => JSON.stringify([edge.from, edge.to])));
  return directed.filter((edge) => {
    if (edge.against || edge.from === edge.to) return true;
    const [from, to] = [component.get(edge.from), component.get(edge.to)];
    if (from !== to && !between(from, to)) return false;
    return within(edge.from, edge.to) || known.has(JSON.stringify([edge.to, edge.from]));
  });
}

/* Whether one of `pairs`, which have no circle but loops, is implied by no longer way: a function of its ends. */
function covering(nodes, pairs) {
  const out = new Map(nodes.map((node) => [node, new Set()]));
  const into = new Map(nodes.map((node) => [node, 0]));
  for (const [from, to] of pairs) {
    if (from === to || out.get(from).has(to)) continue;
    out.get(from).add(to);
    into.set(to, into.get(to) + 1);
  }
  const sorted = nodes.filter((node) => !into.get(node));
  for (const node of sorted) {
    for (const other of out.get(node)) {
      into.set(other, into.get(other) - 1);
      if (!into.get(other)) sorted.push(other);
    }
  }
  const reach = new Map();
  for (const node of sorted.reverse()) {
    const all = new Set(out.get(node));
    for (const other of out.get(node)) for (const further of reach.get(other)) all.add(further);
    reach.set(node, all);
  }
  return (from, to) => ![...out.get(from)].some((other) => other !== to && reach.get(other).has(to));
}

/* `edges` with two that go to and fro between the same nodes as one, with `both`. */
function paired(edges) {
  const name = (from, to) => JSON.stringify([from, to]);
  const known = new Map(edges.map((edge) => [name(edge.from, edge.to), edge]));
  return edges.flatMap((edge) => {
    const back = edge.from === edge.to ? undefined : known.get(name(edge.to, edge.from));
    if (!back) return [{ ...edge, both: false }];
    return edges.indexOf(edge) < edges.indexOf(back) ? [{ ...edge, both: true, back }] : [];
  });
}

/* `edges` of which those that lie on a circle have `circular`. */
function withCircles(nodes, edges) {
  const component = components(nodes, edges);
  return edges.map((edge) => ({ ...edge, circular: component.get(edge.from) === component.get(edge.to) }));
}

/* {nodes: name -> {x, y, width}, edges: [{edge, points}], width, height}; `widthOf(node)` in pixels. */
function layered(nodes, edges, widthOf, { nodeHeight = 28, layerGap = 56, nodeGap = 18 } = {}) {
  const forward = acyclic(nodes, edges.filter((edge) => edge.from !== edge.to));
  const layer = longestPaths(nodes, forward);
  const layers = [];
  const put = (item, level) => (layers[level] = layers[level] || []).push(item);
  for (const node of nodes) put(node, layer.get(node));
  const up = new Map(), down = new Map(), chains = new Map();
  const link = (from, to) => {
    down.set(from, [...(down.get(from) || []), to]);
    up.set(to, [...(up.get(to) || []), from]);
  };
  // An edge over several layers goes through a point in each of them.
  forward.forEach((edge, number) => {
    const chain = [edge.from];
    for (let level = layer.get(edge.from) + 1; level < layer.get(edge.to); level++) {
      const point = { point: `${number}:${level}` };
      put(point, level);
      chain.push(point);
    }
    chain.push(edge.to);
    for (let at = 1; at < chain.length; at++) link(chain[at - 1], chain[at]);
    chains.set(edge.edge, edge.turned ? chain.slice().reverse() : chain);
  });
  order(layers, up, down);
  return place(layers, up, down, chains, edges, (item) => (typeof item === "object" ? 8 : widthOf(item)), { nodeHeight, layerGap, nodeGap });
}

/* Each edge with `from` before `to` in one order; those against it are turned. An edge may know by `against` whether it is one. */
function acyclic(nodes, edges) {
  const rank = edges.every((edge) => edge.against !== undefined) ? null : ranks(nodes, edges);
  return edges.map((edge) => {
    const turned = rank === null ? edge.against : rank.get(edge.from) > rank.get(edge.to);
    return turned ? { edge, from: edge.to, to: edge.from, turned } : { edge, from: edge.from, to: edge.to, turned };
  });
}

/* The place of each node in an order that few edges lead against, none if there is no circle (Eades, Lin and Smyth 1993). */
function ranks(nodes, edges) {
  const out = new Map(nodes.map((node) => [node, new Set()]));
  const into = new Map(nodes.map((node) => [node, new Set()]));
  for (const { from, to } of edges) {
    if (from === to) continue;
    out.get(from).add(to);
    into.get(to).add(from);
  }
  const left = new Set(nodes), first = [], last = [];
  const take = (node, place) => {
    left.delete(node);
    place.push(node);
    for (const other of out.get(node)) into.get(other).delete(node);
    for (const other of into.get(node)) out.get(other).delete(node);
  };
  while (left.size) {
    const ends = [...left].filter((node) => !out.get(node).size);
    const begins = ends.length ? [] : [...left].filter((node) => !into.get(node).size);
    if (ends.length) ends.forEach((node) => take(node, last));
    else if (begins.length) begins.forEach((node) => take(node, first));
    else take([...left].reduce((best, node) => (out.get(node).size - into.get(node).size > out.get(best).size - into.get(best).size ? node : best)), first);
  }
  return new Map([...first, ...last.reverse()].map((node, number) => [node, number]));
}

function longestPaths(nodes, edges) {
  const layer = new Map(nodes.map((node) => [node, 0]));
  const left = new Map(nodes.map((node) => [node, 0]));
  const out = new Map(nodes.map((node) => [node, []]));
  for (const edge of edges) {
    out.get(edge.from).push(edge.to);
    left.set(edge.to, left.get(edge.to) + 1);
  }
  const queue = nodes.filter((node) => !left.get(node));
  for (const node of queue) {
    for (const other of out.get(node)) {
      layer.set(other, Math.max(layer.get(other), layer.get(node) + 1));
      left.set(other, left.get(other) - 1);
      if (!left.get(other)) queue.push(other);
    }
  }
  return layer;
}

/* Sort each layer by where its neighbours are, down and up a few times. */
function order(layers, up, down) {
  for (let round = 0; round < 8; round++) {
    const [neighbours, step] = round % 2 ? [down, -1] : [up, 1];
    for (let level = step === 1 ? 1 : layers.length - 2; layers[level] && layers[level - step]; level += step) {
      const at = new Map(layers[level - step].map((item, number) => [item, number]));
      const weight = new Map(layers[level].map((item, number) => {
        const near = (neighbours.get(item) || []).map((other) => at.get(other));
        return [item, near.length ? near.reduce((a, b) => a + b, 0) / near.length : number];
      }));
      layers[level].sort((a, b) => weight.get(a) - weight.get(b));
    }
  }
}

function place(layers, up, down, chains, edges, widthOf, { nodeHeight, layerGap, nodeGap }) {
  const at = new Map();
  layers.forEach((items, level) => {
    let x = 0;
    for (const item of items) {
      at.set(item, { x: x + widthOf(item) / 2, y: nodeHeight / 2 + level * (nodeHeight + layerGap), width: widthOf(item) });
      x += widthOf(item) + (typeof item === "object" ? 6 : nodeGap);
    }
  });
  // Move each item towards the middle of its neighbours, as far as the ones beside it let it.
  for (let round = 0; round < 40; round++) {
    for (const items of round % 2 ? layers.slice().reverse() : layers) {
      const wish = items.map((item) => {
        const near = [...(up.get(item) || []), ...(down.get(item) || [])].map((other) => at.get(other).x);
        return near.length ? near.reduce((a, b) => a + b, 0) / near.length : at.get(item).x;
      });
      const gap = (a, b) => (at.get(a).width + at.get(b).width) / 2 + (typeof a === "object" || typeof b === "object" ? 6 : nodeGap);
      items.forEach((item, number) => {
        at.get(item).x = number ? Math.max(wish[number], at.get(items[number - 1]).x + gap(items[number - 1], item)) : wish[number];
      });
      // What was pushed too far right comes back as a whole.
      const shift = items.reduce((sum, item, number) => sum + at.get(item).x - wish[number], 0) / items.length;
      for (const item of items) at.get(item).x -= shift;
    }
  }
  const all = [...at.values()];
  const left = Math.min(...all.map((one) => one.x - one.width / 2));
  for (const one of all) one.x -= left;
  const nodes = new Map([...at].filter(([item]) => typeof item !== "object"));
  const drawn = edges.map((edge) => ({ edge, points: (chains.get(edge) || [edge.from, edge.to]).map((item) => at.get(item)) }));
  const width = Math.max(...all.map((one) => one.x + one.width / 2));
  return { nodes, edges: drawn, width, height: layers.length * (nodeHeight + layerGap) - layerGap, nodeHeight };
}
