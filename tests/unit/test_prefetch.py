"""Reading ahead goes on for as long as it pays, and stops by itself where it does not."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from feedsvc.backends.postgres.snapshot import Snapshot
from feedsvc.cache import prefetch
from feedsvc.cache.envelope import PageRequest
from feedsvc.cache.memory import CacheEntry
from feedsvc.cache.prefetch import Prefetcher
from feedsvc.core.events import CachePrefetch, Observers
from feedsvc.core.problems import Busy
from feedsvc.feeds.page import Page, digest_of
from tests.support.datasets import DATASET

PATIENCE = 30.0
PAGE = Page([b"1"], digest_of([b"1"]), "1", True, Snapshot(3, 3, frozenset()), 0.0, 0.0)


class Pages:
    """A cache that holds what was fetched."""

    def __init__(self) -> None:
        self.held: dict[str, CacheEntry] = {}

    def at_hand(self, wanted: PageRequest, *, quietly: bool) -> object:
        assert quietly
        return self.held.get(wanted.key)

    async def fetch(
        self, wanted: PageRequest, load: Callable[[], Awaitable[Page | None]]
    ) -> CacheEntry:
        page = await load()
        assert page is not None
        self.held[wanted.key] = CacheEntry(page, wanted.key)
        return self.held[wanted.key]


class Reader:
    """A caller that pages, with a clock of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = time.monotonic()
        clock = SimpleNamespace(monotonic=lambda: self.now)
        monkeypatch.setattr(prefetch, "time", clock)
        self.pages, self.observers = Pages(), Observers()
        self.spare = True
        given: Any = self.pages
        self.prefetcher = Prefetcher(given, self.observers, lambda: self.spare, PATIENCE)
        self.observers.add(CachePrefetch, self.prefetcher.observe)
        self.observers.add(CachePrefetch, self._count)
        self.reported: Counter[str] = Counter()
        self.loads = self.asked = 0

    async def asks_for_one(self, *, used: bool, dataset: str = "things") -> bool:
        """Ask for a page and, where it is, the next. Whether that one was read ahead."""
        self.asked += 1
        before, key = self.loads, f"{dataset} {self.asked}"
        wanted = PageRequest(key, (), replace(DATASET, name=dataset))
        self.prefetcher.consider(wanted, self._load)
        for _ in range(5):
            await asyncio.sleep(0)
        held = self.pages.held.get(key)
        if used and held is not None and held.guess is not None:
            held.guess.is_open = False
            self.observers.publish(CachePrefetch(dataset, "used"))
        return self.loads > before

    async def _load(self) -> Page:
        self.loads += 1
        return PAGE

    def _count(self, prefetch: CachePrefetch) -> None:
        self.reported[prefetch.outcome] += 1


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Reader:
    return Reader(monkeypatch)


async def test_where_every_guess_is_right_it_goes_on(reader: Reader) -> None:
    assert all([await reader.asks_for_one(used=True) for _ in range(500)])
    reader.now += PATIENCE + 1
    assert await reader.asks_for_one(used=True)
    assert reader.reported == {"read": 501, "used": 501}
    assert reader.prefetcher.ratios() == {"things": 1.0}


async def test_where_no_guess_is_right_it_stops_and_now_and_then_tries_again(
    reader: Reader,
) -> None:
    for _ in range(12):
        assert await reader.asks_for_one(used=False)
    reader.now += PATIENCE + 1
    tried = sum([await reader.asks_for_one(used=False) for _ in range(200)])
    assert tried == 200 // 20
    assert reader.reported["wasted"] == 12
    assert reader.prefetcher.ratios()["things"] == 0.0


async def test_other_datasets_have_records_of_their_own(reader: Reader) -> None:
    for _ in range(12):
        await reader.asks_for_one(used=False)
    reader.now += PATIENCE + 1
    assert not await reader.asks_for_one(used=False)
    assert await reader.asks_for_one(used=False, dataset="others")


async def test_it_begins_anew_when_times_change(reader: Reader) -> None:
    for _ in range(60):
        await reader.asks_for_one(used=False)
    reader.now += PATIENCE + 1
    read = [await reader.asks_for_one(used=True) for _ in range(3_000)]
    assert sum(read[:100]) <= 5
    assert all(read[-100:])


async def test_half_of_the_guesses_right_is_worth_it_and_less_is_not(reader: Reader) -> None:
    for number in range(100):
        await reader.asks_for_one(used=number % 2 == 0)
        reader.now += PATIENCE + 1
    assert await reader.asks_for_one(used=False)
    for number in range(100):
        await reader.asks_for_one(used=number % 3 == 0)
        reader.now += PATIENCE + 1
    assert not await reader.asks_for_one(used=False)


async def test_open_guesses_are_bounded_too(reader: Reader) -> None:
    """A crawler that never pages would else have read thousands before the first is written off."""
    assert sum([await reader.asks_for_one(used=False) for _ in range(1_000)]) == 50


async def test_a_guess_holds_no_page_in_memory(reader: Reader) -> None:
    await reader.asks_for_one(used=False)
    reader.pages.held.clear()
    reader.now += PATIENCE + 1
    await reader.asks_for_one(used=False)
    assert reader.reported["wasted"] == 1, "thrown out meanwhile, and wrong all the same"


async def test_nothing_is_read_that_is_there_or_while_others_wait(reader: Reader) -> None:
    reader.pages.held["things 1"] = CacheEntry(PAGE)
    assert not await reader.asks_for_one(used=False)
    reader.spare = False
    assert not await reader.asks_for_one(used=False)


async def test_two_at_once_at_most_and_failures_reach_no_request(reader: Reader) -> None:
    gate = asyncio.Event()

    async def slow() -> Page:
        reader.loads += 1
        await gate.wait()
        raise Busy("no", 1)

    for key in "abcd":
        reader.prefetcher.consider(PageRequest(key, (), DATASET), slow)
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert reader.loads == 2
    gate.set()
    async with asyncio.timeout(30):
        while reader.prefetcher._tasks:
            await asyncio.sleep(0)
    assert await reader.asks_for_one(used=True)
    await reader.prefetcher.close()
