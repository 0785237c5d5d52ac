"""A table that another session has locked: its requests alone wait, fail, and say why."""

from __future__ import annotations

import asyncio
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

import aiohttp
import pytest

from tests.support.ailing import component, until
from tests.support.locks import locked
from tests.support.servers import with_database, world_of_its_own
from tests.support.service import NO_REDIS, bearer, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.support.service import Running

CLIENTS = "/v1/feeds/clients?limit=3"
TENANTS = ["rosewood", "atelier-blanc"]
DEADLINE = 60.0
PATIENCE = aiohttp.ClientTimeout(total=DEADLINE)


@pytest.fixture(scope="module")
async def own_world(admin_url: str) -> AsyncIterator[str]:
    """The service's URL of a database in which tables can be locked."""
    async with world_of_its_own(admin_url) as url:
        yield url


@pytest.fixture
def database(own_world: str, admin_url: str) -> str:
    """The superuser's URL of the same database."""
    return with_database(admin_url, own_world.rpartition("/")[2])


@contextmanager
def waiting_for_locks(url: str, seconds: float) -> Iterator[Running]:
    """A service of four connections that waits for a lock for so many seconds."""
    settings = NO_REDIS | {
        "FEEDSVC_POOLS__READ__SIZE": "4",
        "FEEDSVC_POOLS__READ__LOCK_TIMEOUT": str(seconds),
        "FEEDSVC_POOLS__READ__QUERY_TIMEOUT": "600",
        "FEEDSVC_POOLS__READ__ACQUIRE_TIMEOUT": "300",
        "FEEDSVC_CACHE__ENABLED": "false",
    }
    with serving(url, settings=settings) as running:
        yield running


async def test_a_locked_table_leaves_connections_to_others_and_health_says_who_blocks_whom(
    own_world: str, database: str
) -> None:
    """No request for the locked table can end before the lock, however slow the others are."""
    with waiting_for_locks(own_world, 300) as running:
        await _others_are_served(running, database)


async def _others_are_served(running: Running, database: str) -> None:
    async with aiohttp.ClientSession(running.url, headers=bearer(role="admin")) as http:

        async def is_reported() -> bool:
            return "hold up requests" in (await component(http, "locks"))["what"]

        async with locked(database, "wedding.clients"):
            asking = [asyncio.create_task(status(http, tenant)) for tenant in TENANTS * 6]
            await until(is_reported, DEADLINE)
            reported = await component(http, "locks")
            assert reported["state"] == "degraded"
            assert re.search(
                r"session \d+ waits for session \d+ \(wedding.clients, AccessShareLock against"
                r" AccessExclusiveLock\)",
                reported["what"],
            )
            assert set(reported["figures"]["waits"][0]) == {
                "waiting", "blocking", "relation", "wanted", "held", "seconds",
            }  # fmt: skip
            # Of the four connections a dataset has three at most, and so has a principal: the
            # fourth is for another dataset, and a third principal.
            path, third = "/v1/feeds/vendors?limit=3", bearer("bellini")
            async with http.get(path, headers=third, timeout=PATIENCE) as answer:
                assert answer.status == 200
            assert not any(task.done() for task in asking), "the table was not locked"
        async with asyncio.timeout(DEADLINE):
            assert set(await asyncio.gather(*asking)) == {200}


async def test_a_request_waits_for_a_lock_no_longer_than_its_timeout(
    own_world: str, database: str
) -> None:
    with waiting_for_locks(own_world, 0.2) as running:
        async with aiohttp.ClientSession(running.url, headers=bearer(role="admin")) as http:
            async with locked(database, "wedding.clients"), asyncio.timeout(DEADLINE):
                asked = await asyncio.gather(*(problem(http) for _ in range(12)))
            assert set(asked) == {(503, "/problems/dataset-locked")}
            assert await status(http) == 200


async def status(http: aiohttp.ClientSession, tenant: str = TENANTS[0]) -> int:
    async with http.get(CLIENTS, headers=bearer(tenant)) as answer:
        await answer.read()
        return answer.status


async def problem(http: aiohttp.ClientSession) -> tuple[int, str]:
    async with http.get(CLIENTS) as answer:
        found = await answer.json()
        assert "Retry-After" in answer.headers, found
        return answer.status, found["type"]
