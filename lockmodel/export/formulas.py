"""`never` and `always` formulas in a form that other languages can say: integers, counted workers, comparisons.

What a worker adds to a `count(…)` depends only on where it is (and on whether it waits there), so each becomes a *tally*: sets of
places. All that is known when the shared variables are is worked out here, for each valuation of them, so that words, truth values
and parameters never reach the other language.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from lockmodel.errors import Position, UsageError
from lockmodel.expressions import ExpressionError, Value, evaluate, same
from lockmodel.places import places_of
from lockmodel.properties import Evaluator
from lockmodel.semantics import Semantics

Place = tuple[str, int]
"""A role and a location that its workers can be at."""
MAX_VECTORS = 2_000_000


@dataclass(frozen=True)
class Tally:
    """A number of workers: those at a place of `always`, of `waiting` if they wait there, of `going` if they don't."""

    always: frozenset[Place]
    waiting: frozenset[Place]
    going: frozenset[Place]


@dataclass(frozen=True)
class Number:
    value: int


@dataclass(frozen=True)
class Truth:
    value: bool


@dataclass(frozen=True)
class Count:
    """The value of `Formula.tallies[index]`."""

    index: int


@dataclass(frozen=True)
class Operation:
    """`operator` is and, or, not, if (condition, then, else), neg, one of + - *, or one of == != < <= > >=.

    Operands of comparisons are two integers, or two truths for == and !=.
    """

    operator: str
    operands: tuple[Term, ...]

    @property
    def truth(self) -> bool:
        if self.operator == "if":
            return _is_truth(self.operands[1])
        return self.operator not in ("neg", "+", "-", "*")


Term: TypeAlias = Number | Truth | Count | Operation


@dataclass(frozen=True)
class Formula:
    """A property as what must be true in every state.

    `cases` maps each valuation to the formula for it. Valuations with equal formulas share one object.
    """

    name: str
    text: str
    tallies: tuple[Tally, ...]
    cases: tuple[tuple[frozenset[int], Term], ...]


def formula(semantics: Semantics, evaluator: Evaluator) -> Formula:
    """The property of `evaluator`, for the workers of `semantics`. Raises UsageError for what can't be said elsewhere."""
    return _Translation(semantics, evaluator).formula


class _Translation:
    def __init__(self, semantics: Semantics, evaluator: Evaluator) -> None:
        self.system = semantics.system
        self.evaluator = evaluator
        self.property = evaluator.property
        places = places_of(semantics.system, semantics.crew)
        self.places = sorted(
            {
                (role, location)
                for role, own in zip(semantics.crew.roles, places, strict=True)
                for location in own.locations
            }
        )
        self.index = {id(node): number for number, node in enumerate(evaluator.counts)}
        self.numbers: dict[Tally, int] = {}
        valuations = range(len(self.system.valuations))
        if len(valuations) * len(self.places) * max(1, evaluator.size) > MAX_VECTORS:
            raise self.error("it has too many terms for this many places and values; make a set smaller")
        cases: dict[Term, set[int]] = defaultdict(set)
        for valuation in valuations:
            cases[self.case(valuation)].add(valuation)
        self.formula = Formula(
            name=self.property.name,
            text=self.property.expression.text,
            tallies=tuple(self.numbers),
            cases=tuple((frozenset(found), term) for term, found in cases.items()),
        )

    def error(self, message: str) -> UsageError:
        position = self.property.position or Position(self.system.name)
        return UsageError(f"{position}: this formula can't be exported: {message}")

    def case(self, valuation: int) -> Term:
        self.names: dict[str, Value] = dict(zip(self.system.variables, self.system.valuations[valuation], strict=True))
        self.tallies = self.tallied(valuation)
        term = self.term(self.evaluator.tree)
        if not isinstance(term, bool) and (isinstance(term, int | str) or not _is_truth(term)):
            raise self.error(f"{ast.unparse(self.evaluator.tree)} is not true or false")
        if isinstance(term, bool):
            return Truth(term is self.property.always)
        return term if self.property.always else Operation("not", (term,))

    def tallied(self, valuation: int) -> list[Tally]:
        """The tally of each `count(…)` while the shared variables have this valuation."""
        sets: list[tuple[set[Place], set[Place], set[Place]]] = [(set(), set(), set()) for _ in self.evaluator.counts]
        for role, location in self.places:
            going = self.evaluator.vector(role, location, valuation, False)
            waits = self.system.locations[location].waits
            waiting = self.evaluator.vector(role, location, valuation, True) if waits else going
            for (always, only_waiting, only_going), one, other in zip(sets, going, waiting, strict=True):
                if one or other:
                    (always if one and other else only_going if one else only_waiting).add((role, location))
        return [Tally(*map(frozenset, found)) for found in sets]

    def term(self, node: ast.expr) -> Value | Term:
        """`node` with all that is known worked out."""
        if not any(id(inner) in self.index for inner in ast.walk(node)):
            return self.known(node)
        match node:
            case ast.Call():
                tally = self.tallies[self.index[id(node)]]
                if tally == Tally(frozenset(), frozenset(), frozenset()):
                    return 0
                return Count(self.numbers.setdefault(tally, len(self.numbers)))
            case ast.BoolOp(op=op, values=values):
                return self.joined(isinstance(op, ast.Or), values)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                inner = self.truth(operand)
                return (not inner) if isinstance(inner, bool) else Operation("not", (inner,))
            case ast.UnaryOp(operand=operand):
                return self.arithmetic("neg", node, [operand])
            case ast.BinOp(left=left, op=op, right=right):
                operator = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*"}.get(type(op))
                if operator is None:
                    raise self.error(f"{ast.unparse(node)}: // and % of a count differ from language to language")
                return self.arithmetic(operator, node, [left, right])
            case ast.Compare(left=left, ops=ops, comparators=comparators):
                return self.compared(left, ops, comparators)
            case ast.IfExp(test=test, body=body, orelse=orelse):
                condition = self.truth(test)
                if isinstance(condition, bool):
                    return self.term(body if condition else orelse)
                branches = [_symbol(self.term(branch)) for branch in (body, orelse)]
                if None in branches or len({_is_truth(branch) for branch in branches if branch}) > 1:
                    raise self.error(f"{ast.unparse(node)} is a word on one side")
                return Operation("if", (condition, *(branch for branch in branches if branch)))
        raise self.error(f"{ast.unparse(node)} has no counterpart")

    def known(self, node: ast.expr) -> Value:
        try:
            return evaluate(node, self.names)
        except ExpressionError as error:
            raise self.error(str(error)) from None

    def truth(self, node: ast.expr) -> bool | Term:
        found = self.term(node)
        if isinstance(found, bool) or (not isinstance(found, int | str) and _is_truth(found)):
            return found
        raise self.error(f"{ast.unparse(node)} is not true or false")

    def joined(self, disjunction: bool, values: Sequence[ast.expr]) -> bool | Term:
        operands: list[Term] = []
        for value in values:
            found = self.truth(value)
            if found is disjunction:
                return disjunction
            if not isinstance(found, bool):
                operands.append(found)
        if not operands:
            return not disjunction
        return operands[0] if len(operands) == 1 else Operation("or" if disjunction else "and", tuple(operands))

    def arithmetic(self, operator: str, node: ast.expr, operands: list[ast.expr]) -> Term:
        found = [_symbol(self.term(operand)) for operand in operands]
        symbols = [symbol for symbol in found if symbol is not None and not _is_truth(symbol)]
        if len(symbols) < len(operands):
            raise self.error(f"{ast.unparse(node)} has an operand that is no integer")
        return Operation(operator, tuple(symbols))

    def compared(self, left: ast.expr, ops: Sequence[ast.cmpop], comparators: Sequence[ast.expr]) -> bool | Term:
        parts: list[bool | Term] = []
        mine = self.term(left)
        for op, right in zip(ops, comparators, strict=True):
            if isinstance(op, ast.In | ast.NotIn) and isinstance(right, ast.Tuple | ast.List):
                found = _joined("or", [self.pair("==", mine, self.term(item)) for item in right.elts])
                parts.append(_negated(found) if isinstance(op, ast.NotIn) else found)
                continue
            other = self.term(right)
            parts.append(self.pair(_COMPARISONS[type(op)], mine, other))
            mine = other
        return _joined("and", parts)

    def pair(self, operator: str, left: Value | Term, right: Value | Term) -> bool | Term:
        if isinstance(left, bool | int | str) and isinstance(right, bool | int | str):
            if operator in ("==", "!="):
                return same(left, right) is (operator == "==")
            text = f"{left!r} {operator} {right!r}"
            return self.known(ast.parse(text, mode="eval").body) is True
        symbols = [_symbol(left), _symbol(right)]
        truths = [None if symbol is None else _is_truth(symbol) for symbol in symbols]
        if truths[0] is not truths[1] or None in truths:
            if operator in ("==", "!="):
                return operator == "!="
            raise self.error(f"{operator} compares what is no integer")
        if truths[0] and operator not in ("==", "!="):
            raise self.error(f"{operator} compares what is no integer")
        return Operation(operator, tuple(symbol for symbol in symbols if symbol is not None))


_COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=",
}  # fmt: skip


def _is_truth(term: Term) -> bool:
    return isinstance(term, Truth) or (isinstance(term, Operation) and term.truth)


def _symbol(value: Value | Term) -> Term | None:
    """A value as a term; None for a word, which other languages have no use for."""
    if isinstance(value, bool):
        return Truth(value)
    if isinstance(value, int):
        return Number(value)
    return None if isinstance(value, str) else value


def _negated(value: bool | Term) -> bool | Term:
    return (not value) if isinstance(value, bool) else Operation("not", (value,))


def _joined(operator: str, parts: Sequence[bool | Term]) -> bool | Term:
    decisive = operator == "or"
    if decisive in parts:
        return decisive
    terms = [part for part in parts if not isinstance(part, bool)]
    if not terms:
        return not decisive
    return terms[0] if len(terms) == 1 else Operation(operator, tuple(terms))
