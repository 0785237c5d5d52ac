"""A database whose history is written down, and workers that cache what they read from it.

The database is a model, and so is the way in which a worker hears of its commits: only so can a
write, its notification, a load and a cancellation come in any order. The cache is the real one.
"""

import asyncio
from collections import Counter, deque
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
from feedsvc.core.events import CacheLookup, Observers
from feedsvc.core.principal import Principal
from feedsvc.core.problems import DatabaseUnavailable
from feedsvc.datasets.dataset import Column, Dataset
from feedsvc.datasets.tags import Template, all_under, exactly
from feedsvc.feeds.page import Page, digest_of
from feedsvc.feeds.query import FeedQuery
from tests.support.datasets import DATASET

FRESH: Final = 10.0
STALE: Final = 30.0
SILENCE: Final = 4.0
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

    def items(self) -> list[str]:
        """What its trigger tells; of a large statement the tenants and not the clients."""
        whole, wide, narrow = (
            template.fill({"tenant": self.tenant, "client": self.client}) or ""
            for template in DATASETS[self.dataset].tags
        )
        told = [exactly(whole), exactly(wide)]
        return [*told, all_under(wide)] if self.large else [*told, exactly(narrow)]

    def concerns(self, dataset: Dataset, caller: Principal) -> bool:
        """Whether the caller sees the row."""
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
    untold: set[int] = field(default_factory=set)
    """What was committed to them meanwhile."""
    state: int = 0
    away: bool = False
    outages: int = 0

    def snapshot(self) -> Snapshot:
        return Snapshot(min(self.running, default=self.next), self.next, frozenset(self.running))

    def serials_seen(self) -> frozenset[int]:
        return frozenset(commit.serial for commit in self.commits)

    def view(self, dataset: Dataset, caller: Principal) -> frozenset[int]:
        """What the caller's page holds now."""
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
            self.untold.add(made.serial)
        return made

    def fail_over(self, lost: int) -> None:
        """A standby takes over that has not received the last commits, nor what was running."""
        self.timeline += 1
        for _ in range(min(lost, len(self.commits))):
            self.lost.add(self.commits.pop().serial)
        self.next = max((c.xid for c in self.commits), default=99) + 1
        self.running.clear()

    async def fetchval(self, _sql: str) -> str:
        """As `Invalidation.look` asks for the database's identity."""
        return self.origin

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
class Beat:
    """A note on its way: what its snapshot sees, and how much was told before it."""

    snapshot: Snapshot
    sees: frozenset[int]
    before: int


class Worker:
    """One worker's cache. What it hears, and when, the test decides."""

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
        self.ledger = Ledger(keep=keep, silence=SILENCE, clock=clock)
        observers = Observers()
        observers.add(CacheLookup, self._count)
        self.shared = OddShared(self.link, put)
        shared = RedisPages(self.shared, observers, Seal(b"of the tests"))
        given = settings.Cache(memory_bytes=160_000, wait_timeout=0.05, stale_patience=0.01)
        fingerprints = {name: fingerprint(dataset, 500) for name, dataset in DATASETS.items()}
        coverage = Coverage(fingerprints)
        policy = PagePolicy(self.ledger, coverage, enabled=given.enabled)
        self.pages = Pages(given, policy, shared, self.catch_up, observers)
        self.watch = Invalidation(coverage, self.ledger, {}, observers)
        self.untold: deque[Commit] | None = None
        """What is on its way; None while nobody listens."""
        self.beat: Beat | None = None
        self.listens = False
        self.heard_at = -float("inf")
        self.knows: set[int] = set()
        """What it was told, or may have missed before it listened: how old is too old."""
        self.kept_out: set[str] | None = None
        self._untracked: set[str] = set()
        self._state: int | None = None
        self._must_bump = False

    @property
    def is_listening(self) -> bool:
        """Whether it may show anything, by the test's own reckoning."""
        return self.listens and self.clock() - self.heard_at <= SILENCE

    # What happens to its listener

    async def connect(self) -> None:
        self.lose()
        self.untold = deque()
        await self.look()

    def lose(self) -> None:
        self.watch.on_disconnect()
        self.untold, self.beat, self.listens = None, None, False

    async def look(self) -> None:
        database = self.database
        await self.watch.look(database)  # type: ignore[arg-type]
        changed = self._state not in (None, database.state) or database.mute != self.kept_out
        self._must_bump = self._must_bump or changed
        self._state, self._untracked = database.state, set(database.mute)
        self.kept_out = (self.kept_out or set()) | database.mute

    def deliver(self) -> None:
        assert self.untold is not None
        commit = self.untold.popleft()
        self.watch.on_change(commit.xid, commit.items())
        self.knows.add(commit.serial)
        if self.beat is not None:
            self.beat.before -= 1

    def ask(self) -> None:
        assert self.untold is not None
        sees = self.database.serials_seen()
        self.beat = Beat(self.database.snapshot(), sees, len(self.untold))

    def answer(self) -> None:
        assert self.beat is not None
        while self.beat.before > 0:
            self.deliver()
        beat, self.beat = self.beat, None
        self.heard_at = self.clock()
        if not self.listens or self._must_bump:
            self.knows |= beat.sees
        self.kept_out, self._must_bump = self._untracked, False
        (self.watch.on_heartbeat if self.listens else self.watch.on_connect)(beat.snapshot)
        self.listens = True

    async def catch_up(self) -> bool:
        if self.untold is None or not self.listens or self.beat is not None:
            return False
        self.ask()
        self.answer()
        return True

    # Readers

    def wanted(self, dataset: Dataset, caller: Principal) -> PageRequest | None:
        """What its cache would look for; None where the dataset is kept out."""
        query = FeedQuery.parse({"format": "ndjson"}, dataset)
        wanted = self.pages.wanted(query, caller, 20)
        is_out = self.kept_out is None or dataset.name in self.kept_out
        assert isinstance(wanted, PageRequest) is not is_out, wanted
        return wanted if isinstance(wanted, PageRequest) else None

    def reads(self, wanted: PageRequest) -> bool:
        """Whether somebody reads the page already."""
        return self.pages.loader.is_busy(wanted.key)

    async def at_the_door(self, wanted: PageRequest, load: Callable[[], Awaitable[Page]]) -> Lookup:
        """As a request does that was answered before in the same words."""
        found = self.pages.at_hand(wanted, quietly=True) or await self.pages.from_redis(wanted)
        if found is None:
            return await self.pages.page(wanted, load)
        self.pages.tell_hit(wanted, found)
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
    return SimpleNamespace(state=str(database.state), impossible={})


async def drifted(database: Database, _plan: object) -> dict[str, str]:
    """In place of `triggers.drifted`."""
    return dict.fromkeys(database.mute, "its triggers are disabled")
