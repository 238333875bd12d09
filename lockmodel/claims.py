"""What a spec claims of its model: the formulas under `never` and `always`, and under `expect` what a check must find.

Raises SpecError for a claim about something that the spec does not have.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable

from lockmodel.declarations import check_identifier
from lockmodel.document import Node
from lockmodel.errors import Position, SpecError, quote, suggestion
from lockmodel.expectations import DeadlockExpected, StallExpectation, StallExpected, ViolationExpected
from lockmodel.expressions import WORKER_FIELDS, Expression, ExpressionError, parse
from lockmodel.fields import Formula
from lockmodel.lookup import Lookup, Scope
from lockmodel.program import Reference
from lockmodel.spec import Spec
from lockmodel.system import NO_DEADLOCK, NO_GLOBAL_STALL, NO_STALL, Property

_WORKER_CALLS = ("holds", "waits_for")

# Formulas


def resolve_properties(lookup: Lookup) -> tuple[Property, ...]:
    """The properties that the spec adds to the built-in ones."""
    spec = lookup.declared.spec
    properties = tuple(
        _property(lookup, name, text, always)
        for always, formulas in ((False, spec.never), (True, spec.always))
        for name, text in formulas.items()
    )
    for name in set(spec.never) & set(spec.always):
        raise SpecError(spec.at("always", name), f"{quote(name)} names a formula in never and in always; rename one")
    return properties


def observed_locals(properties: Iterable[Property]) -> frozenset[str]:
    """The parameters and local variables of workers that `properties` look at."""
    return frozenset(
        node.attr
        for prop in properties
        for node in ast.walk(prop.expression.tree)
        if isinstance(node, ast.Attribute) and node.attr not in (*WORKER_FIELDS, *_WORKER_CALLS)
    )


def _property(lookup: Lookup, name: str, text: Formula, always: bool) -> Property:
    declared, spec = lookup.declared, lookup.declared.spec
    position = spec.at("always" if always else "never", name)
    if name in (NO_DEADLOCK, NO_GLOBAL_STALL, NO_STALL):
        raise SpecError(position, f"{quote(name)} is the name of a built-in property; choose another")
    ranges = _ranges(text)
    for parameter, set_name in ranges.items():
        if set_name not in declared.sets:
            raise SpecError(position, f"unknown set {quote(set_name)}; {suggestion(set_name, declared.sets)}")
        check_identifier(parameter, "parameter", position)
        if parameter in declared.variables:
            message = f"{quote(parameter)} is already the name of a variable; call the parameter something else"
            raise SpecError(position, message)
    scope = Scope(ranges, frozenset(), frozenset(), "")
    expression = lookup.expression(text, scope, position, workers=True)
    lets = {name for transaction in spec.transactions.values() for name in (*transaction.choose, *transaction.let)}
    for node in ast.walk(expression.tree):
        if isinstance(node, ast.Attribute) and node.attr not in (*WORKER_FIELDS, *_WORKER_CALLS, *lets):
            hint = suggestion(node.attr, [*WORKER_FIELDS, *sorted(lets), *_WORKER_CALLS])
            raise SpecError(position, f"a worker has no {quote(node.attr)}; {hint}")
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            _check_worker_call(lookup, node, scope, position)
    unbound = Expression(expression.text, expression.tree, expression.names - set(ranges))
    return Property(name, always, unbound, position)


def _ranges(text: Formula) -> dict[str, str]:
    """The names that `any` and `all` bind in `text`, with the sets they range over."""
    try:
        tree = parse(text, about_workers=True).tree
    except ExpressionError:
        return {}
    return {
        node.target.id: node.iter.id
        for node in ast.walk(tree)
        if isinstance(node, ast.comprehension) and isinstance(node.target, ast.Name) and isinstance(node.iter, ast.Name)
    }


def _check_worker_call(lookup: Lookup, node: ast.Call, scope: Scope, position: Position) -> None:
    """Check the resource and the mode in `w.holds(…)` or `w.waits_for(…)`."""
    families = lookup.declared.families
    target = node.args[0]
    text = ast.unparse(target)
    if isinstance(target, ast.Name):
        if target.id not in families:
            raise SpecError(position, f"unknown resource {quote(text)}; {suggestion(text, families)}")
        reference = Reference(target.id, (), text, position)
    else:
        reference = lookup.reference(text.replace("(", "").replace(")", ""), scope, position)
    if len(node.args) == 2 and isinstance(node.args[1], ast.Constant):
        mode = str(node.args[1].value)
        kind = families[reference.family].kind
        if mode not in kind.modes:
            hint = suggestion(mode, kind.modes)
            raise SpecError(position, f"unknown mode {quote(mode)} for {kind.name} {reference.family}; {hint}")


# The expectation


def check_expectation(spec: Spec) -> None:
    """Refuse an expectation that no check of `spec` could meet, because it asks for something else or names what there is not."""
    match spec.expect:
        case "global stall":
            if not spec.no_global_stall:
                raise SpecError(spec.at("expect"), "to expect a global stall, ask for it: `no global stall: true`")
        case "stall" | "convoy" | StallExpected():
            if not spec.no_stall:
                raise SpecError(spec.at("expect"), "to expect a stall, ask for it: `no stall: true`")
            if isinstance(spec.expect, StallExpected):
                _check_stall(spec, spec.expect.shape)
        case ViolationExpected() as expected:
            names = [*spec.never, *spec.always]
            if expected.violated not in names:
                hint = suggestion(expected.violated, names)
                message = f"no never or always is called {quote(expected.violated)}; {hint}"
                raise SpecError(expected.at("violated"), message)
        case DeadlockExpected(deadlock=shape):
            _check_known(shape, "between", shape.between, "transaction", spec.transactions)
            _check_known(shape, "on", shape.on, "resource", spec.resources)


def _check_stall(spec: Spec, shape: StallExpectation) -> None:
    for key, name in (("holder", shape.holder), ("waiter", shape.waiter)):
        if name is not None and name not in spec.transactions:
            hint = suggestion(name, spec.transactions)
            raise SpecError(shape.at(key), f"unknown transaction {quote(name)}; {hint}")
    _check_known(shape, "delayed", shape.delayed, "transaction", spec.transactions)
    if shape.on is not None and shape.on not in spec.resources:
        hint = suggestion(shape.on, spec.resources)
        raise SpecError(shape.at("on"), f"unknown resource {quote(shape.on)}; {hint}")


def _check_known(node: Node, key: str, names: list[str] | None, what: str, known: Iterable[str]) -> None:
    for index, name in enumerate(names or ()):
        if name not in known:
            raise SpecError(node.at(key, index), f"unknown {what} {quote(name)}; {suggestion(name, known)}")
