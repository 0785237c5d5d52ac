"""Rows that PostgreSQL itself encodes: the portable way, and the oracle of the others."""

from collections.abc import Sequence
from operator import itemgetter
from typing import Final

import asyncpg
from asyncpg.cursor import Cursor

from feedsvc.backends.postgres.pool import Connection, Pool
from feedsvc.core.principal import Principal
from feedsvc.feeds.query import FeedQuery
from feedsvc.feeds.sources import opened
from feedsvc.feeds.sources.source import Batch, Position, ReadResult, batch_of
from feedsvc.feeds.sql import statement

_record_of: Final = itemgetter(0)


class ProjectedCursor:
    """A cursor over records, each with the values of its token."""

    name = "projection"
    _cursor: "Cursor[asyncpg.Record]"
    _left: int | None

    def __init__(self, query: FeedQuery, principal: Principal) -> None:
        self._query = query
        self._principal = principal
        self._between = query.format.between(query.layout)

    async def begin(
        self,
        connection: Connection,
        position: Position | None,
        left: int | None,
        _beside: Pool | None = None,
    ) -> None:
        """See `Source.begin`."""
        # One row beyond the limit tells whether there is more.
        most = None if left is None else left + 1
        wanted = statement.projected_sql(self._query, self._principal, position, most)
        self._cursor = await opened.cursor(connection, wanted, left)
        self._left = left

    async def read(self, rows: int, *, exactly: bool) -> ReadResult:
        """See `Source.read`."""
        records = await self._cursor.fetch(rows)
        is_over = len(records) < rows
        if self._left is None or len(records) <= self._left:
            self._left = None if self._left is None else self._left - len(records)
            return ReadResult(self._batch(records), "last" if is_over else "more")
        return ReadResult(self._batch(records[: self._left]), "limit")

    async def close(self) -> None:
        """See `Source.close`. The cursor ends with its transaction."""
        del self._cursor

    def _batch(self, records: Sequence[asyncpg.Record]) -> Batch | None:
        if not records:
            return None
        encoded = list(map(_record_of, records))
        last = [None if value is None else str(value) for value in tuple(records[-1])[1:]]
        return batch_of(self._between.join(encoded), len(encoded), last, lambda: encoded)
