"""First pages from the cache, asked for as clients do: real PostgreSQL, real Redis, two tenants."""

import asyncio
import csv
import io
import json
import re
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest
from yarl import URL

from feedsvc.cache.redis_store import RedisStore
from feedsvc.settings import Redis as RedisSettings
from tests.support.cache_figures import reports, until_all_listen
from tests.support.exposed import exposed
from tests.support.locks import locked, readers, until_somebody_reads
from tests.support.redis_server import RunningRedis, redis_running
from tests.support.service import NO_REDIS, REPOSITORY, Running, bearer, serving

REDIS_TIMEOUT = RedisSettings().timeout
OWN, OTHER = "rosewood", "atelier-blanc"
PAGE = "/v1/feeds/clients?limit=20&format=ndjson"


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
        await until_it_listens(session)
        yield session


async def until_it_listens(session: aiohttp.ClientSession) -> None:
    async with asyncio.timeout(10):
        while not (await figures(session))["listening"]:
            await asyncio.sleep(0.05)


async def figures(session: aiohttp.ClientSession) -> Any:
    async with session.get("/api/performance/cache", headers=bearer(OWN, "admin")) as answer:
        assert answer.status == 200
        return await answer.json()


async def get(
    session: aiohttp.ClientSession,
    path: str,
    tenant: str = OWN,
    role: str = "member",
    client: str | None = None,
    **headers: str,
) -> tuple[str, bytes]:
    """What Cache-Status says, and the body."""
    async with session.get(path, headers={**bearer(tenant, role, client), **headers}) as answer:
        assert answer.status == 200, await answer.text()
        return answer.headers["Cache-Status"], await answer.read()


async def cache_seconds(session: aiohttp.ClientSession, path: str) -> float:
    """How long the cache took to answer, or not."""
    async with session.get(path, headers=bearer()) as answer:
        found = re.search(r"cache;dur=([0-9.]+)", answer.headers["Server-Timing"])
        assert found is not None
        return float(found[1]) / 1_000


async def heard(session: aiohttp.ClientSession) -> None:
    """Waits until all that is committed has been told; throws out nothing of ours."""
    asked = session.post(
        "/api/performance/cache/invalidate",
        json={"tags": ["nothing of ours"]},
        headers=bearer(OWN, "admin"),
    )
    async with asked as answer:
        assert (await answer.json())["heard"] is True


async def test_the_second_time_it_is_a_hit_in_any_format(
    client: aiohttp.ClientSession, world: asyncpg.Connection
) -> None:
    path = "/v1/feeds/clients?limit=7&columns=id,status&order=newest"
    status, first = await get(client, f"{path}&format=ndjson")
    assert status == "feedsvc; fwd=uri-miss; stored"
    oracle = await world.fetch(
        "SELECT id, status FROM wedding.clients WHERE tenant_id = $1 "
        "ORDER BY created_at DESC, id DESC LIMIT 7",
        OWN,
    )
    expected = [dict(row) for row in oracle]
    assert [json.loads(line) for line in first.splitlines()] == expected
    status, again = await get(client, f"{path}&format=ndjson")
    assert status.startswith("feedsvc; hit; ttl=")
    assert status.endswith("detail=memory")
    assert again == first
    for form in ("json", "sse"):
        status, body = await get(client, f"{path}&format={form}")
        assert "; hit;" in status
        if form == "json":
            assert json.loads(body) == expected
        else:
            assert body.count(b"\nevent: rows") + body.startswith(b"event: rows") >= 1
    # CSV's records are others, so they are read once themselves.
    assert "fwd=uri-miss" in (await get(client, f"{path}&format=csv"))[0]
    status, body = await get(client, f"{path}&format=csv")
    assert "; hit;" in status
    read = list(csv.reader(io.StringIO(body.decode(), newline="")))
    assert read == [["id", "status"], *([str(row["id"]), row["status"]] for row in oracle)]


async def test_a_hit_takes_no_connection_and_knows_its_entity_tag(
    client: aiohttp.ClientSession, world: asyncpg.Connection
) -> None:
    path = "/v1/feeds/clients?limit=3&columns=id"
    async with client.get(path, headers=bearer()) as answer:
        tag = answer.headers["ETag"]
    async with world.transaction():
        # Whoever reads the table now waits.
        await world.execute("LOCK wedding.clients IN ACCESS EXCLUSIVE MODE")
        given = {**bearer(), "If-None-Match": tag}
        async with asyncio.timeout(2), client.get(path, headers=given) as answer:
            assert answer.status == 304
            assert "; hit;" in answer.headers["Cache-Status"]
        assert "; hit;" in (await get(client, path))[0]


async def test_a_write_throws_out_exactly_what_it_changes(
    client: aiohttp.ClientSession, world: asyncpg.Connection
) -> None:
    rows = await world.fetch(
        "SELECT id FROM wedding.clients WHERE tenant_id = $1 ORDER BY id LIMIT 2", OWN
    )
    changed, untouched = (str(row["id"]) for row in rows)
    asked: list[dict[str, str]] = [
        {"tenant": OWN}, {"tenant": OTHER}, {"client": changed}, {"client": untouched},
    ]  # fmt: skip
    for who in asked:
        await get(client, PAGE, **who)
        assert "; hit;" in (await get(client, PAGE, **who))[0]
    await world.execute(
        "UPDATE wedding.clients SET notes = 'as of now' WHERE id = $1", int(changed)
    )
    await heard(client)
    seen = [await get(client, PAGE, **who) for who in asked]
    assert ["; hit;" in status for status, _ in seen] == [False, True, False, True]
    assert "fwd=stale" in seen[0][0]
    assert b"as of now" in seen[0][1]
    assert b"as of now" in seen[2][1]
    await world.execute("UPDATE wedding.clients SET notes = NULL WHERE id = $1", int(changed))


async def test_nobody_gets_what_another_asked_for(
    client: aiohttp.ClientSession, world: asyncpg.Connection
) -> None:
    couple = str(
        await world.fetchval("SELECT max(id) FROM wedding.clients WHERE tenant_id = $1", OWN)
    )
    callers: list[dict[str, str]] = [
        {"tenant": OWN}, {"tenant": OTHER}, {"client": couple}, {"role": "admin"},
    ]  # fmt: skip
    paths = [
        f"/v1/feeds/clients?limit=4&{more}"
        for more in ("format=ndjson", "format=csv", "columns=id", "order=name", "status=booked")
    ]
    alone = {}
    for path in paths:
        for number, caller in enumerate(callers):
            past = {"Cache-Control": "no-cache"}
            status, alone[path, number] = await get(client, path, **caller, **past)
            assert status == "feedsvc; fwd=request"

    async def one(path: str, number: int) -> None:
        _, body = await get(client, path, **callers[number])
        assert body == alone[path, number]

    for _ in range(3):
        await asyncio.gather(*(one(path, number) for path in paths for number in range(4)))


async def test_a_stream_goes_on_from_the_cached_page(
    client: aiohttp.ClientSession, world: asyncpg.Connection
) -> None:
    path = "/v1/feeds/tasks?format=ndjson&frames=1&columns=id"
    _, cold = await get(client, path)
    status, warm = await get(client, path)
    assert "; hit;" in status

    def rows(body: bytes) -> list[Any]:
        frames = [json.loads(line) for line in body.splitlines()]
        return [frame["row"] for frame in frames if "row" in frame]

    expected = await world.fetch(
        "SELECT id FROM wedding.tasks WHERE tenant_id = $1 ORDER BY id", OWN
    )
    assert len(expected) > 500
    assert rows(warm) == rows(cold)
    end = json.loads(warm.splitlines()[-1])["end"]
    assert [row["id"] for row in rows(warm)] == [row["id"] for row in expected]
    assert end["rows"] == len(expected)
    assert end["snapshots"] == 1, "nothing was written in between, so it is one snapshot's"


async def test_a_write_between_page_and_cursor_loses_and_repeats_no_untouched_row(
    client: aiohttp.ClientSession, world: asyncpg.Connection
) -> None:
    path = "/v1/feeds/timeline?format=ndjson&columns=id"
    before = [json.loads(line)["id"] for line in (await get(client, path))[1].splitlines()]
    assert len(before) > 100
    gone = before[::7]
    async with client.get(path, headers=bearer()) as answer:
        assert "; hit;" in answer.headers["Cache-Status"]
        await world.execute("DELETE FROM wedding.timeline WHERE id = ANY($1)", gone)
        body = await answer.read()
    seen = [json.loads(line)["id"] for line in body.splitlines()]
    untouched = [row for row in before if row not in set(gone)]
    assert [row for row in seen if row not in set(gone)] == untouched
    assert len(seen) == len(set(seen))
    await heard(client)
    after = [json.loads(line)["id"] for line in (await get(client, path))[1].splitlines()]
    assert after == untouched


async def test_a_stream_that_ends_just_behind_the_cached_page_has_its_rows_and_no_more(
    client: aiohttp.ClientSession, world: asyncpg.Connection
) -> None:
    path = "/v1/feeds/tasks?format=ndjson&columns=id,title"
    await get(client, path)
    expected = await world.fetch(
        "SELECT id FROM wedding.tasks WHERE tenant_id = $1 ORDER BY id LIMIT 600", OWN
    )
    assert len(expected) == 600
    for limit in (501, 502, 550, 563, 564, 565, 600):
        status, body = await get(client, f"{path}&limit={limit}")
        assert "; hit;" in status
        ids = [json.loads(line)["id"] for line in body.splitlines()]
        assert ids == [row["id"] for row in expected[:limit]], limit


async def test_an_admin_throws_pages_out_by_tag(client: aiohttp.ClientSession) -> None:
    for tenant in (OWN, OTHER):
        await get(client, PAGE, tenant)
        assert "; hit;" in (await get(client, PAGE, tenant))[0]
    for body in (b"{", b"{}", b'{"tags":[]}', b'{"tags":"clients"}', b'{"tags":[1]}'):
        asked = client.post(
            "/api/performance/cache/invalidate", data=body, headers=bearer(OWN, "admin")
        )
        async with asked as answer:
            assert answer.status == 400
    given = {"tags": [f"clients:{OWN}"]}
    async with client.post(
        "/api/performance/cache/invalidate", json=given, headers=bearer(OWN, "admin")
    ) as answer:
        assert await answer.json() == {**given, "heard": True}
    assert "; hit;" not in (await get(client, PAGE))[0]
    assert "; hit;" in (await get(client, PAGE, OTHER))[0]
    told = (await figures(client))["datasets"]["clients"]
    assert told["misses"]["invalidated"] >= 1
    assert told["hits"]["memory"] > 0
    assert told["loads"]["count"] > 0


async def test_without_a_listener_nothing_is_shown_from_the_cache(
    cached: Running, client: aiohttp.ClientSession, world: asyncpg.Connection
) -> None:
    await get(client, PAGE)
    assert "; hit;" in (await get(client, PAGE))[0]
    cut = (
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
        "WHERE application_name = 'feedsvc changes' AND datname = current_database()"
    )
    assert await world.fetchval(cut) >= 1
    await world.execute("UPDATE wedding.clients SET notes = 'unheard' WHERE tenant_id = $1", OWN)
    async with asyncio.timeout(10):
        while True:
            status, body = await get(client, PAGE)
            if "; hit;" not in status:
                break
    assert b"unheard" in body
    await until_it_listens(client)
    assert b"unheard" in (await get(client, PAGE))[1]
    await world.execute("UPDATE wedding.clients SET notes = NULL WHERE tenant_id = $1", OWN)
    await heard(client)
    assert b"unheard" not in (await get(client, PAGE))[1]


@pytest.mark.parametrize("workers", [1, 2])
async def test_five_hundred_at_once_run_one_query(
    world_url: str,
    world_admin_url: str,
    world: asyncpg.Connection,
    redis: RunningRedis,
    workers: int,
) -> None:
    settings = {
        "REDIS_URL": redis.url,
        "FEEDSVC_REDIS__PREFIX": f"cold{workers}",
        # However long it takes a busy machine to begin with all of them.
        "FEEDSVC_CACHE__WAIT_TIMEOUT": "60",
        # All are one principal's, and one worker may have all of those that go past the cache.
        "FEEDSVC_POOLS__READ__SHARE": "1",
        "FEEDSVC_POOLS__READ__ACQUIRE_TIMEOUT": "60",
        "FEEDSVC_POOLS__READ__QUERY_TIMEOUT": "60",
        "FEEDSVC_POOLS__READ__LOCK_TIMEOUT": "50",
    }
    path, admin = "/v1/feeds/vendors?limit=40", bearer(OWN, "admin")
    with serving(world_url, settings=settings, arguments=[f"--workers={workers}"]) as running:
        await until_all_listen(running.url, workers, admin)
        connector = aiohttp.TCPConnector(limit=500)
        async with aiohttp.ClientSession(running.url, connector=connector) as session:
            async with locked(world_admin_url, "wedding.vendors"):
                asked: list[asyncio.Task[tuple[str, bytes]]] = []
                async with aiohttp.ClientSession(running.url) as beside, asyncio.timeout(60):
                    # By parts: a loop that begins 500 at once answers no heartbeat in time on a
                    # busy machine, and its worker goes past the cache.
                    for _ in range(10):
                        asked += [asyncio.create_task(get(session, path)) for _ in range(50)]
                        async with beside.get("/live") as answer:
                            assert answer.status == 200
                    while (await exposed(beside)).total("feedsvc_requests_running") < 500:
                        await asyncio.sleep(0.05)
                await until_somebody_reads(world)
                reading = await readers(world)
            answers = await asyncio.gather(*asked)
        told = await reports(running.url, workers, admin)
    assert len(reading) == 1
    assert len({body for _, body in answers}) == 1
    assert sum("stored" in status for status, _ in answers) == 1
    assert sum(report["datasets"]["vendors"]["loads"]["count"] for report in told) == 1


@asynccontextmanager
async def from_redis_alone(
    url: str, world_url: str, **more: str
) -> AsyncIterator[aiohttp.ClientSession]:
    """A service that keeps nothing in its own memory."""
    settings = {
        "REDIS_URL": url, "FEEDSVC_REDIS__PREFIX": "alone", "FEEDSVC_CACHE__MEMORY_BYTES": "0",
        **more,
    }  # fmt: skip
    with serving(world_url, settings=settings) as running:
        connector = aiohttp.TCPConnector(limit=500)
        async with aiohttp.ClientSession(running.url, connector=connector) as session:
            await until_it_listens(session)
            yield session


async def test_five_hundred_at_once_do_not_make_redis_look_away(world_url: str) -> None:
    """Their answers are late by what this process does meanwhile, and that is not Redis's fault."""
    # Less than 500 requests take; but a machine of which others want much may hold up Redis, too.
    timeout = {
        "FEEDSVC_REDIS__TIMEOUT": "0.5",
        # So that a page that is read anew after all is no refusal, which would hide the reason.
        "FEEDSVC_POOLS__READ__SHARE": "1",
        "FEEDSVC_POOLS__READ__ACQUIRE_TIMEOUT": "60",
    }
    with redis_running() as server:
        async with from_redis_alone(server.url, world_url, **timeout) as session:
            paths = [f"{PAGE}&order={order}" for order in ("newest", "oldest", "name")]
            expected = {path: (await get(session, path))[1] for path in paths}
            for path in paths:
                await until_it_is_kept(session, path)
            for _ in range(3):
                asked = [get(session, paths[number % 3]) for number in range(500)]
                for number, (status, body) in enumerate(await asyncio.gather(*asked)):
                    assert "detail=redis" in status
                    assert body == expected[paths[number % 3]]
            assert (await figures(session))["redis"] == "answers"


async def befall(how: str, server: RunningRedis, spare: bytes) -> None:
    """What may befall a Redis; `spare` is another's page."""
    match how:
        case "frozen":
            server.signal(signal.SIGSTOP)
        case "killed":
            server.kill()
        case "full":
            server.configure("maxmemory-policy", "noeviction")
            server.configure("maxmemory", "1")
        case "read-only":
            server.refuse_writes(True)
        case "flushed":
            server.each("FLUSHALL")
        case _:
            async with server.client() as client:
                for name in server.keys("alone:page:*"):
                    if how == "garbage":
                        await client.set(name, b"feedsvc-page-3\n{garbage")
                    elif how == "another key's value":
                        await client.set(name, spare)
                    else:
                        await client.delete(name)
                        await client.hset(name, "a", "hash")


async def undo(how: str, server: RunningRedis) -> None:
    match how:
        case "frozen":
            server.signal(signal.SIGCONT)
        case "killed":
            await asyncio.to_thread(server.start)
        case "full":
            server.configure("maxmemory", "0")
        case "read-only":
            server.refuse_writes(False)
        case _:
            pass  # it is as it should be, but for what it holds


KEPT, GONE = ("full", "read-only"), ("frozen", "killed")


@pytest.mark.parametrize(
    "how",
    ["frozen", "killed", "full", "read-only", "flushed", "garbage", "another key's value",
     "another type"],
)  # fmt: skip
async def test_whatever_befalls_redis_every_answer_is_right(how: str, world_url: str) -> None:
    with redis_running() as server:
        async with from_redis_alone(server.url, world_url) as session:
            _, expected = await get(session, PAGE)
            await until_it_is_kept(session, PAGE)
            _, foreign = await get(session, PAGE, OTHER)
            await befall(how, server, await page_of(OTHER, server))
            try:
                for number in range(12):
                    status, body = await get(session, PAGE)
                    assert body == expected != foreign
                    found = how in KEPT or (how not in GONE and number > 0)
                    assert ("detail=redis" in status) is found, status
                    if number == 0 and how not in (*KEPT, *GONE):
                        await until_it_is_kept(session, PAGE)
                    # What is not in Redis yet can't be kept there, either.
                    other = f"{PAGE}&columns=id&order={('newest', 'name')[number % 2]}"
                    assert (await get(session, other))[1].count(b"\n") == 20
                states = {**dict.fromkeys(KEPT, "refuses"), **dict.fromkeys(GONE, "away")}
                told = await until_redis(session, states.get(how, "answers"))
                if how == "frozen":  # would Redis be waited for each time, none would be sooner
                    waited = [await cache_seconds(session, PAGE) for _ in range(12)]
                    assert min(waited) < REDIS_TIMEOUT
            finally:
                await undo(how, server)
            assert (told["redis_refusals"] > 0) is (how in KEPT or how == "another type")
            # Back to normal by itself: kept anew, and found.
            await until_it_is_kept(session, f"{PAGE}&columns=id,status&order=newest")
            assert (await get(session, PAGE))[1] == expected


async def until_redis(session: aiohttp.ClientSession, state: str) -> Any:
    """The cache's figures as soon as Redis is so; that it refuses is forgotten after a second."""
    async with asyncio.timeout(30):
        while True:
            await get(session, f"{PAGE}&columns=id")
            if (told := await figures(session))["redis"] == state:
                return told


async def page_of(tenant: str, server: RunningRedis) -> bytes:
    """The tenant's page in Redis, as soon as it is there: it is put there behind the answer."""
    async with server.client() as client, asyncio.timeout(30):
        while True:
            for name in server.keys("alone:page:*"):
                envelope: bytes = await client.get(name)
                if f'\\"{tenant}\\",\\"member\\"'.encode() in envelope:
                    return envelope
            await asyncio.sleep(0.02)


async def until_it_is_kept(session: aiohttp.ClientSession, path: str) -> None:
    async with asyncio.timeout(30):
        while "detail=redis" not in (await get(session, path))[0]:
            await asyncio.sleep(0.1)


def with_bounds(folder: Path, bounds: str) -> Path:
    """The demo's datasets, where clients may be shown stale."""
    given = (REPOSITORY / "config" / "datasets.toml").read_text()
    file = folder / "datasets.toml"
    file.write_text(given.replace("[clients]\n", f"[clients]\n{bounds}\n", 1))
    return file


async def test_stale_once_while_it_is_read_anew(world_url: str, tmp_path: Path) -> None:
    file = with_bounds(tmp_path, "fresh = 0.3\nstale = 30")
    with serving(world_url, datasets=file) as running:
        async with aiohttp.ClientSession(running.url) as session:
            await until_it_listens(session)
            _, body = await get(session, PAGE)
            status = ""
            async with asyncio.timeout(30):
                while not status.startswith("feedsvc; hit; ttl=-"):
                    await asyncio.sleep(1.4)  # longer than it is fresh
                    status, again = await get(session, PAGE)
                    assert again == body
            # Read anew meanwhile: it is fresh as soon as it is asked for soon enough behind that.
            async with asyncio.timeout(30):
                while status != "feedsvc; hit; ttl=0; detail=memory":
                    assert "; hit; ttl=" in status
                    status, again = await get(session, PAGE)
                    assert again == body


async def test_what_was_hot_is_there_after_a_restart(
    world_url: str, world: asyncpg.Connection, redis: RunningRedis
) -> None:
    settings = {"REDIS_URL": redis.url, "FEEDSVC_REDIS__PREFIX": "warm"}
    path = "/v1/feeds/budgets?limit=11&format=ndjson"
    with serving(world_url, settings=settings) as running:
        async with aiohttp.ClientSession(running.url) as session:
            await until_it_listens(session)
            for _ in range(3):
                await get(session, path)
    async with redis.client() as link:
        for name in redis.keys("warm:page:*"):
            await link.delete(name)
    with serving(world_url, settings=settings) as running:
        async with aiohttp.ClientSession(running.url) as session:
            await until_it_listens(session)
            async with asyncio.timeout(5):
                while not (await figures(session))["memory"]["pages"]:
                    await asyncio.sleep(0.05)
            assert "detail=memory" in (await get(session, path))[0]
            # And for nobody else.
            assert "fwd=uri-miss" in (await get(session, path, OTHER))[0]


async def test_who_is_paging_finds_the_next_page_read(client: aiohttp.ClientSession) -> None:
    path: str | None = "/v1/feeds/timeline?limit=9&columns=id"
    statuses = []
    seen: list[int] = []
    for _ in range(8):
        assert path is not None
        async with client.get(path, headers=bearer(OTHER)) as answer:
            statuses.append(answer.headers["Cache-Status"])
            seen += [row["id"] for row in await answer.json()]
            link = answer.links.get("next")
            path = str(URL(link["url"]).relative()) if link else None
        await until_read_ahead(client, "timeline", len(statuses) - 1)
    assert len(set(seen)) == len(seen)
    assert sum("; hit;" in status for status in statuses[2:]) >= 5
    told = (await figures(client))["datasets"]["timeline"]["prefetches"]
    assert told["used"] >= 5


async def until_read_ahead(session: aiohttp.ClientSession, dataset: str, pages: int) -> None:
    """Waits for so many pages that were read ahead; a while alone, for not every chance is taken.

    What was read is counted once it is there for who asks for it.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(5):
            while (await figures(session))["datasets"][dataset]["prefetches"]["read"] < pages:
                await asyncio.sleep(0.02)


async def test_reading_ahead_stops_where_nobody_goes_on(world_url: str) -> None:
    """Whoever asks for one page in the middle, and never for the one behind it."""
    settings = {"FEEDSVC_CACHE__PREFETCH_PATIENCE": "0.2"}
    with serving(world_url, settings=settings) as running:
        async with aiohttp.ClientSession(running.url) as session:
            await until_it_listens(session)
            _, body = await get(session, "/v1/feeds/timeline?format=ndjson&columns=id")
            keys = [json.loads(line)["id"] for line in body.splitlines()]
            assert len(keys) > 100

            async def ask_behind(some: list[int]) -> Any:
                for number, key in enumerate(some, 1):
                    await get(session, f"/v1/feeds/timeline?limit=3&columns=id&after={key}")
                    await until_read_ahead(session, "timeline", min(number, 10))
                return await told()

            async def told() -> Any:
                return (await figures(session))["datasets"]["timeline"]["prefetches"]

            first = await ask_behind(keys[:60:4])
            async with asyncio.timeout(30):
                while first["wasted"] < 10:  # which is noticed when somebody asks
                    await asyncio.sleep(0.1)
                    await get(session, f"/v1/feeds/timeline?limit=5&columns=id&after={keys[0]}")
                    first = await told()
            assert first["used"] == 0
            then = await ask_behind(keys[62:100:2])
            assert then["read"] - first["read"] <= 2, "one of twenty chances is taken all the same"


def test_the_name_of_a_page_in_redis_shows_nobodys_data() -> None:
    class Link:
        prefix = "feedsvc"

    name = RedisStore(Link())._name('["rosewood","member",""]')  # type: ignore[arg-type]
    assert "rosewood" not in name
