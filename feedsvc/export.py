"""The rows of one query, read ahead of the client, from as few snapshots as it allows.

A cursor stays open only while the client keeps up. `park` gives it up, with its connection and
its snapshot, and the export goes on by keyset from the last row that was taken. So a thousand
stalled phones cost no connection, and hold back no vacuum.
"""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Final, TypeAlias

import asyncpg
from asyncpg.cursor import Cursor

from feedsvc import statement, tenancy
from feedsvc.auth.principal import Principal
from feedsvc.cache.page import Page, digest_of
from feedsvc.cache.snapshot import Snapshot
from feedsvc.errors import DatasetUnavailable, Unavailable
from feedsvc.faults import as_problems, told
from feedsvc.pools import Connection, Pool
from feedsvc.query import FeedQuery
from feedsvc.timing import Stages
from streams import tokens
from streams.frames import Rows, TotalKind

logger = logging.getLogger(__name__)

_FIRST_BATCH: Final = 64
_LARGEST_BATCH: Final = 4_096
_SMALLEST_CHUNK: Final = 32_768  # bytes
_SMALL_LIMIT: Final = 10_000  # rows that are soon read, whatever they are
_SLOW_BATCH: Final = 0.25  # seconds; rows that come slower than this are passed on as they come
_record_of: Final = itemgetter(0)
Proof: TypeAlias = Callable[[Page, Snapshot], Coroutine[Any, Any, bool]]
"""Whether a page is as this later snapshot would have it."""

_PARK_GRACE: Final = 0.05  # seconds that rows already on their way get before they are cancelled


@dataclass(frozen=True, slots=True)
class _Batch:
    """Records as asyncpg gives them; `final` where its snapshot has no more."""

    records: Sequence[asyncpg.Record]
    final: bool


class _BatchSize:
    """How many rows to ask for: as many as make a chunk, fewer where they come slowly.

    Chunks grow with what was read, and that is with what the client took: one that reads nothing
    from the start is found out while the chunk that waits for it is still small.
    """

    def __init__(self, chunk_bytes: int) -> None:
        self.rows = _FIRST_BATCH
        self._read_bytes = 0
        self._chunk_bytes = chunk_bytes

    def learn(self, records: Sequence[asyncpg.Record], seconds: float) -> None:
        """Takes a batch's size and time into account for the next one."""
        size = sum(map(len, map(_record_of, records)))
        self._read_bytes += size
        chunk = min(self._chunk_bytes, max(_SMALLEST_CHUNK, self._read_bytes // 16))
        wanted = chunk * len(records) // max(1, size)
        if seconds > _SLOW_BATCH:
            wanted = min(wanted, self.rows // 2)
        self.rows = max(1, min(wanted, self.rows * 8, _LARGEST_BATCH))


class FirstPage:
    """Keeps what an export begins with, for `done` to have as a page."""

    def __init__(self, most_rows: int, most_bytes: int, done: Callable[[Page], None]) -> None:
        self.rows_left = most_rows
        self._bytes_left = most_bytes
        self._done = done
        self._records: list[bytes] = []

    def add(self, export: "Export", rows: Rows | None) -> bool:
        """Takes what an export has just given. Whether the page still lacks something."""
        if export.snapshots != 1:
            return False
        if rows is not None:
            self._records += rows.records
            self.rows_left -= len(rows.records)
            self._bytes_left -= sum(map(len, rows.records))
        if not export.is_over and self.rows_left > 0 and self._bytes_left > 0:
            return True
        self._done(export.page(self._records))
        return False


@dataclass(frozen=True, slots=True)
class Course:
    """How an export goes: in chunks of so many bytes, on from the page `begun`, if there is one.

    That page's rows are not given again; `proof` tells whether it is what the cursor's snapshot
    would have given. `keep` gets what the export itself begins with.
    """

    chunk_bytes: int
    begun: Page | None = None
    proof: Proof | None = None
    keep: FirstPage | None = None


class Export:
    """Rows of one query, in order, made by `open_export`. Its counts are of what was taken.

    One that goes on from a page counts the page's rows as taken.
    """

    def __init__(
        self,
        query: FeedQuery,
        principal: Principal,
        pool: Pool,
        course: Course,
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
        self._estimate: int | None = None
        self._standby: Pool | None = None
        """Where the present snapshot is, if it is not on the primary."""
        self._standby_failed = self._began_on_standby = self._has_read = False
        self._batch_size = _BatchSize(course.chunk_bytes)
        self._snapshot = AsyncExitStack()
        self._cursor: Cursor[asyncpg.Record] | None = None
        self._ahead: asyncio.Task[_Batch] | None = None
        self._exhausted = False
        self._first = course.keep
        self._began = time.time()
        self._seen = ""
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

    def total(self) -> tuple[int | None, TotalKind]:
        """How many rows there will be, as far as is known."""
        if self._exhausted:
            return self.rows, "exact"
        if self._estimate is None:
            return None, "estimate"
        limit = self._estimate if self.query.limit is None else self.query.limit
        return max(self.rows, min(self._estimate, limit)), "estimate"

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

    async def take(self) -> Rows | None:
        """The next rows, None behind the last one. Raises Problem."""
        if self._exhausted:
            await self._count_snapshots()
            return None
        with as_problems(self._pool.observers):
            batch = await self._reading()
        self._ahead = None
        rows = self._rows(self._within_limit(batch))
        # Before more is read, for no more may be read than the page still lacks.
        if self._first is not None and not self._first.add(self, rows):
            self._first = None
        if self._exhausted:
            await self._end_snapshot()
        else:
            self._reading()
            # One turn of the loop sends the next request, so that PostgreSQL works on it while
            # the caller encodes and writes these rows.
            await asyncio.sleep(0)
        return rows

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
            estimate=self._estimate,
        )

    async def park(self) -> None:
        """Gives up the cursor, its connection and its snapshot; `take` goes on in a new one."""
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

    def _reading(self) -> asyncio.Task[_Batch]:
        if self._ahead is None:
            self._ahead = asyncio.create_task(self._read())
        return self._ahead

    async def _read(self) -> _Batch:
        """The next batch, from the primary where a standby fails in the middle of it."""
        try:
            return await self._read_here()
        except TimeoutError:
            raise  # what is too slow on one of them would be so on the other
        except (Unavailable, OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            if self._standby is None:
                raise
            logger.warning("an export leaves its standby: %s", told(error))
            await self._leave_standby()
            return await self._read_here()

    async def _leave_standby(self) -> None:
        if self._standby is not None:
            self._standby.failed()
        self._standby_failed = True
        if not self._has_read:
            self.snapshots = 0  # nothing came of it
        await self._end_snapshot()

    async def _read_here(self) -> _Batch:
        """The next batch of the present snapshot, or the first of a new one."""
        began = time.monotonic()
        cursor = self._cursor or await self._begin_snapshot()
        wanted = self._batch_size.rows
        if self._first is not None:
            wanted = min(wanted, self._first.rows_left)
        records = await cursor.fetch(wanted)
        self._has_read = True
        self._batch_size.learn(records, time.monotonic() - began)
        return _Batch(records, final=len(records) < wanted)

    async def _begin_snapshot(self) -> "Cursor[asyncpg.Record]":
        self._standby = self._pool.standby() if self._may_read_a_standby else None
        if self._standby is not None:
            self._began_on_standby = True
            self._first = None  # the cache has no use for it
        pool = self._standby or self._pool
        connection, self._seen = await self._snapshot.enter_async_context(
            tenancy.reading(pool, self._principal, self._stages, large=self._is_large)
        )
        if self._proof is not None and self._begun is not None and self.snapshots == 1:
            proof = self._proof(self._begun, Snapshot.parse(self._seen))
            self._proving = asyncio.create_task(proof)
        if self.query.is_framed and self._estimate is None:
            self._estimate = await _planned_rows(connection, self.query, self._principal)
        # One row beyond the limit tells whether there is more.
        left = None if self.query.limit is None else self.query.limit - self.rows + 1
        wanted = statement.feed(self.query, self._principal, self._position, left)
        self._cursor = await connection.cursor(wanted.sql, *wanted.arguments)
        self.snapshots += 1
        return self._cursor

    async def _end_snapshot(self) -> None:
        snapshot, self._snapshot = self._snapshot, AsyncExitStack()
        self._cursor = self._standby = None
        await snapshot.aclose()

    def _go_on_from(self, page: Page) -> None:
        self.rows = len(page.records)
        self.snapshots = 1
        self._estimate = page.estimate
        self._exhausted = not page.more
        if page.last is not None:
            self._position = tokens.decode(page.last)

    async def _count_snapshots(self) -> None:
        """A page that is as the cursor's snapshot would have it is of that snapshot."""
        proving, self._proving = self._proving, None
        if proving is not None and await proving:
            self.snapshots -= 1

    def _rows(self, records: Sequence[asyncpg.Record]) -> Rows | None:
        if not records:
            return None
        self.rows += len(records)
        self._position = _position(records[-1])
        return Rows(list(map(_record_of, records)), tokens.encode(self._position))

    def _within_limit(self, batch: _Batch) -> Sequence[asyncpg.Record]:
        """The batch's records that the limit admits."""
        self._exhausted = batch.final
        if self.query.limit is None or self.rows + len(batch.records) <= self.query.limit:
            return batch.records
        self._exhausted = self.more = True
        return batch.records[: self.query.limit - self.rows]


@asynccontextmanager
async def open_export(
    query: FeedQuery,
    principal: Principal,
    pool: Pool,
    course: Course,
    stages: Stages,
) -> AsyncIterator[Export]:
    """An export whose first rows have been read, so that what could fail early has not.

    Raises Problem. Whatever ends the block, its connection is back when it has ended.
    """
    export = Export(query, principal, pool, course, stages)
    try:
        with as_problems(pool.observers):
            await export.begin()
        stages.lap("db")
        yield export
    finally:
        await export.close()


async def _planned_rows(connection: Connection, query: FeedQuery, principal: Principal) -> int:
    """The planner's guess at the number of rows."""
    wanted = statement.estimate(query, principal)
    plans: Any = json.loads(await connection.fetchval(wanted.sql, *wanted.arguments))
    return int(plans[0]["Plan"]["Plan Rows"])


def _position(record: asyncpg.Record) -> Sequence[str]:
    position = tuple(record)[1:]
    if None in position:
        # Only a view can do that, and only one whose not_null promised otherwise.
        raise DatasetUnavailable("A column of the order is NULL.", 30)
    return tuple(map(str, position))
