"""A second opinion: a naive interpreter of docs/language.md, written from that page alone.

It shares no code with `lockmodel` and works in another way: nothing is compiled. A running worker is a *term*, the
nested tuple of the steps still to come. Each item of the term is tagged with its path in the YAML and carries the
values of just those parameters which it mentions. One step of a worker looks the path up in the YAML, interprets
what it finds there and rewrites the term. So "which situations are one state" is plain equality of tuples.

    explore(spec) -> Result

The numbers [1] … [16] in comments are places where the page leaves more than one reading; see READINGS below.
"""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

READINGS = """
 1. NOWAIT refused without `else` is one transition, to aborted.
 2. What cannot come any more is not "still to come": after a `commit` or `rollback` (or an `either`, `if`, ... all of
    whose branches end so) neither later steps nor further elements of the enclosing loops belong to the location.
 3. A loop in its last iteration has no elements to come: parameters that only earlier steps of its body mention are
    gone.
 4. `on commit` is mentioned by the places that lead to a commit, not by those that can only roll back.
 5. "Mention" is textual: a local variable that will be overwritten before it is read is still mentioned.
 6. The elements to come are a sequence; with `order: any` they are a set (here kept in the order of the sets), of which
    the next is picked when the one before is done.
 7. The implied request of a row's table waits in the ordinary way, even if the row is asked for with NOWAIT or SKIP
    LOCKED (as in Postgres). It is made again only if exactly that mode is not held.
 8. `sql` on a `for` is the `sql` of each lock step in it which has none of its own (innermost first); the first word
    of it counts.
 9. Taking again what is held leaves the set of held locks as it was: the lock stays with the older savepoint. Pool
    units and session locks are counted. `rollback to` gives pool units back, too.
10. A savepoint of a name already in use is a new one on top; `rollback to` goes to the newest and forgets those above
    it.
11. The fifth stacked session lock, a value outside of a variable's domain, an argument that is no element of its set,
    a `rollback to` a savepoint that is not there: each is an error in the spec (SpecError).
12. Nothing restores variables: neither `rollback` nor `rollback to`.
13. A comparison with a w.NAME (or w.transaction, w.role) that does not exist is false, even `!=`; only a running worker
    has a transaction. w.NAME can be a parameter of `choose`.
14. A NOWAIT, SKIP LOCKED or TRY request never waits: not for w.waits_for, nor for deadlock and stall.
15. `let` is evaluated from top to bottom, later lines see earlier ones; `start when` sees `choose`, not `let`.
16. transitions counts triples (state, worker, next state).
17. A lock_timeout shorter than deadlock_timeout is a NOWAIT that waits in the queue; a longer one only bounds the wait.
18. A stall: who is free to go on may have come after one that waits without end for the same table or advisory key, asks for what conflicts
    with that request, and holds nothing that that one waits for.
"""

Value = int | str | bool
Values = tuple[tuple[str, Value], ...]  # names with their values
Resource = tuple[str, tuple[Value, ...]]  # lane[0, mail] is ('lane', (0, 'mail'))
Lock = tuple[Resource, str]  # with its mode
Counts = frozenset[tuple[Lock, int]]
Path = tuple[str | int, ...]  # place in the YAML, from the name of the transaction down

TABLE_MODES = (
    "ACCESS SHARE",
    "ROW SHARE",
    "ROW EXCLUSIVE",
    "SHARE UPDATE EXCLUSIVE",
    "SHARE",
    "SHARE ROW EXCLUSIVE",
    "EXCLUSIVE",
    "ACCESS EXCLUSIVE",
)
ROW_MODES = ("FOR KEY SHARE", "FOR SHARE", "FOR NO KEY UPDATE", "FOR UPDATE")

# The manual's tables as pictures: line = mode asked for, column = mode held, in the order of the tuples above.
TABLE_CONFLICTS = (
    ".......X",
    "......XX",
    "....XXXX",
    "...XXXXX",
    "..XX.XXX",
    "..XXXXXX",
    ".XXXXXXX",
    "XXXXXXXX",
)
ROW_CONFLICTS = (
    "...X",
    "..XX",
    ".XXX",
    "XXXX",
)
SHARED_EXCLUSIVE = (".X", "XX")


def _pairs(modes: tuple[str, ...], picture: tuple[str, ...]) -> frozenset[tuple[str, str]]:
    return frozenset(
        (modes[i], modes[j]) for i, line in enumerate(picture) for j, mark in enumerate(line) if mark == "X"
    )


CONFLICTS: dict[str, frozenset[tuple[str, str]]] = {
    "table": _pairs(TABLE_MODES, TABLE_CONFLICTS),
    "row": _pairs(ROW_MODES, ROW_CONFLICTS),
    "advisory": _pairs(("SHARED", "EXCLUSIVE"), SHARED_EXCLUSIVE),
    "lock": _pairs(("SHARED", "EXCLUSIVE"), SHARED_EXCLUSIVE),
    "key": frozenset({("INSERT", "INSERT")}),
    "pool": frozenset(),
}
MODES: dict[str, tuple[str, ...]] = {
    "table": TABLE_MODES,
    "row": ROW_MODES,
    "advisory": ("SHARED", "EXCLUSIVE"),
    "lock": ("SHARED", "EXCLUSIVE"),
    "key": ("INSERT",),
    "pool": ("TAKE",),
}
WAITING: dict[str, tuple[str, ...]] = {
    "table": ("NOWAIT",),
    "row": ("NOWAIT", "SKIP LOCKED"),
    "advisory": ("TRY",),
    "key": (),
    "lock": ("NOWAIT", "TRY"),
    "pool": ("NOWAIT", "TRY"),
}
STATUSES = ("idle", "running", "committed", "aborted")
DEEPEST_STACK = 4


class SpecError(Exception):
    """The spec says something that docs/language.md gives no meaning."""


class TooManyStates(Exception):
    """More states than max_states."""


# ---------------------------------------------------------------------------------------------------- the situations


class Item(NamedTuple):
    """One step still to come. `rest`: the elements still to come, of a loop that has begun."""

    path: Path
    env: Values
    rest: tuple[tuple[Value, ...], ...] | None = None


class Level(NamedTuple):
    """What was taken since a savepoint (the lowest level: since the start of the transaction)."""

    savepoint: str | None
    taken: Counts


class Worker(NamedTuple):
    status: str = "idle"
    transaction: str | None = None
    todo: tuple[Item, ...] = ()
    local: Values = ()
    levels: tuple[Level, ...] = ()
    session: Counts = frozenset()  # session locks, with their depth
    passing: Counts = frozenset()  # what is given back when the statement ends


class State(NamedTuple):
    workers: tuple[Worker, ...]
    shared: tuple[Value, ...]


class Request(NamedTuple):
    resource: Resource
    mode: str
    waiting: str  # '' waits


@dataclass
class Result:
    """Traces are counted in states; None: no such state. With `complete` false, all counts are partial."""

    states: int = 0
    transitions: int = 0
    depth: int = 0
    deadlock: int | None = None
    stall: int | None = None
    held_up: int | None = None
    violated: dict[str, int | None] = field(default_factory=dict)
    complete: bool = False
    levels: list[int] = field(default_factory=list)  # number of states at depth 1, 2, …


class Missing:
    """The value of a w.NAME that does not exist."""

    def __bool__(self) -> bool:
        return False


MISSING = Missing()


def plus(counts: Counts, lock: Lock, n: int) -> Counts:
    """`counts` with n more (or fewer) of one lock."""
    table = dict(counts)
    table[lock] = table.get(lock, 0) + n
    return frozenset((k, v) for k, v in table.items() if v > 0)


@cache
def parse(text: str) -> ast.expr:
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError) as error:
        raise SpecError(f"cannot read {text!r}: {error}") from error


@cache
def names_in(text: str) -> frozenset[str]:
    """All bare words of an expression."""
    return frozenset(n.id for n in ast.walk(parse(text)) if isinstance(n, ast.Name))


def split_resource(text: str) -> tuple[str, list[str]]:
    """'lane[(s + 1) % 4, mail]' → 'lane', ['(s + 1) % 4', 'mail']"""
    match = re.fullmatch(r"\s*([^\[\]\s]+)\s*(?:\[(.*)\])?\s*", text, re.DOTALL)
    if not match:
        raise SpecError(f"no resource: {text!r}")
    name, inside = match.groups()
    if inside is None:
        return name, []
    parts, deep, quote = [""], 0, ""
    for c in inside:
        if quote:
            quote = "" if c == quote else quote
        elif c in "'\"":
            quote = c
        elif c in "([":
            deep += 1
        elif c in ")]":
            deep -= 1
        if c == "," and not deep and not quote:
            parts.append("")
        else:
            parts[-1] += c
    return name, [p.strip() for p in parts]


# ------------------------------------------------------------------------------------------- reading steps of the YAML

STEP_WORDS = ("for", "statement", "either", "if", "set", "savepoint", "rollback to", "release")
LOCK_OPTIONS = ("then", "else", "label", "sql", "table mode", "on connection", "until")


def kind_of(step: Any) -> str:
    """'commit', 'rollback', one of STEP_WORDS, or 'lock'."""
    if isinstance(step, str):
        return step
    return next((word for word in STEP_WORDS if word in step), "lock")


def lock_of(step: Mapping[str, Any]) -> tuple[str, str, str]:
    """The resource's text, the mode, and NOWAIT, SKIP LOCKED, TRY or ''."""
    (key,) = [k for k in step if k not in LOCK_OPTIONS]
    mode = step[key]
    for waiting in ("NOWAIT", "SKIP LOCKED", "TRY"):
        if mode.endswith(" " + waiting):
            return key, mode[: -len(waiting) - 1].strip(), waiting
    return key, mode, ""


def lists_of(step: Any) -> list[tuple[Path, list[Any]]]:
    """The lists of steps directly inside a step, with their paths relative to it."""
    match kind_of(step):
        case "for":
            return [(("do",), step["do"])]
        case "statement":
            return [(("takes",), step["takes"])]
        case "either":
            return [(("either", i), branch) for i, branch in enumerate(step["either"])]
        case "if" | "lock":
            return [((word,), step[word]) for word in ("then", "else") if word in step]
    return []


def ends(step: Any) -> bool:
    """Whether the transaction is always over after this step, whichever way it goes."""
    inside = dict(lists_of(step))
    over = {path: any(map(ends, steps)) for path, steps in inside.items()}
    match kind_of(step):
        case "commit" | "rollback":
            return True
        case "for" | "statement" | "either":
            return all(over.values())
        case "if":
            return over.get(("then",), False) and over.get(("else",), False)
        case "lock":
            granted = over.get(("then",), False)
            match lock_of(step)[2]:
                case "":
                    return granted
                case "NOWAIT":
                    return granted and over.get(("else",), True)
                case _:
                    return granted and over.get(("else",), False)
    return False


# --------------------------------------------------------------------------------------------------- the interpreter


class Naive:
    def __init__(self, spec: Mapping[str, Any], sets: Mapping[str, Any] | None, workers: int | dict[str, int] | None):
        self.transactions: dict[str, Any] = spec["transactions"]
        self.resources: dict[str, Any] = spec.get("resources") or {}
        self.never: dict[str, Any] = spec.get("never") or {}
        self.always: dict[str, Any] = spec.get("always") or {}
        self.asks_for_stall = bool(spec.get("no global stall"))
        self.asks_for_queues = bool(spec.get("no stall"))
        overrides = dict(sets or {})

        self.sets: dict[str, tuple[Value, ...]] = {}
        for name, elements in (spec.get("sets") or {}).items():
            chosen = overrides.pop(name, elements)
            self.sets[name] = tuple(range(chosen)) if isinstance(chosen, int) else tuple(chosen)

        self.domains: dict[str, tuple[Value, ...]] = {}
        initial: list[Value] = []
        for name, entry in (spec.get("variables") or {}).items():
            values = entry["values"]
            self.domains[name] = tuple(range(values)) if isinstance(values, int) else tuple(values)
            initial.append(overrides.pop(name, entry.get("initial", self.domains[name][0])))
        if overrides:
            raise SpecError(f"neither a set nor a variable: {', '.join(overrides)}")
        self.initial_values = tuple(initial)

        self.crew: list[tuple[str | None, list[str]]] = list(self.hire(spec, workers))  # role and transactions
        self.words: set[str] = {
            w for group in (*self.sets.values(), *self.domains.values()) for w in group if isinstance(w, str)
        }
        self.words |= {*self.transactions, *(spec.get("roles") or {}), *STATUSES}
        self.observed = frozenset(
            node.attr
            for formula in (*self.never.values(), *self.always.values())
            for node in ast.walk(parse(str(formula)))
            if isinstance(node, ast.Attribute)
        ) - {"transaction", "role", "status", "holds", "waits_for"}
        self.mentioned: dict[Path, frozenset[str]] = {}

    def hire(
        self, spec: Mapping[str, Any], workers: int | dict[str, int] | None
    ) -> Iterator[tuple[str | None, list[str]]]:
        roles = spec.get("roles")
        if roles:
            for role, entry in roles.items():
                count = entry.get("count", "any")
                if isinstance(workers, dict):
                    count = workers.get(role, count)
                elif count == "any" and workers is not None:
                    count = workers
                if not isinstance(count, int):
                    raise SpecError(f"how many workers has role {role}?")
                yield from [(role, list(entry["runs"]))] * count
        else:
            count = spec.get("workers", "any") if workers is None else workers
            if not isinstance(count, int):
                raise SpecError("how many workers? The spec says any")
            yield from [(None, list(self.transactions))] * count

    # ------------------------------------------------------------------------------------------------- paths and terms

    def at(self, path: Path) -> Any:
        """What stands at a path. A path that ends in 'end' is not in the YAML but implied by it."""
        if path[-1] == "end":
            return "commit"
        if path[-1] == "statement end":
            return "statement end"
        found: Any = self.transactions
        for key in path:
            found = found[key]
        return found

    def mentions(self, path: Path) -> frozenset[str]:
        """The words that the step at `path` and all inside it mention (not in `sql` or `label`)."""
        if path not in self.mentioned:
            self.mentioned[path] = frozenset(self.find_mentions(path[0], self.at(path)))
        return self.mentioned[path]

    def find_mentions(self, transaction: Any, step: Any) -> Iterator[str]:
        inside = {w for _, steps in lists_of(step) for s in steps for w in self.find_mentions(transaction, s)}
        match kind_of(step):
            case "commit":  # [4]
                yield from self.texts_mention((self.transactions[transaction].get("on commit") or {}).values())
            case "for":
                inside -= set(step["for"])
            case "if":
                yield from self.texts_mention([step["if"]])
            case "set":
                yield from self.texts_mention(step["set"].values())  # [5]
            case "release":
                yield from self.resource_mentions(step["release"])
            case "lock":
                yield from self.resource_mentions(lock_of(step)[0])
        yield from inside

    def texts_mention(self, texts: Iterable[Any]) -> set[str]:
        return {word for text in texts if isinstance(text, str) for word in names_in(text)}

    def resource_mentions(self, text: str) -> set[str]:
        name, arguments = split_resource(text)
        found: set[str] = set()
        for argument, elements in zip(arguments, self.per(name), strict=True):
            found |= {argument} if argument in map(str, elements) else names_in(argument)
        return found

    def item(self, path: Path, env: Mapping[str, Value], rest: tuple[tuple[Value, ...], ...] | None = None) -> Item:
        """An item with the values of just those parameters that it mentions or that a formula observes."""
        entry = self.transactions[path[0]]
        visible = {*(entry.get("choose") or {}), *(entry.get("let") or {})}
        kept = self.mentions(path) | (self.observed & visible)
        return Item(path, tuple(sorted((n, v) for n, v in env.items() if n in kept)), rest)

    def put(self, path: Path, env: Mapping[str, Value], tail: tuple[Item, ...]) -> tuple[Item, ...]:
        """The term that begins with the list of steps at `path`; cut where the transaction surely ends [2]."""
        items: list[Item] = []
        for i, step in enumerate(self.at(path)):
            items.append(self.item((*path, i), env))
            if ends(step):
                return tuple(items)
        return (*items, *tail)

    # ------------------------------------------------------------------------------------------------------- resources

    def per(self, name: str) -> list[tuple[Value, ...]]:
        if name not in self.resources:
            raise SpecError(f"no such resource: {name}")
        return [self.sets[s] for s in self.resources[name].get("per") or []]

    def kind(self, resource: Resource) -> str:
        return str(self.resources[resource[0]]["kind"])

    def size(self, resource: Resource) -> int:
        return int(self.resources[resource[0]]["size"])

    def resolve(self, text: str, names: Mapping[str, Value], env: Mapping[str, Value]) -> Resource:
        """The resource that a text means, given all names, among which `env` are the parameters."""
        name, arguments = split_resource(text)
        values: list[Value] = []
        for argument, elements in zip(arguments, self.per(name), strict=True):
            spelled = {str(e): e for e in elements}
            if argument in env:
                value: Any = env[argument]
            elif argument in spelled:
                value = spelled[argument]
            else:
                if names_in(argument) & set(self.domains) - set(names):
                    raise SpecError(f"{text} reads a shared variable")
                value = self.value(parse(argument), names)
            values.append(self.element(value, elements, text))
        return name, tuple(values)

    @staticmethod
    def element(value: Any, elements: tuple[Value, ...], text: str) -> Value:
        for e in elements:
            if e == value and type(e) is type(value):
                return e
        raise SpecError(f"{text}: {value!r} is not an element")  # [11]

    def table_of(self, resource: Resource) -> Resource | None:
        """The table of a row."""
        entry = self.resources[resource[0]]
        if entry["kind"] != "row" or "table" not in entry:
            return None
        arguments = dict(zip(entry.get("per") or [], resource[1], strict=True))
        table = entry["table"]
        return table, tuple(arguments[s] for s in self.resources[table].get("per") or [])

    def table_mode(self, path: Path) -> str:
        """In which mode the lock step at `path` takes the table of its row."""
        step = self.at(path)
        if "table mode" in step:
            return str(step["table mode"])
        sql = step.get("sql")
        for n in range(len(path) - 1, 0, -1):  # [8]
            outer = self.at(path[:n])
            if sql is None and isinstance(outer, dict) and "for" in outer:
                sql = outer.get("sql")
            if sql is None and isinstance(outer, dict) and "statement" in outer:
                sql = outer["statement"]
        words = (sql or "").split()
        return "ROW EXCLUSIVE" if words and words[0].upper() in ("INSERT", "UPDATE", "DELETE", "MERGE") else "ROW SHARE"

    # --------------------------------------------------------------------------------------------- holding and waiting

    @staticmethod
    def held(worker: Worker) -> dict[Lock, int]:
        """All that a worker holds, with how many times."""
        total: dict[Lock, int] = {}
        for counts in (worker.session, *(level.taken for level in worker.levels)):
            for lock, n in counts:
                total[lock] = total.get(lock, 0) + n
        for lock, n in worker.passing:
            total.setdefault(lock, n)
        return total

    def is_alone(self, path: Path) -> bool:
        """Whether a lock step is a statement of its own, and not one of several locks of a statement."""
        outer = [self.at(path[:n]) for n in range(1, len(path))]
        return not any("statement" in one or ("for" in one and "sql" in one) for one in outer if isinstance(one, dict))

    def units(self, worker: Worker, pool: Resource) -> int:
        return self.held(worker).get((pool, "TAKE"), 0)

    def blockers(self, state: State, who: int, resource: Resource, mode: str) -> set[int]:
        """The other workers that hold a conflicting mode."""
        conflicts = CONFLICTS[self.kind(resource)]
        return {
            other
            for other, worker in enumerate(state.workers)
            if other != who and any(r == resource and (mode, m) in conflicts for r, m in self.held(worker))
        }

    def is_free(self, state: State, who: int, resource: Resource, mode: str) -> bool:
        if mode not in MODES[self.kind(resource)]:
            raise SpecError(f"{resource[0]} has no mode {mode}")
        if self.kind(resource) == "pool":
            return sum(self.units(w, resource) for w in state.workers) < self.size(resource)
        return not self.blockers(state, who, resource, mode)

    def give(self, worker: Worker, resource: Resource, mode: str, until: str = "") -> Worker:
        """The worker with one more lock."""
        lock = (resource, mode)
        if until == "granted":
            return worker
        if self.kind(resource) == "advisory" and self.resources[resource[0]].get("scope") == "session":
            if dict(worker.session).get(lock, 0) == DEEPEST_STACK:
                raise SpecError(f"{resource} is stacked more than {DEEPEST_STACK} deep")  # [11]
            return worker._replace(session=plus(worker.session, lock, 1))
        if self.kind(resource) != "pool":
            if any(lock in dict(level.taken) for level in worker.levels):  # [9]
                return worker
            block = worker.transaction is None or self.transactions[worker.transaction].get("block", True)
            if not block:
                return worker._replace(passing=frozenset({*worker.passing, (lock, 1)}))
        *below, top = worker.levels
        return worker._replace(levels=(*below, top._replace(taken=plus(top.taken, lock, 1))))

    def request(self, worker: Worker) -> Request | None:
        """The next request of a worker, if its next step is one."""
        if worker.status != "running":
            return None
        head = worker.todo[0]
        step = self.at(head.path)
        if kind_of(step) != "lock":
            return None
        text, mode, waiting = lock_of(step)
        resource = self.resolve(text, {**dict(worker.local), **dict(head.env)}, dict(head.env))
        if waiting and waiting not in WAITING[self.kind(resource)]:
            raise SpecError(f"{resource[0]} knows no {waiting}")
        table = self.table_of(resource)
        gives_up = "lock_timeout" if self.timeout(worker) == "short" and self.kind(resource) != "pool" else ""
        if table and (table, self.table_mode(head.path)) not in self.held(worker):
            return Request(table, self.table_mode(head.path), "" if waiting else gives_up)  # [7]
        return Request(resource, mode, waiting or gives_up)

    def timeout(self, worker: Worker) -> str:
        """`short`: than deadlock_timeout; `long`: not; empty: there is none."""
        assert worker.transaction
        text = self.transactions[worker.transaction].get("lock_timeout", "0")
        return {"0": "", "200ms": "short", "5s": "long"}[text]

    def would_wait(self, state: State, who: int) -> Request | None:
        """The next request of a worker, if it is not free."""
        request = self.request(state.workers[who])
        return None if request is None or self.is_free(state, who, request.resource, request.mode) else request

    def waits(self, state: State, who: int) -> Request | None:
        """The request a worker waits for. Who asks with NOWAIT, SKIP LOCKED or TRY never waits [14]."""
        request = self.would_wait(state, who)
        return None if request is None or request.waiting else request

    def deadlocked(self, state: State) -> set[int]:
        """The largest set of workers none of which can ever go on: drop those who can until nothing changes."""
        waiting = {who: r for who in range(len(self.crew)) if (r := self.waits(state, who))}
        stuck = set(waiting)
        while True:
            free = {who for who in stuck if not self.is_stuck(state, who, waiting[who], stuck)}
            if not free:
                return stuck
            stuck -= free

    def is_stuck(self, state: State, who: int, request: Request, inside: set[int]) -> bool:
        if self.kind(request.resource) == "pool":
            return sum(self.units(state.workers[w], request.resource) for w in inside) >= self.size(request.resource)
        return bool(self.blockers(state, who, request.resource, request.mode) & inside)

    def is_held_up(self, state: State, who: int) -> bool:
        """Whether only a queue keeps a worker from going on [18]."""
        mine = self.request(state.workers[who])
        if mine is None or mine.waiting not in ("", "lock_timeout") or self.would_wait(state, who):
            return False
        if self.kind(mine.resource) not in ("table", "advisory") or self.is_outside(state.workers[who]):
            return False
        for other in range(len(self.crew)):
            theirs = self.waits(state, other)
            if theirs is None or theirs.resource != mine.resource or self.timeout(state.workers[other]):
                continue
            if self.is_outside(state.workers[other]):
                continue
            conflict = (mine.mode, theirs.mode) in CONFLICTS[self.kind(mine.resource)]
            if conflict and who not in self.blockers(state, other, theirs.resource, theirs.mode):
                return True
        return False

    def is_outside(self, worker: Worker) -> bool:
        """Whether a worker waits for those who hold the lock, and does not stand in the queue: `until: granted`."""
        step, request = self.at(worker.todo[0].path), self.request(worker)
        return (
            "until" in step and request is not None and request[:2] == self.main_request(worker, worker.todo[0], step)
        )

    def stalled(self, state: State) -> bool:
        running = [who for who, worker in enumerate(state.workers) if worker.status == "running"]
        return bool(running) and all(self.waits(state, who) for who in running)

    # ----------------------------------------------------------------------------------------------------- transitions

    def initial(self) -> State:
        return State((Worker(),) * len(self.crew), self.initial_values)

    def successors(self, state: State, who: int) -> set[State]:
        """The distinct outcomes of the possible steps of one worker [16]."""
        worker = state.workers[who]
        if worker.status == "idle":
            outcomes = set(self.starts(state, who))
        elif worker.status == "running":
            outcomes = set(self.runs(state, who))
        else:
            outcomes = {(Worker(session=worker.session), state.shared)}
        others = state.workers
        return {State((*others[:who], new, *others[who + 1 :]), shared) for new, shared in outcomes}

    def starts(self, state: State, who: int) -> Iterator[tuple[Worker, tuple[Value, ...]]]:
        shared = dict(zip(self.domains, state.shared, strict=True))
        for name in self.crew[who][1]:
            entry = self.transactions[name]
            choose = entry.get("choose") or {}
            for combination in itertools.product(*(self.sets[s] for s in choose.values())):
                env = dict(zip(choose, combination, strict=True))
                if not self.eval(entry.get("start when", True), {**shared, **env}):
                    continue
                local: dict[str, Value] = {}
                for variable, text in (entry.get("let") or {}).items():  # [15]
                    local[variable] = self.eval(text, {**shared, **local, **env})
                begun = Worker("running", name, (), (), (Level(None, frozenset()),), state.workers[who].session)
                taken = self.take_at_start(state, who, begun, entry.get("take at start") or {}, {**local, **env}, env)
                if taken is None:
                    continue
                todo = self.put((name, "steps"), env, (self.item((name, "end"), env),))
                for settled in self.settle(taken._replace(todo=todo, local=tuple(local.items()))):
                    yield settled, state.shared

    def take_at_start(
        self,
        state: State,
        who: int,
        worker: Worker,
        wanted: Mapping[str, str],
        names: Mapping[str, Value],
        env: Mapping[str, Value],
    ) -> Worker | None:
        """The worker with all that it takes at the start, or None if something is not free."""
        for text, mode in wanted.items():
            resource = self.resolve(text, names, env)
            table = self.table_of(resource)
            for r, m in ([(table, "ROW SHARE")] if table else []) + [(resource, mode)]:
                now = State((*state.workers[:who], worker, *state.workers[who + 1 :]), state.shared)
                if not self.is_free(now, who, r, m):
                    return None
                worker = self.give(worker, r, m)
        return worker

    def runs(self, state: State, who: int) -> Iterator[tuple[Worker, tuple[Value, ...]]]:
        """One step of a running worker."""
        worker = state.workers[who]
        head, tail = worker.todo[0], worker.todo[1:]
        env = dict(head.env)
        step = self.at(head.path)
        after = worker._replace(todo=tail)
        shared = state.shared
        match kind_of(step):
            case "lock":
                request = self.request(worker)
                assert request
                passed = {"passing": frozenset[tuple[Lock, int]]()} if self.is_alone(head.path) else {}
                if self.is_free(state, who, request.resource, request.mode):
                    if request[:2] == self.main_request(worker, head, step):  # not just the table
                        after = self.give(worker, request.resource, request.mode, step.get("until", ""))
                        todo = self.put((*head.path, "then"), env, tail) if "then" in step else tail
                        after = after._replace(todo=todo, **passed)
                    else:
                        after = self.give(worker, request.resource, request.mode)
                elif not request.waiting:
                    return
                elif "else" in step:
                    after = after._replace(todo=self.put((*head.path, "else"), env, tail), **passed)
                elif request.waiting in ("NOWAIT", "lock_timeout"):
                    yield Worker("aborted", session=worker.session), shared  # [1]
                    return
                else:
                    after = after._replace(**passed)
            case "if":
                after = self.take_branch(after, head, shared)
            case "set":
                after, shared = self.assign(after, step["set"], env, shared)
            case "savepoint":
                after = after._replace(levels=(*worker.levels, Level(step["savepoint"], frozenset())))  # [10]
            case "rollback to":
                after = after._replace(levels=self.back_to(worker.levels, step["rollback to"]))
            case "release":
                resource = self.resolve(step["release"], {**dict(worker.local), **env}, env)
                lock = (resource, step.get("mode", "EXCLUSIVE"))
                after = after._replace(session=plus(worker.session, lock, -1))
            case "rollback":
                yield Worker("aborted", session=worker.session), shared  # [12]
                return
            case "commit":
                assert worker.transaction
                changes = self.transactions[worker.transaction].get("on commit") or {}
                _, shared = self.assign(worker._replace(transaction=None), changes, env, shared)
                yield Worker("committed", session=worker.session), shared
                return
        for settled in self.settle(after):
            yield settled, shared

    def main_request(self, worker: Worker, head: Item, step: Any) -> tuple[Resource, str]:
        text, mode, _ = lock_of(step)
        return self.resolve(text, {**dict(worker.local), **dict(head.env)}, dict(head.env)), mode

    @staticmethod
    def back_to(levels: tuple[Level, ...], savepoint: str) -> tuple[Level, ...]:
        for n in range(len(levels) - 1, 0, -1):
            if levels[n].savepoint == savepoint:
                return (*levels[:n], Level(savepoint, frozenset()))
        raise SpecError(f"no savepoint {savepoint} to roll back to")  # [11]

    def local_names(self, worker: Worker) -> set[str]:
        return set(self.transactions[worker.transaction].get("let") or {}) if worker.transaction else set()

    def touches_shared(self, worker: Worker, head: Item) -> bool:
        """Whether an `if` or `set` reads or assigns a shared variable."""
        step = self.at(head.path)
        texts = [step["if"]] if "if" in step else step["set"].values()
        assigned = set(step.get("set") or {})
        hidden = self.local_names(worker)
        read = self.texts_mention(texts) - set(dict(head.env))
        return bool((read | assigned) & (set(self.domains) - hidden))

    def take_branch(self, worker: Worker, head: Item, shared: tuple[Value, ...]) -> Worker:
        """After an `if`; the worker's todo is what follows it."""
        step = self.at(head.path)
        env = dict(head.env)
        names = {**dict(zip(self.domains, shared, strict=True)), **dict(worker.local), **env}
        branch = "then" if self.eval(step["if"], names) else "else"
        return worker._replace(todo=self.put((*head.path, branch), env, worker.todo)) if branch in step else worker

    def assign(
        self, worker: Worker, changes: Mapping[str, Any], env: Mapping[str, Value], shared: tuple[Value, ...]
    ) -> tuple[Worker, tuple[Value, ...]]:
        """All the assignments at once."""
        old = dict(zip(self.domains, shared, strict=True))
        names = {**old, **dict(worker.local), **env}
        new = {variable: self.eval(text, names) for variable, text in changes.items()}
        local, hidden = dict(worker.local), self.local_names(worker)
        for variable, value in new.items():
            if variable in hidden:
                local[variable] = value
            elif variable in old:
                old[variable] = self.element(value, self.domains[variable], variable)
            else:
                raise SpecError(f"no such variable: {variable}")
        return worker._replace(local=tuple(local.items())), tuple(old.values())

    def settle(self, worker: Worker) -> set[Worker]:
        """All that takes no time: go on to the next point where something is a transition. One for each choice."""
        head, tail = worker.todo[0], worker.todo[1:]
        step = self.at(head.path)
        kind = kind_of(step)
        env = dict(head.env)
        if head.rest is not None:
            nexts = range(len(head.rest)) if step.get("order") == "any" else range(1)
            return {w for n in nexts for w in self.settle(self.iterate(worker, head, n))}
        if kind == "statement end":
            return self.settle(worker._replace(todo=tail, passing=frozenset()))
        if kind == "for":
            if "sql" in step:
                tail = (self.item((*head.path, "statement end"), env), *tail)
            orders = self.orders(step)
            return {
                w
                for order in orders
                for w in self.settle(worker._replace(todo=(self.item(head.path, env, order), *tail)))
            }
        if kind == "statement":
            tail = (self.item((*head.path, "statement end"), env), *tail)
            return self.settle(worker._replace(todo=self.put((*head.path, "takes"), env, tail)))
        if kind == "either":
            terms = [self.put((*head.path, "either", i), env, tail) for i in range(len(step["either"]))]
            return {w for term in terms for w in self.settle(worker._replace(todo=term))}
        if kind in ("if", "set") and not self.touches_shared(worker, head):
            after, nothing = worker._replace(todo=tail), self.initial_values
            if kind == "if":
                return self.settle(self.take_branch(after, head, nothing))
            return self.settle(self.assign(after, step["set"], env, nothing)[0])
        kept = self.observed.union(*(self.mentions(item.path) for item in worker.todo))
        return {worker._replace(local=tuple(sorted((n, v) for n, v in worker.local if n in kept)))}

    def iterate(self, worker: Worker, head: Item, n: int) -> Worker:
        """Go into the body of a loop with its element number `n` of those to come."""
        assert head.rest is not None
        tail = worker.todo[1:]
        later = head.rest[:n] + head.rest[n + 1 :]
        if later:  # [3]
            tail = (self.item(head.path, dict(head.env), later), *tail)
        inner = {**dict(head.env), **dict(zip(self.at(head.path)["for"], head.rest[n], strict=True))}
        return worker._replace(todo=self.put((*head.path, "do"), inner, tail))

    def orders(self, step: Any) -> set[tuple[tuple[Value, ...], ...]]:
        """In which orders a loop may go through its elements [6]."""
        elements = tuple(itertools.product(*(self.sets[s] for s in step["for"].values())))
        match step.get("order", "forward"):
            case "forward" | "any":
                return {elements}
            case "reverse":
                return {elements[::-1]}
            case "rotated":
                return {elements[i:] + elements[:i] for i in range(len(elements))}
        raise SpecError(f"no such order: {step['order']}")

    # -------------------------------------------------------------------------------------------------------- formulas

    def eval(self, text: Any, names: Mapping[str, Any], state: State | None = None) -> Any:
        return self.value(parse(text), names, state) if isinstance(text, str) else text

    def value(self, node: ast.expr, names: Mapping[str, Any], state: State | None = None) -> Any:
        """The value of an expression. `names`: what the bare words mean. `state`: only in `never` and `always`."""

        def of(n: ast.expr) -> Any:
            return self.value(n, names, state)

        match node:
            case ast.Constant(value=bool() | int() | str() as constant):
                return constant
            case ast.Name(id=word):
                return self.word(word, names)
            case ast.BoolOp(op=operator, values=parts):
                value = None
                for part in parts:
                    value = of(part)
                    if bool(value) == isinstance(operator, ast.Or):
                        break
                return value
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return not of(operand)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -of(operand)
            case ast.UnaryOp(op=ast.UAdd(), operand=operand):
                return +of(operand)
            case ast.IfExp(test=test, body=body, orelse=orelse):
                return of(body) if of(test) else of(orelse)
            case ast.Tuple(elts=parts) | ast.List(elts=parts):
                return tuple(of(p) for p in parts)
            case ast.BinOp(left=left, op=operator, right=right):
                return self.arithmetic(operator, of(left), of(right))
            case ast.Compare(left=left, ops=operators, comparators=others):
                sides = [of(left), *map(of, others)]
                return all(self.compare(op, a, b) for op, a, b in zip(operators, sides, sides[1:], strict=False))
            case ast.Attribute(value=ast.Name(id="w"), attr=name) if state and "w" in names:
                return self.about(state, names["w"], name)
            case ast.Call(func=ast.Name(id="count"), args=[formula], keywords=[]) if state:
                return sum(bool(self.value(formula, {**names, "w": who}, state)) for who in range(len(self.crew)))
            case ast.Call(func=ast.Name(id="any" | "all" as which), args=[ast.GeneratorExp() as ranging], keywords=[]):
                values = list(self.ranging(ranging, names, state))
                return any(values) if which == "any" else all(values)
            case ast.Call(func=ast.Attribute(value=ast.Name(id="w"), attr="holds"), args=[where, *mode]) if state:
                mine = self.held(state.workers[names["w"]])
                modes = [of(m) for m in mode]
                return any(self.is_meant(r, where, of) and (not modes or m in modes) for r, m in mine)
            case ast.Call(func=ast.Attribute(value=ast.Name(id="w"), attr="waits_for"), args=[where]) if state:
                request = self.waits(state, names["w"])
                return request is not None and self.is_meant(request.resource, where, of)
        raise SpecError(f"not in the language: {ast.unparse(node)}")

    def word(self, word: str, names: Mapping[str, Any]) -> Any:
        if word in names:
            return names[word]
        if word in ("true", "false"):
            return word == "true"
        if word in self.words:
            return word
        if word in self.sets:  # for `in`
            return self.sets[word]
        raise SpecError(f"unknown word {word}")

    @staticmethod
    def arithmetic(operator: ast.operator, a: Any, b: Any) -> Any:
        if a is MISSING or b is MISSING:
            return MISSING
        try:
            match operator:
                case ast.Add():
                    return a + b
                case ast.Sub():
                    return a - b
                case ast.Mult():
                    return a * b
                case ast.FloorDiv():
                    return a // b
                case ast.Mod() if isinstance(a, int):
                    return a % b
        except (TypeError, ZeroDivisionError) as error:
            raise SpecError(str(error)) from error
        raise SpecError("not in the language: this operator")

    @staticmethod
    def compare(operator: ast.cmpop, a: Any, b: Any) -> bool:
        if a is MISSING or b is MISSING:  # [13]
            return False
        try:
            match operator:
                case ast.Eq():
                    return bool(a == b)
                case ast.NotEq():
                    return bool(a != b)
                case ast.Lt():
                    return bool(a < b)
                case ast.LtE():
                    return bool(a <= b)
                case ast.Gt():
                    return bool(a > b)
                case ast.GtE():
                    return bool(a >= b)
                case ast.In() if isinstance(b, tuple):
                    return a in b
                case ast.NotIn() if isinstance(b, tuple):
                    return a not in b
        except TypeError as error:
            raise SpecError(str(error)) from error
        raise SpecError("not in the language: this comparison")

    def ranging(self, node: ast.GeneratorExp, names: Mapping[str, Any], state: State | None) -> Iterator[Any]:
        """`formula for s in stripe`"""
        match node.generators:
            case [ast.comprehension(target=ast.Name(id=variable), iter=ast.Name(id=name), ifs=[])] if name in self.sets:
                for element in self.sets[name]:
                    yield self.value(node.elt, {**names, variable: element}, state)
            case _:
                raise SpecError(f"not in the language: {ast.unparse(node)}")

    def about(self, state: State, who: int, name: str) -> Any:
        """w.status, w.role, w.transaction, or the w.NAME of a running transaction."""
        worker = state.workers[who]
        if name == "status":
            return worker.status
        if name == "role":
            return self.crew[who][0] or MISSING
        if name == "transaction":
            return worker.transaction or MISSING
        if worker.status != "running":
            return MISSING
        chosen = set(self.transactions[worker.transaction or ""].get("choose") or {})
        parameters = {n: v for n, v in worker.todo[0].env if n in chosen}
        return {**dict(worker.local), **parameters}.get(name, MISSING)

    def is_meant(self, resource: Resource, where: ast.expr, of: Any) -> bool:
        """Whether `lane`, `lane[0]`, `lane[s, mail]` in a formula means the resource."""
        match where:
            case ast.Name(id=name):
                return resource[0] == name
            case ast.Subscript(value=ast.Name(id=name), slice=inside):
                arguments = inside.elts if isinstance(inside, ast.Tuple) else [inside]
                wanted = [
                    self.element(of(a), elements, name) for a, elements in zip(arguments, self.per(name), strict=True)
                ]
                return resource == (name, tuple(wanted))
        raise SpecError(f"no resource: {ast.unparse(where)}")

    def is_violated(self, state: State, name: str) -> bool:
        names = dict(zip(self.domains, state.shared, strict=True))
        if name in self.never:
            return bool(self.eval(self.never[name], names, state))
        return not self.eval(self.always[name], names, state)


def explore(
    spec: Mapping[str, Any],
    sets: Mapping[str, Any] | None = None,
    workers: int | dict[str, int] | None = None,
    max_states: int = 200_000,
    stop_at_violation: bool = False,
) -> Result:
    """Breadth first through all reachable states.

    `sets` replaces sets (int or list) and initial values of variables, as `--set` does; `workers` is a number, or
    {role: number}. With `stop_at_violation`, it ends at the first depth at which some state has a deadlock, a global
    stall (if asked for) or violates a formula; the Result says what the states of that depth violate.
    """
    model = Naive(spec, sets, workers)
    result = Result(violated=dict.fromkeys([*model.never, *model.always]))
    level = [model.initial()]
    seen = set(level)
    while level:
        result.levels.append(len(level))
        result.depth = len(result.levels)
        result.states += len(level)
        following: list[State] = []
        bad = [state for state in level if check(model, state, result)]
        if bad and stop_at_violation:
            return result
        for state in level:
            for who in range(len(model.crew)):
                outcomes = model.successors(state, who)
                result.transitions += len(outcomes)
                following += outcomes - seen
                seen |= outcomes
        if len(seen) > max_states:
            raise TooManyStates(f"more than {max_states}")
        level = following
    result.complete = True
    return result


def check(model: Naive, state: State, result: Result) -> bool:
    """Notes what is wrong with a state at depth `result.depth`, unless a state before it had the same."""
    bad = False
    if model.deadlocked(state):
        bad = True
        result.deadlock = result.deadlock or result.depth
    if model.asks_for_stall and model.stalled(state):
        bad = True
        result.stall = result.stall or result.depth
    if model.asks_for_queues and any(model.is_held_up(state, who) for who in range(len(model.crew))):
        bad = True
        result.held_up = result.held_up or result.depth
    for name, first in result.violated.items():
        if model.is_violated(state, name):
            bad = True
            result.violated[name] = first or result.depth
    return bad
