"""A table that somebody else has locked: its own requests fail soon, and say why."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

import aiohttp
import pytest

from tests.support.ailing import component, until
from tests.support.locks import locked
from tests.support.servers import world_of_its_own
from tests.support.service import NO_REDIS, bearer, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.service import Running

CLIENTS = "/v1/feeds/clients?limit=3"
DEADLINE = 60.0


@pytest.fixture
async def own(admin_url: str) -> AsyncIterator[tuple[Running, str]]:
    """A service with a short patience for locks, and a superuser's URL of its database."""
    settings = NO_REDIS | {
        "FEEDSVC_POOLS__READ__SIZE": "4",
        "FEEDSVC_POOLS__READ__LOCK_TIMEOUT": "3",
        "FEEDSVC_POOLS__READ__ACQUIRE_TIMEOUT": "60",
        "FEEDSVC_CACHE__ENABLED": "false",
    }
    async with world_of_its_own(admin_url) as url:
        name = url.rpartition("/")[2]
        with serving(url, settings=settings) as running:
            yield running, f"{admin_url.rpartition('/')[0]}/{name}"


async def test_a_locked_table_fails_by_itself_and_health_says_who_blocks_whom(
    own: tuple[Running, str],
) -> None:
    running, database = own
    async with aiohttp.ClientSession(running.url, headers=bearer(role="admin")) as http:

        async def is_told() -> bool:
            return "hold up requests" in (await component(http, "locks"))["what"]

        async with locked(database, "wedding.clients"):
            asking = [asyncio.create_task(problem(http)) for _ in range(12)]
            await until(is_told, DEADLINE)
            told = await component(http, "locks")
            assert told["state"] == "degraded"
            assert re.search(
                r"session \d+ waits for session \d+ \(wedding.clients, AccessShareLock against"
                r" AccessExclusiveLock\)",
                told["what"],
            )
            assert set(told["figures"]["waits"][0]) == {
                "waiting", "blocking", "relation", "wanted", "held", "seconds",
            }  # fmt: skip
            # Of the four connections the locked dataset has three.
            async with http.get("/v1/feeds/vendors?limit=3") as answer:
                assert answer.status == 200
            assert not all(task.done() for task in asking), "the other dataset waited for the lock"
            assert set(await asyncio.gather(*asking)) == {(503, "/problems/dataset-locked")}
        async with http.get(CLIENTS) as answer:
            assert answer.status == 200


async def problem(http: aiohttp.ClientSession) -> tuple[int, str]:
    async with http.get(CLIENTS) as answer:
        found = await answer.json()
        assert "Retry-After" in answer.headers, found
        return answer.status, found["type"]
