"""Pages in Redis: in their envelopes, each checked when it is opened, and one reader for each."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Final, Literal, TypeAlias

from feedsvc.access.service_key import Seal
from feedsvc.backends.redis.link import LinkState, RedisAwayError
from feedsvc.cache.envelope import EnvelopeError, PageRequest, pack, unpack
from feedsvc.cache.redis_store import Claim, RedisStore
from feedsvc.core.events import CacheLookup, CachePut, Observers
from feedsvc.core.logs import Tally
from feedsvc.feeds.page import Page

logger = logging.getLogger(__name__)

_FIRST_PAUSE: Final = 0.004  # seconds between looks at a page that another worker reads
_LONGEST_PAUSE: Final = 0.05

Missing: TypeAlias = Literal["absent", "mismatch"]


class RedisPages:
    """The pages that all workers share. Whether one may be shown, its reader decides."""

    def __init__(self, shared: RedisStore, observers: Observers, seal: Seal) -> None:
        self._shared = shared
        self._seal = seal
        self._observers = observers
        self._tallies: dict[str, Tally] = {}

    @property
    def state(self) -> LinkState:
        """The state of Redis."""
        return self._shared.state

    @property
    def refusals(self) -> int:
        """The number of questions that Redis refused."""
        return self._shared.refusals

    async def get(self, wanted: PageRequest) -> Page | Missing:
        """The page, or why there is none."""
        try:
            return self.opened(wanted, await self._shared.get(wanted.key))
        except RedisAwayError:
            return "absent"

    async def put(self, wanted: PageRequest, page: Page) -> None:
        """Keep the page for as long as it can be of use, if Redis is there."""
        seconds = wanted.dataset.fresh + wanted.dataset.stale - page.age()
        envelope = pack(wanted.key, page, self._seal)
        self._observers.publish(CachePut(wanted.dataset.name, page.size(), len(envelope)))
        try:
            await self._shared.put(wanted.key, envelope, seconds)
        except RedisAwayError:
            logger.debug("cache: a page was not kept in Redis")

    async def claim(
        self, wanted: PageRequest, is_good: Callable[[Page], bool], timeout: float
    ) -> Page | Claim | None:
        """A good page if it is there by now, the claim to read it, or None after so many seconds.

        Raises RedisAwayError.
        """
        loop = asyncio.get_running_loop()
        deadline, pause = loop.time() + timeout, _FIRST_PAUSE
        page = await self.get(wanted)
        if isinstance(page, Page) and is_good(page):
            return page
        while loop.time() < deadline:
            claimed = await self._shared.claim(wanted.key)
            if isinstance(claimed, Claim):
                return claimed
            page = self.opened(wanted, claimed)
            if isinstance(page, Page) and is_good(page):
                return page
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_PAUSE)
        return None

    def holding(self, claim: Claim) -> AbstractAsyncContextManager[None]:
        """Hold the claim while the block runs, and release it behind it."""
        return self._shared.holding(claim)

    def opened(self, wanted: PageRequest, envelope: bytes | None) -> Page | Missing:
        """The page in the envelope, if it is the one that is wanted."""
        if envelope is None:
            return "absent"
        try:
            return unpack(wanted.key, envelope, self._seal)
        except EnvelopeError as error:
            self._say(str(error))
            self._observers.publish(CacheLookup(wanted.dataset.name, "miss", "redis", "mismatch"))
            return "mismatch"

    def _say(self, why: str) -> None:
        line = "cache: %d pages in Redis were passed over: " + why.replace("%", "%%")
        self._tallies.setdefault(why, Tally(line)).add()
