"""Formulas and expressions: parsed with Python's grammar, checked against a whitelist, evaluated here. Never run.

`parse` accepts the operators of docs/language.md and refuses every other kind of syntax node, so that no spec can reach
a Python object. Values are integers, words and booleans; they never convert into each other, and integers stay within
`MAX_INTEGER`, so that evaluation is bounded in time and memory too.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from lockmodel.errors import quote

Value = int | str | bool
MAX_LENGTH = 2_000
MAX_DEPTH = 40
"""How deep the terms of a formula may be nested, so that evaluating one never exhausts Python's stack."""
MAX_INTEGER = 10**12
WORKER = "w"
"""What a formula calls the worker that `count` is about."""
WORKER_FIELDS = ("transaction", "role", "status")


class ExpressionError(Exception):
    """What is wrong with an expression; the caller knows where it stands."""


@dataclass(frozen=True)
class Expression:
    """A parsed expression. `names` are the bare words in it that are not bound inside it."""

    text: str
    tree: ast.expr
    names: frozenset[str]

    @cached_property
    def size(self) -> int:
        """How many terms it has: what one evaluation costs."""
        return sum(1 for _ in ast.walk(self.tree))

    def __hash__(self) -> int:
        return hash(self.text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Expression) and ast.dump(self.tree) == ast.dump(other.tree)


_COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.In: "in", ast.NotIn: "not in",
}  # fmt: skip
_ARITHMETIC: dict[type[ast.operator], str] = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.FloorDiv: "//", ast.Mod: "%",
}  # fmt: skip
_WORDS = {"true": True, "false": False}
_QUOTED = re.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*\"""")
_ALLOWED = "and, or, not, == != < <= > >=, in (…), + - * // %, … if … else …"


def parse(text: str | int | bool, *, about_workers: bool = False) -> Expression:
    """Parse `text`. With `about_workers` (never, always), `count`, `any`, `all` and `w.…` are allowed too.

    Raises ExpressionError for whatever is not in the language.
    """
    if isinstance(text, bool):
        text = "true" if text else "false"
    source = str(text).strip()
    if len(source) > MAX_LENGTH:
        raise ExpressionError(f"a formula may have at most {MAX_LENGTH:,} characters; split it")
    if not source:
        raise ExpressionError("the formula is empty; write one, such as x == 1")
    if "#" in _QUOTED.sub("", source):
        raise ExpressionError(f"{quote(source)}: a word with # needs quotes: 'q#0'")
    tree = _python(source)
    _check_depth(source, tree)
    _check(tree, about_workers, inside_count=False)
    return Expression(source, tree, frozenset(_free(tree, frozenset())))


def _python(source: str) -> ast.expr:
    """`source` by Python's grammar."""
    line = " ".join(source.splitlines())
    try:
        with warnings.catch_warnings():
            # Python warns of odd but valid spellings (`1or 2`, a backslash); what is not in the language is refused below.
            warnings.simplefilter("ignore")
            return ast.parse(line, mode="eval").body
    except SyntaxError as error:
        if "&&" in source or "||" in source or "!" in source.replace("!=", ""):
            reason = "write and, or, not"
        else:
            reason = str(error.msg).partition(" (<unknown>")[0]
            rest = line[(error.offset or 0) - 1 :] if error.offset else ""
            if reason == "invalid syntax":
                reason += f" at {quote(rest, 20)}" if rest else " at its end"
        raise ExpressionError(f"{quote(source)} is not a formula: {reason}") from None
    except ValueError:
        raise ExpressionError(f"{quote(source)} is not a formula: it has a character that no word has") from None
    except (RecursionError, MemoryError):
        raise ExpressionError(f"{quote(source)} is nested more than {MAX_DEPTH} levels deep") from None


def _check_depth(source: str, tree: ast.expr) -> None:
    """Refuse what is nested too deeply for the recursive functions below. Level by level, so without recursion itself."""
    level: list[ast.AST] = [tree]
    for _ in range(MAX_DEPTH):
        level = [child for node in level for child in ast.iter_child_nodes(node)]
        if not level:
            return
    raise ExpressionError(f"{quote(source)} is nested more than {MAX_DEPTH} levels deep; split it")


def _check(node: ast.expr, workers: bool, inside_count: bool) -> None:
    """Refuse every node that is not in the language."""

    def check(*nodes: ast.expr, counted: bool = inside_count) -> None:
        for child in nodes:
            _check(child, workers, counted)

    match node:
        case ast.Constant(value=bool() | int() | str() as value):
            if isinstance(value, int) and abs(value) > MAX_INTEGER:
                raise ExpressionError(f"{quote(value)} is too large; a number is at most {MAX_INTEGER:,}")
        case ast.Name():
            if node.id == WORKER and workers:
                raise ExpressionError("w stands for a worker: write w.transaction, w.status, w.holds(…) …")
        case ast.BoolOp(values=values):
            check(*values)
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            check(operand)
        case ast.BinOp(left=left, op=operator, right=right) if type(operator) in _ARITHMETIC:
            check(left, right)
        case ast.Compare(left=left, ops=ops, comparators=comparators) if all(type(op) in _COMPARISONS for op in ops):
            check(left)
            for op, right in zip(ops, comparators, strict=True):
                if isinstance(op, ast.In | ast.NotIn):
                    if not isinstance(right, ast.Tuple | ast.List):
                        raise ExpressionError("`in` needs a list in parentheses: x in (a, b)")
                    if len(ops) > 1:
                        raise ExpressionError("`in` can't be chained with another comparison; join the two by `and`")
                    check(*right.elts)
                else:
                    check(right)
        case ast.IfExp(test=test, body=body, orelse=orelse):
            check(test, body, orelse)
        case ast.Call(func=ast.Name(id="count"), args=[predicate], keywords=[]) if workers and not inside_count:
            check(predicate, counted=True)
        case ast.Call(func=ast.Name(id="any" | "all"), args=[ast.GeneratorExp() as generator], keywords=[]) if workers:
            _generator(generator)
            check(generator.elt)
        case ast.Attribute(value=ast.Name(id="w")) if workers:
            _need_count(inside_count, f"w.{node.attr}")
            if node.attr in ("holds", "waits_for"):
                raise ExpressionError(f"w.{node.attr} needs a resource: w.{node.attr}(lane[0])")
        case ast.Call(func=ast.Attribute(value=ast.Name(id="w"), attr=name), args=arguments, keywords=[]) if workers:
            _need_count(inside_count, f"w.{name}(…)")
            most = {"holds": 2, "waits_for": 2}.get(name)
            if most is None:
                raise ExpressionError(f"a worker has no {quote(name)}; it has holds(…) and waits_for(…)")
            if not 1 <= len(arguments) <= most:
                raise ExpressionError(f"w.{name} takes a resource and, if wanted, a mode in quotes")
            _resource_argument(arguments[0], name, check)
            if len(arguments) == 2 and not _is_word(arguments[1]):
                raise ExpressionError(f"the mode in w.{name}(…) stands in quotes: 'FOR UPDATE'")
        case _:
            raise ExpressionError(f"{quote(ast.unparse(node))} is not allowed in a formula; {_instead(node, workers)}")


def _instead(node: ast.expr, workers: bool) -> str:
    """What would be right in place of `node`."""
    match node:
        case ast.Call(func=ast.Name(id="count")) if workers:
            return "count takes one formula about a worker w, and no other count inside"
        case ast.Call(func=ast.Name(id="any" | "all")) if workers:
            return "write any(formula for s in stripe)"
        case ast.Call(func=ast.Attribute(value=ast.Name(id="w"))) if workers:
            return "write w.holds(lane[0], 'FOR UPDATE') or w.waits_for(lane[0])"
        case ast.Call(func=ast.Name(id="count" | "any" | "all")) | ast.Attribute(value=ast.Name(id="w")):
            return "count, any, all and w.… are for never and always"
        case ast.Call(func=ast.Attribute(value=ast.Name(id="w"))):
            return "count, any, all and w.… are for never and always"
        case ast.Compare(ops=ops) if any(isinstance(op, ast.Is | ast.IsNot) for op in ops):
            return "write == or !="
    return f"allowed are {_ALLOWED}"


def _need_count(inside_count: bool, what: str) -> None:
    if not inside_count:
        raise ExpressionError(f"{what} belongs inside count(…), which says of which worker it speaks")


def _is_word(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _resource_argument(node: ast.expr, name: str, check: Callable[..., None]) -> None:
    match node:
        case ast.Name():
            return
        case ast.Subscript(value=ast.Name(), slice=ast.Tuple(elts=elements)):
            check(*elements)
        case ast.Subscript(value=ast.Name(), slice=ast.expr() as element):
            check(element)
        case _:
            raise ExpressionError(f"w.{name}({ast.unparse(node)}) needs a resource, such as lane or lane[0]")


def _generator(node: ast.GeneratorExp) -> None:
    match node.generators:
        case [ast.comprehension(target=ast.Name(), iter=ast.Name(), ifs=[], is_async=0)]:
            return
    raise ExpressionError("any(…) and all(…) range over one set: any(formula for s in stripe)")


def _free(node: ast.AST, bound: frozenset[str]) -> Iterator[str]:
    match node:
        case ast.Name():
            if node.id not in bound:
                yield node.id
        case ast.Call(func=ast.Name(), args=[ast.GeneratorExp() as generator]):
            target = generator.generators[0].target
            assert isinstance(target, ast.Name)
            yield from _free(generator.elt, bound | {target.id})
        case ast.Call(func=ast.Name(), args=arguments):
            for argument in arguments:
                yield from _free(argument, bound)
        case ast.Call(func=ast.Attribute(), args=[resource, *_]):
            if isinstance(resource, ast.Subscript):
                yield from _free(resource.slice, bound)
        case ast.Attribute():
            return
        case _:
            for child in ast.iter_child_nodes(node):
                yield from _free(child, bound)


WorkerTerm = Callable[[ast.expr], Value | None]
"""Evaluates `w.…` terms for the worker at hand; None: the worker has no such variable."""
Counter = Callable[[ast.expr], int]


def evaluate(
    tree: ast.expr, names: Mapping[str, Value], worker: WorkerTerm | None = None, count: Counter | None = None
) -> Value:
    """The value of `tree`; a bare word that `names` lacks stands for itself.

    Raises ExpressionError where types don't fit, a division is by zero, or a number leaves MAX_INTEGER.
    """
    return _Evaluation(names, worker, count).value(tree)


@dataclass(frozen=True)
class _Evaluation:
    names: Mapping[str, Value]
    worker: WorkerTerm | None
    count: Counter | None

    def value(self, node: ast.expr) -> Value:
        result = self.term(node)
        if result is None:
            text = ast.unparse(node)
            raise ExpressionError(f"{text} can only be compared, as in {text} == 1: not every worker has it")
        return result

    def term(self, node: ast.expr) -> Value | None:
        """The value of `node`; None for a variable of a worker that has none of that name."""
        match node:
            case ast.Constant(value=bool() | int() | str() as constant):
                return constant
            case ast.Name(id=name):
                return self.names.get(name, _WORDS.get(name, name))
            case ast.BoolOp(op=op, values=values):
                wanted = isinstance(op, ast.Or)
                return next((wanted for item in values if self.truth(item) is wanted), not wanted)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return not self.truth(operand)
            case ast.UnaryOp(operand=operand):
                return -self.integer(operand)
            case ast.BinOp(left=left, right=right):
                return _arithmetic(node, self.integer(left), self.integer(right))
            case ast.Compare(left=left, ops=ops, comparators=comparators):
                return self.compare(left, ops, comparators)
            case ast.IfExp(test=test, body=body, orelse=orelse):
                return self.term(body) if self.truth(test) else self.term(orelse)
            case ast.Call(func=ast.Name(id="count"), args=[predicate]) if self.count is not None:
                return self.count(predicate)
            case _ if self.worker is not None:
                return self.worker(node)
        raise ExpressionError(f"{ast.unparse(node)} has no meaning here")

    def truth(self, node: ast.expr) -> bool:
        result = self.value(node)
        if not isinstance(result, bool):
            raise ExpressionError(not_a_truth(ast.unparse(node), result))
        return result

    def integer(self, node: ast.expr) -> int:
        return _whole(node, self.value(node))

    def compare(self, left: ast.expr, ops: Sequence[ast.cmpop], comparators: Sequence[ast.expr]) -> bool:
        # Each term is evaluated once, also where `a < b < c` compares it twice: else nesting would double the work at each level.
        mine = self.term(left)
        for op, right in zip(ops, comparators, strict=True):
            if isinstance(op, ast.In | ast.NotIn) and isinstance(right, ast.Tuple | ast.List):
                found = mine is not None and any(same(mine, self.value(item)) for item in right.elts)
                if mine is None or found is isinstance(op, ast.NotIn):
                    return False
                continue
            other = self.term(right)
            if mine is None or other is None:
                return False
            if isinstance(op, ast.Eq | ast.NotEq):
                if same(mine, other) is isinstance(op, ast.NotEq):
                    return False
            elif not _ordered(op, _whole(left, mine), _whole(right, other)):
                return False
            left, mine = right, other
        return True


def _whole(node: ast.expr, result: Value) -> int:
    if isinstance(result, bool) or not isinstance(result, int):
        message = (
            f"{ast.unparse(node)} is {quote(_text(result))}, not an integer; + - * // % < <= > >= are for integers"
        )
        raise ExpressionError(message)
    return result


def same(left: Value, right: Value) -> bool:
    """Equality without Python's conversion: 1 is not true."""
    return type(left) is type(right) and left == right


def _ordered(op: ast.cmpop, left: int, right: int) -> bool:
    match op:
        case ast.Lt():
            return left < right
        case ast.LtE():
            return left <= right
        case ast.Gt():
            return left > right
        case _:
            return left >= right


def _arithmetic(node: ast.BinOp, left: int, right: int) -> int:
    match node.op:
        case ast.Add():
            result = left + right
        case ast.Sub():
            result = left - right
        case ast.Mult():
            result = left * right
        case _:
            if right == 0:
                raise ExpressionError(f"{ast.unparse(node)} divides by zero; test for 0 before")
            result = left // right if isinstance(node.op, ast.FloorDiv) else left % right
    if abs(result) > MAX_INTEGER:
        raise ExpressionError(f"{ast.unparse(node)} grows too large; a number is at most {MAX_INTEGER:,}")
    return result


def truth(expression: Expression, names: Mapping[str, Value]) -> bool:
    """The value of a formula. Raises ExpressionError if it is not true or false."""
    result = evaluate(expression.tree, names)
    if not isinstance(result, bool):
        raise ExpressionError(not_a_truth(expression.text, result))
    return result


def not_a_truth(text: str, result: Value) -> str:
    """What is wrong with a formula that comes to `result`."""
    return f"{quote(text)} is {quote(_text(result))}, not true or false; compare it with something, as in … == {_text(result)}"


def _text(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def comparisons(tree: ast.expr) -> Iterator[tuple[ast.expr, Value]]:
    """Each (term, constant or bare word) that `tree` tests for equality: what a misspelt value is looked for in."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Compare):
            continue
        sides = [node.left, *node.comparators]
        for left, op, right in zip(sides, node.ops, sides[1:], strict=False):
            rights = right.elts if isinstance(right, ast.Tuple | ast.List) else [right]
            if not isinstance(op, ast.Eq | ast.NotEq | ast.In | ast.NotIn):
                continue
            for item in rights:
                for term, other in ((left, item), (item, left)):
                    if isinstance(other, ast.Constant) and isinstance(other.value, int | str):
                        yield term, other.value
                    elif isinstance(other, ast.Name):
                        yield term, _WORDS.get(other.id, other.id)
