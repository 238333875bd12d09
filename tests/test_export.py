"""`lockmodel export` to Promela and TLA+ without any other checker: the command, names, and formulas in their exported form."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from generated import spec_of, to_yaml
from test_differential import numbered

from lockmodel.compiler import compile_spec
from lockmodel.errors import SpecError, UsageError
from lockmodel.export import FORMATS, export
from lockmodel.export.formulas import Count, Formula, Number, Tally, Term, Truth, formula
from lockmodel.export.names import Identifiers, comment, identifier, string
from lockmodel.parser import load, parse
from lockmodel.properties import evaluators
from lockmodel.semantics import Semantics, State, crew

ROOT = Path(__file__).parent.parent
GOLDEN = Path(__file__).parent / "golden"
DEMO = "specs/deadlock-demo.yaml"


def lockmodel(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lockmodel", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, input=stdin, timeout=60)


# The command


@pytest.mark.parametrize(("arguments", "line"), [
    ([DEMO], "say the language: --to promela or --to tla or --to isolation or --to itf or --to dot or --to mermaid or --to graphml"),
    ([DEMO, "--to", "promla"], "--to 'promla': did you mean promela? available: promela, tla, isolation, itf, dot, mermaid, graphml"),
    ([DEMO, "--to", "tla"], f"{DEMO}:23: there may be any number of workers, and other checkers need a fixed one: --workers 2"),
    ([DEMO, "specs/striped.yaml", "--to", "tla"], "this command takes one spec, not 2: specs/deadlock-demo.yaml, specs/striped.yaml"),
    (["--to", "tla"], "name a spec: a file, a folder, a pattern such as 'specs/*.yaml', or - for standard input"),
    ([DEMO, "--to", "promela", "--workers", "31"], "a Promela model has at most 30 workers, not 31: a bit for each in one variable"),
    ([DEMO, "--to", "tla", "--workers", "2", "-o", "nowhere/x.tla"], "--output 'nowhere/x.tla': there is no folder 'nowhere'"),
    ([DEMO, "--to", "tla", "--workers", "2", "-o", "a-b.tla"],
     "--output 'a-b.tla': a TLA+ module has the name of its file, so that must be letters, digits and _, such as a_b.tla"),
])  # fmt: skip
def test_a_wrong_command_line_is_one_line(arguments: list[str], line: str) -> None:
    answer = lockmodel("export", *arguments)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr.replace("\n", " ").split() == line.split()


def test_a_role_with_any_number_of_workers_is_named(tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(
        "name: roles\nresources: {a: {kind: lock}}\ntransactions: {t: {steps: [{a: EXCLUSIVE}]}}\n"
        "roles:\n  writer: {count: 1, runs: [t]}\n  reader: {count: any, runs: [t]}\n"
    )
    answer = lockmodel("export", str(spec), "--to", "promela")
    assert answer.returncode == 2
    assert f"{spec}:6: the role 'reader' has any number of workers" in answer.stderr.replace("\n", " ")
    assert lockmodel("export", str(spec), "--to", "promela", "--workers", "reader=2").returncode == 0


def test_a_module_goes_to_a_file_with_its_configuration_beside_it(tmp_path: Path) -> None:
    answer = lockmodel("export", DEMO, "--to", "tla", "--workers", "2", "-o", str(tmp_path / "Demo.tla"))
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["Demo.cfg", "Demo.tla"]
    assert " MODULE Demo " in (tmp_path / "Demo.tla").read_text().splitlines()[0]
    assert "INVARIANTS" in (tmp_path / "Demo.cfg").read_text()


def test_a_configuration_never_replaces_the_spec(tmp_path: Path) -> None:
    spec = tmp_path / "Demo.cfg"
    spec.write_text((ROOT / DEMO).read_text())
    answer = lockmodel("export", str(spec), "--to", "tla", "--workers", "2", "-o", str(tmp_path / "Demo.tla"))
    assert answer.returncode == 2 and "would be overwritten" in answer.stderr.replace("\n", " ")
    assert spec.read_text() == (ROOT / DEMO).read_text()


def test_on_standard_output_the_configuration_comes_behind_the_end_of_the_module() -> None:
    answer = lockmodel("export", "-", "--to", "tla", "--workers", "2", stdin=(ROOT / DEMO).read_text())
    module, end, rest = answer.stdout.partition("\n" + "=" * 80 + "\n")
    assert end and "INVARIANTS" in rest and "INVARIANTS" not in module


@pytest.mark.parametrize("form", FORMATS)
def test_overrides_reach_the_export(form: str) -> None:
    answer = lockmodel("export", "specs/striped.yaml", "--to", form, "--workers", "3", "--set", "stripe=5")
    assert "lane[4] FOR UPDATE" in answer.stdout.replace('", "row", "', " ")
    assert "3 workers: worker 1, worker 2, worker 3" in answer.stdout
    assert "specs/striped.yaml --set stripe=5 --workers 3" in answer.stdout


@pytest.mark.parametrize("form", FORMATS)
def test_the_smallest_deadlock_reads_as_it_should(form: str) -> None:
    """The whole export, for whoever reads the difference: `SNAP_UPDATE=1` writes it anew."""
    system = compile_spec(load(ROOT / DEMO))
    exported = export(form, system, crew(system, 2), "Exported by lockmodel from deadlock-demo.yaml")
    for suffix, text in {{"promela": ".pml", "tla": ".tla"}[form]: exported.text, **exported.beside}.items():
        golden = GOLDEN / f"export-deadlock-demo{suffix}"
        if os.environ.get("SNAP_UPDATE"):
            golden.write_text(text, encoding="utf-8")
        assert golden.read_text(encoding="utf-8") == text


# Names


def test_each_text_gets_an_identifier_of_its_own() -> None:
    names = Identifiers(["chan"])
    assert [names.new(text) for text in ("lane[q1#0, 1]", "lane[q1_0,1]", "chan", "7 up", "§")] == [
        "lane_q1_0_1", "lane_q1_0_1_2", "chan_2", "x_7_up", "x",
    ]  # fmt: skip
    assert len(identifier("x" * 500)) <= 60


@pytest.mark.parametrize(
    "text", ["*/ nest /* (* and *) ****/ (((* \\", "//**//", "a\nb\tc", "„quotes“ ' \"", "\\* x \\"]
)
def test_a_comment_ends_nothing_but_itself(text: str) -> None:
    safe = comment(text)
    assert safe.isascii() and "\n" not in safe
    assert not any(mark in f" {safe} " for mark in ("*/", "/*", "(*", "*)", "//"))


def test_strings_are_ascii_and_stay_different() -> None:
    assert string("lane[q1#0, 1]") == '"lane[q1#0, 1]"'
    assert string('é "<\\\n') == '"<e9> <22><3c><5c><a>"'


# Formulas


def value(term: Term, counts: list[int]) -> int | bool:
    """What another checker makes of an exported formula."""
    if isinstance(term, Number | Truth):
        return term.value
    if isinstance(term, Count):
        return counts[term.index]
    first, *rest = (value(operand, counts) for operand in term.operands)
    match term.operator:
        case "not":
            return not first
        case "neg":
            return -first
        case "if":
            return rest[0] if first else rest[1]
        case "and":
            return first and all(rest)
        case "or":
            return first or any(rest)
    second = rest[0]
    return {
        "+": first + second, "-": first - second, "*": first * second, "==": first == second, "!=": first != second,
        "<": first < second, "<=": first <= second, ">": first > second, ">=": first >= second,
    }[term.operator]  # fmt: skip


def holds(one: Formula, semantics: Semantics, state: State) -> bool:
    waiting = semantics.waiting(state)
    here = list(enumerate(zip(semantics.crew.roles, state.locations, strict=True)))

    def count(tally: Tally) -> int:
        return sum(
            place in tally.always or place in (tally.waiting if worker in waiting else tally.going)
            for worker, place in here
        )

    (term,) = [term for valuations, term in one.cases if state.valuation in valuations]
    return bool(value(term, [count(tally) for tally in one.tallies]))


def states(semantics: Semantics, most: int) -> list[State]:
    seen, pending = {semantics.initial: None}, [semantics.initial]
    for state in pending:
        for action in semantics.actions(state):
            after = semantics.after(state, action)
            if after not in seen and len(seen) < most:
                seen[after] = None
                pending.append(after)
    return pending


def test_exported_formulas_are_true_in_the_same_states() -> None:
    """On the first states of generated specs."""
    compared, truths = 0, set()
    for number in range(200):
        system = compile_spec(parse(to_yaml(spec_of(numbered(number)))))
        semantics = Semantics(system, crew(system, 1))
        found = evaluators(semantics)
        if not found:
            continue
        try:
            reached = states(semantics, 300)
        except SpecError:
            continue
        for evaluator in found:
            one = formula(semantics, evaluator)
            for state in reached:
                expected = not evaluator.violated(state, semantics.waiting(state))
                assert holds(one, semantics, state) is expected, f"spec {number}, {one.name}, {state}"
                truths.add((evaluator.property.always, expected))
            compared += 1
    assert compared > 80 and len(truths) == 4


FORMULA = """\
name: formulas
variables: {{n: {{values: [-1, 0, 1]}}, word: {{values: [x, y]}}, yes: {{values: [true, false]}}}}
resources: {{a: {{kind: lock, per: [s]}}}}
sets: {{s: 2}}
transactions: {{t: {{choose: {{i: s}}, steps: [{{"a[i]": SHARED}}, {{set: {{n: 1}}}}, {{"a[0]": EXCLUSIVE}}]}}}}
workers: 3
always:
  claim: "{formula}"
"""


@pytest.mark.parametrize("text", [
    "count(w.holds(a)) * 2 - 3 < n + count(w.waits_for(a[0])) if yes else false",
    "-count(w.holds(a[0])) == n or word == x",
    "0 <= count(w.holds(a)) < 2 <= 5",
    "count(w.holds(a)) in (0, n, 3) and count(w.holds(a)) not in (word, 2)",
    "(count(w.holds(a)) > 1) == (count(w.holds(a[1])) == 1)",
    "(count(w.holds(a)) > 1) != yes",
    "count(w.holds(a)) == true",
    "count(w.holds(a)) != word",
    "not any(count(w.holds(a[k], 'EXCLUSIVE')) + count(w.holds(a[k])) > 2 for k in s)",
    "all(count(w.holds(a[k]) and w.status == running and n == 1) <= 1 for k in s)",
    "(2 if count(w.holds(a)) > 1 else n) == 2",
])  # fmt: skip
def test_every_operator_is_exported(text: str) -> None:
    system = compile_spec(parse(FORMULA.format(formula=text)))
    semantics = Semantics(system, crew(system, 1))
    (evaluator,) = evaluators(semantics)
    one = formula(semantics, evaluator)
    truths = set()
    for state in states(semantics, 2_000):
        expected = not evaluator.violated(state, semantics.waiting(state))
        assert holds(one, semantics, state) is expected, state
        truths.add(expected)
    assert truths
    for form in FORMATS:
        assert export(form, system, semantics.crew, "a test").text


@pytest.mark.parametrize(("text", "words"), [
    ("count(w.holds(a)) // 2 == 1", "// and % of a count differ from language to language"),
    ("(word if count(w.holds(a)) > 1 else 1) == 1", "is a word on one side"),
])  # fmt: skip
def test_what_other_languages_can_not_say_is_refused(text: str, words: str) -> None:
    system = compile_spec(parse(FORMULA.format(formula=text), "spec.yaml"))
    for form in FORMATS:
        with pytest.raises(UsageError, match=r"^spec.yaml:8: this formula can't be exported: ") as caught:
            export(form, system, crew(system, 1), "a test")
        assert words in str(caught.value)
