"""Reads of one query, in one snapshot after the other, each of them a transaction."""

import logging
from contextlib import AsyncExitStack
from typing import Final

import asyncpg

from feedsvc.backends.postgres.pool import Connection, Pool
from feedsvc.core.logs import redacted
from feedsvc.core.principal import Principal
from feedsvc.core.problems import Unavailable
from feedsvc.core.timing import Stages
from feedsvc.feeds import transaction
from feedsvc.feeds.export_options import ExportOptions
from feedsvc.feeds.first_page import FirstPage
from feedsvc.feeds.query import FeedQuery
from feedsvc.feeds.slow_queries import Stopwatch
from feedsvc.feeds.sources import choice
from feedsvc.feeds.sources.source import Position, ReadResult
from feedsvc.feeds.statement_names import StatementKind, name_of
from feedsvc.feeds.totals import UNKNOWN, Total, total_of
from feedsvc.feeds.transaction import Moment
from feedsvc.feeds.trial import refuse_what_is_no_text

logger = logging.getLogger(__name__)

_SMALL_LIMIT: Final = 10_000  # rows that are soon read, whatever they are


class SnapshotReader:
    """Reads rows of a query; a snapshot lasts from the first `read` in it to `end`.

    The first one may be a standby's. Where the standby fails, the rows are read on from the
    primary.
    """

    def __init__(
        self,
        query: FeedQuery,
        principal: Principal,
        pool: Pool,
        options: ExportOptions,
        stages: Stages,
    ) -> None:
        self._query = query
        self._principal = principal
        self._pool = pool
        self._stages = stages
        self._count_timeout = options.count_timeout
        self._source = options.source_factory(query, principal)
        kind: StatementKind = "export" if self._is_large else "page"
        self._stopwatch = Stopwatch(
            pool, query.dataset.name, self._source.name, name_of(kind, query)
        )
        self._exits = AsyncExitStack()
        self._connection: Connection | None = None
        """The connection of the present snapshot, once its source has begun."""
        self._standby: Pool | None = None
        """The pool of the present snapshot, if it is not the primary's."""
        # A standby's snapshot is older than the primary's: behind rows of a younger one, a page's
        # or another server's, it could give a row twice that was not changed since. And the end of
        # a framed body tells from where changes are to be followed, which a standby can't say.
        starts = query.after is None and options.first_page is None
        whole = self._is_large and not query.is_framed
        self._may_use_standby = starts and whole and query.dataset.replica
        self._has_read = False
        self._snapshots = 0
        self.used_standby = False
        self.moment = Moment("", "")
        """The latest snapshot."""
        self.first_page: FirstPage | None = None
        if options.first_page is not None:
            self.first_page = FirstPage(options.first_page, options.verify)
        self.total: Total | None = None
        """The number of rows, counted in the first snapshot, where the format shows it."""
        self.cursor: str | None = None
        """The cursor of the first snapshot, where it is asked for and there is one."""
        self._make_cursor = options.cursor

    @property
    def snapshots(self) -> int:
        """The number of snapshots that rows are of; a first page has its own until verified."""
        return self._snapshots + (0 if self.first_page is None else self.first_page.snapshots)

    @property
    def pool(self) -> Pool:
        """The pool that the present snapshot's connection is of."""
        return self._standby or self._pool

    @property
    def _is_large(self) -> bool:
        """Return whether it may take long."""
        return self._query.limit is None or self._query.limit > _SMALL_LIMIT

    async def read(
        self, position: Position | None, given: int, rows: int, exactly: int | None
    ) -> ReadResult:
        """Read the next rows, about `rows` of them; at most `exactly`, unless from a standby.

        Where a snapshot must be begun, it goes on behind `position`, to which `given` rows of the
        query's limit have led. Raises Problem, EncoderError, UnicodeDecodeError and what asyncpg
        raises.
        """
        try:
            return await self._read(position, given, rows, exactly)
        except TimeoutError:
            raise  # what is too slow on one of them would be so on the other
        except (Unavailable, OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            if self._standby is None:
                raise
            logger.warning("an export leaves its standby: %s", redacted(error))
            await self._leave_standby(self._standby)
            return await self._read(position, given, rows, exactly)

    async def end(self) -> None:
        """End the snapshot and release its connection."""
        exits, self._exits = self._exits, AsyncExitStack()
        self._connection = self._standby = None
        self._stopwatch.finish()
        await exits.aclose()

    async def _read(
        self, position: Position | None, given: int, rows: int, exactly: int | None
    ) -> ReadResult:
        is_new = self._connection is None
        connection = self._connection or await self._begin_transaction()
        if is_new and self._query.is_framed and self.total is None:
            self.total = await self._counted(connection)
        with self._stopwatch.timing():
            if is_new:
                await self._begin_source(connection, position, given)
            if exactly is None or self.used_standby:
                result = await self._source.read(rows, exactly=False)
            else:
                result = await self._source.read(min(rows, exactly), exactly=True)
        if result.batch is not None:
            self._stopwatch.rows += result.batch.count
            refuse_what_is_no_text(connection, memoryview(result.batch.body))
        self._has_read = True
        return result

    async def _begin_transaction(self) -> Connection:
        may_use_standby = self._may_use_standby and self._snapshots == 0
        self._standby = self._pool.standby() if may_use_standby else None
        self.used_standby = self.used_standby or self._standby is not None
        reading = transaction.reading(
            self.pool,
            self._principal,
            self._stages,
            large=self._is_large,
            dataset=self._query.dataset.name,
        )
        connection, self.moment = await self._exits.enter_async_context(reading)
        if self.first_page is not None and self._snapshots == 0:
            self.first_page.begin(self.moment)
        self._stopwatch.on(connection)
        make_cursor, self._make_cursor = self._make_cursor, None
        if make_cursor is not None:
            self.cursor = await make_cursor(connection, self.moment)
        return connection

    async def _counted(self, connection: Connection) -> Total:
        if self._count_timeout <= 0:
            return UNKNOWN
        query = self._query
        name = name_of("count", query)
        stopwatch = Stopwatch(self._pool, query.dataset.name, "count", name)
        stopwatch.on(connection)
        stopwatch.rows = 1
        with stopwatch.counting():
            return await total_of(connection, query, self._principal, self._count_timeout)

    async def _begin_source(
        self, connection: Connection, position: Position | None, given: int
    ) -> None:
        query, principal = self._query, self._principal
        self._source = await choice.settled(self._source, query, principal, connection, position)
        self._stages.said["source"] = self._stopwatch.source = self._source.name
        left = None if query.limit is None else query.limit - given
        # Not beside a standby, of whose snapshot it can't be told whether it is the same.
        beside = self._pool if self._standby is None else None
        await self._source.begin(connection, position, left, beside)
        self._exits.push_async_callback(self._source.close)
        self._connection = connection
        self._snapshots += 1

    async def _leave_standby(self, standby: Pool) -> None:
        standby.failed()
        self._may_use_standby = False
        if not self._has_read:
            self._snapshots = 0  # no row came of it
        await self.end()
