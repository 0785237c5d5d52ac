"""Exports read from a real streaming standby: only what may be, and never older than promised."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any, TypeVar

import aiohttp
import asyncpg
import pytest

from feedsvc.backends.postgres import pool as pools
from feedsvc.backends.postgres.replicas import Replicas
from feedsvc.backends.postgres.snapshot import Snapshot
from feedsvc.settings import Settings
from tests.support.servers import as_login
from tests.support.service import Running, bearer, serving
from tests.support.standby import Replicated, frozen, port_of, replicated

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path

    from feedsvc.commands.demo.embedded import PostgresServer

Read = TypeVar("Read")

LOGIN, PASSWORD = "reader", "a reader's"
BOUND = 4.0  # seconds that a standby may be behind
ROWS = 30_000
DEADLINE = 60  # seconds that a loaded machine has for whatever is waited for

SCHEMA = f"""
CREATE ROLE {LOGIN} LOGIN PASSWORD '{PASSWORD.replace("'", "''")}';
CREATE SCHEMA app;
CREATE TABLE app.things (id int PRIMARY KEY, text text NOT NULL);
INSERT INTO app.things SELECT n, repeat('x', 400) FROM generate_series(1, {ROWS}) AS n;
CREATE TABLE app.slow_things (id int PRIMARY KEY);
INSERT INTO app.slow_things SELECT generate_series(1, 2000);
CREATE VIEW app.slow AS
    SELECT id, pg_sleep(0.002) IS NULL AS awake FROM app.slow_things ORDER BY id;
CREATE VIEW app.slow_there AS
    SELECT id,
        pg_sleep(CASE WHEN pg_is_in_recovery() AND id > 500 THEN 0.2 ELSE 0 END) IS NULL AS awake
    FROM app.slow_things ORDER BY id;
CREATE TABLE app.swept (id int);
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

[slow_there]
relation = "app.slow_there"
key = ["id"]
shared = true
not_null = ["id"]
replica = true
"""


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("replicas") / "datasets.toml"
    file.write_text(DATASETS)
    return file


@pytest.fixture(scope="module")
async def servers(datasets: Path) -> AsyncIterator[Replicated]:
    async with replicated(SCHEMA, datasets, LOGIN) as both:
        yield both


@pytest.fixture(scope="module")
def prepared(servers: Replicated) -> PostgresServer:
    return servers.primary


@pytest.fixture(scope="module")
def standby(servers: Replicated) -> PostgresServer:
    return servers.standby


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
    await until(lambda: state_is(service, "serves"))


async def until(condition: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not await condition():
            await asyncio.sleep(0.02)


async def replica(service: Running) -> dict[str, Any]:
    url = f"{service.url}/api/performance/pools"
    async with aiohttp.request("GET", url, headers=bearer(role="admin")) as answer:
        (only,) = (await answer.json())["replicas"]
        return dict(only)


async def state_is(service: Running, *states: str) -> bool:
    return (await replica(service))["state"] in states


async def ids(http: aiohttp.ClientSession, path: str, **headers: str) -> list[int]:
    async with http.get(path, headers=headers) as answer:
        assert answer.status == 200, await answer.text()
        return [json.loads(line)["id"] for line in (await answer.text()).splitlines()]


async def served_by_standby(service: Running) -> int:
    """The number of exports that the standby has served."""
    reported = (await replica(service))["pools"]
    return sum(pool["leases"][kind]["count"] for pool in reported for kind in ("small", "large"))


async def from_the_standby(service: Running, read: Callable[[], Awaitable[Read]]) -> Read:
    """The result of the first round that the standby answers.

    A loaded machine leaves it for a moment, and the primary answers in its place.
    """
    async with asyncio.timeout(DEADLINE):
        while True:
            await until(lambda: state_is(service, "serves"))
            before = await served_by_standby(service)
            found = await read()
            if await served_by_standby(service) == before + 1:
                return found


async def test_an_export_is_read_from_the_standby_and_a_page_is_not(
    service: Running, http: aiohttp.ClientSession
) -> None:
    export = "/v1/feeds/things?format=ndjson&columns=id"
    past_the_cache = {"Cache-Control": "no-cache"}  # where the primary's rows of a round would be
    found = await from_the_standby(service, lambda: ids(http, export, **past_the_cache))
    assert found == [*range(1, ROWS + 1)]
    before = await served_by_standby(service)
    for path in (
        "/v1/feeds/things?format=ndjson&columns=id&limit=50",
        "/v1/feeds/things?format=ndjson&columns=id&limit=2000",
        f"/v1/feeds/things?format=ndjson&columns=id&after={ROWS - 100}",
        "/v1/feeds/fresh?format=ndjson&columns=id",
    ):
        assert await ids(http, path)
    async with http.get("/v1/feeds/things?format=sse&columns=id") as answer:
        assert (await answer.read()).count(b"event: end") == 1
    assert await served_by_standby(service) == before


@pytest.mark.parametrize("commit", ["on", "off"])
async def test_a_standby_behind_the_bound_is_left_and_taken_back(
    service: Running,
    http: aiohttp.ClientSession,
    writer: asyncpg.Connection,
    replayer: asyncpg.Connection,
    commit: str,
) -> None:
    """With `synchronous_commit = off` the bound counts from when the commit was made durable."""
    await writer.execute(f"SET synchronous_commit = {commit}")
    export = "/v1/feeds/things?format=ndjson&columns=id"

    async def write_and_read() -> tuple[int, float, list[int]]:
        await is_level(writer, replayer)
        await pause(replayer)
        new = await writer.fetchval(
            "INSERT INTO app.things SELECT max(id) + 1, 'new' FROM app.things RETURNING id"
        )
        written = await writer.fetchval("SELECT pg_current_wal_insert_lsn()::text")
        await until(lambda: is_durable(writer, written))
        return new, time.monotonic(), await ids(http, export)

    new, wrote, found = await from_the_standby(service, write_and_read)
    assert new not in found
    read_late = 0
    async with asyncio.timeout(DEADLINE):
        while read_late < 5:
            asked = time.monotonic()
            missed = new not in await ids(http, export)
            assert not missed or asked < wrote + BOUND, "older than promised"
            read_late += asked >= wrote + BOUND
            await asyncio.sleep(0.1)
    await until(lambda: state_is(service, "lags"))
    await replayer.execute("SELECT pg_wal_replay_resume()")
    await until(lambda: state_is(service, "serves"))
    assert new in await ids(http, export)


async def pause(replayer: asyncpg.Connection) -> None:
    """Stop the standby's replay; to ask for it is not to have it."""

    async def has_paused() -> bool:
        return bool(await replayer.fetchval("SELECT pg_get_wal_replay_pause_state() = 'paused'"))

    await replayer.execute("SELECT pg_wal_replay_pause()")
    await until(has_paused)


async def is_level(writer: asyncpg.Connection, replayer: asyncpg.Connection) -> None:
    """Let the standby replay all that the primary has written."""
    await replayer.execute("SELECT pg_wal_replay_resume()")
    written = await writer.fetchval("SELECT pg_current_wal_insert_lsn()::text")
    await until(lambda: has_replayed(replayer, written))


async def is_durable(writer: asyncpg.Connection, position: str) -> bool:
    asked = "SELECT pg_current_wal_flush_lsn() >= $1::text::pg_lsn"
    return bool(await writer.fetchval(asked, position))


async def test_what_a_standby_showed_never_enters_the_cache(
    prepared: PostgresServer,
    service: Running,
    http: aiohttp.ClientSession,
    writer: asyncpg.Connection,
    replayer: asyncpg.Connection,
) -> None:
    """Nor what it shows as seen: a change that is not committed yet, see the next test."""

    async def first_text() -> str:
        async with http.get("/v1/feeds/things?format=ndjson") as answer:
            first = json.loads(await answer.content.readline())
            await answer.read()
            return str(first["text"])

    async def read_and_write() -> tuple[str, str]:
        written = f"changed {time.monotonic_ns()}"
        async with other.transaction():
            await other.execute("UPDATE app.things SET text = $1 WHERE id = 1", written)
            await writer.execute("INSERT INTO app.things SELECT max(id) + 1, 'new' FROM app.things")
            await is_level(writer, replayer)
            found = await first_text()
        return written, found

    other = await asyncpg.connect(prepared.url())
    try:
        written, found = await from_the_standby(service, read_and_write)
        assert found != written
        await is_level(writer, replayer)
        for _ in range(3):
            assert await first_text() == written
    finally:
        await other.execute("UPDATE app.things SET text = repeat('x', 400) WHERE id = 1")
        await other.close()


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
    await is_level(writer, replayer)
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
    assert await from_the_standby(
        service, lambda: read_while_it_fails(service, standby, replayer, how)
    ) == [*range(1, 2_001)]


async def read_while_it_fails(
    service: Running, standby: PostgresServer, replayer: asyncpg.Connection, how: str
) -> list[int]:
    """The ids of a slow export whose standby fails behind the first row."""
    url = f"{service.url}/v1/feeds/slow?format=ndjson"
    async with (
        aiohttp.ClientSession(headers=bearer()) as session,
        session.get(url, headers={"Cache-Control": "no-cache"}) as answer,
    ):
        first = json.loads(await answer.content.readline())
        if how == "terminated":
            await replayer.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'feedsvc bulk'"
            )
            rest = await answer.text()
        else:
            with frozen(standby):
                rest = await answer.text()
    return [first["id"], *(json.loads(line)["id"] for line in rest.splitlines())]


async def test_an_export_goes_on_at_the_primary_when_replay_cancels_it(
    service: Running, writer: asyncpg.Connection, replayer: asyncpg.Connection
) -> None:
    """A query on the standby could still see what VACUUM removes: replay won't wait for it."""
    await replayer.execute("ALTER SYSTEM SET max_standby_streaming_delay = 0")
    await replayer.execute("SELECT pg_reload_conf()")
    cancelled = (
        "SELECT confl_snapshot FROM pg_stat_database_conflicts WHERE datname = current_database()"
    )
    before = await replayer.fetchval(cancelled)

    async def read_while_swept() -> list[int]:
        """On the standby it would last for minutes, so it ends when it is cancelled there."""
        path = f"{service.url}/v1/feeds/slow_there?format=ndjson"
        async with aiohttp.ClientSession(headers=bearer()) as session:
            reading = asyncio.create_task(ids(session, path))
            while not reading.done():
                await writer.execute("INSERT INTO app.swept VALUES (1)")
                await writer.execute("DELETE FROM app.swept")
                await writer.execute("VACUUM app.swept")
                await asyncio.wait({reading}, timeout=0.1)
            return await reading

    try:
        assert await from_the_standby(service, read_while_swept) == [*range(1, 2_001)]
    finally:
        await replayer.execute("ALTER SYSTEM RESET max_standby_streaming_delay")
        await replayer.execute("SELECT pg_reload_conf()")

    async def is_counted() -> bool:
        return bool(await replayer.fetchval(cancelled) > before)

    await until(is_counted)


async def test_a_standby_that_dies_is_left_and_taken_back(
    service: Running, http: aiohttp.ClientSession, standby: PostgresServer
) -> None:
    standby.stop("kill")
    export = "/v1/feeds/things?format=ndjson&columns=id"
    assert len(await ids(http, export)) == ROWS
    await until(lambda: state_is(service, "away"))
    assert len(await ids(http, export)) == ROWS
    await asyncio.to_thread(standby.start)
    await until(lambda: state_is(service, "serves"))


async def test_while_the_primary_is_silent_no_standby_is_trusted(
    service: Running, prepared: PostgresServer
) -> None:
    with frozen(prepared):
        await until(lambda: is_unusable(service))


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
    made = pools.PoolSet(settings)
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
