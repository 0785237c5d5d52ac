"""COPY pages, and where an export is long and its client quick, ranges read by several connections.

Each of those costs PostgreSQL as much as one export more, so they are for what its pool can spare.
"""

from __future__ import annotations  # of what is not there without the encoder

import math
import time
from typing import Final

from feedsvc.backends.postgres.pool import Connection, Pool
from feedsvc.core.principal import Principal
from feedsvc.feeds.query import FeedQuery
from feedsvc.feeds.sources.copy_pages import COPY_AFTER, LARGEST_PAGE, LONGEST_PAGE, CopyPages
from feedsvc.feeds.sources.native import native_row
from feedsvc.feeds.sources.ranges import Ranges
from feedsvc.feeds.sources.reader import RangeQuery
from feedsvc.feeds.sources.readers import RangeReaders
from feedsvc.feeds.sources.source import Position, ReadResult

RANGE_BYTES: Final = 4_194_304  # what a range comes to, as far as rows go on as they were
SURELY_LONG: Final = 4_194_304  # bytes of an export that is not over in a moment
_AGAIN: Final = 2.0  # seconds for which an export that had to give connections back asks for none
_LATER: Final = 60.0  # seconds for which one does so that lost some, or had too many
_KEEPS_UP: Final = 0.5  # of the time that rows are waited for; less is a client that is waited for


class ParallelCopy:
    """One page behind the other, or several ranges at a time. `most` is of connections."""

    name = "copy"
    _connection: Connection

    def __init__(
        self, query: FeedQuery, principal: Principal, most: int, copy_after: int = COPY_AFTER
    ) -> None:
        self._query = query
        self._principal = principal
        self._most = most
        # In the middle of a page, which may be all the rest, it would be too late to share it out.
        self._pages = CopyPages(query, principal, max(copy_after, SURELY_LONG))
        self._left: int | None = None
        self._beside: Pool | None = None
        self._ranges: Ranges | None = None
        self._readers: RangeReaders | None = None
        # By the monotonic clock; what of the time since the beginning was spent on reading.
        self._began = self._not_before = self._reading = 0.0

    async def is_paged(self, connection: Connection, position: Position | None) -> bool:
        """See `CopyPages.is_paged`."""
        return await self._pages.is_paged(connection, position)

    async def begin(
        self,
        connection: Connection,
        position: Position | None,
        left: int | None,
        beside: Pool | None = None,
    ) -> None:
        """See `Source.begin`."""
        self._connection, self._left, self._beside = connection, left, beside
        self._began, self._not_before, self._reading = time.monotonic(), 0.0, 0.0
        await self._pages.begin(connection, position, left)

    async def read(self, rows: int, *, exactly: bool) -> ReadResult:
        """See `Source.read`. Raises EncoderError too."""
        began = time.monotonic()
        try:
            return await self._read(rows, exactly=exactly)
        finally:
            self._reading += time.monotonic() - began

    async def close(self) -> None:
        """See `Source.close`."""
        readers, self._readers, self._ranges = self._readers, None, None
        try:
            if readers is not None:
                await readers.close()
        finally:
            await self._pages.close()

    async def _read(self, rows: int, *, exactly: bool) -> ReadResult:
        answer: ReadResult | None = None
        while answer is None:
            if self._ranges is None and not exactly and self._is_time():
                await self._begin_ranges(rows)
            answer = await self._of_ranges(rows) or await self._pages.step(rows, exactly=exactly)
        return answer

    async def _of_ranges(self, rows: int) -> ReadResult | None:
        """The next rows, where there are ranges, and None when they are all given."""
        if self._ranges is None:
            return None
        # Each connection has a chunk in the making; all of them together what is one otherwise.
        self._ranges.wanted = -(-rows // self._most)
        batch = await self._ranges.take()
        if batch is None:
            await self._end_ranges()
            return None
        self._pages.pass_over(batch)
        return ReadResult(batch, "more")

    def _is_time(self) -> bool:
        """Return whether connections are to be had that would make it quicker."""
        if self._beside is None or not self._pages.is_between_pages:
            return False
        now = time.monotonic()
        keeps_up = self._reading >= _KEEPS_UP * (now - self._began)
        is_long = self._pages.bytes >= SURELY_LONG
        return is_long and keeps_up and now >= self._not_before and self._beside.spare > 0

    async def _begin_ranges(self, wanted: int) -> None:
        pages = self._pages
        left = None if self._left is None else self._left - pages.rows
        if self._beside is None or (left is not None and left < 2 * self._range_rows()):
            return
        row, plan = native_row(self._query)
        what = RangeQuery(self._query, self._principal, row, plan, self._range_rows)
        ranges = Ranges(pages.position, left, wanted)
        self._readers = RangeReaders(what, ranges, self._beside)
        await self._readers.begin(self._connection, self._most - 1)
        self._ranges = ranges

    async def _end_ranges(self) -> None:
        if self._readers is not None:
            await self._readers.finish()
            self._not_before = time.monotonic() + _pause(self._readers)
        self._readers = self._ranges = None

    def _range_rows(self) -> int:
        """As many as make a range's bytes and, as fast as they come, last no longer than a page."""
        pages = self._pages
        by_size = RANGE_BYTES * pages.rows // max(1, pages.bytes)
        return max(1, min(by_size, LARGEST_PAGE, int(pages.rate * LONGEST_PAGE)))


def _pause(readers: RangeReaders) -> float:
    """For how many seconds an export should do without such company."""
    if readers.effort.has_been_dear:
        return math.inf
    return _LATER if readers.lost or readers.effort.has_been_idle else _AGAIN
