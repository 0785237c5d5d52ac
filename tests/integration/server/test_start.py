"""A worker answers its first request as it answers the next: connected, and from the cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

import aiohttp
import pytest

from tests.support.servers import TEMPLATE, as_login, connected, copied_database
from tests.support.service import NO_REDIS, bearer, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

BACKENDS = """
    SELECT application_name FROM pg_stat_activity
    WHERE datname = current_database() AND application_name LIKE 'feedsvc %'
"""
WORKERS = 2


@pytest.fixture(scope="module")
async def world(admin_url: str) -> AsyncIterator[str]:
    async with copied_database(admin_url, TEMPLATE) as url:
        yield url


async def test_no_first_request_waits_for_a_connection_or_goes_past_the_cache(world: str) -> None:
    settings = NO_REDIS | {"FEEDSVC_SERVER__WORKERS": str(WORKERS)}
    with serving(as_login(world), settings=settings) as running:
        async with connected(world) as owner:
            names = [row[0] for row in await owner.fetch(BACKENDS)]
        assert names.count("feedsvc read") == WORKERS
        each_anew = aiohttp.TCPConnector(force_close=True)
        async with aiohttp.ClientSession(
            running.url, headers=bearer(), connector=each_anew
        ) as client:
            for limit in range(1, 2 * WORKERS + 1):
                async with client.get(f"/v1/feeds/clients?limit={limit}") as answer:
                    assert answer.headers["Cache-Status"] == "feedsvc; fwd=uri-miss; stored"
