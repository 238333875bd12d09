"""From "which states lie on a shortest path" to the path itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lockmodel.semantics import Action, Semantics, State
from lockmodel.trace import Trace


def retrace(semantics: Semantics, on_path: Sequence[Callable[[State], bool]]) -> Trace:
    """The first shortest path, in the order in which `semantics` lists the actions.

    `on_path[n]` says whether a state that n steps reach can go on to a goal in `len(on_path) - 1 - n` steps. Of all shortest paths this is
    the one that a breadth-first search in that order finds first: engines that store no parents return the reference engine's trace.
    """
    states: list[State] = [semantics.initial]
    actions: list[Action] = []
    for reaches in on_path[1:]:
        action, state = next(
            (action, successor)
            for action in semantics.actions(states[-1])
            if reaches(successor := semantics.after(states[-1], action))
        )
        actions.append(action)
        states.append(state)
    return Trace(semantics.crew, tuple(states), tuple(actions))
