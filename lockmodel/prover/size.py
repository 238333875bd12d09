"""What can be said of a program's compiled form without compiling it: that it surely has a meaning, and how large it is at most."""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator

from lockmodel.program import Assign, Block, Either, If, Lock, Loop, Program, RollbackTo, Step, TransactionProgram

Number = int | float


def surely_compiles(program: Program) -> bool:
    """Whether no step can be without meaning: no element outside of its set, no fault in a formula, no savepoint that may be missing.

    So a proof on the program alone says all that there is to say. (What is too large to compile can still be proved.)
    """
    if any(family.session or family.capacity is not None for family in program.families.values()):
        return False
    return all(_is_plain(transaction) for transaction in program.transactions)


def most_states(program: Program, open_count: int) -> Number:
    """An upper bound of the states of `program`, with `open_count` workers in each role that may have any number."""
    sizes = _sizes(program)
    states: Number = math.prod(len(values) for values in program.variables.values())
    for role in program.roles:
        places = 2 + sum(sizes[name] for name in role.transactions)
        count = open_count if role.count is None else role.count
        # The logarithm tells whether the power is worth computing.
        states = math.inf if count * math.log10(places) > 300 else states * places**count
    return states


def most_places(program: Program) -> Number:
    """An upper bound of the places at which a worker can be."""
    return 2 + sum(_sizes(program).values())


def _sizes(program: Program) -> dict[str, Number]:
    """For each transaction, at how many places a worker in it can be, at most."""
    return {
        transaction.name: math.prod(len(program.sets[of]) for _, of in transaction.choose)
        * math.prod(_values(program) for _ in transaction.let)
        * (1 + _size(program, transaction.steps))
        for transaction in program.transactions
    }


def _values(program: Program) -> int:
    """How many values a local variable may have, roughly: as the shared variables that it is mostly made of."""
    return max((len(values) for values in program.variables.values()), default=2)


def _size(program: Program, block: Block) -> Number:
    """At how many places in `block` a worker can be, at most."""
    return sum(_step_size(program, step) for step in block.steps)


def _step_size(program: Program, step: Step) -> Number:
    match step:
        case Lock():
            inner = _size(program, step.then) + (_size(program, step.otherwise) if step.otherwise else 0)
            return 1 + (step.table is not None) + inner
        case Loop():
            rounds = math.prod(len(program.sets[of]) for _, of in step.over)
            ways: Number = {"any": 2.0 ** min(rounds, 900), "rotated": rounds}.get(step.order, 1)
            return ways * rounds * _size(program, step.body)
        case Either():
            return sum(_size(program, branch) for branch in step.branches)
        case If():
            return 1 + _size(program, step.then) + _size(program, step.otherwise)
        case _:
            return 1


def _is_plain(transaction: TransactionProgram) -> bool:
    names = {name for name, _ in transaction.choose}
    if transaction.start_when is not None and not _is_truth(transaction.start_when.tree):
        return False
    if not all(_is_value(expression.tree) for _, expression in transaction.let):
        return False
    # A constant that is assigned to a shared variable was looked up, a computed one may be none of its values.
    if not all(isinstance(expression.tree, ast.Constant) for _, expression in transaction.on_commit):
        return False
    references = [reference for reference, _ in transaction.take_at_start]
    for step, bound in _steps(transaction.steps, frozenset(names)):
        match step:
            case Lock():
                if not all(_is_element(a.tree, bound) for a in step.reference.arguments):
                    return False
            case If():
                if not _is_truth(step.condition.tree):
                    return False
            case Assign():
                if not all(isinstance(expression.tree, ast.Constant) for _, expression in step.values):
                    return False
            case RollbackTo():
                return False
    return all(_is_element(a.tree, frozenset(names)) for reference in references for a in reference.arguments)


def _steps(block: Block, bound: frozenset[str]) -> Iterator[tuple[Step, frozenset[str]]]:
    """Every step in `block`, each with the parameters around it."""
    for step in block.steps:
        yield step, bound
        match step:
            case Lock():
                yield from _steps(step.then, bound)
                if step.otherwise is not None:
                    yield from _steps(step.otherwise, bound)
            case Loop():
                yield from _steps(step.body, bound | {name for name, _ in step.over})
            case Either():
                for branch in step.branches:
                    yield from _steps(branch, bound)
            case If():
                yield from _steps(step.then, bound)
                yield from _steps(step.otherwise, bound)


def _is_element(tree: ast.expr, bound: frozenset[str]) -> bool:
    """Whether an argument is an element or a parameter, which were looked up when the spec was read."""
    return isinstance(tree, ast.Constant) or (isinstance(tree, ast.Name) and tree.id in bound)


def _is_truth(tree: ast.expr) -> bool:
    """Whether a formula is surely true or false: comparisons for equality and what joins them."""
    match tree:
        case ast.Compare(left=left, ops=ops, comparators=comparators):
            if not all(isinstance(op, ast.Eq | ast.NotEq | ast.In | ast.NotIn) for op in ops):
                return False
            sides = [left]
            for side in comparators:
                sides += side.elts if isinstance(side, ast.Tuple | ast.List) else [side]
            return all(map(_is_value, sides))
        case ast.BoolOp(values=values):
            return all(map(_is_truth, values))
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return _is_truth(operand)
        case ast.Constant(value=bool()):
            return True
    return False


def _is_value(tree: ast.expr) -> bool:
    """Whether an expression surely has a value."""
    return isinstance(tree, ast.Name | ast.Constant) or _is_truth(tree)
