"""Hypothesis strategies for specs: small, valid by construction, with a deadlock in some of them.

    from hypothesis import given
    from lockmodel.testing.strategies import specs

    @given(specs())
    def test_my_tool(spec): ...

A spec's YAML text is `spec.source.text`; `spec_texts` gives the text alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from lockmodel.modes import KINDS, Wait
from lockmodel.parser import parse

if TYPE_CHECKING:
    from lockmodel.spec import Spec

__all__ = ["spec_texts", "specs"]

_RESOURCES = {"lane": "row", "ready": "table", "gate": "advisory", "leader": "lock"}
"""The resources that a spec may have, and their kinds."""
_NAMES = ("enqueue", "claim", "complete", "sweep", "prune", "rescue", "cancel", "retry")
MOST_TRANSACTIONS = len(_NAMES)


def specs(
    *,
    max_transactions: int = 3,
    max_steps: int = 3,
    max_elements: int = 2,
    max_workers: int = 3,
    only_waits: bool = False,
) -> st.SearchStrategy[Spec]:
    """Specs of at most this many transactions, steps in each, elements of the set `stripe`, and workers.

    With `only_waits` no request is ever refused (no SKIP LOCKED, NOWAIT or TRY), there is no branch and no savepoint: transactions
    that only take locks. With the limits as they are, a search ends in well under a second.
    """
    texts = spec_texts(
        max_transactions=max_transactions,
        max_steps=max_steps,
        max_elements=max_elements,
        max_workers=max_workers,
        only_waits=only_waits,
    )
    return texts.map(lambda text: parse(text, "<generated>"))


def spec_texts(
    *,
    max_transactions: int = 3,
    max_steps: int = 3,
    max_elements: int = 2,
    max_workers: int = 3,
    only_waits: bool = False,
) -> st.SearchStrategy[str]:
    """The YAML texts of such specs."""
    given = {
        "max_transactions": (max_transactions, MOST_TRANSACTIONS),
        "max_steps": (max_steps, 20),
        "max_elements": (max_elements, 20),
        "max_workers": (max_workers, 20),
    }
    for name, (value, most) in given.items():
        if not 1 <= value <= most:
            raise ValueError(f"{name} must be 1 to {most}, not {value}")
    return _documents(_Bounds(max_transactions, max_steps, max_elements, max_workers, only_waits)).map(_yaml)


@dataclass(frozen=True)
class _Bounds:
    transactions: int
    steps: int
    elements: int
    workers: int
    only_waits: bool


_Construct = Callable[[_Bounds, dict[str, bool], str], st.SearchStrategy[list[Any]]]
"""Makes steps from the bounds, the resources (and whether they have elements), and a parameter."""


@st.composite
def _documents(draw: st.DrawFn, bounds: _Bounds) -> dict[str, Any]:
    """A whole spec as plain data."""
    names = draw(st.lists(st.sampled_from(list(_RESOURCES)), min_size=1, max_size=3, unique=True))
    indexed = {name: draw(st.booleans()) for name in names}
    count = draw(st.integers(1, bounds.transactions))
    return {
        "name": "generated",
        "sets": {"stripe": draw(st.integers(1, bounds.elements))},
        "resources": {
            name: {"kind": _RESOURCES[name], **({"per": ["stripe"]} if indexed[name] else {})} for name in names
        },
        "transactions": {name: draw(_transactions(bounds, indexed)) for name in _NAMES[:count]},
        "workers": draw(st.integers(1, bounds.workers)),
    }


@st.composite
def _transactions(draw: st.DrawFn, bounds: _Bounds, indexed: dict[str, bool]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    parameter = ""
    if any(indexed.values()) and draw(st.booleans()):
        found["choose"] = {"c": "stripe"}
        parameter = "c"
    kinds: list[_Construct] = [_lock, _lock, *([] if bounds.only_waits else [_either, _savepoint])]
    if any(indexed.values()):
        kinds.append(_loop)
    steps: list[Any] = []
    for _ in range(draw(st.integers(1, bounds.steps))):
        steps += draw(draw(st.sampled_from(kinds))(bounds, indexed, parameter))
    found["steps"] = steps
    return found


@st.composite
def _lock(draw: st.DrawFn, bounds: _Bounds, indexed: dict[str, bool], parameter: str) -> list[Any]:
    """One lock, of whatever element there is."""
    name = draw(st.sampled_from(list(indexed)))
    kind = KINDS[_RESOURCES[name]]
    element = f"[{parameter or 0}]" if indexed[name] else ""
    # The strongest first: that is what an example shrinks to, and what most code takes.
    mode = draw(st.sampled_from(kind.modes[::-1]))
    wait = Wait.BLOCK if bounds.only_waits else draw(st.sampled_from((Wait.BLOCK, Wait.BLOCK, *kind.waits)))
    return [{f"{name}{element}": f"{mode} {wait}".strip()}]


@st.composite
def _loop(draw: st.DrawFn, bounds: _Bounds, indexed: dict[str, bool], _parameter: str) -> list[Any]:
    order = draw(st.sampled_from(("forward", "reverse", "rotated", "any")))
    among = {name: True for name, has in indexed.items() if has}
    return [{"for": {"s": "stripe"}, "order": order, "do": draw(_lock(bounds, among, "s"))}]


@st.composite
def _either(draw: st.DrawFn, bounds: _Bounds, indexed: dict[str, bool], parameter: str) -> list[Any]:
    ways = [draw(_lock(bounds, indexed, parameter)), draw(st.one_of(st.just([]), _lock(bounds, indexed, parameter)))]
    return [{"either": ways}]


@st.composite
def _savepoint(draw: st.DrawFn, bounds: _Bounds, indexed: dict[str, bool], parameter: str) -> list[Any]:
    return [{"savepoint": "before"}, *draw(_lock(bounds, indexed, parameter)), {"rollback to": "before"}]


def _yaml(value: Any) -> str:
    return "\n".join(_lines(value)) + "\n"


def _lines(value: Any) -> list[str]:
    """`value` as YAML in block style. A word in JSON's quotes is one in YAML, too."""
    if isinstance(value, dict) and value:
        lines: list[str] = []
        for key, inner in value.items():
            below = _lines(inner)
            nested = isinstance(inner, dict | list) and bool(inner)
            lines += (
                [f"{_scalar(key)}:", *(f"  {line}" for line in below)] if nested else [f"{_scalar(key)}: {below[0]}"]
            )
        return lines
    if isinstance(value, list) and value:
        return [
            f"{'- ' if number == 0 else '  '}{line}" for entry in value for number, line in enumerate(_lines(entry))
        ]
    return [_scalar(value)]


def _scalar(value: Any) -> str:
    plain = isinstance(value, str) and value.replace(" ", "").isalpha() and value.isascii()
    return str(value) if plain else json.dumps(value)
