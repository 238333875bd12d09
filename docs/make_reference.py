"""Writes docs/reference.md from the JSON Schemas of specs and scenarios: `python docs/make_reference.py`.

All words of the page are those of the schemas, but for the introduction and the links into docs/language.md, which say what the keys
mean together. `tests/test_reference.py` fails if the page is not up to date.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from lockmodel.fields import Count, Elements, Formula, Value
from lockmodel.json_schema import json_schema
from lockmodel.modes import KINDS
from lockmodel.scenario import Scenario
from lockmodel.spec import Spec

PAGE = Path(__file__).parent / "reference.md"
Schema = Mapping[str, Any]

INTRODUCTION = """\
# Reference: every key of a spec and of a scenario

This page is made from the JSON Schema that `lockmodel schema` prints for editors (`lockmodel schema --scenario`: for scenarios), so it is
complete. It says what may stand where; what it means together, and examples, are in [language.md](language.md) and [code.md](code.md).

A *map* is a YAML mapping with names of your own. `—` stands where a key that is left out means nothing, or what its description says.
"""

EXPLAINED = {
    "Spec": "language.md#the-spec-language",
    "Variable": "language.md#shared-variables",
    "ResourceFamily": "language.md#resources",
    "StandsFor": "code.md#naming-the-code",
    "ReplayTarget": "code.md#naming-the-code",
    "Call": "code.md#naming-the-code",
    "Relation": "language.md#relations",
    "ForeignKey": "language.md#relations",
    "Trigger": "language.md#relations",
    "Transaction": "language.md#transactions",
    "Role": "language.md#workers-and-roles",
    "DeadlockExpected": "language.md#expect",
    "StallExpected": "language.md#stalls",
    "InsertStep": "language.md#statements",
    "UpdateStep": "language.md#statements",
    "DeleteStep": "language.md#statements",
    "SelectStep": "language.md#statements",
    "TruncateStep": "language.md#statements",
    "AlterStep": "language.md#statements",
    "AttachStep": "language.md#statements",
    "DetachStep": "language.md#statements",
    "CommandStep": "language.md#statements",
    "LockStep": "language.md#steps",
    "ForStep": "language.md#steps",
    "Scenario": "code.md#scenarios",
}
"""Where the other pages say what a part means."""

EXAMPLES = {
    "Variable": "authority: {values: [columns, ledger], initial: columns}",
    "ResourceFamily": "lane: {kind: row, per: [stripe], table: jobs}",
    "StandsFor": 'stands for: {relation: lanes, row: {id: "{stripe}"}}',
    "Call": 'call: {operation: claim, arguments: {stripe: "{s}"}}',
    "Role": "consumer: {count: 3, runs: [claim, complete]}",
    "DeadlockExpectation": "deadlock: {between: [enqueue, claim], on: [lane]}",
    "StallExpectation": "stall: {holder: dump, waiter: migrate, delayed: [query]}",
    "ReplayTarget": 'replay: {target: "shop.jobs:Queue", options: {stripes: 2}, ignore: ["audit_*"]}',
    "LockStep": "lane[s]: FOR UPDATE SKIP LOCKED\nelse: [rollback]",
    "ForStep": 'for: {s: stripe}\norder: rotated\ndo: [{"lane[s]": FOR UPDATE}]',
    "StatementStep": "statement: INSERT INTO job (customer) VALUES (7)\ntakes: [{customer: FOR KEY SHARE}]",
    "EitherStep": "either: [[{lane: FOR UPDATE}], []]",
    "IfStep": "if: s == 0\nthen: [{leader: EXCLUSIVE}]",
    "SetStep": "set: {authority: ledger}",
    "SavepointStep": "savepoint: before",
    "RollbackToStep": "rollback to: before",
    "ReleaseStep": "release: leader\nmode: SHARED",
    "InsertStep": "insert: job\ncolumns: [customer]",
    "UpdateStep": "update: customer[c]\ncolumns: [open_jobs]",
    "DeleteStep": "delete: job[j]",
    "SelectStep": "select: job[j]\nfor: UPDATE SKIP LOCKED",
    "TruncateStep": "truncate: job",
    "AlterStep": "alter table: job\naction: add column",
    "AttachStep": "attach partition: job_2026\nto: job",
    "DetachStep": "detach partition: job_2025\nfrom: job",
    "CommandStep": "create index: job",
}
"""How a part is written. One that stands under a key is shown with the key."""

NAMED: dict[str, tuple[Any, str]] = {
    "value": (Value, "A word, an integer, true or false."),
    "formula": (
        Formula,
        "An [expression](language.md#formulas-and-expressions) as text; `true` and `3` are formulas, too.",
    ),
    "elements": (Elements, "The elements of a [set](language.md#sets): a number n (for 0 … n-1), or a list of values."),
    "count": (Count, "A number of workers, or `any`."),
}
"""Small types with a name of their own, each with what it is."""


def page() -> str:
    """The whole page."""
    spec, scenario = json_schema(Spec), json_schema(Scenario)
    parts = [INTRODUCTION]
    for title, schema, root in (("Specs", spec, "Spec"), ("Scenarios", scenario, "Scenario")):
        writer = Writer(schema)
        parts.append(f"## {title}\n")
        parts.append(writer.section(root, schema))
        known = {name for name in spec["$defs"] if schema is scenario} | {"Spec"}
        reached = [name for name in writer.reached(schema) if name not in known]
        steps = writer.steps()
        parts += [writer.section(name, schema["$defs"][name]) for name in reached if name not in steps]
        if schema is spec:
            parts.append(step_list(writer, steps))
            parts += [writer.section(name, schema["$defs"][name]) for name in steps]
    parts += ["## Values\n", "".join(f"- **{name}**: {text}\n" for name, (_, text) in NAMED.items()), lock_modes()]
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


def step_list(writer: Writer, steps: list[str]) -> str:
    """What a step can be."""
    lines = [
        f"- [{heading(name)}](#{slug(heading(name))}): {writer.schema['$defs'][name]['description']}" for name in steps
    ]
    words = [f"`{word}`" for branch in writer.step["oneOf"] for word in branch.get("enum", ())]
    lines.append(f"- {' or '.join(words)}, as a word alone: ends the transaction here.")
    return "\n".join(["## Steps\n", "A step is one of these; which, its keys say.\n", *lines])


def lock_modes() -> str:
    """The kinds of resources with their modes, and what may stand behind a mode."""
    lines = ["## Lock modes\n", "[language.md](language.md#resources) says which of them conflict.\n"]
    lines += ["| kind | modes, weakest first | behind a mode |", "|---|---|---|"]
    for kind in KINDS.values():
        waits = ", ".join(f"`{wait}`" for wait in kind.waits)
        lines.append(f"| `{kind.name}` | {', '.join(f'`{mode}`' for mode in kind.modes)} | {waits or '—'} |")
    return "\n".join(lines)


class Writer:
    """Writes the parts of one schema."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self._named = {name: _tidied(TypeAdapter(kind).json_schema()) for name, (kind, _) in NAMED.items()}
        definitions: Mapping[str, Any] = schema["$defs"]
        self.step: Schema = definitions["Transaction"]["properties"]["steps"]["items"]

    def steps(self) -> list[str]:
        """The parts that are steps, the lock first, for it is the usual one."""
        return sorted(
            (_name(branch) for branch in self.step["oneOf"] if "$ref" in branch), key=lambda name: name != "LockStep"
        )

    def reached(self, schema: Schema, seen: set[str] | None = None) -> Iterator[str]:
        """The parts that `schema` refers to, in the order in which a reader comes to them."""
        seen = set() if seen is None else seen
        for key in ("properties", "patternProperties"):
            for inner in schema.get(key, {}).values():
                for reference in re.findall(r"'#/\$defs/(\w+)'", str(inner)):
                    if reference not in seen:
                        seen.add(reference)
                        yield reference
                        yield from self.reached(self.schema["$defs"][reference], seen)

    def section(self, name: str, schema: Schema) -> str:
        """A part with a table of its keys."""
        lines = [f"### {heading(name)}\n", schema["description"]]
        if name in EXPLAINED:
            lines[-1] += f" See [{EXPLAINED[name].partition('#')[0]}]({EXPLAINED[name]})."
        if name in EXAMPLES:
            lines += ["", "```yaml", EXAMPLES[name], "```"]
        lines += ["", "| key | type | if left out | meaning |", "|---|---|---|---|"]
        for inner in schema.get("patternProperties", {}).values():
            lines.append(f"| *resource* | its mode | required | {_cell(inner['description'])} |")
        for key, inner in schema.get("properties", {}).items():
            required = key in schema.get("required", ())
            lines.append(
                f"| `{key}` | {self.type(inner)} | {_default(inner, required)} | {_cell(inner['description'])} |"
            )
        return "\n".join(lines)

    def type(self, schema: Schema) -> str:
        """The type of a value, in words."""
        bare = {key: part for key, part in schema.items() if key not in ("description", "default")}
        for name, known in self._named.items():
            if bare == known:
                return f"[{name}](#values)"
        if bare == self.step:
            return "[step](#steps)"
        if "$ref" in bare:
            name = _name(bare)
            return f"[{heading(name).lower()}](#{slug(heading(name))})"
        if branches := bare.get("oneOf") or bare.get("anyOf"):
            return ", or ".join(dict.fromkeys(self.type(branch) for branch in branches))
        return self._plain(bare)

    def _plain(self, schema: Schema) -> str:
        if "enum" in schema or "const" in schema:
            return ", ".join(f"`{word}`" for word in schema.get("enum", [schema.get("const")]))
        match schema["type"]:
            case "array":
                return f"list of {self.type(schema['items'])}"
            case "object":
                return f"map to {self.type(schema['additionalProperties'])}"
            case "boolean":
                return "true or false"
            case "integer" if "maximum" in schema:
                return f"{schema['minimum']:,} to {schema['maximum']:,}"
            case "integer":
                return f"integer from {schema['minimum']:,}" if "minimum" in schema else "integer"
        return "text"


def _tidied(schema: Schema) -> Schema:
    """`schema` as `json_schema` gives it, without titles."""
    if not isinstance(schema, dict):
        return schema
    return {
        key: [_tidied(part) for part in value] if isinstance(value, list) else _tidied(value)
        for key, value in schema.items()
        if key != "title"
    }


def _name(reference: Schema) -> str:
    return str(reference["$ref"]).rpartition("/")[2]


def _default(schema: Schema, required: bool) -> str:
    if required:
        return "required"
    value = schema.get("default")
    return "—" if value is None else f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def heading(name: str) -> str:
    """`ResourceFamily` as `Resource family`."""
    if name in ("Spec", "Scenario"):
        return f"{name} file"
    return re.sub(r"(?<=[a-z])([A-Z])", lambda match: f" {match[1].lower()}", name)


def slug(title: str) -> str:
    """The fragment of a heading."""
    return title.lower().replace(" ", "-")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
