"""A balancer that asks `/ready` while PostgreSQL is away."""

import asyncio
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest

from tests.integration.cache.test_cache_faults import behind_a_proxy
from tests.support.balancer import balancing, needs_haproxy
from tests.support.cache_client import OWN, PAGE, get
from tests.support.exposed import exposed
from tests.support.service import NO_REDIS, bearer

TIMEOUT = aiohttp.ClientTimeout(total=30)


async def ready(session: aiohttp.ClientSession) -> tuple[int, str | None]:
    async with session.get("/ready") as answer:
        return answer.status, (await answer.json())["reason"]


@needs_haproxy
@pytest.mark.parametrize("needs", ["", "database"])
async def test_stale_pages_pass_a_balancer_unless_ready_needs_the_database(
    world_url: str, tmp_path: Path, needs: str
) -> None:
    """HAProxy takes an instance out after two checks of `/ready` that failed."""
    settings = {**NO_REDIS, "FEEDSVC_HEALTH__READY_NEEDS": needs}
    async with behind_a_proxy(world_url, tmp_path, settings) as behind:
        port = urlsplit(str(behind.session._base_url)).port
        assert port is not None
        with balancing([port], tmp_path) as url:
            async with aiohttp.ClientSession(url, timeout=TIMEOUT, headers=bearer(OWN)) as client:
                _, body = await get(client, PAGE)
                await behind.away()
                if needs:
                    await until_the_balancer_refuses(client)
                    status, reason = await ready(behind.session)
                    assert (status, reason and reason.startswith("the database does not")) == (
                        503, True,
                    )  # fmt: skip
                else:
                    await until_checked(behind.session)
                    async with client.get(PAGE) as answer:
                        assert (answer.status, await answer.read()) == (200, body)
                        assert answer.headers["Cache-Status"].endswith("; detail=away")
                behind.proxy.mend()
                async with asyncio.timeout(60):
                    while (await client.get(PAGE)).status != 200:
                        await asyncio.sleep(0.05)


async def until_checked(session: aiohttp.ClientSession) -> None:
    """Wait until the service knows that PostgreSQL is away, and was asked four times since."""
    least = float("inf")
    async with asyncio.timeout(60):
        while True:
            now = await exposed(session)
            asked = now.total("feedsvc_requests_total", route="/ready")
            if asked >= least:
                return
            if least == float("inf") and now.total("feedsvc_database_up") == 0:
                least = asked + 4
            await asyncio.sleep(0.1)


async def until_the_balancer_refuses(client: aiohttp.ClientSession) -> None:
    """Wait for a refusal of the balancer's own, which has no request's id."""
    async with asyncio.timeout(60):
        while True:
            async with client.get(PAGE) as answer:
                if answer.status == 503 and "X-Request-ID" not in answer.headers:
                    return
            await asyncio.sleep(0.05)
