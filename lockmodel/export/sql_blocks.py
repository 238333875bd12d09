"""SQL as it can stand in a block of isolationtester, which ends at the first `}`, be it in a string or in a comment.

A `}` in a string, a quoted name or a dollar-quoted body is written as an escape; Postgres reads the same text (manual, section 4.1.2,
Constants). One in a comment becomes `)`. It can stand nowhere else.
"""

from __future__ import annotations

import re

_TOKEN = re.compile(
    r"""
    (?P<line>--[^\n]*)
    | (?P<block>/\*)
    | (?<![\w$]) [eE] (?P<escape>'(?:[^'\\]|\\.|'')*')
    | (?<![\w$]) (?P<unicode>[uU]&(?:'(?:[^']|'')*'|"(?:[^"]|"")*"))
    | (?P<string>'(?:[^']|'')*'(?:\s*\n\s*'(?:[^']|'')*')*)
    | (?<![\w$]) \$(?P<tag>(?:[^\W\d]\w*)?)\$ (?P<body>.*?) \$(?P=tag)\$
    | (?P<name>"(?:[^"]|"")*")
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT = re.compile(r"/\*|\*/")


class UnwritableSql(ValueError):
    """SQL with a `}` that can't be written otherwise; `str()` says where it stands."""


def sql_block(sql: str) -> str:
    """`sql` without any `}`, meaning the same to Postgres. Raises UnwritableSql."""
    if "}" not in sql:
        return sql
    parts: list[str] = []
    at = 0
    while match := _TOKEN.search(sql, at):
        parts.append(_plain(sql[at : match.start()]))
        end = _end_of_comment(sql, match.start()) if match["block"] else match.end()
        parts.append(_rewritten(match, sql[match.start() : end]))
        at = end
    parts.append(_plain(sql[at:]))
    return "".join(parts)


def _plain(text: str) -> str:
    if "}" in text:
        raise UnwritableSql("it has a } outside of strings, names and comments")
    return text


def _end_of_comment(sql: str, start: int) -> int:
    """Where the comment that begins at `start` ends; in Postgres they nest."""
    depth = 0
    for mark in _COMMENT.finditer(sql, start):
        depth += 1 if mark[0] == "/*" else -1
        if depth == 0:
            return mark.end()
    return len(sql)


def _rewritten(match: re.Match[str], text: str) -> str:
    if "}" not in text:
        return text
    if match["line"] or match["block"]:
        return text.replace("}", ")")
    if match["unicode"]:
        raise UnwritableSql("it has a } in a U& string; write an ordinary string")
    # A blank before each: what stood before the quote (`date'…'`) must not become one word with the prefix.
    if match["escape"]:
        return " E" + re.sub(r"\\.|\}", lambda one: r"\x7D" if one[0] in ("}", r"\}") else one[0], text[1:])
    if match["name"]:
        return ' U&"' + text[1:-1].replace("\\", "\\\\").replace("}", "\\007D") + '"'
    # Strings on lines one after the other are one string.
    strings = "".join(re.findall(r"'((?:[^']|'')*)'", text))
    body = strings if match["string"] else match["body"].replace("'", "''")
    return " E'" + body.replace("\\", "\\\\").replace("}", "\\x7D") + "'"
