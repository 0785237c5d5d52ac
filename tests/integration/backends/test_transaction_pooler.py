"""PgBouncer in transaction mode, on whose server connections other clients left what they set.

Feeds behind it are in the tests that are marked `either_way`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import nullcontext, suppress

import aiohttp
import asyncpg
import pytest

from feedsvc.backends.postgres.migrations import runner
from feedsvc.backends.postgres.migrations.errors import MigrationError
from feedsvc.backends.postgres.own_schema import write_transaction
from feedsvc.backends.postgres.pool import Connection, Pool
from feedsvc.backends.postgres.sessions import SETTINGS
from feedsvc.core.principal import Principal
from feedsvc.core.problems import Busy
from feedsvc.core.timing import Stages
from feedsvc.feeds import transaction
from tests.support import pgbouncer
from tests.support.pools import pool_of
from tests.support.service import Running, bearer

pytestmark = pgbouncer.needed

CALLER = Principal("rosewood", "member", None, 0.0)
SEEN = "SELECT current_setting($1, true)"
AS_THE_LOGIN_HAS_IT = (
    "search_path", "synchronous_commit", "transform_null_equals", "lc_monetary",
    "statement_timeout", "client_encoding",
)  # fmt: skip
SET_BY_CLIENTS = """
    SELECT name || '=' || setting FROM pg_settings WHERE source = 'session' AND name NOT IN
    ('application_name', 'transaction_read_only', 'transaction_isolation', 'client_encoding',
     'statement_timeout')
    UNION ALL
    SELECT 'another.application=' || coalesce(current_setting('another.application', true), '')
    UNION ALL SELECT 'prepared ' || statement FROM pg_prepared_statements WHERE name <> ''
    ORDER BY 1
"""


@pytest.fixture(scope="module", params=[0, 100], ids=["unprepared", "prepared"])
def pooled_url(request: pytest.FixtureRequest, world_url: str) -> Iterator[str]:
    """Through a pooler that keeps no prepared statements, or as many as it is told."""
    program, more = pgbouncer.PROGRAM, ""
    if request.param:
        program = pgbouncer.that_prepares()
        more = f"max_prepared_statements = {request.param}\n"
        if program is None:
            pytest.skip("no pgbouncer here is 1.21 or later, which prepares statements")
    with pgbouncer.pooled_by_transaction(world_url, program=program, more=more) as url:
        yield url


@pytest.fixture
async def hostile_url(pooled_url: str) -> AsyncIterator[str]:
    """The same, once a neighbour has left its settings, which are to be there at the end too."""
    await pgbouncer.leave_settings(pooled_url)
    before = await left(pooled_url)
    yield pooled_url
    await still_left(pooled_url, before)
    async with pgbouncer.each_server(pooled_url) as clients:
        for client in clients:
            await client.execute("RESET ALL; DEALLOCATE ALL")


async def left(url: str) -> dict[int, list[str]]:
    """Settings and prepared statements of clients, by backend."""
    async with pgbouncer.each_server(url) as clients:
        return {
            await client.fetchval("SELECT pg_backend_pid()"): [
                row[0] for row in await client.fetch(SET_BY_CLIENTS)
            ]
            for client in clients
        }


async def still_left(url: str, before: dict[int, list[str]]) -> None:
    """Compare what is left with what was, on each backend that is still there.

    The pooler parts with a server connection on which its own statement took the millisecond of
    the neighbour's `statement_timeout`.
    """
    after = await left(url)
    kept = before.keys() & after.keys()
    assert kept
    assert {each: after[each] for each in kept} == {each: before[each] for each in kept}


@pytest.fixture
async def as_direct(world_url: str) -> dict[str, str]:
    connection = await asyncpg.connect(world_url)
    try:
        return {name: await connection.fetchval(SEEN, name) for name in AS_THE_LOGIN_HAS_IT}
    finally:
        await connection.close()


@pytest.mark.parametrize("pooler", ["auto", "transaction"])
async def test_a_transaction_has_the_services_settings(
    hostile_url: str, as_direct: dict[str, str], pooler: str
) -> None:
    expected = {**SETTINGS, "idle_in_transaction_session_timeout": "1min", **as_direct}
    expected |= {"transaction_isolation": "repeatable read", "transaction_read_only": "on"}
    expected |= {"feedsvc.tenant": "rosewood", "role": "none"}
    expected |= {"application_name": "feedsvc read"}
    async with pool_of(hostile_url, pooler=pooler) as pool:
        for _ in range(2 * pgbouncer.SERVERS):
            async with transaction.reading(pool, CALLER, Stages()) as (connection, _):
                found = {name: await connection.fetchval(SEEN, name) for name in expected}
                assert found == expected
                assert not await connection.fetchval(SEEN, "another.application")


async def test_a_lone_statement_has_them_too(hostile_url: str, as_direct: dict[str, str]) -> None:
    expected = {**as_direct, "timezone": "UTC", "transaction_read_only": "on", "jit": "off"}
    async with pool_of(hostile_url) as pool:
        for name, value in expected.items():
            async with pool.lease() as connection:
                assert await connection.fetchval(SEEN, name) == value
                assert [tuple(row) for row in await connection.fetch(SEEN, name)] == [(value,)]
                with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
                    await connection.execute("CREATE TEMP TABLE kept (a int)")


async def test_own_tables_are_written_with_them(
    hostile_url: str, as_direct: dict[str, str]
) -> None:
    expected = {**as_direct, "timezone": "UTC", "transaction_read_only": "off"}
    expected |= {"transaction_isolation": "read committed", "application_name": "feedsvc write"}
    async with pool_of(hostile_url, "write") as pool, write_transaction(pool) as connection:
        assert {name: await connection.fetchval(SEEN, name) for name in expected} == expected
        assert await connection.fetchval("SELECT pg_current_xact_id()::text") is not None


async def test_nothing_is_left_for_others(pooled_url: str) -> None:
    before = await left(pooled_url)
    async with pool_of(pooled_url) as pool, pool_of(pooled_url, "write") as writing:
        for _ in range(pgbouncer.SERVERS):
            async with pool.lease() as connection:
                assert await connection.fetchval("SELECT $1::int", 1) == 1
            async with transaction.reading(pool, CALLER, Stages()) as (connection, _):
                assert [row[0] async for row in connection.cursor("SELECT 1")] == [1]
            async with write_transaction(writing) as connection:
                await connection.fetchval(SEEN, "timezone")
    await still_left(pooled_url, before)


async def test_statements_of_others_that_are_prepared_are_not_run(pooled_url: str) -> None:
    """Several clients that name their own statements `__asyncpg_stmt_…__`, at the same time."""
    neighbours = [await asyncpg.connect(pooled_url) for _ in range(pgbouncer.SERVERS)]
    stopped = asyncio.Event()

    async def ask(neighbour: asyncpg.Connection) -> None:
        while not stopped.is_set():
            with suppress(asyncpg.PostgresError):  # their names clash with one another's
                await neighbour.fetchval("SELECT 'of a neighbour' WHERE $1 = $1", SEEN)

    async def read(pool: Pool) -> None:
        for _ in range(20):
            async with transaction.reading(pool, CALLER, Stages()) as (connection, _):
                assert await connection.fetchval("SELECT 'own' WHERE $1 = $1", SEEN) == "own"

    async with pool_of(pooled_url) as pool, asyncio.TaskGroup() as group:
        asking = [group.create_task(ask(neighbour)) for neighbour in neighbours]
        await asyncio.gather(read(pool), read(pool))
        stopped.set()
        await asyncio.gather(*asking)
    for neighbour in neighbours:
        await neighbour.close()
    async with pgbouncer.each_server(pooled_url) as clients:
        for client in clients:
            await client.execute("DEALLOCATE ALL")


async def test_settings_cost_no_round_trip(pooled_url: str) -> None:
    async with pool_of(pooled_url) as pool, pool.lease() as leased:
        sent: list[str] = []
        leased.add_query_logger(lambda query: sent.append(query.query))
        async with leased.transaction(isolation="repeatable_read", readonly=True):
            await leased.fetchval("SELECT 1")
        async with asyncio.timeout(60):
            while len(sent) < 3:
                await asyncio.sleep(0)
        assert len(sent) == 3


async def test_a_begin_that_anothers_timeout_cut_is_sent_again(
    pooled_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So is the ROLLBACK behind it, for which the timeout counts again."""
    late = ["BEGIN; SET LOCAL statement_timeout = 1; SELECT pg_sleep(60)"] * 2
    stuck = 2
    execute = asyncpg.Connection.execute

    async def cut(self: asyncpg.Connection, query: str, *args: object, **given: object) -> str:
        nonlocal stuck
        if query.startswith("ROLLBACK") and stuck:
            stuck -= 1
            raise asyncpg.QueryCanceledError("as PostgreSQL does where ROLLBACK takes so long")
        query = late.pop() if late and query.startswith("BEGIN") else query
        return await execute(self, query, *args, **given)  # type: ignore[arg-type]

    async with pool_of(pooled_url) as pool, pool.lease() as leased:
        assert await leased.fetchval("SELECT 1") == 1
        monkeypatch.setattr(asyncpg.Connection, "execute", cut)
        assert await leased.fetchval(SEEN, "statement_timeout") == "0"
        assert late == []
        assert stuck == 0


@pytest.mark.parametrize("losses", [1, 2, 3])
async def test_a_session_lost_at_its_greeting_is_opened_anew(
    world_url: str, pooled_url: str, monkeypatch: pytest.MonkeyPatch, losses: int
) -> None:
    """Twice at most. A pooler parts with its client where its own SET fails, too, which can't be
    had at will.
    """
    execute = asyncpg.Connection.execute
    greeted: list[str] = []

    async def ended(self: asyncpg.Connection, query: str, *args: object, **given: object) -> str:
        if query.startswith("BEGIN"):
            greeted.append(type(self).__name__)
            if len(greeted) <= losses:
                query = "SELECT pg_terminate_backend(pg_backend_pid())"
        return await execute(self, query, *args, **given)  # type: ignore[arg-type]

    gives_up = pytest.raises(asyncpg.ConnectionDoesNotExistError)
    monkeypatch.setattr(asyncpg.Connection, "execute", ended)
    for url, kind in ((world_url, "Session"), (pooled_url, "PooledSession")):
        greeted.clear()
        async with pool_of(url) as pool:
            with gives_up if losses == 3 else nullcontext():
                async with pool.lease():
                    pass
        assert greeted == [kind] * min(losses + 1, 3)


async def begun(connection: Connection, begin: str) -> None:
    """Begin; again where the neighbour's millisecond was over.

    A session does so itself only where nothing follows BEGIN, which could have taken that time.
    """
    async with asyncio.timeout(60):
        while True:
            with suppress(asyncpg.QueryCanceledError):
                if connection.is_in_transaction():
                    await connection.execute("ROLLBACK")
                await connection.execute(begin)
                return


async def test_a_begin_keeps_its_modes_and_what_follows(hostile_url: str) -> None:
    modes = [f"SELECT current_setting('transaction_{name}')" for name in ("read_only", "isolation")]
    async with pool_of(hostile_url) as pool, pool.lease() as connection:
        for begin, expected in {
            "BEGIN READ WRITE; SET LOCAL work_mem = '1MB'": ["off", "read committed"],
            "BEGIN;": ["on", "read committed"],
            "BEGIN ISOLATION LEVEL SERIALIZABLE;": ["on", "serializable"],
        }.items():
            await begun(connection, begin)
            assert [await connection.fetchval(mode) for mode in modes] == expected
            assert (await connection.fetchval("SHOW work_mem") == "1MB") is ("work_mem" in begin)
            assert await connection.fetchval(SEEN, "timezone") == "UTC"
            await connection.execute("ROLLBACK")


async def test_no_connection_is_lent(world_url: str, pooled_url: str) -> None:
    """For two transactions of one export could wait for each other in the pooler's queue."""
    for url in (world_url, pooled_url):
        async with (
            pool_of(url, size=8) as pool,
            transaction.reading(pool, CALLER, Stages()) as (connection, _),
        ):
            shared = await transaction.share(connection)
            assert (pool.spare > 0) is (url == world_url)
            with nullcontext() if url == world_url else pytest.raises(Busy):
                async with transaction.reading_along(pool, CALLER, shared):
                    pass


async def test_a_migration_through_it_is_refused(pooled_url: str) -> None:
    with pytest.raises(MigrationError, match="MIGRATION_DATABASE_URL"):
        await runner.status(pooled_url, "service")
    async with pgbouncer.each_server(pooled_url) as clients:
        for client in clients:
            assert await client.fetchval("SHOW lock_timeout") == "0"


async def test_answers_are_those_of_a_direct_service(
    direct_service: Running, pooled_service: Running
) -> None:
    """Byte by byte, many at once, of two tenants."""
    paths = [
        f"/v1/feeds/{name}?format={form}{rest}"
        for name in ("clients", "budgets", "analytics", "vendors", "tasks")
        for form in ("json", "ndjson", "csv")
        for rest in ("", "&limit=7")
    ]

    free = asyncio.Semaphore(pgbouncer.SERVERS)

    async def asked(http: aiohttp.ClientSession, of: Running, path: str) -> tuple[object, ...]:
        async with free, http.get(of.url + path) as answer:
            headers = [answer.headers.get(name) for name in ("ETag", "Link", "Content-Type")]
            return answer.status, *headers, await answer.read()

    for tenant in ("rosewood", "atelier-blanc"):
        async with aiohttp.ClientSession(headers=bearer(tenant, "admin")) as http:
            of_both = [
                await asyncio.gather(*(asked(http, service, path) for path in paths))
                for service in (direct_service, pooled_service)
            ]
        for path, direct, pooled in zip(paths, *of_both, strict=True):
            assert direct[0] == 200
            assert pooled == direct, (path, pooled[-1][:500])


async def test_a_cached_page_is_thrown_out_by_a_write(
    pooled_service: Running, world: asyncpg.Connection
) -> None:
    page = f"{pooled_service.url}/v1/feeds/clients?format=ndjson&columns=id,venue&limit=3&order=key"
    change = """
        UPDATE wedding.clients SET venue = $2 WHERE id =
        (SELECT min(id) FROM wedding.clients WHERE tenant_id = $1)
    """

    async def until(http: aiohttp.ClientSession, state: str, venue: str) -> None:
        async with asyncio.timeout(60):
            while True:
                async with http.get(page) as answer:
                    seen = state in answer.headers["Cache-Status"], venue in await answer.text()
                if seen == (True, True):
                    return
                await asyncio.sleep(0.02)

    async with aiohttp.ClientSession(headers=bearer()) as http:
        for venue in ("Villa Eins", "Villa Zwei", "Villa Drei"):
            await world.execute(change, "rosewood", venue)
            await until(http, "hit", venue)
