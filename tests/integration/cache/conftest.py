"""A service that caches, with a Redis and without one."""

from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest

from tests.support.cache_client import until_log_is_read
from tests.support.redis_server import RunningRedis, redis_running
from tests.support.service import NO_REDIS, Running, serving


@pytest.fixture(scope="module")
def redis() -> Iterator[RunningRedis]:
    with redis_running() as server:
        yield server


@pytest.fixture(scope="module", params=["redis", "no redis"])
def cached(request: pytest.FixtureRequest, world_url: str) -> Iterator[Running]:
    """A service whose pages nobody else asks for."""
    has_redis = request.param == "redis"
    settings = {"REDIS_URL": request.getfixturevalue("redis").url} if has_redis else NO_REDIS
    with serving(world_url, settings=settings) as running:
        yield running


@pytest.fixture
async def client(cached: Running) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(cached.url) as session:
        await until_log_is_read(session)
        yield session
