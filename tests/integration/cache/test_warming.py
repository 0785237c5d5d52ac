"""The most requested pages, noted in a real Redis and read back after a restart."""

from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace

import pytest

from feedsvc import settings
from feedsvc.backends.redis.link import RedisLink
from feedsvc.cache import warming
from feedsvc.cache.envelope import PageRequest
from feedsvc.cache.warming import Warmth
from feedsvc.core.principal import Principal
from tests.support.datasets import DATASET
from tests.support.redis_server import RunningRedis, redis_running

A_DAY = 86_400
CALLER = Principal("t", "member", "7", 0.0)


@pytest.fixture(scope="module")
def redis() -> Iterator[RunningRedis]:
    with redis_running() as running:
        yield running


@pytest.fixture
async def link(redis: RunningRedis) -> AsyncIterator[RedisLink]:
    redis.each("FLUSHALL")
    made = RedisLink(redis.url, settings.Redis(prefix="warm", timeout=2.0))
    await made.open()
    yield made
    await made.close()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    made = SimpleNamespace(now=1e9)
    monkeypatch.setattr(warming, "time", SimpleNamespace(time=lambda: made.now))
    return made


async def noted(link: RedisLink, *keys: str, most: int = 10) -> None:
    """A worker that was asked for these pages."""
    worker = Warmth(link, most)
    for key in keys:
        wanted = PageRequest(key, (), DATASET)
        worker.note(wanted, "json", {"limit": key, "export": "one of many"}, CALLER)
    await worker.write()


async def hottest(link: RedisLink, most: int = 10) -> list[str]:
    recipes = await Warmth(link, most)._hottest()
    for recipe in recipes:
        assert recipe["dataset"] == "things"
        assert recipe["scope"] == ["t", "member", "7"]
        assert recipe["given"]["format"] == "json"
        assert "export" not in recipe["given"]
    return [recipe["given"]["limit"] for recipe in recipes]


async def test_pages_that_all_workers_noted_come_back_the_most_requested_first(
    link: RedisLink,
) -> None:
    await noted(link, "1", "2", "2", "3")
    await noted(link, "3", "3", "4")
    found = await hottest(link)
    assert found[:2] == ["3", "2"]
    assert set(found) == {"1", "2", "3", "4"}
    assert await hottest(link, most=1) == ["3"]


async def test_of_many_pages_a_worker_notes_the_hottest(link: RedisLink) -> None:
    await noted(link, "1", "2", "2", "3", most=1)
    assert await hottest(link) == ["2"]


@pytest.mark.parametrize("damaged", [b"", b"[", b"[]", b'{"at": "x", "pages": []}', b'{"at": 1e9}'])
async def test_damaged_notes_are_passed_over(
    link: RedisLink, clock: SimpleNamespace, damaged: bytes
) -> None:
    await link.write("HSET", "warm:hottest", "somebody", damaged)
    await noted(link, "1")
    assert await hottest(link) == ["1"]
    assert await link.ask("HLEN", "warm:hottest") == 1


async def test_notes_of_long_ago_are_struck_out(link: RedisLink, clock: SimpleNamespace) -> None:
    """Each start of a worker adds one, and others keep the whole from expiring."""
    for _ in range(5):
        await noted(link, "1")
    clock.now += A_DAY + 1
    await noted(link, "2")
    assert await link.ask("HLEN", "warm:hottest") == 6
    assert await hottest(link) == ["2"]
    assert await link.ask("HLEN", "warm:hottest") == 1
