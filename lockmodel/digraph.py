"""The four questions about directed graphs that every check asks.

networkx answers them too, and the graphs given to users are networkx's (`lockmodel.graphs`). But importing it takes longer than the whole
proof of a usual spec, so what `check` always needs is here; tests/test_digraph.py holds it against networkx.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Generic, TypeVar

Node = TypeVar("Node", bound=Hashable)


class Digraph(Generic[Node]):
    """A directed graph without parallel edges. Nodes and successors stay in the order in which they came."""

    def __init__(self, edges: Iterable[tuple[Node, Node]] = (), nodes: Iterable[Node] = ()) -> None:
        self._after: dict[Node, dict[Node, None]] = {node: {} for node in nodes}
        for tail, head in edges:
            self.add_edge(tail, head)

    def add_edge(self, tail: Node, head: Node) -> None:
        self._after.setdefault(tail, {})[head] = None
        self._after.setdefault(head, {})

    def edges_within(self, nodes: Iterable[Node]) -> Iterator[tuple[Node, Node]]:
        """The edges between two of `nodes`."""
        inside = set(nodes)
        return ((tail, head) for tail in self._after if tail in inside for head in self._after[tail] if head in inside)

    def leads(self, start: Node, end: Node) -> bool:
        """Whether a path, if only that of no edge, goes from `start` to `end`; False if one of them is no node."""
        if start not in self._after or end not in self._after:
            return False
        seen, todo = {start}, [start]
        while todo:
            node = todo.pop()
            if node == end:
                return True
            new = [head for head in self._after[node] if head not in seen]
            seen.update(new)
            todo += new
        return False

    def components(self) -> list[list[Node]]:
        """The strongly connected components, each after those that it leads to (R. E. Tarjan, 1972)."""
        found: list[list[Node]] = []
        number: dict[Node, int] = {}
        low: dict[Node, int] = {}
        """The lowest number known to be on a common circle; that of a node whose component is found is out of reach."""
        stack: list[Node] = []
        for root in self._after:
            path = [] if root in number else [(root, len(stack), iter(self._after[root]))]
            while path:
                node, place, heads = path[-1]
                if node not in number:
                    number[node] = low[node] = len(number)
                    stack.append(node)
                for head in heads:
                    if head not in number:
                        path.append((head, len(stack), iter(self._after[head])))
                        break
                    low[node] = min(low[node], low[head])
                else:
                    path.pop()
                    if low[node] == number[node]:
                        component = stack[place:]
                        del stack[place:]
                        low.update(dict.fromkeys(component, len(self._after)))
                        found.append(component)
                    elif path:
                        before = path[-1][0]
                        low[before] = min(low[before], low[node])
        return found

    def circles(self) -> list[list[Node]]:
        """The components that hold an edge, be it one from a node to itself; none if the graph is acyclic."""
        return [found for found in self.components() if len(found) > 1 or found[0] in self._after[found[0]]]

    def sorted_by(self, key: Callable[[Node], int]) -> list[Node]:
        """The nodes of an acyclic graph, each after those that lead to it; of all that may come next, that with the least `key`."""
        before = dict.fromkeys(self._after, 0)
        for heads in self._after.values():
            for head in heads:
                before[head] += 1
        ready = [(key(node), place, node) for place, (node, count) in enumerate(before.items()) if not count]
        heapq.heapify(ready)
        result = []
        while ready:
            _, _, node = heapq.heappop(ready)
            result.append(node)
            for head in self._after[node]:
                before[head] -= 1
                if not before[head]:
                    heapq.heappush(ready, (key(head), len(before) + len(result), head))
        return result
