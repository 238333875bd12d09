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
from generated import Tape, spec_of, specs, to_yaml
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


# Documents of the right shape. Of each part, one in thirty or so is not what it should be.


def mostly(right: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.integers(0, 30).flatmap(lambda number: anything if number == 30 else right)


def keyed(
    needed: dict[str, st.SearchStrategy[Any]], **more: st.SearchStrategy[Any]
) -> st.SearchStrategy[dict[str, Any]]:
    """Mappings with the keys in `needed` and some of `more` (`_` for a space)."""
    optional = {key.rstrip("_").replace("_", " "): mostly(value) for key, value in more.items()}
    return st.fixed_dictionaries({key: mostly(value) for key, value in needed.items()}, optional=optional)


def words(text: str) -> st.SearchStrategy[str]:
    return st.sampled_from(text.split("|"))


names = words("s|q|m|v|lane|jobs|ring|pool|send")
few_names = words("s|i|m|v")
formulas = words("v == 1|v|i|m == i|m|v + 1|true|(v + 1) % 2|i == 0 or v == 1|v in (0, 1)|1 if v == 0 else 2|m + 1|0|x")
properties = words(
    "count(w.holds(lane)) > 1|count(w.m == 1) > 0|any(count(w.waits_for(lane[i])) > 1 for i in q)|v == 1|count(w.v) > 0|"
    "count(w.transaction == send and w.status == idle) == 2|all(count(w.holds(lane[i], 'SHARED')) < 2 for i in q)|count(w.m > 0) == 1"
)
locks = st.sampled_from(
    [(f"lane[{at}]", mode) for at in ("0", "1", "i", "(i + 1) % 2", "m", "1 // i", "m + 1") for mode in ("SHARED", "EXCLUSIVE", "SHARED TRY")]
    + [("jobs", "EXCLUSIVE NOWAIT"), ("jobs", "ROW SHARE"), ("ring", "EXCLUSIVE"), ("ring", "SHARED TRY"), ("pool", "TAKE"), ("pool", "TAKE TRY")]
    + [("row[i]", "FOR UPDATE"), ("row[0]", "FOR SHARE SKIP LOCKED"), ("row[i]", "FOR UPDATE NOWAIT"), ("jobs", "FOR UPDATE"), ("lane", "SHARED")]
)  # fmt: skip
ranges = st.sampled_from([{"i": "q"}, {"i": "q"}, {"i": "q", "m": "s"}, {"s": "s"}, {}, {"i": "x"}])
assigned = st.dictionaries(words("v|m"), formulas, min_size=1)
blocks = st.deferred(lambda: st.lists(steps, max_size=2))


def lock_step(lock: tuple[str, str]) -> st.SearchStrategy[Any]:
    options = {"then": blocks, "sql": words("UPDATE t|{i}|SELECT"), "label": words("{i}|{m}|x")}
    if lock[1].endswith(("NOWAIT", "LOCKED", "TRY")):
        options["else_"] = st.just(["rollback"]) | blocks
    return keyed({lock[0]: st.just(lock[1])}, **options)


orders = words("forward|reverse|rotated|any|sideways")
steps: st.SearchStrategy[Any] = st.one_of(
    locks.flatmap(lock_step), locks.flatmap(lock_step), locks.flatmap(lock_step),
    keyed({"for": st.just({"i": "q"}), "do": blocks}, order=orders), keyed({"for": ranges, "do": blocks}, sql=st.just("UPDATE t")),
    keyed({"either": st.lists(blocks, min_size=1, max_size=2)}), keyed({"if": formulas, "then": blocks}, else_=blocks),
    keyed({"set": assigned}), keyed({"savepoint": few_names}), keyed({"rollback to": few_names}),
    keyed({"release": st.just("ring")}, mode=words("SHARED|EXCLUSIVE")), words("commit|rollback|stop"),
)  # fmt: skip
transactions = keyed(
    {"steps": st.lists(steps, max_size=3)},
    choose=st.just({"i": "q"}), let=st.just({"m": "0"}) | assigned, start_when=formulas, on_commit=assigned,
    take_at_start=st.just({"lane[0]": "SHARED"}) | st.just({"ring": "EXCLUSIVE"}),
)  # fmt: skip
RESOURCES = {
    "lane": {"kind": "lock", "per": ["q"]}, "jobs": {"kind": "table"}, "row": {"kind": "row", "per": ["q"], "table": "jobs"},
    "ring": {"kind": "advisory", "scope": "session"}, "pool": {"kind": "pool", "size": 1},
}  # fmt: skip
resources = keyed(
    {"kind": st.sampled_from(list(KINDS))},
    per=st.lists(words("q|s")),
    table=names,
    scope=st.just("session"),
    size=st.integers(0, 3),
)
documents = keyed(
    {
        "name": st.just("x"),
        "sets": st.just({"q": 2, "s": [0, 1, "a"]}),
        "variables": st.just({"v": {"values": 2}}) | st.dictionaries(names, keyed({"values": st.integers(0, 3)}, initial=scalars), max_size=2),
        "resources": mostly(st.just(RESOURCES)) | st.dictionaries(names, resources, max_size=4),
        "transactions": st.dictionaries(words("send|claim"), transactions, min_size=1),
    },
    workers=st.integers(1, 3) | st.just("any"), never=st.dictionaries(names, properties), no_global_stall=st.booleans(),
    roles=st.dictionaries(names, keyed({"runs": st.just(["send"])}, count=st.integers(1, 2)), max_size=2), always=st.dictionaries(names, formulas),
    expect=st.sampled_from(["deadlock", "global stall", {"violated": "m"}, {"deadlock": {"between": ["send"], "on": ["lane"]}}]),
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


@examples(400)
@given(documents)
def test_a_document_of_the_right_shape_with_wrong_parts_is_refused_or_checked(document: dict[str, Any]) -> None:
    """What passes the first look is what the resolver, the compiler and the search have to refuse."""
    survives(json.dumps(document))


def test_the_documents_above_are_not_all_refused_at_the_first_look() -> None:
    """A fuzz test that never reaches the search would show nothing: some of its documents are valid."""
    reached = []

    @settings(max_examples=80, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(documents)
    def look(document: dict[str, Any]) -> None:
        reached.append(survives(json.dumps(document)))

    look()
    assert sum(reached) >= 10


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


@examples(200)
@given(st.sampled_from(SHIPPED), cuts, units)
def test_a_shipped_spec_with_typing_errors_is_refused_or_checked(
    text: str, mistakes: Any, unit: re.Pattern[str]
) -> None:
    """A word or a line is missing, doubled, swapped with another, or junk."""
    survives(mutated(text, mistakes, unit))


@examples(200)
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

FORMULA_WORDS = re.findall(
    r"\S+",
    r"""w . transaction status role holds waits_for count any all for in s q ( ) [ ] , == != < > + - * // % ** and or not if else
    0 1 'a' true false lane lane[0] lambda x : := { } f'{x}' \ # ~ @ is await yield 1e9 0x 1_0 " """,
)
formula_words = st.sampled_from(FORMULA_WORDS)
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
    assert survives(to_yaml(spec_of(Tape(b"lockmodel" * 60))))


@pytest.mark.parametrize("text", SHIPPED, ids=range(len(SHIPPED)))
def test_the_shipped_specs_themselves_are_valid(text: str) -> None:
    """So that their mutations begin from something that is accepted."""
    assert survives(text)
