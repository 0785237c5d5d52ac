"""Statements whose tables are others: names are exchanged outside strings and comments."""

import re
from collections.abc import Mapping
from typing import Final

_PARTS: Final = re.compile(
    r"""
    '(?:[^']|'')*'                                  # strings
    | \$(?P<tag>\w*)\$.*?\$(?P=tag)\$               # and those between dollars
    | --[^\n]* | /\*.*?\*/
    | (?P<name>(?:"(?:[^"]|"")*"|[^\W\d][\w$]*)(?:\s*\.\s*(?:"(?:[^"]|"")*"|[^\W\d][\w$]*))+)
    """,
    re.VERBOSE | re.DOTALL,
)
_IDENTIFIER: Final = re.compile(r'"(?:[^"]|"")*"|[^\W\d][\w$]*')


def renamed(sql: str, tables: Mapping[tuple[str, str], str]) -> str:
    """The statement with each `schema.table` of `tables` in its new name."""

    def exchange(found: re.Match[str]) -> str:
        if found["name"] is None:
            return found[0]
        parts = _IDENTIFIER.findall(found["name"])
        new = tables.get((_plain(parts[0]), _plain(parts[1])))
        return found[0] if new is None else ".".join([new, *parts[2:]])

    return _PARTS.sub(exchange, sql)


def _plain(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name.lower()
