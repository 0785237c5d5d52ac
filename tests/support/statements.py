"""The SQL that is really sent: kept while it runs, and taken apart into its words."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final
from unittest import mock

import asyncpg

_METHODS: Final = ("cursor", "fetch", "fetchval", "fetchrow", "execute", "copy_from_query")
_STRING: Final = re.compile(r"E?'(?:[^'\\]|''|\\.)*'")
_WORD: Final = re.compile(r'[A-Za-z_][A-Za-z0-9_]*|"(?:[^"]|"")+"')


@contextmanager
def kept() -> Iterator[list[str]]:
    """Every statement of any connection while the block runs."""
    sent: list[str] = []

    def keeping(original: Any) -> Any:
        def method(connection: asyncpg.Connection, query: str, *args: Any, **more: Any) -> Any:
            sent.append(query)
            return original(connection, query, *args, **more)

        return method

    patches = {name: keeping(getattr(asyncpg.Connection, name)) for name in _METHODS}
    with mock.patch.multiple(asyncpg.Connection, **patches):
        yield sent


def words(statements: Iterable[str]) -> set[str]:
    """Every alias, function, type, keyword and column in them, as PostgreSQL reads it."""
    found: set[str] = set()
    for statement in statements:
        for word in _WORD.findall(_STRING.sub(" ", statement)):
            found.add(word[1:-1].replace('""', '"') if word[0] == '"' else word.lower())
    return found
