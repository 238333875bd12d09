"""Evaluates `never` and `always` formulas in a global state.

`any` and `all` are first unrolled over their sets, so that what is left are `count(…)` terms without parameters. What a worker adds to
each count depends only on its role, its location, the shared variables and (for `waits_for`) whether it waits: that is
computed once for each combination and remembered, and so is the formula's value for each vector of counts.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from typing import Any

from lockmodel.errors import Position, SpecError
from lockmodel.expressions import ExpressionError, Value, evaluate, not_a_truth
from lockmodel.semantics import Semantics, State
from lockmodel.system import NO_DEADLOCK, NO_GLOBAL_STALL, NO_STALL, Location, Property, System

MAX_NODES = 50_000
MAX_REMEMBERED = 4_000_000
"""Numbers that the two tables of an evaluator may hold, some 8 bytes each; what does not fit is computed again."""


class Evaluator:
    """Decides `prop` in the states of `semantics`. Raises SpecError where the formula has no meaning."""

    def __init__(self, semantics: Semantics, prop: Property) -> None:
        self.semantics = semantics
        self.property = prop
        self._system: System = semantics.system
        self._tree = _unroll(prop.expression.tree, self._system.sets, self._position, [0])
        self._counts = [node for node in ast.walk(self._tree) if _is_count(node)]
        self._index = {id(node): index for index, node in enumerate(self._counts)}
        self.needs_waiting = any(
            isinstance(node, ast.Attribute) and node.attr == "waits_for" for node in ast.walk(self._tree)
        )
        self._shared = [dict(zip(self._system.variables, values, strict=True)) for values in self._system.valuations]
        self._families: dict[str, frozenset[int]] = {}
        self._resources: dict[object, int] = {}
        for number, resource in enumerate(self._system.resources):
            self._resources[resource.family, _exact(resource.arguments)] = number
        self._remembered = 0
        self._vectors: dict[tuple[str, int, int, bool], tuple[int, ...]] = {}
        self._values: dict[tuple[int, tuple[int, ...]], bool] = {}

    @property
    def size(self) -> int:
        """How many `count(…)` terms there are: the length of a vector."""
        return len(self._counts)

    @property
    def tree(self) -> ast.expr:
        """The formula, with `any` and `all` written out; `counts` are nodes of it."""
        return self._tree

    @property
    def counts(self) -> tuple[ast.expr, ...]:
        """The `count(…)` terms, in the order of a vector."""
        return tuple(node for node in self._counts if isinstance(node, ast.expr))

    @property
    def _position(self) -> Position:
        return self.property.position or Position(self._system.name)

    def violated(self, state: State, waiting: Mapping[int, list[int]]) -> bool:
        """Whether `state` violates the property; `waiting` as `Semantics.waiting` gives it."""
        totals = [0] * len(self._counts)
        for worker, location in enumerate(state.locations):
            vector = self.vector(self.semantics.crew.roles[worker], location, state.valuation, worker in waiting)
            for index, truth in enumerate(vector):
                totals[index] += truth
        return self.broken(state.valuation, tuple(totals))

    def broken(self, valuation: int, totals: tuple[int, ...]) -> bool:
        """Whether a state with these counts (the sum of all workers' vectors) violates the property."""
        key = (valuation, totals)
        value = self._values.get(key)
        if value is None:
            value = self._value(*key)
            if self._room_for(len(totals)):
                self._values[key] = value
        return value is not self.property.always

    def _room_for(self, numbers: int) -> bool:
        self._remembered += numbers
        return self._remembered <= MAX_REMEMBERED

    def _value(self, valuation: int, totals: tuple[int, ...]) -> bool:
        def count(predicate: ast.expr) -> int:
            return totals[self._index[self._owner[id(predicate)]]]

        self._owner = {id(node.args[0]): id(node) for node in self._counts if isinstance(node, ast.Call)}
        return self._truth(self._tree, valuation, count=count)

    def vector(self, role: str, location: int, valuation: int, waits: bool) -> tuple[int, ...]:
        """What a worker of `role` at `location` adds to each `count(…)` of the formula: 0 or 1."""
        key = (role, location, valuation, waits and self.needs_waiting)
        if key in self._vectors:
            return self._vectors[key]
        here = self._system.locations[location]

        def worker(node: ast.expr) -> Value | None:
            return self._worker_term(node, here, role, waits, valuation)

        vector = tuple(
            int(self._truth(node.args[0], valuation, worker=worker))
            for node in self._counts
            if isinstance(node, ast.Call)
        )
        if self._room_for(len(vector)):
            self._vectors[key] = vector
        return vector

    def _truth(self, tree: ast.expr, valuation: int, **terms: object) -> bool:
        try:
            result = evaluate(tree, self._shared[valuation], **terms)  # type: ignore[arg-type]  # The names of terms are made here.
        except ExpressionError as error:
            raise SpecError(self._position, str(error)) from None
        if not isinstance(result, bool):
            raise SpecError(self._position, not_a_truth(ast.unparse(tree), result))
        return result

    def _worker_term(self, node: ast.expr, location: Location, role: str, waits: bool, valuation: int) -> Value | None:
        match node:
            case ast.Attribute(attr="transaction"):
                return location.transaction
            case ast.Attribute(attr="role"):
                return role
            case ast.Attribute(attr="status"):
                return str(location.status)
            case ast.Attribute(attr=name):
                return location.local.get(name)
            case ast.Call(func=ast.Attribute(attr="holds"), args=[target, *mode]):
                wanted = self._targets(target, valuation)
                return any(hold.resource in wanted and self._mode_fits(mode, hold.mode) for hold in location.held)
            case ast.Call(func=ast.Attribute(attr="waits_for"), args=[target, *mode]):
                request = location.request
                return (
                    waits
                    and request is not None
                    and request.resource in self._targets(target, valuation)
                    and self._mode_fits(mode, request.mode)
                )
        raise ExpressionError(f"{ast.unparse(node)} has no meaning here")

    @staticmethod
    def _mode_fits(wanted: list[ast.expr], mode: str) -> bool:
        return not wanted or (isinstance(wanted[0], ast.Constant) and wanted[0].value == mode)

    def _targets(self, target: ast.expr, valuation: int) -> frozenset[int]:
        """The resources that `lane` (all of the family) or `lane[0]` means."""
        match target:
            case ast.Name(id=family):
                if family not in self._families:
                    members = (i for i, r in enumerate(self._system.resources) if r.family == family)
                    self._families[family] = frozenset(members)
                return self._families[family]
            case ast.Subscript(value=ast.Name(id=family), slice=inside):
                parts = inside.elts if isinstance(inside, ast.Tuple) else [inside]
                arguments = [evaluate(part, self._shared[valuation]) for part in parts]
                resource = self._resources.get((family, _exact(arguments)))
                return frozenset() if resource is None else frozenset((resource,))
        raise ExpressionError(f"{ast.unparse(target)} is not a resource")


def _exact(values: Iterable[Value]) -> tuple[tuple[type, Value], ...]:
    """`values` as a key that tells 1 from true."""
    return tuple((type(value), value) for value in values)


def _is_count(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "count"


def _unroll(tree: ast.expr, sets: Mapping[str, tuple[Value, ...]], position: Position, size: list[int]) -> ast.expr:
    """`tree` with every `any` and `all` written out over its set."""

    class Unroll(ast.NodeTransformer):
        def __init__(self, bound: Mapping[str, Value]) -> None:
            self.bound = bound

        def visit(self, node: ast.AST) -> Any:
            size[0] += 1
            if size[0] > MAX_NODES:
                message = f"the formula has more than {MAX_NODES:,} terms, with any(…) and all(…) written out; make a set smaller"
                raise SpecError(position, message)
            return super().visit(node)

        def visit_Name(self, node: ast.Name) -> ast.expr:
            return ast.Constant(self.bound[node.id]) if node.id in self.bound else ast.Name(node.id, ast.Load())

        def visit_Call(self, node: ast.Call) -> ast.AST:
            match node:
                case ast.Call(func=ast.Name(id=word), args=[ast.GeneratorExp(elt=body, generators=[generator])]):
                    assert isinstance(generator.target, ast.Name) and isinstance(generator.iter, ast.Name)
                    name, elements = generator.target.id, sets[generator.iter.id]
                    copies = [Unroll({**self.bound, name: element}).visit(_copy(body)) for element in elements]
                    operator = ast.Or() if word == "any" else ast.And()
                    return copies[0] if len(copies) == 1 else ast.BoolOp(operator, copies)
                case ast.Call(func=ast.Attribute(), args=[ast.Name(), *_]):
                    # The name of a resource family, which no parameter hides.
                    return node
                case ast.Call(func=ast.Attribute(), args=[ast.Subscript() as target, *mode]):
                    inside = self.visit(_copy(target.slice))
                    return ast.Call(node.func, [ast.Subscript(target.value, inside, ast.Load()), *mode], [])
            return self.generic_visit(node)

    unrolled = Unroll({}).visit(_copy(tree))
    assert isinstance(unrolled, ast.expr)
    return unrolled


def _copy(tree: ast.expr) -> ast.expr:
    return ast.parse(ast.unparse(tree), mode="eval").body


def broken_property(semantics: Semantics, properties: Iterable[Evaluator], state: State) -> str | None:
    """The name of the first property that `state` violates: a deadlock comes first, then stalls, then the formulas."""
    waiting = semantics.waiting(state)
    if waiting and semantics.stuck(state, waiting):
        return NO_DEADLOCK
    if semantics.system.no_global_stall and semantics.stalled(state, waiting):
        return NO_GLOBAL_STALL
    if semantics.system.no_stall and semantics.delayed(state):
        return NO_STALL
    return next((one.property.name for one in properties if one.violated(state, waiting)), None)


def evaluators(semantics: Semantics) -> list[Evaluator]:
    """One evaluator for each property of the system."""
    return [Evaluator(semantics, prop) for prop in semantics.system.properties]
