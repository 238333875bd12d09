"""The never claim of a Promela model, which looks at every state: that nobody waits for ever, and what the spec's formulas say.

SPIN's own search for invalid end states would find only those in which all workers wait; a deadlock of some of them is found by
elimination, as in `lockmodel.semantics`: the largest set of waiting workers that only wait for each other is empty.
"""

from __future__ import annotations

from collections.abc import Iterator

from lockmodel.export.formulas import Count, Formula, Number, Tally, Term, Truth
from lockmodel.export.names import comment
from lockmodel.export.promela_names import Names


def claim(names: Names) -> Iterator[str]:
    """The lines of the claim."""
    yield from _FIND
    for request, (_, name) in names.wants.items():
        capacity = names.system.resources[request.resource].capacity
        if capacity is None:
            holders = " | ".join(lock for _, lock in names.against(request)) or "0"
            yield f"  :: want[w] == {name} -> blockers[w] = ({holders}) & ~(1 << w)"
        else:
            pool, used = names.pools[request.resource]
            units = " | ".join(f"({pool}[{w}] > 0 -> {1 << w} : 0)" for w in range(len(names.crew)))
            yield f"  :: want[w] == {name} && {used} >= {capacity} -> blockers[w] = {units}"
    yield from _HOPELESS
    for request, (_, name) in names.wants.items():
        capacity = names.system.resources[request.resource].capacity
        if capacity is not None:
            pool = names.pools[request.resource][0]
            kept = " + ".join(f"(before & {1 << w} -> {pool}[{w}] : 0)" for w in range(len(names.crew)))
            yield f"  :: (blockers[w] & before) && want[w] == {name} && {kept} < {capacity} -> stuck = stuck & ~(1 << w)"
    yield from _LOOK
    if names.system.no_global_stall:
        yield "       assert(running == 0 || waiting != running);  /* no global stall */"
    for number, one in enumerate(names.formulas):
        yield f"       assert({_formula(names, one, names.tallies[number])});  /* {comment(one.name)} */"
    yield from _CLAIM_END


def _formula(names: Names, one: Formula, tallies: list[str]) -> str:
    if len(one.cases) == 1:
        return _term(names, one.cases[0][1], one, tallies)
    cases = [f"(!({names.condition(v)}) || {_term(names, term, one, tallies)})" for v, term in one.cases]
    return " && ".join(cases)


def _term(names: Names, term: Term, one: Formula, tallies: list[str]) -> str:
    if isinstance(term, Number):
        return str(term.value) if term.value >= 0 else f"({term.value})"
    if isinstance(term, Truth):
        return str(term.value).lower()
    if isinstance(term, Count):
        return _count(names, one.tallies[term.index], tallies[3 * term.index : 3 * term.index + 3])
    operands = [_term(names, operand, one, tallies) for operand in term.operands]
    if term.operator == "if":
        return f"({operands[0]} -> {operands[1]} : {operands[2]})"
    if term.operator in ("not", "neg"):
        return f"{'!' if term.operator == 'not' else '-'}({operands[0]})"
    word = {"and": "&&", "or": "||"}.get(term.operator, term.operator)
    return f"({f' {word} '.join(operands)})"


def _count(names: Names, tally: Tally, tallies: list[str]) -> str:
    """How many workers are in a tally: the sum of the bits of a set."""
    masks = {"{0}": tally.always, "({0} & waiting)": tally.waiting, "({0} & ~waiting)": tally.going}
    parts = [mask.format(name) for (mask, places), name in zip(masks.items(), tallies, strict=True) if places]
    members = " | ".join(parts)
    return f"({' + '.join(f'((({members}) >> {w}) & 1)' for w in range(len(names.crew)))})"


_FIND = """\
#ifndef COUNT
/* Sets of workers, bit w for worker w. */
SET blockers[N];  /* for each worker that waits, those it waits for */
SET waiting, running, stuck, before;
byte w;

inline find_blockers() {
  if""".splitlines()

_HOPELESS = """\
  :: else -> blockers[w] = 0
  fi
}

/* Worker w leaves the stuck ones if it will be free once all workers outside of `before` have gone. */
inline leave_if_hopeful() {
  if
  :: (blockers[w] & before) == 0 -> stuck = stuck & ~(1 << w)""".splitlines()

_LOOK = """\
  :: else
  fi
}

/* In every state: nobody is stuck for ever. The largest set of waiting workers that only wait for each other, by elimination. */
never {
  do
  :: d_step {
       true; w = 0;
       do
       :: w < N ->
          find_blockers();
          if :: blockers[w] != 0 -> waiting = waiting | (1 << w) :: else fi;
          if :: want[w] != 0 -> running = running | (1 << w) :: else fi;
          w++
       :: else -> break
       od;
       stuck = waiting;
       do
       :: stuck != before ->
          before = stuck; w = 0;
          do
          :: w < N -> if :: before & (1 << w) -> leave_if_hopeful() :: else fi; w++
          :: else -> break
          od
       :: else -> break
       od;
       assert(stuck == 0);  /* no deadlock */""".splitlines()

_CLAIM_END = """\
       waiting = 0; running = 0; stuck = 0; before = 0; w = 0;
       do
       :: w < N -> blockers[w] = 0; w++
       :: else -> break
       od;
       w = 0
     }
  od
}
#endif""".splitlines()
