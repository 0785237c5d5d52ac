"""The next page of a caller who is paging, read before it is asked for, where that pays."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from feedsvc.cache.envelope import PageRequest
from feedsvc.cache.loader import Load
from feedsvc.cache.memory import Guess
from feedsvc.cache.pages import Pages
from feedsvc.core.events import CachePrefetch, Observers
from feedsvc.core.problems import Problem
from feedsvc.feeds.page import Page

logger = logging.getLogger(__name__)

_MOST_AT_ONCE: Final = 2
_RECORD: Final = 50  # guesses that the record goes back
_TRIAL: Final = 10  # guesses before the record counts
_WORTH: Final = 0.5  # of the guesses must have been right
_PROBE: Final = 20  # of so many chances one is taken all the same, to see whether times change


class _Record:
    """The results of the latest guesses for one dataset."""

    def __init__(self) -> None:
        self._right: deque[bool] = deque(maxlen=_RECORD)
        self._passed = 0
        self._open = 0

    @property
    def ratio(self) -> float | None:
        return sum(self._right) / len(self._right) if self._right else None

    def guess(self) -> None:
        """Count a guess that is not decided yet."""
        self._open += 1

    def add(self, *, right: bool) -> None:
        """Add the result of a guess, which may have been another worker's."""
        self._right.append(right)
        self._open = max(0, self._open - 1)

    def says_go(self) -> bool:
        """Return whether the next guess is worth it."""
        ratio = self.ratio
        if self._open >= _RECORD:
            return False
        if len(self._right) < _TRIAL or ratio is None or ratio >= _WORTH:
            return True
        self._passed += 1
        return self._passed % _PROBE == 0


class Prefetcher:
    """Reads the next page for callers who are paging.

    `spare`: whether a connection is to be had. `patience`: the seconds after which a page that was
    not asked for counts as a wrong guess.
    """

    def __init__(
        self, pages: Pages, observers: Observers, spare: Callable[[], bool], patience: float
    ) -> None:
        self._pages = pages
        self._observers = observers
        self._spare = spare
        self._patience = patience
        self._records: dict[str, _Record] = {}
        self._open: deque[tuple[float, str, Guess]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    def ratios(self) -> dict[str, float | None]:
        """The ratio of right guesses among the latest, by dataset; None without any."""
        return {name: record.ratio for name, record in self._records.items()}

    def consider(self, wanted: PageRequest, load: Load) -> None:
        """Read this page ahead, if that is likely to pay."""
        self._write_off()
        record = self._records.setdefault(wanted.dataset.name, _Record())
        if len(self._tasks) >= _MOST_AT_ONCE or not self._spare():
            return
        if self._pages.at_hand(wanted, quietly=True) is None and record.says_go():
            task = asyncio.create_task(self._read(wanted, load))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def observe(self, prefetch: CachePrefetch) -> None:
        """Count the guesses that were right."""
        if prefetch.outcome == "used":
            self._records.setdefault(prefetch.dataset, _Record()).add(right=True)

    async def close(self) -> None:
        """Cancel what is being read."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _read(self, wanted: PageRequest, load: Load) -> None:
        async def marked() -> Page | None:
            page = await load()
            return None if page is None else replace(page, prefetched=True)

        try:
            held = await self._pages.fetch(wanted, marked)
        except Problem as problem:
            logger.info("cache: a page was not read ahead: %s", type(problem).__name__)
            return
        if held is not None and held.guess is not None and held.guess.is_open:
            self._observers.publish(CachePrefetch(wanted.dataset.name, "read"))
            self._records[wanted.dataset.name].guess()
            self._open.append((time.monotonic(), wanted.dataset.name, held.guess))

    def _write_off(self) -> None:
        """Count guesses as wrong that were not asked for in time."""
        before = time.monotonic() - self._patience
        while self._open and self._open[0][0] < before:
            _, dataset, guess = self._open.popleft()
            if guess.is_open:
                guess.is_open = False
                self._records[dataset].add(right=False)
                self._observers.publish(CachePrefetch(dataset, "wasted"))
