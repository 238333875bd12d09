"""A system with a fixed number of workers as a Promela model, for SPIN.

Written as a Promela author would: a process for each worker, whose control location is where the worker is, and the locks as a
table. Each edge is one `d_step`, so SPIN stores exactly the states that lockmodel counts, and takes exactly its transitions. The deadlock,
the global stall and the formulas are assertions of a never claim, which looks at every state (`promela_claim`).

With -DCOUNT the model has nothing but the locks, as counters of a few bits: the fastest and smallest form, for counting states. Without,
each lock is the set of workers that hold it (bit w for worker w), since a deadlock is a question of who waits for whom.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from lockmodel.errors import UsageError
from lockmodel.explanation import step_text
from lockmodel.export.names import comment
from lockmodel.export.promela_claim import claim
from lockmodel.export.promela_names import Names
from lockmodel.places import PlacedEdge, Places
from lockmodel.semantics import Crew
from lockmodel.system import ActionKind, Edge, Location, Request, System

MAX_WORKERS = 30
"""Bits of Promela's largest unsigned variable that a shift never turns into a sign."""


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
        self.names, self.source = Names(system, crew), source
        self.system, self.crew = system, crew

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
        for role in self.names.roles:
            yield ""
            yield from self._process(role)
        yield ""
        yield from claim(self.names)

    def _declarations(self) -> Iterator[str]:
        if self.names.locks:
            yield "/* Locks that can be in somebody's way, and how many bits count their holders. */"
        for (resource, mode), (name, bits) in self.names.locks.items():
            yield f"LOCK({name}, {bits});  /* {comment(f'{self.system.resources[resource].name} {mode}')} */"
        for index, (name, used) in self.names.pools.items():
            resource_name, capacity = self.system.resources[index].name, self.system.resources[index].capacity
            yield f"POOL({name});  /* {comment(resource_name)}: {capacity} units */"
            total = " + ".join(f"{name}[{worker}]" for worker in range(len(self.crew)))
            yield from ("#ifdef COUNT", f"#define {used} {name}", "#else", f"#define {used} ({total})", "#endif")
        for index, (name, values) in enumerate(zip(self.names.variables, self.names.values, strict=True)):
            yield f"/* The shared variable {comment(self.system.variables[index])}. */"
            for number, word in enumerate(values.values()):
                yield f"#define {word} {number}"
            initial = self.system.valuations[self.system.initial_valuation][index]
            yield f"unsigned {name} : {max(1, (len(values) - 1).bit_length())} = {values[type(initial), initial]};"
        yield "#ifndef COUNT"
        yield "/* What each worker waits for: 0 it is not running, 1 it runs and waits for nothing, else one of these. */"
        for request, (number, name) in self.names.wants.items():
            yield f"#define {name} {number}  /* {comment(self.names.text(request))} */"
        yield f"{'byte' if len(self.names.wants) < 250 else 'short'} want[N];"
        for one, names in zip(self.names.formulas, self.names.tallies, strict=True):
            yield f"/* {comment(one.name)}: who is where, for {comment(one.text)} */"
            for name in names:
                yield f"TALLY({name}) = {self._at_first(name)};"
        yield "#endif"

    def _at_first(self, tally: str) -> int:
        """The workers whose first place is in the tally, as bits."""
        return sum(
            1 << number
            for number, role in enumerate(self.crew.roles)
            if tally in self.names.tally_places.get((role, 0), ())
        )

    def _process(self, role: str) -> Iterator[str]:
        places = self.names.roles[role]
        yield f"active [{self.crew.roles.count(role)}] proctype {self.names.proctypes[role]}()"
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
            guards = [*free, *([self.names.condition(valuations)] if valuations is not None else [])]
            statements = [*effects.locks, *assignments]
            if statements:
                body = f"{' && '.join(guards) or 'true'} -> {'; '.join(statements)}"
                yield f"d_step {{ {body}{effects.watched} }} {goto}"
            elif effects.watched:
                yield f"MOVE({' && '.join(guards) or 'true'}, {effects.watched}) {goto}"
            else:
                yield f"{' && '.join(guards) or 'true'} -> {goto}"
        for valuation, message in edge.faults.items():
            guards = [*free, self.names.condition(frozenset((valuation,)))]
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
            index
            for index in range(len(self.names.variables))
            if any(not self._equal(v, update[v], index) for v in allowed)
        ]
        groups: dict[tuple[str, ...], set[int]] = defaultdict(set)
        for v in allowed:
            after = self.system.valuations[update[v]]
            assigned = [(self.names.variables[i], self.names.values[i][type(after[i]), after[i]]) for i in changed]
            groups[tuple(f"{name} = {value}" for name, value in assigned)].add(v)
        for assignments, group in groups.items():
            yield (None if len(group) == len(every) else frozenset(group)), list(assignments)

    def _equal(self, one: int, other: int, index: int) -> bool:
        """Whether two valuations have the same value of a variable; 1 is not true."""
        mine, theirs = self.system.valuations[one][index], self.system.valuations[other][index]
        return type(mine) is type(theirs) and mine == theirs

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
            yield f"{self.names.pools[request.resource][1]} < {capacity}"
        held = {(hold.resource, hold.mode) for hold in source.held}
        for key, name in self.names.against(request):
            yield f"{'ONLY_MINE' if key in held else 'FREE'}({name})"

    def _effects(self, role: str, source: Location, target: Location) -> _Effects:
        before, after = self._held(source), self._held(target)
        locks = [f"TAKE({self.names.locks[key][0]})" for key in self.names.locks if key in after and key not in before]
        locks += [f"DROP({self.names.locks[key][0]})" for key in self.names.locks if key in before and key not in after]
        for index, (name, _) in self.names.pools.items():
            more = sum(h.resource == index for h in target.held) - sum(h.resource == index for h in source.held)
            locks += [f"{'TAKE_UNIT' if more > 0 else 'DROP_UNIT'}({name})"] * abs(more)
        watched = [f"; want[_pid] = {self._want(target)}"] if self._want(source) != self._want(target) else []
        mine, theirs = (self.names.tally_places.get((role, here.index), []) for here in (source, target))
        watched += [f"; JOIN({name})" for name in theirs if name not in mine]
        watched += [f"; LEAVE({name})" for name in mine if name not in theirs]
        return _Effects(tuple(locks), f" WATCH({' '.join(watched)})" if watched else "")

    @staticmethod
    def _held(location: Location) -> set[tuple[int, str]]:
        return {(hold.resource, hold.mode) for hold in location.held}

    def _want(self, location: Location) -> str:
        if location.request and location.waits:
            return self.names.wants[Request(location.request.resource, location.request.mode)][1]
        return str(int(location.status == "running"))


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
