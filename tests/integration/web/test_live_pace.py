"""Clients that open a live feed together, beside small requests: one after the other."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import aiohttp
import pytest

from tests.support.fork_server import MORE_CODE
from tests.support.live_shop import ADMIN_TOKEN, DATASETS, MEMBER, SCHEMA, LiveShop
from tests.support.logged_shop import opened, prepare

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.integration.conftest import NewDatabase

FEED = "/v1/feeds/orders"
MANY = 4
PERIOD = 0.5  # seconds, as `slow_pace` has it


@pytest.fixture
async def shop(new_database: NewDatabase, tmp_path: Path) -> AsyncIterator[LiveShop]:
    file = tmp_path / "datasets.toml"
    async with new_database() as url:
        await prepare(url, file, SCHEMA, DATASETS)
        slowly = {MORE_CODE: "tests.support.slow_pace"}
        async with opened(LiveShop, url, file, slowly) as shop:
            yield shop


async def begun(http: aiohttp.ClientSession) -> float:
    """The time at which a live feed begins (monotonic)."""
    async with http.get(FEED, params={"live": "1", "format": "sse"}, headers=MEMBER) as answer:
        assert answer.status == 200
        await answer.content.readline()
        return time.monotonic()


async def test_they_begin_at_a_pace_once_a_page_was_asked_for(shop: LiveShop) -> None:
    async with asyncio.timeout(60):
        async with shop.http.get(f"{FEED}?limit=1", headers=MEMBER) as page:
            assert page.status == 200
            await page.read()
        async with shop.http.get("/metrics", headers=ADMIN_TOKEN) as metrics:
            await metrics.read()  # by then the page was noted
        asked_at = time.monotonic()
        times = await asyncio.gather(*(begun(shop.http) for _ in range(MANY)))
    assert max(times) - asked_at > PERIOD * (MANY - 1) * 0.9
