"""What the SQL of a step says of how it takes a table: read by its words, without a grammar of SQL.

A statement on rows takes its table when it is analysed, in the order of the text (`transformWithClause` before `setTargetTable` in
src/backend/parser/analyze.c): what INSERT, UPDATE, DELETE and MERGE write in ROW EXCLUSIVE, what SELECT … FOR UPDATE and its like lock in ROW SHARE.
What a function or a DO block does, the text of the statement does not tell.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from lockmodel.table_modes import ROW_EXCLUSIVE, ROW_SHARE

_TOKEN = re.compile(
    r"""
    (?P<skip> \s+ | --[^\n]* )
  | (?P<comment> /\* )
  | (?P<string> [eE]'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*' )
  | (?P<dollar> \$(?:[^\W\d]\w*)?\$ )
  | (?P<quoted> "(?:[^"]|"")*" )
  | (?P<word> [^\W\d][\w$]* )
  | (?P<other> . )
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT_END = re.compile(r"/\*|\*/")
# Each is a command only with what follows it: the words are no reserved ones, so a column may be called so.
_WRITES = {"insert": ("into",), "delete": ("from",), "merge": ("into",), "update": ()}
_STRENGTHS = (("update",), ("no", "key", "update"), ("share",), ("key", "share"))


@dataclass(frozen=True)
class _Token:
    """A word in lower case, a quoted name as it is, or a character; `number`: its place in the text."""

    text: str
    number: int
    name: bool = True
    quoted: bool = False


@dataclass
class _Query:
    """What stands between two parentheses or semicolons; of what stands in parentheses inside it, only these."""

    tokens: list[_Token] = field(default_factory=list)


def table_modes(sql: str, names: Collection[str]) -> tuple[str, ...]:
    """The modes in which `sql`, which locks rows of a table, takes that table, in order. `names`: what the table may be called."""
    written: list[tuple[int, str]] = []
    locked: list[tuple[int, frozenset[str]]] = []
    for query in _queries(_tokens(sql)):
        start = _main(query.tokens)
        written += _written(query.tokens, start)
        locked += _locked(query.tokens[start:])
    if not written:
        return (ROW_SHARE,)
    if not locked:
        return (ROW_EXCLUSIVE,)
    writes = [(number, ROW_EXCLUSIVE) for number, target in written if target in names]
    locks = [(number, ROW_SHARE) for number, tables in locked if not tables.isdisjoint(names)]
    if not writes and not locks:
        # The table has another name there.
        writes = [(number, ROW_EXCLUSIVE) for number, _ in written]
        locks = [(number, ROW_SHARE) for number, _ in locked]
    return tuple(dict.fromkeys(mode for _, mode in sorted([*writes, *locks])))


def bare(sql: str) -> str:
    """The words and characters of `sql` in lower case, a space between them; without comments, and with `x` for what is in quotes."""
    return " ".join("x" if token.quoted or token.text == "''" else token.text for token in _tokens(sql))


def _tokens(sql: str) -> Iterator[_Token]:
    """The words and characters of `sql`; comments are left out, and what is quoted is one token."""
    at = 0
    while (match := _TOKEN.match(sql, at)) is not None:
        begins, at = at, match.end()
        match match.lastgroup:
            case "comment":
                at = _comment_end(sql, at)
            case "dollar":
                closed = sql.find(match.group(), at)
                at = len(sql) if closed < 0 else closed + len(match.group())
                yield _Token("''", begins, name=False)
            case "string":
                yield _Token("''", begins, name=False)
            case "quoted":
                yield _Token(match.group()[1:-1].replace('""', '"'), begins, quoted=True)
            case "word":
                yield _Token(match.group().lower(), begins)
            case "other":
                yield _Token(match.group(), begins, name=False)


def _comment_end(sql: str, at: int) -> int:
    """Where the comment ends that has begun before `at`: comments may stand in comments."""
    depth = 1
    while depth:
        mark = _COMMENT_END.search(sql, at)
        if mark is None:
            return len(sql)
        depth += 1 if mark.group() == "/*" else -1
        at = mark.end()
    return at


def _queries(tokens: Iterator[_Token]) -> list[_Query]:
    found = [_Query()]
    open_ones = [found[0]]
    for token in tokens:
        if token.text == "(" and not token.quoted:
            open_ones[-1].tokens.append(token)
            found.append(_Query())
            open_ones.append(found[-1])
            continue
        if token.text == ")" and not token.quoted and len(open_ones) > 1:
            open_ones.pop()
        if token.text == ";" and not token.quoted and len(open_ones) == 1:
            found.append(_Query())
            open_ones = [found[-1]]
            continue
        open_ones[-1].tokens.append(token)
    return found


def _main(tokens: Sequence[_Token]) -> int:
    """Where the statement begins, behind EXPLAIN, PREPARE … AS and WITH."""
    at = 0
    if _said(tokens, at, "explain"):
        at += 1
        while any(_said(tokens, at, word) for word in ("(", ")", "analyze", "analyse", "verbose")):
            at += 1
    elif _said(tokens, at, "prepare"):
        at = next((n + 1 for n in range(at, len(tokens)) if _said(tokens, n, "as")), at)
    if not _said(tokens, at, "with"):
        return at
    for number in range(at + 1, len(tokens)):
        # Behind the last parenthesis, or behind SEARCH or CYCLE, which end with a name.
        searched = any(_said(tokens, n, word) for n in range(at, number) for word in ("search", "cycle"))
        begins = _said(tokens, number - 1, ")") or (searched and tokens[number - 1].name)
        if begins and (_is_write(tokens, number) or _said(tokens, number, "select")):
            return number
    return at


def _said(tokens: Sequence[_Token], at: int, word: str) -> bool:
    return 0 <= at < len(tokens) and tokens[at].text == word and not tokens[at].quoted


def _is_write(tokens: Sequence[_Token], at: int) -> bool:
    token = tokens[at]
    if token.quoted or token.text not in _WRITES or at + 1 >= len(tokens):
        return False
    following = _WRITES[token.text]
    return tokens[at + 1].text in following if following else tokens[at + 1].name


def _written(tokens: Sequence[_Token], start: int) -> Iterator[tuple[int, str]]:
    """What the statement that begins at `start` writes: where it says so, and the table."""
    if start < len(tokens) and _is_write(tokens, start):
        at = start + 1 + len(_WRITES[tokens[start].text])
        yield tokens[start].number, _table(tokens, at)


def _table(tokens: Sequence[_Token], at: int) -> str:
    """The name of the table that stands at `at`, without its schema."""
    if _said(tokens, at, "only"):
        at += 1
    while _said(tokens, at + 1, "."):
        at += 2
    return tokens[at].text if at < len(tokens) else ""


def _locked(tokens: Sequence[_Token]) -> Iterator[tuple[int, frozenset[str]]]:
    """The tables that a SELECT locks rows of: where it begins, and all that they may be."""
    begins: int | None = None
    for number in range(len(tokens)):
        if _said(tokens, number, "select"):
            begins = number
        if begins is None or not _said(tokens, number, "for"):
            continue
        words = [token.text for token in tokens[number + 1 : number + 4] if not token.quoted]
        strength = next((one for one in _STRENGTHS if tuple(words[: len(one)]) == one), None)
        if strength is None:
            continue
        names = frozenset(token.text for token in tokens[begins:number] if token.name)
        if _said(tokens, after := number + 1 + len(strength), "of"):
            names = _called(tokens[begins:number], tokens[after + 1 :])
        yield tokens[begins].number, names


def _called(query: Sequence[_Token], after: Sequence[_Token]) -> frozenset[str]:
    """The tables that the list at the beginning of `after` means, by their names or aliases in `query`."""
    listed = {token.text for token in after[:1]}
    for comma, name in zip(after[1::2], after[2::2], strict=False):
        if comma.text != ",":
            break
        listed.add(name.text)
    tables = set(listed)
    for number, token in enumerate(query):
        before = number - 2 if _said(query, number - 1, "as") else number - 1
        if token.text in listed and before >= 0 and query[before].name:
            tables.add(query[before].text)
    return frozenset(tables)
