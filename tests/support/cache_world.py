"""A database whose history is written down, and workers that cache what they read from it.

The database is a model, and so is the way in which a worker reads its log: only so can a write, a
look, a load and a cancellation come in any order. The cache is the real one.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, Final

import orjson

from feedsvc import settings
from feedsvc.access.service_key import Seal
from feedsvc.backends.postgres.snapshot import Snapshot
from feedsvc.backends.redis.link import RedisLink
from feedsvc.cache.envelope import PageKey, PageRequest
from feedsvc.cache.invalidation import Invalidation
from feedsvc.cache.key import fingerprint
from feedsvc.cache.ledger import Ledger
from feedsvc.cache.memory import CacheEntry
from feedsvc.cache.pages import Pages
from feedsvc.cache.policy import Coverage, PagePolicy
from feedsvc.cache.redis_pages import RedisPages
from feedsvc.cache.redis_store import RedisStore
from feedsvc.cache.status import Lookup
from feedsvc.changes import log_hash
from feedsvc.changes.log_entries import LogEntry
from feedsvc.changes.log_rules import LogFeed
from feedsvc.core.events import CacheLookup, Observers
from feedsvc.core.principal import Principal
from feedsvc.core.problems import DatabaseUnavailable
from feedsvc.datasets.dataset import Column, Dataset
from feedsvc.datasets.tags import Template
from feedsvc.feeds.page import Page, digest_of
from feedsvc.feeds.query import FeedQuery
from tests.support.datasets import DATASET

FRESH: Final = 10.0
STALE: Final = 30.0
INTERVAL: Final = 4.0
"""Seconds for which a look is good enough."""
TENANTS: Final = ("t1", "t2")
CLIENTS: Final = ("1", "2")
_TENANT: Final = Column("tenant", "text", False, "pg_catalog.text", "text", "S")
_CLIENT: Final = Column("client", "bigint", False, "pg_catalog.int8", "int8", "N")


def _dataset(name: str, stale: float) -> Dataset:
    tags = (name, f"{name}:{{tenant}}", "client:{client}")
    return replace(
        DATASET, name=name, relation=f'"app"."{name}"', tenant=_TENANT, client=_CLIENT,
        fresh=FRESH, stale=stale, tags=tuple(map(Template.parse, tags)),
    )  # fmt: skip


DATASETS: Final = {"letters": _dataset("letters", 0.0), "notes": _dataset("notes", STALE)}
FEEDS: Final = {
    name: (LogFeed(name, ("app", name), ("id",), "tenant", dataset.tags[2:], (), ()), number)
    for number, (name, dataset) in enumerate(DATASETS.items(), 100)
}
CALLERS: Final = [
    Principal(tenant, "member", client, 0.0) for tenant in TENANTS for client in (None, "1")
]


@dataclass(frozen=True)
class Commit:
    """A transaction that has written one row. `serial` is never given twice, unlike the number."""

    serial: int
    xid: int
    dataset: str
    tenant: str
    client: str
    large: bool

    def entry(self) -> LogEntry:
        """The row that its trigger logs; of a large statement it does not tell clients apart."""
        feed, everyone = FEEDS[self.dataset]
        (narrow,) = feed.narrow
        scope = log_hash.scope(self.tenant, everyone)
        if self.large:
            return LogEntry(self.xid, scope, feed.number, "m", b"")
        tag = log_hash.tag(narrow.fill({"client": self.client}) or "")
        return LogEntry(self.xid, scope, feed.number, "u", tag)

    def concerns(self, dataset: Dataset, caller: Principal) -> bool:
        """Return whether the caller sees the row."""
        is_own = caller.client in (None, self.client)
        return self.dataset == dataset.name and self.tenant == caller.tenant and is_own


@dataclass
class Database:
    """Every commit in order, on the present timeline."""

    timeline: int = 1
    next: int = 100
    serials: int = 0
    running: list[int] = field(default_factory=list)
    commits: list[Commit] = field(default_factory=list)
    lost: set[int] = field(default_factory=set)
    mute: set[str] = field(default_factory=set)
    """Datasets whose triggers do not fire."""
    unlogged: set[int] = field(default_factory=set)
    """The changes committed to them meanwhile."""
    state: int = 0
    away: bool = False
    outages: int = 0

    def snapshot(self) -> Snapshot:
        return Snapshot(min(self.running, default=self.next), self.next, frozenset(self.running))

    def serials_seen(self) -> frozenset[int]:
        return frozenset(commit.serial for commit in self.commits)

    def view(self, dataset: Dataset, caller: Principal) -> frozenset[int]:
        """The present content of the caller's page."""
        return frozenset(c.serial for c in self.commits if c.concerns(dataset, caller))

    def begin(self) -> None:
        self.running.append(self.next)
        self.next += 1

    def commit(self, at: int, dataset: str, tenant: str, client: str, *, large: bool) -> Commit:
        if not self.running:
            self.begin()
        self.serials += 1
        xid = self.running.pop(at % len(self.running))
        made = Commit(self.serials, xid, dataset, tenant, client, large)
        self.commits.append(made)
        if dataset in self.mute:
            self.unlogged.add(made.serial)
        return made

    def fail_over(self, lost: int) -> None:
        """A standby takes over that has not received the last commits, nor what was running."""
        self.timeline += 1
        for _ in range(min(lost, len(self.commits))):
            self.lost.add(self.commits.pop().serial)
        self.next = max((c.xid for c in self.commits), default=99) + 1
        self.running.clear()

    async def fetchval(self, _sql: str) -> str:
        """As `Invalidation.survey` asks for the database's identity."""
        return self.origin

    def get_settings(self) -> Any:
        """As a connection's."""
        return SimpleNamespace(server_encoding="UTF8")

    @property
    def origin(self) -> str:
        """The database's identity, and which of its lives this is."""
        return f"system/{self.timeline}"


class OddShared(RedisStore):
    """Keeps what was ever put, to be put once more, late or in the wrong place; may be slow."""

    def __init__(self, link: RedisLink, put: list[tuple[PageKey, bytes]]) -> None:
        super().__init__(link)
        self._all = put
        self.held_up: asyncio.Event | None = None
        """Until then no answer arrives."""

    async def get(self, key: PageKey) -> bytes | None:
        held_up, envelope = self.held_up, await super().get(key)
        if held_up is not None:
            await held_up.wait()
        return envelope

    async def put(self, key: PageKey, envelope: bytes, seconds: float) -> None:
        self._all.append((key, envelope))
        await super().put(key, envelope, seconds)


@dataclass
class Look:
    """The log's rows, on their way here; `void` if a survey has found something since."""

    snapshot: Snapshot
    sees: frozenset[int]
    commits: list[Commit]
    void: bool = False


class Worker:
    """One worker's cache. What it reads of the log, and when, the test decides, or a request."""

    def __init__(
        self,
        url: str,
        prefix: str,
        database: Database,
        clock: Callable[[], float],
        put: list[tuple[PageKey, bytes]],
        counts: Counter[str],
        keep: float,
    ) -> None:
        self.database = database
        self.clock = clock
        self.counts = counts
        self.link = RedisLink(url, settings.Redis(timeout=1.0, prefix=prefix))
        self.ledger = Ledger(keep=keep, clock=clock)
        observers = Observers()
        observers.add(CacheLookup, self._count)
        self.shared = OddShared(self.link, put)
        shared = RedisPages(self.shared, observers, Seal(b"of the tests"))
        given = settings.Cache(memory_bytes=160_000, wait_timeout=0.05, stale_patience=0.01)
        fingerprints = {name: fingerprint(dataset, 500) for name, dataset in DATASETS.items()}
        coverage = Coverage(fingerprints)
        policy = PagePolicy(self.ledger, coverage, enabled=given.enabled)
        self.pages = Pages(given, policy, shared, self, observers)
        self.watch = Invalidation(coverage, self.ledger, {}, observers)
        self.unread: list[Commit] = []
        """The log's rows behind the position of the last look."""
        self.is_connected = False
        self.look_on_its_way: Look | None = None
        self.goes_on = False
        """True if the next look goes on from the last one's position."""
        self.read_at = -float("inf")
        self.knows: set[int] = set()
        """The changes that it has read, or may have missed: pages from before are too old."""
        self.kept_out: set[str] | None = None
        self._untracked: set[str] = set()
        self._state: int | None = None
        self._origin = ""
        self._must_bump = False

    def is_current(self) -> bool:
        """See `ChangeLog`."""
        return self.is_connected and self.clock() - self.read_at < INTERVAL

    async def current(self, within: float | None = None) -> bool:
        """See `ChangeLog`."""
        return self.is_current() or await self.catch_up()

    async def catch_up(self) -> bool:
        """See `ChangeLog`."""
        if not self.is_connected:
            return False
        while self.look_on_its_way is not None:
            self.answer()
        self.ask()
        self.answer()
        return True

    # What happens to its reader of the log

    async def connect(self) -> None:
        self.lose()
        self.is_connected = True
        await self.survey()

    def lose(self) -> None:
        self.watch.on_failure()
        self.is_connected, self.look_on_its_way, self.read_at = False, None, -float("inf")

    async def survey(self) -> None:
        database = self.database
        is_other = self._origin not in ("", database.origin)
        is_new = await self.watch.survey(database)  # type: ignore[arg-type]
        kept_out = (self.kept_out or set()) | database.mute
        must_bump = is_other or self._state not in (None, database.state)
        self._must_bump = self._must_bump or must_bump or kept_out != database.mute
        assert is_new is self._must_bump
        self._origin, self._state = database.origin, database.state
        self._untracked, self.kept_out = set(database.mute), kept_out
        if is_new:
            self.read_at = -float("inf")
            if self.look_on_its_way is not None:
                self.look_on_its_way.void = True

    def ask(self) -> None:
        sees = self.database.serials_seen()
        self.look_on_its_way = Look(self.database.snapshot(), sees, self.unread.copy())

    def answer(self) -> None:
        assert self.look_on_its_way is not None
        look, self.look_on_its_way = self.look_on_its_way, None
        del self.unread[: len(look.commits)]
        if self.goes_on:
            self.watch.on_changes([commit.entry() for commit in look.commits])
        else:
            self.watch.on_start()
            self._must_bump = True
        self.goes_on = True
        self.knows.update(commit.serial for commit in look.commits)
        if look.void:
            return
        self.read_at = self.clock()
        if self._must_bump:
            self.knows |= look.sees
        self.kept_out, self._must_bump = self._untracked, False
        self.watch.on_read(look.snapshot)

    # Readers

    def wanted(self, dataset: Dataset, caller: Principal) -> PageRequest | None:
        """The request for its cache; None where the dataset is kept out."""
        query = FeedQuery.parse({"format": "ndjson"}, dataset)
        wanted = self.pages.wanted(query, caller, 20)
        is_out = self.kept_out is None or dataset.name in self.kept_out
        assert isinstance(wanted, PageRequest) is not is_out, wanted
        return wanted if isinstance(wanted, PageRequest) else None

    def reads(self, wanted: PageRequest) -> bool:
        """Return whether somebody reads the page already."""
        loader = self.pages.loader
        return wanted.key in loader._loads or wanted.key in loader._looks

    async def at_the_door(self, wanted: PageRequest, load: Callable[[], Awaitable[Page]]) -> Lookup:
        """As a request does that was answered before in the same words."""
        found = self.pages.at_hand(wanted, quietly=True) or await self.pages.quickly(wanted)
        if found is None:
            return await self.pages.page(wanted, load)
        self.pages.publish_hit(wanted, found)
        return Lookup(found.held, found.status)

    async def stream(self, wanted: PageRequest, load: Callable[[], Awaitable[Page]]) -> Lookup:
        """As a stream does: begins with a page if there is one, else keeps what it reads."""
        found = await self.pages.find(wanted)
        if found.entry is not None:
            return found
        page = await load()
        self.pages.keep(wanted, page)
        return Lookup(CacheEntry(page), found.status)

    def page(self, dataset: Dataset, caller: Principal) -> Page:
        """A page as PostgreSQL would give it now. Raises DatabaseUnavailable."""
        if self.database.away:
            raise DatabaseUnavailable("It is away.")
        view = sorted(self.database.view(dataset, caller))
        records = [orjson.dumps([self.database.timeline, view])]
        snapshot = self.database.snapshot()
        return Page(
            records, digest_of(records), "1", False, snapshot, self.clock(), cost=0.0,
            origin=self.database.origin,
        )  # fmt: skip

    async def close(self) -> None:
        await self.pages.close()
        await self.link.close()

    def _count(self, lookup: CacheLookup) -> None:
        self.counts[f"{lookup.outcome} {lookup.tier or lookup.why}"] += 1
        self.counts["collapsed"] += lookup.collapsed


def serials_of(page: Page) -> set[int]:
    """The commits that a page shows."""
    return set(orjson.loads(page.records[0])[1])


def timeline_of(page: Page) -> int:
    """The life of the database that it was read in."""
    return int(orjson.loads(page.records[0])[0])


async def planned(database: Database, _declared: Mapping[str, Any]) -> Any:
    """In place of `triggers.plan`."""
    log = SimpleNamespace(feeds=FEEDS)
    return SimpleNamespace(state=str(database.state), impossible={}, log=log)


async def drifted(database: Database, _plan: object) -> dict[str, str]:
    """In place of `triggers.drifted`."""
    return dict.fromkeys(database.mute, "its triggers are disabled")
