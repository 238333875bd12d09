"""Planned and observed locks side by side, and the steps that would agree with what was observed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich import box
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from lockmodel.errors import quote
from lockmodel.replay.comparison import Comparison, Relation, Taken
from lockmodel.replay.conformance import Conformance, Ways
from lockmodel.report.grammar import plural
from lockmodel.report.page import Page, text

_STYLES = {Relation.EQUAL: "", Relation.MISSING: "red", Relation.UNSEEN: "yellow", Relation.COVERED: "dim"}


def report(file: str, found: Sequence[Conformance], server: str, page: Page) -> str:
    """The whole report: a line for the spec, then each call of each transaction."""
    drifted = [one for one in found if not one.conforms]
    cut = incomplete(found)
    word = Text("UNDECIDED", "bold yellow") if cut else Text("CONFORMS", "bold green")
    if drifted:
        word = Text("DRIFT", "bold red")
    claim = (
        f"{len(drifted)} of {plural(len(found), 'call')} differ"
        if drifted
        else f"{plural(len(found), 'call')} compared"
    )
    parts = page.heading(file, word, f"{claim}, on PostgreSQL {server}")
    for transaction, ways in cut.items():
        parts += ["", Text.assemble("  ", text(_cut(transaction, ways), "yellow"))]
    for one in found:
        parts += _call(one)
    return page.render(*parts)


def incomplete(found: Sequence[Conformance]) -> dict[str, Ways]:
    """The transactions of which some ways were not run."""
    return {one.transaction: one.ways for one in found if one.ways is not None and not one.ways.all}


def _cut(transaction: str, ways: Ways) -> str:
    many = f"more than {ways.found:,}" if ways.more else f"{ways.found:,}"
    return f"{ways.run:,} of {many} ways of {quote(transaction)} were run."


def _call(one: Conformance) -> list[RenderableType]:
    arguments = ", ".join(f"{name}={value}" for name, value in one.arguments.items())
    title = f"{one.transaction} ({arguments})" if arguments else one.transaction
    if not one.comparisons:
        return ["", Text.assemble("  ", text(title, "bold"), "  ", ("locked nothing", "red"))]
    parts: list[RenderableType] = []
    for number, comparison in enumerate(one.comparisons, start=1):
        several = f", transaction {number} of {len(one.comparisons)}" if len(one.comparisons) > 1 else ""
        word = Text("equal", "green") if comparison.conforms else Text("differs", "red")
        parts += ["", Text.assemble("  ", text(title + several, "bold"), "  ", word)]
        parts.append(Padding(_table(comparison), (0, 0, 0, 2)))
    return parts


def _table(comparison: Comparison) -> Table:
    table = Table(box=box.MINIMAL, show_edge=False, pad_edge=False, header_style="bold")
    table.add_column("planned", overflow="fold", ratio=1)
    table.add_column("observed", overflow="fold", ratio=1)
    table.add_column("by", justify="right", style="dim")
    told = any(line.relation is not Relation.EQUAL for line in comparison.lines)
    if told:
        table.add_column("", overflow="fold", max_width=20)
    for line in comparison.lines:
        style = _STYLES.get(line.relation, "red")
        planned = str(line.planned) if line.planned else ""
        observed = str(line.observed) if line.observed else ""
        cells = [text(planned, style), text(observed, style), Text(str(line.statement or ""))]
        if told:
            cells.append(text("" if line.relation is Relation.EQUAL else str(line.relation), style))
        table.add_row(*cells)
    return table


def proposal(found: Sequence[Conformance]) -> str:
    """YAML: the steps of each transaction that differs, as observed; a parameter stands where its value was seen."""
    lines = ["transactions:"]
    for one in found:
        if one.conforms:
            continue
        for number, comparison in enumerate(one.comparisons, start=1):
            if comparison.conforms:
                continue
            arguments = ", ".join(f"{name}={value}" for name, value in one.arguments.items())
            called = f" called with {arguments}" if arguments else ""
            lines.append(f"  # As observed{called}, transaction {number} of {len(one.comparisons)}.")
            lines += [f"  {_key(one.transaction)}:", "    steps:"]
            lines += [f"      {_step(taken, one.arguments)}" for taken in _agreeing(comparison)]
    return "\n".join(lines) + "\n"


def _agreeing(comparison: Comparison) -> list[Taken]:
    """What was observed, and what was planned with nothing to be seen of it."""
    shown = (line.planned if line.relation is Relation.COVERED else line.observed for line in comparison.lines)
    return [lock for lock in shown if lock is not None]


def _step(taken: Taken, arguments: Mapping[str, object]) -> str:
    name, bracket, inside = taken.resource.partition("[")
    if not bracket:
        known = taken.resource.isidentifier()
        return f"- {taken.resource}: {taken.mode}" if known else f"# not in the spec: {taken}"
    by_value = {str(value): parameter for parameter, value in arguments.items()}
    parts = [by_value.get(part.strip(), part.strip()) for part in inside.rstrip("]").split(",")]
    return f"- {name}[{', '.join(parts)}]: {taken.mode}"


def _key(name: str) -> str:
    return name if name.replace(" ", "").replace("_", "").isalnum() else f'"{name}"'
