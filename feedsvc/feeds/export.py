"""The rows of one query, read ahead of the client, from as few snapshots as it allows.

A transaction stays open only while the client keeps up. `park` ends it, and gives up its connection
and its snapshot, and the export goes on by keyset from the last row that was taken. So a thousand
stalled phones cost no connection, and hold back no vacuum.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import asyncpg

from feedsvc.backends.postgres.faults import as_problems
from feedsvc.backends.postgres.pool import Pool
from feedsvc.backends.postgres.snapshot import Snapshot
from feedsvc.core.principal import Principal
from feedsvc.core.problems import DatasetUnavailable
from feedsvc.core.timing import Stages
from feedsvc.feeds import totals
from feedsvc.feeds.batch_size import BatchSize
from feedsvc.feeds.export_options import ExportOptions
from feedsvc.feeds.page import Page, digest_of
from feedsvc.feeds.query import FeedQuery
from feedsvc.feeds.snapshot_reader import SnapshotReader
from feedsvc.feeds.sources.source import Batch, Position, ReadResult
from feedsvc.feeds.sql import statement
from feedsvc.feeds.totals import Total
from feedsvc.feeds.trial import refuse_bad_values
from streams import tokens

_PARK_GRACE: Final = 0.05  # seconds that rows already on their way get before they are cancelled


class Export:
    """Rows of one query, in order, made by `open_export`. Its counts are of what was taken.

    One that goes on from a page counts the page's rows as taken.
    """

    def __init__(
        self,
        query: FeedQuery,
        principal: Principal,
        pool: Pool,
        options: ExportOptions,
        stages: Stages,
    ) -> None:
        self.query = query
        self.rows = 0
        self.more = False
        """True if the query's limit left rows out."""
        self.is_over = False
        """True if every row was taken."""
        self._observers = pool.observers
        self._position: Position | None = query.after
        self._batch_size = BatchSize(options.chunk_bytes)
        self._snapshot = SnapshotReader(query, principal, pool, options, stages)
        self._ahead: asyncio.Task[ReadResult] | None = None
        self._collector = options.on_first_page
        self._started_at = time.time()
        if options.first_page is not None:
            self._continue(options.first_page)

    @property
    def after(self) -> str | None:
        """The token from which the export could be continued, None at the very beginning."""
        return None if self._position is None else tokens.encode(self._position)

    @property
    def snapshots(self) -> int:
        """The number of snapshots that the rows are of."""
        return self._snapshot.snapshots

    @property
    def cursor(self) -> str | None:
        """The cursor of the first snapshot, from which what has changed since can be followed."""
        return self._snapshot.cursor

    @property
    def pressed(self) -> asyncio.Event:
        """Set while a request waits for a connection such as this export's."""
        return self._snapshot.pool.pressed

    def total(self) -> Total:
        """The number of rows that there will be, as far as is known."""
        if self.is_over:
            return Total(self.rows, "exact")
        rows, kind = self._snapshot.total or self._page_total
        if rows is None:
            return totals.UNKNOWN
        is_exact = kind == "exact" and self.snapshots == 1 and self.rows <= rows
        return Total(max(self.rows, rows), "exact" if is_exact else "estimate")

    async def begin(self) -> None:
        """Read the first rows, for `take` to find; behind a page without waiting for them."""
        if self._snapshot.first_page is None:
            await self._reading()
        elif not self.is_over:
            self._reading()

    async def wait(self, timeout: float | None) -> bool:
        """Return whether `take` has an answer ready, or gets one within so many seconds."""
        if self.is_over or self._reading().done():
            return True
        done, _ = await asyncio.wait({self._reading()}, timeout=timeout)
        return bool(done)

    async def take(self) -> Batch | None:
        """The next rows, None behind the last one. Raises Problem."""
        if self.is_over:
            await self._end_verification()
            return None
        with as_problems(self._observers):
            result = await self._reading()
        self._ahead = None
        self.is_over, self.more = result.end != "more", result.end == "limit"
        batch = result.batch
        if batch is not None:
            self._count(batch)
        # Before more is read, for no more may be read than the page still lacks.
        self._collect(batch)
        if self.is_over:
            await self._snapshot.end()
        else:
            self._reading()
            # One turn of the loop sends the next request, so that PostgreSQL works on it while
            # the caller encodes and writes these rows.
            await asyncio.sleep(0)
        if batch is None:
            await self._end_verification()
        return batch

    def page(self, records: Sequence[bytes]) -> Page:
        """All that was taken, as a page. Its snapshot is the last, so there may be only one."""
        if self._snapshot.used_standby:
            raise RuntimeError("what a standby's snapshot has seen is not known")
        return Page(
            records=records,
            digest=digest_of(records),
            last=self.after if self.rows else None,
            more=self.more or not self.is_over,
            snapshot=Snapshot.parse(self._snapshot.moment.snapshot),
            loaded=self._started_at,
            cost=time.time() - self._started_at,
            total=(self._snapshot.total or totals.UNKNOWN).rows,
            origin=self._snapshot.moment.origin,
        )

    async def park(self) -> None:
        """Give up the connection and its snapshot; `take` goes on in a new one."""
        if self._ahead is not None:
            await asyncio.wait({self._ahead}, timeout=_PARK_GRACE)
        await self.close()

    async def close(self) -> None:
        """Give up everything at once; a query that still runs is cancelled."""
        ahead, self._ahead = self._ahead, None
        if self._snapshot.first_page is not None:
            self._snapshot.first_page.cancel()
        try:
            if ahead is not None:
                ahead.cancel()
                # What it read was not taken, so it would be read again; what it raised, met again.
                await asyncio.gather(ahead, return_exceptions=True)
        finally:
            # Also where this is cancelled in its turn: the connection must come back.
            await self._snapshot.end()

    def _reading(self) -> asyncio.Task[ReadResult]:
        if self._ahead is None:
            self._ahead = asyncio.create_task(self._read())
        return self._ahead

    async def _read(self) -> ReadResult:
        began = time.monotonic()
        exactly = None if self._collector is None else self._collector.rows_left
        rows = self._batch_size.rows
        result = await self._snapshot.read(self._position, self.rows, rows, exactly)
        self._batch_size.learn(result.batch, time.monotonic() - began)
        return result

    def _count(self, batch: Batch) -> None:
        position = [text for text in batch.position if text is not None]
        if len(position) < len(batch.position):
            # Only a view can do that, and only one whose not_null promised otherwise.
            raise DatasetUnavailable("A column of the order is NULL.", 30)
        self.rows += batch.count
        self._position = position

    def _collect(self, batch: Batch | None) -> None:
        collector = self._collector
        if (
            collector is None
            or self._snapshot.used_standby  # of which the cache has no use
            or self.snapshots != 1
            or not collector.add(batch, self.page, is_last=self.is_over)
        ):
            self._collector = None

    def _continue(self, page: Page) -> None:
        self.rows = len(page.records)
        self.is_over = not page.more
        if page.last is not None:
            self._position = tokens.decode(page.last)

    @property
    def _page_total(self) -> Total:
        """The total as it was when the first page was read."""
        first = self._snapshot.first_page
        return totals.UNKNOWN if first is None else Total(first.page.total, "estimate")

    async def _end_verification(self) -> None:
        if self._snapshot.first_page is not None:
            await self._snapshot.first_page.finish()


@asynccontextmanager
async def open_export(
    query: FeedQuery,
    principal: Principal,
    pool: Pool,
    options: ExportOptions,
    stages: Stages,
) -> AsyncIterator[Export]:
    """An export whose first rows have been read, so that what could fail early has not.

    Raises Problem. Whatever ends the block, its connection is back when it has ended.
    """
    export = Export(query, principal, pool, options, stages)
    try:
        with as_problems(pool.observers):
            try:
                await export.begin()
            except asyncpg.DataError:
                await export.close()
                await refuse_bad_values(pool, statement.values_of(query, principal))
                raise
        stages.lap("db")
        yield export
    finally:
        await export.close()
