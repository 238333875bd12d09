"""A picture as a Mermaid flowchart, which GitHub and GitLab draw in Markdown.

Every text stands in quotes, with what means something inside of them as an entity (https://mermaid.js.org/syntax/flowchart.html, "Entity codes to
escape characters").
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from lockmodel.errors import UsageError
from lockmodel.export.pictures import Node, Picture

MAX_EDGES = 500
MAX_CHARACTERS = 50_000
"""Mermaid's own limits (`maxEdges`, `maxTextSize`), which a document can't raise."""
_RED = "stroke:#c62828,stroke-width:3px"


def mermaid(picture: Picture, source: str) -> str:
    """`picture` for Mermaid; `source` says in a comment where it comes from. Raises UsageError beyond Mermaid's limits."""
    if len(picture.edges) > MAX_EDGES:
        raise _too_large(f"has {len(picture.edges):,} arrows", MAX_EDGES)
    text = "\n".join(_lines(picture, source)) + "\n"
    if len(text) > MAX_CHARACTERS:
        raise _too_large(f"takes {len(text):,} characters", MAX_CHARACTERS)
    return text


def _too_large(what: str, most: int) -> UsageError:
    return UsageError(f"this picture {what}, and Mermaid draws at most {most:,}; make a set smaller, or write --to dot")


def _lines(picture: Picture, source: str) -> Iterator[str]:
    # A title is YAML, of which JSON strings are a part.
    yield from ("---", f"title: {json.dumps('; '.join(picture.title), ensure_ascii=False)}", "---")
    yield f"%% {_comment(source)}"
    yield f"flowchart {picture.direction}"
    for number, group in enumerate(picture.groups):
        yield f"  subgraph g{number}[{_quoted(group)}]"
        yield from (f"    {_node(index, node)}" for index, node in enumerate(picture.nodes) if node.group == group)
        yield "  end"
    yield from (f"  {_node(index, node)}" for index, node in enumerate(picture.nodes) if node.group is None)
    for edge in picture.edges:
        arrow = "-.->" if edge.weak else "-->"
        label = f"|{_quoted(edge.label)}|" if edge.label else ""
        yield f"  n{edge.tail} {arrow}{label} n{edge.head}"
    marked = [f"n{index}" for index, node in enumerate(picture.nodes) if node.marked]
    start = [f"n{index}" for index, node in enumerate(picture.nodes) if node.start]
    lines = [str(index) for index, edge in enumerate(picture.edges) if edge.marked]
    if marked:
        yield from (f"  classDef marked {_RED}", f"  class {','.join(marked)} marked")
    if start:
        yield from ("  classDef start stroke-width:4px", f"  class {','.join(start)} start")
    if lines:
        yield f"  linkStyle {','.join(lines)} {_RED}"


def _node(index: int, node: Node) -> str:
    return f"n{index}[{_quoted(*node.lines)}]"


def _quoted(*lines: str) -> str:
    return '"' + "<br/>".join(_escaped(line) for line in lines) + '"'


def _escaped(text: str) -> str:
    """`text` with all that Mermaid, Markdown or HTML would act on as entities."""
    text = re.sub(r"[^\w .,:;()\[\]+=→/-]|(?<=^\d)\.|^-", lambda match: f"#{ord(match[0])};", text)
    # A backslash with an n is a new line for Mermaid, even so; a word joiner between them can't be seen.
    return text.replace("#92;n", "#92;#8288;n")


def _comment(text: str) -> str:
    # A brace pair in a comment would be a directive.
    return " ".join(text.split()).replace("{", "(").replace("}", ")")
