"""Ranges of an export's rows: read by several at once, passed on in order.

A range is so many rows behind a place in the order. Its reader may fail, or be needed elsewhere,
at any moment: the rows that it has read stay, and another one reads the rest.
"""

from __future__ import annotations  # of what is not there without the encoder

import asyncio
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from feedsvc.feeds.sources.copy_pages import PASS_ON
from feedsvc.feeds.sources.native import native_batch
from feedsvc.feeds.sources.source import Batch, Position
from streams import encoder

AHEAD: Final = 2_097_152  # bytes that may wait for those before them


class KeyRange:
    """Rows behind a place in the order, up to the one that stands at `end`."""

    def __init__(self, behind: Position | None, rows: int, end: Position) -> None:
        self.position = behind
        """The place of the last row that was read."""
        self.missing = rows
        """The number of rows that have not been read."""
        self.end = end
        self.is_read = False
        """True if it has a reader."""
        self.is_void = False
        """True if its rows are not needed any more."""
        self.batches: deque[Batch] = deque()
        self.making: encoder.Encoder | None = None
        """The encoder of the rows that are coming in."""


class Ranges:
    """The ranges that were begun and not yet passed on, in order; `left` rows are all there may be.

    `wanted` is how many rows make a chunk.
    """

    def __init__(self, position: Position | None, left: int | None, wanted: int) -> None:
        self.end = position
        """Behind which row the next range begins."""
        self.wanted = wanted
        self.is_closed = False
        """True if there will be no further range."""
        self.buffered = 0
        self._left = left
        self._line: deque[KeyRange] = deque()
        self._is_growing = False
        self._error: BaseException | None = None
        self._passed_on = time.monotonic()
        self._changed = asyncio.Event()

    @property
    def may_grow(self) -> bool:
        """Return whether a reader should find the end of the next range."""
        return not self.is_closed and not self._is_growing and self.buffered < AHEAD

    @property
    def is_whole(self) -> bool:
        """Return whether every range has been read."""
        return not any(each.missing for each in self._line)

    def lacks_a_reader(self) -> KeyRange | None:
        """The first range that is not whole and has no reader."""
        return next((each for each in self._line if each.missing and not each.is_read), None)

    def admits(self, rows: int) -> bool:
        """Return whether there may be so many rows more."""
        return self._left is None or rows <= self._left

    @contextmanager
    def growing(self) -> Iterator[None]:
        """The context of finding the end of the next range, which one reader does at a time."""
        self._is_growing = True
        try:
            yield
        finally:
            self._is_growing = False
            self._notify()

    def append(self, rows: int, end: Position) -> None:
        """Add the next range, unless they were closed meanwhile."""
        if self.is_closed:
            return
        self._line.append(KeyRange(self.end, rows, end))
        self.end = end
        if self._left is not None:
            self._left -= rows

    def close(self) -> None:
        """Add no further range."""
        self.is_closed = True
        self._notify()

    def fail(self, error: BaseException) -> None:
        """End with an error, which `take` raises."""
        self._error = error
        self._notify()

    def add(self, part: KeyRange, batch: Batch) -> None:
        """Add the next rows of a range.

        Where they do not end as they should, what was begun behind them is not their continuation;
        that is found out before anything of it can be passed on.
        """
        if part.is_void:
            return
        part.batches.append(batch)
        part.missing -= batch.count
        part.position = [text or "" for text in batch.position]
        self.buffered += len(batch.body)
        if not part.missing and part.position != part.end:
            self.end_with(part)
        self._notify()

    def leave(self, part: KeyRange) -> None:
        """Take the reader off a range."""
        part.is_read, part.making = False, None
        self._notify()

    def end_with(self, part: KeyRange) -> None:
        """End this range with the rows that it has; ranges behind it are void.

        Only a view whose rows change within a snapshot comes to that.
        """
        while self._line and self._line[-1] is not part:
            void = self._line.pop()
            void.is_void = True
            void.missing = 0
            self.buffered -= sum(len(batch.body) for batch in void.batches)
        part.missing = 0
        self.close()

    def is_full_for(self, part: KeyRange) -> bool:
        """Return whether the range's reader has to wait: enough is there, and others come first."""
        if not part.missing or self.buffered < AHEAD:
            return False
        return bool(part.batches) or self._line[0] is not part

    async def change(self) -> None:
        """Wait until anything has changed."""
        await self._changed.wait()

    async def take(self) -> Batch | None:
        """The rows that come next; None when the ranges are closed and all was passed on.

        Raises the error of `fail`.
        """
        while self._line or not self.is_closed:
            if self._error is not None:
                raise self._error
            if not self._line:
                await self.change()
            elif (first := self._line[0]).batches:
                batch = first.batches.popleft()
                self.buffered -= len(batch.body)
                self._passed_on = time.monotonic()
                self._notify()
                return batch
            elif not first.missing:
                self._line.popleft()
                self._notify()
            else:
                await self._more_of(first)
        return None

    async def _more_of(self, first: KeyRange) -> None:
        """Wait for the next rows, and take rows that come slowly as they come."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._passed_on + PASS_ON - time.monotonic()):
                await self.change()
                return
        self._passed_on = time.monotonic()
        if first.making is not None and (batch := native_batch(first.making.take())) is not None:
            self.add(first, batch)

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
