"""Which locks each statement of a spec takes, in its order: what foreign keys and triggers add is there to be seen."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from rich.padding import Padding
from rich.table import Table

from lockmodel.errors import Position
from lockmodel.modes import Wait
from lockmodel.program import Assign, Block, Either, End, If, Lock, Loop, Program, Release, RollbackTo, Savepoint, Step
from lockmodel.report.page import Page, text
from lockmodel.spec import Spec

_ORDERS = {"forward": "", "reverse": ", in reverse", "rotated": ", from any on", "any": ", in any order"}
_BEFORE_STEP = re.compile(r"^\s*(?:-\s+)*")


@dataclass(frozen=True)
class _Line:
    depth: int
    words: str
    reason: str = ""


def report(file: str, spec: Spec, program: Program, page: Page) -> str:
    """The transactions of `spec`, resolved as `program`, one below the other."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(overflow="fold", max_width=page.width - 20)
    table.add_column(overflow="fold", style="dim")
    for transaction in program.transactions:
        table.add_row()
        table.add_row(Padding(text(transaction.name, "bold"), (0, 0, 0, 2)))
        for line in _Lines(spec).block(transaction.steps, 2):
            table.add_row(Padding(text(line.words), (0, 0, 0, 2 * line.depth)), text(line.reason))
    return page.render(text(file, "bold"), table)


class _Lines:
    """The lines of the steps of one transaction of `spec`."""

    def __init__(self, spec: Spec) -> None:
        self.source = spec.source.text.splitlines()
        self._in_statement = False

    def block(self, block: Block, depth: int) -> Iterator[_Line]:
        for step in block.steps:
            yield from self._step(step, depth)

    def _step(self, step: Step, depth: int) -> Iterator[_Line]:
        match step:
            case Lock():
                if step.sql is not None:
                    yield _Line(depth, step.sql)
                    depth += 1
                yield from self._lock(step, depth)
            case Loop():
                yield from self._loop(step, depth)
            case Either():
                for number, branch in enumerate(step.branches):
                    yield _Line(depth, "or:" if number else "either:")
                    yield from self.block(branch, depth + 1) if branch.steps else (_Line(depth + 1, "nothing"),)
            case If():
                yield _Line(depth, f"if {step.condition.text}:")
                yield from self.block(step.then, depth + 1)
                if step.otherwise.steps:
                    yield _Line(depth, "else:")
                    yield from self.block(step.otherwise, depth + 1)
            case Assign():
                yield _Line(depth, "set " + ", ".join(f"{name} = {value.text}" for name, value in step.values))
            case Savepoint():
                yield _Line(depth, f"savepoint {step.name}")
            case RollbackTo():
                yield _Line(depth, f"rollback to {step.name}")
            case Release():
                yield _Line(depth, f"release {step.reference.text}")
            case End():
                yield _Line(depth, "commit" if step.commit else "rollback")

    def _loop(self, step: Loop, depth: int) -> Iterator[_Line]:
        begins = not self._in_statement and (step.sql is not None or not step.over)
        if begins:
            yield _Line(depth, step.sql or self._source(step.position))
            depth += 1
            self._in_statement = True
        if step.over:
            ranges = ", ".join(f"{name} in {of}" for name, of in step.over)
            yield _Line(depth, f"for {ranges}{_ORDERS[step.order]}:")
            depth += 1
        yield from self.block(step.body, depth)
        if begins:
            self._in_statement = False

    def _lock(self, step: Lock, depth: int) -> Iterator[_Line]:
        reason = (step.label or "").replace("{{", "{").replace("}}", "}")
        if step.table is not None:
            yield from (_Line(depth, f"{step.table.text} {mode}", reason) for mode in step.table_modes)
        wait = f" {step.wait}" if step.wait is not Wait.BLOCK else ""
        kept = "" if step.kept else ", not kept"
        yield _Line(depth, f"{step.reference.text} {step.mode}{wait}{kept}", reason)
        yield from self.block(step.then, depth + 1)
        if step.otherwise is not None:
            yield _Line(depth, "else:")
            yield from self.block(step.otherwise, depth + 1)

    def _source(self, position: Position) -> str:
        """The line of the file where a statement without SQL stands."""
        line = self.source[position.line - 1] if 0 < position.line <= len(self.source) else ""
        return _BEFORE_STEP.sub("", line.rstrip())
