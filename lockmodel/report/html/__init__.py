"""The report as one HTML file, without a network or a server: the verdicts, the traces, the graphs, and an explorer of the model.

What must be readable without a script is written here: verdicts, the steps in words, proofs. The script draws the rest from the embedded
tables. Words from a spec are escaped in both: as HTML here, as JSON that can't end its element in the data.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lockmodel.report import grounds, standstill, words
from lockmodel.report.findings import case_name
from lockmodel.report.grammar import plural
from lockmodel.report.html import tables
from lockmodel.report.html.document import (
    Json,
    as_document,
    badge,
    class_of,
    explorable,
    explorer,
    failures_and_rest,
    links,
    text,
)
from lockmodel.report.json import Failure
from lockmodel.verdict import CheckResult, Outcome


def report(results: Iterable[CheckResult], failures: Iterable[Failure] = (), *, unchecked: Sequence[str] = ()) -> str:
    """One HTML document for all specs; `unchecked`: the files that an interruption left out."""
    results, failures = list(results), list(failures)
    data = [_data(result) for result in results]
    articles = [_article(number, result, one) for number, (result, one) in enumerate(zip(results, data, strict=True))]
    articles += failures_and_rest(failures, unchecked, "checked")
    contents = links([(case_name(result), _badge(result)) for result in results], "Specs")
    return as_document(_title(results, len(failures)), contents, articles, data)


def _data(result: CheckResult) -> Json:
    """What the script needs for one result; without tables, the reason."""
    try:
        model = tables.model_of_result(result)
        source = tables.source(result.spec, result.overrides, model)
        return {"source": source, "violated": result.verdict.violated, **explorable(model, result.trace)}
    except tables.TooLarge as error:
        return {"source": tables.source(result.spec, result.overrides, None), "reason": str(error)}


def _title(results: Sequence[CheckResult], failures: int) -> str:
    if len(results) == 1 and not failures:
        return f"{words.verdict_word(results[0])}: {case_name(results[0])}"
    return f"lockmodel: {plural(len(results) + failures, 'spec')}"


def _badge(result: CheckResult) -> str:
    return badge(words.verdict_word(result), result.exit_code)


def _suffix(result: CheckResult) -> str:
    if result.exit_code == 1:
        return " (not as expected)"
    return " (as expected)" if result.verdict.outcome is Outcome.VIOLATED else ""


def _article(number: int, result: CheckResult, data: Json) -> str:
    parts = [
        f'<article id="result-{number}" class="{class_of(result.exit_code)}" data-result="{number}" tabindex="-1">',
        f"<h2>{text(case_name(result))}</h2>",
        f'<p class="verdict">{_badge(result)} {text(words.headline(result) + _suffix(result))}</p>',
    ]
    if (expectation := words.expectation(result)) is not None:
        parts.append(f'<p class="unmet">{text(expectation)}</p>')
    parts += [_why(result), *_proof(result), explorer(data)]
    parts += [_steps(result), _every(result), _searches(result), _spec(result), "</article>"]
    return "\n".join(filter(None, parts))


def _why(result: CheckResult) -> str:
    """The sentences on why nobody can go on, or which formula is broken."""
    violated = result.verdict.violated
    if result.view is None or result.trace is None or violated is None:
        return ""
    if (why := standstill.why(result.compiled, result.view, violated)) is not None:
        return f"<p>{text(why)}</p>"
    lead, formula = words.formula_sentences(result.compiled, result.trace, violated)
    return f"<p>{text(lead)}</p>\n<p><code>{text(formula)}</code></p>"


def _proof(result: CheckResult) -> list[str]:
    """The certificate: the claim, the order of the locks, the exceptions."""
    if result.certificate is None:
        return []
    claim, *exceptions = grounds.proved(result.certificate, bool(result.spec.sets))
    items = "".join(f"<li>{text(line.removeprefix('- '))}</li>" for line in exceptions)
    listed = f"<ul>{items}</ul>" if items else ""
    return [f'<section class="proof"><h3>Proof</h3><p>{text(claim)}</p>{listed}</section>']


def _steps(result: CheckResult) -> str:
    """The trace in words, for whoever can't see the picture."""
    if result.trace is None or result.view is None:
        return ""
    names = result.view.workers
    said = zip(result.trace.actions, words.step_sentences(result.compiled, result.trace), strict=True)
    items = "".join(f"<li>{text(f'{names[action.worker]} {what}')}</li>" for action, what in said)
    command = text(words.replay_command(result))
    return (
        f"<details><summary>The schedule in words</summary><ol>{items}</ol>"
        f"<p>Replay it on a real Postgres:</p><pre>{command}</pre></details>"
    )


def _every(result: CheckResult) -> str:
    """All kinds of deadlock, if they were asked for."""
    found = result.deadlocks
    if found is None:
        return ""
    items = "".join(f"<li>{text(words.group_title(n, group))}</li>" for n, group in enumerate(found.groups, 1))
    return f"<details><summary>{text(words.all_deadlocks(found))}</summary><ul>{items}</ul></details>"


def _searches(result: CheckResult) -> str:
    lines = [grounds.searched(exploration) for exploration in result.explorations]
    lines += filter(None, [grounds.by_circle(result), grounds.advice(result)])
    return "".join(f'<p class="note">{text(line)}</p>' for line in lines)


def _spec(result: CheckResult) -> str:
    return f"<details><summary>The spec</summary><pre>{text(result.spec.source.text)}</pre></details>"
