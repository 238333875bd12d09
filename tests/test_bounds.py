"""A small file can't make `check` take long or fill the memory: each of these answers within bounds, by one error line or a result.

Each is checked in a process of its own that may have 1.5 GB. The time allowed is generous; each takes some seconds at most.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import warnings
from pathlib import Path

import pytest
from generated import spec_of, to_yaml
from test_differential import numbered

from lockmodel.checker import check
from lockmodel.compiler import compile_spec
from lockmodel.engines import AUTO, EngineOptions
from lockmodel.errors import LockmodelError
from lockmodel.exploration import Limits
from lockmodel.parser import load, parse
from lockmodel.prover import places, prove

SECONDS = 120
MEMORY = 1_500_000_000
LIMITS = Limits(max_states=300, timeout_seconds=5)

_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["lockmodel.checker", "lockmodel.parser"])


def check_in_bounds(path: Path, engine: str) -> None:
    """Check the spec in `path` with limited memory; what is said of it goes to `answer` beside it, all else to `noise`."""
    noise = os.open(path.with_name("noise"), os.O_CREAT | os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(noise, stream)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    warnings.simplefilter("error")
    try:
        said = f"checked: {check(load(path), limits=LIMITS, engine=EngineOptions(engine)).verdict.outcome}"
    except LockmodelError as error:
        said = f"refused: {error}"
    path.with_name("answer").write_text(said)


def answer(data: str, folder: Path, engine: str = AUTO) -> str:
    """What `check` says about a file with `data`: `checked: VERDICT` or `refused: MESSAGE`."""
    path = folder / "bomb.yaml"
    path.write_bytes(data.encode())
    process = _PROCESSES.Process(target=check_in_bounds, args=(path, engine))
    process.start()
    process.join(SECONDS)
    if process.is_alive():
        process.kill()
        pytest.fail(f"no answer within {SECONDS} s")
    assert (folder / "noise").read_text() == ""
    assert process.exitcode == 0
    said = (folder / "answer").read_text()
    assert said.isprintable()
    assert len(said) < 800
    return said


def filled(unit: str, before: str = "", size: int = 256 * 1024) -> str:
    """`before`, and then `unit` again and again, just as long as a spec may be."""
    return before + unit * ((size - len(before.encode())) // len(unit.encode()))


LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join(['*' + before] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
HEAD = "name: x\nresources: {l: {kind: lock}}\ntransactions:\n"
YAML = {
    "a billion laughs": (LAUGHS, "25,000 parts"),
    "an alias of itself": ("a: &a [*a]\n", "inside of what it stands for"),
    "deep brackets": ("name: " + "[" * 100_000, "nested deeper"),
    "deep brackets, closed": ("name: " + "[" * 100_000 + "]" * 100_000, "nested deeper"),
    "deep brackets, a line each": (filled("[\n", "a: "), "nested deeper"),
    "deep mappings": (filled("{a: ", "name: "), "nested deeper"),
    "deep indentation": ("".join(" " * depth + "a:\n" for depth in range(700)), "nested deeper"),
    "deep lists": (filled("- ", "a:\n "), "nested deeper"),
    "deep keys": (filled("? "), "nested deeper"),
    "many keys with ?": (filled("? a\n"), "25,000 parts"),
    "many empty keys": (filled(":\n"), "25,000 parts"),
    "many keys": ("".join(f"key{number}: v\n" for number in range(18_000)), "25,000 parts"),
    "many keys that are unknown": ("name: x\n" + "".join(f"k{number}: v\n" for number in range(12_000)), "unknown key 'k0'"),
    "many list entries": (filled("- x\n"), "25,000 parts"),
    "many anchors": ("".join(f"- &a{number} x\n" for number in range(20_000)), "a spec is a mapping"),
    "one anchor many times": (filled("- &a x\n"), "25,000 parts"),
    "anchors and nothing else": (filled("&a "), "not valid YAML"),
    "many aliases": (filled("- *a\n", "- &a x\n"), "25,000 parts"),
    "a long list": (filled("x,", "a: ["), "25,000 parts"),
    "a long mapping": ("a: {" + "".join(f"k{number}: v," for number in range(22_000)), "25,000 parts"),
    "many pairs": (filled("a: b,", "a: ["), "25,000 parts"),
    "a long word": (filled("x", "name: "), "lacks the key 'resources'"),
    "a long text": (filled("x y ", 'name: "'), "a quote that opens here"),
    "many escapes": (filled("\\x41", 'name: "') , "a quote that opens here"),
    "a long folded text": (filled("  x y\n", "name: >\n"), "lacks the key 'resources'"),
    "a long key": (filled("a", "? "), "this is no spec"),
    "a long tag": (filled("a", "name: !"), "has no meaning"),
    "many tags": (filled("! "), "has no meaning"),
    "many documents": (filled("---\n"), "one spec"),
    "many directives": (filled("%A b\n"), "not valid YAML"),
    "many comments": (filled("# x\n"), "the file is empty"),
    "many empty lines": (filled("\n"), "the file is empty"),
    "many quotes": (filled("'"), "a spec is a mapping"),
    "many commas": (filled(","), "not valid YAML"),
    "many steps that are wrong": (HEAD + " t:\n  steps:\n" + "   - x: 1\n" * 8_000, "needs a lock mode"),
    "many steps of a wrong type": (HEAD + " t:\n  steps:\n" + "   - 1\n" * 20_000, "it is the number 1"),
    "an element among thousands": ("name: x\nsets: {s: [" + ",".join(f"e{n}" for n in range(4096)) + "]}\n" + HEAD[8:].replace("lock}", "lock, per: [s]}") + " t: {steps: ['l[e9999]': SHARED]}\n", "did you mean e999?"),
}  # fmt: skip


@pytest.mark.parametrize("name", YAML)
def test_a_yaml_bomb_is_refused(name: str, tmp_path: Path) -> None:
    """The library is slow and recursive, so a document is refused as soon as it has too many parts or levels."""
    data, said = YAML[name]
    assert said in answer(data, tmp_path)


def spec(steps: str, sets: str = "s: 2", resource: str = "kind: lock", more: str = "", end: str = "workers: 2") -> str:
    """A spec with one transaction."""
    steps = steps.replace("\n", "\n      ")
    return f"name: x\nsets: {{{sets}}}\nresources: {{l: {{{resource}}}}}\ntransactions:\n  t:\n{more}    steps:\n      {steps}\n{end}\n"


BIG = "s: 4096"
PER = "kind: lock, per: [s]"
EACH = "- for: {a: s}\n  order: %s\n  do: ['l[a]': EXCLUSIVE]"
VALUES = "workers: 2\nvariables: {v: {values: 4096}}"
NAMES = ", ".join(f"e{number}" for number in range(4096))
TOO_MUCH = "refused"
COMPILED = {
    "resources over two big sets": (spec("- l[0, 0]: SHARED", "s: 4096, r: 4096", "kind: lock, per: [s, r]"), "100,000 resources"),
    "resources over thousands of sets": (spec("- l: SHARED", ", ".join(f"s{n}: 30" for n in range(3_000)), f"kind: lock, per: [{', '.join(f's{n}' for n in range(3_000))}]"), "100,000 resources"),
    "thousands of big sets": (spec("- l: SHARED", ", ".join(f"s{n}: 4096" for n in range(3_000))), "elements in all"),
    "variables without end": ("variables:\n" + "".join(f"  v{n}: {{values: 4096}}\n" for n in range(60)) + spec("- l: SHARED"), "4,096 combinations"),
    "thousands of constants": ("variables:\n" + "".join(f"  v{n}: {{values: 1}}\n" for n in range(2_000)) + spec("- l: SHARED"), "the most is 64"),
    "a big resource": (spec("- l[a]: SHARED", BIG, PER, "    choose: {a: s}\n"), "checked: HOLDS"),
    "three parameters over a big set": (spec("- l[a]: SHARED\n- l[b]: SHARED\n- l[c]: SHARED", BIG, PER, "    choose: {a: s, b: s, c: s}\n"), "50,000 different places"),
    "a loop over nine big sets, with no body": (spec("- for: {a: s, b: s, c: s, d: s, e: s, f: s, g: s, h: s, i: s}\n  do: []", BIG), "unfolds"),
    "a loop over nine big sets, rotated": (spec("- for: {a: s, b: s, c: s, d: s, e: s, f: s, g: s, h: s, i: s}\n  order: rotated\n  do: []", BIG), "unfolds"),
    "a loop over nine big sets, in any order": (spec("- for: {a: s, b: s, c: s, d: s, e: s, f: s, g: s, h: s, i: s}\n  order: any\n  do: []", BIG), "unfolds"),
    "a big loop": (spec(EACH % "forward", BIG, PER), "unfolds"),
    "a big loop, rotated": (spec(EACH % "rotated", BIG, PER), "unfolds"),
    "30 elements in any order": (spec(EACH % "any", "s: 30", PER), "unfolds"),
    "a lock order of 1,200": (spec(EACH % "forward", "s: 1200", PER, end="workers: any"), "checked: HOLDS"),
    "12 elements in any order": (spec(EACH % "any", "s: 12", PER, end="workers: any"), "checked"),
    "2^40 silent ways": (spec("- for: {a: s}\n  do: [either: [[], []]]\n- l: SHARED", "s: 40"), "checked: HOLDS"),
    "the same branch thousands of times": (HEAD + "  t:\n    steps:\n      - &a {either: [[l: SHARED], []]}\n" + "      - *a\n" * 3_000, "unfolds"),
    "a counter": (spec("- for: {a: s, b: s}\n  do: [set: {v: v + 1}]", BIG, more="    let: {v: 0}\n"), "unfolds"),
    "savepoints": (spec("- for: {a: s}\n  do: [savepoint: p]", BIG), "unfolds"),
    "session locks that pile up": (spec("- for: {a: s}\n  do: [either: [['l[a]': SHARED TRY], ['release': 'l[a]']]]", "s: 20", "kind: advisory, scope: session, per: [s]"), TOO_MUCH),
    "units that pile up": (spec("- for: {a: s}\n  do: [l: TAKE]", BIG, "kind: pool, size: 5000"), "unfolds"),
    "conditions on 4096 values": (spec("- if: v == 5\n  then: [l: SHARED]\n" * 300, end=VALUES), "unfolds"),
    "commits on 4096 values": (spec("- l[a]: SHARED", BIG, PER, "    choose: {a: s}\n    on commit: {v: (v + 1) % 4096}\n", VALUES), "unfolds"),
    "thousands of mentions of an element": (spec("- l[a]: SHARED\n" * 2_000, f"s: [{NAMES}], t: [{NAMES}]", PER, "    choose: {a: t}\n"), TOO_MUCH),
    "thousands of workers": (spec("- l: SHARED", end="workers: 4096"), "checked"),
    "thousands of workers in conflict": (spec("- l[a]: EXCLUSIVE\n- l[b]: EXCLUSIVE", "s: 9", PER, "    choose: {a: s, b: s}\n", "workers: 4096"), "checked"),
    "thousands of roles": (spec("- l: SHARED", end="roles: {" + ", ".join(f"r{n}: {{runs: [t]}}" for n in range(3_000)) + "}"), "workers are too many"),
    "a mention without end": (HEAD + '  t:\n    steps:\n      - ? "l' + " " * 200_000 + 'x"\n        : SHARED\n', "at most 2,000 characters"),
    "braces without end": (HEAD + '  t: {steps: [{l: SHARED, sql: "' + "{" * 200_000 + '"}]}\n', "checked"),
}  # fmt: skip


@pytest.mark.parametrize("name", COMPILED)
def test_a_spec_that_unfolds_without_end_is_refused(name: str, tmp_path: Path) -> None:
    """What a spec stands for is counted while it unfolds, so that too much of it is refused before it fills the memory."""
    data, said = COMPILED[name]
    # With an engine asked for by name, even what is proved is compiled and searched.
    assert said in answer(data, tmp_path, "reference")


@pytest.mark.parametrize(
    "name", ["three parameters over a big set", "a big loop", "the same branch thousands of times"]
)
def test_what_is_too_large_to_unfold_can_still_be_proved(name: str, tmp_path: Path) -> None:
    """The proof on the program does not unfold it, and takes no more time or memory than the bounds allow."""
    assert answer(COMPILED[name][0], tmp_path) == "checked: HOLDS"


def any_of(depth: int, inside: str) -> str:
    for level in range(depth):
        inside = f"any({inside} for q{level} in s)"
    return inside


FORMULAS = {
    "a tower of powers": ("9**9**9 == 1", "not allowed"),
    "a shift": ("1 << 99999999 == 1", "not allowed"),
    "a product": ("count(true) * 999999999999 * 999999999999 == 1", "grows too large"),
    "a text times a number": ("count(w.status == 'a' * 99999999) == 1", "not an integer"),
    "a long number": ("9" * 1_900 + " == 1", "is too large"),
    "deep parentheses": ("(" * 900 + "1" + ")" * 900, "too many nested parentheses"),
    "deep parentheses that Python takes": ("(" * 150 + "true" + ")" * 150, "checked: VIOLATED"),
    "many nots": ("not " * 450 + "true", "levels deep"),
    "many minuses": ("-" * 1_900 + "1", "levels deep"),
    "a long sum": ("1" + "+1" * 900 + " == 3", "levels deep"),
    "a long chain": ("1" + "<1" * 900, "checked"),
    "comparisons in comparisons": ("true == (" * 35 + "1 < 2 < 3" + ")" * 35, "checked"),
    "conditions in conditions": ("1 < (1 if " * 17 + "1 < 2" + " else 2) < 3" * 17, "checked"),
    "20 levels of any": (any_of(20, "q1 == 1"), "levels deep"),
    "9 levels of any": (any_of(9, "q1 + q2 == 9"), "terms"),
    "any over a big set, twice": ("any(any(p == q for q in big) for p in big)", "terms"),
    "any over a big set, twice, of a name": ("any(any(q for q in big) for p in big)", "terms"),
    "any over a big set": ("any(count(w.holds(l[p])) > 2 for p in big)", "checked"),
    "a long text": ("'" + "a" * 10_000 + "' == 'b'", "at most 2,000 characters"),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMULAS)
def test_a_formula_without_end_is_refused(name: str, tmp_path: Path) -> None:
    """A formula is small, and so are its numbers and what it is written out to."""
    formula, said = FORMULAS[name]
    text = spec("- l[a]: EXCLUSIVE", "s: 12, big: 4096", "kind: lock, per: [big]", "    choose: {a: big}\n")
    assert said in answer(f'{text}never: {{p: "{formula}"}}\n', tmp_path)


def test_a_spec_of_a_hundred_kilobytes_is_checked(tmp_path: Path) -> None:
    """The limits are far from what people write: 100 KB of ordinary transactions are read and checked."""
    transactions = "".join(
        f"  claim {number}:\n    doc: Takes two lanes, one after the other, and says at some length why that is no problem at all.\n"
        f"    choose: {{a: s}}\n    steps:\n      - l[a]: FOR UPDATE\n        sql: SELECT * FROM lane WHERE id = {{a}} FOR UPDATE\n"
        for number in range(450)
    )
    data = f"name: x\nsets: {{s: 4}}\nresources: {{l: {{kind: row, per: [s]}}}}\ntransactions:\n{transactions}workers: any\n"
    assert len(data) > 100_000
    assert answer(data, tmp_path) == "checked: HOLDS"


def test_a_proof_without_comparisons_proves_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are too many points to compare, only a lock order counts; what that proves, comparing proves too."""
    systems = [compile_spec(parse(to_yaml(spec_of(numbered(number))))) for number in range(120)]
    by_comparing = [prove(system) is not None for system in systems]
    monkeypatch.setattr(places, "MAX_CHECKS", 0)
    by_order = [prove(system) is not None for system in systems]
    assert all(compared for ordered, compared in zip(by_order, by_comparing, strict=True) if ordered)
    assert sum(by_order) > 5
    assert sum(by_comparing) > sum(by_order)
