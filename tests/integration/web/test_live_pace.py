"""Clients that open a live feed together, beside small requests: one after the other."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest

from tests.support.fork_server import MORE_CODE
from tests.support.live_shop import ADMIN_TOKEN, DATASETS, MEMBER, SCHEMA, LiveShop
from tests.support.logged_shop import opened, prepare

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.integration.conftest import NewDatabase

FEED = "/v1/feeds/orders"
MANY, ROOM = 5, 3
PERIOD = 0.5  # seconds, as `slow_pace` has it


@pytest.fixture
async def shop(new_database: NewDatabase, tmp_path: Path) -> AsyncIterator[LiveShop]:
    file = tmp_path / "datasets.toml"
    async with new_database() as url:
        await prepare(url, file, SCHEMA, DATASETS)
        settings = {
            MORE_CODE: "tests.support.slow_pace",
            "FEEDSVC_STREAMS__SUBSCRIBERS": str(ROOM),
        }
        async with opened(LiveShop, url, file, settings) as shop:
            yield shop


async def begun(shop: LiveShop, stack: AsyncExitStack) -> int:
    """The status of a live feed, whose stream stays open."""
    asked = shop.http.get(FEED, params={"live": "1", "format": "sse"}, headers=MEMBER)
    answer = await stack.enter_async_context(asked)
    await answer.content.readline()
    return answer.status


async def test_they_begin_at_a_pace_once_a_page_was_asked_for_and_no_more_than_there_is_room(
    shop: LiveShop,
) -> None:
    async with asyncio.timeout(60), AsyncExitStack() as stack:
        async with shop.http.get(f"{FEED}?limit=1", headers=MEMBER) as page:
            assert page.status == 200
            await page.read()
        async with shop.http.get("/metrics", headers=ADMIN_TOKEN) as metrics:
            await metrics.read()  # by then the page was noted
        asked_at = time.monotonic()
        statuses = await asyncio.gather(*(begun(shop, stack) for _ in range(MANY)))
        assert time.monotonic() - asked_at > PERIOD * (ROOM - 1) * 0.9
    assert sorted(statuses) == [200] * ROOM + [503] * (MANY - ROOM)
