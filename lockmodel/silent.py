"""What a worker does between two transitions: the steps that take no time.

`either`, the order of a loop, an `if` or `set` that touches only the worker's own variables. They are followed until a step
that takes time is next, along every way that a choice opens.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from lockmodel.config import ChoiceFrame, Config, Frame, LoopFrame, Mark, Stack
from lockmodel.errors import SpecError, TooLarge, quote, suggestion
from lockmodel.expressions import ExpressionError, Value, evaluate, same, truth
from lockmodel.program import Assign, Either, If, Lock, Loop, Program, Reference, Step
from lockmodel.system import Hold, Resource

MAX_WORK = 3_000_000
"""What one compilation may cost, counted in steps, in evaluations of formulas and in values and locks that a step has to copy.

It takes some 2 µs and 200 bytes each. A spec that needs more is refused instead of filling the memory.
"""


class SilentSteps:
    """The steps of `program` that take no time. `resources` are all instances, in declaration order."""

    def __init__(self, program: Program, resources: tuple[Resource, ...]) -> None:
        self.program = program
        self.resources = resources
        self._index = {(r.family, self._exact(r.arguments)): i for i, r in enumerate(resources)}
        self._left: float = MAX_WORK

    def lift_limit(self) -> None:
        """What is spent from now on does not count: the program is known to be small enough."""
        self._left = math.inf

    def spend(self, cost: int, config: Config) -> None:
        """Count the cost of work on `config`. Raises SpecError when it is too much in all."""
        self._left -= cost
        if self._left < 0:
            who = f"transaction {quote(config.transaction.name)}" if config.transaction else "the spec"
            raise TooLarge(
                config.transaction.position if config.transaction else self.program.position,
                f"{who} unfolds into too many steps, more than {MAX_WORK:,} by here; make a set smaller, choose fewer "
                "parameters, or have fewer alternatives one after another",
            )

    def _next_step(self, config: Config) -> Step | None:
        """The visible step that comes next; None: the commit. Only for configs that `_advance` gave."""
        if not config.stack:
            return None
        frame = config.stack[0]
        assert isinstance(frame, Frame)
        return frame.block.steps[frame.at]

    def _after(self, config: Config) -> Config:
        if not config.stack:
            return config
        frame = config.stack[0]
        assert isinstance(frame, Frame)
        return config.having(stack=(Frame(frame.block, frame.at + 1), *config.stack[1:]))

    def _advance(self, config: Config) -> Iterator[Config]:
        """All configs that silent steps lead to from `config`, each once and with a visible step (or the commit) next."""
        pending = [config]
        seen: set[object] = set()
        branched = False
        while pending:
            here = pending.pop()
            self.spend(2 + (len(here.stack) + len(here.env) + len(here.levels) + len(here.session)) // 8, here)
            if branched:
                self.spend(4, here)
                # Ways that part can meet again, and there can be 2^40 of them. (One way alone never meets itself.)
                identity = self._identity(here)
                if identity in seen:
                    continue
                seen.add(identity)
            following = self._silent(here)
            if following is None:
                yield self._skip_held_table(here)
            else:
                branched = branched or len(following) > 1
                pending.extend(reversed(following))

    def _silent(self, here: Config) -> list[Config] | None:
        """Where the next step of `here` leads if it is silent; None: it is a transition."""
        if not here.stack:
            return None
        top, below = here.stack[0], here.stack[1:]
        match top:
            case Mark():
                # A statement that begins has taken nothing yet, and one that ends gives back what it took for itself.
                return [here.having(stack=below, statement=(top.loop, False) if top.begin else None, momentary=())]
            case LoopFrame():
                step = -1 if top.loop.order == "reverse" else 1
                following = LoopFrame(top.loop, (top.at + step) % self._size(top.loop), top.count - 1)
                return [self._iteration(here, top.loop, top.at, following if following.count else None, below)]
            case ChoiceFrame():
                return self._choices(here, top, below)
            case Frame(block, at) if at >= len(block.steps):
                return [here.having(stack=below)]
            case Frame(block, at):
                return self._silent_step(here, block.steps[at])

    def _choices(self, here: Config, top: ChoiceFrame, below: Stack) -> list[Config]:
        numbers = [number for number in range(top.left.bit_length()) if top.left >> number & 1]
        self.spend(len(numbers) * (1 + len(numbers) // 64), here)
        following = [ChoiceFrame(top.loop, top.left & ~(1 << number)) for number in numbers]
        return [
            self._iteration(here, top.loop, number, rest if rest.left else None, below)
            for number, rest in zip(numbers, following, strict=True)
        ]

    def _iteration(
        self, here: Config, loop: Loop, number: int, following: LoopFrame | ChoiceFrame | None, below: Stack
    ) -> Config:
        """`here` at the beginning of the loop's body for element `number`; `following` is what is to come of the loop."""
        env = dict(here.env)
        for name, set_name in reversed(loop.over):
            elements = self.program.sets[set_name]
            number, index = divmod(number, len(elements))
            env[name] = elements[index]
        rest = (following,) if following is not None else ()
        return here.having(env=tuple(env.items()), stack=(Frame(loop.body, 0), *rest, *below))

    def _size(self, loop: Loop) -> int:
        return math.prod(len(self.program.sets[set_name]) for _, set_name in loop.over)

    def _silent_step(self, here: Config, step: Step) -> list[Config] | None:
        rest = self._after(here)
        match step:
            case Either():
                return [rest.having(stack=(Frame(branch, 0), *rest.stack)) for branch in step.branches]
            case Loop():
                return self._enter(rest, step)
            case If(shared=False):
                self.spend(step.condition.size // 2, here)
                try:
                    branch = step.then if truth(step.condition, dict(here.env)) else step.otherwise
                except ExpressionError as error:
                    raise SpecError(step.position, str(error)) from None
                return [rest.having(stack=(Frame(branch, 0), *rest.stack))]
            case Assign(shared=False):
                self.spend(sum(2 + expression.size // 2 for _, expression in step.values), here)
                try:
                    names = dict(here.env)
                    values = {name: evaluate(expression.tree, names) for name, expression in step.values}
                except ExpressionError as error:
                    raise SpecError(step.position, str(error)) from None
                return [rest.having(env=tuple({**names, **values}.items()))]
            case _:
                return None

    def _enter(self, rest: Config, loop: Loop) -> list[Config]:
        size = self._size(loop)
        frames: list[LoopFrame | ChoiceFrame]
        match loop.order:
            case "any":
                self.spend(size // 64, rest)
                frames = [ChoiceFrame(loop, (1 << size) - 1)]
            case "rotated":
                self.spend(size, rest)
                frames = [LoopFrame(loop, start, size) for start in range(size)]
            case "reverse":
                frames = [LoopFrame(loop, size - 1, size)]
            case _:
                frames = [LoopFrame(loop, 0, size)]
        begin = (Mark(loop, True),) if loop.sql is not None and rest.statement is None else ()
        end = (Mark(loop, False),) if begin else ()
        return [rest.having(stack=(*begin, frame, *end, *rest.stack)) for frame in frames]

    def _skip_held_table(self, here: Config) -> Config:
        """Go on to the row itself, or the table's next mode, where the worker holds its table in that mode already."""
        step = self._next_step(here)
        if isinstance(step, Lock) and step.table is not None:
            for mode in step.table_modes[here.part :]:
                if Hold(self._resolve(step.table, here), mode) not in here.held:
                    break
                here = here.having(part=here.part + 1)
        return here

    def _resolve(self, reference: Reference, config: Config) -> int:
        """The index of the resource that `reference` means with the worker's values."""
        env = dict(config.env)
        try:
            arguments = tuple(evaluate(argument.tree, env) for argument in reference.arguments)
        except ExpressionError as error:
            raise SpecError(reference.position, f"{quote(reference.text)}: {error}") from None
        index = self._index.get((reference.family, self._exact(arguments)))
        if index is not None:
            return index
        for value, set_name in zip(arguments, self.program.families[reference.family].per, strict=True):
            elements = self.program.sets[set_name]
            if not any(same(value, element) for element in elements):
                hint = suggestion(text_of(value), [text_of(element) for element in elements])
                message = f"{quote(reference.text)}: {quote(text_of(value))} is not in set {set_name}; {hint}"
                raise SpecError(reference.position, message)
        raise AssertionError(f"{reference} names no resource")

    @staticmethod
    def _exact(values: Iterable[Value]) -> tuple[tuple[type, Value], ...]:
        """`values` as a key that tells 1 from true."""
        return tuple((type(value), value) for value in values)

    @staticmethod
    def _identity(config: Config) -> object:
        """`config` as a key that tells 1 from true. Finer than `key`: it keeps the values that no step needs any more."""
        return config, tuple(type(value) for _, value in config.env)


def text_of(value: Value) -> str:
    """`value` as a spec has it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
