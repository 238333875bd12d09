"""The graphs of a model as files: the lock order, who waits for whom in a state, all states."""

from __future__ import annotations

from typing import Literal

from lockmodel.export.dot import dot
from lockmodel.export.graphml import graphml
from lockmodel.export.mermaid import mermaid
from lockmodel.export.pictures import Picture, lock_order_picture, state_picture, waits_for_picture
from lockmodel.graphs import MAX_STATES, lock_order_graph, state_graph, waits_for_graph
from lockmodel.semantics import State
from lockmodel.stepping import Model

MAX_DRAWN_STATES = 2_000
"""Of a picture, unless it is said otherwise: Graphviz takes minutes for more, and nobody reads them."""


def lock_order_file(form: str, model: Model, source: str, by: Literal["resource", "family"] | None = None) -> str:
    """The lock-order graph of `model` in `form`: dot, mermaid or graphml. `source` says in it where it comes from.

    `by` None: in a picture each resource if that can be read, else the families; in GraphML each resource.
    Raises UsageError if it is too large.
    """
    if form == "graphml":
        return graphml(model, lock_order_graph(model, by or "resource"), source)
    return _drawn(form, lock_order_picture(model, by), source)


def waits_for_file(form: str, model: Model, source: str, state: State, what: str) -> str:
    """Who waits for whom in `state`, which `what` describes. Else as `lock_order_file`."""
    graph = waits_for_graph(model, state)
    return graphml(model, graph, source) if form == "graphml" else _drawn(form, waits_for_picture(graph, what), source)


def state_file(form: str, model: Model, source: str, max_states: int | None = None) -> str:
    """All states of `model`, at most `max_states` (None: as many as the form is good for). Else as `lock_order_file`."""
    if form == "graphml":
        return graphml(model, state_graph(model, max_states=max_states or MAX_STATES), source)
    graph = state_graph(model, max_states=max_states or MAX_DRAWN_STATES)
    return _drawn(form, state_picture(model, graph), source)


def _drawn(form: str, picture: Picture, source: str) -> str:
    return dot(picture, source) if form == "dot" else mermaid(picture, source)
