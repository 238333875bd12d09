"""A picture in the language of Graphviz, written by the library `graphviz`, which needs no Graphviz to be installed for that."""

from __future__ import annotations

from collections.abc import Iterable

import graphviz

from lockmodel.export.pictures import Node, Picture

_RED = "#c62828"


def dot(picture: Picture, source: str) -> str:
    """`picture` for `dot`; `source` says in its first comment where it comes from. Nodes are n0, n1, …, groups boxes around theirs."""
    graph = graphviz.Digraph(
        comment=" ".join(source.split()),
        graph_attr={
            "label": _label(picture.title),
            "labelloc": "t",
            "rankdir": picture.direction,
            "fontname": "sans-serif",
            "fontsize": "12",
        },
        node_attr={"shape": "box", "style": "rounded", "fontname": "sans-serif", "fontsize": "11"},
        edge_attr={"fontname": "sans-serif", "fontsize": "9"},
    )
    for number, group in enumerate(picture.groups):
        with graph.subgraph(name=f"cluster_{number}") as box:
            box.attr(label=_label([group]), style="rounded", color="#9e9e9e", fontsize="11")
            for index, node in enumerate(picture.nodes):
                if node.group == group:
                    _node(box, index, node)
    for index, node in enumerate(picture.nodes):
        if node.group is None:
            _node(graph, index, node)
    for edge in picture.edges:
        looks = {"color": _RED, "fontcolor": _RED, "penwidth": "2"} if edge.marked else {}
        looks |= {"style": "dashed"} if edge.weak else {}
        graph.edge(f"n{edge.tail}", f"n{edge.head}", label=_label([edge.label]) if edge.label else None, **looks)
    return str(graph.source)


def _node(graph: graphviz.Digraph, index: int, node: Node) -> None:
    looks = {"color": _RED, "penwidth": "2"} if node.marked else {}
    looks |= {"peripheries": "2"} if node.start else {}
    graph.node(f"n{index}", label=_label(node.lines), **looks)


def _label(lines: Iterable[str]) -> str:
    """A label of several lines, each escaped by itself: the break between two is an escape, too. `<x>` and `&x;` are texts, no HTML."""
    text: str = graphviz.nohtml(r"\n".join(graphviz.escape(line.replace("&", "&amp;")) for line in lines))
    return text
