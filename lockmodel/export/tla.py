"""A system with a fixed number of workers as a TLA+ module with its configuration, for TLC.

The module says in a few lines what locks, waiting and deadlock are, once for all systems, and then lists the system as tables: where a
worker can be, what it holds there, and where it can go. A state is the place of each worker and the values of the shared variables, so
TLC's distinct states are those that lockmodel counts, and its generated states are one more than the transitions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from lockmodel.explanation import step_text
from lockmodel.export.formulas import Count, Formula, Number, Place, Tally, Term, Truth, formula
from lockmodel.export.names import Identifiers, comment, identifier, string
from lockmodel.places import Places, places_of
from lockmodel.properties import evaluators
from lockmodel.semantics import Crew, Semantics
from lockmodel.system import ActionKind, Edge, Location, System

_KEYWORDS = (
    "ACTION ASSUME ASSUMPTION AXIOM BY CASE CHOOSE CONSTANT CONSTANTS COROLLARY DEF DEFINE DEFS DOMAIN ELSE ENABLED EXCEPT EXTENDS HAVE "
    "HIDE IF IN INSTANCE LAMBDA LEMMA LET LOCAL MODULE NEW OBVIOUS OMITTED OTHER PICK PROOF PROPOSITION PROVE QED RECURSIVE SF_ STATE "
    "SUBSET SUFFICES TAKE TEMPORAL THEN THEOREM UNCHANGED UNION USE VARIABLE VARIABLES WF_ WITH WITNESS at shared Workers Role Runs Locks "
    "Clash Places Valuations Pools Nat Int Integers FiniteSets TRUE FALSE BOOLEAN STRING"
)


@dataclass(frozen=True)
class Module:
    """A module, the text of its configuration file, and its name, which its file must have."""

    name: str
    text: str
    configuration: str


def tla(system: System, crew: Crew, source: str, name: str | None = None) -> Module:
    """The module of `system` with the workers in `crew`; `source` says in its first comment where it comes from.

    `name` is the module's; None: after the system. Raises UsageError for what can't be said in TLA+.
    """
    return _Tables(system, crew, source, name or module_name(system.name)).module


def module_name(text: str) -> str:
    """`text` as a name that a TLA+ module can have."""
    return Identifiers(_KEYWORDS.split()).new(identifier(text))


class _Tables:
    def __init__(self, system: System, crew: Crew, source: str, name: str) -> None:
        self.system, self.crew, self.source = system, crew, source
        semantics = Semantics(system, crew)
        self.formulas = [formula(semantics, evaluator) for evaluator in evaluators(semantics)]
        self.names = Identifiers([*_KEYWORDS.split(), *_DEFINED.split(), name])
        self.roles: dict[str, Places] = dict(zip(crew.roles, places_of(system, crew), strict=True))
        self.numbers = {
            location: number
            for number, location in enumerate(
                dict.fromkeys(location for places in self.roles.values() for location in places.locations), start=1
            )
        }
        self.locations = [system.locations[location] for location in self.numbers]
        edges = [edge for here in self.locations for edge in here.edges]
        held = [(hold.resource, hold.mode) for here in self.locations for hold in here.held]
        wanted = [(request.resource, request.mode) for edge in edges for request in edge.requests]
        self.locks = {lock: number for number, lock in enumerate(sorted({*held, *wanted}), start=1)}
        self.pools = [index for index, resource in enumerate(system.resources) if resource.capacity is not None]
        self.faults = any(edge.faults for edge in edges)
        self.values = _texts(system)
        self.definitions = [self.names.new(f"Property {one.name}") for one in self.formulas]
        invariants = ["TypeOK", "NoDeadlock", *(["NoGlobalStall"] if system.no_global_stall else [])]
        invariants += [*self.definitions, *(["NoFault"] if self.faults else [])]
        self.module = Module(name, "\n".join(self.lines(name)) + "\n", _configuration(invariants))

    def lines(self, name: str) -> Iterator[str]:
        yield f"{'-' * 30} MODULE {name} {'-' * 30}"
        yield f"(* {comment(self.source)}"
        yield f"   {len(self.crew)} workers: {comment(', '.join(self.crew.names))}"
        yield from (line.replace("NAME", name) for line in _HEAD)
        yield from self._constants()
        yield "VARIABLES at, shared"
        yield "vars == <<at, shared>>"
        yield ""
        yield from _MEANING_OF_LOCKS
        yield from _POOLS if self.pools else _NO_POOLS
        initial = self.values[self.system.initial_valuation]
        yield from (line.replace("INITIAL", initial) for line in _MEANING)
        if self.faults:
            yield from _NO_FAULT
        for one, word in zip(self.formulas, self.definitions, strict=True):
            yield from self._property(one, word)
        yield "=" * 80

    # Tables

    def _constants(self) -> Iterator[str]:
        yield f"Workers == 1..{len(self.crew)}"
        roles = list(self.roles)
        yield f"Role == {_sequence(string(role) for role in self.crew.roles)}"
        runs = {role: self.crew.transactions[self.crew.roles.index(role)] for role in roles}
        yield "\\* The transactions that each role runs."
        yield f"Runs == {_record((string(role), _set(map(string, runs[role]))) for role in roles)}"
        yield ""
        kinds = {self.system.resources[resource].kind for resource, _ in self.locks}
        yield "\\* Which modes are in each other's way, for each kind of resource: <<held, wanted>>."
        yield "Clash == " + _record(
            (
                string(kind.name),
                _set(f"<<{string(mode)}, {string(other)}>>" for mode in kind.modes for other in kind.conflicts[mode]),
            )
            for kind in sorted(kinds, key=lambda kind: kind.name)
        )
        yield "\\* The locks that are ever held or wanted."
        yield "Lock(resource, kind, mode) == [resource |-> resource, kind |-> kind, mode |-> mode]"
        yield "Locks == <<"
        rows = []
        for resource, mode in self.locks:
            found = self.system.resources[resource]
            rows.append(f"  Lock({string(found.name)}, {string(found.kind.name)}, {string(mode)})")
        yield from _numbered(rows)
        yield ">>"
        if self.pools:
            rows = [
                f"{string(self.system.resources[index].name)} :> {self.system.resources[index].capacity}"
                for index in self.pools
            ]
            yield f"Size == {' @@ '.join(rows)}"
        yield ""
        if self.system.variables:
            yield f"\\* The values that the shared variables can have together: {comment(', '.join(self.system.variables))}"
        yield f"Valuations == {_set(self.values)}"
        yield ""
        yield from _STEPS
        units = ", [units |-> ...] the units of pools held there" if self.pools else ""
        yield f"\\* Where a worker can be: its status, its transaction, the locks held there{units}, the lock waited for (0: none), its steps."
        if self.pools:
            yield "At(status, transaction, holds, units, wants, steps) == [status |-> status, transaction |-> transaction,"
            yield "  holds |-> holds, units |-> units, wants |-> wants, steps |-> steps]"
        else:
            yield "At(status, transaction, holds, wants, steps) == [status |-> status, transaction |-> transaction,"
            yield "  holds |-> holds, wants |-> wants, steps |-> steps]"
        yield "Places == <<"
        yield from _numbered([self._place(here) for here in self.locations])
        yield ">>"
        yield ""

    def _place(self, here: Location) -> str:
        holds = sorted({self.locks[hold.resource, hold.mode] for hold in here.held if hold.resource not in self.pools})
        wants = self.locks[here.request.resource, here.request.mode] if here.request and here.waits else 0
        cells = [string(str(here.status)), string(here.transaction or ""), _set(map(str, holds))]
        if self.pools:
            names = [self.system.resources[hold.resource].name for hold in here.held if hold.resource in self.pools]
            cells.append(
                " @@ ".join(f"{string(name)} :> {names.count(name)}" for name in dict.fromkeys(names)) or "<<>>"
            )
        cells.append(str(wants))
        steps = [step for edge in here.edges if edge.target in self.numbers for step in self._steps(edge)]
        # One step a line, where a place has more than a few: the idle one starts every transaction.
        comma = ", " if len(steps) < 4 else ",\n    "
        return f"  At({', '.join(cells)}, {{{comma.join(dict.fromkeys(steps))}}})"

    def _steps(self, edge: Edge) -> Iterator[str]:
        """An edge as a step: one record, in a few operators by what it does; where it has no meaning, one more."""
        locks = _set(str(self.locks[request.resource, request.mode]) for request in edge.requests)
        words = {ActionKind.START: string(edge.transaction or "")}
        does = string(step_text(edge.action, edge.label))
        target = str(self.numbers[edge.target])
        match edge.action:
            case ActionKind.START:
                step = f"Start({words[edge.action]}, {does}, {locks}, {target})"
            case ActionKind.ACQUIRE:
                step = f"Acquire({locks}, {target})"
            case ActionKind.REFUSE:
                step = f"Refuse({locks}, {target})"
            case _:
                step = f"Go({does}, {target})"
        every = range(len(self.system.valuations))
        allowed = [v for v in every if (edge.guard is None or v in edge.guard) and v not in edge.faults]
        if allowed:
            yield self._with_variables(step, edge, allowed, len(every))
        if edge.faults:
            meaningless = _set(self.values[v] for v in edge.faults)
            yield f"Fault({step}, {meaningless}, {string(next(iter(edge.faults.values())))})"

    def _with_variables(self, step: str, edge: Edge, allowed: Sequence[int], every: int) -> str:
        if edge.update is not None:
            changes = [f"{self.values[v]} :> {self.values[edge.update[v]]}" for v in allowed]
            return f"Setting({step}, {' @@ '.join(changes)})"
        return step if len(allowed) == every else f"When({step}, {_set(self.values[v] for v in allowed)})"

    # Formulas

    def _property(self, one: Formula, word: str) -> Iterator[str]:
        """The formula as an operator, with the places that it counts as sets beside it."""
        yield ""
        yield f"\\* {comment(one.name)}: {comment(one.text)}"
        counts = []
        for tally in one.tallies:
            parts = []
            for places, condition in (
                (tally.always, ""),
                (tally.waiting, " /\\ w \\in Waiting"),
                (tally.going, " /\\ w \\notin Waiting"),
            ):
                for role, numbers in self._by_role(places):
                    where = self.names.new(f"Counted in {one.name}")
                    yield f"{where} == {_set(map(str, numbers))}"
                    parts.append(f"(Role[w] = {string(role)} /\\ at[w] \\in {where}{condition})")
            members = " \\/ ".join(parts) or "FALSE"
            counts.append(f"Cardinality({{w \\in Workers : {members}}})")
        yield f"{word} =="
        for valuations, term in one.cases:
            case = _set(self.values[v] for v in sorted(valuations))
            text = _term(term, counts, one.tallies)
            yield f"  /\\ {text}" if len(one.cases) == 1 else f"  /\\ shared \\in {case} => {text}"

    def _by_role(self, places: Iterable[Place]) -> Iterator[tuple[str, list[int]]]:
        found: dict[str, list[int]] = {}
        for role, location in sorted(places):
            found.setdefault(role, []).append(self.numbers[location])
        yield from found.items()


def _term(term: Term, counts: Sequence[str], tallies: tuple[Tally, ...]) -> str:
    if isinstance(term, Number):
        return str(term.value) if term.value >= 0 else f"({term.value})"
    if isinstance(term, Truth):
        return str(term.value).upper()
    if isinstance(term, Count):
        return counts[term.index]
    operands = [_term(operand, counts, tallies) for operand in term.operands]
    if term.operator == "if":
        return f"(IF {operands[0]} THEN {operands[1]} ELSE {operands[2]})"
    if term.operator in ("not", "neg"):
        return f"({'~' if term.operator == 'not' else '-'}({operands[0]}))"
    symbol = {"and": "/\\", "or": "\\/", "==": "=", "!=": "/="}.get(term.operator, term.operator)
    return f"({f' {symbol} '.join(operands)})"


def _texts(system: System) -> list[str]:
    """Each valuation as a tuple of texts: TLC can't compare a number with a word. No two values of a variable have the same text."""
    return [_sequence(string(_value_text(value)) for value in values) for values in system.valuations]


def _value_text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _set(items: Iterable[str]) -> str:
    return f"{{{', '.join(dict.fromkeys(items))}}}"


def _sequence(items: Iterable[str]) -> str:
    return f"<<{', '.join(items)}>>"


def _record(items: Iterable[tuple[str, str]]) -> str:
    """A function from texts, as its pairs."""
    return " @@ ".join(f"({key} :> {value})" for key, value in items) or "<<>>"


def _numbered(rows: Sequence[str]) -> Iterator[str]:
    """The rows of a sequence, each with its number."""
    for number, row in enumerate(rows, start=1):
        yield f"{row}{',' if number < len(rows) else ''}  \\* {number}"


def _configuration(invariants: Iterable[str]) -> str:
    return "\n".join(
        [
            "SPECIFICATION Spec",
            "INVARIANTS",
            *(f"  {name}" for name in invariants),
            "ALIAS InWords",
            "CHECK_DEADLOCK FALSE",
            "",
        ]
    )


_DEFINED = (
    "Lock Locks Size Start Acquire Refuse Go When Setting Fault At vars Here Held Conflicts Used Units Blockers Waiting Hopeless Stuck "
    "Enabled Step Next Spec Init TypeOK NoDeadlock NoGlobalStall NoFault Running Named InWords Unchanged Always w o k e p S"
)

_HEAD = """\

   java -cp tla2tools.jar tlc2.TLC NAME      (its configuration is NAME.cfg)

   TLC's distinct states and depth are lockmodel's; its generated states are the transitions and one.
   TLC's own check for deadlock is off: it means that nothing at all can happen. The invariant NoDeadlock also finds workers that are
   stuck for ever while others run. *)
EXTENDS Integers, FiniteSets, TLC
""".splitlines()

_STEPS = """\
\\* Steps: what it does, who can take it, the locks that must be free (or, if refused, of which one must not be), where it leads,
\\* and what it does to the shared variables: a function on the valuations in which it is possible.
Unchanged == [v \\in Valuations |-> v]
Start(transaction, does, locks, to) ==
  [does |-> does, by |-> transaction, locks |-> locks, refused |-> FALSE, to |-> to, then |-> Unchanged, fault |-> ""]
Acquire(locks, to) ==
  [does |-> "acquire", by |-> "", locks |-> locks, refused |-> FALSE, to |-> to, then |-> Unchanged, fault |-> ""]
Refuse(locks, to) ==
  [does |-> "refuse", by |-> "", locks |-> locks, refused |-> TRUE, to |-> to, then |-> Unchanged, fault |-> ""]
Go(does, to) == [does |-> does, by |-> "", locks |-> {}, refused |-> FALSE, to |-> to, then |-> Unchanged, fault |-> ""]
When(step, valuations) == [step EXCEPT !.then = [v \\in valuations |-> v]]
Setting(step, then) == [step EXCEPT !.then = then]
Fault(step, valuations, why) == [step EXCEPT !.then = [v \\in valuations |-> v], !.fault = why]
""".splitlines()

_MEANING_OF_LOCKS = """\
(* What it means *)

Here(w) == Places[at[w]]
\\* The locks that are in the way of lock k, if another worker holds them.
Conflicts == [k \\in DOMAIN Locks |-> {j \\in DOMAIN Locks :
  /\\ Locks[j].resource = Locks[k].resource
  /\\ <<Locks[j].mode, Locks[k].mode>> \\in Clash[Locks[k].kind]}]""".splitlines()

_NO_POOLS = """\
\\* The workers that make w wait if it asks for lock k.
Blockers(w, k) == {o \\in Workers \\ {w} : Here(o).holds \\cap Conflicts[k] /= {}}
\\* Whether w must wait for ever if all in S do.
Hopeless(w, S) == Blockers(w, Here(w).wants) \\cap S /= {}""".splitlines()

_POOLS = """\
\\* Units of pool p that worker w holds, and that all in S hold.
Units(w, p) == IF p \\in DOMAIN Here(w).units THEN Here(w).units[p] ELSE 0
RECURSIVE Used(_, _)
Used(S, p) == IF S = {} THEN 0 ELSE LET w == CHOOSE w \\in S : TRUE IN Units(w, p) + Used(S \\ {w}, p)
IsPool(k) == Locks[k].kind = "pool"
\\* The workers that make w wait if it asks for lock k.
Blockers(w, k) ==
  IF IsPool(k)
  THEN LET p == Locks[k].resource IN IF Used(Workers, p) >= Size[p] THEN {o \\in Workers : Units(o, p) > 0} ELSE {}
  ELSE {o \\in Workers \\ {w} : Here(o).holds \\cap Conflicts[k] /= {}}
\\* Whether w must wait for ever if all in S do.
Hopeless(w, S) ==
  LET k == Here(w).wants IN
  IF IsPool(k) THEN Used(S, Locks[k].resource) >= Size[Locks[k].resource] ELSE Blockers(w, k) \\cap S /= {}""".splitlines()

_MEANING = """\
Waiting == {w \\in Workers : Here(w).wants /= 0 /\\ Blockers(w, Here(w).wants) /= {}}
Running == {w \\in Workers : Here(w).status = "running"}

Enabled(w, e) ==
  /\\ e.by = "" \\/ e.by \\in Runs[Role[w]]
  /\\ shared \\in DOMAIN e.then
  /\\ IF e.refused THEN \\E k \\in e.locks : Blockers(w, k) /= {} ELSE \\A k \\in e.locks : Blockers(w, k) = {}
Step(w, e) ==
  /\\ e.fault = ""
  /\\ Enabled(w, e)
  /\\ at' = [at EXCEPT ![w] = e.to]
  /\\ shared' = e.then[shared]

Init == at = [w \\in Workers |-> 1] /\\ shared = INITIAL
Next == \\E w \\in Workers : \\E e \\in Here(w).steps : Step(w, e)
Spec == Init /\\ [][Next]_vars

TypeOK == at \\in [Workers -> DOMAIN Places] /\\ shared \\in Valuations
\\* Deadlock: some workers each wait, and none of them can go on before another of them does.
NoDeadlock == ~ \\E S \\in (SUBSET Waiting) \\ {{}} : \\A w \\in S : Hopeless(w, S)
NoGlobalStall == Running /= {} => Running \\ Waiting /= {}

\\* What traces show: each worker by names instead of numbers.
Named(k) == <<Locks[k].resource, Locks[k].mode>>
InWords == [
  workers |-> [w \\in Workers |-> [
    status |-> Here(w).status,
    transaction |-> Here(w).transaction,
    holds |-> {Named(k) : k \\in Here(w).holds},
    wants |-> IF Here(w).wants = 0 THEN <<>> ELSE Named(Here(w).wants)]],
  shared |-> shared]""".splitlines()

_NO_FAULT = """\
\\* No step is possible in a state in which it has no meaning.
NoFault == ~ \\E w \\in Workers : \\E e \\in Here(w).steps : e.fault /= "" /\\ Enabled(w, e)""".splitlines()
