"use strict";

/* The meaning of the embedded tables, without a page: which actions a state has and where they lead, who waits, who can never go on.
   It is lockmodel/semantics.py again; a test compares the states that both reach. A state is {locations, valuation}. */
function createModel(tables) {
  const { workers, resources, locations, lists } = tables;
  const guards = new Map();
  const conflicting = new Map();
  for (const [kind, modes] of Object.entries(tables.conflicts)) {
    conflicting.set(kind, new Map(Object.entries(modes).map(([mode, others]) => [mode, new Set(others)])));
  }

  const initial = { locations: workers.map(() => 0), valuation: tables.initial };
  const location = (state, worker) => locations[state.locations[worker]];
  const held = (state, worker) => lists[location(state, worker).held];
  const key = (state) => `${state.locations.join(",")}|${state.valuation}`;
  const lockName = ([resource, mode]) => `${resources[resource].name} ${mode}`;

  function conflicts([resource, mode], [wanted, wantedMode]) {
    return resource === wanted && conflicting.get(resources[resource].kind).get(wantedMode).has(mode);
  }

  const units = (state, worker, resource) => held(state, worker).filter((lock) => lock[0] === resource).length;

  /* The workers in the way of `request`; of a pool without a free unit all who hold one, `worker` itself included. */
  function blockers(state, worker, request) {
    const capacity = resources[request[0]].capacity;
    const found = [];
    if (capacity !== null) {
      let taken = 0;
      for (let other = 0; other < workers.length; other++) {
        const count = units(state, other, request[0]);
        taken += count;
        if (count) found.push(other);
      }
      return taken >= capacity ? found : [];
    }
    for (let other = 0; other < workers.length; other++) {
      if (other !== worker && held(state, other).some((lock) => conflicts(lock, request))) found.push(other);
    }
    return found;
  }

  /* Each worker that waits, with those it waits for. */
  function waiting(state) {
    const result = new Map();
    for (let worker = 0; worker < workers.length; worker++) {
      const here = location(state, worker);
      if (!here.request || !here.waits) continue;
      const others = blockers(state, worker, here.request);
      if (others.length) result.set(worker, others);
    }
    return result;
  }

  /* The workers that can never go on: whoever could be freed from outside the set leaves it. */
  function stuck(state, waits = waiting(state)) {
    const left = new Set(waits.keys());
    for (;;) {
      const freed = [...left].filter((worker) => !hopeless(state, worker, waits.get(worker), left));
      if (!freed.length) return left;
      for (const worker of freed) left.delete(worker);
    }
  }

  function hopeless(state, worker, others, left) {
    const resource = location(state, worker).request[0];
    const capacity = resources[resource].capacity;
    const kept = others.filter((other) => left.has(other));
    if (capacity === null) return kept.length > 0;
    return kept.reduce((sum, other) => sum + units(state, other, resource), 0) >= capacity;
  }

  function stalled(state, waits = waiting(state)) {
    const running = workers.map((_, worker) => worker).filter((worker) => location(state, worker).status === "running");
    return running.length > 0 && running.every((worker) => waits.has(worker));
  }

  /* Each worker that waits only because of a queue, with those ahead of it who wait without end. */
  function delayed(state) {
    const queued = workers.map((_, worker) => worker).filter((worker) => location(state, worker).queues);
    const request = (worker) => location(state, worker).request;
    const inTheWay = new Map(queued.map((worker) => [worker, blockers(state, worker, request(worker))]));
    const result = new Map();
    for (const worker of queued) {
      if (inTheWay.get(worker).length) continue;
      const ahead = queued.filter((other) => {
        const others = inTheWay.get(other);
        return others.length && !others.includes(worker) && location(state, other).endless && conflicts(request(other), request(worker));
      });
      if (ahead.length) result.set(worker, ahead);
    }
    return result;
  }

  /* The stall: who holds others up first, and whether Postgres lets these past after deadlock_timeout, since its holder waits for one of them. */
  function stall(state, waits = waiting(state)) {
    const behind = delayed(state);
    if (!behind.size || stuck(state, waits).size) return null;
    const waiter = Math.min(...[...behind.values()].map((ahead) => ahead[0]));
    const heldUp = [...behind].filter(([, ahead]) => ahead.includes(waiter)).map(([worker]) => worker);
    const seen = new Set(waits.get(waiter));
    for (const worker of seen) for (const other of waits.get(worker) || []) seen.add(other);
    return { waiter, heldUp, rearranged: heldUp.some((worker) => seen.has(worker)) };
  }

  function allows(edge, valuation) {
    if (edge.guard === undefined) return true;
    if (!guards.has(edge.guard)) guards.set(edge.guard, new Set(lists[edge.guard]));
    return guards.get(edge.guard).has(valuation);
  }

  /* Everything that can happen: {worker, edge (a number), fault (why the step has no meaning here, else undefined)}. */
  function actions(state) {
    const found = [];
    for (let worker = 0; worker < workers.length; worker++) {
      location(state, worker).edges.forEach((edge, number) => {
        if (edge.starts !== undefined && !workers[worker].runs.includes(edge.starts)) return;
        const fault = edge.faults && edge.faults[state.valuation];
        if (!allows(edge, state.valuation) && fault === undefined) return;
        const blocked = (edge.requests || []).some((request) => blockers(state, worker, request).length > 0);
        if (blocked === (edge.action === "refuse")) found.push({ worker, edge: number, fault });
      });
    }
    return found;
  }

  function after(state, action) {
    const edge = location(state, action.worker).edges[action.edge];
    const next = state.locations.slice();
    next[action.worker] = edge.to;
    return { locations: next, valuation: edge.update === undefined ? state.valuation : lists[edge.update][state.valuation] };
  }

  /* A shortest circle of stuck workers, each waiting for the next; empty if none is stuck. */
  function cycle(state, waits = waiting(state)) {
    const members = stuck(state, waits);
    const next = new Map();
    for (const worker of members) {
      const others = waits.get(worker).filter((other) => members.has(other));
      const apart = others.filter((other) => other !== worker);
      next.set(worker, apart.length ? apart : others);
    }
    let best = [];
    for (const start of members) {
      const paths = [[start]];
      const seen = new Set();
      search: for (let at = 0; at < paths.length; at++) {
        const path = paths[at];
        for (const other of next.get(path[path.length - 1])) {
          if (other === start) {
            if (!best.length || path.length < best.length) best = path;
            break search;
          }
          if (!seen.has(other)) {
            seen.add(other);
            paths.push([...path, other]);
          }
        }
      }
    }
    return best;
  }

  /* What tells an action from others of the same words: `, then lane[1] FOR UPDATE`. */
  function then(state, action) {
    const edges = location(state, action.worker).edges;
    const edge = edges[action.edge];
    const alike = edges.filter((other) => other.action === edge.action && other.label === edge.label);
    if (alike.length < 2) return "";
    const following = alike.map(nextText);
    const index = alike.indexOf(edge);
    const same = following.flatMap((text, number) => (text === following[index] ? [number] : []));
    return `, then ${following[index]}${same.length > 1 ? ` (${same.indexOf(index) + 1})` : ""}`;
  }

  function nextText(edge) {
    const target = locations[edge.to];
    if (target.request) return lockName(target.request);
    return target.edges.length ? target.edges[0].text : "nothing";
  }

  /* The deadlocks that can be reached from `start`, shortest way first, one of each kind; looks at `most` states, and pauses by `rest`. */
  async function deadlocksAhead(start, most, rest = async () => true) {
    const parents = new Map([[key(start), null]]);
    const found = new Map();
    const queue = [start];
    let stopped = false;
    for (let at = 0; at < queue.length && !stopped; at++) {
      if (at % 500 === 499 && !(await rest(parents.size))) return null;
      const state = queue[at];
      queue[at] = null;
      const waits = waiting(state);
      if (waits.size && stuck(state, waits).size) {
        const circle = cycle(state, waits).map((worker) => {
          const here = location(state, worker);
          return { worker, transaction: here.transaction, resource: resources[here.request[0]].name, family: resources[here.request[0]].family };
        });
        const around = circle.map((one) => `${one.transaction}\u0000${one.family}`);
        const shape = around.map((_, turn) => [...around.slice(turn), ...around.slice(0, turn)].join("\u0001")).sort()[0];
        if (!found.has(shape)) found.set(shape, { circle, steps: wayTo(state) });
        continue;
      }
      for (const action of actions(state)) {
        if (action.fault !== undefined) continue;
        const successor = after(state, action);
        const name = key(successor);
        if (parents.has(name)) continue;
        if (parents.size >= most) {
          stopped = true;
          break;
        }
        parents.set(name, [key(state), action.worker, action.edge]);
        queue.push(successor);
      }
    }
    return { deadlocks: [...found.values()], states: parents.size, stopped };

    function wayTo(state) {
      const steps = [];
      for (let parent = parents.get(key(state)); parent; parent = parents.get(parent[0])) steps.push({ worker: parent[1], edge: parent[2] });
      return steps.reverse();
    }
  }

  return { tables, workers, resources, initial, location, held, key, lockName, conflicts, blockers, waiting, stuck, stalled, delayed, stall, actions, after, cycle, then, deadlocksAhead };
}
