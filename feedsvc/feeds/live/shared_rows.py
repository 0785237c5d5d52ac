"""The rows of a cohort's state, read once for all who come within a moment and see the same.

The first one's reading begins at once, and belongs to no request. Who comes later takes its rows if
a look at the log that begins behind that finds rights and rows as they were; else they are read
anew, for all who wait by then.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, TypeAlias
from weakref import WeakSet

from feedsvc.core.single_flight import Flights
from feedsvc.feeds.cursors import Cursors
from feedsvc.feeds.export import Export
from feedsvc.feeds.live.cohort import Cohort
from feedsvc.feeds.live.tail import Tail
from feedsvc.feeds.sources.source import Batch
from feedsvc.feeds.totals import Total

MOST_BYTES: Final = 1 << 20
"""Bytes of the rows that are shared; more are a stream of each who asks."""
_MOST_SECONDS: Final = 5.0  # behind the first of them; slower ones are sent as they come
_MOST_KEPT: Final = 16 << 20  # bytes of all cohorts, for those to come
_KEPT_FOR: Final = 5.0  # seconds, for thousands that come together take some to be let in
_LOOK_WITHIN: Final = 1.0  # seconds; where the log's tail is slower the rows are read anew

Begin: TypeAlias = Callable[[], AbstractAsyncContextManager[Export]]
"""Begins the export of a cohort's rows."""


@dataclass(frozen=True, slots=True)
class SharedRows:
    """Rows as they were read, from the first one on, and the cursor of their state.

    `began` is before the reading (monotonic), `is_whole` tells whether these are all, of one
    snapshot.
    """

    began: float
    cursor: str | None
    total: Total
    batches: tuple[Batch, ...]
    is_whole: bool
    snapshots: int
    size: int


class RowsReplayed:
    """Shared rows as one answer sends them: an export whose first rows lie ready.

    What they lack it reads itself, and so it does once its client falls behind: then it holds none
    of them any more.
    """

    def __init__(self, rows: SharedRows, rest: Callable[[str | None], Export]) -> None:
        """`rest` makes the export of the rows behind a token."""
        self.cursor = rows.cursor
        self._total = rows.total
        self._left = deque(rows.batches)
        self._lacks = not rows.is_whole
        self._last: str | None = None
        self._snapshots = rows.snapshots
        self._make_rest = rest
        self._rest: Export | None = None
        self._never = asyncio.Event()

    @property
    def snapshots(self) -> int:
        """The number of snapshots that the rows are of."""
        return self._snapshots + (0 if self._rest is None else self._rest.snapshots)

    @property
    def pressed(self) -> asyncio.Event:
        """Set while a request waits for a connection such as this one's, if it has any."""
        return self._never if self._rest is None else self._rest.pressed

    @property
    def ready(self) -> int:
        """The number of batches that it holds."""
        return len(self._left)

    def total(self) -> Total:
        """The number of rows that there will be, as far as is known."""
        return self._total

    async def wait(self, timeout: float | None) -> bool:
        """Return whether `take` has an answer ready, or gets one within so many seconds."""
        return await self._own().wait(timeout) if self._is_on_its_own else True

    async def take(self) -> Batch | None:
        """The next rows, None behind the last one. Raises Problem."""
        if self._is_on_its_own:
            return await self._own().take()
        if not self._left:
            return None
        batch = self._left.popleft()
        self._last = batch.last
        return batch

    async def park(self) -> None:
        """Hold no rows for a client that is behind; `take` reads them."""
        self._lacks = self._lacks or bool(self._left)
        self._left.clear()
        if self._rest is not None:
            await self._rest.park()

    async def close(self) -> None:
        """Give up everything at once."""
        if self._rest is not None:
            await self._rest.close()

    @property
    def _is_on_its_own(self) -> bool:
        return self._lacks and not self._left

    def _own(self) -> Export:
        if self._rest is None:
            self._rest = self._make_rest(self._last)
        return self._rest


class SharedReads:
    """Reads the rows of cohorts' states, once for all who come within a moment."""

    def __init__(self, tail: Tail, cursors: Cursors) -> None:
        self._tail = tail
        self._cursors = cursors
        self._flights: Flights[SharedRows] = Flights()
        self._kept: dict[Cohort, SharedRows] = {}
        self._large: WeakSet[Cohort] = WeakSet()  # with more rows than are shared

    @property
    def kept_bytes(self) -> int:
        """The bytes of the rows that are kept for those to come."""
        return sum(rows.size for rows in self._kept.values())

    async def of(self, cohort: Cohort, begin: Begin) -> SharedRows | None:
        """The cohort's rows, in a state that it has or had behind this call.

        None where each reads its own, for they are too many. Raises Problem.
        """
        came = time.monotonic()
        while cohort not in self._large:
            rows = self._kept.get(cohort)
            if rows is None:
                read = partial(self._read, cohort, begin)
                rows = await self._flights.join(str(id(cohort)), read)
            if rows.began >= came or await self._are_still(cohort, rows):
                return rows
            self._forget(cohort, rows)
        return None

    async def close(self) -> None:
        """End what is under way, and keep nothing."""
        await self._flights.close()
        self._kept.clear()

    async def _are_still(self, cohort: Cohort, rows: SharedRows) -> bool:
        return (
            rows.is_whole
            and rows.cursor is not None
            and await self._tail.is_still_in(cohort, self._cursors.parse(rows.cursor), _LOOK_WITHIN)
        )

    async def _read(self, cohort: Cohort, begin: Begin) -> SharedRows:
        rows = await _read(begin)
        if not rows.is_whole:
            self._large.add(cohort)
        elif rows.cursor is not None:
            rows = await self._begun(cohort, rows, rows.cursor)
            self._keep(cohort, rows)
        return rows

    async def _begun(self, cohort: Cohort, rows: SharedRows, cursor: str) -> SharedRows:
        """The rows with the first state of the cohort, where it begins with them."""
        if cohort.cursor is not None:
            return rows
        step = await self._tail.step(cohort, self._cursors.parse(cursor))
        return rows if step.batches else replace(rows, cursor=self._cursors.text(step.cursor))

    def _keep(self, cohort: Cohort, rows: SharedRows) -> None:
        if self.kept_bytes + rows.size <= _MOST_KEPT:
            self._kept[cohort] = rows
            asyncio.get_running_loop().call_later(_KEPT_FOR, self._forget, cohort, rows)

    def _forget(self, cohort: Cohort, rows: SharedRows) -> None:
        if self._kept.get(cohort) is rows:
            del self._kept[cohort]


async def _read(begin: Begin) -> SharedRows:
    """Read the rows, as long as they are few."""
    began, batches, size = time.monotonic(), list[Batch](), 0
    async with begin() as export:
        total, until = export.total(), time.monotonic() + _MOST_SECONDS
        while size <= MOST_BYTES and time.monotonic() < until:
            batch = await export.take()
            if batch is None:
                break
            batches.append(batch)
            size += len(batch.body)
        is_whole = export.is_over and export.snapshots == 1
        return SharedRows(
            began, export.cursor, total, tuple(batches), is_whole, export.snapshots, size
        )
