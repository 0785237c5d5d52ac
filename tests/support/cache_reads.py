"""A request to a cache of test_cache_model.py, and what its answer must be."""

import asyncio
from collections import Counter
from dataclasses import dataclass

from feedsvc.cache.status import Lookup
from feedsvc.core.principal import Principal
from feedsvc.core.problems import DatabaseUnavailable
from feedsvc.datasets.dataset import Dataset
from feedsvc.feeds.page import Page
from tests.support.cache_world import Database, Worker, serials_of


@dataclass(eq=False)
class Read:
    """A request under way. `at_least` are the commits that it must show."""

    worker: Worker
    dataset: Dataset
    caller: Principal
    at_least: set[int]
    began: float
    joins: bool
    """True if somebody read the page already, so that it may be as old as that takes."""
    outages: int
    lost: frozenset[int]
    """The state that no earlier fail-over can have left for it to see."""
    task: "asyncio.Task[Lookup]"

    def judged(self, database: Database, counts: Counter[str]) -> Page | None:
        """The page of the cache that was shown, if one was and nothing is wrong with it."""
        if self.task.cancelled():
            return None
        error = self.task.exception()
        if error is not None:
            assert isinstance(error, DatabaseUnavailable), error
            was_away = database.away or database.outages != self.outages
            assert was_away, "it was there all the time"
            return None
        entry, status = self.task.result()
        assert entry is not None, "no page here is too large"
        page = entry.page
        if entry.key is None:
            counts["answers, past it"] += 1
            self._check(page, database)
            return None
        self._check(page, database)
        if not self.joins:
            assert self.began - page.loaded <= self.dataset.fresh + self.dataset.stale
        counts["answers, cached"] += 1
        counts[str(status).partition(";")[0]] += 1
        counts["away"] += status.detail == "away"
        return page

    def _check(self, page: Page, database: Database) -> None:
        serials = serials_of(page)
        own = {c.serial for c in database.commits if c.concerns(self.dataset, self.caller)}
        assert serials <= own | database.lost, "it is not the caller's"
        assert not serials & self.lost, "it was lost in a fail-over"
        assert serials >= self.at_least, "it is older than what was read"
