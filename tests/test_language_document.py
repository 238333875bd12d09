"""docs/language.md says what the language is: its lists are the code's, its examples are specs."""

from __future__ import annotations

import keyword
import re
import textwrap
from pathlib import Path

import pytest

from lockmodel.checker import check
from lockmodel.declarations import LOCAL_RESERVED, RESERVED
from lockmodel.errors import SpecError
from lockmodel.parser import parse
from lockmodel.replay.replayer import ReplayOutcome, prepare, replay_schedules
from lockmodel.semantics import crew
from lockmodel.verdict import Outcome

LANGUAGE = (Path(__file__).parent.parent / "docs" / "language.md").read_text()
HEAD = "name: x\nsets: {job: 2}\nresources: {row: {kind: row, per: [job]}, leader: {kind: lock}}\n"
TABLE = "schema: |\n  CREATE TABLE job (id int PRIMARY KEY);\n  INSERT INTO job VALUES (0), (1);\n"


def listed(mark: str) -> set[str]:
    """The words of the list behind `<!-- mark -->`."""
    match = re.search(rf"<!-- {mark} -->\n((?: {{4}}.*\n)+)", LANGUAGE)
    assert match
    return set(match[1].split())


def example(after: str) -> str:
    """The first YAML example behind the words `after`."""
    match = re.compile(r"```yaml\n(.*?)```", re.DOTALL).search(LANGUAGE, LANGUAGE.index(after))
    assert match
    return match[1]


def test_the_reserved_words_are_those_of_the_language() -> None:
    """No more, no fewer; Python's apart."""
    assert listed("keywords") == set(keyword.kwlist)
    assert listed("reserved") == set(RESERVED) - (set(keyword.kwlist) - {"for", "if"})
    free = LANGUAGE[LANGUAGE.index("A local variable may be called") :].partition(", but not")[0]
    assert set(re.findall(r"`(\w+)`", free)) == set(RESERVED) - set(LOCAL_RESERVED)


@pytest.mark.parametrize("word", sorted(listed("reserved") | {"class", "None"}))
def test_a_reserved_word_is_no_name_of_a_resource(word: str) -> None:
    """Each of them."""
    with pytest.raises(SpecError, match="it is a word of the language"):
        check(parse(f"name: x\nresources: {{'{word}': {{kind: lock}}}}\ntransactions: {{t: {{steps: []}}}}\n"))


def test_formulas_in_block_form_are_read() -> None:
    """Over several lines, folded or not."""
    transactions = "transactions: {lead: {let: {mode: authority}, steps: [{leader: EXCLUSIVE}]}}\nworkers: 2\n"
    variables = "variables: {authority: {values: [columns, ledger]}}\n"
    result = check(parse(HEAD + variables + transactions + example("YAML's block form")))
    assert result.verdict.outcome is Outcome.HOLDS


def test_in_needs_a_list_that_is_written_out() -> None:
    """Parentheses or brackets; not the name of a set."""
    text = (
        HEAD
        + "transactions: {t: {choose: {s: job}, steps: [{if: 's in %s', then: [{'row[s]': FOR UPDATE}]}]}}\nworkers: 1\n"
    )
    for right in ("(0, 1)", "[0, 1]"):
        assert check(parse(text % right)).exit_code == 0
    with pytest.raises(SpecError, match="`in` needs a list"):
        check(parse(text % "job"))


def test_a_state_that_is_a_deadlock_and_a_stall_is_a_deadlock() -> None:
    """And one that a formula speaks of as well."""
    steps = "{p: {steps: [{'row[0]': FOR UPDATE}, {'row[1]': FOR UPDATE}]}, q: {steps: [{'row[1]': FOR UPDATE}, {'row[0]': FOR UPDATE}]}}"
    text = (
        HEAD
        + f"transactions: {steps}\nworkers: 2\nno global stall: true\nnever: {{both: count(w.waits_for(row)) == 2}}\n"
    )
    assert check(parse(text)).verdict.violated == "no deadlock"


@pytest.mark.postgres
def test_the_claim_with_skip_locked_is_what_postgres_does(dsn: str) -> None:
    """The example, with three workers and two rows."""
    transactions = "transactions:\n" + textwrap.indent(example("### A claim with SKIP LOCKED"), "  ")
    prepared = prepare(parse(HEAD + transactions + "workers: 3\n" + TABLE))
    done = replay_schedules(prepared, crew(prepared.compilation.system, 3), 20, seed=1, dsn=dsn)
    assert done.outcome is ReplayOutcome.CONFIRMED, done.runs[-1].performance
    assert {str(c.outcome) for run in done.runs for c in run.script.commands} == {"completes", "is refused"}
