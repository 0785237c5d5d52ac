"""Pages in Redis: one load for all who ask at once, and right answers whatever its state."""

import asyncio
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import asyncpg
import pytest

from feedsvc.cache.redis_store import RedisStore
from feedsvc.settings import Redis as RedisSettings
from tests.support.cache_client import (
    OTHER,
    OWN,
    PAGE,
    figures,
    get,
    until_log_is_read,
)
from tests.support.cache_figures import reports, until_all_read_log
from tests.support.drawn import DRAWN, share
from tests.support.exposed import exposed
from tests.support.locks import locked, readers, until_read_waits
from tests.support.redis_server import RunningRedis, redis_running
from tests.support.service import bearer, serving

REDIS_TIMEOUT = RedisSettings().timeout
CROWD = share(500)


async def cache_seconds(session: aiohttp.ClientSession, path: str) -> float:
    """The time that the cache took, hit or not, in seconds."""
    async with session.get(path, headers=bearer()) as answer:
        found = re.search(r"cache;dur=([0-9.]+)", answer.headers["Server-Timing"])
        assert found is not None
        return float(found[1]) / 1_000


@DRAWN
@pytest.mark.parametrize("workers", [1, 2])
async def test_a_crowd_at_once_runs_one_query(
    world_url: str,
    world_admin_url: str,
    world: asyncpg.Connection,
    redis: RunningRedis,
    workers: int,
) -> None:
    settings = {
        "REDIS_URL": redis.url,
        "FEEDSVC_REDIS__PREFIX": f"cold{workers}",
        # However long it takes a busy machine to begin with all of them.
        "FEEDSVC_CACHE__WAIT_TIMEOUT": "120",
        # All are one principal's, and one worker may have all of those that go past the cache.
        "FEEDSVC_POOLS__READ__SHARE": "1",
        "FEEDSVC_POOLS__READ__ACQUIRE_TIMEOUT": "120",
        "FEEDSVC_POOLS__READ__QUERY_TIMEOUT": "130",
        "FEEDSVC_POOLS__READ__LOCK_TIMEOUT": "120",
    }
    path, admin = "/v1/feeds/vendors?limit=40", bearer(OWN, "admin")
    with serving(world_url, settings=settings, arguments=[f"--workers={workers}"]) as running:
        await until_all_read_log(running.url, workers, admin)
        connector = aiohttp.TCPConnector(limit=CROWD)
        async with aiohttp.ClientSession(running.url, connector=connector) as session:
            async with locked(world_admin_url, "wedding.vendors"):
                asked = [asyncio.create_task(get(session, path)) for _ in range(CROWD)]
                async with aiohttp.ClientSession(running.url) as beside, asyncio.timeout(120):
                    while (await exposed(beside)).total("feedsvc_requests_running") < CROWD:
                        await asyncio.sleep(0.05)
                await until_read_waits(world)
                reading = await readers(world)
            answers = await asyncio.gather(*asked)
        reported = await reports(running.url, workers, admin)
    assert len(reading) == 1
    assert len({body for _, body in answers}) == 1
    assert sum("stored" in status for status, _ in answers) == 1
    assert sum(report["datasets"]["vendors"]["loads"]["count"] for report in reported) == 1


@asynccontextmanager
async def from_redis_alone(
    url: str, world_url: str, **more: str
) -> AsyncIterator[aiohttp.ClientSession]:
    """A service that keeps nothing in its own memory."""
    settings = {
        "REDIS_URL": url, "FEEDSVC_REDIS__PREFIX": "alone", "FEEDSVC_CACHE__MEMORY_BYTES": "0",
        **more,
    }  # fmt: skip
    with serving(world_url, settings=settings) as running:
        connector = aiohttp.TCPConnector(limit=500)
        async with aiohttp.ClientSession(running.url, connector=connector) as session:
            await until_log_is_read(session)
            yield session


@DRAWN
async def test_five_hundred_at_once_do_not_make_redis_look_away(world_url: str) -> None:
    """Their answers are late by what this process does meanwhile, and that is not Redis's fault."""
    # Less than 500 requests take; but a machine of which others want much may hold up Redis, too.
    timeout = {
        "FEEDSVC_REDIS__TIMEOUT": "0.5",
        # So that a page that is read anew after all is no refusal, which would hide the reason.
        "FEEDSVC_POOLS__READ__SHARE": "1",
        "FEEDSVC_POOLS__READ__ACQUIRE_TIMEOUT": "60",
    }
    with redis_running() as server:
        async with from_redis_alone(server.url, world_url, **timeout) as session:
            paths = [f"{PAGE}&order={order}" for order in ("newest", "oldest", "name")]
            expected = {path: (await get(session, path))[1] for path in paths}
            for path in paths:
                await until_it_is_kept(session, path)
            for _ in range(share(3)):
                asked = [get(session, paths[number % 3]) for number in range(500)]
                for number, (status, body) in enumerate(await asyncio.gather(*asked)):
                    assert "detail=redis" in status
                    assert body == expected[paths[number % 3]]
            assert (await figures(session))["redis"] == "answers"


async def befall(how: str, server: RunningRedis, spare: bytes) -> None:
    """Do this to a Redis; `spare` is another's page."""
    match how:
        case "frozen":
            server.signal(signal.SIGSTOP)
        case "killed":
            server.kill()
        case "full":
            server.configure("maxmemory-policy", "noeviction")
            server.configure("maxmemory", "1")
        case "read-only":
            server.refuse_writes(True)
        case "flushed":
            server.each("FLUSHALL")
        case _:
            async with server.client() as client:
                for name in server.keys("alone:page:*"):
                    if how == "garbage":
                        await client.set(name, b"feedsvc-page-3\n{garbage")
                    elif how == "another key's value":
                        await client.set(name, spare)
                    else:
                        await client.delete(name)
                        await client.hset(name, "a", "hash")


async def undo(how: str, server: RunningRedis) -> None:
    match how:
        case "frozen":
            server.signal(signal.SIGCONT)
        case "killed":
            await asyncio.to_thread(server.start)
        case "full":
            server.configure("maxmemory", "0")
        case "read-only":
            server.refuse_writes(False)
        case _:
            pass  # it is as it should be, but for what it holds


KEPT, GONE = ("full", "read-only"), ("frozen", "killed")


@pytest.mark.parametrize(
    "how",
    ["frozen", "killed", "full", "read-only", "flushed", "garbage", "another key's value",
     "another type"],
)  # fmt: skip
async def test_whatever_befalls_redis_every_answer_is_right(how: str, world_url: str) -> None:
    # One that a busy machine holds up would count as away where it is not to.
    timeout = {} if how == "frozen" else {"FEEDSVC_REDIS__TIMEOUT": "1"}
    with redis_running() as server:
        async with from_redis_alone(server.url, world_url, **timeout) as session:
            _, expected = await get(session, PAGE)
            await until_it_is_kept(session, PAGE)
            _, foreign = await get(session, PAGE, OTHER)
            await befall(how, server, await page_of(OTHER, server))
            try:
                for number in range(12):
                    status, body = await get(session, PAGE)
                    assert body == expected != foreign
                    found = how in KEPT or (how not in GONE and number > 0)
                    assert ("detail=redis" in status) is found, status
                    if number == 0 and how not in (*KEPT, *GONE):
                        await until_it_is_kept(session, PAGE)
                    # What is not in Redis yet can't be kept there, either.
                    other = f"{PAGE}&columns=id&order={('newest', 'name')[number % 2]}"
                    assert (await get(session, other))[1].count(b"\n") == 20
                states = {**dict.fromkeys(KEPT, "refuses"), **dict.fromkeys(GONE, "away")}
                reported = await until_redis(session, states.get(how, "answers"))
                if how == "frozen":  # would Redis be waited for each time, none would be sooner
                    waited = [await cache_seconds(session, PAGE) for _ in range(12)]
                    assert min(waited) < REDIS_TIMEOUT
            finally:
                await undo(how, server)
            assert (reported["redis_refusals"] > 0) is (how in KEPT or how == "another type")
            # Back to normal by itself: kept anew, and found.
            await until_it_is_kept(session, f"{PAGE}&columns=id,status&order=newest")
            assert (await get(session, PAGE))[1] == expected


async def until_redis(session: aiohttp.ClientSession, state: str) -> Any:
    """The cache's figures as soon as Redis is so; that it refuses is forgotten after a second."""
    async with asyncio.timeout(30):
        while True:
            await get(session, f"{PAGE}&columns=id")
            if (reported := await figures(session))["redis"] == state:
                return reported


async def page_of(tenant: str, server: RunningRedis) -> bytes:
    """The tenant's page in Redis, as soon as it is there: it is put there behind the answer."""
    async with server.client() as client, asyncio.timeout(30):
        while True:
            for name in server.keys("alone:page:*"):
                envelope: bytes = await client.get(name)
                if f'\\"{tenant}\\",\\"member\\"'.encode() in envelope:
                    return envelope
            await asyncio.sleep(0.02)


async def until_it_is_kept(session: aiohttp.ClientSession, path: str) -> None:
    async with asyncio.timeout(30):
        while "detail=redis" not in (await get(session, path))[0]:
            await asyncio.sleep(0.1)


def test_the_name_of_a_page_in_redis_shows_no_data() -> None:
    class Link:
        prefix = "feedsvc"

    name = RedisStore(Link())._name('["rosewood","member",""]')  # type: ignore[arg-type]
    assert "rosewood" not in name
