"""The file that isolationtester reads: setup, teardown, a session for each worker with its steps, and the permutations."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from lockmodel.errors import Position, UsageError
from lockmodel.export.isolation import IsolationTest, Planned, Step
from lockmodel.export.names import comment
from lockmodel.export.sql_blocks import UnwritableSql, sql_block

SCHEMA = "lockmodel_isolation"
"""The schema that the test makes for itself, and drops."""
OTHERS_TIMEOUT = "10s"
"""The deadlock_timeout of those that are not to be aborted: longer than the victim's, but no eternity should a rollback lead into a
deadlock of its own."""
_WIDTH = 100


def isolation_text(test: IsolationTest, source: str) -> str:
    """`test` as a file; `source` says in its first line where it comes from. Raises UsageError for SQL that can't stand in one."""
    return "\n".join(_lines(test, source)) + "\n"


def _lines(test: IsolationTest, source: str) -> Iterator[str]:
    yield f"# {comment(source)}"
    yield "# Run it as a superuser, who may set deadlock_timeout: isolationtester 'dbname=test' < FILE"
    if test.own_sql_for:
        yield f"# The spec has no SQL for {comment(', '.join(test.own_sql_for))}: these statements are lockmodel's own."
    yield ""
    path = f"SET search_path = {SCHEMA};"
    yield from _block("setup", f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE;\nCREATE SCHEMA {SCHEMA};\n{path}")
    for statement in test.setup:
        yield from _block("setup", _written(statement.sql, statement.at(None), "the schema SQL"))
    yield from _block("teardown", f"DROP SCHEMA {SCHEMA} CASCADE;")
    for worker, name in enumerate(test.workers):
        steps = [step for step in test.steps if step.worker == worker]
        if steps:
            yield ""
            yield f"# {comment(name)}"
            yield f"session s{worker + 1}"
            yield f"setup {{ {path} SET deadlock_timeout = '{OTHERS_TIMEOUT}'; }}"
            for step in steps:
                yield from _step(step)
    for permutation in test.permutations:
        yield ""
        yield "permutation"
        yield from _with_words(permutation.planned) if len(test.permutations) == 1 else _filled(permutation.planned)


def _block(word: str, sql: str) -> Iterator[str]:
    # Not indented: the lines may be those of a string.
    yield f"{word} {{\n{sql.strip()}\n}}"


def _step(step: Step) -> Iterator[str]:
    """A step on one line with the model's words behind it; on several if its SQL has several, or a comment that goes to the line's end."""
    position = step.command.position if step.command is not None else None
    sql = _written(step.sql, position, "the sql of this step").strip()
    if "\n" in sql or "--" in sql:
        yield from _block(f"step {step.name}", sql)
        return
    said = "" if step.text.lower() == sql.lower() else f"  # {comment(step.text)}"
    yield f"step {step.name} {{ {sql.removesuffix(';')}; }}{said}"


def _written(sql: str, position: Position | None, what: str) -> str:
    try:
        return sql_block(sql)
    except UnwritableSql as error:
        place = f"{position}: " if position else ""
        raise UsageError(f"{place}isolationtester can't read {what}: {error}") from None


def _mark(planned: Planned) -> str:
    return planned.step.name + (f"({planned.after.name})" if planned.after else "")


def _with_words(permutation: Sequence[Planned]) -> Iterator[str]:
    width = max(len(_mark(planned)) for planned in permutation)
    for planned in permutation:
        yield f"  {_mark(planned):{width}}  # {comment(planned.text)}"


def _filled(permutation: Sequence[Planned]) -> list[str]:
    return textwrap.wrap(" ".join(map(_mark, permutation)), _WIDTH, initial_indent="  ", subsequent_indent="  ")
