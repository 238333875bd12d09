"""From a `Program` to a `System`: every distinct situation of a worker becomes a location, every move an edge.

The exploration is of one worker alone. What other workers do decides only whether an edge is enabled, never where it leads,
so the locations of one worker are all there is; the engines combine them.
"""

from __future__ import annotations

import gc
import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from lockmodel.config import Config, Move
from lockmodel.errors import TooLarge
from lockmodel.machine import Machine
from lockmodel.program import Program
from lockmodel.resolver import resolve
from lockmodel.silent import text_of
from lockmodel.spec import Spec
from lockmodel.system import ActionKind, Edge, Location, Resource, Role, Status, System

MAX_LOCATIONS = 50_000


def compile_spec(spec: Spec) -> System:
    """Compile `spec` (with its overrides applied). Raises SpecError for what has no meaning or is too large."""
    return compile_program(resolve(spec))


def compile_program(program: Program) -> System:
    """Expand `program` into locations and edges, breadth first from the idle location."""
    return Compilation(program).system


@dataclass(frozen=True)
class _Way:
    """What makes two moves out of one location the same edge, but for their guards."""

    action: ActionKind
    target: int
    requests: tuple[object, ...]
    update: tuple[int, ...] | None


class Compilation:
    """A compiled program, together with the machine that made it.

    `system` is the result; `machine` and `locate` let a trace be walked again with concrete values.
    With `only`, it knows only the ways on from these configs: enough to follow and to explain a trace, not to search. Raises SpecError, and
    TooLarge where there are too many places.
    """

    def __init__(self, program: Program, only: Iterable[Config] | None = None) -> None:
        self.program = program
        self.partial = only is not None
        self.machine = Machine(program, tuple(_resources(program)))
        self._numbers: dict[object, int] = {}
        self._configs: list[Config] = []
        idle = self._number(Config())
        edges: list[tuple[Edge, ...]] = []
        if only is not None:
            self.machine.lift_limit()
            for config in only:
                self._number(config)
        expanded = len(self._configs) if only is not None else MAX_LOCATIONS
        with _without_collection():
            while len(edges) < len(self._configs):
                here = self._configs[len(edges)]
                edges.append(tuple(self._edges(here)) if len(edges) < expanded else ())
        self.machine.lift_limit()
        locations = tuple(self._location(index, out) for index, out in enumerate(edges))
        assert idle == 0 and locations[0].status is Status.IDLE
        initial = tuple(program.initial[name] for name in self.machine.variables)
        self.system = System(
            name=program.name,
            resources=self.machine.resources,
            locations=locations,
            variables=self.machine.variables,
            valuations=self.machine.valuations,
            initial_valuation=_exact_index(self.machine.valuations, initial),
            roles=tuple(Role(role.name, role.count, role.transactions) for role in program.roles),
            properties=program.properties,
            no_global_stall=program.no_global_stall,
            no_stall=program.no_stall,
            sets=program.sets,
        )

    def locate(self, config: Config) -> int:
        """The index of the location that `config` belongs to."""
        return self._numbers[self.machine.key(config)]

    def config(self, location: int) -> Config:
        """A config that belongs to the location."""
        return self._configs[location]

    def _number(self, config: Config) -> int:
        key = self.machine.key(config)
        if key not in self._numbers:
            if len(self._configs) >= MAX_LOCATIONS:
                raise TooLarge(
                    config.transaction.position if config.transaction else self.program.position,
                    f"a worker can be at more than {MAX_LOCATIONS:,} different places; make a set smaller, or choose fewer "
                    "parameters",
                )
            self.machine.spend(2 * len(config.levels) + len(config.env) + 2 * len(config.held), config)
            self._numbers[key] = len(self._configs)
            self._configs.append(config)
        return self._numbers[key]

    def _edges(self, config: Config) -> Iterable[Edge]:
        """The moves out of `config`; those that differ only in when they are possible are one edge."""
        merged: dict[_Way, Edge] = {}
        for move in self.machine.moves(config):
            target = self._number(move.target)
            way = _Way(move.action, target, move.requests, move.update)
            merged[way] = _join(merged.get(way), self._edge(move, target))
        return merged.values()

    @staticmethod
    def _edge(move: Move, target: int) -> Edge:
        transaction = move.target.transaction if move.action is ActionKind.START else None
        return Edge(
            action=move.action,
            target=target,
            requests=move.requests,
            guard=move.guard,
            update=move.update,
            faults=move.faults,
            transaction=transaction.name if transaction else None,
            label=move.label,
            position=move.position,
        )

    def _location(self, index: int, edges: tuple[Edge, ...]) -> Location:
        config = self._configs[index]
        return Location(
            index=index,
            status=config.status,
            transaction=config.transaction.name if config.transaction else None,
            held=config.held,
            request=self.machine.request(config) if config.status is Status.RUNNING else None,
            edges=edges,
            local=self.machine.locals(config),
        )


@contextmanager
def _without_collection() -> Iterator[None]:
    """Keep Python from looking for garbage: all that is made here is kept, and the search would take half of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _join(first: Edge | None, second: Edge) -> Edge:
    if first is None or first.guard is None:
        return first or second
    guard = None if second.guard is None else first.guard | second.guard
    return Edge(
        first.action, first.target, first.requests, guard, first.update, {**first.faults, **second.faults},
        first.transaction, first.label, first.position,
    )  # fmt: skip


def _resources(program: Program) -> Iterable[Resource]:
    for family in program.families.values():
        for arguments in itertools.product(*(program.sets[name] for name in family.per)):
            name = f"{family.name}[{', '.join(map(text_of, arguments))}]" if arguments else family.name
            yield Resource(name, family.name, arguments, family.kind, family.capacity, family.session)


def _exact_index(valuations: tuple[tuple[object, ...], ...], wanted: tuple[object, ...]) -> int:
    """Where `wanted` stands in `valuations`, with 1 and true told apart."""

    def exact(values: tuple[object, ...]) -> list[tuple[type, object]]:
        return [(type(value), value) for value in values]

    return next(index for index, values in enumerate(valuations) if exact(values) == exact(wanted))
