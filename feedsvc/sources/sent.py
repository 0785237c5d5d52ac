"""Rows in PostgreSQL's binary form through a cursor, for the native encoder to make records of."""

from __future__ import annotations  # of what is not there without the encoder

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Final

import asyncpg
from asyncpg.cursor import Cursor

from feedsvc import statement
from feedsvc.auth.principal import Principal
from feedsvc.pools import Connection, Pool
from feedsvc.query import FeedQuery
from feedsvc.sources.native import native_batch, native_row
from feedsvc.sources.source import Answer, Position
from streams import encoder

_row_of: Final = itemgetter(0)


class SentCursor:
    """A cursor over `record_send`: a query is sorted once, however much of it is read."""

    name = "cursor"
    _cursor: Cursor[asyncpg.Record]
    _encoder: encoder.Encoder

    def __init__(self, query: FeedQuery, principal: Principal) -> None:
        self._query = query
        self._principal = principal
        self._row, self._plan = native_row(query)

    def settings(self, _position: Position | None) -> Mapping[str, str | Sequence[str]]:
        """See `Source.settings`."""
        return {}

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
        wanted = statement.sent(self._query, self._principal, self._row, position, most)
        self._cursor = await connection.cursor(wanted.sql, *wanted.arguments)
        self._encoder = encoder.Encoder(self._plan, left)

    async def read(self, rows: int, *, exactly: bool) -> Answer:
        """See `Source.read`. Raises EncoderError too."""
        sent = await self._cursor.fetch(rows)
        self._encoder.feed_records(list(map(_row_of, sent)))
        more = self._encoder.more
        batch = native_batch(self._encoder.take())
        return Answer(batch, is_over=more or len(sent) < rows, more=more)

    async def close(self) -> None:
        """See `Source.close`. The cursor ends with its transaction."""
        del self._encoder, self._cursor
