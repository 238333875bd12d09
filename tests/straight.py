"""Specs whose transactions only take locks: there, the prover decides. Plain data, from a seeded random number generator."""

from __future__ import annotations

import random
from typing import Any

MODES = {
    "lock": ("EXCLUSIVE", "EXCLUSIVE", "SHARED"),
    "row": ("FOR UPDATE", "FOR NO KEY UPDATE", "FOR SHARE", "FOR KEY SHARE"),
    "table": ("ACCESS EXCLUSIVE", "ROW EXCLUSIVE", "SHARE", "EXCLUSIVE", "ACCESS SHARE", "SHARE UPDATE EXCLUSIVE"),
    "key": ("INSERT",),
}


def straight_spec(rnd: random.Random) -> dict[str, Any]:
    """Up to four transactions over up to four resources, with loops, branches, parameters, upgrades, and sometimes roles."""
    size = rnd.choice((1, 2, 2, 3))
    resources: dict[str, Any] = {}
    for name in "abcd"[: rnd.choice((2, 3, 3, 4))]:
        resources[name] = {"kind": rnd.choice(("lock", "lock", "row", "table", "key"))}
        if rnd.random() < 0.4:
            resources[name]["per"] = ["s"]
    if rnd.random() < 0.3:
        resources |= {"jobs": {"kind": "table"}, "job": {"kind": "row", "table": "jobs", "per": ["s"]}}
    transactions: dict[str, Any] = {}
    if rnd.random() < 0.12:
        return _ring(rnd)
    for name in ("t0", "t1", "t2", "t3")[: rnd.choice((1, 2, 2, 3, 3))]:
        choose = dict.fromkeys(("x", "y")[: rnd.choice((0, 0, 1, 1, 2))], "s")
        steps = [_step(rnd, resources, size, list(choose)) for _ in range(rnd.choice((2, 2, 3)))]
        transactions[name] = {"choose": choose, "steps": steps} if choose else {"steps": steps}
        if rnd.random() < 0.1:
            taken = rnd.choice(list(resources))
            reference = f"{taken}[0]" if "per" in resources[taken] else taken
            transactions[name]["take at start"] = {reference: rnd.choice(MODES[resources[taken]["kind"]])}
    spec = {"name": "straight", "sets": {"s": size}, "resources": resources, "transactions": transactions}
    if rnd.random() < 0.3:
        names = list(transactions)
        some = {"count": rnd.choice((1, 1, 2)), "runs": rnd.sample(names, rnd.randint(1, len(names)))}
        many = rnd.sample(names, rnd.randint(1, len(names)))
        # A transaction that nobody runs is an error.
        many += [name for name in names if name not in {*some["runs"], *many}]
        return {**spec, "roles": {"some": some, "many": {"runs": many}}}
    return {**spec, "workers": "any"}


def _ring(rnd: random.Random) -> dict[str, Any]:
    """Three or four transactions, each of which takes two neighbouring locks of a ring; perhaps one the other way round, or behind a gate."""
    size = rnd.choice((3, 3, 4))
    transactions = {}
    for number in range(size):
        steps = [{f"a[{number}]": "EXCLUSIVE"}, {f"a[{(number + 1) % size}]": "EXCLUSIVE"}]
        gate = [{"gate": rnd.choice(("SHARED", "EXCLUSIVE"))}] if rnd.random() < 0.3 else []
        transactions[f"t{number}"] = {"steps": gate + (steps[::-1] if rnd.random() < 0.1 else steps)}
    resources = {"a": {"kind": "lock", "per": ["s"]}, "gate": {"kind": "lock"}}
    sets = {"s": size}
    return {"name": "ring", "sets": sets, "resources": resources, "transactions": transactions, "workers": "any"}


def _step(rnd: random.Random, resources: dict[str, Any], size: int, parameters: list[str], depth: int = 0) -> Any:
    kind = rnd.random()
    if kind < 0.12 and depth < 1:
        first = [_step(rnd, resources, size, parameters, 1)]
        return {"either": [first, [_step(rnd, resources, size, parameters, 1)] if rnd.random() < 0.7 else []]}
    if kind < 0.3 and depth < 2:
        name = "ijk"[depth]
        body = [_step(rnd, resources, size, [*parameters, name], depth + 1) for _ in range(rnd.choice((1, 1, 2)))]
        order = rnd.choice(("forward", "forward", "reverse", "rotated", "any"))
        return {"for": {name: "s"}, "order": order, "do": body}
    name = rnd.choice(list(resources))
    reference = name
    if "per" in resources[name]:
        reference += f"[{rnd.choice([*parameters, *parameters, *parameters, *range(size)])}]"
    return {reference: rnd.choice(MODES[resources[name]["kind"]])}
