"""Whatever a file contains, `check` gives a result or raises a LockmodelError of one line; any other exception is a defect.

`LOCKMODEL_FUZZ=50 pytest tests/test_fuzz.py` tries 50 times as many examples as usual, other ones each time.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from generated import spec_of, specs, to_yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lockmodel.checker import check
from lockmodel.errors import LockmodelError
from lockmodel.exploration import Limits
from lockmodel.expressions import ExpressionError, evaluate
from lockmodel.expressions import parse as parse_formula
from lockmodel.modes import KINDS, Wait
from lockmodel.overrides import Overrides, parse_overrides
from lockmodel.parser import parse

SPECS = Path(__file__).parent.parent / "specs"
SHIPPED = [path.read_text() for path in sorted(SPECS.rglob("*.yaml")) if path.stat().st_size < 6_000]
LIMITS = Limits(max_states=150, timeout_seconds=3)
TIMES = int(os.environ.get("LOCKMODEL_FUZZ", "1"))


def examples(count: int) -> settings:
    return settings(
        max_examples=count * TIMES, derandomize=TIMES == 1, suppress_health_check=list(HealthCheck), deadline=None
    )


def survives(data: bytes | str, overrides: Overrides | None = None) -> bool:
    """Whether `data` is a spec. Fails if it is refused in any way but a clear line."""
    try:
        check(parse(data, "q.yaml"), overrides, LIMITS)
    except LockmodelError as error:
        said = str(error)
        assert (said.isprintable() and len(said) < 700 and said.startswith("q.yaml")) or overrides is not None, said
        assert not re.search(r"Traceback|<class|object at 0x|pydantic|not valid YAML near here", said), said
        return False
    return True


# Words of the language, and some that are none

MODES = [mode for kind in KINDS.values() for mode in kind.modes]
KEYS = [
    "name", "doc", "sets", "variables", "resources", "transactions", "workers", "roles", "never", "always", "no global stall",
    "expect", "schema", "replay", "values", "initial", "kind", "per", "table", "scope", "size", "stands for", "choose",
    "start when", "let", "take at start", "steps", "on commit", "call", "for", "do", "order", "sql", "label", "either", "if",
    "then", "else", "set", "savepoint", "rollback to", "release", "mode", "table mode", "count", "runs", "deadlock", "between",
    "on", "violated", "states", "s", "lane", "lane[s]", "lane[0]", "jobs", "pool", "ring", "q", "v", "claim", "<<", "?for", "",
]  # fmt: skip
WORDS = [
    *KEYS, *KINDS, *MODES, *(f"{mode} {wait}" for mode in MODES for wait in Wait if wait), "commit", "rollback", "any", "forward",
    "rotated", "reverse", "session", "no deadlock", "global stall", "true", "v == 1", "s == 0", "v + 1", "v // 0", "{s}", "{",
    "count(w.holds(lane[s])) > 1", "any(count(w.holds(lane[s])) > 1 for s in q)", "q#0", "'", "-1", "9" * 30, "\u0000", "\ud800",
]  # fmt: skip
scalars = st.one_of(
    st.sampled_from(WORDS),
    st.integers(-2, 5),
    st.sampled_from([True, False, None, 0, 4096, 10**20]),
    st.text(max_size=6),
)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=12,
)


def keyed(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Mappings with some of `fields` (`_` for a space), each as it should be or, now and then, anything."""
    return st.fixed_dictionaries(
        {}, optional={key.rstrip("_").replace("_", " "): value | anything for key, value in fields.items()}
    )


names = st.sampled_from(["s", "q", "v", "lane", "jobs", "ring", "pool", "claim", "send", "m"])
formulas = st.sampled_from(
    [
        "v == 1",
        "v",
        "s",
        "m == s",
        "m",
        "v + 1",
        "true",
        "(v + 1) % 2",
        "s == 0 or v == 1",
        "v in (0, 1)",
        "1 if v else 2",
        "x",
    ]
)
properties = st.sampled_from(
    ["count(w.holds(lane)) > 1", "count(w.m == 1) > 0", "any(count(w.waits_for(lane[s])) > 1 for s in q)", "v == 1", "count(w.v) > 0",
     "count(w.transaction == claim and w.status == idle) == 2", "all(count(w.holds(lane[s], 'SHARED')) < 2 for s in q)"]
)  # fmt: skip
references = st.sampled_from(
    [
        "lane[s]",
        "lane[0]",
        "lane",
        "jobs",
        "ring",
        "pool",
        "lane[(s + 1) % 2]",
        "lane[m]",
        "lane[1 // s]",
        "lane[s, 0]",
        "x",
    ]
)
modes = st.builds(lambda mode, wait: f"{mode} {wait}".strip(), st.sampled_from(MODES), st.sampled_from(list(Wait)))
ranges = st.dictionaries(names, st.sampled_from(["q", "s", "x"]), max_size=2)


def lock_step(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    options = keyed(then=inner, else_=inner, sql=scalars, label=st.sampled_from(["{s}", "{m}", "x"]), table_mode=modes)
    return st.builds(lambda reference, mode, more: {reference: mode, **more}, references, modes, options | st.just({}))


def more_steps(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    blocks = st.lists(inner, max_size=3)
    return st.one_of(
        lock_step(blocks),
        keyed(
            for_=ranges,
            do=blocks,
            order=st.sampled_from(["forward", "reverse", "rotated", "any"]),
            sql=st.just("UPDATE t"),
        ),
        st.fixed_dictionaries({"for": ranges, "do": blocks}),
        st.fixed_dictionaries({"either": st.lists(blocks, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"if": formulas, "then": blocks, "else": blocks}),
        st.fixed_dictionaries({"set": st.dictionaries(names, formulas, min_size=1, max_size=2)}),
    )


simple_steps = st.one_of(
    lock_step(st.just([])),
    st.fixed_dictionaries({"savepoint": names}),
    st.fixed_dictionaries({"rollback to": names}),
    st.fixed_dictionaries({"release": references, "mode": modes}),
    st.sampled_from(["commit", "rollback"]),
    scalars,
)
steps = st.lists(st.recursive(simple_steps, more_steps, max_leaves=6), max_size=4)
transactions = st.fixed_dictionaries(
    {"steps": steps},
    optional={
        "choose": ranges, "let": st.dictionaries(names, formulas, max_size=2), "start when": formulas,
        "take at start": st.dictionaries(references, modes, max_size=2), "on commit": st.dictionaries(names, formulas, max_size=2),
    },
)  # fmt: skip
resources = st.fixed_dictionaries(
    {"kind": st.sampled_from(list(KINDS))},
    optional={
        "per": st.lists(st.sampled_from(["q", "s"]), max_size=2), "table": names, "scope": st.just("session"), "size": st.integers(0, 3),
    },
)  # fmt: skip
documents = st.fixed_dictionaries(
    {
        "name": st.just("x"),
        "sets": st.just({"q": 2, "s": [0, 1, "a"]}) | st.dictionaries(names, st.integers(0, 4) | st.lists(scalars, max_size=3), max_size=2),
        "resources": st.just({"lane": {"kind": "lock", "per": ["q"]}, "jobs": {"kind": "table"}, "ring": {"kind": "advisory", "scope": "session"}, "pool": {"kind": "pool", "size": 1}})
        | st.dictionaries(names, resources, max_size=4),
        "transactions": st.dictionaries(names, transactions, min_size=1, max_size=2),
    },
    optional={
        "variables": st.just({"v": {"values": 2}}) | st.dictionaries(names, keyed(values=st.integers(0, 3) | st.lists(scalars), initial=scalars), max_size=2),
        "workers": st.integers(0, 3) | st.just("any"),
        "roles": st.dictionaries(names, keyed(count=st.integers(0, 2), runs=st.lists(names, max_size=2)), max_size=2),
        "never": st.dictionaries(names, properties | formulas, max_size=2),
        "always": st.dictionaries(names, properties, max_size=2),
        "no global stall": st.booleans(),
        "expect": st.sampled_from(["deadlock", "global stall", {"violated": "m"}, {"deadlock": {"between": ["claim"], "on": ["lane"]}}]) | anything,
    },
)  # fmt: skip


# Bytes, texts, documents


@examples(300)
@given(st.binary(max_size=200))
def test_any_bytes_are_refused_or_read(data: bytes) -> None:
    """A file of any kind, named by mistake."""
    survives(data)


@examples(300)
@given(st.text(max_size=200) | st.text(alphabet="{}[]-:,?|>&*!%@`#'\" \n\t~ab01<.", max_size=60))
def test_any_text_is_refused_or_read(text: str) -> None:
    """All the characters that mean something to YAML, in any order."""
    survives(text)


@examples(300)
@given(anything)
def test_any_document_made_of_the_language_s_own_words_is_refused_or_read(document: Any) -> None:
    """Keys and values of the language where they don't belong. JSON is YAML too."""
    survives(json.dumps(document))


@examples(700)
@given(documents)
def test_a_document_of_the_right_shape_with_wrong_parts_is_refused_or_checked(document: dict[str, Any]) -> None:
    """What passes the first look is what the resolver, the compiler and the search have to refuse."""
    survives(json.dumps(document))


def test_the_documents_above_are_not_all_refused_at_the_first_look() -> None:
    """A fuzz test that never reaches the search would show nothing: some of its documents are valid."""
    reached = []

    @settings(max_examples=150, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(documents)
    def look(document: dict[str, Any]) -> None:
        reached.append(survives(json.dumps(document)))

    look()
    assert sum(reached) > 10


# Mutations

TOKEN = re.compile(r"\w+|[^\S\n]+|\n|[^\w\s]")
JUNK = [
    "",
    "-",
    ":",
    "[",
    "]",
    "{",
    "}",
    "'",
    '"',
    "#",
    "&a ",
    "*a",
    "!x ",
    "|",
    "~",
    "0",
    "-1",
    "any",
    "w",
    "\t",
    "\n",
    "  ",
    "%",
    "é",
]


def mutated(text: str, cuts: list[tuple[str, int, int, str]], unit: re.Pattern[str]) -> str:
    """`text` after some of its units are deleted, doubled, swapped or replaced."""
    parts = unit.findall(text)
    for what, here, there, junk in cuts:
        i, j = here % len(parts), there % len(parts)
        match what:
            case "delete":
                parts[i] = ""
            case "double":
                parts[i] *= 2
            case "swap":
                parts[i], parts[j] = parts[j], parts[i]
            case "copy":
                parts[i] = parts[j]
            case _:
                parts[i] = junk
    return "".join(parts)


cuts = st.lists(
    st.tuples(
        st.sampled_from(["delete", "double", "swap", "copy", "junk"]), st.integers(0, 9_999), st.integers(0, 9_999), st.sampled_from(JUNK)
    ),
    min_size=1,
    max_size=3,
)  # fmt: skip
units = st.sampled_from([TOKEN, re.compile(r".*\n?")])


@examples(250)
@given(st.sampled_from(SHIPPED), cuts, units)
def test_a_shipped_spec_with_typing_errors_is_refused_or_checked(
    text: str, mistakes: Any, unit: re.Pattern[str]
) -> None:
    """A word or a line is missing, doubled, swapped with another, or junk."""
    survives(mutated(text, mistakes, unit))


@examples(250)
@given(specs(), cuts, units)
def test_a_generated_spec_with_typing_errors_is_refused_or_checked(
    spec: Any, mistakes: Any, unit: re.Pattern[str]
) -> None:
    """The same for specs that use every construct of the language."""
    survives(mutated(to_yaml(spec), mistakes, unit))


@examples(100)
@given(
    st.sampled_from(SHIPPED),
    st.lists(
        st.builds("{}={}".format, st.sampled_from(["stripe", "queue", "slot", "x"]), scalars | st.just("a,b")),
        max_size=2,
    ),
    st.lists(st.sampled_from(["1", "any", "0", "x=2", "producer=3", "=", "99999999999999999999"]), max_size=2),
)
def test_any_override_of_a_shipped_spec_is_refused_or_checked(
    text: str, settings_: list[str], workers: list[str]
) -> None:
    """--set and --workers come from the command line, where anything can stand too."""
    try:
        overrides = parse_overrides(settings_, workers)
    except LockmodelError as error:
        assert str(error).isprintable()
    else:
        survives(text, overrides)


# Formulas and references

formula_words = st.sampled_from(
    [
        "w",
        ".",
        "transaction",
        "status",
        "role",
        "holds",
        "waits_for",
        "count",
        "any",
        "all",
        "for",
        "in",
        "s",
        "q",
        "(",
        ")",
        "[",
        "]",
        ",",
        "==",
        "!=",
        "<",
        ">",
        "+",
        "-",
        "*",
        "//",
        "%",
        "**",
        "and",
        "or",
        "not",
        "if",
        "else",
        "0",
        "1",
        "'a'",
        "true",
        "false",
        "lane",
        "lane[0]",
        "lambda",
        "x",
        ":",
        ":=",
        "{",
        "}",
        "f'{x}'",
        "\\",
        "#",
        "~",
        "@",
        "is",
        "await",
        "yield",
        "1e9",
        "0x",
        "1_0",
        '"',
    ]
)
formula_texts = st.text(max_size=40) | st.lists(formula_words, max_size=14).map(" ".join)


@examples(600)
@given(formula_texts, st.booleans())
def test_any_formula_is_refused_or_evaluated(text: str, about_workers: bool) -> None:
    """Evaluating what was accepted gives a value of the language or an ExpressionError."""
    try:
        expression = parse_formula(text, about_workers=about_workers)
        value = evaluate(expression.tree, {"s": 1, "q": "a"}, lambda node: None, lambda node: 2)
    except ExpressionError as error:
        assert "\n" not in str(error)
    else:
        assert isinstance(value, int | str | bool)


TEMPLATE = """
name: x
sets: {q: 2, s: [a, b]}
variables: {v: {values: 2}}
resources: {lane: {kind: lock, per: [q]}, two: {kind: lock, per: [q, s]}}
transactions:
  t:
    choose: {p: q}
    let: {m: p}
    steps: [%s]
workers: 1
never: %s
"""


@examples(300)
@given(formula_texts | st.lists(formula_words, max_size=5).map(lambda words: f"lane[{' '.join(words)}]"), formula_texts)
def test_any_resource_and_any_property_are_refused_or_checked(resource: str, formula: str) -> None:
    """A mention of a resource is a small language of its own."""
    lock = json.dumps({resource or "lane[0]": "EXCLUSIVE"})
    survives(TEMPLATE % (lock, json.dumps({"p": formula})))


def test_the_generated_specs_themselves_are_valid() -> None:
    """So that their mutations begin from something that is accepted."""
    assert survives(to_yaml(spec_of(__import__("generated").Tape(b"lockmodel" * 60))))


@pytest.mark.parametrize("text", SHIPPED, ids=range(len(SHIPPED)))
def test_the_shipped_specs_themselves_are_valid(text: str) -> None:
    """So that their mutations begin from something that is accepted."""
    assert survives(text)
