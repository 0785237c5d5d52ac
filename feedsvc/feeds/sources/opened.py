"""Statements as they are begun: with their request in their text where that is worth its price.

A text that is new each time can't stay prepared: it costs a round trip and its parsing, some
0.4 ms. Of an export that is nothing, of a page a third. A page's cause is in its portal's name.
"""

from typing import Any, Final

from asyncpg import Record
from asyncpg.cursor import Cursor

from feedsvc.backends.postgres.pool import Connection
from feedsvc.core import cause
from feedsvc.feeds.sql.statement import Statement

_SMALL_LIMIT: Final = 10_000
_UNNAMED: Final = ""  # kept by neither side once it has run


async def cursor(connection: Connection, wanted: Statement, left: int | None) -> "Cursor[Record]":
    """A cursor over the statement's rows, of which `left` are wanted at most."""
    if not _is_marked(left):
        return await connection.cursor(wanted.sql, *wanted.arguments)
    statement = await connection.prepare(cause.marked(wanted.sql), name=_UNNAMED)
    return await statement.cursor(*wanted.arguments)


async def value(connection: Connection, wanted: Statement, left: int | None) -> Any:
    """The statement's one value, on behalf of a query of which `left` rows are wanted at most."""
    if not _is_marked(left):
        return await connection.fetchval(wanted.sql, *wanted.arguments)
    statement = await connection.prepare(cause.marked(wanted.sql), name=_UNNAMED)
    return await statement.fetchval(*wanted.arguments)


def _is_marked(left: int | None) -> bool:
    present = cause.PRESENT.get()
    return present is not None and (left is None or left > _SMALL_LIMIT or present.marks_pages)
