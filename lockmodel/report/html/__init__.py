"""The report as one HTML file, without a network or a server: the verdicts, the traces, the graphs, and an explorer of the model.

What must be readable without a script is written here: verdicts, the steps in words, proofs. The script draws the rest from the embedded
tables. Words from a spec are escaped in both: as HTML here, as JSON that can't end its element in the data.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from lockmodel.report import words
from lockmodel.report.findings import case_name
from lockmodel.report.html import tables
from lockmodel.report.json import Failure
from lockmodel.system import NO_DEADLOCK, NO_GLOBAL_STALL
from lockmodel.verdict import CheckResult, Outcome

SCRIPTS = ("model.js", "layout.js", "drawing.js", "explorer.js", "page.js")
"""In this order: what steps the model, where graphs' nodes go, how they are drawn, the explorer, what begins it all."""

Json = dict[str, Any]


def report(results: Iterable[CheckResult], failures: Iterable[Failure] = (), *, unchecked: Sequence[str] = ()) -> str:
    """One HTML document for all specs; `unchecked`: the files that an interruption left out."""
    from lockmodel import __version__

    results, failures = list(results), list(failures)
    data = [_data(result) for result in results]
    articles = [_article(number, result, one) for number, (result, one) in enumerate(zip(results, data, strict=True))]
    articles += [_failure(failure) for failure in failures]
    articles += [
        f'<article class="undecided"><h2>{_text(file)}</h2><p>Not checked.</p></article>' for file in unchecked
    ]
    parts = {
        "title": _title(results, len(failures)),
        "style": resource("page.css"),
        "contents": _contents(results),
        "articles": "\n".join(articles),
        "version": _text(__version__),
        "data": embedded({"lockmodel": __version__, "results": data}),
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
    return files(__name__).joinpath(name).read_text(encoding="utf-8")


def embedded(data: Json) -> str:
    """`data` as JSON for a script element: without the characters that could end it or begin a comment."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _data(result: CheckResult) -> Json:
    """What the script needs for one result; without tables, the reason."""
    data: Json = {"source": tables.source(result), "violated": result.verdict.violated, "steps": []}
    try:
        model = tables.model_of_result(result)
        data["tables"] = tables.tables(model)
    except tables.TooLarge as error:
        data["reason"] = str(error)
        return data
    data["digest"] = tables.digest(data["tables"])
    data["orders"] = tables.orders(model)
    if result.trace is not None:
        data["steps"] = tables.steps(model, result.trace)
    return data


def _title(results: Sequence[CheckResult], failures: int) -> str:
    if len(results) == 1 and not failures:
        return _text(f"{words.verdict_word(results[0])}: {case_name(results[0])}")
    return f"lockmodel: {words.plural(len(results) + failures, 'spec')}"


def _contents(results: Sequence[CheckResult]) -> str:
    """Links to the results, if there are several."""
    if len(results) < 2:
        return ""
    links = [
        f'<li><a href="#result-{number}">{_text(case_name(result))}</a> {_badge(result)}</li>'
        for number, result in enumerate(results)
    ]
    return f'<nav aria-label="Specs"><ol>{"".join(links)}</ol></nav>'


def _badge(result: CheckResult) -> str:
    return f'<strong class="badge {_class(result)}">{_text(words.verdict_word(result))}</strong>'


def _class(result: CheckResult) -> str:
    return {0: "expected", 1: "unexpected"}.get(result.exit_code, "undecided")


def _article(number: int, result: CheckResult, data: Json) -> str:
    suffix = " (as expected)" if result.exit_code == 0 and result.verdict.outcome is Outcome.VIOLATED else ""
    parts = [
        f'<article id="result-{number}" class="{_class(result)}" data-result="{number}" tabindex="-1">',
        f"<h2>{_text(case_name(result))}</h2>",
        f'<p class="verdict">{_badge(result)} {_text(words.headline(result) + suffix)}</p>',
    ]
    if (expectation := words.expectation(result)) is not None:
        parts.append(f'<p class="unmet">{_text(expectation)}</p>')
    parts += [f"<p>{_text(line)}</p>" for line in _why(result)]
    parts += _proof(result)
    if "reason" in data:
        parts.append(
            f'<p class="note">The explorer is left out, since the model is too large for a page: {_text(data["reason"])}.</p>'
        )
    else:
        parts.append('<section class="explorer" aria-label="Explorer"></section>')
    parts += [_steps(result), _every(result), _searches(result), _spec(result), "</article>"]
    return "\n".join(filter(None, parts))


def _why(result: CheckResult) -> list[str]:
    """The sentences on why nobody can go on, or which formula is broken."""
    violated = result.verdict.violated
    if result.view is None or result.trace is None or violated is None:
        return []
    if violated == NO_DEADLOCK:
        return [words.cycle_sentences(result.compiled, result.view)]
    if violated == NO_GLOBAL_STALL:
        return [words.stall_sentences(result.compiled, result.view)]
    return list(words.formula_sentences(result.compiled, result.trace, violated))


def _proof(result: CheckResult) -> list[str]:
    """The certificate: the claim, the order of the locks, the exceptions."""
    if result.certificate is None:
        return []
    claim, *exceptions = words.proved(result.certificate, bool(result.spec.sets))
    items = "".join(f"<li>{_text(line.removeprefix('- '))}</li>" for line in exceptions)
    listed = f"<ul>{items}</ul>" if items else ""
    return [f'<section class="proof"><h3>Proof</h3><p>{_text(claim)}</p>{listed}</section>']


def _steps(result: CheckResult) -> str:
    """The trace in words, for whoever can't see the picture."""
    if result.trace is None or result.view is None:
        return ""
    names = result.view.workers
    said = zip(result.trace.actions, words.step_sentences(result.compiled, result.trace), strict=True)
    items = "".join(f"<li>{_text(f'{names[action.worker]} {what}')}</li>" for action, what in said)
    command = _text(words.replay_command(result))
    return (
        f"<details><summary>The schedule in words</summary><ol>{items}</ol>"
        f"<p>Replay it on a real Postgres:</p><pre>{command}</pre></details>"
    )


def _every(result: CheckResult) -> str:
    """All kinds of deadlock, if they were asked for."""
    found = result.deadlocks
    if found is None:
        return ""
    items = "".join(f"<li>{_text(words.group_title(n, group))}</li>" for n, group in enumerate(found.groups, 1))
    return f"<details><summary>{_text(words.all_deadlocks(found))}</summary><ul>{items}</ul></details>"


def _searches(result: CheckResult) -> str:
    lines = [words.searched(exploration) for exploration in result.explorations]
    lines += filter(None, [words.by_circle(result), words.advice(result)])
    return "".join(f'<p class="note">{_text(line)}</p>' for line in lines)


def _spec(result: CheckResult) -> str:
    return f"<details><summary>The spec</summary><pre>{_text(result.spec.source.text)}</pre></details>"


def _failure(failure: Failure) -> str:
    return (
        f'<article class="unexpected"><h2>{_text(failure.file)}</h2>'
        f'<p class="verdict"><strong class="badge unexpected">ERROR</strong> {_text(str(failure.error))}</p></article>'
    )


def _text(text: str) -> str:
    return escape(text, quote=True)
