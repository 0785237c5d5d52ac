"""The connections that read one export's ranges: its own, and those that its pool lends it.

All of them are in the snapshot of the export's own, which PostgreSQL exports to the others. Those
that the pool lends are given back as soon as a request waits for one. Where one is lost, or can't
be had, the others do its work; the export's own alone is needed.
"""

from __future__ import annotations  # of what is not there without the encoder

import asyncio
import logging
from collections.abc import Coroutine

from feedsvc.backends.postgres.pool import Connection, Pool
from feedsvc.core.logs import redacted
from feedsvc.core.problems import Busy
from feedsvc.feeds import transaction
from feedsvc.feeds.sources.ranges import Ranges
from feedsvc.feeds.sources.reader import Effort, RangeQuery, RangeReader

logger = logging.getLogger(__name__)


class RangeReaders:
    """Reads a query by ranges, with the export's connection and further ones."""

    def __init__(self, wanted: RangeQuery, ranges: Ranges, pool: Pool) -> None:
        self.effort = Effort(pool)
        self.lost = 0
        """The number of connections that could not be had, or were lost."""
        self._wanted = wanted
        self._ranges = ranges
        self._pool = pool
        self._tasks: set[asyncio.Task[None]] = set()
        # Those that may be cancelled: not twice, for the second time would interrupt the tidying.
        self._at_work: set[asyncio.Task[None]] = set()
        self._lent: set[asyncio.Task[None]] = set()

    async def begin(self, connection: Connection, most: int) -> None:
        """Begin to read by this connection, and by at most so many that the pool lends."""
        shared = await transaction.share(connection)
        lent = [self._start(self._by_lent(shared)) for _ in range(min(most, self._pool.spare))]
        self._lent.update(lent)
        for task in lent:
            task.add_done_callback(self._one_less)
        if not lent:  # another one was quicker
            self._ranges.close()
        self._start(self._by_own(connection))
        self._giving_back = self._start(self._give_back())
        logger.info("an export is read by %d connections", 1 + len(lent))

    async def finish(self) -> None:
        """Wait until the readers have ended."""
        self._stop(self._giving_back)
        await self._all_ended()

    async def close(self) -> None:
        """Cancel the readers, and wait until they have ended."""
        for task in tuple(self._at_work):
            self._stop(task)
        await self._all_ended()

    async def _all_ended(self) -> None:
        # They end by themselves where this is cancelled.
        if self._tasks:
            await asyncio.wait(set(self._tasks))

    def _start(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        for tasks in (self._tasks, self._at_work):
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        return task

    def _stop(self, task: asyncio.Task[None]) -> None:
        if task in self._at_work:
            self._at_work.discard(task)
            task.cancel()

    def _one_less(self, task: asyncio.Task[None]) -> None:
        self._lent.discard(task)
        if not self._lent:
            self._ranges.close()

    async def _give_back(self) -> None:
        await self._pool.pressed.wait()
        for task in tuple(self._lent):
            self._stop(task)

    async def _by_own(self, connection: Connection) -> None:
        try:
            await self._reader(connection, own=True).run()
        except Exception as error:  # noqa: BLE001 - `take` raises it
            self._ranges.fail(error)

    async def _by_lent(self, shared: transaction.SharedSnapshot) -> None:
        who = self._wanted.principal
        try:
            async with transaction.reading_along(self._pool, who, shared) as connection:
                await self._reader(connection, own=False).run()
                self._at_work -= {asyncio.current_task()}
        except Busy:
            pass  # another one was quicker
        except Exception as error:  # noqa: BLE001 - the export goes on without it
            self.lost += 1
            logger.warning("an export goes on with a connection less: %s", redacted(error))

    def _reader(self, connection: Connection, *, own: bool) -> RangeReader:
        return RangeReader(self._wanted, self._ranges, self.effort, connection, own=own)
