"""One connection that reads an export's ranges, one after the other, whichever is next."""

from __future__ import annotations  # of what is not there without the encoder

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from feedsvc.backends.postgres.pool import Connection, Pool
from feedsvc.core import cause
from feedsvc.core.principal import Principal
from feedsvc.feeds.query import FeedQuery
from feedsvc.feeds.sources.native import native_batch
from feedsvc.feeds.sources.pacing import ReadPacer
from feedsvc.feeds.sources.ranges import KeyRange, Ranges
from feedsvc.feeds.sql import statement
from feedsvc.feeds.sql.binary_projection import BinaryRow
from streams import encoder

_FEWEST_TO_JUDGE: Final = 16  # ranges
_DEAR: Final = 0.5  # of the time that rows take, for finding out where ranges end
_IDLE: Final = 0.75  # of all the time there was, for waiting until what was read is passed on


class RangeQuery(NamedTuple):
    """A query, its caller, and the form of its rows in PostgreSQL's binary format.

    `range_rows`: the number of rows of the next range.
    """

    query: FeedQuery
    principal: Principal
    row: BinaryRow
    plan: encoder.Plan
    range_rows: Callable[[], int]


@dataclass(slots=True)
class Effort:
    """The time that several connections of a pool have spent, in seconds, by purpose."""

    pool: Pool
    ranges: int = 0
    bounding: float = 0.0
    reading: float = 0.0
    waiting: float = 0.0
    has_been_idle: bool = False
    has_been_dear: bool = False

    def is_enough(self) -> bool:
        """Return whether one connection should go on alone from here."""
        self.has_been_dear |= self.is_dear
        return self.has_been_dear or self.pool.is_shared

    @property
    def is_dear(self) -> bool:
        """Return whether one would be no slower, for most of the work is to find ranges' ends."""
        return self.ranges >= _FEWEST_TO_JUDGE and self.bounding > _DEAR * self.reading

    @property
    def is_idle(self) -> bool:
        """Return whether fewer would be no slower, for rows come faster than they are taken."""
        spent = self.bounding + self.reading + self.waiting
        return self.ranges >= _FEWEST_TO_JUDGE and self.waiting > _IDLE * spent

    def one_less(self) -> None:
        """Count anew, for an idle connection leaves."""
        self.ranges, self.has_been_idle = 0, True
        self.bounding = self.reading = self.waiting = 0.0


class RangeReader:
    """A connection that reads. The export's `own` is there as long as there may be anything left.

    The others end when there will be no further range.
    """

    def __init__(
        self,
        wanted: RangeQuery,
        ranges: Ranges,
        effort: Effort,
        connection: Connection,
        *,
        own: bool,
    ) -> None:
        self._wanted = wanted
        self._ranges = ranges
        self._effort = effort
        self._connection = connection
        self._own = own
        self._pacer = ReadPacer(connection)
        # A frozen one must be reported to the others before PostgreSQL ends the export's own, which
        # has nothing to do meanwhile.
        self._timeout = None if own else effort.pool.settings.query_timeout / 2
        self._waited = 0.0  # in the range under way

    async def run(self) -> None:
        """Read until there is nothing left for it. Raises what asyncpg raises, and EncoderError.

        However it ends, another reader can read the rest of its range.
        """
        while (part := await self._next()) is not None:
            part.is_read = True
            try:
                async with asyncio.timeout(self._timeout):
                    await self._read(part)
            finally:
                self._ranges.leave(part)
            if self._effort.is_idle and not self._own:
                self._effort.one_less()
                return

    async def _next(self) -> KeyRange | None:
        ranges = self._ranges
        while (part := ranges.lacks_a_reader()) is None:
            if ranges.is_closed and (ranges.is_whole or not self._own):
                return None
            if ranges.may_grow:
                async with asyncio.timeout(self._timeout):
                    await self._bound()
            else:
                await self._change()
        return part

    async def _bound(self) -> None:
        """Find the end of the next range. The last rows, fewer than a range has, are none."""
        query, principal, _, _, range_rows = self._wanted
        rows = range_rows()
        if self._effort.is_enough() or not self._ranges.admits(rows):
            self._ranges.close()
            return
        began = time.monotonic()
        bound = statement.range_end_sql(query, principal, self._ranges.end, rows)
        with self._ranges.growing():
            end = await self._connection.fetchrow(bound.sql, *bound.arguments)
            if end is None:
                self._ranges.close()
            else:
                self._ranges.append(rows, ["" if value is None else str(value) for value in end])
        self._effort.bounding += time.monotonic() - began

    async def _read(self, part: KeyRange) -> None:
        query, principal, row, plan, _ = self._wanted
        began, self._waited = time.monotonic(), 0.0
        wanted = cause.marked(
            statement.copy_sql(query, principal, row, part.position, part.missing)
        )
        making = part.making = encoder.Encoder(plan)
        is_left = False

        async def feed(chunk: bytes) -> None:
            nonlocal is_left
            if is_left or part.is_void:
                return  # to break a query off would end the transaction, and with it the snapshot
            making.feed_copy(chunk)
            if making.ended:
                return  # as in `CopyPages`; what is left is passed on behind
            if making.rows >= self._ranges.wanted:
                self._pass_on(part, making)
                is_left = not await self._has_room(part)
            elif making.rows < part.missing:
                await self._pacer.pause_after(len(chunk))

        await self._connection.copy_from_query(wanted, output=feed, format="binary")
        self._effort.ranges += 1
        self._effort.reading += time.monotonic() - began - self._waited
        if not is_left and not part.is_void:
            making.end_copy()
            self._pass_on(part, making)
            if part.missing:
                self._ranges.end_with(part)

    def _pass_on(self, part: KeyRange, making: encoder.Encoder) -> None:
        batch = native_batch(making.take())
        if batch is not None:
            self._ranges.add(part, batch)

    async def _has_room(self, part: KeyRange) -> bool:
        """Wait while enough is read already.

        False where rows that come before these have no reader, and there may be no other.
        """
        while self._ranges.is_full_for(part):
            if self._own and self._ranges.lacks_a_reader() is not None:
                return False
            await self._change()
        return True

    async def _change(self) -> None:
        began = time.monotonic()
        await self._ranges.change()
        waited = time.monotonic() - began
        self._waited += waited
        self._effort.waiting += waited
