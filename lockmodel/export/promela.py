"""A system with a fixed number of workers as a Promela model, for SPIN.

Written as a Promela author would: a process for each worker, whose control location is where the worker is, and the locks as a
table. Each edge is one `d_step`, so SPIN stores exactly the states that lockmodel counts, and takes exactly its transitions. The deadlock,
the global stall and the formulas are assertions of a never claim, which looks at every state.

With -DCOUNT the model has nothing but the locks, as counters of a few bits: the fastest and smallest form, for counting states. Without,
each lock is the set of workers that hold it (bit w for worker w), since a deadlock is a question of who waits for whom.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from lockmodel.errors import UsageError
from lockmodel.explanation import step_text
from lockmodel.export.formulas import Count, Formula, Number, Tally, Term, Truth, formula
from lockmodel.export.names import Identifiers, comment
from lockmodel.expressions import Value
from lockmodel.places import PlacedEdge, Places, places_of
from lockmodel.properties import evaluators
from lockmodel.semantics import Crew, Semantics
from lockmodel.system import ActionKind, Edge, Location, Request, System

MAX_WORKERS = 30
"""Bits of Promela's largest unsigned variable that a shift never turns into a sign."""
_KEYWORDS = (
    "active assert atomic bit bool break byte chan c_code c_decl c_expr c_state c_track d_step do else empty enabled eval false fi for "
    "full get_priority goto hidden if in init inline int len local ltl mtype nempty never nfull notrace np_ od of pc_value pid printf "
    "priority proctype provided run select set_priority short show skip timeout trace true typedef unless unsigned xr xs me N COUNT "
    "LOCK TAKE DROP FREE ONLY_MINE POOL TAKE_UNIT DROP_UNIT WANT JOIN LEAVE MOVE TALLY want blockers waiting running stuck before w "
    "SET WATCH ONLY_MINE USED _pid _last _nr_pr _priority"
)


def promela(system: System, crew: Crew, source: str) -> str:
    """The model of `system` with the workers in `crew`; `source` says in its first line where it comes from.

    Raises UsageError for what can't be said in Promela.
    """
    return "\n".join(_Model(system, crew, source).lines()) + "\n"


@dataclass(frozen=True)
class _Effects:
    """What an edge does: to locks (in both forms of the model), and to what the claim looks at (statements that begin with a semicolon)."""

    locks: tuple[str, ...]
    watched: str


class _Model:
    def __init__(self, system: System, crew: Crew, source: str) -> None:
        if len(crew) > MAX_WORKERS:
            raise UsageError(
                f"a Promela model has at most {MAX_WORKERS} workers, not {len(crew)}: a bit for each in one variable"
            )
        self.system, self.crew, self.source = system, crew, source
        semantics = Semantics(system, crew)
        self.formulas = [formula(semantics, evaluator) for evaluator in evaluators(semantics)]
        self.roles: dict[str, Places] = dict(zip(crew.roles, places_of(system, crew), strict=True))
        self.identifiers = Identifiers(_KEYWORDS.split())
        self.requests = self._requests()
        self.locks = self._locks()
        self.pools = self._pools()
        self.wants = {
            request: (number, self.identifiers.new(f"want {self._text(request)}"))
            for number, request in enumerate(self._waiting_requests(), start=2)
        }
        self.variables = [self.identifiers.new(name) for name in system.variables]
        self.values = [self._values(index) for index in range(len(system.variables))]
        self.tallies = [
            [self.identifiers.new(f"tally {number} of {one.name}") for number in range(3 * len(one.tallies))]
            for one in self.formulas
        ]
        self.tally_places = self._tally_places()
        self.proctypes = {
            role: self.identifiers.new(role if role == "worker" else f"{role} worker") for role in self.roles
        }

    def _requests(self) -> list[Request]:
        """All that is requested anywhere, each once."""
        edges = [item.edge for places in self.roles.values() for out in places.out for item in out]
        return list(dict.fromkeys(Request(r.resource, r.mode) for edge in edges for r in edge.requests))

    def _waiting_requests(self) -> Iterable[Request]:
        here = [location for places in self.roles.values() for location in places.all()]
        return dict.fromkeys(Request(w.request.resource, w.request.mode) for w in here if w.request and w.waits)

    def _locks(self) -> dict[tuple[int, str], tuple[str, int]]:
        """For each lock that is ever held and ever in somebody's way: its name, and the bits that count its holders."""
        holds = {hold for places in self.roles.values() for here in places.all() for hold in here.held}
        found = {}
        for hold in sorted(holds, key=lambda hold: (hold.resource, hold.mode)):
            resource = self.system.resources[hold.resource]
            if resource.capacity is None and any(self.system.conflicts(hold, request) for request in self.requests):
                alone = resource.kind.conflict(hold.mode, hold.mode)
                name = self.identifiers.new(f"{resource.name} {hold.mode}")
                found[hold.resource, hold.mode] = (name, 1 if alone else len(self.crew).bit_length())
        return found

    def _pools(self) -> dict[int, tuple[str, str]]:
        """For each pool that is used: its name, and that of the number of units taken."""
        used = dict.fromkeys(
            r.resource for r in self.requests if self.system.resources[r.resource].capacity is not None
        )
        names = {index: self.system.resources[index].name for index in used}
        return {
            index: (self.identifiers.new(name), self.identifiers.new(f"used {name}")) for index, name in names.items()
        }

    def _values(self, index: int) -> dict[tuple[type, Value], str]:
        domain = dict.fromkeys((type(values[index]), values[index]) for values in self.system.valuations)
        return {key: self.identifiers.new(f"{self.system.variables[index]} {key[1]}") for key in domain}

    def _tally_places(self) -> dict[tuple[str, int], list[str]]:
        found: dict[tuple[str, int], list[str]] = defaultdict(list)
        for one, names in zip(self.formulas, self.tallies, strict=True):
            for name, places in zip(names, (p for tally in one.tallies for p in _parts(tally)), strict=True):
                for place in sorted(places):
                    found[place].append(name)
        return found

    def _text(self, request: Request) -> str:
        return f"{self.system.resources[request.resource].name} {request.mode}"

    # The parts of the file

    def lines(self) -> Iterator[str]:
        yield f"/* {comment(self.source)}"
        yield f" * {len(self.crew)} workers: {comment(', '.join(self.crew.names))}"
        yield from _USE
        yield ""
        yield f"#define N {len(self.crew)}  /* workers */"
        yield f"#define SET {'byte' if len(self.crew) <= 8 else 'short' if len(self.crew) <= 15 else 'int'}"
        yield from _MACROS
        yield ""
        yield from self._declarations()
        for role in self.roles:
            yield ""
            yield from self._process(role)
        yield ""
        yield from self._claim()

    def _declarations(self) -> Iterator[str]:
        if self.locks:
            yield "/* Locks that can be in somebody's way, and how many bits count their holders. */"
        for (resource, mode), (name, bits) in self.locks.items():
            yield f"LOCK({name}, {bits});  /* {comment(f'{self.system.resources[resource].name} {mode}')} */"
        for index, (name, used) in self.pools.items():
            resource_name, capacity = self.system.resources[index].name, self.system.resources[index].capacity
            yield f"POOL({name});  /* {comment(resource_name)}: {capacity} units */"
            total = " + ".join(f"{name}[{worker}]" for worker in range(len(self.crew)))
            yield from ("#ifdef COUNT", f"#define {used} {name}", "#else", f"#define {used} ({total})", "#endif")
        for index, (name, values) in enumerate(zip(self.variables, self.values, strict=True)):
            yield f"/* The shared variable {comment(self.system.variables[index])}. */"
            for number, word in enumerate(values.values()):
                yield f"#define {word} {number}"
            initial = self.system.valuations[self.system.initial_valuation][index]
            yield f"unsigned {name} : {max(1, (len(values) - 1).bit_length())} = {values[type(initial), initial]};"
        yield "#ifndef COUNT"
        yield "/* What each worker waits for: 0 it is not running, 1 it runs and waits for nothing, else one of these. */"
        for request, (number, name) in self.wants.items():
            yield f"#define {name} {number}  /* {comment(self._text(request))} */"
        yield f"{'byte' if len(self.wants) < 250 else 'short'} want[N];"
        for one, names in zip(self.formulas, self.tallies, strict=True):
            yield f"/* {comment(one.name)}: who is where, for {comment(one.text)} */"
            for name in names:
                yield f"TALLY({name}) = {self._at_first(name)};"
        yield "#endif"

    def _at_first(self, tally: str) -> int:
        """The workers whose first place is in the tally, as bits."""
        return sum(
            1 << number for number, role in enumerate(self.crew.roles) if tally in self.tally_places.get((role, 0), ())
        )

    def _process(self, role: str) -> Iterator[str]:
        places = self.roles[role]
        yield f"active [{self.crew.roles.count(role)}] proctype {self.proctypes[role]}()"
        yield "{"
        for place, location in enumerate(places.all()):
            holds = ", ".join(f"{self.system.resources[h.resource].name} {h.mode}" for h in location.held)
            where = location.transaction or str(location.status)
            yield f"{_label(location)}:  /* {comment(where)}{': holds ' + comment(holds) if holds else ''} */"
            yield "  if"
            for item in places.out[place]:
                yield from (f"  :: {option}" for option in self._options(role, places, item))
            if not places.out[place]:
                yield "  :: false -> skip"
            yield "  fi;"
        yield "}"

    def _options(self, role: str, places: Places, item: PlacedEdge) -> Iterator[str]:
        """An edge: one option for each outcome that it can have for the shared variables, and one where it has no meaning."""
        source = self.system.locations[places.locations[item.source]]
        target = self.system.locations[places.locations[item.target]]
        edge = item.edge
        free = self._free(source, edge)
        effects = self._effects(role, source, target)
        goto = f"goto {_label(target)}; /* {comment(step_text(edge.action, edge.label))} */"
        for valuations, assignments in self._outcomes(edge):
            guards = [*free, *([self._condition(valuations)] if valuations is not None else [])]
            statements = [*effects.locks, *assignments]
            if statements:
                body = f"{' && '.join(guards) or 'true'} -> {'; '.join(statements)}"
                yield f"d_step {{ {body}{effects.watched} }} {goto}"
            elif effects.watched:
                yield f"MOVE({' && '.join(guards) or 'true'}, {effects.watched}) {goto}"
            else:
                yield f"{' && '.join(guards) or 'true'} -> {goto}"
        for valuation, message in edge.faults.items():
            guards = [*free, self._condition(frozenset((valuation,)))]
            yield f"d_step {{ {' && '.join(guards)} -> assert(false) }} {goto} /* {comment(message)} */"

    def _outcomes(self, edge: Edge) -> Iterator[tuple[frozenset[int] | None, list[str]]]:
        """Each way in which `edge` can leave the shared variables: in which valuations (None: all), and the assignments."""
        every = range(len(self.system.valuations))
        allowed = [v for v in every if (edge.guard is None or v in edge.guard) and v not in edge.faults]
        update = edge.update
        if update is None:
            if allowed:
                yield (None if len(allowed) == len(every) else frozenset(allowed)), []
            return
        changed = [
            index for index in range(len(self.variables)) if any(not self._equal(v, update[v], index) for v in allowed)
        ]
        groups: dict[tuple[str, ...], set[int]] = defaultdict(set)
        for v in allowed:
            after = self.system.valuations[update[v]]
            groups[tuple(f"{self.variables[i]} = {self.values[i][type(after[i]), after[i]]}" for i in changed)].add(v)
        for assignments, group in groups.items():
            yield (None if len(group) == len(every) else frozenset(group)), list(assignments)

    def _equal(self, one: int, other: int, index: int) -> bool:
        """Whether two valuations have the same value of a variable; 1 is not true."""
        mine, theirs = self.system.valuations[one][index], self.system.valuations[other][index]
        return type(mine) is type(theirs) and mine == theirs

    def _condition(self, valuations: frozenset[int]) -> str:
        """That the shared variables have one of `valuations`, by those of them that matter."""
        keys = [tuple((type(value), value) for value in values) for values in self.system.valuations]
        inside = {keys[v] for v in valuations}
        relevant = list(range(len(self.variables)))
        for index in range(len(self.variables)):
            rest = [other for other in relevant if other != index]
            projected = {tuple(key[i] for i in rest) for key in inside}
            if all(key in inside for key in keys if tuple(key[i] for i in rest) in projected):
                relevant = rest
        chosen = dict.fromkeys(tuple(key[i] for i in relevant) for key in keys if key in inside)
        others = dict.fromkeys(tuple(key[i] for i in relevant) for key in keys if key not in inside)

        def listed(combinations: Iterable[tuple[tuple[type, Value], ...]]) -> str:
            alternatives = [
                " && ".join(
                    f"{self.variables[i]} == {self.values[i][value]}" for i, value in zip(relevant, one, strict=True)
                )
                for one in combinations
            ]
            return " || ".join(f"({text})" for text in alternatives)

        if not chosen:
            return "false"
        if not relevant:
            return "true"
        # In parentheses of its own, for `!!` sends a message.
        return f"({listed(chosen)})" if len(chosen) <= len(others) else f"(!({listed(others)}))"

    # What an edge needs and does

    def _free(self, source: Location, edge: Edge) -> list[str]:
        """That all requests of `edge` are free; of a REFUSE, that its one is not."""
        conditions = [text for request in edge.requests for text in self._free_of(source, request)]
        if edge.action is not ActionKind.REFUSE:
            return conditions
        return [f"!({' && '.join(conditions)})" if conditions else "false"]

    def _free_of(self, source: Location, request: Request) -> Iterator[str]:
        capacity = self.system.resources[request.resource].capacity
        if capacity is not None:
            yield f"{self.pools[request.resource][1]} < {capacity}"
        held = {(hold.resource, hold.mode) for hold in source.held}
        for key, name in self._against(request):
            yield f"{'ONLY_MINE' if key in held else 'FREE'}({name})"

    def _against(self, request: Request) -> Iterator[tuple[tuple[int, str], str]]:
        """The locks that are in the way of `request`."""
        kind = self.system.resources[request.resource].kind
        for (resource, mode), (name, _) in self.locks.items():
            if resource == request.resource and kind.conflict(mode, request.mode):
                yield (resource, mode), name

    def _effects(self, role: str, source: Location, target: Location) -> _Effects:
        before, after = self._held(source), self._held(target)
        locks = [f"TAKE({self.locks[key][0]})" for key in self.locks if key in after and key not in before]
        locks += [f"DROP({self.locks[key][0]})" for key in self.locks if key in before and key not in after]
        for index, (name, _) in self.pools.items():
            more = sum(h.resource == index for h in target.held) - sum(h.resource == index for h in source.held)
            locks += [f"{'TAKE_UNIT' if more > 0 else 'DROP_UNIT'}({name})"] * abs(more)
        watched = [f"; want[_pid] = {self._want(target)}"] if self._want(source) != self._want(target) else []
        mine, theirs = (self.tally_places.get((role, here.index), []) for here in (source, target))
        watched += [f"; JOIN({name})" for name in theirs if name not in mine]
        watched += [f"; LEAVE({name})" for name in mine if name not in theirs]
        return _Effects(tuple(locks), f" WATCH({' '.join(watched)})" if watched else "")

    @staticmethod
    def _held(location: Location) -> set[tuple[int, str]]:
        return {(hold.resource, hold.mode) for hold in location.held}

    def _want(self, location: Location) -> str:
        if location.request and location.waits:
            return self.wants[Request(location.request.resource, location.request.mode)][1]
        return str(int(location.status == "running"))

    # The claim

    def _claim(self) -> Iterator[str]:
        yield from _FIND
        for request, (_, name) in self.wants.items():
            capacity = self.system.resources[request.resource].capacity
            if capacity is None:
                holders = " | ".join(lock for _, lock in self._against(request)) or "0"
                yield f"  :: want[w] == {name} -> blockers[w] = ({holders}) & ~(1 << w)"
            else:
                pool, used = self.pools[request.resource]
                units = " | ".join(f"({pool}[{w}] > 0 -> {1 << w} : 0)" for w in range(len(self.crew)))
                yield f"  :: want[w] == {name} && {used} >= {capacity} -> blockers[w] = {units}"
        yield from _HOPELESS
        for request, (_, name) in self.wants.items():
            capacity = self.system.resources[request.resource].capacity
            if capacity is not None:
                pool = self.pools[request.resource][0]
                kept = " + ".join(f"(before & {1 << w} -> {pool}[{w}] : 0)" for w in range(len(self.crew)))
                yield f"  :: (blockers[w] & before) && want[w] == {name} && {kept} < {capacity} -> stuck = stuck & ~(1 << w)"
        yield from _LOOK
        if self.system.no_global_stall:
            yield "       assert(running == 0 || waiting != running);  /* no global stall */"
        for number, one in enumerate(self.formulas):
            yield f"       assert({self._formula(one, self.tallies[number])});  /* {comment(one.name)} */"
        yield from _CLAIM_END

    def _formula(self, one: Formula, names: list[str]) -> str:
        if len(one.cases) == 1:
            return self._term(one.cases[0][1], one.tallies, names)
        cases = [f"(!({self._condition(v)}) || {self._term(term, one.tallies, names)})" for v, term in one.cases]
        return " && ".join(cases)

    def _term(self, term: Term, tallies: tuple[Tally, ...], names: list[str]) -> str:
        if isinstance(term, Number):
            return str(term.value) if term.value >= 0 else f"({term.value})"
        if isinstance(term, Truth):
            return str(term.value).lower()
        if isinstance(term, Count):
            return self._count(tallies[term.index], names[3 * term.index : 3 * term.index + 3])
        operands = [self._term(operand, tallies, names) for operand in term.operands]
        if term.operator == "if":
            return f"({operands[0]} -> {operands[1]} : {operands[2]})"
        if term.operator in ("not", "neg"):
            return f"{'!' if term.operator == 'not' else '-'}({operands[0]})"
        word = {"and": "&&", "or": "||"}.get(term.operator, term.operator)
        return f"({f' {word} '.join(operands)})"

    def _count(self, tally: Tally, names: list[str]) -> str:
        """How many workers are in a tally: the sum of the bits of a set."""
        masks = {"{0}": tally.always, "({0} & waiting)": tally.waiting, "({0} & ~waiting)": tally.going}
        parts = [mask.format(name) for (mask, places), name in zip(masks.items(), names, strict=True) if places]
        members = " | ".join(parts)
        return f"({' + '.join(f'((({members}) >> {w}) & 1)' for w in range(len(self.crew)))})"


def _parts(tally: Tally) -> tuple[frozenset[tuple[str, int]], ...]:
    return tally.always, tally.waiting, tally.going


def _label(location: Location) -> str:
    return f"at_{location.index}" if location.index else "end_at_0"


_USE = """\
 *
 * Is there a violation?  spin -o1 -o2 -o3 -a model.pml && gcc -O3 -DSAFETY -DNOREDUCE -o pan pan.c && ./pan -E -m1000000
 * The shortest trace:    the same with -DBFS; then spin -t -p model.pml
 * How many states?       the same with spin -DCOUNT: no claim, the smallest states; transitions are stored + matched - 1
 *
 * A label at_17 is the worker's location 17. spin warns that the claim has side effects: its scratch variables, which are 0 again after each look.
 */""".splitlines()

_MACROS = """\
#define me (1 << _pid)
#ifdef COUNT
#define LOCK(lock, bits) unsigned lock : bits
#define TAKE(lock) lock++
#define DROP(lock) lock--
#define ONLY_MINE(lock) (lock == 1)
#define POOL(pool) byte pool
#define TAKE_UNIT(pool) pool++
#define DROP_UNIT(pool) pool--
#define WATCH(statements)
#define MOVE(guard, watched) guard ->
#else
#define LOCK(lock, bits) unsigned lock : N
#define TAKE(lock) lock = lock | me
#define DROP(lock) lock = lock & ~me
#define ONLY_MINE(lock) (lock == me)
#define POOL(pool) byte pool[N]
#define TAKE_UNIT(pool) pool[_pid]++
#define DROP_UNIT(pool) pool[_pid]--
#define TALLY(places) unsigned places : N
#define JOIN(places) places = places | me
#define LEAVE(places) places = places & ~me
#define WATCH(statements) statements
#define MOVE(guard, watched) d_step { guard watched } ->
#endif
#define FREE(lock) (lock == 0)""".splitlines()

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
