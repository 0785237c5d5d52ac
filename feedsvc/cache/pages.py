"""The cache: where a request gets a first page, and whether it may.

Looked for in memory, then in Redis, then read from PostgreSQL by one request for all. Whatever
place it comes from, it is shown only if the ledger knows of no change that it lacks.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, Final, Literal, Protocol

from cachetools import TTLCache

from feedsvc import settings
from feedsvc.backends.postgres.snapshot import Snapshot
from feedsvc.cache.envelope import PageKey, PageRequest
from feedsvc.cache.loader import Load, LoadedPage, PageLoader
from feedsvc.cache.memory import CacheEntry, Memory, pages_share
from feedsvc.cache.policy import PagePolicy
from feedsvc.cache.redis_pages import RedisPages
from feedsvc.cache.status import (
    CacheHit,
    CacheStatus,
    CacheTier,
    Lookup,
    Why,
    bypassed,
    missed,
)
from feedsvc.core.events import CacheLookup, CachePrefetch, Observers
from feedsvc.core.principal import Principal
from feedsvc.core.problems import Timeout, Unavailable
from feedsvc.feeds.page import Page
from feedsvc.feeds.query import FeedQuery

__all__ = ["CacheHit", "Load", "Pages"]

_MOST_ROUNDS: Final = 3
_MOST_OVERSIZED: Final = 10_000
_OVERSIZED_SECONDS: Final = 300.0


class ChangeLog(Protocol):
    """The change log as the cache reads it; `changes.log_reader` has it."""

    def is_current(self) -> bool:
        """Return whether the log was read so lately that a page needs no other look."""
        ...

    async def current(self, within: float | None = None) -> bool:
        """Wait until that is so, at most so many seconds; false where it is not."""
        ...

    async def catch_up(self) -> bool:
        """Wait until all committed changes are recorded; false where they can't be."""
        ...


class Pages:
    """The cache of first pages, in this process's memory and in Redis."""

    def __init__(
        self,
        given: settings.Cache,
        policy: PagePolicy,
        shared: RedisPages | None,
        changes: ChangeLog,
        observers: Observers,
    ) -> None:
        self._policy = policy
        self._shared = shared
        self._observers = observers
        self._stale_patience = given.stale_patience
        self._changes = changes
        self.memory = Memory(pages_share(given.memory_bytes))
        self.loader = PageLoader(policy, self.memory, shared, observers, given.wait_timeout)
        self.coverage = policy.coverage
        self._background: set[asyncio.Future[Any]] = set()
        self._oversized: TTLCache[PageKey, None] = TTLCache(_MOST_OVERSIZED, _OVERSIZED_SECONDS)

    @property
    def is_followed(self) -> bool:
        """Return whether the change log is followed; otherwise the cache shows no page."""
        return self._policy.is_followed

    @property
    def origin(self) -> str:
        """The identity of the database, and of its life."""
        return self.coverage.origin

    @property
    def kept_out(self) -> Mapping[str, str] | None:
        """The datasets that are not cached, each with the reason; None until it is known."""
        return self.coverage.kept_out

    @property
    def shared_state(self) -> Literal["none", "answers", "refuses", "away"]:
        """The state of the tier in Redis."""
        return "none" if self._shared is None else self._shared.state

    @property
    def shared_refusals(self) -> int:
        """The number of questions that the tier in Redis refused."""
        return 0 if self._shared is None else self._shared.refusals

    def wanted(
        self, query: FeedQuery, principal: Principal, limit: int | None
    ) -> PageRequest | Why:
        """The request for a page, or the reason why the cache has no part in it."""
        request = self._policy.request(query, principal, limit)
        if isinstance(request, PageRequest) and request.key in self._oversized:
            return "large"
        return request

    def at_hand(self, wanted: PageRequest, *, quietly: bool = False) -> CacheHit | None:
        """The page, if it is in memory and may be shown without a look at the log.

        This takes no time. Publishes an event unless `quietly`; `publish_hit` does so later.
        """
        return self._in_memory(wanted, quietly=quietly) if self._changes.is_current() else None

    async def look(self, wanted: PageRequest) -> bool:
        """Look at the log, unless that was done lately; false where it can't be read just now.

        A page that may be shown stale waits for it no longer than `cache.stale_patience`.
        """
        patience = self._stale_patience if wanted.dataset.stale else None
        return await self._changes.current(patience)

    async def catch_up(self) -> bool:
        """Wait until all committed changes are recorded; false where they can't be."""
        return await self._changes.catch_up()

    def _in_memory(self, wanted: PageRequest, *, quietly: bool = False) -> CacheHit | None:
        """The page, if it is in memory and lacks no change that the last look found."""
        held = self.memory.find(wanted.key)
        if held is None or self._policy.fault(wanted, held.page) is not None:
            return None
        found = _hit(wanted, held, "memory")
        if not quietly:
            self.publish_hit(wanted, found)
        return found

    def publish_hit(self, wanted: PageRequest, found: CacheHit) -> None:
        """Report the hit to observers."""
        self._observers.publish(CacheLookup(wanted.dataset.name, "hit", found.tier, None))
        self._report_use(wanted, found.held)

    async def quickly(self, wanted: PageRequest) -> CacheHit | None:
        """The page from memory or Redis behind a look at the log, if it may be shown.

        Requests that ask Redis meanwhile share the answer; no event is published.
        """
        if not await self.look(wanted):
            return None
        found = self._in_memory(wanted, quietly=True)
        if found is not None or self.shared_state != "answers":
            return found
        held = await self.loader.look_in_redis(wanted)
        # It may have been asked for before a change that this request must see.
        if held is None or self._policy.fault(wanted, held.page) is not None:
            return None
        return _hit(wanted, held, "redis")

    async def find(self, wanted: PageRequest) -> Lookup:
        """The page from memory or Redis; it is not read from PostgreSQL."""
        is_read = await self.look(wanted)
        found = self._in_memory(wanted) if is_read else None
        if found is not None:
            return Lookup(found.held, found.status)
        why: Why = self._why_not_in_memory(wanted) if is_read else "deaf"
        if is_read and self._shared is not None:
            held = await self.loader.from_redis(wanted)
            if isinstance(held, CacheEntry):
                found = _hit(wanted, held, "redis")
                self.publish_hit(wanted, found)
                return Lookup(held, found.status)
            why = held if why == "absent" else why
        self._observers.publish(CacheLookup(wanted.dataset.name, "miss", None, why))
        return Lookup(None, bypassed(why) if why == "deaf" else missed(why))

    async def page(self, wanted: PageRequest, load: Load) -> Lookup:
        """The page from the quickest place that has it; none if it is too large. Raises Problem.

        An entry without a key was read for this request alone.
        """
        is_read = await self.look(wanted)
        found = self._in_memory(wanted) if is_read else None
        if found is not None:
            return Lookup(found.held, found.status)
        held = self.memory.find(wanted.key)
        is_stale = held is not None and self._policy.may_be_shown_stale(wanted, held.page)
        if is_read:
            if held is not None and is_stale:
                self.loader.load_in_background(wanted, load)
                return self._stale(wanted, held, "memory")
            return await self._fresh(wanted, load)
        if not is_stale:
            held = await self.loader.stale_from_redis(wanted)
        if held is not None:
            return await self._fresh_or_stale(wanted, held, load)
        return await self._past_the_cache(wanted, load, "deaf")

    async def fetch(self, wanted: PageRequest, load: Load) -> CacheEntry | None:
        """Load the page into memory before it is asked for, if it can be. Raises Problem."""
        if await self.look(wanted) and self._in_memory(wanted, quietly=True) is None:
            await self.loader.load(wanted, load)
        return self.memory.find(wanted.key)

    def keep(self, wanted: PageRequest, page: Page) -> None:
        """Keep a page that was read anyway."""
        self.loader.report(wanted, page)
        if not self._policy.may_be_kept(wanted, page):
            return
        self.loader.put(wanted, page)
        if self._shared is not None:
            self._in_background(asyncio.create_task(self._shared.put(wanted, page)))

    def remeasure(self, held: CacheEntry) -> None:
        """Count the size of an entry anew, after a body was added to it."""
        if held.key is not None and self.memory.find(held.key) is held:
            self.memory.put(held.key, held)

    async def proves(self, wanted: PageRequest, page: Page, snapshot: Snapshot) -> bool:
        """Return whether the page is as this later snapshot would have it."""
        is_read = await self.catch_up()
        return is_read and self._policy.unchanged(wanted, page, snapshot)

    async def close(self) -> None:
        """Cancel what is still being read or kept."""
        await self.loader.close()
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)

    def _in_background(self, task: asyncio.Future[Any]) -> None:
        self._background.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Future[Any]) -> None:
        self._background.discard(task)
        if not task.cancelled():
            task.exception()  # retrieved, or asyncio would log it: no request waits for it

    def _why_not_in_memory(self, wanted: PageRequest) -> Why:
        held = self.memory.find(wanted.key)
        return "absent" if held is None else self._policy.fault(wanted, held.page) or "absent"

    async def _fresh(self, wanted: PageRequest, load: Load) -> Lookup:
        """A page that lacks no change that was committed before this request began."""
        why = self._why_not_in_memory(wanted)
        for _ in range(_MOST_ROUNDS):
            joined = self.loader.is_loading(wanted.key)
            try:
                loaded = await self.loader.load(wanted, load)
            except Unavailable:
                if joined:
                    continue  # what befell the one who read need not befall us
                raise
            page = loaded.page
            if page is None:
                self._oversized[wanted.key] = None
                return Lookup(None, bypassed("large"))
            # What was begun for another request may have been overtaken before this one began.
            if not joined or self._policy.is_current(wanted, page):
                return self._loaded(wanted, loaded, page, why, joined=joined)
        return await self._past_the_cache(wanted, load, "invalidated")

    async def _past_the_cache(self, wanted: PageRequest, load: Load, why: Why) -> Lookup:
        self._observers.publish(CacheLookup(wanted.dataset.name, "bypass", None, why))
        return _for_this_request(await load())

    async def _fresh_or_stale(self, wanted: PageRequest, held: CacheEntry, load: Load) -> Lookup:
        """The page as it was, unless PostgreSQL answers within `cache.stale_patience`."""
        reading = asyncio.ensure_future(load())
        try:
            await asyncio.wait({reading}, timeout=self._stale_patience)
            if reading.done() or not self._policy.may_be_shown_stale(wanted, held.page):
                return _for_this_request(await reading)
        except (Unavailable, Timeout):
            if not self._policy.may_be_shown_stale(wanted, held.page):
                raise
        finally:
            # A frozen server takes long to be left, and no request has to wait for that.
            reading.cancel()
            self._in_background(reading)
        return self._stale(wanted, held, "away")

    def _stale(
        self, wanted: PageRequest, held: CacheEntry, detail: Literal["memory", "away"]
    ) -> Lookup:
        why: Why = "expired" if detail == "memory" else "deaf"
        self._observers.publish(CacheLookup(wanted.dataset.name, "stale", "memory", why))
        return Lookup(held, _hit_status(wanted, held, detail))

    def _loaded(
        self, wanted: PageRequest, loaded: LoadedPage, page: Page, why: Why, *, joined: bool
    ) -> Lookup:
        held = self.memory.find(wanted.key)
        if held is None or held.page is not page:
            held = CacheEntry(page, wanted.key)
        if loaded.tier is not None:
            found = _hit(wanted, held, loaded.tier)
            self.publish_hit(wanted, found)
            return Lookup(held, found.status)
        self._observers.publish(
            CacheLookup(wanted.dataset.name, "miss", None, why, collapsed=joined)
        )
        self._report_use(wanted, held)  # of one that was being read ahead
        return Lookup(held, missed(why, "collapsed" if joined else "stored"))

    def _report_use(self, wanted: PageRequest, held: CacheEntry) -> None:
        if held.guess is not None and held.guess.is_open:
            held.guess.is_open = False
            self._observers.publish(CachePrefetch(wanted.dataset.name, "used"))


def _for_this_request(page: Page | None) -> Lookup:
    """A page that was read past the cache."""
    if page is None:
        return Lookup(None, bypassed("large"))
    return Lookup(CacheEntry(page), bypassed("deaf"))


def _hit(wanted: PageRequest, held: CacheEntry, tier: CacheTier) -> CacheHit:
    return CacheHit(held, _hit_status(wanted, held, tier), tier)


def _hit_status(wanted: PageRequest, held: CacheEntry, detail: str) -> CacheStatus:
    return CacheStatus(None, detail, int(wanted.dataset.fresh - held.page.age()))
