"""The words of a step or a formula, looked up: modes, mentions of resources, expressions, templates.

Each function raises SpecError with the line of the word and what could have been meant.
"""

from __future__ import annotations

import ast
import copy
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from lockmodel.declarations import Declarations, check_identifier, texts
from lockmodel.document import Node
from lockmodel.errors import Position, SpecError, quote, suggestion
from lockmodel.expressions import MAX_LENGTH, Expression, ExpressionError, Value, comparisons, parse, same
from lockmodel.fields import Formula
from lockmodel.modes import Wait, parse_mode
from lockmodel.program import Names, Reference
from lockmodel.statements import SqlStep
from lockmodel.steps import LockStep, ReleaseStep
from lockmodel.system import Status
from lockmodel.templates import template_names

_REFERENCE = re.compile(r"([^\W\d]\w*)\s*(?:\[(.*)\])?", re.DOTALL)
_ELEMENT = re.compile(r"[\w#.-]*")
_NOT_CODE = re.compile(r"""--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'|"(?:[^"]|"")*"|(\$\w*\$).*?\1""", re.DOTALL)
"""What stands in SQL besides its words: comments, texts, names in quotes, bodies of functions."""
_ENDS_TRANSACTION = re.compile(
    r"\s*(begin|start\s+transaction|commit|end|abort|prepare\s+transaction|rollback\s+to|rollback)\b", re.IGNORECASE
)


@dataclass(frozen=True)
class Scope:
    """What names mean inside a transaction: parameters (with the set they range over) and local variables."""

    parameters: Mapping[str, str]
    locals: Names
    savepoints: Names
    transaction: str
    sql: str | None = None
    """The statement of the `for` around, which takes all the locks inside."""
    block: bool = True
    """Whether the transaction is a transaction block."""
    timeout_ms: float = 0
    """Its lock_timeout; 0: none."""
    bindings: Mapping[str, Expression] = field(default_factory=dict)
    """What names stand for that the transaction does not have: those of a relation's rows, in its foreign keys and triggers."""

    @property
    def names(self) -> Names:
        return frozenset(self.parameters) | self.locals

    def bind(self, parameters: Mapping[str, str]) -> Scope:
        return replace(self, parameters={**self.parameters, **parameters})


class Lookup:
    """Looks words up in `declared`."""

    def __init__(self, declared: Declarations) -> None:
        self.declared = declared
        self.sets = declared.sets
        self.variables = declared.variables
        self.families = declared.families
        self._members = {name: {(type(value), value) for value in values} for name, values in self.sets.items()}
        self._elements = {name: _by_text(values) for name, values in self.sets.items()}

    def bind(self, scope: Scope, names: Mapping[str, str], node: Node, key: str) -> Scope:
        for parameter, set_name in names.items():
            position = node.at(key, parameter)
            check_identifier(parameter, "parameter", position)
            if parameter in scope.names or parameter in self.variables:
                raise SpecError(
                    position, f"{quote(parameter)} is already a name here; call the parameter something else"
                )
            if set_name not in self.sets:
                raise SpecError(position, f"unknown set {quote(set_name)}; {suggestion(set_name, self.sets)}")
        return scope.bind(names)

    def mode(self, text: str, reference: Reference, position: Position) -> tuple[str, Wait]:
        kind = self.families[reference.family].kind
        parsed = parse_mode(kind, text)
        if parsed is None:
            hint = suggestion(text, kind.modes)
            if kind.waits:
                hint += f" (with {' or '.join(kind.waits)})"
            raise SpecError(position, f"unknown mode {quote(text)} for {kind.name} {reference.family}; {hint}")
        return parsed

    def reference(self, text: str, scope: Scope, position: Position) -> Reference:
        if len(text) > MAX_LENGTH:
            raise SpecError(position, f"{quote(text)}: a resource has at most {MAX_LENGTH:,} characters")
        match = _REFERENCE.fullmatch(text.strip())
        name = match.group(1) if match else text
        if not match or name not in self.families:
            raise SpecError(position, f"unknown resource {quote(name)}; {suggestion(name, self.families)}")
        family = self.families[name]
        inside = match.group(2)
        parts = _split(inside) if inside is not None else []
        if len(parts) != len(family.per):
            count = "no argument" if not parts else "1 argument" if len(parts) == 1 else f"{len(parts)} arguments"
            raise SpecError(position, f"{quote(text)} has {count}; {self._shape(name, family.per)}")
        arguments = tuple(
            self.argument(part, set_name, scope, position) for part, set_name in zip(parts, family.per, strict=True)
        )
        shown = " ".join(text.split())
        if scope.bindings and arguments:
            shown = f"{name}[{', '.join(argument.text for argument in arguments)}]"
        return Reference(name, arguments, shown, position)

    def table_of(self, row: Reference) -> Reference | None:
        """The table that `row` lives in, if its resource names one."""
        family = self.families[row.family]
        if family.table is None:
            return None
        arguments = tuple(row.arguments[family.per.index(name)] for name in self.families[family.table].per)
        return Reference(family.table, arguments, family.table, row.position)

    def _shape(self, name: str, per: Sequence[str]) -> str:
        """How a resource is mentioned: `it takes 1, an element of stripe or a parameter over it: lane[0]`."""
        if not per:
            return f"it takes none, write {name}"
        example = f"{name}[{', '.join(texts([self.sets[one][0]])[0] for one in per)}]"
        what = "a parameter over it" if len(per) == 1 else "parameters over them"
        return f"it takes {len(per)}, an element of {' and one of '.join(per)} or {what}: {example}"

    def argument(self, text: str, set_name: str, scope: Scope, position: Position) -> Expression:
        """What `text` means as an element of `set_name`."""
        return substitute(self._argument(text, set_name, scope, position), scope.bindings)

    def _argument(self, text: str, set_name: str, scope: Scope, position: Position) -> Expression:
        elements = self.sets[set_name]
        if text in scope.parameters:
            source = scope.parameters[text]
            if not self._members[source] <= self._members[set_name]:
                value = next(v for v in self.sets[source] if (type(v), v) not in self._members[set_name])
                message = f"{text} ranges over {source}, whose {quote(value)} is not in {set_name}; {suggestion(str(value), texts(elements))}"
                raise SpecError(position, message)
            return Expression(text, ast.Name(text), frozenset((text,)))
        if text in self._elements[set_name] and text not in scope.locals:
            return Expression(text, ast.Constant(self._elements[set_name][text]), frozenset())
        expression = None
        try:
            expression = parse(text)
        except ExpressionError as error:
            if not _ELEMENT.fullmatch(text):
                raise SpecError(position, f"{quote(text)} is no argument for set {set_name}: {error}") from None
        if expression is None or expression.names - scope.names or not expression.names:
            hint = suggestion(text, [*sorted(scope.names), *texts(elements)])
            if len(text) > 2 and text[0] == text[-1] and text[0] in "'\"" and text[1:-1] in texts(elements):
                hint = f"{text[1:-1]} is a number there; write it without quotes"
            said = text if text[:1] in ("'", '"') else quote(text)
            raise SpecError(position, f"{said} is no parameter here and not in set {set_name}; {hint}")
        return expression

    def assigned(
        self, target: str, text: Formula, scope: Scope, position: Position, *, shared_only: bool = False
    ) -> Expression:
        targets = [*self.variables] if shared_only else [*self.variables, *sorted(scope.locals)]
        if target not in targets:
            if target in scope.parameters:
                message = f"{quote(target)} is a parameter, which never changes; declare a local variable under `let`"
                raise SpecError(position, message)
            what = "shared variable" if shared_only else "variable"
            hint = suggestion(target, targets) if targets else "declare it under `variables`"
            raise SpecError(position, f"unknown {what} {quote(target)}; {hint}")
        values = self.variables.get(target)
        if values is not None and isinstance(text, str) and text in values:
            if text not in scope.names and text not in self.variables:
                return Expression(text, ast.Constant(text), frozenset())
        expression = self.expression(text, scope, position)
        constant = expression.tree
        if values is not None and isinstance(constant, ast.Constant):
            if not any(same(constant.value, value) for value in values):  # type: ignore[arg-type]  # The parser makes no other constants.
                hint = suggestion(str(constant.value), texts(values))
                raise SpecError(position, f"{quote(constant.value)} is not a value of variable {target}; {hint}")
        return expression

    def expression(self, text: Formula, scope: Scope, position: Position, *, workers: bool = False) -> Expression:
        try:
            expression = parse(text, about_workers=workers)
        except ExpressionError as error:
            raise SpecError(position, str(error)) from None
        names = scope.names | set(self.variables)
        for name in sorted(expression.names - names - self.declared.words):
            hint = suggestion(name, [*sorted(names), *sorted(self.declared.words - {"true", "false"})])
            where = f" in {quote(expression.text)}" if expression.text != name else ""
            raise SpecError(position, f"unknown name {quote(name)}{where}; {hint}")
        self._check_compared(expression, scope, position)
        bound = frozenset(expression.names & names)
        return substitute(Expression(expression.text, expression.tree, bound), scope.bindings)

    def _check_compared(self, expression: Expression, scope: Scope, position: Position) -> None:
        """A comparison with a value that can't occur is a misspelling, and silently always false."""
        for term, constant in comparisons(expression.tree):
            values: Iterable[Value] | None = None
            if isinstance(constant, str) and (constant in scope.names or constant in self.variables):
                continue
            match term:
                case ast.Attribute(attr="transaction"):
                    values = tuple(self.declared.spec.transactions)
                case ast.Attribute(attr="role"):
                    values = tuple(self.declared.spec.roles) or ("worker",)
                case ast.Attribute(attr="status"):
                    values = tuple(str(status) for status in Status)
                case ast.Name(id=name) if name in scope.parameters:
                    set_name = scope.parameters[name]
                    values = None if (type(constant), constant) in self._members[set_name] else self.sets[set_name]
                case ast.Name(id=name) if name in self.variables and name not in scope.locals:
                    values = self.variables[name]
            if values is not None and not any(same(constant, value) for value in values):
                what = ast.unparse(term)
                raise SpecError(position, f"{what} is never {_shown(constant)}; {_other_value(constant, values)}")

    def check_texts(self, step: LockStep | ReleaseStep | SqlStep, scope: Scope) -> None:
        """Check the `sql` and the `label` of `step`."""
        self.check_template(step.sql, scope, step, "sql")
        self.check_template(step.label, scope, step, "label")
        self.check_sql(step.sql, step, "sql")

    @staticmethod
    def check_own_sql(step: Node, scope: Scope, key: str = "sql") -> None:
        """Refuse the SQL of a step inside a statement."""
        if scope.sql is not None:
            message = (
                "the sql of the `for` or `statement` around takes all the locks inside, this one too; drop one of them"
            )
            raise SpecError(step.at(key), message)

    @staticmethod
    def check_sql(sql: str | None, node: Node, key: str) -> None:
        """Refuse SQL that begins or ends the transaction, which is for steps to say."""
        for number, part in enumerate(_NOT_CODE.sub(" ", sql or "").split(";")):
            match = _ENDS_TRANSACTION.match(part)
            # An END further on can be that of a function's body.
            if match is None or (number and match[1].lower() == "end"):
                continue
            words = " ".join(match[1].upper().split())
            instead = {
                "BEGIN": "drop it, a replay begins each transaction itself",
                "START TRANSACTION": "drop it, a replay begins each transaction itself",
                "ROLLBACK TO": "write `rollback to: NAME` as a step of its own",
                "ROLLBACK": "write `rollback` as a step of its own",
                "ABORT": "write `rollback` as a step of its own",
            }.get(words, "write `commit` as a step of its own, or let the steps end here")
            raise SpecError(node.at(key), f"the {key} of a step can't be {words}; {instead}")

    def check_template(
        self, template: str | None, scope: Scope, node: Node, key: str, not_yet: Iterable[str] = ()
    ) -> None:
        """Check the names in the braces of `template`. Those in `not_yet` have no value there, for it stands for all of them."""
        if template is None:
            return
        try:
            used = set(template_names(template))
        except ValueError as error:
            raise SpecError(node.at(key), f"{error}; write {{{{ and }}}} for braces of the text itself") from None
        for name in sorted(used - scope.names):
            if name in not_yet:
                message = (
                    f"{{{name}}} has no value in the {key} of its `for`: one statement takes all the locks; drop it"
                )
                raise SpecError(node.at(key), message)
            hint = suggestion(name, sorted(scope.names))
            raise SpecError(node.at(key), f"unknown name {quote(name)} in the braces of {key}; {hint}")


class _Substitution(ast.NodeTransformer):
    def __init__(self, bindings: Mapping[str, Expression]) -> None:
        self.bindings = bindings

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self.bindings[node.id].tree if node.id in self.bindings else node


def substitute(expression: Expression, bindings: Mapping[str, Expression]) -> Expression:
    """`expression` with what its names stand for in their place."""
    bound = expression.names & frozenset(bindings)
    if not bound:
        return expression
    names = (expression.names - bound).union(*(bindings[name].names for name in bound))
    if isinstance(expression.tree, ast.Name):
        return bindings[expression.tree.id]
    tree = _Substitution(bindings).visit(copy.deepcopy(expression.tree))
    return Expression(ast.unparse(tree), tree, names)


def _shown(value: Value) -> str:
    """`value` as a formula has it: a word in quotes, a number without."""
    return quote(value) if isinstance(value, str) else texts([value])[0]


def _other_value(value: Value, values: Iterable[Value]) -> str:
    """What could have been meant by `value`, which is none of `values`."""
    same_text = next((other for other in values if texts([other]) == texts([value])), None)
    if same_text is None:
        return suggestion(str(value), texts(values))
    if isinstance(value, str):
        return f"its values are written without quotes: {_shown(same_text)}"
    return f"its values are words, in quotes: {_shown(same_text)}"


def _by_text(values: Iterable[Value]) -> dict[str, Value]:
    """Each element by the words that mean it: as it is, and in quotes."""
    words = {}
    for value, text in zip(values, texts(values), strict=True):
        words[text] = value
        if isinstance(value, str):
            words[f"'{text}'"] = words[f'"{text}"'] = value
    return words


def _split(text: str) -> list[str]:
    """The arguments in `text`, which commas separate outside of parentheses and quotes."""
    parts, depth, quoted = [""], 0, ""
    for char in text:
        if quoted:
            quoted = "" if char == quoted else quoted
        elif char in "'\"":
            quoted = char
        depth += (char in "([") - (char in ")]")
        if char == "," and depth == 0 and not quoted:
            parts.append("")
        else:
            parts[-1] += char
    return [part.strip() for part in parts]
