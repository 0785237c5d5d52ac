"""The audit log: who read what, when, from where, and what was refused; held back, never forged."""

import asyncio
import hashlib
import itertools
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import asyncpg
import pytest
from yarl import URL

from feedsvc.backends.postgres.pool import PoolSet
from feedsvc.core.events import RequestEnded
from feedsvc.core.principal import Principal
from feedsvc.operations import audit
from feedsvc.operations.audit import AuditLog
from feedsvc.settings import Audit, Database, Settings
from tests.support.narrow import narrow_session
from tests.support.servers import LOGIN
from tests.support.service import NO_REDIS, Running, bearer, serving

FEED = "/v1/feeds/clients"


@pytest.fixture(scope="module")
def audited(world_url: str) -> Iterator[Running]:
    settings = {
        "FEEDSVC_SERVER__SEND_BUFFER": "16384",
        "FEEDSVC_SERVER__TRUSTED_PROXIES": "127.0.0.1",
    }
    with serving(world_url, settings=settings) as running:
        yield running


@pytest.fixture
async def client(audited: Running) -> AsyncIterator[aiohttp.ClientSession]:
    async with narrow_session(audited.url) as session:
        yield session


async def entry(world: asyncpg.Connection, request_id: str) -> dict[str, Any]:
    """The one entry of this request, once it is written."""
    async with asyncio.timeout(60):
        while True:
            rows = await world.fetch(
                "SELECT * FROM feedsvc.audit WHERE request_id = $1", request_id
            )
            if rows:
                (row,) = rows
                return dict(row)
            await asyncio.sleep(0.05)


async def test_a_read_says_who_what_when_where_and_how_much(
    client: aiohttp.ClientSession, world: asyncpg.Connection
) -> None:
    headers = bearer(role="admin", subject="ann@example.org")
    headers |= {"X-Request-ID": "audit-read", "X-Forwarded-For": "203.0.113.7"}
    path = f"{FEED}?format=ndjson&columns=id&status.in=booked,planning"
    async with client.get(path, headers=headers) as answer:
        body = await answer.read()
    found = await entry(world, "audit-read")
    assert abs(found["at"].timestamp() - time.time()) < 20
    expected = {
        "result": "complete", "why": None, "method": "GET", "route": "/v1/feeds/{dataset}",
        "status": 200, "tenant": "rosewood", "role": "admin", "client": None,
        "subject": "ann@example.org", "dataset": "clients", "format": "ndjson",
        "query": path.partition("?")[2], "rows": body.count(b"\n"), "bytes": len(body),
    }  # fmt: skip
    assert {name: found[name] for name in expected} == expected
    assert str(found["address"]) == "203.0.113.7"


async def test_a_page_a_row_the_catalogue_and_a_ticket(
    client: aiohttp.ClientSession, world: asyncpg.Connection
) -> None:
    key = await world.fetchval(
        "SELECT id FROM wedding.clients WHERE tenant_id = 'rosewood' LIMIT 1"
    )
    asked = {
        "audit-page": (FEED + "?limit=3", 3),
        "audit-row": (f"{FEED}/{key}", 1),
        "audit-catalogue": ("/v1/feeds", 0),
        "audit-head": (FEED, 0),
    }
    for name, (path, rows) in asked.items():
        method = "HEAD" if name == "audit-head" else "GET"
        async with client.request(method, path, headers={**bearer(), "X-Request-ID": name}):
            pass
        found = await entry(world, name)
        assert (found["result"], found["rows"], found["tenant"]) == ("complete", rows, "rosewood")
        queries = {"audit-page": "limit=3", "audit-row": f"key={key}"}
        assert found["query"] == queries.get(name, "")
    headers = {**bearer(), "X-Request-ID": "audit-ticket"}
    async with client.post("/v1/tickets", json={"path": FEED}, headers=headers) as answer:
        ticket = (await answer.json())["ticket"]
    assert (await entry(world, "audit-ticket"))["route"] == "/v1/tickets"
    parameters = {"limit": "1", "ticket": ticket}
    async with client.get(FEED, params=parameters, headers={"X-Request-ID": "by-ticket"}):
        pass
    found = await entry(world, "by-ticket")
    assert (found["tenant"], found["query"]) == ("rosewood", "limit=1")
    everything = await world.fetchval("SELECT string_agg(a::text, ' ') FROM feedsvc.audit a")
    assert ticket not in everything


async def test_every_refusal(client: aiohttp.ClientSession, world: asyncpg.Connection) -> None:
    couple = bearer(client="1")
    asked: dict[str, tuple[str, dict[str, str], int, str]] = {
        "refused-401": (FEED, {"Authorization": "Bearer forged"}, 401, "unauthorized"),
        "refused-403": ("/v1/feeds/analytics", couple, 403, "forbidden"),
        "refused-404": ("/v1/feeds/nothing", bearer(), 404, "not-found"),
        "refused-400": (f"{FEED}?tenant_id=atelier-blanc", bearer(), 400, "bad-parameter"),
        "refused-406": (FEED, {**bearer(), "Accept": "image/png"}, 406, "not-acceptable"),
    }
    for name, (path, headers, status, why) in asked.items():
        async with client.get(path, headers={**headers, "X-Request-ID": name}) as answer:
            assert answer.status == status
        found = await entry(world, name)
        assert (found["result"], found["status"], found["why"]) == ("refused", status, why)
        assert found["tenant"] == (None if status == 401 else "rosewood")
        query = path.partition("?")[2]
        assert found["query"] == (None if status == 401 else query), "what was refused is kept"
        assert str(found["address"]) == "127.0.0.1"


async def test_the_filter_is_kept_and_no_secret_is(
    client: aiohttp.ClientSession, world: asyncpg.Connection
) -> None:
    """A row's key, where a stream went on, both ends of a long query; no token, anywhere."""
    stray = bearer()["Authorization"][7:]
    many = ",".join(map(str, range(100_000_000, 100_000_550)))
    long = f"{FEED}?limit=3&id.in={many},100000007"
    asked: dict[str, tuple[str, dict[str, str], str]] = {
        "kept-row": (f"{FEED}/1%2C2?columns=id", {}, "key=1%2C2&columns=id"),
        "kept-place": (
            f"{FEED}?format=sse&limit=3",
            {"Last-Event-ID": "100000001"},
            "format=sse&limit=3&Last-Event-ID=100000001",
        ),
        "kept-token": (f"{FEED}?limit=3&access_token={stray}", {}, "limit=3"),
        "kept-strange": (f"{FEED}?limit=3&x={stray}", {}, "limit=3&x=[token]"),
    }
    for name, (path, more, query) in asked.items():
        headers = {**bearer(), "X-Request-ID": name, **more}
        async with client.get(URL(path, encoded=True), headers=headers):
            pass
        assert (await entry(world, name))["query"] == query
    async with client.get(long, headers={**bearer(), "X-Request-ID": "kept-long"}) as answer:
        assert answer.status == 200
    query = long.partition("?")[2]
    found = (await entry(world, "kept-long"))["query"]
    assert len(found) < 4_200
    assert found.startswith(query[:2_000])
    assert found.endswith(query[-900:])
    assert hashlib.sha256(query.encode()).hexdigest() in found
    everything = await world.fetchval("SELECT string_agg(a::text, ' ') FROM feedsvc.audit a")
    assert stray not in everything


async def test_what_an_operator_does_is_kept(
    client: aiohttp.ClientSession, world: asyncpg.Connection
) -> None:
    operator = bearer(operator=True, subject="olga")
    silence = {"alert": "slow", "for": "0s", "reason": "a test of the log"}
    asked: dict[str, tuple[str, str, object, str]] = {
        "did-cache": ("POST", "cache/invalidate", {"tags": ["a:b", "c"]}, "tags=a%3Ab%2Cc"),
        "did-silence": (
            "POST", "alerts/silences", silence, "alert=slow&for=0s&reason=a+test+of+the+log",
        ),
        "did-look": ("GET", "metrics?range=24h", None, "range=24h"),
    }  # fmt: skip
    for name, (method, path, body, query) in asked.items():
        headers = {**operator, "X-Request-ID": name}
        async with client.request(
            method, f"/api/performance/{path}", json=body, headers=headers
        ) as answer:
            assert answer.status < 300
        found = await entry(world, name)
        assert (found["subject"], found["query"]) == ("olga", query)


async def test_a_stream_that_broke_off(
    client: aiohttp.ClientSession, world: asyncpg.Connection
) -> None:
    headers = {**bearer(), "X-Request-ID": "audit-gone"}
    answer = await client.get(FEED, headers=headers)
    await answer.content.readany()
    answer.close()
    found = await entry(world, "audit-gone")
    assert found["result"] == "cancelled"
    assert 0 < found["rows"] <= 3_000

    kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1 "
    kill += "AND datname = current_database() AND query ~ 'clients'"
    for attempt in itertools.count():
        headers = {**bearer(), "X-Request-ID": f"audit-killed-{attempt}"}
        headers["Accept"] = "text/event-stream"
        async with client.get(FEED, headers=headers) as answer:
            await answer.content.readany()
            if not await world.fetch(kill, LOGIN):  # it is parked already
                await answer.read()
                continue
            with pytest.raises(aiohttp.ClientPayloadError):
                await answer.read()
            break
    found = await entry(world, f"audit-killed-{attempt}")
    assert (found["result"], found["why"]) == ("failed", "database-unavailable")


async def test_only_the_operator_reads_or_changes_it(
    client: aiohttp.ClientSession, world: asyncpg.Connection, world_url: str
) -> None:
    login = await asyncpg.connect(world_url)
    for statement in ("SELECT * FROM", "DELETE FROM", "TRUNCATE"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await login.execute(f"{statement} feedsvc.audit")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await login.execute("UPDATE feedsvc.audit SET tenant = 'x'")
    await login.close()


async def test_an_orderly_stop_loses_nothing(world_url: str, world: asyncpg.Connection) -> None:
    with serving(world_url) as running:
        few = aiohttp.TCPConnector(limit=16)
        async with aiohttp.ClientSession(running.url, connector=few) as session:

            async def ask(number: int) -> None:
                headers = {**bearer(), "X-Request-ID": f"orderly-{number}"}
                async with session.get(FEED + "?limit=1", headers=headers) as answer:
                    assert answer.status == 200

            await asyncio.gather(*(ask(number) for number in range(700)))
            running.terminate()
            await asyncio.to_thread(running.process.wait, 20)
    sql = "SELECT count(*) FROM feedsvc.audit WHERE request_id LIKE 'orderly-%'"
    assert await world.fetchval(sql) == 700


@asynccontextmanager
async def audit_log(url: str, **settings: Any) -> AsyncIterator[AuditLog]:
    """An audit log over the service's own pool."""
    whole = Settings(database=Database(url=url))
    pools = PoolSet(whole)
    await pools.open()
    try:
        yield AuditLog(pools["write"], Audit(**settings))
    finally:
        await pools.close(1.0)


def ended(request_id: str, principal: Principal | None, **more: Any) -> RequestEnded:
    given: dict[str, Any] = {
        "at": time.time(), "request_id": request_id, "method": "GET", "route": "/r",
        "guarded": True, "status": 200, "result": "complete", "why": None, "seconds": 0.001,
        "first_byte": 0.001, "stages": {},
        "address": "::1", "principal": principal, "dataset": "d", "format": "json", "query": "q",
        "rows": 1, "size": 2,
    }  # fmt: skip
    return RequestEnded(**{**given, **more})


ANN = Principal("rosewood", "member", None, 0.0)


async def test_while_postgresql_is_slow_so_many_wait_and_the_rest_is_counted(
    world_url: str, world: asyncpg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    async with audit_log(world_url, most_waiting=100) as log:
        async with world.transaction():
            await world.execute("LOCK feedsvc.audit IN ACCESS EXCLUSIVE MODE")
            for number in range(1_000):
                address = f"2001:db8::{number:x}"  # each with an entry of its own
                flood = ended(f"flood-{number}", None, status=401, result="refused")
                log.observe(flood._replace(address=address))
            for number in range(90):
                log.observe(ended(f"slow-{number}", ANN))
            writing = asyncio.create_task(log.run())
            waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = $1::regclass"
            async with asyncio.timeout(30):
                while not await world.fetchval(waits, "feedsvc.audit"):
                    await asyncio.sleep(0.05)
            assert not writing.done()
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        await log.close()
    count = "SELECT count(*) FROM feedsvc.audit WHERE request_id LIKE $1"
    assert await world.fetchval(count, "slow-%") >= 75, "who had no token pushed them out"
    assert await world.fetchval(count, "flood-%") <= 26
    dropped = await world.fetchval(
        "SELECT sum(rows)::int FROM feedsvc.audit WHERE result = 'dropped'"
    )
    written = await world.fetchval(count, "slow-%") + await world.fetchval(count, "flood-%")
    assert written + dropped == 1_090
    assert "were dropped" in caplog.text


async def test_refusals_without_a_token_are_one_entry_and_a_count_for_an_address_and_minute(
    world_url: str, world: asyncpg.Connection
) -> None:
    async with audit_log(world_url) as log:
        begun = 1_800_000_000.0
        for second in range(90):
            for address in ("192.0.2.1", "192.0.2.2"):
                refused = ended(f"f-{address}-{second}", None, status=401, result="refused")
                log.observe(refused._replace(address=address, at=begun + second))
        log.observe(ended("named", ANN, status=403, result="refused", at=begun))
        await log.close()
    sql = "SELECT at, request_id, query FROM feedsvc.audit WHERE address = $1 ORDER BY at, query"
    for address in ("192.0.2.1", "192.0.2.2"):
        found = await world.fetch(sql, address)
        assert [(row["at"].timestamp() - begun, row["request_id"]) for row in found] == [
            (0, f"f-{address}-0"), (0, None), (60, f"f-{address}-60"), (60, None),
        ]  # fmt: skip
        assert [row["query"] for row in found if row["request_id"] is None] == [
            "requests=59", "requests=29",
        ]  # fmt: skip
    named = "SELECT count(*) FROM feedsvc.audit WHERE request_id = 'named'"
    assert await world.fetchval(named) == 1


async def test_an_entry_that_is_sent_twice_is_written_once(
    world_url: str, world: asyncpg.Connection
) -> None:
    async with audit_log(world_url) as log:
        log.observe(ended("twice", ANN))
        values = await log.outbox._next_batch()
        await world.execute(audit._WRITE, *values)
        assert await log.outbox.write()
    assert (
        await world.fetchval("SELECT count(*) FROM feedsvc.audit WHERE request_id = 'twice'") == 1
    )


async def test_nothing_that_can_be_asked_stops_the_log(
    world_url: str, world: asyncpg.Connection
) -> None:
    async with audit_log(world_url) as log:
        for number, query in enumerate(("\0", "\ud800", "\u2028'\"\\", "x" * 100_000)):
            log.observe(ended(f"odd-{number}", ANN, query=query))
        log.observe(ended("no address", ANN, address=None))
        log.observe(ended("mad address", ANN, address="nowhere"))  # can't be, and must not block
        assert await log.outbox.write()
        log.observe(ended("after", ANN))
        assert await log.outbox.write()
        assert not log.outbox.waiting
    assert (
        await world.fetchval("SELECT count(*) FROM feedsvc.audit WHERE request_id = 'after'") == 1
    )


async def test_a_database_without_the_table_is_served_all_the_same(
    world_url: str, world: asyncpg.Connection
) -> None:
    await world.execute("ALTER TABLE feedsvc.audit RENAME TO elsewhere")
    try:
        async with audit_log(world_url) as log:
            log.observe(ended("no table", ANN))
            assert not await log.outbox.write()
            await world.execute("ALTER TABLE feedsvc.elsewhere RENAME TO audit")
            assert await log.outbox.write()
    finally:
        if await world.fetchval("SELECT to_regclass('feedsvc.elsewhere')"):
            await world.execute("ALTER TABLE feedsvc.elsewhere RENAME TO audit")


async def test_the_log_is_written_while_tickets_have_every_connection(
    world_url: str, world: asyncpg.Connection
) -> None:
    settings = {**NO_REDIS, "FEEDSVC_POOLS__WRITE__SIZE": "1"}
    with serving(world_url, settings=settings) as running:
        async with aiohttp.ClientSession(running.url) as http:

            async def buy() -> int:
                async with http.post("/v1/tickets", json={"path": FEED}, headers=bearer()) as got:
                    return got.status

            async with world.transaction():
                await world.execute("LOCK feedsvc.tickets IN ACCESS EXCLUSIVE MODE")
                buying = [asyncio.create_task(buy()) for _ in range(3)]
                other = await asyncpg.connect(world_url)
                waits = "SELECT count(*) FROM pg_locks WHERE NOT granted"
                try:
                    async with asyncio.timeout(60):
                        while not await other.fetchval(waits):
                            await asyncio.sleep(0.05)
                finally:
                    await other.close()
                headers = {**bearer(), "X-Request-ID": "beside-tickets"}
                async with http.get(f"{FEED}?limit=1", headers=headers) as answer:
                    assert answer.status == 200
                assert (await entry(world, "beside-tickets"))["result"] == "complete"
                assert not all(task.done() for task in buying)
            await asyncio.gather(*buying)
