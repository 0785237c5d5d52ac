"""First pages: where a request gets one, and whether it may.

Looked for in memory, then in Redis, then read from PostgreSQL by one request for all. Whatever
place it comes from, it is shown only if the ledger knows of no change that it lacks.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from cachetools import TTLCache

from feedsvc import settings
from feedsvc.backends.postgres.snapshot import Snapshot
from feedsvc.backends.redis.link import RedisAwayError
from feedsvc.cache.envelope import PageKey, PageRequest
from feedsvc.cache.key import page_key
from feedsvc.cache.ledger import Ledger
from feedsvc.cache.memory import CacheEntry, Memory, pages_share
from feedsvc.cache.redis_pages import RedisPages
from feedsvc.cache.single_flight import Flights
from feedsvc.core.events import CacheLoad, CacheLookup, CachePrefetch, Observers
from feedsvc.core.principal import Principal
from feedsvc.core.problems import Timeout, Unavailable
from feedsvc.datasets.tags import lookup_items
from feedsvc.feeds.page import Page
from feedsvc.feeds.query import FeedQuery

_MOST_ROUNDS: Final = 3
_MOST_OVERSIZED: Final = 10_000
_OVERSIZED_SECONDS: Final = 300.0

Load: TypeAlias = Callable[[], Awaitable[Page | None]]
"""Reads a page from PostgreSQL; None where it is too large to be kept. Raises Problem."""

Why: TypeAlias = Literal[
    "absent", "expired", "invalidated", "mismatch", "deaf", "untracked", "off", "request", "large"
]


Tier: TypeAlias = Literal["memory", "redis"]
KeptOut: TypeAlias = Literal["triggers", "unsuitable"]
"""Why a dataset is kept out: its triggers, or because nothing can tell of its changes."""


@dataclass(frozen=True, slots=True)
class CacheHit:
    """A page to show, and what Cache-Status says of it (RFC 9211, behind the cache's name).

    `tier` is where it was found, None where it had to be read.
    """

    held: CacheEntry
    status: str
    tier: Tier | None


@dataclass(frozen=True, slots=True)
class _Loaded:
    page: Page | None
    tier: Tier | None


class Pages:
    """The cache. `kept_out` tells which datasets are not to be cached, each with the reason."""

    def __init__(
        self,
        given: settings.Cache,
        ledger: Ledger,
        shared: RedisPages | None,
        fingerprints: Mapping[str, str],
        observers: Observers,
    ) -> None:
        self._settings = given
        self._ledger = ledger
        self._shared = shared
        self._observers = observers
        self.memory = Memory(pages_share(given.memory_bytes))
        self._flights: Flights[_Loaded] = Flights()
        self._looks: Flights[CacheEntry | None] = Flights()
        self._background: set[asyncio.Future[Any]] = set()
        self._oversized: TTLCache[PageKey, None] = TTLCache(_MOST_OVERSIZED, _OVERSIZED_SECONDS)
        self._fingerprints = fingerprints
        self.kept_out: Mapping[str, str] | None = None
        """Set by whoever looks at the database; None as long as nobody has."""
        self.untold: Collection[str] = frozenset()
        """Datasets whose triggers do not tell of every change, which `migrate triggers` mends."""
        self.catch_up: Callable[[], Awaitable[bool]] = _nobody_to_ask
        """Makes sure that all that is committed has been told; false where nobody can tell."""
        self.origin = ""
        """Which database this is, and which of its lives: no page of another one is ours."""

    @property
    def listening(self) -> bool:
        """Whether PostgreSQL tells of changes, without which nothing is shown from the cache."""
        return self._ledger.listening

    def reasons(self) -> dict[str, KeptOut]:
        """Why each dataset that is kept out is, in a word."""
        untold = self.untold
        return {n: "triggers" if n in untold else "unsuitable" for n in self.kept_out or ()}

    @property
    def shared_state(self) -> Literal["none", "answers", "refuses", "away"]:
        """How the tier in Redis is."""
        return "none" if self._shared is None else self._shared.state

    @property
    def shared_refusals(self) -> int:
        """How many questions the tier in Redis refused."""
        return 0 if self._shared is None else self._shared.refusals

    def wanted(
        self, query: FeedQuery, principal: Principal, limit: int | None
    ) -> PageRequest | Why:
        """What to look for, or why there is nothing to be found."""
        dataset = query.dataset
        if not (self._settings.enabled and dataset.cache):
            return "off"
        if self.kept_out is None:
            return "deaf"
        if dataset.name in self.kept_out:
            return "untracked"
        pinned = dataset.pinned(principal.tenant, principal.client)
        # A narrower tag stands under the tenant's, so it is of use only together with that one.
        narrows = dataset.tenant is None or dataset.tenant.name in pinned
        for condition in query.filters:
            if narrows and condition.op == "eq":
                text = condition.column.canonical(condition.values[0])
                if text is not None:
                    pinned.setdefault(condition.column.name, text)
        key = page_key(self.origin, self._fingerprints[dataset.name], principal, query, limit)
        if key in self._oversized:
            return "large"
        return PageRequest(key, lookup_items(dataset.tags, pinned), dataset, self.origin)

    def at_hand(self, wanted: PageRequest, *, quietly: bool = False) -> CacheHit | None:
        """The page, if it is in memory and may be shown; this takes no time."""
        held = self.memory.find(wanted.key)
        if held is None or self._fault(wanted, held.page) is not None:
            return None
        found = self._hit(wanted, held, "memory")
        if not quietly:
            self.tell_hit(wanted, found)
        return found

    def tell_hit(self, wanted: PageRequest, found: CacheHit) -> None:
        """Has everybody know that the page was shown."""
        self._observers.tell(CacheLookup(wanted.dataset.name, "hit", found.tier, None))
        self._tell_use(wanted, found.held)

    async def from_redis(self, wanted: PageRequest) -> CacheHit | None:
        """The page, if it is in Redis and may be shown; who asks meanwhile shares the answer."""
        held = await self._looks.join(wanted.key, lambda: self._look_in_redis(wanted))
        # It may have been asked for before a change that this request must see.
        if held is None or self._fault(wanted, held.page) is not None:
            return None
        return self._hit(wanted, held, "redis")

    async def find(self, wanted: PageRequest) -> CacheHit | Why:
        """The page, if one is kept anywhere or is being read; nothing is read for it."""
        found = self.at_hand(wanted)
        if found is not None:
            return found
        why = self._why_not_in_memory(wanted)
        if self._ledger.listening and self._shared is not None:
            page = await self._from_redis(wanted)
            if isinstance(page, Page):
                found = self._hit(wanted, self._keep_in_memory(wanted, page), "redis")
                self.tell_hit(wanted, found)
                return found
            why = page if why == "absent" else why
        self._observers.tell(CacheLookup(wanted.dataset.name, "miss", None, why))
        return why

    async def page(self, wanted: PageRequest, load: Load) -> CacheHit | Page | None:
        """The page from wherever it is had soonest; None where it is too large. Raises Problem.

        A `Page` instead of `CacheHit` is one that was read for this request alone.
        """
        found = self.at_hand(wanted)
        if found is not None:
            return found
        held = self.memory.find(wanted.key)
        is_stale = held is not None and self._may_be_shown_stale(wanted, held.page)
        if self._ledger.listening:
            if held is not None and is_stale:
                self._flights.keep(wanted.key, lambda: self._load(wanted, load))
                return self._shown_stale(wanted, held, "memory")
            return await self._fresh(wanted, load)
        if not is_stale:
            held = await self._stale_from_redis(wanted)
        if held is not None:
            return await self._while_nobody_listens(wanted, held, load)
        return await self._past_the_cache(wanted, load)

    async def fetch(self, wanted: PageRequest, load: Load) -> CacheEntry | None:
        """Has the page in memory before anybody asks for it, if it can be. Raises Problem."""
        if self.at_hand(wanted, quietly=True) is None and self._ledger.listening:
            await self._flights.join(wanted.key, lambda: self._load(wanted, load))
        return self.memory.find(wanted.key)

    def keep(self, wanted: PageRequest, page: Page) -> None:
        """Keeps a page that was read anyway."""
        self._tell_load(wanted, page)
        if not self._may_be_kept(wanted, page):
            return
        self.memory.put(wanted.key, CacheEntry(page, wanted.key))
        if self._shared is not None:
            self._in_background(asyncio.create_task(self._shared.put(wanted, page)))

    def remeasure(self, held: CacheEntry) -> None:
        """Counts a held page's size anew, for a body was added to it."""
        if held.key is not None and self.memory.find(held.key) is held:
            self.memory.put(held.key, held)

    async def proves(self, wanted: PageRequest, page: Page, snapshot: Snapshot) -> bool:
        """Whether the page is as this later snapshot would have it."""
        told = await self.catch_up()
        return told and self._ledger.unchanged(page.snapshot, snapshot, wanted.items)

    async def close(self) -> None:
        """Cancels what is still being read or kept."""
        await self._flights.close()
        await self._looks.close()
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)

    def _in_background(self, task: asyncio.Future[Any]) -> None:
        self._background.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Future[Any]) -> None:
        self._background.discard(task)
        if not task.cancelled():
            task.exception()  # seen: nobody is left to tell

    # What may be shown

    def _fault(self, wanted: PageRequest, page: Page) -> Why | None:
        """Why the page may not be shown as it is."""
        if not self._ledger.admits(page.snapshot, wanted.items):
            return "invalidated" if self._ledger.listening else "deaf"
        return "expired" if page.age() > wanted.dataset.fresh else None

    def _may_be_kept(self, wanted: PageRequest, page: Page) -> bool:
        """Whether what is told of changes is of the very database that the page was read from."""
        return self._ledger.listening and wanted.origin == self.origin == page.origin

    def _may_be_shown_stale(self, wanted: PageRequest, page: Page) -> bool:
        bounds = wanted.dataset
        if not bounds.stale or page.age() > bounds.fresh + bounds.stale:
            return False
        if self._ledger.listening:
            return self._ledger.admits(page.snapshot, wanted.items)
        return self._ledger.knows_nothing_against(page.snapshot, wanted.items)

    def _why_not_in_memory(self, wanted: PageRequest) -> Why:
        held = self.memory.find(wanted.key)
        return "absent" if held is None else self._fault(wanted, held.page) or "absent"

    # Ways to a page

    async def _fresh(self, wanted: PageRequest, load: Load) -> CacheHit | Page | None:
        """A page that lacks nothing that was told before this request began."""
        why = self._why_not_in_memory(wanted)
        for _ in range(_MOST_ROUNDS):
            joined = wanted.key in self._flights
            try:
                loaded = await self._flights.join(wanted.key, lambda: self._load(wanted, load))
            except Unavailable:
                if joined:
                    continue  # what befell the one who read need not befall us
                raise
            page = loaded.page
            if page is None:
                self._oversized[wanted.key] = None
                return None
            # What was begun for another request may have been overtaken before this one began.
            if not joined or self._ledger.admits(page.snapshot, wanted.items):
                return self._loaded(wanted, loaded, page, why, joined=joined)
        return await self._past_the_cache(wanted, load)

    async def _past_the_cache(self, wanted: PageRequest, load: Load) -> Page | None:
        why: Why = "invalidated" if self._ledger.listening else "deaf"
        self._observers.tell(CacheLookup(wanted.dataset.name, "bypass", None, why))
        return await load()

    async def _while_nobody_listens(
        self, wanted: PageRequest, held: CacheEntry, load: Load
    ) -> CacheHit | Page | None:
        """The page as it was, where PostgreSQL is away; it may be well, so it gets a moment."""
        reading = asyncio.ensure_future(load())
        try:
            await asyncio.wait({reading}, timeout=self._settings.stale_patience)
            if reading.done() or not self._may_be_shown_stale(wanted, held.page):
                return await reading
        except (Unavailable, Timeout):
            if not self._may_be_shown_stale(wanted, held.page):
                raise
        finally:
            # A frozen server takes long to be left, and nobody has to wait for that.
            reading.cancel()
            self._in_background(reading)
        return self._shown_stale(wanted, held, "away")

    def _shown_stale(
        self, wanted: PageRequest, held: CacheEntry, detail: Literal["memory", "away"]
    ) -> CacheHit:
        why: Why = "expired" if detail == "memory" else "deaf"
        self._observers.tell(CacheLookup(wanted.dataset.name, "stale", "memory", why))
        return CacheHit(held, _hit_status(wanted, held, detail), "memory")

    def _loaded(
        self, wanted: PageRequest, loaded: _Loaded, page: Page, why: Why, *, joined: bool
    ) -> CacheHit:
        held = self.memory.find(wanted.key)
        if held is None or held.page is not page:
            held = CacheEntry(page, wanted.key)
        if loaded.tier is not None:
            found = self._hit(wanted, held, loaded.tier)
            self.tell_hit(wanted, found)
            return found
        self._observers.tell(CacheLookup(wanted.dataset.name, "miss", None, why, collapsed=joined))
        self._tell_use(wanted, held)  # of one that was being read ahead
        forwarded = "stale" if why in ("expired", "invalidated") else "uri-miss"
        return CacheHit(held, f"fwd={forwarded}; {'collapsed' if joined else 'stored'}", None)

    async def _load(self, wanted: PageRequest, load: Load) -> _Loaded:
        """From Redis, or from PostgreSQL by whichever worker claims it first."""
        if self._shared is None:
            return await self._read(wanted, load)

        def is_good(page: Page) -> bool:
            return self._fault(wanted, page) is None

        try:
            claim = await self._shared.claim(wanted, is_good, self._settings.wait_timeout)
        except RedisAwayError:
            return await self._read(wanted, load)
        if isinstance(claim, Page):
            self._keep_in_memory(wanted, claim)
            return _Loaded(claim, "redis")
        if claim is None:
            return await self._read(wanted, load)
        async with self._shared.holding(claim):
            page = self._shared.opened(wanted, claim.found)
            if isinstance(page, Page) and is_good(page):
                self._keep_in_memory(wanted, page)
                return _Loaded(page, "redis")
            return await self._read(wanted, load, put=True)

    async def _read(self, wanted: PageRequest, load: Load, *, put: bool = False) -> _Loaded:
        page = await load()
        if page is None:
            return _Loaded(None, None)
        self._tell_load(wanted, page)
        if self._may_be_kept(wanted, page):
            self.memory.put(wanted.key, CacheEntry(page, wanted.key))
            if put and self._shared is not None:
                await self._shared.put(wanted, page)
        return _Loaded(page, None)

    async def _from_redis(self, wanted: PageRequest) -> Page | Why:
        page: Page | Why = "absent" if self._shared is None else await self._shared.get(wanted)
        return (self._fault(wanted, page) or page) if isinstance(page, Page) else page

    async def _look_in_redis(self, wanted: PageRequest) -> CacheEntry | None:
        page = await self._from_redis(wanted)
        return self._keep_in_memory(wanted, page) if isinstance(page, Page) else None

    async def _stale_from_redis(self, wanted: PageRequest) -> CacheEntry | None:
        if self._shared is None or not wanted.dataset.stale:
            return None
        page = await self._shared.get(wanted)
        if isinstance(page, Page) and self._may_be_shown_stale(wanted, page):
            return self._keep_in_memory(wanted, page)
        return None

    def _keep_in_memory(self, wanted: PageRequest, page: Page) -> CacheEntry:
        held = CacheEntry(page, wanted.key)
        self.memory.put(wanted.key, held)
        return held

    # Words

    def _hit(self, wanted: PageRequest, held: CacheEntry, tier: Tier) -> CacheHit:
        return CacheHit(held, _hit_status(wanted, held, tier), tier)

    def _tell_use(self, wanted: PageRequest, held: CacheEntry) -> None:
        if held.guess is not None and held.guess.is_open:
            held.guess.is_open = False
            self._observers.tell(CachePrefetch(wanted.dataset.name, "used"))

    def _tell_load(self, wanted: PageRequest, page: Page) -> None:
        rows, size = len(page.records), page.size()
        self._observers.tell(CacheLoad(wanted.dataset.name, page.cost, rows, size))


async def _nobody_to_ask() -> bool:
    return False


def _hit_status(wanted: PageRequest, held: CacheEntry, detail: str) -> str:
    left = wanted.dataset.fresh - held.page.age()
    return f"hit; ttl={int(left)}; detail={detail}"
