"""Limits as a client meets them: 429 and its headers; other callers are not concerned."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterator
from statistics import median

import aiohttp
import asyncpg
import pytest

from tests.support import sse
from tests.support.narrow import narrow_session
from tests.support.redis_server import RunningRedis
from tests.support.service import NO_REDIS, Running, bearer, serving

PAGE = "/v1/feeds/clients?limit=1&columns=id"
FEED = "/v1/feeds/clients?columns=id"


@pytest.fixture(scope="module")
def limited(world_url: str, redis_server: RunningRedis) -> Iterator[Running]:
    """Two workers with the limits that are there by default, but few streams for an admin."""
    settings = {
        "FEEDSVC_REDIS__URL": redis_server.url,
        "FEEDSVC_REDIS__TIMEOUT": "1",  # else a busy machine's Redis counts as away
        "FEEDSVC_LIMITS__ADMIN__STREAMS": "3",
        "FEEDSVC_SERVER__SEND_BUFFER": "16384",
    }
    with serving(world_url, settings=settings, arguments=["--workers=2"]) as running:
        yield running


async def statuses(
    http: aiohttp.ClientSession, headers: dict[str, str], count: int
) -> Counter[int]:
    async def ask() -> int:
        async with http.get(PAGE, headers=headers) as answer:
            await answer.read()
            return answer.status

    return Counter(await asyncio.gather(*(ask() for _ in range(count))))


async def couple(world: asyncpg.Connection, number: int) -> dict[str, str]:
    """A couple that no other test is."""
    sql = "SELECT id::text FROM wedding.clients WHERE tenant_id = 'rosewood' ORDER BY id OFFSET $1"
    return bearer(client=await world.fetchval(sql + " LIMIT 1", number))


async def test_a_client_has_fifty_requests_a_second_and_a_burst_of_a_hundred(
    limited: Running, world: asyncpg.Connection
) -> None:
    headers = await couple(world, 1)
    async with aiohttp.ClientSession(limited.url) as http:
        began = time.monotonic()
        seen = await statuses(http, headers, 400)
        passed = time.monotonic() - began
        assert set(seen) == {200, 429}
        assert 95 <= seen[200] <= 150 + 50 * passed
        while True:  # on a slow machine one may be due again
            answer = await http.get(PAGE, headers=headers)
            if answer.status == 429:
                break
        async with answer:
            assert int(answer.headers["Retry-After"]) >= 1
            assert answer.headers["RateLimit-Policy"] == '"requests";q=100;w=2'
            assert answer.headers["RateLimit"].startswith('"requests";r=0;t=')
            problem = json.loads(await answer.read())
            assert (problem["type"], problem["status"]) == ("/problems/rate-limited", 429)
            assert problem["request_id"] == answer.headers["X-Request-ID"]
        # Whatever it says of itself, it is the same caller; and everybody else is another one.
        forged = {**headers, "X-Forwarded-For": "203.0.113.9", "Forwarded": "for=203.0.113.9"}
        asked = time.monotonic()
        let_in = (await statuses(http, forged, 60))[200]
        assert let_in <= 10 + 50 * (time.monotonic() - asked)
        assert await statuses(http, await couple(world, 2), 20) == {200: 20}
        assert await statuses(http, bearer(), 300) == {200: 300}
        # What two workers let in at once beyond the burst is paid for by waiting.
        await asyncio.sleep(2.0)
        again = await statuses(http, headers, 100)
        passed = time.monotonic() - began
        assert seen[200] + again[200] <= 100 + 50 * passed + 25
        assert again[200] >= 25


async def test_every_answer_has_what_is_left(limited: Running, world: asyncpg.Connection) -> None:
    async with aiohttp.ClientSession(limited.url) as http:
        headers = await couple(world, 3)
        # While Redis is late a request weighs as much as there are workers.
        async with http.get(FEED, headers=headers) as answer:
            assert answer.headers["RateLimit"] in ('"requests";r=99;t=1', '"requests";r=98;t=1')
            assert answer.headers["RateLimit-Policy"] == '"requests";q=100;w=2'


async def test_what_is_refused_costs_its_sender_as_much(
    limited: Running, world: asyncpg.Connection
) -> None:
    """So nobody has a worker parse for free, and 429 comes before anything is parsed."""
    headers, seen = await couple(world, 5), Counter[int]()
    bad = ("/v1/feeds/clients?limit=x", "/v1/feeds/nothing", "/v1/feeds/analytics", "/metrics")
    async with aiohttp.ClientSession(limited.url) as http, asyncio.timeout(60):
        while not seen[429]:
            for path in bad:
                async with http.get(path, headers=headers) as answer:
                    seen[answer.status] += 1
                    assert "RateLimit" in answer.headers
        assert set(seen) == {400, 403, 404, 429}
        async with http.get("/v1/feeds/clients?limit=x", headers=bearer()) as answer:
            assert answer.status == 400, "others are as they were"


async def test_tickets_are_limited_apart(limited: Running, world: asyncpg.Connection) -> None:
    headers, seen = await couple(world, 6), Counter[int]()
    async with aiohttp.ClientSession(limited.url) as http, asyncio.timeout(60):
        while not seen[429]:
            body = {"path": "/v1/feeds/clients"}
            async with http.post("/v1/tickets", json=body, headers=headers) as answer:
                seen[answer.status] += 1
                assert answer.headers["RateLimit-Policy"] == '"tickets";q=50;w=10'
        assert set(seen) == {201, 429}
        assert seen[201] >= 40
        async with http.get(PAGE, headers=headers) as answer:
            assert answer.status == 200, "requests are counted apart"


async def test_a_list_has_at_most_a_thousand_values(limited: Running) -> None:
    async with aiohttp.ClientSession(limited.url) as http:
        for count, status in ((1_000, 200), (1_001, 400)):
            url = f"/v1/feeds/clients?limit=1&id.in={','.join(['1'] * count)}"
            async with http.get(url, headers=bearer()) as answer:
                assert answer.status == status
                body = await answer.json()
        assert body["parameter"] == "id.in"
        assert body["allowed"] == ["1 to 1000 values"]


async def test_streams_at_once(limited: Running, world: asyncpg.Connection) -> None:
    """The lease of a stream is over when the stream is, whether it ended or its client left."""
    headers = bearer(role="admin", subject="who streams much")
    async with narrow_session(limited.url) as http:
        running = [await http.get("/v1/feeds/clients", headers=headers) for _ in range(3)]
        assert [answer.status for answer in running] == [200] * 3
        assert not any(answer.content.at_eof() for answer in running)
        for _ in range(2):
            async with http.get("/v1/feeds/clients", headers=headers) as refused:
                assert refused.status == 429
                assert refused.headers["RateLimit-Policy"] == '"streams";q=3;qu="streams"'
        async with http.get(PAGE, headers=headers) as page:
            assert page.status == 200, "a page is no stream"
        running[0].close()  # one leaves
        assert len(await running[1].json()) == 3_000  # and one is served
        async with asyncio.timeout(60):
            for _ in range(2):
                while (
                    answer := await http.get("/v1/feeds/clients", headers=headers)
                ).status != 200:
                    answer.close()
                    await asyncio.sleep(0.05)
                running.append(answer)
        async with http.get("/v1/feeds/clients", headers=headers) as refused:
            assert refused.status == 429
        for answer in running:
            answer.close()


async def test_a_stream_that_uses_up_the_hours_rows_breaks_off_and_says_where(
    world_url: str,
) -> None:
    headers, taken = bearer(), 0
    quota = {"FEEDSVC_LIMITS__MEMBER__ROWS_PER_HOUR": "5000"}
    with serving(world_url, settings=quota) as frugal:
        async with aiohttp.ClientSession(frugal.url) as http:
            for _ in range(5):
                body = b""
                try:
                    async with http.get(f"{FEED}&format=sse", headers=headers) as answer:
                        if answer.status == 429:
                            assert answer.headers["RateLimit-Policy"].startswith(
                                '"rows";q=5000;w=3600'
                            )
                            break
                        async for piece in answer.content.iter_any():
                            body += piece
                except aiohttp.ClientPayloadError:
                    pass
                stream = sse.parse(body)
                taken += sum(len(json.loads(event.data)) for event in stream.of_type("rows"))
                if errors := stream.of_type("error"):
                    problem = json.loads(errors[0].data)
                    assert problem["type"] == "/problems/rate-limited"
                    assert problem["after"] == stream.of_type("rows")[-1].last_id
            else:
                pytest.fail("the quota never held")
    # aiohttp drops what it has not handed out when the connection breaks: of a slow reader all.
    assert 3_000 <= taken <= 5_100


async def test_a_frozen_redis_delays_no_request_and_limits_still_bind(
    limited: Running, redis_server: RunningRedis, world: asyncpg.Connection
) -> None:
    headers = await couple(world, 4)

    async def timed(http: aiohttp.ClientSession, who: dict[str, str]) -> tuple[float, int]:
        began = time.monotonic()
        async with http.get(PAGE, headers=who) as answer:
            await answer.read()
            return time.monotonic() - began, answer.status

    async with aiohttp.ClientSession(limited.url) as http:
        usual = median([(await timed(http, bearer()))[0] for _ in range(50)])
        with redis_server.frozen():
            began = time.monotonic()
            results = [await timed(http, headers) for _ in range(100)]
            results += await asyncio.gather(*(timed(http, headers) for _ in range(300)))
            paid_back = 50 * (time.monotonic() - began)
            # A busy machine delays some; each would be late if each waited for an answer.
            assert median(seconds for seconds, _ in results[:100]) < usual + 0.08
            assert 45 <= sum(status == 200 for _, status in results) <= 150 + paid_back
            assert {status for _, status in results} == {200, 429}
            assert (await timed(http, bearer()))[1] == 200


async def test_without_redis_an_instance_admits_its_share(world_url: str) -> None:
    """Forty at once, of which one of four instances admits ten."""
    settings = {
        **NO_REDIS,
        "FEEDSVC_SERVER__INSTANCES": "4",
        "FEEDSVC_LIMITS__MEMBER__BURST": "40",
        "FEEDSVC_LIMITS__MEMBER__REQUESTS_PER_SECOND": "0.001",
    }
    with serving(world_url, settings=settings) as running:
        async with aiohttp.ClientSession(running.url) as http:
            found = await statuses(http, bearer(), 30)
            assert found[429] == 20, found
            assert found[200] + found[503] == 10  # on a busy machine the pool may refuse some
