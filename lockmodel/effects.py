"""What a statement comes to: steps at once, and events that wait in its queue."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from lockmodel.errors import Position
from lockmodel.expressions import Expression
from lockmodel.modes import Wait
from lockmodel.program import Block, Either, If, Lock, Loop, Reference, Step
from lockmodel.relations import Target
from lockmodel.table_modes import ROW_SHARE

Over = tuple[tuple[str, str], ...]
"""The parameters of a loop, each with its set."""
NO_STEPS = Block(())


@dataclass(frozen=True)
class Event:
    """A trigger in a queue: `fire` gives its steps, and the events that they add to the end of the queue.

    `chain`: what it is a consequence of.
    """

    deferred: bool
    fire: Callable[[], tuple[list[Step], list[Item]]]
    chain: tuple[object, ...]


@dataclass(frozen=True)
class Rows:
    """Events of many rows, row by row. `when`: a condition that only some of the rows fulfil."""

    over: Over
    order: str
    items: tuple[Item, ...]
    when: Expression | None = None


@dataclass(frozen=True)
class Ways:
    """Events of a row that was written in one of several ways, each with its own."""

    ways: tuple[tuple[Item, ...], ...]


Item = Event | Rows | Ways


def waits_for_commit(items: Sequence[Item]) -> bool:
    """Whether any of `items` is deferred."""
    return any(isinstance(item, Event) and item.deferred for item in items)


def lock(
    reference: Reference,
    mode: str,
    position: Position,
    table: Reference | None = None,
    table_mode: str = ROW_SHARE,
    *,
    wait: Wait = Wait.BLOCK,
    label: str | None = None,
) -> Lock:
    """A lock on `reference`; a row takes `table` first, if it is not held in that mode."""
    return Lock(reference, mode, wait, NO_STEPS, None, table, table_mode, None, label, position)


def table_lock(target: Target, mode: str, position: Position) -> list[Step]:
    """The lock on the table of `target`, if it is a resource."""
    return [lock(target.lock, mode, position)] if target.lock is not None else []


def named(name: str) -> Expression:
    """The expression that is just this name."""
    return Expression(name, ast.Name(name), frozenset((name,)))


def all_equal(pairs: Sequence[tuple[Expression, Expression]]) -> Expression | None:
    """The condition that each two are equal; None if there are none."""
    if not pairs:
        return None
    terms: list[ast.expr] = [ast.Compare(one.tree, [ast.Eq()], [other.tree]) for one, other in pairs]
    tree = terms[0] if len(terms) == 1 else ast.BoolOp(ast.And(), terms)
    names = frozenset().union(*(expression.names for pair in pairs for expression in pair))
    return Expression(ast.unparse(tree), tree, names)


def told(step: Step, label: str, position: Position | None = None) -> Step:
    """`step` with `label` where its locks have none yet, at `position` where a reader looks."""

    def inside(block: Block) -> Block:
        return Block(tuple(told(one, label, position) for one in block.steps))

    step = step if position is None else replace(step, position=position)
    match step:
        case Lock():
            otherwise = inside(step.otherwise) if step.otherwise is not None else None
            return replace(step, label=step.label or label, then=inside(step.then), otherwise=otherwise)
        case Loop():
            return replace(step, body=inside(step.body))
        case Either():
            return replace(step, branches=tuple(inside(branch) for branch in step.branches))
        case If():
            return replace(step, then=inside(step.then), otherwise=inside(step.otherwise))
        case _:
            return step


def one_of(ways: Sequence[Block], position: Position) -> list[Step]:
    """One of `ways`; no choice where all take the same locks."""
    if all(_alike(ways[0], way) for way in ways[1:]):
        return list(ways[0].steps)
    return [Either(tuple(ways), position)]


def _alike(one: Block, other: Block) -> bool:
    """Whether both are the same locks, one after another."""

    def said(step: Step) -> object:
        if not isinstance(step, Lock) or step.then.steps or step.otherwise is not None:
            return step
        table = step.table.text if step.table is not None else None
        return step.reference.text, step.mode, step.wait, table, step.table_modes, step.label

    return [said(step) for step in one.steps] == [said(step) for step in other.steps]


def braces(label: str) -> str:
    """`label` for a template: its braces are braces."""
    return label.replace("{", "{{").replace("}", "}}")
