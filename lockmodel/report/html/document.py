"""The HTML document around reports: its style, its scripts, and what they need to know, as JSON.

Words from a spec are escaped wherever they go: as HTML by `text`, in the data by `embedded`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from lockmodel.report.html import tables
from lockmodel.report.json import Failure
from lockmodel.stepping import Model
from lockmodel.trace import Trace

SCRIPTS = ("model.js", "formulas.js", "layout.js", "drawing.js", "graphs.js", "downloads.js", "explorer.js", "page.js")
"""In this order: what steps the model, what evaluates its formulas, where graphs' nodes go, how they are drawn, which graphs
there are, a schedule as a file, the explorer, what begins it all."""

Json = dict[str, Any]


def as_document(title: str, contents: str, articles: Iterable[str], results: Sequence[Json]) -> str:
    """One HTML document. `title` is plain text; `results` is what the script is told of the articles, in their order."""
    from lockmodel import __version__

    parts = {
        "title": text(title),
        "style": resource("page.css"),
        "contents": contents,
        "articles": "\n".join(articles),
        "version": text(__version__),
        "data": embedded({"lockmodel": __version__, "results": results}),
        "script": "\n".join(resource(name) for name in SCRIPTS),
    }
    page = resource("page.html")
    pieces = [page.partition("{{")[0]]
    for piece in page.split("{{")[1:]:  # Each part is put in once: braces in it mean nothing.
        name, _, rest = piece.partition("}}")
        pieces += [parts[name], rest]
    # A spec can have halves of characters in it, which no file in UTF-8 can.
    return "".join(pieces).encode("utf-8", "replace").decode()


def resource(name: str) -> str:
    """A file beside this module."""
    return files(__package__ or "").joinpath(name).read_text(encoding="utf-8")


def embedded(data: Json) -> str:
    """`data` as JSON for a script element: without the characters that could end it or begin a comment."""
    written = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return written.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def explorable(model: Model, trace: Trace | None) -> Json:
    """What the script needs to step `model`, with `trace` as the schedule that it begins with. Raises tables.TooLarge."""
    found = tables.tables(model)
    return {
        "tables": found,
        "digest": tables.digest(found),
        "orders": tables.orders(model),
        "steps": [] if trace is None else tables.steps(model, trace),
    }


def explorer(data: Json) -> str:
    """Where the explorer goes; or why there is none, if `data` has a `reason`."""
    if "reason" in data:
        why = text(data["reason"])
        return f'<p class="note">The explorer is left out, since the model is too large for a page: {why}.</p>'
    return '<section class="explorer" aria-label="Explorer"></section>'


def links(entries: Sequence[tuple[str, str]], what: str) -> str:
    """Links to the articles, if there are several: the name of each, and its verdict as HTML."""
    if len(entries) < 2:
        return ""
    items = [
        f'<li><a href="#result-{number}">{text(name)}</a> {verdict}</li>'
        for number, (name, verdict) in enumerate(entries)
    ]
    return f'<nav aria-label="{text(what)}"><ol>{"".join(items)}</ol></nav>'


def badge(word: str, exit_code: int) -> str:
    """A verdict in the colour that says whether it is as expected."""
    return f'<strong class="badge {class_of(exit_code)}">{text(word)}</strong>'


def class_of(exit_code: int) -> str:
    return {0: "expected", 1: "unexpected"}.get(exit_code, "undecided")


def failures_and_rest(failures: Iterable[Failure], left_out: Iterable[str], done: str) -> list[str]:
    """Articles on files that had an error, and on those that an interruption left out: they are not `done`."""
    articles = [
        f'<article class="unexpected"><h2>{text(one.file)}</h2>'
        f'<p class="verdict"><strong class="badge unexpected">ERROR</strong> {text(str(one.error))}</p></article>'
        for one in failures
    ]
    return articles + [
        f'<article class="undecided"><h2>{text(file)}</h2><p>Not {done}.</p></article>' for file in left_out
    ]


def text(words: str) -> str:
    """`words` as HTML that shows just them."""
    return escape(words, quote=True)
