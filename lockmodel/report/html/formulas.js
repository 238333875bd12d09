"use strict";

/* Evaluates `never` and `always` formulas in a state. It is lockmodel/properties.py and lockmodel/expressions.py again; a test compares the
   answers of both. Values are numbers, words and truths, which JavaScript's === tells apart as the language does. */

const LARGEST = 1e12;

class FormulaError extends Error {}

function createFormulas(model) {
  const { tables, workers, resources } = model;
  const members = new Map();
  const single = new Map();
  resources.forEach((resource, number) => {
    members.set(resource.family, (members.get(resource.family) || new Set()).add(number));
    single.set(JSON.stringify([resource.family, ...resource.arguments]), new Set([number]));
  });
  const formulas = (tables.properties || []).map((property) => ({ property, needsWaiting: mentions(property.counts, "waits_for"), added: new Map(), values: new Map() }));

  function mentions(tree, word) {
    return Array.isArray(tree) && (tree[0] === word || tree.some((part) => mentions(part, word)));
  }

  /* The resources that `lane` (["lane", null]) or `lane[0]` means. */
  function targets(family, args, scope) {
    if (args === null) return members.get(family) || new Set();
    return single.get(JSON.stringify([family, ...args.map((one) => value(one, scope))])) || new Set();
  }

  /* The value of `tree`; undefined for a variable that the worker has not. `scope`: {values (of the variables), counts, worker}. */
  function term(tree, scope) {
    const [word, first, second, third] = tree;
    switch (word) {
      case "value": return first;
      case "variable": return scope.values[first];
      case "and": return tree.slice(1).every((part) => truth(part, scope));
      case "or": return tree.slice(1).some((part) => truth(part, scope));
      case "not": return !truth(first, scope);
      case "minus": return -whole(value(first, scope));
      case "+": case "-": case "*": case "//": case "%": return calculate(word, whole(value(first, scope)), whole(value(second, scope)));
      case "compare": return compare(term(first, scope), tree.slice(2), scope);
      case "if": return truth(first, scope) ? term(second, scope) : term(third, scope);
      case "count": return scope.counts[first];
    }
    const { role, here, waits } = scope.worker;
    const fits = ([resource, mode]) => targets(first, second, scope).has(resource) && (third === null || third === mode);
    switch (word) {
      case "holds": return tables.lists[here.held].some(fits);
      case "waits_for": return waits && fits(here.request);
    }
    if (first === "transaction") return here.transaction;
    if (first === "role") return role;
    if (first === "status") return here.status;
    return Object.hasOwn(here.local || {}, first) ? here.local[first] : undefined;
  }

  function value(tree, scope) {
    const found = term(tree, scope);
    if (found === undefined) throw new FormulaError("not every worker has what it calculates with");
    return found;
  }

  function truth(tree, scope) {
    const found = value(tree, scope);
    if (typeof found !== "boolean") throw new FormulaError(`a part of it is ${found}, not true or false`);
    return found;
  }

  function whole(found) {
    if (typeof found !== "number") throw new FormulaError(`${found} is not an integer`);
    return found;
  }

  function calculate(word, left, right) {
    let result = word === "+" ? left + right : word === "-" ? left - right : left * right;
    if (word === "//" || word === "%") {
      if (right === 0) throw new FormulaError("it divides by zero");
      // As Python has it: the rest has the sign of the divisor. `+ 0` makes a zero of a negative one.
      const rest = (((left % right) + right) % right) + 0;
      result = word === "%" ? rest : (left - rest) / right;
    }
    if (Math.abs(result) > LARGEST) throw new FormulaError("a number grows too large");
    return result;
  }

  function compare(left, pairs, scope) {
    let mine = left;
    for (const [operator, right] of pairs) {
      if (operator === "in" || operator === "not in") {
        if (mine === undefined) return false;
        if (right.some((item) => value(item, scope) === mine) === (operator === "not in")) return false;
        continue;
      }
      const other = term(right, scope);
      if (mine === undefined || other === undefined) return false;
      if (operator === "==" || operator === "!=") {
        if ((mine === other) === (operator === "!=")) return false;
      } else if (!ordered(operator, whole(mine), whole(other))) return false;
      mine = other;
    }
    return true;
  }

  const ordered = (operator, left, right) => (operator === "<" ? left < right : operator === "<=" ? left <= right : operator === ">" ? left > right : left >= right);

  /* What a worker adds to each `count(…)`: it depends on these four only, so it is computed once for each. */
  function added(formula, role, location, valuation, waits) {
    const key = `${role}|${location}|${valuation}|${waits && formula.needsWaiting}`;
    if (!formula.added.has(key)) {
      const scope = { values: tables.valuations[valuation], worker: { role, here: tables.locations[location], waits } };
      formula.added.set(key, formula.property.counts.map((predicate) => Number(truth(predicate, scope))));
    }
    return formula.added.get(key);
  }

  function broken(formula, state, waits) {
    const counts = formula.property.counts.map(() => 0);
    workers.forEach((worker, number) => {
      added(formula, worker.role, state.locations[number], state.valuation, waits.has(number)).forEach((one, index) => (counts[index] += one));
    });
    const key = `${state.valuation}|${counts}`;
    if (!formula.values.has(key)) formula.values.set(key, truth(formula.property.tree, { values: tables.valuations[state.valuation], counts }));
    return formula.values.get(key) !== formula.property.always;
  }

  /* Each formula in `state`: {property, broken, fault (why it has no meaning here, else undefined)}. */
  return function evaluate(state, waits = model.waiting(state)) {
    return formulas.map((formula) => {
      const { property } = formula;
      if (property.reason !== undefined) return { property, broken: false, fault: property.reason };
      try {
        return { property, broken: broken(formula, state, waits), fault: undefined };
      } catch (error) {
        if (!(error instanceof FormulaError)) throw error;
        return { property, broken: false, fault: error.message };
      }
    });
  };
}
