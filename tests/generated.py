"""Hypothesis strategies: small, rich specs as plain data, valid by construction.

    @given(specs())
    def test_…(spec): …

One small function per construct of docs/language.md. Each takes hypothesis's `draw` and the Scope it stands in, and returns
plain data. All the first choices of a strategy are the dull ones, so that examples shrink well.

Left out on purpose, for the page gives it no single meaning: names that hide other names (but for a parameter that hides an
element), values outside of a domain, session locks stacked more than 4 deep, `!=` about a w.NAME that may not exist,
expressions that are no expression of their variable's type, steps after `commit` or `rollback`.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from hypothesis import strategies as st
from ruamel.yaml import YAML

Draw = Callable[[st.SearchStrategy[Any]], Any]
Step = Any
Value = int | str | bool
T = TypeVar("T")

PARAMETERS = ("s", "t", "r", "i", "j", "k")
TABLE_MODES = ("ROW EXCLUSIVE", "SHARE", "EXCLUSIVE", "SHARE UPDATE EXCLUSIVE", "ROW SHARE", "SHARE ROW EXCLUSIVE")
RARE_TABLE_MODES = ("ACCESS EXCLUSIVE", "ACCESS SHARE")
ROW_MODES = ("FOR UPDATE", "FOR NO KEY UPDATE", "FOR SHARE", "FOR KEY SHARE")
BOOLEANS = (False, True)


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
            name
            for name, r in self.resources.items()
            if r["kind"] in kinds and r.get("scope", "transaction") == scope
        ]


def pick(draw: Draw, options: Sequence[T]) -> T:
    chosen: T = draw(st.sampled_from(options))
    return chosen


def chance(draw: Draw, percent: int) -> bool:
    return percent > 0 and pick(draw, range(100)) >= 100 - percent


def some(draw: Draw, options: Sequence[T], least: int, most: int) -> list[T]:
    most = min(most, len(options))
    chosen: list[T] = draw(st.lists(st.sampled_from(options), min_size=min(least, most), max_size=most, unique=True))
    return chosen


# ------------------------------------------------------------------------------------------------------- declarations


def sets(draw: Draw) -> dict[str, Any]:
    found: dict[str, Any] = {"stripe": pick(draw, (2, 2, 2, 1, 3))}
    if chance(draw, 50):
        found["queue"] = some(draw, ("mail", "sms", "q#0", 7, "s"), 1, 2)
    return found


def elements(entry: Any) -> tuple[Value, ...]:
    return tuple(range(entry)) if isinstance(entry, int) else tuple(entry)


def variables(draw: Draw) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, values in (("phase", ["early", "late"]), ("turn", pick(draw, (2, 3))), ("flag", [False, True])):
        if chance(draw, 28):
            found[name] = {"values": values}
            if chance(draw, 50):
                found[name]["initial"] = pick(draw, elements(values))
    return found


def per(draw: Draw, sets: dict[str, Any], likely: int) -> dict[str, Any]:
    if not chance(draw, likely):
        return {}
    names = some(draw, list(sets), 1, 2 if chance(draw, 15) else 1)
    return {"per": names}


def resources(draw: Draw, sets: dict[str, Any]) -> dict[str, Any]:
    """One resource for each of a few kinds; `lane` is always there."""
    found: dict[str, Any] = {"lane": {"kind": pick(draw, ("lock", "advisory", "row")), **per(draw, sets, 70)}}
    for likely, resource in ((40, row_with_table), (30, plain), (25, key), (25, pool), (30, session_lock), (20, table)):
        if chance(draw, likely):
            found |= resource(draw, sets)
    return found


def row_with_table(draw: Draw, sets: dict[str, Any]) -> dict[str, Any]:
    row = {"kind": "row", "table": "jobs", **per(draw, sets, 80)}
    table: dict[str, Any] = {"kind": "table"}
    if "per" in row and chance(draw, 20):
        table["per"] = [row["per"][-1]]
    return {"jobs": table, "job": row}


def plain(draw: Draw, sets: dict[str, Any]) -> dict[str, Any]:
    entry = {"kind": pick(draw, ("lock", "advisory")), **per(draw, sets, 30)}
    if entry["kind"] == "advisory" and chance(draw, 50):
        entry["scope"] = "transaction"
    return {"gate": entry}


def key(draw: Draw, sets: dict[str, Any]) -> dict[str, Any]:
    return {"name_key": {"kind": "key", **per(draw, sets, 60)}}


def pool(draw: Draw, sets: dict[str, Any]) -> dict[str, Any]:
    return {"connections": {"kind": "pool", "size": pick(draw, (1, 2, 3)), **per(draw, sets, 20)}}


def session_lock(draw: Draw, sets: dict[str, Any]) -> dict[str, Any]:
    return {"leader": {"kind": "advisory", "scope": "session", **per(draw, sets, 40)}}


def table(draw: Draw, sets: dict[str, Any]) -> dict[str, Any]:
    return {"ledger": {"kind": "table", **per(draw, sets, 15)}}


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


def expression(draw: Draw, scope: Scope, values: tuple[Value, ...], names: dict[str, tuple[Value, ...]]) -> str:
    """An expression whose value is one of `values`, made of constants and `names`."""
    options = [literal(v, scope) for v in values]
    options += [name for name, domain in names.items() if types(domain) == types(values) and set(domain) <= set(values)]
    if types(values) == {bool}:
        options += [f"not {name}" for name, domain in names.items() if types(domain) == {bool}]
    if is_range(values):
        numbers = [name for name, domain in names.items() if types(domain) == {int}]
        options += [f"({name} + 1) % {len(values)}" for name in numbers]
        options += [f"{name} * 2 % {len(values)}" for name in numbers]
    chosen = pick(draw, options)
    if names and chance(draw, 12):
        chosen = f"{chosen} if {comparison(draw, scope, names)} else {pick(draw, options)}"
    return chosen


def types(values: tuple[Value, ...]) -> set[type]:
    """To tell (False, True) from (0, 1), which Python calls equal."""
    return {type(v) for v in values}


def is_range(values: tuple[Value, ...]) -> bool:
    return types(values) == {int} and values == tuple(range(len(values)))


def comparison(draw: Draw, scope: Scope, names: dict[str, tuple[Value, ...]]) -> str:
    name = pick(draw, list(names))
    domain = names[name]
    value = literal(pick(draw, domain), scope)
    if types(domain) == {bool}:
        return pick(draw, (name, f"not {name}", f"{name} == {value}"))
    if types(domain) == {int}:
        return f"{name} {pick(draw, ('==', '!=', '<', '<=', '>', '>='))} {value}"
    if len(domain) > 1 and chance(draw, 15):
        return f"{name} in ({value}, {literal(pick(draw, domain), scope)})"
    return f"{name} {pick(draw, ('==', '!='))} {value}"


def formula(draw: Draw, scope: Scope, names: dict[str, tuple[Value, ...]]) -> str:
    text = comparison(draw, scope, names)
    if chance(draw, 15):
        text = f"{text} {pick(draw, ('and', 'or'))} {comparison(draw, scope, names)}"
    if chance(draw, 10):
        text = f"not ({text})"
    return text


def reference(draw: Draw, scope: Scope, name: str) -> str:
    """A resource with its arguments."""
    arguments = [argument(draw, scope, scope.sets[s]) for s in scope.resources[name].get("per", [])]
    return f"{name}[{', '.join(arguments)}]" if arguments else name


def argument(draw: Draw, scope: Scope, values: tuple[Value, ...]) -> str:
    """A parameter if there is one, an element, or an expression."""
    names = {**scope.params, **scope.local}
    fitting = [name for name, domain in names.items() if domain == values and types(domain) == types(values)]
    if fitting and chance(draw, 75):
        name = pick(draw, fitting)
        if is_range(values) and chance(draw, 15):
            return f"({name} + 1) % {len(values)}"
        return name
    value = str(pick(draw, values))
    return f"'{value}'" if value in scope.params else value


# -------------------------------------------------------------------------------------------------------------- steps


def steps(draw: Draw, scope: Scope, most: int) -> list[Step]:
    """A list of steps; sometimes with an end at its end."""
    found: list[Step] = []
    for _ in range(pick(draw, range(1, most + 1))):
        found += construct(draw, scope)
    if scope.depth and scope.may_end and chance(draw, 12):
        found.append(pick(draw, ("commit", "rollback")))
    return found


def construct(draw: Draw, scope: Scope) -> list[Step]:
    """The steps of one construct."""
    names = {**scope.params, **scope.local, **scope.shared}
    options: list[Callable[[Draw, Scope], list[Step]]] = [lock_step] * 9
    if scope.depth < 2:
        options += [for_loop] * (0 if scope.in_loop else 3) + [either] * 2 + [savepoint_block] * 2
        options += [if_step] * (3 if names else 0)
        options += [session_block] * (5 if scope.kinds("advisory", scope="session") else 0)
    options += [set_step] * (2 if scope.shared or scope.local else 0)
    if scope.savepoint:
        options += [rollback_to] * 2
    return pick(draw, options)(draw, scope)


def lock_step(draw: Draw, scope: Scope) -> list[Step]:
    names = scope.kinds("table", "row", "advisory", "key", "lock", "pool")
    name = pick(draw, names)
    kind = scope.resources[name]["kind"]
    mode = lock_mode(draw, kind)
    waiting = pick(draw, WAITING[kind]) if WAITING[kind] and chance(draw, 25) else ""
    if waiting == "NOWAIT" and not scope.may_end:
        waiting = ""
    step: dict[str, Any] = {reference(draw, scope, name): f"{mode} {waiting}".strip()}
    if chance(draw, 10):
        step["label"] = text_about(draw, scope, "take it")
    if kind == "row":
        step |= statement(draw, scope, name)
    if scope.depth < 2 and chance(draw, 40 if waiting else 4):
        step["then"] = steps(draw, scope.inside(), 1)
    if waiting and chance(draw, 50):
        step["else"] = refusal(draw, scope)
    return [step]


WAITING: dict[str, tuple[str, ...]] = {
    "table": ("NOWAIT",),
    "row": ("SKIP LOCKED", "SKIP LOCKED", "NOWAIT"),
    "advisory": ("TRY",),
    "key": (),
    "lock": ("TRY", "NOWAIT"),
    "pool": ("TRY", "NOWAIT"),
}


def lock_mode(draw: Draw, kind: str) -> str:
    match kind:
        case "table":
            return pick(draw, RARE_TABLE_MODES if chance(draw, 10) else TABLE_MODES)
        case "row":
            return pick(draw, (*ROW_MODES, ROW_MODES[0]))
        case "key":
            return "INSERT"
        case "pool":
            return "TAKE"
    return pick(draw, ("EXCLUSIVE", "EXCLUSIVE", "SHARED"))


def statement(draw: Draw, scope: Scope, name: str) -> dict[str, Any]:
    """The `sql` or `table mode` of a lock step on a row."""
    if "table" in scope.resources[name] and chance(draw, 10):
        return {"table mode": pick(draw, TABLE_MODES)}
    if chance(draw, 30):
        return {"sql": sql(draw, scope)}
    return {}


def sql(draw: Draw, scope: Scope) -> str:
    verb = pick(draw, ("SELECT 1 FROM jobs", "UPDATE jobs SET n = 1", "DELETE FROM jobs", "select 1 from jobs"))
    return text_about(draw, scope, verb)


def text_about(draw: Draw, scope: Scope, text: str) -> str:
    """A text for people, which may show a parameter."""
    names = [*scope.params, *scope.local]
    return f"{text} /* {{{pick(draw, names)}}} */" if names and chance(draw, 50) else text


def refusal(draw: Draw, scope: Scope) -> list[Step]:
    """What happens after a refused NOWAIT, SKIP LOCKED or TRY."""
    if scope.savepoint and chance(draw, 60):
        return rollback_to(draw, scope)
    if scope.may_end and chance(draw, 40):
        return [pick(draw, ("rollback", "commit"))]
    if scope.depth < 2 and chance(draw, 50):
        return steps(draw, scope.inside(), 1)
    return []


def for_loop(draw: Draw, scope: Scope) -> list[Step]:
    name = pick(draw, list(scope.sets))
    names = {scope.fresh_parameter(): name}
    if len(scope.sets) > 1 and chance(draw, 20):
        other = pick(draw, [s for s in scope.sets if s != name])
        names[scope.with_params(names).fresh_parameter()] = other
    inner = scope.with_params(names).inside(in_loop=True)
    elements = 1
    for s in names.values():
        elements *= len(scope.sets[s])
    step: dict[str, Any] = {"for": names}
    if chance(draw, 25):  # one statement takes all the locks
        step["sql"] = sql(draw, scope)
        body = [{reference(draw, inner, row): lock_mode(draw, "row")} for row in scope.kinds("row")[-1:]]
        step["do"] = body or lock_step(draw, replace(inner, depth=2))
    else:
        step["do"] = steps(draw, inner, 1 if elements > 2 else 2)
    orders = ["forward", "reverse", "rotated"] + (["any"] * 2 if elements <= 3 else [])
    if chance(draw, 60):
        step["order"] = pick(draw, orders)
    return [step]


def either(draw: Draw, scope: Scope) -> list[Step]:
    branches = [steps(draw, scope.inside(), 1) for _ in range(2)]
    if chance(draw, 25):
        branches[-1] = []
    return [{"either": branches}]


def if_step(draw: Draw, scope: Scope) -> list[Step]:
    names = {**scope.params, **scope.local, **scope.shared}
    step: dict[str, Any] = {"if": formula(draw, scope, names), "then": steps(draw, scope.inside(), 1)}
    if chance(draw, 40):
        step["else"] = steps(draw, scope.inside(), 1)
    return [step]


def set_step(draw: Draw, scope: Scope) -> list[Step]:
    return [{"set": assignments(draw, scope, {**scope.local, **scope.shared})}]


def assignments(draw: Draw, scope: Scope, targets: dict[str, tuple[Value, ...]]) -> dict[str, Any]:
    names = {**scope.params, **scope.local, **scope.shared}
    chosen = some(draw, list(targets), 1, 2 if chance(draw, 20) else 1)
    return {t: yaml_expression(expression(draw, scope, targets[t], names)) for t in chosen}


def savepoint_block(draw: Draw, scope: Scope) -> list[Step]:
    """A savepoint, something that may be given back, and perhaps the way back."""
    name = f"sp{len(scope.used)}"
    scope.used.append(name)
    body = steps(draw, scope.inside(savepoint=name), 1 if scope.in_loop else 2)
    if body[-1] not in ("commit", "rollback") and chance(draw, 60):
        body.append({"rollback to": name})
    return [{"savepoint": name}, *body]


def rollback_to(draw: Draw, scope: Scope) -> list[Step]:
    """Only to the innermost savepoint: those above the target are gone afterwards."""
    return [{"rollback to": scope.savepoint}]


def session_block(draw: Draw, scope: Scope) -> list[Step]:
    """Takes a session lock and gives it back; or leaves it, but then begins by giving back what an earlier one left."""
    name = pick(draw, scope.kinds("advisory", scope="session"))
    lock = reference(draw, scope, name)
    mode = pick(draw, ("EXCLUSIVE", "EXCLUSIVE", "SHARED"))
    release: dict[str, Any] = {"release": lock}
    if mode == "SHARED" or chance(draw, 30):
        release["mode"] = mode
    take: dict[str, Any] = {lock: mode + (" TRY" if chance(draw, 30) else "")}
    if chance(draw, 30):
        return [release, take, release] if chance(draw, 50) else [release, take]
    if chance(draw, 15):
        return [take, take, release, release]
    without = replace(scope, resources={k: v for k, v in scope.resources.items() if k != name})
    return [take, *steps(draw, without.inside(may_end=False), 1), release]


# ------------------------------------------------------------------------------------------------------- transactions


def transaction(draw: Draw, scope: Scope, most: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    scope = replace(scope, used=[])
    choose = choices(draw, scope)
    if choose:
        found["choose"] = choose
        scope = scope.with_params(choose)
    if scope.shared and chance(draw, 25):
        found["start when"] = formula(draw, scope, {**scope.params, **scope.shared})
    local = local_variables(draw, scope)
    if local:
        found["let"] = {n: yaml_expression(text) for n, (text, _) in local.items()}
        scope = replace(scope, local={n: domain for n, (_, domain) in local.items()})
    if chance(draw, 12):
        found["take at start"] = taken_at_start(draw, replace(scope, local={}))
    found["steps"] = steps(draw, scope, most)
    if scope.shared and chance(draw, 35):
        found["on commit"] = assignments(draw, scope, scope.shared)
    return found


def choices(draw: Draw, scope: Scope) -> dict[str, str]:
    chosen = some(draw, list(scope.sets), 0, 2 if chance(draw, 12) else 1) if chance(draw, 55) else []
    return dict(zip(PARAMETERS, chosen, strict=False))


def local_variables(draw: Draw, scope: Scope) -> dict[str, tuple[str, tuple[Value, ...]]]:
    """Local variables: their expressions and the values they can have."""
    found: dict[str, tuple[str, tuple[Value, ...]]] = {}
    names = {**scope.params, **scope.shared}
    if "phase" in scope.shared and chance(draw, 40):
        found["mode"] = "phase", scope.shared["phase"]
    if chance(draw, 12):
        found["n"] = expression(draw, scope, (0, 1, 2), names), (0, 1, 2)
    if chance(draw, 8):
        found["seen"] = expression(draw, scope, BOOLEANS, names), BOOLEANS
    if scope.params and chance(draw, 10):
        parameter = pick(draw, list(scope.params))
        found["mine"] = parameter, scope.params[parameter]
    return found


def taken_at_start(draw: Draw, scope: Scope) -> dict[str, str]:
    name = pick(draw, scope.kinds("table", "row", "advisory", "key", "lock", "pool"))
    return {reference(draw, scope, name): lock_mode(draw, scope.resources[name]["kind"])}


# --------------------------------------------------------------------------------------------------- never and always


def properties(draw: Draw, scope: Scope, spec: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for word, likely in (("never", 45), ("always", 30)):
        if chance(draw, likely):
            names = [f"{word} {i}" for i in range(pick(draw, (1, 2)))]
            found[word] = {name: claim(draw, scope, spec) for name in names}
    return found


def claim(draw: Draw, scope: Scope, spec: dict[str, Any]) -> str:
    """A formula about a state."""
    name = pick(draw, list(scope.resources))
    over = scope.resources[name].get("per", [])
    if over and chance(draw, 40):
        bound = dict(zip(("x", "y"), over, strict=False))
        text = counting(draw, scope, spec, f"{name}[{', '.join(bound)}]", name)
        for variable, s in bound.items():
            text = f"{pick(draw, ('any', 'all'))}({text} for {variable} in {s})"
    elif over and chance(draw, 70):
        chosen = [literal(pick(draw, scope.sets[s]), scope) for s in over]
        text = counting(draw, scope, spec, f"{name}[{', '.join(chosen)}]", name)
    else:
        text = counting(draw, scope, spec, name, name)
    if scope.shared and chance(draw, 40):
        text = f"{comparison(draw, scope, scope.shared)} {pick(draw, ('and', 'or'))} {text}"
    return text


def counting(draw: Draw, scope: Scope, spec: dict[str, Any], where: str, name: str) -> str:
    about = about_worker(draw, scope, spec, where, name)
    if chance(draw, 35):
        about = f"{about} and {about_worker(draw, scope, spec, where, name)}"
    return f"count({about}) {pick(draw, ('> 1', '== 0', '<= 1', '>= 2', '== 1', '< 2'))}"


def about_worker(draw: Draw, scope: Scope, spec: dict[str, Any], where: str, name: str) -> str:
    mode = lock_mode(draw, scope.resources[name]["kind"])
    options = [f"w.holds({where})", f"w.holds({where}, '{mode}')", f"w.waits_for({where})", f"not w.holds({where})"]
    options += [f"w.status == {pick(draw, ('running', 'idle', 'committed', 'aborted'))}"]
    options += [f"w.transaction == {pick(draw, list(spec['transactions']))}"]
    if "roles" in spec:
        options.append(f"w.role == {pick(draw, list(spec['roles']))}")
    named = {
        f"w.{variable}": scope.sets[s] for t in spec["transactions"].values() for variable, s in t.get("choose", {}).items()
    }
    if any("mode" in t.get("let", {}) for t in spec["transactions"].values()):
        named["w.mode"] = scope.shared["phase"]
    for variable, domain in named.items():
        options += [f"{variable} == {literal(pick(draw, domain), scope)}"] * 2
    return pick(draw, options)


# -------------------------------------------------------------------------------------------------------- whole specs


def roles(draw: Draw, transactions: list[str], most: int) -> dict[str, Any]:
    found: dict[str, Any] = {"producer": {"count": 1, "runs": some(draw, transactions, 1, 3)}}
    found["consumer"] = {"count": pick(draw, range(1, most)), "runs": some(draw, transactions, 1, 3)}
    return found


@st.composite
def specs(draw: Draw) -> dict[str, Any]:
    """A spec as a YAML loader would return it."""
    spec: dict[str, Any] = {"name": "generated"}
    if chance(draw, 10):
        spec["doc"] = "Made by a machine: {s}."
    spec["sets"] = sets(draw)
    declared = variables(draw)
    if declared:
        spec["variables"] = declared
    spec["resources"] = resources(draw, spec["sets"])
    scope = Scope(
        sets={name: elements(entry) for name, entry in spec["sets"].items()},
        resources=spec["resources"],
        shared={name: elements(entry["values"]) for name, entry in declared.items()},
    )
    count = pick(draw, (1, 2, 2, 3))
    three_workers = chance(draw, 12)
    most = 2 if three_workers or count == 3 else 3 if count == 2 else 4
    spec["transactions"] = {t: transaction(draw, scope, most) for t in ("enqueue", "claim", "sweep")[:count]}
    if chance(draw, 25):
        spec["roles"] = roles(draw, list(spec["transactions"]), 3 if three_workers else 2)
    else:
        spec["workers"] = 3 if three_workers else 2
    spec |= properties(draw, scope, spec)
    if chance(draw, 40):
        spec["no global stall"] = True
    return spec


def to_yaml(spec: dict[str, Any]) -> str:
    """The spec as YAML 1.2 text in block style; all in the order of the data."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False
    yaml.width = 10_000
    yaml.allow_unicode = True
    yaml.representer.ignore_aliases = lambda data: True
    out = io.StringIO()
    yaml.dump(spec, out)
    return out.getvalue()


def from_yaml(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(text)
