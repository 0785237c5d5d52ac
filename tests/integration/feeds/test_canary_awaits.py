"""A reader that is cancelled at each of its awaits leaves nothing for the next one.

Beside that: what PostgreSQL shows to a transaction that has not said who reads.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import asyncpg
import pytest

from feedsvc.backends.postgres.pool import Connection, Pool
from feedsvc.core.principal import Principal
from feedsvc.core.timing import Stages
from feedsvc.datasets import catalog
from feedsvc.datasets.dataset import Dataset, declarations
from feedsvc.feeds import transaction
from feedsvc.feeds.export import open_export
from feedsvc.feeds.export_options import ExportOptions
from feedsvc.feeds.query import FeedQuery
from feedsvc.feeds.sources import choice
from feedsvc.settings import Database, PoolSettings
from tests.integration.conftest import NewDatabase
from tests.support.canaries.awaits import cancelled_at
from tests.support.canaries.world import DATASETS_FILE, NAMES, Caller, World, peopled
from tests.support.drawn import DRAWN, share
from tests.support.servers import as_login

FIRST = Principal("t000", "admin", "1", 0.0)
NEXT = Principal("t001", "member", None, 0.0)
CONNECTIONS = 2
MOST_AWAITS = 500
TWICE = share(60)
"""The number of pairs of awaits that are tried."""

Work = Callable[[Pool, Dataset], Coroutine[Any, Any, None]]


@pytest.fixture(scope="module")
async def world(new_database: NewDatabase) -> AsyncIterator[World]:
    async with peopled(new_database, 3) as made:
        yield made


@pytest.fixture(scope="module")
async def letters(world: World) -> Dataset:
    connection = await asyncpg.connect(as_login(world.url))
    datasets, findings = await catalog.resolve(connection, declarations(DATASETS_FILE))
    await connection.close()
    assert findings == []
    return datasets["letters"]


@pytest.fixture
async def superuser(world: World) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(world.url)
    yield connection
    await connection.close()


@pytest.fixture
async def pool(world: World) -> AsyncIterator[Pool]:
    settings = PoolSettings(size=CONNECTIONS, acquire_timeout=30)
    made = Pool("bulk", settings, Database.model_validate({"url": as_login(world.url)}))
    await made.open()
    yield made
    await made.close(1.0)


async def one_row(pool: Pool, _: Dataset) -> None:
    """Do as a request for one row does."""
    async with transaction.reading(pool, FIRST, Stages()) as (connection, _snapshot):
        await connection.fetchval("SELECT mark FROM post.letters LIMIT 1")


async def whole_export(pool: Pool, letters: Dataset) -> None:
    """A stream to a client that keeps up."""
    query = FeedQuery.parse({"format": "sse"}, letters)
    async with open_export(query, FIRST, pool, ExportOptions(16_384), Stages()) as export:
        while await export.take() is not None:
            pass


async def parked_export(pool: Pool, letters: Dataset) -> None:
    """A stream to a client that falls behind after each chunk."""
    query = FeedQuery.parse({"format": "ndjson"}, letters)
    async with open_export(query, FIRST, pool, ExportOptions(16_384), Stages()) as export:
        while await export.take() is not None:
            await export.park()


async def copied_export(pool: Pool, letters: Dataset) -> None:
    """The same by COPY, and parked in the middle of a page."""
    query = FeedQuery.parse({"format": "ndjson"}, replace(letters, source="copy"))
    options = ExportOptions(16_384, source_factory=partial(choice.candidate, copy_after=0))
    async with open_export(query, FIRST, pool, options, Stages()) as export:
        while await export.take() is not None:
            await export.park()


async def failing_query(pool: Pool, _: Dataset) -> None:
    """A transaction in which a statement has failed."""
    async with transaction.reading(pool, FIRST, Stages()) as (connection, _snapshot):
        with pytest.raises(asyncpg.DivisionByZeroError):
            await connection.fetchval("SELECT 1 / 0")


async def set_role(pool: Pool, _: Dataset) -> None:
    """Do as no code does: leave another role, and the tenant for the session."""
    async with transaction.reading(pool, FIRST, Stages()) as (connection, _snapshot):
        await connection.execute("SET ROLE feedsvc_service")
        await connection.execute("SELECT set_config('feedsvc.tenant', 't000', false)")


WORKS: Sequence[Work] = (
    one_row,
    whole_export,
    parked_export,
    copied_export,
    failing_query,
    set_role,
)


async def assert_nothing_is_left(pool: Pool, superuser: asyncpg.Connection) -> None:
    """Every connection of the pool, all taken at once, is as if nobody had had it before."""
    async with AsyncExitStack() as stack:
        leased = [await stack.enter_async_context(pool.lease()) for _ in range(CONNECTIONS)]
        for connection in leased:
            assert not connection.is_in_transaction()
            assert await left_on(connection) == []
        backends = [connection.get_server_pid() for connection in leased]
        assert len(set(backends)) == CONNECTIONS
    assert (
        await superuser.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY ($1) AND state <> 'idle'",
            backends,
        )
        == 0
    )


async def left_on(connection: Connection) -> list[str]:
    """A setting that was left on a connection."""
    row = await connection.fetchrow(
        "SELECT coalesce(current_setting('feedsvc.tenant', true), '') AS tenant,"
        " coalesce(current_setting('feedsvc.role', true), '') AS role,"
        " coalesce(current_setting('feedsvc.client', true), '') AS client,"
        " CASE WHEN current_user <> session_user THEN current_user::text ELSE '' END AS became,"
        " coalesce((SELECT string_agg(name, ' ') FROM pg_cursors WHERE name <> ''), '') AS cursors,"
        " (SELECT count(*)::text FROM post.letters) AS rows"
    )
    assert row is not None
    return [f"{name} {value}" for name, value in row.items() if value not in {"", "0"}]


async def assert_next_sees_its_own(pool: Pool, letters: Dataset, world: World) -> None:
    """On each connection at once another tenant reads, and gets its rows and no other."""
    async with AsyncExitStack() as stack:
        for _ in range(CONNECTIONS):
            reading = transaction.reading(pool, NEXT, Stages())
            connection, _ = await stack.enter_async_context(reading)
            seen = await connection.fetch("SELECT DISTINCT tenant_id FROM post.letters")
            assert [tuple(row) for row in seen] == [(NEXT.tenant,)]
    query = FeedQuery.parse({"format": "ndjson", "columns": "mark"}, letters)
    expected = [f'{{"mark":"{row.mark}"}}' for row in world.rows(Caller(NEXT.tenant), "letters")]
    found: list[str] = []
    async with open_export(query, NEXT, pool, ExportOptions(16_384), Stages()) as export:
        while (part := await export.take()) is not None:
            found += [record.decode() for record in part.records()]
    assert found == expected


@pytest.mark.parametrize("work", WORKS)
async def test_cancelled_at_any_await_it_leaves_nothing(
    world: World, letters: Dataset, pool: Pool, superuser: asyncpg.Connection, work: Work
) -> None:
    for at in range(1, MOST_AWAITS):
        _, cancelled = await cancelled_at(work(pool, letters), at)
        await assert_nothing_is_left(pool, superuser)
        await assert_next_sees_its_own(pool, letters, world)
        if not cancelled:
            break
    assert 5 < at < MOST_AWAITS - 1, "it did not wait, or it never came to its end"


@DRAWN
@pytest.mark.parametrize("work", WORKS)
async def test_cancelled_again_while_it_tidies_up_it_leaves_nothing(
    world: World, letters: Dataset, pool: Pool, superuser: asyncpg.Connection, work: Work
) -> None:
    """As a second signal, or a deadline above a deadline, does."""
    dice = random.Random(7)
    awaits, _ = await cancelled_at(work(pool, letters))
    twice = 0
    for _ in range(TWICE):
        first = dice.randint(1, awaits)
        again = first + dice.randint(1, 5)
        _, cancelled = await cancelled_at(work(pool, letters), first, again, again + 1)
        twice += cancelled > 1
        await assert_nothing_is_left(pool, superuser)
        await assert_next_sees_its_own(pool, letters, world)
    assert twice


@DRAWN
async def test_a_crowd_cancelled_at_any_await_leaves_nothing(
    world: World, letters: Dataset, pool: Pool, superuser: asyncpg.Connection
) -> None:
    """Several wait for one connection, so that it is handed from a cancelled one to the next."""

    async def crowd(pool: Pool, letters: Dataset) -> None:
        async with asyncio.TaskGroup() as group:
            for work in (one_row, whole_export, parked_export, one_row, whole_export):
                group.create_task(work(pool, letters))

    awaits, _ = await cancelled_at(crowd(pool, letters))
    for at in range(1, awaits, max(1, awaits // share(60))):
        await cancelled_at(crowd(pool, letters), at)
        await assert_nothing_is_left(pool, superuser)
        await assert_next_sees_its_own(pool, letters, world)


@pytest.mark.parametrize(
    "tenant", [None, "", " ", "t0", "t00%", "T000", "t000,t001", "' OR true --", "null"]
)
@pytest.mark.parametrize("client", [None, "", "1"])
async def test_a_connection_without_a_tenant_sees_no_row(
    world: World, tenant: str | None, client: str | None
) -> None:
    """On SQL's level: without the setting, with an empty one, and with one of no tenant."""
    connection = await asyncpg.connect(as_login(world.url))
    try:
        async with connection.transaction():
            for name, value in (("tenant", tenant), ("client", client), ("role", "admin")):
                if value is not None:
                    await connection.execute(
                        "SELECT set_config($1, $2, true)", f"feedsvc.{name}", value
                    )
            for name in NAMES:
                assert await connection.fetchval(f"SELECT count(*) FROM post.{name}") == 0
    finally:
        await connection.close()


async def test_a_tenant_is_forgotten_with_its_transaction(world: World) -> None:
    """After a SET LOCAL the setting is '', not NULL, and that is no tenant either."""
    connection = await asyncpg.connect(as_login(world.url))
    count = "SELECT count(*) FROM post.notices"
    try:
        for end in ("COMMIT", "ROLLBACK"):
            await connection.execute("BEGIN; SET LOCAL feedsvc.tenant = 't000'")
            assert await connection.fetchval(count) == len(world.rows(Caller("t000"), "notices"))
            await connection.execute(end)
            assert await connection.fetchval("SELECT current_setting('feedsvc.tenant', true)") == ""
            assert await connection.fetchval(count) == 0
    finally:
        await connection.close()
