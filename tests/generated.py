"""Hypothesis strategies: small, rich specs as plain data, valid by construction.

    @given(specs())
    def test_something(spec): ...

A spec is made from a tape of bytes, each of which is one choice. (Not from one hypothesis draw for each choice: then
most examples are mutations that repeat an earlier part of themselves, and few have a deadlock. Bytes shrink well, too.)
Without hypothesis: spec_of(Tape(random.randbytes(500))).

One small function for each construct of docs/language.md, which takes the tape and the Scope it stands in, and returns
plain data.

Left out on purpose, for the page gives it no single meaning: names that hide other names (but for a parameter that
hides an element), values outside of a domain, session locks stacked more than 4 deep, `!=` about a w.NAME that may not
exist, steps after `commit` or `rollback`.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from hypothesis import strategies as st
from ruamel.yaml import YAML
from ruamel.yaml.representer import SafeRepresenter

Step = Any
Value = int | str | bool
T = TypeVar("T")

PARAMETERS = ("s", "t", "r", "i", "j", "k")
TABLE_MODES = ("ROW EXCLUSIVE", "SHARE", "EXCLUSIVE", "SHARE UPDATE EXCLUSIVE", "ROW SHARE", "SHARE ROW EXCLUSIVE")
RARE_TABLE_MODES = ("ACCESS EXCLUSIVE", "ACCESS SHARE")
ROW_MODES = ("FOR UPDATE", "FOR NO KEY UPDATE", "FOR SHARE", "FOR KEY SHARE")
BOOLEANS = (False, True)


class Tape:
    """Bytes to be spent on choices; zeros without end follow. Zero is the first option, which is the dullest."""

    def __init__(self, content: bytes):
        self.content = content
        self.position = 0

    def byte(self) -> int:
        self.position += 1
        return self.content[self.position - 1] if self.position <= len(self.content) else 0


@dataclass(frozen=True)
class Scope:
    """What may be mentioned at a place."""

    sets: dict[str, tuple[Value, ...]]
    resources: dict[str, Any]
    shared: dict[str, tuple[Value, ...]]  # variables and their values
    params: dict[str, tuple[Value, ...]] = field(default_factory=dict)
    local: dict[str, tuple[Value, ...]] = field(default_factory=dict)
    savepoint: str = ""  # the innermost one
    may_end: bool = True  # whether the transaction may end here
    in_loop: bool = False
    depth: int = 0
    block: bool = True  # whether the transaction is a transaction block
    used: list[str] = field(default_factory=list)  # savepoints of the transaction

    def inside(self, **changes: Any) -> Scope:
        return replace(self, depth=self.depth + 1, **changes)

    def with_params(self, names: dict[str, str]) -> Scope:
        return replace(self, params={**self.params, **{n: self.sets[s] for n, s in names.items()}})

    def fresh_parameter(self) -> str:
        return next(p for p in PARAMETERS if p not in self.params)

    def kinds(self, *kinds: str, scope: str = "transaction") -> list[str]:
        """The resources of some kinds; session locks only if asked for."""
        return [
            name for name, r in self.resources.items() if r["kind"] in kinds and r.get("scope", "transaction") == scope
        ]


def pick(tape: Tape, options: Sequence[T]) -> T:
    return options[tape.byte() % len(options)]


def chance(tape: Tape, percent: int) -> bool:
    return tape.byte() * 100 >= 256 * (100 - percent)


def some(tape: Tape, options: Sequence[T], least: int, most: int) -> list[T]:
    """Some of the options, in any order."""
    left = list(options)
    return [left.pop(tape.byte() % len(left)) for _ in range(pick(tape, range(least, min(most, len(left)) + 1)))]


# ------------------------------------------------------------------------------------------------------- declarations


def sets(tape: Tape, few: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"stripe": pick(tape, (2, 1) if few else (2, 2, 2, 1, 3))}
    if chance(tape, 20 if few else 50):
        found["queue"] = some(tape, ("mail", "sms", "q#0", 7, "s"), 1, 2)
    return found


def elements(entry: Any) -> tuple[Value, ...]:
    return tuple(range(entry)) if isinstance(entry, int) else tuple(entry)


def variables(tape: Tape) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, values in (("phase", ["early", "late"]), ("turn", pick(tape, (2, 3))), ("flag", [False, True])):
        if chance(tape, 28):
            found[name] = {"values": values}
            if chance(tape, 50):
                found[name]["initial"] = pick(tape, elements(values))
    return found


def per(tape: Tape, sets: dict[str, Any], likely: int) -> dict[str, Any]:
    if not chance(tape, likely):
        return {}
    names = some(tape, list(sets), 1, 2 if chance(tape, 15) else 1)
    return {"per": names}


def resources(tape: Tape, sets: dict[str, Any]) -> dict[str, Any]:
    """One resource for each of a few kinds; `lane` is always there."""
    found: dict[str, Any] = {"lane": {"kind": pick(tape, ("lock", "advisory", "row")), **per(tape, sets, 70)}}
    for likely, resource in ((45, row_with_table), (30, plain), (25, key), (30, pool), (40, session_lock), (20, table)):
        if chance(tape, likely):
            found |= resource(tape, sets)
    return found


def row_with_table(tape: Tape, sets: dict[str, Any]) -> dict[str, Any]:
    row = {"kind": "row", "table": "jobs", **per(tape, sets, 80)}
    table: dict[str, Any] = {"kind": "table"}
    if "per" in row and chance(tape, 20):
        table["per"] = [row["per"][-1]]
    return {"jobs": table, "job": row}


def plain(tape: Tape, sets: dict[str, Any]) -> dict[str, Any]:
    entry = {"kind": pick(tape, ("lock", "advisory")), **per(tape, sets, 30)}
    if entry["kind"] == "advisory" and chance(tape, 50):
        entry["scope"] = "transaction"
    return {"gate": entry}


def key(tape: Tape, sets: dict[str, Any]) -> dict[str, Any]:
    return {"name_key": {"kind": "key", **per(tape, sets, 60)}}


def pool(tape: Tape, sets: dict[str, Any]) -> dict[str, Any]:
    return {"connections": {"kind": "pool", "size": pick(tape, (1, 2, 3)), **per(tape, sets, 20)}}


def session_lock(tape: Tape, sets: dict[str, Any]) -> dict[str, Any]:
    return {"leader": {"kind": "advisory", "scope": "session", **per(tape, sets, 40)}}


def table(tape: Tape, sets: dict[str, Any]) -> dict[str, Any]:
    return {"ledger": {"kind": "table", **per(tape, sets, 15)}}


# ------------------------------------------------------------------------------------------- expressions and formulas


def literal(value: Value, scope: Scope) -> str:
    """A value as a word of an expression; quoted if the bare word would mean something else."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) or (value.isidentifier() and value not in scope.params):
        return str(value)
    return f"'{value}'"


def yaml_expression(text: str) -> Any:
    """An expression as YAML: numbers and truth values may stand for themselves."""
    return {"true": True, "false": False}.get(text, int(text) if text.isdigit() else text)


def expression(tape: Tape, scope: Scope, values: tuple[Value, ...], names: dict[str, tuple[Value, ...]]) -> str:
    """An expression whose value is one of `values`, made of constants and `names`."""
    options = [literal(v, scope) for v in values]
    options += [name for name, domain in names.items() if types(domain) == types(values) and set(domain) <= set(values)]
    if types(values) == {bool}:
        options += [f"not {name}" for name, domain in names.items() if types(domain) == {bool}]
    if is_range(values):
        numbers = [name for name, domain in names.items() if types(domain) == {int}]
        options += [f"({name} + 1) % {len(values)}" for name in numbers]
        options += [f"{name} * 2 % {len(values)}" for name in numbers]
    chosen = pick(tape, options)
    if names and chance(tape, 12):
        chosen = f"{chosen} if {comparison(tape, scope, names)} else {pick(tape, options)}"
    return chosen


def types(values: tuple[Value, ...]) -> set[type]:
    """To tell (False, True) from (0, 1), which Python calls equal."""
    return {type(v) for v in values}


def is_range(values: tuple[Value, ...]) -> bool:
    return types(values) == {int} and values == tuple(range(len(values)))


def comparison(tape: Tape, scope: Scope, names: dict[str, tuple[Value, ...]]) -> str:
    name = pick(tape, list(names))
    domain = names[name]
    value = literal(pick(tape, domain), scope)
    if types(domain) == {bool}:
        return pick(tape, (name, f"not {name}", f"{name} == {value}"))
    if types(domain) == {int}:
        return f"{name} {pick(tape, ('==', '!=', '<', '<=', '>', '>='))} {value}"
    if len(domain) > 1 and chance(tape, 15):
        return f"{name} in ({value}, {literal(pick(tape, domain), scope)})"
    return f"{name} {pick(tape, ('==', '!='))} {value}"


def formula(tape: Tape, scope: Scope, names: dict[str, tuple[Value, ...]]) -> str:
    text = comparison(tape, scope, names)
    if chance(tape, 15):
        text = f"{text} {pick(tape, ('and', 'or'))} {comparison(tape, scope, names)}"
    if chance(tape, 10):
        text = f"not ({text})"
    return text


def reference(tape: Tape, scope: Scope, name: str) -> str:
    """A resource with its arguments."""
    arguments = [argument(tape, scope, scope.sets[s]) for s in scope.resources[name].get("per", [])]
    return f"{name}[{', '.join(arguments)}]" if arguments else name


def argument(tape: Tape, scope: Scope, values: tuple[Value, ...]) -> str:
    """A parameter if there is one, an element, or an expression."""
    names = {**scope.params, **scope.local}
    fitting = [name for name, domain in names.items() if domain == values and types(domain) == types(values)]
    if fitting and chance(tape, 75):
        name = pick(tape, fitting)
        if is_range(values) and chance(tape, 15):
            return f"({name} + 1) % {len(values)}"
        return name
    value = str(pick(tape, values))
    return f"'{value}'" if value in scope.params else value


# -------------------------------------------------------------------------------------------------------------- steps


def steps(tape: Tape, scope: Scope, least: int, most: int) -> list[Step]:
    """A list of steps; sometimes with an end at its end."""
    found: list[Step] = []
    for _ in range(pick(tape, range(least, most + 1))):
        found += construct(tape, scope)
    if scope.depth and scope.may_end and chance(tape, 12):
        found.append(pick(tape, ("commit", "rollback")))
    return found


def construct(tape: Tape, scope: Scope) -> list[Step]:
    """The steps of one construct."""
    names = {**scope.params, **scope.local, **scope.shared}
    options: list[Callable[[Tape, Scope], list[Step]]] = [*[lock_step] * 6, *[strong_lock] * 4]
    if scope.depth < 2:
        options += [for_loop] * (0 if scope.in_loop else 3) + [either] * 2
        options += [savepoint_block] * (2 if scope.block else 0)
        options += [if_step] * (3 if names else 0)
        options += [session_block] * (5 if scope.kinds("advisory", scope="session") else 0)
    if scope.depth < 2 and not scope.in_loop:
        options += [one_statement]
    options += [set_step] * (2 if scope.shared or scope.local else 0)
    if scope.savepoint:
        options += [rollback_to] * 2
    return pick(tape, options)(tape, scope)


def lock_step(tape: Tape, scope: Scope) -> list[Step]:
    names = scope.kinds("table", "row", "advisory", "key", "lock", "pool")
    name = pick(tape, names)
    kind = scope.resources[name]["kind"]
    mode = lock_mode(tape, kind)
    waiting = pick(tape, WAITING[kind]) if WAITING[kind] and chance(tape, 25) else ""
    if waiting == "NOWAIT" and not scope.may_end:
        waiting = ""
    step: dict[str, Any] = {reference(tape, scope, name): f"{mode} {waiting}".strip()}
    if chance(tape, 10):
        step["label"] = text_about(tape, scope, "take it")
    if kind == "row":
        step |= statement(tape, scope, name)
    if kind != "pool" and chance(tape, 8):
        step["until"] = "granted"
    if scope.depth < 2 and chance(tape, 40 if waiting else 4):
        step["then"] = steps(tape, scope.inside(), 1, 1)
    if waiting and chance(tape, 50):
        fails = waiting == "NOWAIT" and kind in ("table", "row")
        step["else"] = after_failure(tape, scope) if fails else refusal(tape, scope)
    return [step]


def strong_lock(tape: Tape, scope: Scope) -> list[Step]:
    """One or two that wait, and for which others wait: the stuff of deadlocks."""
    names = ["lane", *scope.kinds("key", "lock", "row", "pool")]
    taken = [pick(tape, names) for _ in range(pick(tape, (1, 2)))]
    return [{reference(tape, scope, name): STRONGEST[scope.resources[name]["kind"]]} for name in taken]


STRONGEST = {"row": "FOR UPDATE", "advisory": "EXCLUSIVE", "key": "INSERT", "lock": "EXCLUSIVE", "pool": "TAKE"}
WAITING: dict[str, tuple[str, ...]] = {
    "table": ("NOWAIT",),
    "row": ("SKIP LOCKED", "SKIP LOCKED", "NOWAIT"),
    "advisory": ("TRY",),
    "key": (),
    "lock": ("TRY", "NOWAIT"),
    "pool": ("TRY", "NOWAIT"),
}


def lock_mode(tape: Tape, kind: str) -> str:
    match kind:
        case "table":
            return pick(tape, RARE_TABLE_MODES if chance(tape, 10) else TABLE_MODES)
        case "row":
            return pick(tape, (*ROW_MODES, ROW_MODES[0]))
        case "key":
            return "INSERT"
        case "pool":
            return "TAKE"
    return pick(tape, ("EXCLUSIVE", "EXCLUSIVE", "SHARED"))


def statement(tape: Tape, scope: Scope, name: str) -> dict[str, Any]:
    """The `sql` or `table mode` of a lock step on a row."""
    if "table" in scope.resources[name] and chance(tape, 20):
        return {"table mode": pick(tape, TABLE_MODES)}
    if chance(tape, 30):
        return {"sql": sql(tape, scope)}
    return {}


def sql(tape: Tape, scope: Scope) -> str:
    verb = pick(tape, ("SELECT 1 FROM jobs", "UPDATE jobs SET n = 1", "DELETE FROM jobs", "select 1 from jobs"))
    return text_about(tape, scope, verb)


def text_about(tape: Tape, scope: Scope, text: str) -> str:
    """A text for people, which may show a parameter."""
    names = [*scope.params, *scope.local]
    return f"{text} /* {{{pick(tape, names)}}} */" if names and chance(tape, 50) else text


def refusal(tape: Tape, scope: Scope) -> list[Step]:
    """What happens after a refused NOWAIT, SKIP LOCKED or TRY."""
    if scope.savepoint and chance(tape, 60):
        return rollback_to(tape, scope)
    if scope.may_end and chance(tape, 40):
        return [pick(tape, ("rollback", "commit"))]
    if scope.depth < 2 and chance(tape, 50):
        return steps(tape, scope.inside(), 1, 1)
    return []


def after_failure(tape: Tape, scope: Scope) -> list[Step]:
    """What can follow a statement that failed: nothing but the way back."""
    return rollback_to(tape, scope) if scope.savepoint and chance(tape, 70) else ["rollback"]


def for_loop(tape: Tape, scope: Scope) -> list[Step]:
    name = pick(tape, list(scope.sets))
    names = {scope.fresh_parameter(): name}
    if len(scope.sets) > 1 and chance(tape, 20):
        other = pick(tape, [s for s in scope.sets if s != name])
        names[scope.with_params(names).fresh_parameter()] = other
    inner = scope.with_params(names).inside(in_loop=True)
    elements = 1
    for s in names.values():
        elements *= len(scope.sets[s])
    step: dict[str, Any] = {"for": names}
    if chance(tape, 25):  # one statement takes all the locks
        step["sql"] = sql(tape, scope)
        body = [{reference(tape, inner, row): lock_mode(tape, "row")} for row in scope.kinds("row")[-1:]]
        step["do"] = body or lock_step(tape, replace(inner, depth=2))
    else:
        step["do"] = steps(tape, inner, 1, 1 if elements > 2 else 2)
    orders = ["forward", "reverse", "rotated"] + (["any"] * 2 if elements <= 3 else [])
    if chance(tape, 60):
        step["order"] = pick(tape, orders)
    return [step]


def one_statement(tape: Tape, scope: Scope) -> list[Step]:
    """Several locks that one SQL statement takes."""
    inner = replace(scope, depth=2)
    takes = [step for _ in range(2) for step in lock_step(tape, inner) if not {"sql", "then", "else"} & step.keys()]
    return [{"statement": sql(tape, scope), "takes": takes}] if takes else lock_step(tape, scope)


def either(tape: Tape, scope: Scope) -> list[Step]:
    branches = [steps(tape, scope.inside(), 1, 1) for _ in range(2)]
    if chance(tape, 25):
        branches[-1] = []
    return [{"either": branches}]


def if_step(tape: Tape, scope: Scope) -> list[Step]:
    names = {**scope.params, **scope.local, **scope.shared}
    step: dict[str, Any] = {"if": formula(tape, scope, names), "then": steps(tape, scope.inside(), 1, 1)}
    if chance(tape, 40):
        step["else"] = steps(tape, scope.inside(), 1, 1)
    return [step]


def set_step(tape: Tape, scope: Scope) -> list[Step]:
    return [{"set": assignments(tape, scope, {**scope.local, **scope.shared})}]


def assignments(tape: Tape, scope: Scope, targets: dict[str, tuple[Value, ...]]) -> dict[str, Any]:
    names = {**scope.params, **scope.local, **scope.shared}
    chosen = some(tape, list(targets), 1, 2 if chance(tape, 20) else 1)
    return {t: yaml_expression(expression(tape, scope, targets[t], names)) for t in chosen}


def savepoint_block(tape: Tape, scope: Scope) -> list[Step]:
    """A savepoint, something that may be given back, and perhaps the way back."""
    name = f"sp{len(scope.used)}"
    scope.used.append(name)
    body = steps(tape, scope.inside(savepoint=name), 1, 1 if scope.in_loop else 2)
    if body[-1] not in ("commit", "rollback") and chance(tape, 60):
        body.append({"rollback to": name})
    return [{"savepoint": name}, *body]


def rollback_to(tape: Tape, scope: Scope) -> list[Step]:
    """Only to the innermost savepoint: those above the target are gone afterwards."""
    return [{"rollback to": scope.savepoint}]


def session_block(tape: Tape, scope: Scope) -> list[Step]:
    """Takes a session lock and gives it back; or leaves it, but then begins by giving back what an earlier one left."""
    name = pick(tape, scope.kinds("advisory", scope="session"))
    lock = reference(tape, replace(scope, local={}), name)  # the same one when it is released
    mode = pick(tape, ("EXCLUSIVE", "EXCLUSIVE", "SHARED"))
    release: dict[str, Any] = {"release": lock}
    if mode == "SHARED" or chance(tape, 30):
        release["mode"] = mode
    take: dict[str, Any] = {lock: mode + (" TRY" if chance(tape, 30) else "")}
    if chance(tape, 45):
        return [release, take, release] if chance(tape, 25) else [release, take]
    if chance(tape, 15):
        return [take, take, release, release]
    without = replace(scope, resources={k: v for k, v in scope.resources.items() if k != name})
    return [take, *steps(tape, without.inside(may_end=False), 1, 1), release]


# ------------------------------------------------------------------------------------------------------- transactions


def transaction(tape: Tape, scope: Scope, most: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    scope = replace(scope, used=[])
    choose = choices(tape, scope)
    if choose:
        found["choose"] = choose
        scope = scope.with_params(choose)
    if scope.shared and chance(tape, 25):
        found["start when"] = formula(tape, scope, {**scope.params, **scope.shared})
    local = local_variables(tape, scope)
    if local:
        found["let"] = {n: yaml_expression(text) for n, (text, _) in local.items()}
        scope = replace(scope, local={n: domain for n, (_, domain) in local.items()})
    if chance(tape, 12):
        found["take at start"] = taken_at_start(tape, replace(scope, local={}))
    elif chance(tape, 12):
        found["block"] = False
        scope = replace(scope, block=False)
    # With session locks, one may be left behind again and again.
    if not scope.kinds("advisory", scope="session") and chance(tape, 20):
        found["lock_timeout"] = pick(tape, ("200ms", "200ms", "5s"))
    found["steps"] = steps(tape, scope, 2, most)
    if scope.shared and chance(tape, 35):
        found["on commit"] = assignments(tape, scope, scope.shared)
    return found


def choices(tape: Tape, scope: Scope) -> dict[str, str]:
    chosen = some(tape, list(scope.sets), 0, 2 if chance(tape, 12) else 1) if chance(tape, 55) else []
    return dict(zip(PARAMETERS, chosen, strict=False))


def local_variables(tape: Tape, scope: Scope) -> dict[str, tuple[str, tuple[Value, ...]]]:
    """Local variables: their expressions and the values they can have."""
    found: dict[str, tuple[str, tuple[Value, ...]]] = {}
    names = {**scope.params, **scope.shared}
    if "phase" in scope.shared and chance(tape, 40):
        found["mode"] = "phase", scope.shared["phase"]
    if chance(tape, 12):
        found["n"] = expression(tape, scope, (0, 1, 2), names), (0, 1, 2)
    if chance(tape, 8):
        found["seen"] = expression(tape, scope, BOOLEANS, names), BOOLEANS
    if scope.params and chance(tape, 10):
        parameter = pick(tape, list(scope.params))
        found["mine"] = parameter, scope.params[parameter]
    return found


def taken_at_start(tape: Tape, scope: Scope) -> dict[str, str]:
    name = pick(tape, scope.kinds("table", "row", "advisory", "key", "lock", "pool"))
    return {reference(tape, scope, name): lock_mode(tape, scope.resources[name]["kind"])}


# --------------------------------------------------------------------------------------------------- never and always


def properties(tape: Tape, scope: Scope, spec: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for word, likely in (("never", 45), ("always", 30)):
        if chance(tape, likely):
            names = [f"{word} {i}" for i in range(pick(tape, (1, 2)))]
            found[word] = {name: claim(tape, scope, word, spec) for name in names}
    return found


def claim(tape: Tape, scope: Scope, word: str, spec: dict[str, Any]) -> str:
    """A formula about a state."""
    name = pick(tape, list(scope.resources))
    over = scope.resources[name].get("per", [])
    if over and chance(tape, 40):
        bound = dict(zip(("x", "y"), over, strict=False))
        text = counting(tape, scope, word, spec, f"{name}[{', '.join(bound)}]", name)
        for variable, s in bound.items():
            text = f"{pick(tape, ('any', 'all') if word == 'never' else ('all', 'any'))}({text} for {variable} in {s})"
    elif over and chance(tape, 70):
        chosen = [literal(pick(tape, scope.sets[s]), scope) for s in over]
        text = counting(tape, scope, word, spec, f"{name}[{', '.join(chosen)}]", name)
    else:
        text = counting(tape, scope, word, spec, name, name)
    if scope.shared and chance(tape, 40):
        text = f"{comparison(tape, scope, scope.shared)} {'and' if word == 'never' else 'or'} {text}"
    return text


BOUNDS = {"never": ("> 1", ">= 2", "== 2", ">= 1"), "always": ("<= 1", "< 2", "!= 2", "== 0", ">= 0")}


def counting(tape: Tape, scope: Scope, word: str, spec: dict[str, Any], where: str, name: str) -> str:
    about = about_worker(tape, scope, spec, where, name)
    if chance(tape, 15):
        about = f"{about} and not w.holds({where})"
    elif chance(tape, 35):
        about = f"{about} and {about_worker(tape, scope, spec, where, name)}"
    return f"count({about}) {pick(tape, BOUNDS[word])}"


def about_worker(tape: Tape, scope: Scope, spec: dict[str, Any], where: str, name: str) -> str:
    mode = lock_mode(tape, scope.resources[name]["kind"])
    options = [f"w.holds({where})", f"w.holds({where}, '{mode}')", f"w.waits_for({where})"]
    options += [f"w.status == {pick(tape, ('running', 'idle', 'committed', 'aborted'))}"]
    options += [f"w.transaction == {pick(tape, list(spec['transactions']))}"]
    if "roles" in spec:
        options.append(f"w.role == {pick(tape, list(spec['roles']))}")
    named = {
        f"w.{variable}": scope.sets[s]
        for t in spec["transactions"].values()
        for variable, s in t.get("choose", {}).items()
    }
    if any("mode" in t.get("let", {}) for t in spec["transactions"].values()):
        named["w.mode"] = scope.shared["phase"]
    for variable, domain in named.items():
        options += [f"{variable} == {literal(pick(tape, domain), scope)}"] * 2
    return pick(tape, options)


# -------------------------------------------------------------------------------------------------------- whole specs


def roles(tape: Tape, transactions: list[str], most: int) -> dict[str, Any]:
    found: dict[str, Any] = {"producer": {"count": 1, "runs": some(tape, transactions, 1, 3)}}
    found["consumer"] = {"count": pick(tape, range(1, most)), "runs": some(tape, transactions, 1, 3)}
    # A transaction that nobody runs is an error.
    run = {*found["producer"]["runs"], *found["consumer"]["runs"]}
    found["consumer"]["runs"] += [name for name in transactions if name not in run]
    return found


def spec_of(tape: Tape) -> dict[str, Any]:
    """A spec as a YAML loader would return it."""
    spec: dict[str, Any] = {"name": "generated"}
    if chance(tape, 10):
        spec["doc"] = "Made by a machine: {s}."
    three_workers = chance(tape, 12)
    spec["sets"] = sets(tape, few=three_workers)
    declared = variables(tape)
    if declared:
        spec["variables"] = declared
    spec["resources"] = resources(tape, spec["sets"])
    scope = Scope(
        sets={name: elements(entry) for name, entry in spec["sets"].items()},
        resources=spec["resources"],
        shared={name: elements(entry["values"]) for name, entry in declared.items()},
    )
    count = pick(tape, (1, 2, 2) if three_workers else (1, 2, 2, 3))
    most = 2 if three_workers or count == 3 else 3 if count == 2 else 4
    spec["transactions"] = {t: transaction(tape, scope, most) for t in ("enqueue", "claim", "sweep")[:count]}
    if chance(tape, 25):
        spec["roles"] = roles(tape, list(spec["transactions"]), 3 if three_workers else 2)
    else:
        spec["workers"] = 3 if three_workers else 2
    spec |= properties(tape, scope, spec)
    if chance(tape, 40):
        spec["no global stall"] = True
    if chance(tape, 12):
        spec["no stall"] = True
    return spec


def specs() -> st.SearchStrategy[dict[str, Any]]:
    return st.binary(min_size=250, max_size=1000).map(lambda content: spec_of(Tape(content)))


class NoAliases(SafeRepresenter):
    """Writes what occurs twice twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def to_yaml(spec: dict[str, Any]) -> str:
    """The spec as YAML 1.2 text in block style; all in the order of the data."""
    yaml = YAML(typ="safe", pure=True)
    yaml.Representer = NoAliases
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]  # ruamel says None, and means a bool.
    yaml.width = 10_000
    out = io.StringIO()
    yaml.dump(spec, out)
    return out.getvalue()


def from_yaml(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(text)
