"""Pages before they are asked for: shown stale once, read at a start, read ahead."""

import asyncio
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
from yarl import URL

from tests.support.cache_client import (
    OTHER,
    PAGE,
    figures,
    get,
    until_log_is_read,
)
from tests.support.redis_server import RunningRedis
from tests.support.service import REPOSITORY, bearer, serving


def with_bounds(folder: Path, bounds: str) -> Path:
    """The demo's datasets, where clients may be shown stale."""
    given = (REPOSITORY / "config" / "datasets.toml").read_text()
    file = folder / "datasets.toml"
    file.write_text(given.replace("[clients]\n", f"[clients]\n{bounds}\n", 1))
    return file


async def test_stale_once_while_it_is_read_anew(world_url: str, tmp_path: Path) -> None:
    file = with_bounds(tmp_path, "fresh = 0.3\nstale = 30")
    with serving(world_url, datasets=file) as running:
        async with aiohttp.ClientSession(running.url) as session:
            await until_log_is_read(session)
            _, body = await get(session, PAGE)
            status = ""
            async with asyncio.timeout(30):
                while not status.startswith("feedsvc; hit; ttl=-"):
                    await asyncio.sleep(1.4)  # longer than it is fresh
                    status, again = await get(session, PAGE)
                    assert again == body
            # Read anew meanwhile: it is fresh as soon as it is asked for soon enough behind that.
            async with asyncio.timeout(30):
                while status != "feedsvc; hit; ttl=0; detail=memory":
                    assert "; hit; ttl=" in status
                    status, again = await get(session, PAGE)
                    assert again == body


async def test_the_most_requested_pages_are_there_after_a_restart(
    world_url: str, world: asyncpg.Connection, redis: RunningRedis
) -> None:
    settings = {"REDIS_URL": redis.url, "FEEDSVC_REDIS__PREFIX": "warm"}
    path = "/v1/feeds/budgets?limit=11&format=ndjson"
    with serving(world_url, settings=settings) as running:
        async with aiohttp.ClientSession(running.url) as session:
            await until_log_is_read(session)
            for _ in range(3):
                await get(session, path)
    async with redis.client() as link:
        for name in redis.keys("warm:page:*"):
            await link.delete(name)
    with serving(world_url, settings=settings) as running:
        async with aiohttp.ClientSession(running.url) as session:
            await until_log_is_read(session)
            async with asyncio.timeout(60):
                while not (await figures(session))["memory"]["pages"]:
                    await asyncio.sleep(0.05)
            assert "detail=memory" in (await get(session, path))[0]
            # And for nobody else.
            assert "fwd=uri-miss" in (await get(session, path, OTHER))[0]


async def test_the_next_page_of_a_paging_caller_is_read_ahead(
    client: aiohttp.ClientSession,
) -> None:
    path: str | None = "/v1/feeds/timeline?limit=9&columns=id"
    statuses = []
    seen: list[int] = []
    for _ in range(8):
        assert path is not None
        async with client.get(path, headers=bearer(OTHER)) as answer:
            statuses.append(answer.headers["Cache-Status"])
            seen += [row["id"] for row in await answer.json()]
            link = answer.links.get("next")
            path = str(URL(link["url"]).relative()) if link else None
        await until_read_ahead(client, "timeline", len(statuses) - 1)
    assert len(set(seen)) == len(seen)
    assert sum("; hit;" in status for status in statuses[2:]) >= 5
    reported = (await figures(client))["datasets"]["timeline"]["prefetches"]
    assert reported["used"] >= 5


async def until_read_ahead(session: aiohttp.ClientSession, dataset: str, pages: int) -> None:
    """Wait for so many pages that were read ahead; a while alone, for not every chance is taken.

    What was read is counted once it is there for who asks for it.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(5):
            while (await figures(session))["datasets"][dataset]["prefetches"]["read"] < pages:
                await asyncio.sleep(0.02)


async def test_reading_ahead_stops_where_no_next_page_is_asked_for(world_url: str) -> None:
    """A client that asks for pages in the middle, and never for those behind them."""
    settings = {"FEEDSVC_CACHE__PREFETCH_PATIENCE": "0.2"}
    with serving(world_url, settings=settings) as running:
        async with aiohttp.ClientSession(running.url) as session:
            await until_log_is_read(session)
            _, body = await get(session, "/v1/feeds/timeline?format=ndjson&columns=id")
            keys = [json.loads(line)["id"] for line in body.splitlines()]
            assert len(keys) > 100

            async def ask_behind(some: list[int]) -> Any:
                for number, key in enumerate(some, 1):
                    await get(session, f"/v1/feeds/timeline?limit=3&columns=id&after={key}")
                    await until_read_ahead(session, "timeline", min(number, 10))
                return await reported()

            async def reported() -> Any:
                return (await figures(session))["datasets"]["timeline"]["prefetches"]

            first = await ask_behind(keys[:60:4])
            async with asyncio.timeout(30):
                while first["wasted"] < 10:  # which is noticed when somebody asks
                    await asyncio.sleep(0.1)
                    await get(session, f"/v1/feeds/timeline?limit=5&columns=id&after={keys[0]}")
                    first = await reported()
            assert first["used"] == 0
            then = await ask_behind(keys[62:100:2])
            assert then["read"] - first["read"] <= 2, "one of twenty chances is taken all the same"
