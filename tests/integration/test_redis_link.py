"""Redis is asked and never waited for; nobody gets the answer to another's question."""

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Iterator

import pytest
from redis.asyncio import Redis

from feedsvc.embedded.valkey import ValkeyServer
from feedsvc.redis_link import RedisAwayError, RedisLink
from feedsvc.settings import Redis as RedisSettings
from tests.support.redis_server import redis_running


@pytest.fixture(scope="module", params=["redis", "valkey"])
def server(request: pytest.FixtureRequest) -> Iterator[ValkeyServer]:
    with redis_running(request.param) as server:
        yield server


@pytest.fixture
async def link(server: ValkeyServer) -> AsyncIterator[RedisLink]:
    link = RedisLink(server.url, RedisSettings(connections=4))
    yield link
    await link.close()


async def back(link: RedisLink) -> float:
    """How long it takes until it is back."""
    began = time.monotonic()
    async with asyncio.timeout(10):
        while link.away:
            await asyncio.sleep(0.02)
    return time.monotonic() - began


async def test_a_question_that_is_cancelled_leaves_its_answer_to_nobody(link: RedisLink) -> None:
    """CVE-2023-28858: the answer stayed on the connection for whoever asked next."""
    for number in range(50):
        await link.ask(lambda c, n=number: c.set(f"user:{n}", f"value of {n}"))  # type: ignore[misc]

    async def read(number: int, patience: float) -> None:
        async def get(client: Redis) -> object:
            return await client.get(f"user:{number}")

        try:
            async with asyncio.timeout(patience):
                answer = await link.ask(get)
        except (TimeoutError, RedisAwayError):
            return
        assert answer == f"value of {number}".encode()

    generator = random.Random(7)
    for _ in range(40):
        readers = [read(n, generator.choice((0.0, 0.0002, 0.0005, 0.001, 1.0))) for n in range(50)]
        await asyncio.gather(*readers)
    await back(link)
    assert await link.ask(lambda client: client.get("user:7")) == b"value of 7"


async def test_a_frozen_redis_is_waited_for_once_by_those_who_asked_and_then_by_nobody(
    link: RedisLink, server: ValkeyServer
) -> None:
    assert await link.ask(lambda client: client.ping())
    os.kill(server.pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        asked = [link.ask(lambda client: client.ping()) for _ in range(100)]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert time.monotonic() - began < 0.3
        assert all(isinstance(answer, RedisAwayError) for answer in answers)
        began = time.monotonic()
        for _ in range(100):
            with pytest.raises(RedisAwayError):
                await link.ask(lambda client: client.ping())
        assert time.monotonic() - began < 0.05
    finally:
        os.kill(server.pid, signal.SIGCONT)
    assert await back(link) < 6
    assert await link.ask(lambda client: client.ping())


@pytest.mark.parametrize("fault", ["full", "read-only", "gone"])
async def test_a_redis_that_refuses_is_away_and_back_by_itself(
    link: RedisLink, server: ValkeyServer, fault: str
) -> None:
    async with Redis.from_url(server.url, protocol=2) as admin:
        if fault == "full":
            await admin.config_set("maxmemory", "1")
        elif fault == "read-only":
            await admin.replicaof("127.0.0.1", "1")
        else:
            server.stop(kill=True)
        with pytest.raises(RedisAwayError):
            await link.ask(lambda client: client.set("key", "value"))
        assert link.away
        if fault == "full":
            await admin.config_set("maxmemory", "0")
        elif fault == "read-only":
            await admin.replicaof("NO", "ONE")
        else:
            server.start()
    await back(link)
    assert await link.ask(lambda client: client.set("key", "value"))


async def test_an_address_where_nobody_is_costs_no_more(unused_tcp_port: int) -> None:
    link = RedisLink(f"redis://127.0.0.1:{unused_tcp_port}/0", RedisSettings())
    began = time.monotonic()
    for _ in range(20):
        with pytest.raises(RedisAwayError):
            await link.ask(lambda client: client.ping())
    assert time.monotonic() - began < 0.3
    await link.close()


def test_what_is_no_address_of_a_redis_is_refused() -> None:
    with pytest.raises(ValueError, match="scheme"):
        RedisLink("http://127.0.0.1", RedisSettings())
