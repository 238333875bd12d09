"""What a Promela model has names for: locks and pools, what can be waited for, variables with their values, and the sets of workers that
formulas look at.

Only what matters gets one: a lock that is never in anybody's way is not in the model.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from lockmodel.export.formulas import Tally, formula
from lockmodel.export.names import Identifiers
from lockmodel.expressions import Value
from lockmodel.places import Places, places_of
from lockmodel.properties import evaluators
from lockmodel.semantics import Crew, Semantics
from lockmodel.system import Request, System

_KEYWORDS = (
    "active assert atomic bit bool break byte chan c_code c_decl c_expr c_state c_track d_step do else empty enabled eval false fi for "
    "full get_priority goto hidden if in init inline int len local ltl mtype nempty never nfull notrace np_ od of pc_value pid printf "
    "priority proctype provided run select set_priority short show skip timeout trace true typedef unless unsigned xr xs me N COUNT "
    "LOCK TAKE DROP FREE ONLY_MINE POOL TAKE_UNIT DROP_UNIT WANT JOIN LEAVE MOVE TALLY want blockers waiting running stuck before w "
    "SET WATCH ONLY_MINE USED _pid _last _nr_pr _priority"
)
"""Promela's own words, and those that the model has besides its names."""


class Names:
    """The names in the model of `system` with the workers in `crew`. Raises UsageError for a formula that can't be said."""

    def __init__(self, system: System, crew: Crew) -> None:
        self.system, self.crew = system, crew
        semantics = Semantics(system, crew)
        self.formulas = [formula(semantics, evaluator) for evaluator in evaluators(semantics)]
        self.roles: dict[str, Places] = dict(zip(crew.roles, places_of(system, crew), strict=True))
        self._identifiers = Identifiers(_KEYWORDS.split())
        self._asked = self._requests()
        self.locks = self._locks()
        self.pools = self._pools()
        self.wants = {
            request: (number, self._identifiers.new(f"want {self.text(request)}"))
            for number, request in enumerate(self._waiting_requests(), start=2)
        }
        self.variables = [self._identifiers.new(name) for name in system.variables]
        self.values = [self._values(index) for index in range(len(system.variables))]
        self.tallies = [
            [self._identifiers.new(f"tally {number} of {one.name}") for number in range(3 * len(one.tallies))]
            for one in self.formulas
        ]
        self.tally_places = self._tally_places()
        self.proctypes = {
            role: self._identifiers.new(role if role == "worker" else f"{role} worker") for role in self.roles
        }

    def _requests(self) -> list[Request]:
        """All that is requested anywhere, each once."""
        edges = [item.edge for places in self.roles.values() for out in places.out for item in out]
        return list(dict.fromkeys(Request(r.resource, r.mode) for edge in edges for r in edge.requests))

    def _waiting_requests(self) -> Iterable[Request]:
        here = [location for places in self.roles.values() for location in places.all()]
        return dict.fromkeys(Request(w.request.resource, w.request.mode) for w in here if w.request and w.waits)

    def _locks(self) -> dict[tuple[int, str], tuple[str, int]]:
        """For each lock that is ever held and ever in somebody's way: its name, and the bits that count its holders."""
        holds = {hold for places in self.roles.values() for here in places.all() for hold in here.held}
        found = {}
        for hold in sorted(holds, key=lambda hold: (hold.resource, hold.mode)):
            resource = self.system.resources[hold.resource]
            if resource.capacity is None and any(self.system.conflicts(hold, request) for request in self._asked):
                alone = resource.kind.conflict(hold.mode, hold.mode)
                name = self._identifiers.new(f"{resource.name} {hold.mode}")
                found[hold.resource, hold.mode] = (name, 1 if alone else len(self.crew).bit_length())
        return found

    def _pools(self) -> dict[int, tuple[str, str]]:
        """For each pool that is used: its name, and that of the number of units taken."""
        used = dict.fromkeys(r.resource for r in self._asked if self.system.resources[r.resource].capacity is not None)
        names = {index: self.system.resources[index].name for index in used}
        return {
            index: (self._identifiers.new(name), self._identifiers.new(f"used {name}")) for index, name in names.items()
        }

    def _values(self, index: int) -> dict[tuple[type, Value], str]:
        domain = dict.fromkeys((type(values[index]), values[index]) for values in self.system.valuations)
        return {key: self._identifiers.new(f"{self.system.variables[index]} {key[1]}") for key in domain}

    def _tally_places(self) -> dict[tuple[str, int], list[str]]:
        found: dict[tuple[str, int], list[str]] = defaultdict(list)
        for one, names in zip(self.formulas, self.tallies, strict=True):
            for name, places in zip(names, (p for tally in one.tallies for p in _parts(tally)), strict=True):
                for place in sorted(places):
                    found[place].append(name)
        return found

    def text(self, request: Request) -> str:
        return f"{self.system.resources[request.resource].name} {request.mode}"

    def against(self, request: Request) -> Iterator[tuple[tuple[int, str], str]]:
        """The locks that are in the way of `request`."""
        kind = self.system.resources[request.resource].kind
        for (resource, mode), (name, _) in self.locks.items():
            if resource == request.resource and kind.conflict(mode, request.mode):
                yield (resource, mode), name

    def condition(self, valuations: frozenset[int]) -> str:
        """That the shared variables have one of `valuations`, by those of them that matter."""
        keys = [tuple((type(value), value) for value in values) for values in self.system.valuations]
        inside = {keys[v] for v in valuations}
        relevant = list(range(len(self.variables)))
        for index in range(len(self.variables)):
            rest = [other for other in relevant if other != index]
            projected = {tuple(key[i] for i in rest) for key in inside}
            if all(key in inside for key in keys if tuple(key[i] for i in rest) in projected):
                relevant = rest
        chosen = dict.fromkeys(tuple(key[i] for i in relevant) for key in keys if key in inside)
        others = dict.fromkeys(tuple(key[i] for i in relevant) for key in keys if key not in inside)

        def listed(combinations: Iterable[tuple[tuple[type, Value], ...]]) -> str:
            alternatives = [
                " && ".join(
                    f"{self.variables[i]} == {self.values[i][value]}" for i, value in zip(relevant, one, strict=True)
                )
                for one in combinations
            ]
            return " || ".join(f"({text})" for text in alternatives)

        if not chosen:
            return "false"
        if not relevant:
            return "true"
        # In parentheses of its own, for `!!` sends a message.
        return f"({listed(chosen)})" if len(chosen) <= len(others) else f"(!({listed(others)}))"


def _parts(tally: Tally) -> tuple[frozenset[tuple[str, int]], ...]:
    return tally.always, tally.waiting, tally.going
