"""What the formats for CI have to tell: each thing that is wrong, once, with its rule, its words and its place in the spec.

A spec that does what it expects is no finding, a deadlock that it expects neither. UNDECIDED is one: unfinished is not success.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from lockmodel.errors import Position, SpecError, one_line
from lockmodel.explanation import explain
from lockmodel.overrides import arguments
from lockmodel.report import grounds, standstill, words
from lockmodel.report.grammar import sentence
from lockmodel.report.json import Failure
from lockmodel.semantics import Semantics
from lockmodel.system import NO_DEADLOCK, NO_GLOBAL_STALL, NO_STALL
from lockmodel.verdict import CheckResult, Outcome, Verdict

_TEXT_LIMIT = 5_000


class Rule(StrEnum):
    """What kind of thing is wrong. The names are part of the formats, so that they don't change."""

    DEADLOCK = "deadlock"
    STALL = "stall"
    GLOBAL_STALL = "global-stall"
    FORMULA = "formula"
    NOT_FOUND = "expected-violation-not-found"
    UNDECIDED = "undecided"
    BAD_INPUT = "bad-input"
    NOT_CHECKED = "not-checked"

    @property
    def warns(self) -> bool:
        """Whether it is a gap in what is known, and nothing that is known to be wrong."""
        return self in (Rule.UNDECIDED, Rule.NOT_CHECKED)


DESCRIPTIONS = {
    Rule.DEADLOCK: "Transactions of the spec can deadlock, and the spec does not expect it.",
    Rule.STALL: "A queue alone can hold a transaction up without end, and the spec does not expect it.",
    Rule.GLOBAL_STALL: "All running workers can wait at once, and the spec does not expect it.",
    Rule.FORMULA: "A never or always formula of the spec can be violated, and the spec does not expect it.",
    Rule.NOT_FOUND: "The spec expects a violation that was not found.",
    Rule.UNDECIDED: "The check ended before the answer was known.",
    Rule.BAD_INPUT: "The spec can't be read, or says something that has no meaning.",
    Rule.NOT_CHECKED: "The spec was left out because of an interruption.",
}


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    `title` is a few words, `message` some sentences, both on one line. `position` has line 0 where only the file is known. `result` has the trace
    that leads to it, if there is one; it is None for a spec that was not checked.
    """

    rule: Rule
    title: str
    message: str
    position: Position
    result: CheckResult | None = None

    @property
    def text(self) -> str:
        """All of it in sentences, on one line."""
        return self.message if self.result is None else f"{sentence(self.title)} {self.message}"

    @property
    def schedule(self) -> tuple[str, ...]:
        """The trace, a line for each step: `1. worker 1 starts enqueue`."""
        if self.result is None or self.result.trace is None or self.result.view is None:
            return ()
        trace = self.result.trace
        said = zip(trace.actions, words.step_sentences(self.result.compiled, trace), strict=True)
        names = self.result.view.workers
        return tuple(
            one_line(f"{number}. {names[action.worker]} {what}") for number, (action, what) in enumerate(said, 1)
        )


def findings(
    results: Iterable[CheckResult], failures: Iterable[Failure] = (), unchecked: Sequence[str] = ()
) -> list[Finding]:
    """All that is wrong, what is known to be so first."""
    found = [_failure(failure) for failure in failures]
    found += [finding for result in results for finding in of_result(result)]
    found += [_unchecked(file) for file in unchecked]
    return sorted(found, key=lambda finding: finding.rule.warns)


def of_result(result: CheckResult) -> Iterator[Finding]:
    """What is wrong with one spec: nothing, one thing, or (with `--all`) each kind of deadlock."""
    if result.exit_code == 0:
        return
    if result.verdict.outcome is Outcome.VIOLATED and result.verdict.violated == NO_DEADLOCK and result.deadlocks:
        for group in result.deadlocks.groups:
            verdict = Verdict(Outcome.VIOLATED, violated=NO_DEADLOCK)
            view = explain(result.compiled, group.trace)
            yield _finding(replace(result, trace=group.trace, view=view, verdict=verdict))
        if result.deadlocks.groups:
            return
    yield _finding(result)


def case_name(result: CheckResult) -> str:
    """What tells this check from others of the same file: the file and the overrides."""
    return one_line(" ".join([result.spec.source.file, *arguments(result.overrides)]), 1_000)


def _finding(result: CheckResult) -> Finding:
    title = words.verdict_word(result)
    if result.verdict.outcome is not Outcome.UNDECIDED:  # Whose headline is the whole reason.
        title = f"{title} {words.headline(result)}"
    message = " ".join(filter(None, [words.expectation(result), _why(result)]))
    return Finding(_rule(result), one_line(title), one_line(message, _TEXT_LIMIT), _position(result), result)


def _rule(result: CheckResult) -> Rule:
    match result.verdict.outcome:
        case Outcome.UNDECIDED:
            return Rule.UNDECIDED
        case Outcome.HOLDS:
            return Rule.NOT_FOUND
    rules = {NO_DEADLOCK: Rule.DEADLOCK, NO_STALL: Rule.STALL, NO_GLOBAL_STALL: Rule.GLOBAL_STALL}
    return rules.get(result.verdict.violated or "", Rule.FORMULA)


def _why(result: CheckResult) -> str:
    verdict = result.verdict
    if verdict.outcome is Outcome.UNDECIDED:
        return f"{sentence(words.headline(result))} {grounds.advice(result)}"
    if result.view is None or result.trace is None or verdict.violated is None:
        return ""
    if (why := standstill.why(result.compiled, result.view, verdict.violated)) is not None:
        return why
    return " ".join(words.formula_sentences(result.compiled, result.trace, verdict.violated))


def _position(result: CheckResult) -> Position:
    """Where a reader begins: the step at which the first worker waits, the formula, or what was expected."""
    if result.verdict.outcome is Outcome.VIOLATED and result.trace is not None:
        formulas = {prop.name: prop.position for prop in result.compiled.properties}
        waiting = [position for _, position in waiting_steps(result)]
        position = formulas.get(result.verdict.violated or "") or next(iter(waiting), None)
        if position is not None:
            return position
    return result.spec.at("expect")


def waiting_steps(result: CheckResult) -> list[tuple[int, Position]]:
    """The steps at which workers wait in the end, each with its worker: those of the deadlock, else all."""
    if result.trace is None or result.view is None:
        return []
    semantics = Semantics(result.compiled, result.trace.crew)
    deadlocked = standstill.members(result.compiled, result.view)
    waiting = deadlocked or [worker.worker for worker in result.view.final if worker.wants]
    places = []
    for worker in waiting:
        edges = semantics.location(result.trace.last, worker).edges
        position = next((edge.position for edge in edges if edge.position is not None), None)
        if position is not None:
            places.append((worker, position))
    return places


def _failure(failure: Failure) -> Finding:
    error = failure.error
    position = error.position if isinstance(error, SpecError) else Position(failure.file)
    message = error.message if isinstance(error, SpecError) else str(error)
    return Finding(Rule.BAD_INPUT, "bad input", one_line(message, _TEXT_LIMIT), position)


def _unchecked(file: str) -> Finding:
    return Finding(Rule.NOT_CHECKED, "not checked", "An interruption left this spec out.", Position(file))
