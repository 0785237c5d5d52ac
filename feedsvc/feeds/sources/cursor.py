"""Rows in PostgreSQL's binary form through a cursor, for the native encoder to make records of."""

from __future__ import annotations  # of what is not there without the encoder

import asyncio
from operator import itemgetter
from typing import Final, NamedTuple

import asyncpg
from asyncpg.cursor import Cursor

from feedsvc.backends.postgres.pool import Connection, Pool
from feedsvc.core.principal import Principal
from feedsvc.feeds.query import FeedQuery
from feedsvc.feeds.sources import opened
from feedsvc.feeds.sources.native import native_batch, native_row
from feedsvc.feeds.sources.source import Position, ReadResult
from feedsvc.feeds.sql import statement
from streams import encoder

_row_of: Final = itemgetter(0)


class _Fetch(NamedTuple):
    """A FETCH of so many rows that was sent."""

    rows: int
    records: asyncio.Task[list[asyncpg.Record]]


class BinaryCursor:
    """A cursor over `record_send`: a query is sorted once, however much of it is read.

    What comes next is asked for before what has come is encoded, so that PostgreSQL does not wait.
    """

    name = "cursor"
    _cursor: Cursor[asyncpg.Record]
    _encoder: encoder.Encoder
    _most: int | None

    def __init__(self, query: FeedQuery, principal: Principal) -> None:
        self._query = query
        self._principal = principal
        self._row, self._plan = native_row(query)
        self._ahead: _Fetch | None = None

    @property
    def is_ahead(self) -> bool:
        """Return whether rows for a later `read` are on their way; the connection is taken."""
        return self._ahead is not None

    async def begin(
        self,
        connection: Connection,
        position: Position | None,
        left: int | None,
        _beside: Pool | None = None,
    ) -> None:
        """See `Source.begin`."""
        # One row beyond the limit tells whether there is more.
        self._most = None if left is None else left + 1
        wanted = statement.binary_cursor_sql(
            self._query, self._principal, self._row, position, self._most
        )
        self._cursor = await opened.cursor(connection, wanted, left)
        self._encoder = encoder.Encoder(self._plan, left)

    async def read(self, rows: int, *, exactly: bool, ahead: bool = True) -> ReadResult:
        """See `Source.read`; `ahead`: whether to ask for more rows at once. Raises EncoderError.

        What was asked for already comes as it was asked for.
        """
        asked, self._ahead = self._ahead or self._ask(rows), None
        sent = await asked.records
        if self._most is not None:
            self._most -= len(sent)
        is_over = len(sent) < asked.rows or self._most == 0
        if ahead and not exactly and not is_over:
            self._ahead = self._ask(rows)
            await asyncio.sleep(0)  # in which it is sent
        self._encoder.feed_records(list(map(_row_of, sent)))
        more = self._encoder.more
        batch = native_batch(self._encoder.take())
        return ReadResult(batch, "limit" if more else "last" if is_over else "more")

    async def close(self) -> None:
        """See `Source.close`. The cursor ends with its transaction."""
        asked, self._ahead = self._ahead, None
        if asked is not None:
            asked.records.cancel()
            # Its error would be met again by the next read.
            await asyncio.gather(asked.records, return_exceptions=True)
        del self._encoder, self._cursor

    def _ask(self, rows: int) -> _Fetch:
        return _Fetch(rows, asyncio.create_task(self._cursor.fetch(rows)))
