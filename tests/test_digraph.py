"""Our few graph algorithms against networkx's."""

from __future__ import annotations

import networkx
from hypothesis import given
from hypothesis import strategies as st

from lockmodel.digraph import Digraph

EDGES = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=24)


@given(EDGES, st.lists(st.integers(0, 9), max_size=3))
def test_components_and_circles(edges: list[tuple[int, int]], alone: list[int]) -> None:
    """The same sets as networkx, each after those that it leads to, and circles are those with an edge inside."""
    ours, theirs = Digraph(edges, nodes=alone), networkx.DiGraph(edges)
    theirs.add_nodes_from(alone)
    components = ours.components()
    assert sorted(map(sorted, components)) == sorted(map(sorted, networkx.strongly_connected_components(theirs)))
    place = {node: index for index, component in enumerate(components) for node in component}
    assert all(place[tail] >= place[head] for tail, head in edges)
    circles = {frozenset(c) for c in components if theirs.subgraph(c).number_of_edges()}
    assert set(map(frozenset, ours.circles())) == circles
    assert bool(ours.circles()) is not networkx.is_directed_acyclic_graph(theirs)
    for component in components:
        assert set(ours.edges_within(component)) == set(theirs.subgraph(component).edges)


@given(EDGES, st.integers(0, 9), st.integers(0, 9))
def test_paths(edges: list[tuple[int, int]], start: int, end: int) -> None:
    """A node that is in no edge leads nowhere, not even to itself."""
    theirs = networkx.DiGraph(edges)
    known = start in theirs and end in theirs
    assert Digraph(edges).leads(start, end) is (known and networkx.has_path(theirs, start, end))


@given(EDGES, st.permutations(range(9)))
def test_topological_order(edges: list[tuple[int, int]], key: list[int]) -> None:
    """That of networkx, with the same key."""
    acyclic = [(tail, head) for tail, head in edges if tail < head]
    ours = Digraph(acyclic).sorted_by(key.__getitem__)
    theirs = networkx.lexicographical_topological_sort(networkx.DiGraph(acyclic), key=key.__getitem__)
    assert ours == list(theirs)


def test_a_long_path_needs_no_stack() -> None:
    """As long as the program is, not as deep as Python's recursion goes."""
    edges = [(node, node + 1) for node in range(20_000)]
    assert len(Digraph(edges).components()) == 20_001
    assert len(Digraph([*edges, (20_000, 0)]).components()) == 1
