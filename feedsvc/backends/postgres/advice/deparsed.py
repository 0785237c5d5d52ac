"""Conditions as PostgreSQL writes them in a plan: conjuncts, operands, columns.

The server puts parentheses around every operator's expression, casts every constant and, with
VERBOSE, names every column's table; that is all of SQL that has to be understood here.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_TOKEN: Final = re.compile(
    r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|[()\[\]]|\$\d+|[^\s()\[\]'"]+|\s+""", re.VERBOSE
)
_OPERATOR: Final = re.compile(r"^(?:[-+*/<>=~!@#%^&|`?]+|OPERATOR)$")
_LITERAL: Final = re.compile(r"'(?:[^']|'')*'|(?<![\w$.\"])\d+(?:\.\d+)?(?![\w\"])")
_COMMUTED: Final = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "=": "=", "@>": "<@", "<@": "@>"}


@dataclass(frozen=True, slots=True)
class Comparison:
    """`left operator right`; `operator` is `IS NULL` and the like where there is no right side."""

    left: str
    operator: str
    right: str


def conjuncts(text: str) -> Iterator[str]:
    """The parts that AND binds, each without its own parentheses."""
    parts = _split(_bare(text), "AND")
    if len(parts) == 1:
        yield parts[0]
        return
    for part in parts:
        yield from conjuncts(part)


def comparison(text: str) -> Comparison | None:
    """A conjunct's sides; None for what is no comparison, as an OR of several."""
    bare = _bare(text)
    if len(_split(bare, "OR")) > 1:
        return None
    for ending in (" IS NOT NULL", " IS NULL", " IS NOT TRUE", " IS NOT FALSE"):
        if bare.endswith(ending):
            return Comparison(_bare(bare.removesuffix(ending)), ending.strip(), "")
    if bare.startswith("NOT "):
        return Comparison(_bare(bare.removeprefix("NOT ")), "NOT", "")
    depth, position = 0, 0
    for token in _TOKEN.findall(bare):
        if token in {"(", "["}:
            depth += 1
        elif token in {")", "]"}:
            depth -= 1
        elif depth == 0 and position and _OPERATOR.match(token) and bare[position - 1] == " ":
            return _sides(bare, position, token)
        position += len(token)
    return Comparison(bare, "TRUE", "") if bare else None


def commuted(found: Comparison) -> Comparison | None:
    """The same with its sides exchanged; None for an operator that has no such twin here."""
    twin = _COMMUTED.get(found.operator)
    return None if twin is None else Comparison(found.right, twin, found.left)


def row_parts(text: str) -> list[str] | None:
    """The members of `ROW(…)`; None for anything else."""
    if not (text.startswith("ROW(") and text.endswith(")")):
        return None
    return _split(text[4:-1], ",")


def literals(text: str) -> list[str]:
    """Constants in an expression: quoted ones and numbers."""
    return _LITERAL.findall(text)


def unqualified(text: str, alias: str) -> str:
    """The expression with the columns of `alias` standing alone; strings stay what they are."""
    return "".join(
        token if token.startswith("'") else re.sub(_prefix(alias), "", token)
        for token in re.findall(r"'(?:[^']|'')*'|[^']+", text)
    )


def mentions(text: str, alias: str) -> bool:
    """Return whether an expression has a column of `alias`."""
    plain = re.sub(r"'(?:[^']|'')*'", "", text)
    return re.search(_prefix(alias), plain) is not None


def quoted_columns_of(text: str, alias: str) -> set[str]:
    """The columns of `alias` in an expression, as identifiers are quoted in SQL."""
    plain = re.sub(r"'(?:[^']|'')*'", "", text)
    found = re.findall(rf'{_prefix(alias)}("(?:[^"]|"")*"|[\w$]+)', plain)
    return set(found)


def quoted(name: str) -> str:
    """An identifier as the server writes it in plans, but for reserved words."""
    return name if re.fullmatch(r"[a-z_][a-z0-9_$]*", name) else '"' + name.replace('"', '""') + '"'


def _prefix(alias: str) -> str:
    """A pattern of an alias before a column: a reserved word is quoted as well."""
    doubled = '"' + alias.replace('"', '""') + '"'
    names = {doubled, quoted(alias)}
    return rf'(?<![\w."$])(?:{"|".join(map(re.escape, sorted(names)))})\.'


def _sides(bare: str, position: int, token: str) -> Comparison:
    left, rest = bare[: position - 1], bare[position:]
    if token == "OPERATOR":  # noqa: S105 - a word of SQL
        named, _, right = rest.removeprefix("OPERATOR(").partition(") ")
        return Comparison(_bare(left), named.rpartition(".")[2], right)
    right = rest[len(token) + 1 :]
    for word in ("ANY", "ALL"):
        if right.startswith(f"{word} ("):
            return Comparison(_bare(left), f"{token} {word}", right.removeprefix(f"{word} "))
    return Comparison(_bare(left), token, right)


def _bare(text: str) -> str:
    """Without parentheses around the whole of it."""
    while text.startswith("(") and _closing(text) == len(text) - 1:
        text = text[1:-1]
    return text


def _closing(text: str) -> int:
    depth, position = 0, 0
    for token in _TOKEN.findall(text):
        depth += (token == "(") - (token == ")")  # noqa: S105 - no password
        if depth == 0:
            return position
        position += len(token)
    return -1


def _split(text: str, word: str) -> list[str]:
    parts, depth = [""], 0
    for token in _TOKEN.findall(text):
        depth += (token in {"(", "["}) - (token in {")", "]"})
        if depth == 0 and token == word:
            parts.append("")
        elif depth == 0 and word == "," and token.endswith(","):
            parts[-1] += token[:-1]
            parts.append("")
        else:
            parts[-1] += token
    return [part.strip() for part in parts]
