"""Whether "0 rows" means that a statement has locked none, told from its SQL.

Not always: what stands inside of a statement (a WITH, a subquery with FOR UPDATE, a function, a trigger) may lock rows of which the number says
nothing, and ON CONFLICT DO UPDATE … WHERE locks the row that it then leaves alone. Where that could be so, the answer is no.
"""

from __future__ import annotations

import re

from lockmodel.sql_text import bare

_LOCKING = re.compile(r"\bfor\s+(?:no\s+key\s+update|update|key\s+share|share)\b")
_INNER = re.compile(r"\([^()]*\)")
_HIDDEN = re.compile(r"\bcreate\b[^;]*?\b(?:trigger|rule|view|function|procedure)\b")
_NO_ROWS = ("lock", "set", "savepoint", "release", "begin")
"""Statements without a number of rows, that lock none either."""


def tells_of_rows(sql: str, schema: str = "") -> bool:
    """Whether `sql` has locked no row if it reports 0 rows, on tables that `schema` makes."""
    if _HIDDEN.search(bare(schema)):
        return False
    return all(_tells(statement.strip()) for statement in bare(sql).split(";") if statement.strip())


def _tells(statement: str) -> bool:
    outer = statement
    while outer != (without := _INNER.sub(" ", outer)):
        outer = without
    locking, locking_outside = len(_LOCKING.findall(statement)), len(_LOCKING.findall(outer))
    match statement.split()[0]:
        case "select":
            # A plain SELECT locks only what a function does; and OFFSET passes over rows that have been locked.
            return locking > 0 and locking == locking_outside and not re.search(r"\boffset\b", outer)
        case "update" | "delete" | "merge":
            return locking == 0
        case "insert":
            return locking == 0 and not re.search(r"\bdo\s+update\b", outer)
        case first:
            return first in _NO_ROWS
