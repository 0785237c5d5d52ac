"""Pages fetched into memory: from Redis, or read from PostgreSQL by one request for all."""

from collections.abc import Awaitable, Callable
from typing import NamedTuple, TypeAlias

from feedsvc.backends.redis.link import RedisAwayError
from feedsvc.cache.envelope import PageKey, PageRequest
from feedsvc.cache.memory import CacheEntry, Memory
from feedsvc.cache.policy import PagePolicy
from feedsvc.cache.redis_pages import RedisPages
from feedsvc.cache.status import CacheTier, Why
from feedsvc.core.events import CacheLoad, Observers
from feedsvc.core.single_flight import Flights
from feedsvc.feeds.page import Page

Load: TypeAlias = Callable[[], Awaitable[Page | None]]
"""Reads a page from PostgreSQL; None where it is too large to be kept. Raises Problem."""


class LoadedPage(NamedTuple):
    """A page, None where it is too large to be one; `tier` is None where it was read."""

    page: Page | None
    tier: CacheTier | None


class PageLoader:
    """Fetches pages into memory. Requests that want the same page at once share one load.

    `wait_timeout`: the seconds to wait for a page that another worker reads.
    """

    def __init__(
        self,
        policy: PagePolicy,
        memory: Memory,
        shared: RedisPages | None,
        observers: Observers,
        wait_timeout: float,
    ) -> None:
        self._policy = policy
        self._memory = memory
        self._shared = shared
        self._observers = observers
        self._wait_timeout = wait_timeout
        self._loads: Flights[LoadedPage] = Flights()
        self._looks: Flights[CacheEntry | None] = Flights()

    def is_loading(self, key: PageKey) -> bool:
        """Return whether the page is being loaded."""
        return key in self._loads

    async def load(self, wanted: PageRequest, load: Load) -> LoadedPage:
        """The page from Redis, or from PostgreSQL by the worker that claims it. Raises Problem."""
        return await self._loads.join(wanted.key, lambda: self._load(wanted, load))

    def load_in_background(self, wanted: PageRequest, load: Load) -> None:
        """Load the page without waiting for it, unless that is under way."""
        self._loads.keep(wanted.key, lambda: self._load(wanted, load))

    async def look_in_redis(self, wanted: PageRequest) -> CacheEntry | None:
        """The page, if it is in Redis and may be shown; requests meanwhile share the answer."""
        return await self._looks.join(wanted.key, lambda: self._look_in_redis(wanted))

    async def from_redis(self, wanted: PageRequest) -> CacheEntry | Why:
        """The page, if it is in Redis and may be shown, or why not."""
        page: Page | Why = "absent" if self._shared is None else await self._shared.get(wanted)
        if not isinstance(page, Page):
            return page
        return self._policy.fault(wanted, page) or self.put(wanted, page)

    async def stale_from_redis(self, wanted: PageRequest) -> CacheEntry | None:
        """The page, if it is in Redis and may be shown although it is stale."""
        if self._shared is None or not wanted.dataset.stale:
            return None
        page = await self._shared.get(wanted)
        if isinstance(page, Page) and self._policy.may_be_shown_stale(wanted, page):
            return self.put(wanted, page)
        return None

    def put(self, wanted: PageRequest, page: Page) -> CacheEntry:
        """Keep the page in memory."""
        held = CacheEntry(page, wanted.key)
        self._memory.put(wanted.key, held)
        return held

    def report(self, wanted: PageRequest, page: Page) -> None:
        """Report to observers that the page was read."""
        rows, size = len(page.records), page.size()
        self._observers.publish(CacheLoad(wanted.dataset.name, page.cost, rows, size))

    async def close(self) -> None:
        """Cancel all that is being loaded."""
        await self._loads.close()
        await self._looks.close()

    async def _look_in_redis(self, wanted: PageRequest) -> CacheEntry | None:
        found = await self.from_redis(wanted)
        return found if isinstance(found, CacheEntry) else None

    async def _load(self, wanted: PageRequest, load: Load) -> LoadedPage:
        if self._shared is None:
            return await self._read(wanted, load)

        def is_good(page: Page) -> bool:
            return self._policy.fault(wanted, page) is None

        try:
            claim = await self._shared.claim(wanted, is_good, self._wait_timeout)
        except RedisAwayError:
            return await self._read(wanted, load)
        if isinstance(claim, Page):
            self.put(wanted, claim)
            return LoadedPage(claim, "redis")
        if claim is None:
            return await self._read(wanted, load)
        async with self._shared.holding(claim):
            page = self._shared.opened(wanted, claim.found)
            if isinstance(page, Page) and is_good(page):
                self.put(wanted, page)
                return LoadedPage(page, "redis")
            return await self._read(wanted, load, share=True)

    async def _read(self, wanted: PageRequest, load: Load, *, share: bool = False) -> LoadedPage:
        page = await load()
        if page is None:
            return LoadedPage(None, None)
        self.report(wanted, page)
        if self._policy.may_be_kept(wanted, page):
            self.put(wanted, page)
            if share and self._shared is not None:
                await self._shared.put(wanted, page)
        return LoadedPage(page, None)
