"""Exports read from a real streaming standby: only what may be, and never older than promised."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

import aiohttp
import asyncpg
import pytest

from feedsvc import pools
from feedsvc.cache.snapshot import Snapshot
from feedsvc.replicas import Replicas
from feedsvc.settings import Settings
from tests.support.servers import as_login
from tests.support.service import Running, bearer, serving
from tests.support.standby import frozen, lay_out, port_of, primary_running, standby_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path

    from feedsvc.embedded import PostgresServer

LOGIN, PASSWORD = "reader", "a reader's"
BOUND = 4.0  # seconds that a standby may be behind
ROWS = 30_000

SCHEMA = f"""
CREATE ROLE {LOGIN} LOGIN PASSWORD '{PASSWORD.replace("'", "''")}';
CREATE SCHEMA app;
CREATE TABLE app.things (id int PRIMARY KEY, text text NOT NULL);
INSERT INTO app.things SELECT n, repeat('x', 400) FROM generate_series(1, {ROWS}) AS n;
CREATE TABLE app.slow_things (id int PRIMARY KEY);
INSERT INTO app.slow_things SELECT generate_series(1, 2000);
CREATE VIEW app.slow AS
    SELECT id, pg_sleep(0.002) IS NULL AS awake FROM app.slow_things ORDER BY id;
GRANT USAGE ON SCHEMA app TO {LOGIN};
GRANT SELECT ON ALL TABLES IN SCHEMA app TO {LOGIN};
"""
DATASETS = """
[things]
relation = "app.things"
key = ["id"]
shared = true
replica = true

[fresh]
relation = "app.things"
key = ["id"]
shared = true

[slow]
relation = "app.slow"
key = ["id"]
shared = true
not_null = ["id"]
replica = true
"""


@pytest.fixture(scope="module")
def primary() -> Iterator[PostgresServer]:
    with primary_running() as server:
        yield server


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("replicas") / "datasets.toml"
    file.write_text(DATASETS)
    return file


@pytest.fixture(scope="module")
async def prepared(primary: PostgresServer, datasets: Path) -> PostgresServer:
    await lay_out(primary, SCHEMA, datasets, LOGIN)
    return primary


@pytest.fixture(scope="module")
def standby(prepared: PostgresServer) -> Iterator[PostgresServer]:
    with standby_of(prepared) as server:
        yield server


def url_of(server: PostgresServer) -> str:
    return as_login(server.url(), LOGIN, PASSWORD)


@pytest.fixture(scope="module")
def service(prepared: PostgresServer, standby: PostgresServer, datasets: Path) -> Iterator[Running]:
    settings = {
        "FEEDSVC_DATABASE__REPLICAS": url_of(standby),
        "FEEDSVC_DATABASE__REPLICA_LAG": str(BOUND),
    }
    with serving(url_of(prepared), datasets=datasets, settings=settings) as running:
        yield running


@pytest.fixture
async def http(service: Running) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(service.url, headers=bearer()) as session:
        yield session


@pytest.fixture
async def writer(prepared: PostgresServer) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(prepared.url())
    yield connection
    await connection.execute(f"DELETE FROM app.things WHERE id > {ROWS}")
    await connection.close()


@pytest.fixture
async def replayer(standby: PostgresServer) -> AsyncIterator[asyncpg.Connection]:
    """A superuser's connection to the standby, which replays again when the test is over."""
    connection = await asyncpg.connect(standby.url())
    yield connection
    await connection.execute("SELECT pg_wal_replay_resume()")
    await connection.close()


@pytest.fixture(autouse=True)
async def taken_back(service: Running) -> None:
    """Each test begins with a standby that serves."""
    await until(lambda: state_is(service, "serves"), 15)


async def until(condition: Callable[[], Awaitable[object]], seconds: float) -> float:
    began = time.monotonic()
    while not await condition():
        assert time.monotonic() < began + seconds, f"not so after {seconds} s"
        await asyncio.sleep(0.02)
    return time.monotonic() - began


async def replica(service: Running) -> dict[str, Any]:
    url = f"{service.url}/api/performance/pools"
    async with aiohttp.request("GET", url, headers=bearer(role="admin")) as answer:
        (only,) = (await answer.json())["replicas"]
        return dict(only)


async def state_is(service: Running, *states: str) -> bool:
    return (await replica(service))["state"] in states


async def ids(http: aiohttp.ClientSession, path: str) -> list[int]:
    async with http.get(path) as answer:
        assert answer.status == 200
        return [json.loads(line)["id"] for line in (await answer.text()).splitlines()]


async def served_by_standby(service: Running) -> int:
    """How many exports the standby has served."""
    told = (await replica(service))["pools"]
    return sum(pool["leases"][kind]["count"] for pool in told for kind in ("small", "large"))


async def test_an_export_is_read_from_the_standby_and_a_page_is_not(
    service: Running, http: aiohttp.ClientSession
) -> None:
    before = await served_by_standby(service)
    assert await ids(http, "/v1/feeds/things?format=ndjson&columns=id") == [*range(1, ROWS + 1)]
    assert await served_by_standby(service) == before + 1
    for path in (
        "/v1/feeds/things?format=ndjson&columns=id&limit=50",
        "/v1/feeds/things?format=ndjson&columns=id&limit=2000",
        f"/v1/feeds/things?format=ndjson&columns=id&after={ROWS - 100}",
        "/v1/feeds/fresh?format=ndjson&columns=id",
    ):
        assert await ids(http, path)
    async with http.get("/v1/feeds/things?format=sse&columns=id") as answer:
        assert (await answer.read()).count(b"event: end") == 1
    assert await served_by_standby(service) == before + 1


async def test_a_standby_behind_the_bound_is_left_and_taken_back(
    service: Running,
    http: aiohttp.ClientSession,
    writer: asyncpg.Connection,
    replayer: asyncpg.Connection,
) -> None:
    await replayer.execute("SELECT pg_wal_replay_pause()")
    await writer.execute(f"INSERT INTO app.things VALUES ({ROWS + 1}, 'new')")
    wrote = time.monotonic()
    export = "/v1/feeds/things?format=ndjson&columns=id"
    assert len(await ids(http, export)) == ROWS, "it was not read from the standby"
    while time.monotonic() < wrote + BOUND + 2:
        asked = time.monotonic()
        missed = ROWS + 1 not in await ids(http, export)
        assert not missed or asked < wrote + BOUND, "older than promised"
        await asyncio.sleep(0.1)
    assert await state_is(service, "lags")
    await replayer.execute("SELECT pg_wal_replay_resume()")
    await until(lambda: state_is(service, "serves"), 5)
    assert ROWS + 1 in await ids(http, export)


async def test_what_a_standby_showed_never_enters_the_cache(
    http: aiohttp.ClientSession, writer: asyncpg.Connection, replayer: asyncpg.Connection
) -> None:
    """Nothing of it is shown once the standby has caught up, and PostgreSQL has long told."""
    await replayer.execute("SELECT pg_wal_replay_pause()")
    await writer.execute("UPDATE app.things SET text = 'changed' WHERE id = 1")
    full = "/v1/feeds/things?format=ndjson"
    async with http.get(full) as answer:
        first = json.loads(await answer.content.readline())
        assert first["text"].startswith("xxx"), "it was not read from the standby"
        await answer.read()
    written = await writer.fetchval("SELECT pg_current_wal_insert_lsn()::text")
    await replayer.execute("SELECT pg_wal_replay_resume()")
    await until(lambda: has_replayed(replayer, written), 60)
    for _ in range(3):
        async with http.get(full) as answer:
            assert json.loads(await answer.content.readline())["text"] == "changed"
            await answer.read()
    await writer.execute("UPDATE app.things SET text = repeat('x', 400) WHERE id = 1")


async def has_replayed(replayer: asyncpg.Connection, position: str) -> bool:
    asked = "SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn"
    return bool(await replayer.fetchval(asked, position))


async def test_why_a_standbys_snapshot_is_no_version(
    prepared: PostgresServer, replayer: asyncpg.Connection, writer: asyncpg.Connection
) -> None:
    """A transaction that runs on the primary would count as seen: the reason for all the care."""
    other = await asyncpg.connect(prepared.url())
    transaction = other.transaction()
    await transaction.start()
    await other.execute(f"INSERT INTO app.things VALUES ({ROWS + 7}, 'not committed')")
    running = await other.fetchval("SELECT pg_current_xact_id()::text::bigint")
    await writer.execute(f"INSERT INTO app.things VALUES ({ROWS + 8}, 'committed')")
    written = await writer.fetchval("SELECT pg_current_wal_insert_lsn()::text")
    await until(lambda: has_replayed(replayer, written), 60)
    sql = "SELECT pg_current_snapshot()::text"
    there = Snapshot.parse(await writer.fetchval(sql))
    here = Snapshot.parse(await replayer.fetchval(sql))
    await transaction.rollback()
    await other.close()
    assert not there.sees(running)
    assert here.running == frozenset()


@pytest.mark.parametrize("how", ["terminated", "frozen"])
async def test_an_export_goes_on_at_the_primary_when_its_standby_fails(
    service: Running, standby: PostgresServer, replayer: asyncpg.Connection, how: str
) -> None:
    url = f"{service.url}/v1/feeds/slow?format=ndjson"
    async with (
        aiohttp.ClientSession(headers=bearer()) as session,
        session.get(url) as answer,
    ):
        first = await answer.content.readline()
        assert json.loads(first)["id"] == 1
        if how == "terminated":
            await replayer.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'feedsvc bulk'"
            )
            rest = await answer.text()
        else:
            with frozen(standby):
                rest = await answer.text()
    read = [1, *(json.loads(line)["id"] for line in rest.splitlines())]
    assert read == [*range(1, 2_001)]


async def test_a_standby_that_dies_is_left_and_taken_back(
    service: Running, http: aiohttp.ClientSession, standby: PostgresServer
) -> None:
    standby.stop("kill")
    export = "/v1/feeds/things?format=ndjson&columns=id"
    assert len(await ids(http, export)) == ROWS
    await until(lambda: state_is(service, "away"), 2)
    assert len(await ids(http, export)) == ROWS
    await asyncio.to_thread(standby.start)
    await until(lambda: state_is(service, "serves"), 10)


async def test_while_the_primary_is_silent_no_standby_is_trusted(
    service: Running, prepared: PostgresServer
) -> None:
    with frozen(prepared):
        await until(lambda: is_unusable(service), BOUND + 3)


async def is_unusable(service: Running) -> bool:
    return not await state_is(service, "serves")


async def test_of_several_hosts_the_primary_is_found(
    prepared: PostgresServer, standby: PostgresServer
) -> None:
    there = f"127.0.0.1:{port_of(standby.url())},127.0.0.1:{port_of(prepared.url())}"
    url = url_of(prepared).replace(f"127.0.0.1:{port_of(prepared.url())}", there)
    settings = Settings.model_validate({"database": {"url": url}})
    connection = await pools.connect(settings.database, application_name="a test")
    assert not await connection.fetchval("SELECT pg_is_in_recovery()")
    await connection.close()
    made = pools.Pools(settings)
    await made.open()
    async with made["write"].lease() as leased:
        assert not await leased.fetchval("SELECT pg_is_in_recovery()")
    await made.close(1.0)


async def test_a_login_that_nothing_binds_is_not_read_with(
    prepared: PostgresServer, standby: PostgresServer
) -> None:
    for url, fault in (
        (standby.url(), "superuser"),
        (url_of(prepared), "no standby"),
    ):
        replicas = Replicas(
            Settings.model_validate({"database": {"url": url_of(prepared), "replicas": [url]}})
        )
        await replicas.open()
        try:
            await replicas.look()
            (only,) = replicas.all
            assert only.state == "unfit"
            assert fault in str(only.fault)
            assert replicas.choose("bulk") is None
        finally:
            await replicas.close(1.0)
