"""Seconds until a connection should come free: those that a refusal names."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial

import pytest

from feedsvc.backends.postgres import pool as pools
from feedsvc.backends.postgres.admission import Admission
from feedsvc.backends.postgres.pool import Pool
from feedsvc.core.problems import Busy
from feedsvc.settings import Settings
from tests.support.servers import as_login

KEPT = 60.0  # seconds that each export has kept its connection so far


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = -1e6

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(pools, "Admission", partial(Admission, clock=made))
    return made


@pytest.fixture
async def bulk(database: str, clock: Clock) -> AsyncIterator[Pool]:
    """Two connections for exports and one for small requests; each export took a minute."""
    sizes = {"size": 3, "reserve": 1, "acquire_timeout": 5}
    given = {"database": {"url": as_login(database)}, "pools": {"bulk": sizes}}
    settings = Settings.model_validate(given)
    made = Pool("bulk", settings.pools.bulk, settings.database)
    await made.open()
    for _ in range(10):
        async with made.lease(large=True):
            clock.now += KEPT
    yield made
    await made.close(1.0)


async def test_retry_after_is_when_a_connection_should_come_free(bulk: Pool, clock: Clock) -> None:
    async with AsyncExitStack() as leased:
        await leased.enter_async_context(bulk.lease(large=True))
        clock.now += 12
        await leased.enter_async_context(bulk.lease(large=True))
        clock.now += 5.5
        assert await seconds_to_wait(bulk) == 43  # 60 - 17.5, rounded up
        clock.now += 30
        assert await seconds_to_wait(bulk) == 13


async def seconds_to_wait(pool: Pool) -> float:
    with pytest.raises(Busy) as caught:
        async with pool.lease(large=True):
            pass
    return float(caught.value.headers["Retry-After"])
