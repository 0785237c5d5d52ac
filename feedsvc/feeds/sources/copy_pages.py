"""Rows by COPY in PostgreSQL's binary form, page by page, for the native encoder.

A page is a COPY of its own, all of them in the transaction that the export reads in, so they have
its one snapshot.

What is read is passed on while the page is under way, so a page's size costs no memory. But
PostgreSQL sends as much as sockets take, and to give a page up in the middle takes a cancel
request. So an export begins with a cursor, which gives no more than it is asked for, until so much
was read that the client plainly keeps up.
"""

from __future__ import annotations  # of what is not there without the encoder

import asyncio
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Final

from feedsvc.backends.postgres.pool import Connection, Pool
from feedsvc.core import cause
from feedsvc.core.principal import Principal
from feedsvc.feeds.query import FeedQuery
from feedsvc.feeds.sources.cursor import BinaryCursor
from feedsvc.feeds.sources.native import native_batch, native_row
from feedsvc.feeds.sources.pacing import ReadPacer
from feedsvc.feeds.sources.source import Batch, Position, ReadResult
from feedsvc.feeds.sql import statement
from streams import encoder

# Rows. Each page begins with a round trip in which PostgreSQL idles; but the larger pages are, the
# rather PostgreSQL sorts all that is left for each of them, where it could walk an index.
LARGEST_PAGE: Final = 100_000
LONGEST_PAGE: Final = 2.0  # seconds, as fast as rows have come so far
COPY_AFTER: Final = 1_048_576  # bytes; more than sockets and kernels swallow for a stalled client
PASS_ON: Final = 0.25  # seconds after which rows that come slowly are passed on


class CopyPages:
    """Pages behind each other, each behind the last row of the one before."""

    name = "copy"
    _connection: Connection
    _encoder: encoder.Encoder
    _pacer: ReadPacer

    def __init__(
        self, query: FeedQuery, principal: Principal, copy_after: int = COPY_AFTER
    ) -> None:
        self._query = query
        self._principal = principal
        self._row, self._plan = native_row(query)
        self._beginning = BinaryCursor(query, principal)
        self._copy_after = copy_after
        self._position: Position | None = None
        self._left: int | None = None
        self._is_paged: bool | None = None
        self._is_copying = False
        # The page under way, how many rows it may have, and how many of those were given.
        self._page: asyncio.Task[Any] | None = None
        self._page_rows = self._page_given = 0
        self._wanted = 0
        self._enough, self._taken = asyncio.Event(), asyncio.Event()
        # Since the transaction began.
        self._began, self.rows, self.bytes = 0.0, 0, 0

    @property
    def position(self) -> Position | None:
        """Behind which row it goes on."""
        return self._position

    @property
    def is_between_pages(self) -> bool:
        """Return whether the next rows come by COPY, and nothing of them was asked for yet."""
        return self._page is None and (self._is_copying or self._has_begun)

    @property
    def _has_begun(self) -> bool:
        """Return whether the cursor that it begins with has given what it should."""
        return self.bytes >= self._copy_after and not self._beginning.is_ahead

    @property
    def rate(self) -> float:
        """The rows a second, since the transaction began."""
        return self.rows / max(0.001, time.monotonic() - self._began)

    async def is_paged(self, connection: Connection, position: Position | None) -> bool:
        """Return whether PostgreSQL reads a page without sorting."""
        if self._is_paged is None:
            wanted = self._copy(position, LARGEST_PAGE)
            plan = json.loads(await connection.fetchval(f"EXPLAIN (FORMAT JSON) {wanted}"))
            self._is_paged = "Sort" not in _nodes(plan[0]["Plan"])
        return self._is_paged

    async def begin(
        self,
        connection: Connection,
        position: Position | None,
        left: int | None,
        _beside: Pool | None = None,
    ) -> None:
        """See `Source.begin`."""
        self._connection, self._position, self._left = connection, position, left
        self._is_copying = False
        self._began, self.rows, self.bytes = time.monotonic(), 0, 0
        await self._beginning.begin(connection, position, left)

    async def read(self, rows: int, *, exactly: bool) -> ReadResult:
        """See `Source.read`. Raises EncoderError too."""
        while (answer := await self.step(rows, exactly=exactly)) is None:
            pass
        return answer

    async def step(self, rows: int, *, exactly: bool) -> ReadResult | None:
        """As `read`, but None where a page has turned out to be at its end, and is not the last."""
        if self._is_copying or (self._has_begun and not exactly):
            answer = await self._copied(rows)
        else:
            ahead = self.bytes < self._copy_after
            answer = await self._beginning.read(rows, exactly=exactly, ahead=ahead)
        if answer is not None and answer.batch is not None:
            self._count(answer.batch)
        return answer

    def pass_over(self, batch: Batch) -> None:
        """The next rows were read in another way, between two pages."""
        self._count(batch)
        self._is_copying = False  # the encoder would count the wrong rows for the limit

    def _count(self, batch: Batch) -> None:
        self.rows += batch.count
        self.bytes += len(batch.body)
        self._position = [text or "" for text in batch.position]

    async def _copied(self, rows: int) -> ReadResult | None:
        if not self._is_copying:
            left = None if self._left is None else self._left - self.rows
            self._encoder = encoder.Encoder(self._plan, left)
            self._pacer = ReadPacer(self._connection)
            self._is_copying = True
        self._wanted = rows
        page = self._page or await self._begin_page(rows)
        await self._until_enough()
        is_whole = page.done()
        if is_whole:
            page.result()
            self._encoder.end_copy()
            self._page = None
        more = self._encoder.more
        batch = native_batch(self._encoder.take())
        self._enough.clear()
        self._taken.set()
        self._page_given += 0 if batch is None else batch.count
        if is_whole and more:
            return ReadResult(batch, "limit")
        if is_whole and self._page_given < self._page_rows:
            return ReadResult(batch, "last")
        return None if batch is None else ReadResult(batch, "more")

    async def close(self) -> None:
        """See `Source.close`."""
        page, self._page = self._page, None
        if page is not None:
            page.cancel()
            # Its error would be met again by the next read.
            await asyncio.gather(page, return_exceptions=True)
        if self._is_copying:
            del self._encoder  # what it was fed may be much
        await self._beginning.close()

    def _copy(self, position: Position | None, most: int) -> str:
        wanted = statement.copy_sql(self._query, self._principal, self._row, position, most)
        return cause.marked(wanted)

    async def _begin_page(self, rows: int) -> asyncio.Task[Any]:
        most = max(rows, min(LARGEST_PAGE, int(self.rate * LONGEST_PAGE)))
        if self._left is not None:
            # One row beyond the limit tells whether there is more.
            most = min(most, self._left - self.rows + 1)
        wanted = self._copy(self._position, most)
        self._page_rows, self._page_given = most, 0
        self._enough.clear()
        copying = self._connection.copy_from_query(wanted, output=self._feed, format="binary")
        self._page = asyncio.create_task(copying)
        self._page.add_done_callback(lambda _: self._enough.set())
        return self._page

    async def _feed(self, chunk: bytes) -> None:
        """Take what PostgreSQL sends; it sends no more while this waits."""
        self._encoder.feed_copy(chunk)
        if self._encoder.ended:
            # All is here, so to wait holds nothing back. And asyncpg has the answer's end by now:
            # cancelled here, it would wait for another, and the connection would have to be cut.
            return
        if self._encoder.rows >= self._wanted:
            self._taken.clear()
            self._enough.set()
            await self._taken.wait()
        elif self._page_given + self._encoder.rows < self._page_rows:
            # Behind the page's last row nothing comes but the page's end.
            await self._pacer.pause_after(len(chunk))

    async def _until_enough(self) -> None:
        while not self._enough.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(PASS_ON):
                    await self._enough.wait()
            if self._encoder.rows:
                return


def _nodes(plan: Mapping[str, Any]) -> Iterator[str]:
    """The type of each node of a plan."""
    yield str(plan["Node Type"])
    for below in plan.get("Plans", ()):
        yield from _nodes(below)
