"""Pauses between attempts to reach a Redis that is away, by a clock that jumps."""

import asyncio
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from feedsvc.backends.redis.link import RedisAwayError, RedisLink
from feedsvc.settings import Redis as RedisSettings
from tests.support.jumping_clock import run_by_jumps


class Nowhere:
    """A way to a Redis that is not there."""

    async def ping(self) -> None:
        raise ConnectionRefusedError

    async def close(self) -> None:
        pass


@pytest.fixture
def tries(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time of each attempt to reach it."""
    times: list[float] = []

    def made() -> Nowhere:
        times.append(asyncio.get_running_loop().time())
        return Nowhere()

    def ways(*given: Any) -> Callable[[], Nowhere]:
        return made

    monkeypatch.setattr("feedsvc.backends.redis.link.transport_factory", ways)
    return times


def test_it_is_asked_again_ever_more_seldom(tries: list[float]) -> None:
    async def scene() -> None:
        link = RedisLink("redis://nowhere", RedisSettings())
        await link.open()
        await asyncio.sleep(30)
        with pytest.raises(RedisAwayError):
            await link.ask("GET", "key")
        await link.close()

    run_by_jumps(scene())
    pauses = [later - earlier for earlier, later in pairwise(tries)]
    assert pauses == pytest.approx([0.25, 0.5, 1, 2, 4, 5, 5, 5, 5], abs=0.001)


def test_a_repair_has_it_asked_at_once_and_often_again(tries: list[float]) -> None:
    async def scene() -> float:
        link = RedisLink("redis://nowhere", RedisSettings())
        await link.open()
        await asyncio.sleep(20)
        link.retry()
        repaired = asyncio.get_running_loop().time()
        await asyncio.sleep(1)
        await link.close()
        return repaired

    repaired = run_by_jumps(scene())
    behind = [at - repaired for at in tries if at >= repaired]
    assert behind == pytest.approx([0, 0.5], abs=0.001)
