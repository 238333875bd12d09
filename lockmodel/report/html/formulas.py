"""`never` and `always` formulas as plain data, which `formulas.js` evaluates: trees of lists that begin with a word."""

from __future__ import annotations

import ast
from typing import Any

from lockmodel.errors import SpecError
from lockmodel.expressions import evaluate
from lockmodel.properties import Evaluator
from lockmodel.semantics import Semantics
from lockmodel.system import Property

Json = dict[str, Any]
Tree = list[Any]

_OPERATORS: dict[type[ast.AST], str] = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.FloorDiv: "//", ast.Mod: "%", ast.And: "and", ast.Or: "or",
    ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.In: "in", ast.NotIn: "not in",
}  # fmt: skip


def formula(semantics: Semantics, prop: Property) -> Json:
    """`prop` with its tree, in which `["count", N]` is number N of `counts`; with `reason` instead where it can't be written out."""
    data: Json = {"name": prop.name, "always": prop.always, "formula": prop.expression.text}
    if prop.position is not None:
        data["line"] = prop.position.line
    try:
        evaluator = Evaluator(semantics, prop)
    except SpecError as error:
        return {**data, "reason": error.message}
    writer = _Writer(semantics.system.variables, evaluator.counts)
    predicates = [count.args[0] for count in evaluator.counts if isinstance(count, ast.Call)]
    return {**data, "tree": writer.tree(evaluator.tree), "counts": [writer.tree(one) for one in predicates]}


def size(tree: object) -> int:
    """How many entries a tree has: what it costs in the page."""
    return sum(map(size, tree)) if isinstance(tree, list) else 1


class _Writer:
    """Writes out the formulas of one property."""

    def __init__(self, variables: tuple[str, ...], counts: tuple[ast.expr, ...]) -> None:
        self._variables = {name: number for number, name in enumerate(variables)}
        self._counts = {id(node): number for number, node in enumerate(counts)}

    def tree(self, node: ast.expr) -> Tree:
        match node:
            case ast.Name(id=name) if name in self._variables:
                return ["variable", self._variables[name]]
            case ast.Constant() | ast.Name():
                return ["value", evaluate(node, {})]
            case ast.BoolOp(op=operator, values=values):
                return [_OPERATORS[type(operator)], *map(self.tree, values)]
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return ["not", self.tree(operand)]
            case ast.UnaryOp(operand=operand):
                return ["minus", self.tree(operand)]
            case ast.BinOp(left=left, op=operation, right=right):
                return [_OPERATORS[type(operation)], self.tree(left), self.tree(right)]
            case ast.Compare(left=left, ops=ops, comparators=comparators):
                pairs = zip(ops, comparators, strict=True)
                return [
                    "compare",
                    self.tree(left),
                    *([_OPERATORS[type(op)], self._right(right)] for op, right in pairs),
                ]
            case ast.IfExp(test=test, body=body, orelse=orelse):
                return ["if", self.tree(test), self.tree(body), self.tree(orelse)]
            case ast.Call() if id(node) in self._counts:
                return ["count", self._counts[id(node)]]
            case ast.Attribute(attr=field):
                return ["w", field]
            case ast.Call(func=ast.Attribute(attr=word), args=[target, *mode]):
                wanted = mode[0].value if mode and isinstance(mode[0], ast.Constant) else None
                return [word, *self._target(target), wanted]
        raise AssertionError(f"{ast.unparse(node)} is in no formula")

    def _right(self, node: ast.expr) -> Tree:
        """The right side of a comparison; of `in`, a list of trees."""
        return [self.tree(item) for item in node.elts] if isinstance(node, ast.Tuple | ast.List) else self.tree(node)

    def _target(self, node: ast.expr) -> Tree:
        """The family of a resource, and the trees of its arguments (None: any of the family)."""
        match node:
            case ast.Subscript(value=ast.Name(id=family), slice=ast.Tuple(elts=elements)):
                return [family, [self.tree(one) for one in elements]]
            case ast.Subscript(value=ast.Name(id=family), slice=element):
                return [family, [self.tree(element)]]
        assert isinstance(node, ast.Name)
        return [node.id, None]
