"""Tickets: one use, one path, and none can be forged or read."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import aiohttp
import asyncpg
import pytest

from tests.support.redis_server import RunningRedis
from tests.support.service import NO_REDIS, Running, bearer, serving

FEED = "/v1/feeds/clients"


@pytest.fixture(scope="module")
def with_redis(world_url: str, redis_server: RunningRedis) -> Iterator[Running]:
    """Two workers: a ticket of one is good at the other."""
    # A Redis that a busy machine holds up counts as late, and tickets go elsewhere.
    settings = {"FEEDSVC_REDIS__URL": redis_server.url, "FEEDSVC_REDIS__TIMEOUT": "1"}
    with serving(world_url, settings=settings, arguments=["--workers=2"]) as running:
        yield running


@pytest.fixture(scope="module")
def without_redis(world_url: str) -> Iterator[Running]:
    with serving(world_url, settings=NO_REDIS) as running:
        yield running


@pytest.fixture(params=["postgres", "redis"])
async def http(
    request: pytest.FixtureRequest, without_redis: Running, with_redis: Running
) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of a service that keeps its tickets there; each request on a connection anew."""
    url = (without_redis if request.param == "postgres" else with_redis).url
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(url, connector=connector) as session:
        yield session


async def _ticket(http: aiohttp.ClientSession, path: str = FEED) -> str:
    async with http.post("/v1/tickets", json={"path": path}, headers=bearer()) as answer:
        assert answer.status == 201
        issued = await answer.json()
        assert issued["expires_in"] == 30
        return str(issued["ticket"])


async def test_a_ticket_stands_for_its_holder_with_any_query(http: aiohttp.ClientSession) -> None:
    parameters = {"ticket": await _ticket(http), "limit": "3", "columns": "tenant_id"}
    async with http.get(FEED, params=parameters) as answer:
        assert await answer.json() == [{"tenant_id": "rosewood"}] * 3
        assert parameters["ticket"] not in answer.headers["Link"]


async def test_a_ticket_is_good_once_also_when_many_ask_at_once(
    http: aiohttp.ClientSession,
) -> None:
    ticket = await _ticket(http)

    async def ask() -> int:
        async with http.get(FEED, params={"ticket": ticket, "limit": "1"}) as answer:
            return answer.status

    statuses = await asyncio.gather(*(ask() for _ in range(8)))
    assert sorted(statuses) == [200, *[401] * 7]


async def test_a_ticket_is_for_its_path_alone(http: aiohttp.ClientSession) -> None:
    async with http.get("/v1/feeds/budgets", params={"ticket": await _ticket(http)}) as answer:
        assert answer.status == 401


async def test_an_expired_ticket_is_refused(
    http: aiohttp.ClientSession, world: asyncpg.Connection, redis_server: RunningRedis
) -> None:
    ticket = await _ticket(http)
    await world.execute("UPDATE feedsvc.tickets SET expires_at = now() - interval '1 s'")
    async with redis_server.client() as redis:
        for key in redis_server.keys("feedsvc:ticket:*"):
            assert 20 < await redis.ttl(key) <= 30
            await redis.expire(key, 0)
    async with http.get(FEED, params={"ticket": ticket, "limit": "1"}) as answer:
        assert answer.status == 401


async def test_only_a_digest_of_a_ticket_is_kept(
    http: aiohttp.ClientSession, world: asyncpg.Connection, redis_server: RunningRedis
) -> None:
    ticket = await _ticket(http)
    kept = [row[0] for row in await world.fetch("SELECT t::text FROM feedsvc.tickets t")]
    async with redis_server.client() as redis:
        keys = redis_server.keys("feedsvc:ticket:*")
        kept += [str((key, await redis.get(key))) for key in keys]
    assert kept
    assert all(ticket[1:] not in one for one in kept)


async def test_another_tickets_value_is_no_ticket(
    with_redis: Running, redis_server: RunningRedis
) -> None:
    """A cache that answers with another key's value, or with garbage, lets nobody in."""
    async with (
        aiohttp.ClientSession(with_redis.url) as http,
        redis_server.client() as redis,
    ):
        for value in ("", "null", "{}", "[1]", '{"ticket": 1}', None):
            await redis.flushall()
            mine, other = await _ticket(http), await _ticket(http, "/v1/feeds/budgets")
            keys = redis_server.keys("feedsvc:ticket:*")
            values = [await redis.get(key) for key in keys]
            for key, swapped in zip(keys, reversed(values), strict=True):
                await redis.set(key, (swapped or b"") if value is None else value)
            for ticket, path in ((mine, FEED), (other, "/v1/feeds/budgets")):
                async with http.get(path, params={"ticket": ticket, "limit": "1"}) as answer:
                    assert answer.status == 401


async def test_while_redis_is_frozen_tickets_are_in_postgresql(
    with_redis: Running, redis_server: RunningRedis
) -> None:
    async with aiohttp.ClientSession(with_redis.url) as http:
        old = await _ticket(http)
        with redis_server.frozen():
            async with asyncio.timeout(30):  # Redis would not answer for as long as that
                ticket = await _ticket(http)
            async with http.get(FEED, params={"ticket": ticket, "limit": "1"}) as answer:
                assert answer.status == 200
            async with http.get(FEED, params={"ticket": ticket, "limit": "1"}) as answer:
                assert answer.status == 401
            async with http.get(FEED, params={"ticket": old, "limit": "1"}) as answer:
                assert answer.status == 503  # nobody can tell, so it is neither good nor used up
                assert answer.headers["Retry-After"]


async def test_while_redis_is_full_new_tickets_are_in_postgresql_and_old_ones_good(
    with_redis: Running, redis_server: RunningRedis
) -> None:
    async with aiohttp.ClientSession(with_redis.url) as http:
        old = await _ticket(http)
        with redis_server.full():
            for ticket in (await _ticket(http), await _ticket(http), old):
                for status in (200, 401):
                    parameters = {"ticket": ticket, "limit": "1"}
                    async with http.get(FEED, params=parameters) as answer:
                        assert answer.status == status


@pytest.mark.parametrize(
    "body",
    ["", "no json", "[]", "{}", '{"path": 1}', '{"path": "/live"}', '{"path": "/v1/feeds/a?b=c"}'],
)
async def test_a_body_that_names_no_feed_is_refused(http: aiohttp.ClientSession, body: str) -> None:
    async with http.post("/v1/tickets", data=body, headers=bearer()) as answer:
        assert answer.status == 400
        assert answer.content_type == "application/problem+json"


async def test_a_ticket_does_not_buy_another(http: aiohttp.ClientSession) -> None:
    path = {"ticket": await _ticket(http)}
    async with http.post("/v1/tickets", params=path, json={"path": FEED}) as answer:
        assert answer.status == 401
