"""Sections as text, as JSON, and as tables in docs/benchmarks.md."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.section import Section


def text(section: Section) -> str:
    """A section for the terminal: a table with aligned columns."""
    lines = [section.title, *(f"  {note}" for note in section.notes)]
    if section.rows:
        table = [list(section.columns), *map(list, section.rows)]
        widths = [max(len(row[column]) for row in table) for column in range(len(section.columns))]
        for row in table:
            first, *rest = (cell.ljust(width) if column == 0 else cell.rjust(width)
                            for column, (cell, width) in enumerate(zip(row, widths, strict=True)))  # fmt: skip
            lines.append("  " + "  ".join([first, *rest]))
    return "\n".join(lines) + "\n"


def as_json(section: Section) -> dict[str, Any]:
    """A section as plain data; `from_json` reads it back."""
    return {
        "key": section.key,
        "title": section.title,
        "notes": list(section.notes),
        "columns": list(section.columns),
        "rows": [list(row) for row in section.rows],
        "figures": list(section.figures),
    }


def from_json(data: Mapping[str, Any]) -> Section:
    return Section(data["key"], data["title"], data["notes"], data["columns"], data["rows"], data["figures"])


def markdown(section: Section) -> str:
    """A section as a Markdown table."""
    parts = [f"**{section.title}.** {' '.join(section.notes)}"]
    if section.rows:
        rows: list[Sequence[str]] = [section.columns, ["---", *["--:"] * (len(section.columns) - 1)], *section.rows]
        parts.append("\n".join(f"| {' | '.join(row)} |" for row in rows))
    return "\n\n".join(parts)


def render(document: str, results: Mapping[str, Any]) -> str:
    """`document` with the tables of `results` between its marks `<!-- table KEY -->` and `<!-- end -->`.

    The mark `machine` stands for what they were measured on. A mark that `results` has nothing for keeps what it has.
    """
    tables = {data["key"]: markdown(from_json(data)) for data in results["sections"]}
    machine = results["machine"]
    tables["machine"] = (
        f"Measured on {results['date']}, in one run: {machine['processor']}, {machine['processors']} processors, "
        f"{machine['memory']} of memory, {machine['system']}, Python {machine['python']}."
    )

    def replaced(match: re.Match[str]) -> str:
        table = tables.get(match[1])
        return match[0] if table is None else f"<!-- table {match[1]} -->\n{table}\n<!-- end -->"

    return re.sub(r"<!-- table ([\w-]+) -->\n.*?<!-- end -->", replaced, document, flags=re.DOTALL)
