"""Outbox: rows that wait for PostgreSQL in memory and are written in batches, in the background."""

import asyncio
import itertools
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from feedsvc.backends.postgres.own_schema import write_transaction
from feedsvc.backends.postgres.pool import Pool
from feedsvc.core.logs import redacted
from feedsvc.core.problems import NotSetUp, Problem, Timeout, Unavailable

logger = logging.getLogger(__name__)

_EVERY: Final = 0.5  # seconds
_LONGEST_PAUSE: Final = 5.0
_LOG_EVERY: Final = 60.0  # seconds between two lines about the same fault

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class OutboxTable(Generic[Row]):
    """The statement that writes a batch, and the bounds of what waits.

    `subject` and `rows` name the rows in the log. `pack` makes the parameters of `sql` in a thread,
    once for each batch: a batch of unknown fate is sent again as it was, and `sql` must ignore the
    rows that it finds there. `newest`: a full outbox drops its oldest row, else the new one.
    `on_dropped` makes a row that reports how many were dropped, `on_taken` gets each batch that is
    written or refused for good.
    """

    subject: str
    rows: str
    sql: str
    pack: Callable[[Sequence[Row]], Sequence[Any]]
    most: int
    batch: int
    newest: bool = False
    on_dropped: Callable[[int], Row] | None = None
    on_taken: Callable[[Sequence[Row]], None] | None = None


class Outbox(Generic[Row]):
    """Rows on their way into one table of the service's own schema."""

    def __init__(self, pool: Pool, table: OutboxTable[Row]) -> None:
        self.waiting: deque[Row] = deque()
        """Rows that PostgreSQL has not confirmed, the oldest first."""
        self.dropped_ever = 0
        self._pool = pool
        self._table = table
        self._dropped = 0
        self._packed: Sequence[Any] | None = None
        self._in_batch = 0
        self._logged_at = -_LOG_EVERY
        self._missing = self._logged_missing = False

    def add(self, row: Row) -> bool:
        """Add a row. False: as many wait as may, and the row is dropped."""
        if len(self.waiting) >= self._table.most:
            self.drop()
            if not self._table.newest:
                return False
            del self.waiting[self._in_batch]  # the oldest that is not being written
        self.waiting.append(row)
        return True

    def drop(self) -> None:
        """Count a row that was not added."""
        self._dropped += 1
        self.dropped_ever += 1

    async def run(self, before: Callable[[], None] = lambda: None) -> None:
        """Write until cancelled, and call `before` ahead of each attempt."""
        pause = _EVERY
        while True:
            await asyncio.sleep(pause)
            before()
            pause = _EVERY if await self.write() else min(pause * 2, _LONGEST_PAUSE)

    async def close(self, patience: float) -> None:
        """Write what is left, for so many seconds at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self._write_until_empty()
        if lost := len(self.waiting) + self._dropped:
            what = "%s: %d %s are lost: PostgreSQL did not take them"
            logger.error(what, self._table.subject, lost, self._table.rows)

    async def write(self) -> bool:
        """Write all that waits. False where PostgreSQL is away, busy or lacks the table."""
        while True:
            self._report_dropped()
            if not self.waiting:
                return True
            values = await self._next_batch()
            try:
                async with write_transaction(self._pool) as connection:
                    await connection.execute(self._table.sql, *values)
                self._missing = self._logged_missing = False
            except (Unavailable, Timeout) as problem:
                self._missing = isinstance(problem, NotSetUp)
                self.log(problem)
                return False
            except Problem as problem:
                # It would be refused forever, and hold up all rows behind it.
                cause, table = redacted(problem.__cause__ or problem), self._table
                what = "%s: %d %s were refused: %s"
                logger.error(what, table.subject, self._in_batch, table.rows, cause)  # noqa: TRY400
            self._take_batch()

    def log(self, problem: Problem) -> None:
        """Log a fault, at most once a minute; a missing table once, since it stays missing."""
        if isinstance(problem, NotSetUp):
            is_due, self._logged_missing = not self._logged_missing, True
        else:
            is_due = time.monotonic() - self._logged_at >= _LOG_EVERY
        if is_due:
            self._logged_at = time.monotonic()
            table, waiting = self._table, len(self.waiting)
            what = "%s: %d %s wait and %d were dropped: %s"
            logger.warning(what, table.subject, waiting, table.rows, self._dropped, problem.detail)

    async def _write_until_empty(self) -> None:
        """Retry until all is written. A missing table is not waited for."""
        for pause in itertools.repeat(_EVERY):
            if await self.write() or self._missing:
                return
            await asyncio.sleep(pause)

    async def _next_batch(self) -> Sequence[Any]:
        if self._packed is None:
            batch = list(itertools.islice(self.waiting, self._table.batch))
            self._in_batch = len(batch)
            self._packed = await asyncio.to_thread(self._table.pack, batch)
        return self._packed

    def _take_batch(self) -> None:
        batch = [self.waiting.popleft() for _ in range(self._in_batch)]
        self._packed, self._in_batch = None, 0
        if self._table.on_taken is not None:
            self._table.on_taken(batch)

    def _report_dropped(self) -> None:
        """Report what was dropped as soon as there is room for a row that says so."""
        if self._dropped and len(self.waiting) < self._table.most:
            what = "%s: %d %s were dropped"
            logger.warning(what, self._table.subject, self._dropped, self._table.rows)
            if self._table.on_dropped is not None:
                self.waiting.append(self._table.on_dropped(self._dropped))
            self._dropped = 0
