"""The rows of one query, read ahead of the client, from as few snapshots as it allows.

A transaction stays open only while the client keeps up. `park` ends it, and gives up its connection
and its snapshot, and the export goes on by keyset from the last row that was taken. So a thousand
stalled phones cost no connection, and hold back no vacuum.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import asyncpg

from feedsvc.backends.postgres.faults import as_problems
from feedsvc.backends.postgres.pool import Connection, Pool
from feedsvc.backends.postgres.snapshot import Snapshot
from feedsvc.core.logs import redacted
from feedsvc.core.principal import Principal
from feedsvc.core.problems import DatasetUnavailable, Unavailable
from feedsvc.core.timing import Stages
from feedsvc.feeds import totals, transaction
from feedsvc.feeds.batch_size import BatchSize
from feedsvc.feeds.page import Page, digest_of
from feedsvc.feeds.query import FeedQuery
from feedsvc.feeds.slow_queries import Stopwatch
from feedsvc.feeds.sources import choice
from feedsvc.feeds.sources.source import Batch, ReadResult, Source
from feedsvc.feeds.sql import statement
from feedsvc.feeds.totals import Total, total_of
from feedsvc.feeds.trial import refuse_bad_values, refuse_what_is_no_text
from streams import tokens
from streams.frames import Rows

logger = logging.getLogger(__name__)

_SMALL_LIMIT: Final = 10_000  # rows that are soon read, whatever they are
Proof: TypeAlias = Callable[[Page, Snapshot], Coroutine[Any, Any, bool]]
"""Whether a page is as this later snapshot would have it."""
Choose: TypeAlias = Callable[[FeedQuery, Principal], Source]

_PARK_GRACE: Final = 0.05  # seconds that rows already on their way get before they are cancelled


@dataclass(frozen=True, slots=True)
class Part(Rows):
    """Rows of an export; `records` takes them apart again."""

    records: Callable[[], Sequence[bytes]]


class FirstPage:
    """Keeps what an export begins with, for `done` to have as a page."""

    def __init__(self, most_rows: int, most_bytes: int, done: Callable[[Page], None]) -> None:
        self.rows_left = most_rows
        self._bytes_left = most_bytes
        self._done = done
        self._records: list[bytes] = []

    def add(self, export: "Export", part: Part | None) -> bool:
        """Takes what an export has just given. Whether the page still lacks something."""
        if export.snapshots != 1:
            return False
        if part is not None:
            self._records += part.records()
            self.rows_left -= part.count
            self._bytes_left -= len(part.body)
        if not export.is_over and self.rows_left > 0 and self._bytes_left > 0:
            return True
        self._done(export.page(self._records))
        return False


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """How an export goes: in chunks of so many bytes, on from the page `begun`, if there is one.

    That page's rows are not given again; `proof` tells whether it is what the export's snapshot
    would have given. `keep` gets what the export itself begins with. `choose` says which way the
    rows come. For `count_timeout` seconds at most rows are counted, where the format shows how many
    there are.
    """

    chunk_bytes: int
    begun: Page | None = None
    proof: Proof | None = None
    keep: FirstPage | None = None
    choose: Choose = choice.candidate
    count_timeout: float = 0.0


class Export:
    """Rows of one query, in order, made by `open_export`. Its counts are of what was taken.

    One that goes on from a page counts the page's rows as taken.
    """

    def __init__(
        self,
        query: FeedQuery,
        principal: Principal,
        pool: Pool,
        course: ExportOptions,
        stages: Stages,
    ) -> None:
        self.query = query
        self._pool = pool
        self._stages = stages
        self.rows = 0
        self.snapshots = 0
        self.more = False
        """Whether the query's limit left rows out."""
        self._principal = principal
        self._position: Sequence[str] | None = query.after
        self._count_timeout = course.count_timeout
        self._total = totals.UNKNOWN
        self._is_counted = False
        self._standby: Pool | None = None
        """Where the present snapshot is, if it is not on the primary."""
        self._standby_failed = self._began_on_standby = self._has_read = False
        self._batch_size = BatchSize(course.chunk_bytes)
        self._snapshot = AsyncExitStack()
        self._source = course.choose(query, principal)
        self._stopwatch = Stopwatch(pool.observers, query.dataset.name, self._source.name)
        self._has_begun = False
        self._connection: Connection | None = None
        self._ahead: asyncio.Task[ReadResult] | None = None
        self._exhausted = False
        self._first = course.keep
        self._began = time.time()
        self._seen = self._origin = ""
        self._begun = course.begun
        self._proof = course.proof
        self._proving: asyncio.Task[bool] | None = None
        if course.begun is not None:
            self._go_on_from(course.begun)

    @property
    def after(self) -> str | None:
        """The token from which the export could be continued, None at the very beginning."""
        return None if self._position is None else tokens.encode(self._position)

    @property
    def is_over(self) -> bool:
        """Whether every row was taken."""
        return self._exhausted

    @property
    def pressed(self) -> asyncio.Event:
        """Set while somebody waits for a connection such as this export's."""
        return (self._standby or self._pool).pressed

    @property
    def _is_large(self) -> bool:
        """Whether nobody can tell how long it will take."""
        return self.query.limit is None or self.query.limit > _SMALL_LIMIT

    @property
    def _may_read_a_standby(self) -> bool:
        """Whether a standby's snapshot would do, which is older than the primary's.

        Only for what begins there: behind rows of a younger snapshot, a page's or another
        server's, a row could come twice that nobody has touched since. Not where the end tells
        from where changes are to be followed, for a standby can't say which it has seen.
        """
        begins = self.snapshots == 0 and self.query.after is None and self._begun is None
        whole = self._is_large and not self.query.is_framed
        return begins and whole and self.query.dataset.replica and not self._standby_failed

    def total(self) -> Total:
        """How many rows there will be, as far as is known."""
        if self._exhausted:
            return Total(self.rows, "exact")
        rows, kind = self._total
        if rows is None:
            return self._total
        is_exact = kind == "exact" and self.snapshots == 1 and self.rows <= rows
        return Total(max(self.rows, rows), "exact" if is_exact else "estimate")

    async def begin(self) -> None:
        """Reads the first rows, for `take` to find; behind a page nobody has to wait for them."""
        if self._begun is None:
            await self._reading()
        elif not self._exhausted:
            self._reading()

    async def wait(self, timeout: float | None) -> bool:
        """Whether `take` has an answer ready, or gets one within so many seconds."""
        if self._exhausted or self._reading().done():
            return True
        done, _ = await asyncio.wait({self._reading()}, timeout=timeout)
        return bool(done)

    async def take(self) -> Part | None:
        """The next rows, None behind the last one. Raises Problem."""
        if self._exhausted:
            await self._count_snapshots()
            return None
        with as_problems(self._pool.observers):
            answer = await self._reading()
        self._ahead = None
        self._exhausted, self.more = answer.is_over, answer.more
        part = None if answer.batch is None else self._part(answer.batch)
        # Before more is read, for no more may be read than the page still lacks.
        if self._first is not None and not self._first.add(self, part):
            self._first = None
        if self._exhausted:
            await self._end_snapshot()
        else:
            self._reading()
            # One turn of the loop sends the next request, so that PostgreSQL works on it while
            # the caller encodes and writes these rows.
            await asyncio.sleep(0)
        if part is None:
            await self._count_snapshots()
        return part

    def page(self, records: Sequence[bytes]) -> Page:
        """All that was taken, as a page. Its snapshot is the last, so there may be only one."""
        if self._began_on_standby:
            raise RuntimeError("what a standby's snapshot has seen is not known")
        now = time.time()
        return Page(
            records=records,
            digest=digest_of(records),
            last=self.after if self.rows else None,
            more=self.more or not self._exhausted,
            snapshot=Snapshot.parse(self._seen),
            loaded=self._began,
            cost=now - self._began,
            total=self._total.rows,
            origin=self._origin,
        )

    async def park(self) -> None:
        """Gives up the connection and its snapshot; `take` goes on in a new one."""
        if self._ahead is not None:
            await asyncio.wait({self._ahead}, timeout=_PARK_GRACE)
        await self.close()

    async def close(self) -> None:
        """Gives up everything at once; a query that still runs is cancelled."""
        ahead, self._ahead = self._ahead, None
        proving, self._proving = self._proving, None
        if proving is not None:
            proving.cancel()
        try:
            if ahead is not None:
                ahead.cancel()
                # What it read was not taken, so it would be read again; what it raised, met again.
                await asyncio.gather(ahead, return_exceptions=True)
        finally:
            # Also where this is cancelled in its turn: the connection must come back.
            await self._end_snapshot()

    def _reading(self) -> asyncio.Task[ReadResult]:
        if self._ahead is None:
            self._ahead = asyncio.create_task(self._read())
        return self._ahead

    async def _read(self) -> ReadResult:
        """The next rows, from the primary where a standby fails in the middle of them."""
        try:
            return await self._read_here()
        except TimeoutError:
            raise  # what is too slow on one of them would be so on the other
        except (Unavailable, OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            if self._standby is None:
                raise
            logger.warning("an export leaves its standby: %s", redacted(error))
            await self._leave_standby()
            return await self._read_here()

    async def _leave_standby(self) -> None:
        if self._standby is not None:
            self._standby.failed()
        self._standby_failed = True
        if not self._has_read:
            self.snapshots = 0  # nothing came of it
        await self._end_snapshot()

    async def _read_here(self) -> ReadResult:
        """The next rows of the present snapshot, or the first of a new one."""
        began = time.monotonic()
        connection = None if self._has_begun else await self._begin_snapshot()
        with self._stopwatch.timing():
            if connection is not None:
                await self._begin_source(connection)
            wanted = self._batch_size.rows
            if self._first is not None:
                wanted = min(wanted, self._first.rows_left)
            answer = await self._source.read(wanted, exactly=self._first is not None)
        if answer.batch is not None and self._connection is not None:
            refuse_what_is_no_text(self._connection, memoryview(answer.batch.body))
        self._has_read = True
        self._batch_size.learn(answer.batch, time.monotonic() - began)
        return answer

    async def _begin_snapshot(self) -> Connection:
        self._standby = self._pool.standby() if self._may_read_a_standby else None
        if self._standby is not None:
            self._began_on_standby = True
            self._first = None  # the cache has no use for it
        reading = transaction.reading(
            self._standby or self._pool,
            self._principal,
            self._stages,
            large=self._is_large,
            dataset=self.query.dataset.name,
        )
        connection, moment = await self._snapshot.enter_async_context(reading)
        self._seen, self._origin = moment
        begun = self._begun
        # Of another database, or another life of it, transaction numbers prove nothing.
        is_behind = begun is not None and self.snapshots == 1 and begun.origin == self._origin
        if self._proof is not None and begun is not None and is_behind:
            proof = self._proof(begun, Snapshot.parse(self._seen))
            self._proving = asyncio.create_task(proof)
        self._stopwatch.on(connection)
        return connection

    async def _begin_source(self, connection: Connection) -> None:
        if self.query.is_framed and not self._is_counted:
            counting = total_of(connection, self.query, self._principal, self._count_timeout)
            self._total, self._is_counted = await counting, True
        self._connection = connection
        self._source = await choice.settled(
            self._source, self.query, self._principal, connection, self._position
        )
        self._stages.said["source"] = self._stopwatch.source = self._source.name
        left = None if self.query.limit is None else self.query.limit - self.rows
        # Not beside a standby, for of its snapshot nobody can say whether it is the same.
        beside = self._pool if self._standby is None else None
        await self._source.begin(connection, self._position, left, beside)
        self._snapshot.push_async_callback(self._source.close)
        self._has_begun = True
        self.snapshots += 1

    async def _end_snapshot(self) -> None:
        snapshot, self._snapshot = self._snapshot, AsyncExitStack()
        self._has_begun, self._standby, self._connection = False, None, None
        await snapshot.aclose()

    def _go_on_from(self, page: Page) -> None:
        self.rows = len(page.records)
        self.snapshots = 1
        self._total = Total(page.total, "estimate")  # as it was when the page was read
        self._exhausted = not page.more
        if page.last is not None:
            self._position = tokens.decode(page.last)

    async def _count_snapshots(self) -> None:
        """A page that is as the cursor's snapshot would have it is of that snapshot."""
        proving, self._proving = self._proving, None
        if proving is not None and await proving:
            self.snapshots -= 1

    def _part(self, batch: Batch) -> Part:
        self.rows += batch.count
        self._position = _position(batch.last)
        return Part(batch.body, batch.count, tokens.encode(self._position), batch.records)


@asynccontextmanager
async def open_export(
    query: FeedQuery,
    principal: Principal,
    pool: Pool,
    course: ExportOptions,
    stages: Stages,
) -> AsyncIterator[Export]:
    """An export whose first rows have been read, so that what could fail early has not.

    Raises Problem. Whatever ends the block, its connection is back when it has ended.
    """
    export = Export(query, principal, pool, course, stages)
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


def _position(last: Sequence[str | None]) -> Sequence[str]:
    position = [text for text in last if text is not None]
    if len(position) < len(last):
        # Only a view can do that, and only one whose not_null promised otherwise.
        raise DatasetUnavailable("A column of the order is NULL.", 30)
    return position
