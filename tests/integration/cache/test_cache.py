"""First pages from the cache, asked for as clients do: real PostgreSQL, real Redis, two tenants."""

import asyncio
import csv
import io
import json
from typing import Any

import aiohttp
import asyncpg

from tests.support.cache_client import (
    OTHER,
    OWN,
    PAGE,
    figures,
    get,
    until_changes_apply,
    until_log_is_read,
)
from tests.support.cache_figures import until_all_read_log
from tests.support.redis_server import RunningRedis
from tests.support.service import Running, bearer, serving


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
        async with asyncio.timeout(60), client.get(path, headers=given) as answer:
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
    await until_changes_apply(client)
    seen = [await get(client, PAGE, **who) for who in asked]
    assert ["; hit;" in status for status, _ in seen] == [False, True, False, True]
    assert "fwd=stale" in seen[0][0]
    assert b"as of now" in seen[0][1]
    assert b"as of now" in seen[2][1]
    await world.execute("UPDATE wedding.clients SET notes = NULL WHERE id = $1", int(changed))


async def test_no_caller_gets_the_page_of_another(
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
    # With a limit, for a whole export with frames has a cursor, than which no row may be older.
    path = "/v1/feeds/tasks?format=ndjson&frames=1&columns=id&limit=1000000"
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
    await until_changes_apply(client)
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
    reported = (await figures(client))["datasets"]["clients"]
    assert reported["misses"]["invalidated"] >= 1
    assert reported["hits"]["memory"] > 0
    assert reported["loads"]["count"] > 0


async def test_without_the_log_nothing_is_shown_from_the_cache(
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
    async with asyncio.timeout(60):
        while True:
            status, body = await get(client, PAGE)
            if "; hit;" not in status:
                break
    assert b"unheard" in body
    await until_log_is_read(client)
    assert b"unheard" in (await get(client, PAGE))[1]
    await world.execute("UPDATE wedding.clients SET notes = NULL WHERE tenant_id = $1", OWN)
    await until_changes_apply(client)
    assert b"unheard" not in (await get(client, PAGE))[1]


async def test_at_an_interval_of_zero_each_hit_is_as_fresh_as_a_read(
    world_url: str, world: asyncpg.Connection, redis: RunningRedis
) -> None:
    settings = {
        "FEEDSVC_CHANGES__INTERVAL": "0",
        "REDIS_URL": redis.url,
        "FEEDSVC_REDIS__PREFIX": "fresh",
    }
    # Of a few rows, for each change of a row is a line of the log.
    change = """
        UPDATE wedding.clients SET notes = $2 WHERE tenant_id = $1 AND id IN
            (SELECT id FROM wedding.clients WHERE tenant_id = $1 ORDER BY id LIMIT 10)
    """
    with serving(world_url, settings=settings, arguments=["--workers=2"]) as running:
        await until_all_read_log(running.url, 2, bearer(OWN, "admin"))
        async with aiohttp.ClientSession(running.url) as first:
            for number in range(12):
                async with world.transaction():
                    await world.execute(change, OWN, f"written {number}.")
                    # A look a moment before the commit: whatever it is good for lasts beyond that.
                    await get(first, PAGE)
                # Of either worker, for each session has connections of its own.
                async with aiohttp.ClientSession(running.url) as second:
                    for session in (first, second):
                        _, body = await get(session, PAGE)
                        written = body.count(b"written")
                        assert body.count(f"written {number}.".encode()) == written > 0
                assert "; hit;" in (await get(first, PAGE))[0]
    await world.execute("UPDATE wedding.clients SET notes = NULL WHERE tenant_id = $1", OWN)
