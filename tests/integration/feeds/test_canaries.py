"""Many tenants read at once, and some give up at any moment.

Every row has a canary that says whose it is. Whatever a reader receives, whole or cut, in any
format and coding, is searched for anybody else's; what it receives whole is exactly its own rows.
`make soak` does for a minute and two hundred tenants what `make test` does for some seconds and
fifty.
"""

import os
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.integration.conftest import NewDatabase
from tests.support.canaries.cached import cache_counts
from tests.support.canaries.readers import SETTINGS, Findings, read_all
from tests.support.canaries.world import DATASETS_FILE, World, peopled
from tests.support.drawn import DRAWN, share
from tests.support.redis_server import redis_running
from tests.support.servers import as_login
from tests.support.service import serving

TENANTS = share(200)
SECONDS = float(os.environ.get("FEEDSVC_TEST_CANARY_SECONDS", "2"))
DURATIONS = [SECONDS, pytest.param(max(60.0, SECONDS), marks=pytest.mark.soak)]


@pytest.fixture(scope="module")
async def world(new_database: NewDatabase) -> AsyncIterator[World]:
    async with peopled(new_database, TENANTS) as made:
        yield made


@pytest.fixture
def redis_url(request: pytest.FixtureRequest) -> Iterator[str | None]:
    """A real Redis for what may be kept there, or none."""
    if not request.param:
        yield None
        return
    with redis_running() as server:
        yield server.url


def assert_sound(found: Findings) -> None:
    """Assert that no reader saw another's row, and each saw all of its own."""
    assert found.foreign == []
    assert found.amiss == []


@DRAWN
@pytest.mark.timeout(420)
@pytest.mark.parametrize("redis_url", [True, False], indirect=True, ids=["redis", "no redis"])
@pytest.mark.parametrize("seconds", DURATIONS)
async def test_no_reader_ever_sees_anothers_row(
    world: World, seconds: float, redis_url: str | None
) -> None:
    settings = {**SETTINGS, "REDIS_URL": redis_url or ""}
    with serving(as_login(world.url), datasets=DATASETS_FILE, settings=settings) as running:
        found = await read_all(running.url, world, seconds)
        assert running.process.poll() is None
        counts = await cache_counts(running.url)
    assert_sound(found)
    assert found.satisfied == set(world.tenants)
    assert min(found.cut_before_head, found.cut_in_body, found.reset, found.reused) > 0, found
    # Much of it was anybody's to be given by mistake: it came from the cache.
    assert counts["memory"] > 20
    assert (counts["redis"] > 2) is (redis_url is not None)
    assert counts["mismatch"] == 0
