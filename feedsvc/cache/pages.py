"""First pages: where a request gets one, and whether it may.

Looked for in memory, then in Redis, then read from PostgreSQL by one request for all. Whatever
place it comes from, it is shown only if the ledger knows of no change that it lacks.
"""

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import orjson
from cachetools import TTLCache

from feedsvc import settings
from feedsvc.auth.principal import Principal
from feedsvc.cache.flights import Flights
from feedsvc.cache.ledger import Ledger
from feedsvc.cache.memory import Held, Memory
from feedsvc.cache.page import EnvelopeError, Key, Page, Wanted, pack, unpack
from feedsvc.cache.shared import Claim, Shared
from feedsvc.cache.snapshot import Snapshot
from feedsvc.csv_projection import csv_record
from feedsvc.datasets import Dataset
from feedsvc.errors import Timeout, Unavailable
from feedsvc.observations import CacheLoad, CacheLookup, CachePrefetch, CachePut, Observers
from feedsvc.projection import json_record
from feedsvc.query import FeedQuery
from feedsvc.redis_link import RedisAwayError
from feedsvc.tags import lookup_items
from streams.formats import CSV

logger = logging.getLogger(__name__)

_MOST_ROUNDS: Final = 3
_FIRST_PAUSE: Final = 0.004  # seconds between looks at a page that another worker reads
_LONGEST_PAUSE: Final = 0.05
_MOST_OVERSIZED: Final = 10_000
_OVERSIZED_SECONDS: Final = 300.0

Load: TypeAlias = Callable[[], Awaitable[Page | None]]
"""Reads a page from PostgreSQL; None where it is too large to be kept. Raises Problem."""

Why: TypeAlias = Literal[
    "absent", "expired", "invalidated", "mismatch", "deaf", "untracked", "off", "request", "large"
]


Tier: TypeAlias = Literal["memory", "redis"]


@dataclass(frozen=True, slots=True)
class Found:
    """A page to show, and what Cache-Status says of it (RFC 9211, behind the cache's name).

    `tier` is where it was found, None where it had to be read.
    """

    held: Held
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
        shared: Shared | None,
        datasets: Iterable[Dataset],
        observers: Observers,
    ) -> None:
        self._settings = given
        self._ledger = ledger
        self._shared = shared if given.shared else None
        self._observers = observers
        self.memory = Memory(given.memory_bytes)
        self._flights: Flights[_Loaded] = Flights()
        self._looks: Flights[Held | None] = Flights()
        self._keeping: set[asyncio.Task[None]] = set()
        self._oversized: TTLCache[Key, None] = TTLCache(_MOST_OVERSIZED, _OVERSIZED_SECONDS)
        self._fingerprints = {dataset.name: _fingerprint(dataset) for dataset in datasets}
        self.kept_out: Mapping[str, str] | None = None
        """Set by whoever looks at the database; None as long as nobody has."""
        self.catch_up: Callable[[], Awaitable[bool]] = _nobody_to_ask
        """Makes sure that all that is committed has been told; false where nobody can tell."""
        self.origin = ""
        """Which database this is, and which of its lives: no page of another one is ours."""

    @property
    def listening(self) -> bool:
        """Whether PostgreSQL tells of changes, without which nothing is shown from the cache."""
        return self._ledger.listening

    @property
    def shared_state(self) -> Literal["none", "answers", "refuses", "away"]:
        """How the tier in Redis is."""
        return "none" if self._shared is None else self._shared.state

    @property
    def shared_refusals(self) -> int:
        """How many questions the tier in Redis refused."""
        return 0 if self._shared is None else self._shared.refusals

    def wanted(self, query: FeedQuery, principal: Principal, limit: int | None) -> Wanted | Why:
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
        key = self._key(query, principal, limit)
        if key in self._oversized:
            return "large"
        return Wanted(key, lookup_items(dataset.tags, pinned), dataset)

    def at_hand(self, wanted: Wanted, *, quietly: bool = False) -> Found | None:
        """The page, if it is in memory and may be shown; this takes no time."""
        held = self.memory.find(wanted.key)
        if held is None or self._fault(wanted, held.page) is not None:
            return None
        found = self._hit(wanted, held, "memory")
        if not quietly:
            self.tell_hit(wanted, found)
        return found

    def tell_hit(self, wanted: Wanted, found: Found) -> None:
        """Has everybody know that the page was shown."""
        self._observers.tell(CacheLookup(wanted.dataset.name, "hit", found.tier, None))
        if found.held.unused_prefetch:
            found.held.unused_prefetch = False
            self._observers.tell(CachePrefetch(wanted.dataset.name, "used"))

    async def from_redis(self, wanted: Wanted) -> Found | None:
        """The page, if it is in Redis and may be shown; who asks meanwhile shares the answer."""
        held = await self._looks.join(wanted.key, lambda: self._look_in_redis(wanted))
        # It may have been asked for before a change that this request must see.
        if held is None or self._fault(wanted, held.page) is not None:
            return None
        return self._hit(wanted, held, "redis")

    async def find(self, wanted: Wanted) -> Found | Why:
        """The page, if one is kept anywhere or is being read; nothing is read for it."""
        found = self.at_hand(wanted)
        if found is not None:
            return found
        why = self._why_not_in_memory(wanted)
        if self._ledger.listening and self._shared is not None:
            page, seen = await self._from_redis(wanted)
            if page is not None:
                found = self._hit(wanted, self._keep_in_memory(wanted, page), "redis")
                self.tell_hit(wanted, found)
                return found
            why = seen if why == "absent" else why
        self._observers.tell(CacheLookup(wanted.dataset.name, "miss", None, why))
        return why

    async def page(self, wanted: Wanted, load: Load) -> Found | Page | None:
        """The page from wherever it is had soonest; None where it is too large. Raises Problem.

        A `Page` instead of `Found` is one that was read for this request alone.
        """
        found = self.at_hand(wanted)
        if found is not None:
            return found
        held = self.memory.find(wanted.key)
        if held is not None and self._may_be_shown_stale(wanted, held.page):
            return await self._stale(wanted, held, load)
        if not self._ledger.listening:
            return await self._past_the_cache(wanted, load)
        return await self._fresh(wanted, load)

    async def fetch(self, wanted: Wanted, load: Load) -> Held | None:
        """Has the page in memory before anybody asks for it, if it can be. Raises Problem."""
        if self.at_hand(wanted, quietly=True) is None and self._ledger.listening:
            await self._flights.join(wanted.key, lambda: self._load(wanted, load))
        return self.memory.find(wanted.key)

    def keep(self, wanted: Wanted, page: Page) -> None:
        """Keeps a page that was read anyway."""
        self._tell_load(wanted, page)
        if not self._ledger.listening:
            return
        self.memory.put(wanted.key, Held(page, wanted.key))
        if self._shared is not None:
            task = asyncio.create_task(self._put(self._shared, wanted, page))
            self._keeping.add(task)
            task.add_done_callback(self._keeping.discard)

    def remeasure(self, held: Held) -> None:
        """Counts a held page's size anew, for a body was added to it."""
        if held.key is not None and self.memory.find(held.key) is held:
            self.memory.put(held.key, held)

    async def proves(self, wanted: Wanted, page: Page, snapshot: Snapshot) -> bool:
        """Whether the page is as this later snapshot would have it."""
        told = await self.catch_up()
        return told and self._ledger.unchanged(page.snapshot, snapshot, wanted.items)

    async def close(self) -> None:
        """Cancels what is still being read or kept."""
        await self._flights.close()
        await self._looks.close()
        for task in self._keeping:
            task.cancel()
        await asyncio.gather(*self._keeping, return_exceptions=True)

    # What may be shown

    def _fault(self, wanted: Wanted, page: Page) -> Why | None:
        """Why the page may not be shown as it is."""
        if not self._ledger.admits(page.snapshot, wanted.items):
            return "invalidated" if self._ledger.listening else "deaf"
        return "expired" if page.age() > wanted.dataset.fresh else None

    def _may_be_shown_stale(self, wanted: Wanted, page: Page) -> bool:
        bounds = wanted.dataset
        if not bounds.stale or page.age() > bounds.fresh + bounds.stale:
            return False
        if self._ledger.listening:
            return self._ledger.admits(page.snapshot, wanted.items)
        return self._ledger.knows_nothing_against(page.snapshot, wanted.items)

    def _why_not_in_memory(self, wanted: Wanted) -> Why:
        held = self.memory.find(wanted.key)
        return "absent" if held is None else self._fault(wanted, held.page) or "absent"

    # Ways to a page

    async def _fresh(self, wanted: Wanted, load: Load) -> Found | Page | None:
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

    async def _past_the_cache(self, wanted: Wanted, load: Load) -> Page | None:
        why: Why = "invalidated" if self._ledger.listening else "deaf"
        self._observers.tell(CacheLookup(wanted.dataset.name, "bypass", None, why))
        return await load()

    async def _stale(self, wanted: Wanted, held: Held, load: Load) -> Found | Page | None:
        """The page as it was, while one task reads it anew.

        While nobody listens PostgreSQL may be well all the same, so it gets a moment to answer.
        """
        if self._ledger.listening:
            self._flights.keep(wanted.key, lambda: self._load(wanted, load))
            return self._shown_stale(wanted, held)
        reading = asyncio.ensure_future(load())
        try:
            done, _ = await asyncio.wait({reading}, timeout=self._settings.stale_patience)
            if not done:
                return self._shown_stale(wanted, held)
            return reading.result()
        except (Unavailable, Timeout):
            if not self._may_be_shown_stale(wanted, held.page):
                raise
            return self._shown_stale(wanted, held)
        finally:
            if not reading.done():
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)

    def _shown_stale(self, wanted: Wanted, held: Held) -> Found:
        self._observers.tell(CacheLookup(wanted.dataset.name, "stale", "memory", "expired"))
        return self._hit(wanted, held, "memory")

    def _loaded(
        self, wanted: Wanted, loaded: _Loaded, page: Page, why: Why, *, joined: bool
    ) -> Found:
        held = self.memory.find(wanted.key)
        if held is None or held.page is not page:
            held = Held(page, wanted.key)
        if loaded.tier is not None:
            found = self._hit(wanted, held, loaded.tier)
            self.tell_hit(wanted, found)
            return found
        self._observers.tell(CacheLookup(wanted.dataset.name, "miss", None, why, collapsed=joined))
        forwarded = "stale" if why in ("expired", "invalidated") else "uri-miss"
        return Found(held, f"fwd={forwarded}; {'collapsed' if joined else 'stored'}", None)

    async def _load(self, wanted: Wanted, load: Load) -> _Loaded:
        """From Redis, or from PostgreSQL by whichever worker claims it first."""
        if self._shared is None:
            return await self._read(wanted, load)
        try:
            claim = await self._claim(self._shared, wanted)
        except RedisAwayError:
            return await self._read(wanted, load)
        if isinstance(claim, Page):
            self._keep_in_memory(wanted, claim)
            return _Loaded(claim, "redis")
        if claim is None:
            return await self._read(wanted, load)
        async with self._shared.holding(claim):
            page = self._opened(wanted, claim.found)
            if isinstance(page, Page):
                self._keep_in_memory(wanted, page)
                return _Loaded(page, "redis")
            return await self._read(wanted, load, put=True)

    async def _claim(self, shared: Shared, wanted: Wanted) -> Page | Claim | None:
        """The page if it is in Redis by now, the claim to read it, or None after a long wait."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._settings.wait_timeout
        page, _ = await self._from_redis(wanted)
        if page is not None:
            return page
        pause = _FIRST_PAUSE
        while loop.time() < deadline:
            claimed = await shared.claim(wanted.key)
            if isinstance(claimed, Claim):
                return claimed
            opened = self._opened(wanted, claimed)
            if isinstance(opened, Page):
                return opened
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_PAUSE)
        return None

    async def _read(self, wanted: Wanted, load: Load, *, put: bool = False) -> _Loaded:
        page = await load()
        if page is None:
            return _Loaded(None, None)
        self._tell_load(wanted, page)
        if self._ledger.listening:
            self.memory.put(wanted.key, Held(page, wanted.key))
            if put and self._shared is not None:
                await self._put(self._shared, wanted, page)
        return _Loaded(page, None)

    # Redis

    async def _look_in_redis(self, wanted: Wanted) -> Held | None:
        page, _ = await self._from_redis(wanted)
        return None if page is None else self._keep_in_memory(wanted, page)

    async def _from_redis(self, wanted: Wanted) -> tuple[Page | None, Why]:
        if self._shared is None:
            return None, "absent"
        try:
            opened = self._opened(wanted, await self._shared.get(wanted.key))
        except RedisAwayError:
            return None, "absent"
        return (opened, "absent") if isinstance(opened, Page) else (None, opened)

    def _opened(self, wanted: Wanted, envelope: bytes | None) -> Page | Why:
        if envelope is None:
            return "absent"
        try:
            page = unpack(wanted.key, envelope)
        except EnvelopeError as error:
            logger.warning("cache: a page in Redis was passed over: %s", error)
            self._observers.tell(CacheLookup(wanted.dataset.name, "miss", "redis", "mismatch"))
            return "mismatch"
        return self._fault(wanted, page) or page

    async def _put(self, shared: Shared, wanted: Wanted, page: Page) -> None:
        seconds = wanted.dataset.fresh + wanted.dataset.stale - page.age()
        envelope = pack(wanted.key, page)
        self._observers.tell(CachePut(wanted.dataset.name, page.size(), len(envelope)))
        try:
            await shared.put(wanted.key, envelope, seconds)
        except RedisAwayError:
            logger.debug("cache: a page was not kept in Redis")

    def _keep_in_memory(self, wanted: Wanted, page: Page) -> Held:
        held = Held(page, wanted.key)
        self.memory.put(wanted.key, held)
        return held

    # Words

    def _hit(self, wanted: Wanted, held: Held, tier: Tier) -> Found:
        left = wanted.dataset.fresh - held.page.age()
        return Found(held, f"hit; ttl={int(left)}; detail={tier}", tier)

    def _tell_load(self, wanted: Wanted, page: Page) -> None:
        rows, size = len(page.records), page.size()
        self._observers.tell(CacheLoad(wanted.dataset.name, page.cost, rows, size))

    def _key(self, query: FeedQuery, principal: Principal, limit: int | None) -> Key:
        kind = f"csv{query.layout.delimiter}{query.guard:d}" if query.format is CSV else "json"
        return orjson.dumps(
            (
                self.origin,
                principal.scope,
                self._fingerprints[query.dataset.name],
                kind,
                query.layout.columns,
                [(part.column.name, part.descending) for part in query.order],
                [(c.column.name, c.op, c.values) for c in query.filters],
                query.after,
                limit,
            )
        ).decode()


async def _nobody_to_ask() -> bool:
    return False


def _fingerprint(dataset: Dataset) -> str:
    """What the dataset's records depend on beside the query: its relation, and how it is encoded.

    PostgreSQL encodes them, so the SQL that does it stands for this release's way of doing it.
    """
    columns = tuple(dataset.columns.values())
    encoders = json_record(columns), csv_record(columns, ",", guard=True)
    plain = repr((dataset.name, dataset.relation, columns, dataset.tags, encoders))
    return hashlib.sha256(plain.encode()).hexdigest()[:16]
