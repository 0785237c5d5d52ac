"""Pages answered at the door: the same answers as the long way gives, and the same rules.

The stages in Server-Timing tell which way an answer took: at the door there is none of the limits.
"""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from tests.support.raw import RawAnswer, Wire, request, wire
from tests.support.redis_server import RunningRedis, redis_running
from tests.support.service import NO_REDIS, Running, bearer, serving, token

OWN, OTHER = "rosewood", "atelier-blanc"
# An Origin changes nothing in an answer while no origin is allowed, but it goes the long way.
THE_LONG_WAY = "Origin: https://example.org"
OF_ONE_ANSWER = (
    "Date",
    "Feed-Export",
    "Cache-Status",
    "Server-Timing",
    "X-Request-ID",
    "RateLimit",
)


@pytest.fixture(scope="module")
def redis() -> Iterator[RunningRedis]:
    with redis_running() as server:
        yield server


@pytest.fixture(scope="module", params=["memory", "redis"])
def quick(request: pytest.FixtureRequest, world_url: str, redis: RunningRedis) -> Iterator[Running]:
    """A service with one of the tiers alone."""
    # So slow a refill that a test which waits for its processor still reaches the limit.
    couple = {"REQUESTS_PER_SECOND": "1", "BURST": "200"}
    settings = {**NO_REDIS, "FEEDSVC_AUTH__LEEWAY": "0"}
    settings |= {f"FEEDSVC_LIMITS__CLIENT__{name}": value for name, value in couple.items()}
    if request.param == "redis":
        settings |= {"REDIS_URL": redis.url, "FEEDSVC_REDIS__PREFIX": "door"}
        settings["FEEDSVC_CACHE__MEMORY_BYTES"] = "0"
        settings["FEEDSVC_REDIS__TIMEOUT"] = "2"  # or a page that is late comes the long way
    with serving(world_url, settings=settings) as running:
        yield running


@pytest.fixture
async def at_the_door(quick: Running) -> AsyncIterator[Wire]:
    async with listening(quick) as connection:
        yield connection


@asynccontextmanager
async def listening(running: Running) -> AsyncIterator[Wire]:
    """A connection to a service that caches."""
    async with wire(running) as connection, asyncio.timeout(30):
        while True:
            asked = request("/api/performance/cache", *_fields(bearer(OWN, "admin")))
            await connection.send(asked)
            if (await connection.answer()).json()["log_read"]:
                break
            await asyncio.sleep(0.05)
        yield connection


def _fields(headers: dict[str, str]) -> list[str]:
    return [f"{name}: {value}" for name, value in headers.items()]


async def get(
    connection: Wire, target: str, *fields: str, tenant: str = OWN, has_body: bool = True
) -> RawAnswer:
    await connection.send(request(target, *_fields(bearer(tenant)), *fields))
    return await connection.answer(has_body=has_body)


def was_quick(answer: RawAnswer) -> bool:
    return "limits;" not in answer.headers["Server-Timing"]


async def known(connection: Wire, target: str, *fields: str) -> RawAnswer:
    """The answer once it comes the short way."""
    async with asyncio.timeout(60):
        while not was_quick(answer := await get(connection, target, *fields)):
            assert answer.status == 200
    return answer


@pytest.mark.parametrize("coding", ["identity", "gzip", "zstd"])
@pytest.mark.parametrize(
    "target",
    [
        "/v1/feeds/clients?limit=7&format=json",
        "/v1/feeds/clients?limit=7&format=ndjson&columns=id,status&order=newest",
        "/v1/feeds/clients?limit=7&format=csv&delimiter=;&status=booked",
        "/v1/feeds/clients?limit=0&format=json",
        "/v1/feeds/clients?limit=3",
        "/v1/feeds/analytics?limit=500",
    ],
)
async def test_both_ways_give_the_same_answer(at_the_door: Wire, target: str, coding: str) -> None:
    asked = target, f"Accept-Encoding: {coding}", "Accept: application/json, */*"
    short = await known(at_the_door, *asked)
    long = await get(at_the_door, *asked, THE_LONG_WAY)
    assert not was_quick(long)
    same(short, long)
    assert short.body == long.body
    assert "; hit; ttl=" in short.headers["Cache-Status"]
    tag = f"If-None-Match: {long.headers['ETag']}"
    for _ in range(2):  # one that was not answered before goes the long way
        unchanged = await get(at_the_door, *asked, tag, has_body=False)
        assert unchanged.status == 304
    assert was_quick(unchanged)
    same(unchanged, await get(at_the_door, *asked, tag, THE_LONG_WAY, has_body=False))
    changed = await get(at_the_door, *asked, 'If-None-Match: W/"another"')
    assert (changed.status, changed.body) == (200, short.body)


def same(short: RawAnswer, long: RawAnswer) -> None:
    assert short.status == long.status
    assert sorted(short.headers) == sorted(long.headers)
    kept = [
        {name: value for name, value in answer.headers.items() if name not in OF_ONE_ANSWER}
        for answer in (short, long)
    ]
    assert kept[0] == kept[1]


async def test_the_same_words_of_others_are_others_pages(at_the_door: Wire) -> None:
    target = "/v1/feeds/clients?limit=5&columns=id,tenant_id"
    for tenant in (OWN, OTHER):
        for _ in range(3):
            answer = await get(at_the_door, target, tenant=tenant)
            assert {row["tenant_id"] for row in answer.json()} == {tenant}
    for _ in range(2):
        assert was_quick(await get(at_the_door, target, tenant=tenant))
    for header in ("Authorization: Bearer nonsense", "Accept: text/csv", "Accept: image/png"):
        await at_the_door.send(
            request(target, *([] if "Auth" in header else _fields(bearer())), header)
        )
        answer = await at_the_door.answer()
        assert not answer.body.startswith(b"[\n")


async def test_a_token_is_verified_each_time(at_the_door: Wire) -> None:
    target = "/v1/feeds/clients?limit=2"
    await known(at_the_door, target)
    soon = token(lifetime=3.0)
    statuses: list[int] = []
    async with asyncio.timeout(60):
        while not statuses or statuses[-1] == 200:
            await at_the_door.send(request(target, f"Authorization: Bearer {soon}"))
            statuses.append((await at_the_door.answer()).status)
            await asyncio.sleep(0.02)
    assert statuses[-1] == 401
    assert 200 in statuses


async def test_a_request_counts_and_one_too_many_is_refused(
    at_the_door: Wire, world: asyncpg.Connection
) -> None:
    sql = "SELECT max(id)::text FROM wedding.clients WHERE tenant_id = $1"
    couple = bearer(client=await world.fetchval(sql, OWN))
    asked = request("/v1/feeds/clients?limit=1", *_fields(couple))
    left: list[int] = []
    async with asyncio.timeout(100):
        while not left or left[-1] > 0:
            await at_the_door.send(asked)
            answer = await at_the_door.answer()
            assert answer.status == 200
            left.append(int(answer.headers["RateLimit"].split(";")[1].removeprefix("r=")))
        while answer.status == 200:  # one may have come back meanwhile
            await at_the_door.send(asked)
            answer = await at_the_door.answer()
    assert answer.status == 429
    assert left[0] == 199


async def test_it_is_audited_and_logged_like_any_other(
    quick: Running, at_the_door: Wire, world: asyncpg.Connection
) -> None:
    target = "/v1/feeds/clients?limit=6&format=ndjson&columns=id"
    await known(at_the_door, target)
    for name, extra in (("long", [THE_LONG_WAY]), ("short", [])):
        answer = await get(at_the_door, target, f"X-Request-ID: {name}-{quick.port}", *extra)
        assert was_quick(answer) == (name == "short")
        assert answer.headers["X-Request-ID"] == f"{name}-{quick.port}"
    names = [f"{name}-{quick.port}" for name in ("long", "short")]
    async with asyncio.timeout(60):
        while len(rows := await world.fetch(_ENTRIES, names)) < 2:
            await asyncio.sleep(0.05)
        while len(lines := [line for line in quick.log if any(n in line for n in names)]) < 2:
            await asyncio.sleep(0.05)
    long, short = (dict(row) for row in rows)
    assert short == {**long, "request_id": names[1]}
    assert (short["rows"], short["bytes"], short["query"]) == (
        6, len(answer.body), target.partition("?")[2],
    )  # fmt: skip
    reported = [json.loads(line) for line in lines]
    changing = {"at", "us", "first_byte_us", "stages_us", "request_id"}
    assert [{k: v for k, v in line.items() if k not in changing} for line in reported[1:]] == [
        {k: v for k, v in reported[0].items() if k not in changing}
    ]


_ENTRIES = """
    SELECT request_id, method, route, status, result, why, host(address), tenant, role, client,
        subject, dataset, format, query, rows, bytes
    FROM feedsvc.audit WHERE request_id = ANY($1) ORDER BY request_id
"""


async def test_answers_come_in_the_order_of_their_requests(at_the_door: Wire) -> None:
    targets = [f"/v1/feeds/clients?limit={n}&columns=id&format=ndjson" for n in (1, 2, 3)]
    for target in targets:
        await known(at_the_door, target)
    slow = "/v1/feeds/tasks?limit=400&columns=id&format=ndjson"
    many = [targets[0], slow, targets[1], "/v1/feeds?x=1", targets[2], targets[0]] * 3
    asked = [request(target, *_fields(bearer())) for target in many]
    # All at once, in pieces that end anywhere, and each behind the other's first half.
    together = b"".join(asked)
    for size in (len(together), 7, 300, len(asked[0]) + 20):
        for start in range(0, len(together), size):
            await at_the_door.send(together[start : start + size])
            if size < 1_000:
                await asyncio.sleep(0)
        for target in many:
            answer = await at_the_door.answer()
            expected = 400 if "x=1" in target else 200
            assert answer.status == expected, target
            if expected == 200:
                assert answer.body.count(b"\n") == int(target.split("limit=")[1].split("&")[0])


@pytest.mark.parametrize(
    ("before", "answers"),
    [
        # Each ends where what follows is no request, though it is one byte by byte.
        ("GET /v1/feeds?x=1 HTTP/1.1\r\nX-Part: ", [400]),
        ("POST /v1/feeds HTTP/1.1\r\nHost: t\r\nContent-Length: {size}\r\n\r\n", [405]),
        (
            "POST /v1/feeds HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\n{{}}"
            "GET /v1/feeds?x=1 HTTP/1.1\r\nX-Part: ",
            [405, 400],
        ),
    ],
)
async def test_known_bytes_are_a_request_only_where_one_may_begin(
    quick: Running, at_the_door: Wire, before: str, answers: list[int]
) -> None:
    target = "/v1/feeds/clients?limit=9&columns=id"
    await known(at_the_door, target)
    whole = request(target, *_fields(bearer()))
    async with wire(quick) as connection:
        for _ in range(2):
            await connection.send(whole)
            assert was_quick(await connection.answer())
        await connection.send(before.format(size=len(whole)).encode())
        await asyncio.sleep(0.2)
        await connection.send(whole)
        assert [(await connection.answer()).status for _ in answers] == answers
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                pytest.fail(f"one answer too many: {await connection.answer()}")


async def test_a_request_that_is_not_plain_goes_the_long_way(at_the_door: Wire) -> None:
    target = "/v1/feeds/clients?limit=4&columns=id"
    whole = (await known(at_the_door, target)).body
    for field in ("Cache-Control: no-cache", "Expect: 100-continue", THE_LONG_WAY):
        if "100" not in field:
            answer = await get(at_the_door, target, field)
            assert not was_quick(answer)
            assert answer.body == whole
    await at_the_door.send(request(target, *_fields(bearer()), method="HEAD"))
    head = await at_the_door.answer(has_body=False)
    assert (head.status, "Content-Length" in head.headers) == (200, False)
    with_body = [*_fields(bearer()), "Content-Length: 2"]
    await at_the_door.send(request(target, *with_body) + b"{}")
    assert (await at_the_door.answer()).status == 400


async def test_a_connection_that_is_to_end_ends(quick: Running, at_the_door: Wire) -> None:
    target = "/v1/feeds/clients?limit=4&columns=id"
    await known(at_the_door, target)
    await at_the_door.send(request(target, *_fields(bearer()), "Connection: close"))
    assert (await at_the_door.answer()).status == 200
    assert await at_the_door.is_closed_within(2)


async def test_the_head_of_one_connections_answer_is_not_anothers(
    quick: Running, at_the_door: Wire
) -> None:
    target = "/v1/feeds/clients?limit=8&columns=id"
    for field in ("Connection: close", "Connection: keep-alive"):
        async with wire(quick) as other:
            version = "1.1" if "close" in field else "1.0"
            asked = request(target, *_fields(bearer()), field)
            await other.send(asked.replace(b"HTTP/1.1", f"HTTP/{version}".encode(), 1))
            assert (await other.answer()).headers["Connection"] == field.partition(" ")[2]
    answer = await known(at_the_door, target)
    assert "Connection" not in answer.headers


async def test_a_drain_closes_the_short_way_too(world_url: str) -> None:
    with serving(world_url) as running:
        async with listening(running) as connection:
            target = "/v1/feeds/clients?limit=4&columns=id"
            await known(connection, target)
            async with wire(running, receive_buffer=4_096) as stalled:
                await stalled.send(request("/v1/feeds/clients", *_fields(bearer())))
                assert (await stalled.answer(has_body=False)).status == 200
                running.terminate()
                async with asyncio.timeout(60):
                    while "Connection" not in (answer := await get(connection, target)).headers:
                        await asyncio.sleep(0.02)
                assert (answer.status, was_quick(answer)) == (200, False)
                assert answer.headers["Connection"] == "close"


async def test_while_redis_is_frozen_the_long_way_answers(world_url: str) -> None:
    settings = {"FEEDSVC_CACHE__MEMORY_BYTES": "0"}
    with (
        redis_running() as server,
        serving(world_url, settings={**settings, "REDIS_URL": server.url}) as running,
    ):
        async with listening(running) as connection:
            target = "/v1/feeds/clients?limit=4&columns=id"
            whole = (await known(connection, target)).body
            with server.frozen():
                # Pipelined, so that the second waits behind the one that asks Redis.
                await connection.send(2 * request(target, *_fields(bearer())))
                for _ in range(2):
                    answer = await asyncio.wait_for(connection.answer(), 60)
                    assert (answer.status, answer.body) == (200, whole)
                    assert not was_quick(answer)
            await known(connection, target)


async def test_a_client_that_leaves_while_redis_is_asked_is_audited(
    world_url: str, world: asyncpg.Connection
) -> None:
    settings = {"FEEDSVC_CACHE__MEMORY_BYTES": "0", "FEEDSVC_REDIS__TIMEOUT": "5"}
    with (
        redis_running() as server,
        serving(world_url, settings={**settings, "REDIS_URL": server.url}) as running,
    ):
        async with listening(running) as connection:
            target = "/v1/feeds/clients?limit=4&columns=id"
            await known(connection, target)
            with server.frozen():
                async with asyncio.timeout(60):
                    while (await result_of_leaving(running, target, world)) != "cancelled":
                        pass


async def result_of_leaving(running: Running, target: str, world: asyncpg.Connection) -> str | None:
    """The audited result of a request that is left; None where it had not been read by then."""
    given = f"left-{uuid.uuid4()}"
    async with wire(running) as leaving:
        await leaving.send(request(target, *_fields(bearer()), f"X-Request-ID: {given}"))
        await asyncio.sleep(0.3)
    for _ in range(200):
        if result := await world.fetchval(_RESULT, given):
            return str(result)
        await asyncio.sleep(0.05)
    return None


_RESULT = "SELECT result FROM feedsvc.audit WHERE request_id = $1"
