"""Texts of SQL without the values in them: of statements, and of conditions as plans have them.

A text that can't be told apart into tokens loses the rest of itself: it must not show a value
because it was misread.
"""

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

LONGEST: Final = 20_000
"""Characters of a statement that is looked at."""

_WORD: Final = r"[A-Za-z_\x80-\U0010ffff][\w$\x80-\U0010ffff]*"
_TOKEN: Final = re.compile(
    rf"""
      (?P<comment>--[^\r\n]*|/\*)
    | (?P<subplan>\b(?:InitPlan|SubPlan)\ \d+\b)
    | (?P<parameter>\$\d+)
    | (?P<dollar>\$(?:{_WORD.replace("$", "")})?\$)
    | (?P<escaped>[eE]'(?:[^'\\]|\\.|'')*')
    | (?P<string>(?:[bBxXnN]|[uU]&)?'(?:[^']|'')*')
    | (?P<identifier>(?:[uU]&)?"(?:[^"]|"")*")
    | (?P<word>{_WORD})
    | (?P<number>0[xXoObB][0-9a-fA-F_]+|(?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)(?:[eE][+-]?\d+)?)
    | (?P<space>\s+)
    | (?P<other>[^'"])
    """,
    re.VERBOSE | re.DOTALL,
)
_BLOCK: Final = re.compile(r"/\*|\*/")
_WITH_LENGTH: Final = frozenset(
    [
        "bit",
        "char",
        "character",
        "decimal",
        "float",
        "interval",
        "numeric",
        "time",
        "timestamp",
        "timestamptz",
        "timetz",
        "varbit",
        "varchar",
        "varying",
    ]
)
_TYPED: Final = re.compile(
    r"\b(interval|date|time|timetz|timestamp|timestamptz"
    r"|timestamp with(?:out)? time zone|time with(?:out)? time zone)\s+(\$\d+)",
    re.IGNORECASE,
)


class _Token(NamedTuple):
    kind: str
    text: str


def condition(text: str) -> str:
    """A condition or expression of a plan, with `?` for each constant."""
    return "".join("?" if _is_value(token) else token.text for token in _tokens(text))


def statement(text: str) -> str:
    """A statement without comments, each constant a further parameter.

    Left as they are: lengths of types, and numbers of columns behind `ORDER BY` and `GROUP BY`.
    `interval $1`, as pg_stat_statements has it, becomes `$1::interval`, which is SQL.
    """
    tokens = [token for token in _tokens(text) if token.kind != "comment"]
    taken = [int(token.text[1:]) for token in tokens if token.kind == "parameter"]
    place, parts = max(taken, default=0), list[str]()
    for number, token in enumerate(tokens):
        if _is_value(token) and not _is_structure(tokens, number):
            place += 1
            parts.append(f"${place}")
        else:
            parts.append(" " if token.kind == "space" else token.text)
    return _TYPED.sub(r"\2::\1", "".join(parts)).strip().removesuffix(";").rstrip()


def _is_value(token: _Token) -> bool:
    return token.kind in {"string", "escaped", "dollar", "number", "rest"}


def _is_structure(tokens: list[_Token], number: int) -> bool:
    """Return whether a number is a type's length or a column's place in a list."""
    if tokens[number].kind != "number" or len(tokens[number].text) > 3:
        return False
    before = (t.text.lower() for t in reversed(tokens[:number]) if t.kind != "space")
    nearest = next((text for text in before if text != "," and not text.isdigit()), "")
    return nearest == "by" or (nearest == "(" and next(before, "") in _WITH_LENGTH)


def _tokens(text: str) -> Iterator[_Token]:
    """The tokens; the last one is `rest` where the text can't be read any further."""
    at = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        kind = "rest" if found is None else found.lastgroup or "rest"
        end = len(text) if found is None else found.end()
        if found is not None and found[0] == "/*":
            end = _end_of_block(text, end)
        elif found is not None and kind == "dollar":
            closing = text.find(found[0], end)
            kind, end = ("rest", len(text)) if closing < 0 else (kind, closing + len(found[0]))
        elif found is not None and kind == "string" and found[0].endswith("\\'"):
            # Where backslashes escape, the string goes on, and what follows is a part of it.
            kind, end = "rest", len(text)
        yield _Token(kind, " " if kind == "comment" else text[at:end])
        at = end


def _end_of_block(text: str, at: int) -> int:
    """The place behind a comment, which may have others in it."""
    depth = 1
    for found in _BLOCK.finditer(text, at):
        depth += 1 if found[0] == "/*" else -1
        if not depth:
            return found.end()
    return len(text)
