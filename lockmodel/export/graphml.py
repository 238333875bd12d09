"""A graph of `lockmodel.graphs` as GraphML, by networkx's own writer, with all attributes as numbers, truths and texts."""

from __future__ import annotations

from typing import Any

import networkx

from lockmodel.export.pictures import state_lines
from lockmodel.graphs import LockOrderGraph, StateGraph, WaitsForGraph
from lockmodel.semantics import State
from lockmodel.stepping import Model


def graphml(model: Model, graph: LockOrderGraph | WaitsForGraph | StateGraph, source: str) -> str:
    """`graph` of `model` as GraphML; its attribute `source` says where it comes from.

    Lists are texts with `; ` between their entries, pairs have ` → `. A state is a node `s0`, `s1`, …, by its number, and has a `label`.
    """
    plain: networkx.Graph[Any] = graph.__class__()
    plain.graph.update(
        _plain({key: value for key, value in graph.graph.items() if key != "start"}), source=_text(source)
    )
    names = {node: _name(node, data) for node, data in graph.nodes(data=True)}
    for node, data in graph.nodes(data=True):
        label = {"label": "; ".join(state_lines(model, node))} if isinstance(node, State) else {}
        plain.add_node(names[node], **_plain({**data, **label}))
    for tail, head, data in graph.edges(data=True):
        plain.add_edge(names[tail], names[head], **_plain(data))
    return "\n".join(networkx.generate_graphml(plain)) + "\n"


def _name(node: object, data: dict[str, Any]) -> str:
    if isinstance(node, State):
        return f"s{data['number']}"
    return str(data["name"]) if isinstance(node, int) else _text(node)


def _plain(data: dict[str, Any]) -> dict[str, Any]:
    return {key: value if isinstance(value, int | float) else _text(value) for key, value in data.items()}


def _text(value: object) -> str:
    """`value` as a text that XML can hold."""
    if isinstance(value, tuple):
        return "; ".join(" → ".join(map(str, one)) if isinstance(one, tuple) else _text(one) for one in value)
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in str(value))
