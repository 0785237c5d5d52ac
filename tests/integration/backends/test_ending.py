"""Transactions on a PostgreSQL that stops answering within them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from urllib.parse import urlsplit, urlunsplit

import pytest

from feedsvc.backends.postgres.own_schema import write_session, write_transaction
from feedsvc.backends.postgres.pool import Connection, Pool
from feedsvc.backends.postgres.servers import Servers
from feedsvc.core.principal import Principal
from feedsvc.core.timing import Stages
from feedsvc.feeds.transaction import reading
from feedsvc.settings import Database, PoolSettings
from tests.support.ailing import until
from tests.support.proxy import Proxy, proxied
from tests.support.servers import connected

DEADLINE = 60.0
CALLER = Principal("rosewood", "member", None, 0.0)


@asynccontextmanager
async def freezable(url: str, **given: object) -> AsyncIterator[tuple[Proxy, Database]]:
    """A proxy in front of PostgreSQL, and the database behind it."""
    parts = urlsplit(url)
    assert parts.port is not None
    async with proxied(parts.port) as proxy:
        at = parts.netloc.replace(f":{parts.port}", f":{proxy.port}")
        through = urlunsplit(parts._replace(netloc=at))
        yield proxy, Database.model_validate({"url": through, "release_timeout": 0.1, **given})


async def is_over_soon(using: asyncio.Task[None]) -> bool:
    """Cancel a task; return whether that is its end within the deadline."""
    using.cancel()
    await asyncio.wait({using}, timeout=DEADLINE)
    return using.cancelled()


@asynccontextmanager
async def read_only(pool: Pool) -> AsyncIterator[Connection]:
    async with reading(pool, CALLER, Stages()) as (connection, _):
        yield connection


@pytest.mark.parametrize("begin", [write_transaction, read_only])
async def test_a_cancellation_on_a_frozen_server_waits_no_longer_than_a_release_may(
    world_url: str, begin: Callable[[Pool], AbstractAsyncContextManager[Connection]]
) -> None:
    begun = asyncio.Event()
    async with freezable(world_url) as (proxy, database):
        pool = Pool("write", PoolSettings(size=1, query_timeout=600), database)
        await pool.open()

        async def use() -> None:
            async with begin(pool) as connection:
                begun.set()
                await connection.fetchval("SELECT pg_sleep(600)")

        using = asyncio.create_task(use())
        await asyncio.wait_for(begun.wait(), DEADLINE)
        proxy.freeze()
        assert await is_over_soon(using), "the rollback waits for as long as a query may take"
        assert (pool.in_use, pool.leases) == (0, {})
        await pool.close(1.0)


async def test_a_session_of_no_pools_does_so_behind_a_pooler(
    world_url: str, world_admin_url: str
) -> None:
    """It has no deadline for a query at all."""
    async with (
        freezable(world_url, pooler="transaction") as (proxy, database),
        connected(world_admin_url) as owner,
    ):

        async def use() -> None:
            async with write_session(Servers(database), "frozen") as session:
                await session.row("SELECT pg_sleep(598)")

        using = asyncio.create_task(use())

        async def runs() -> bool:
            sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = $1 AND query LIKE $2"
            found = await owner.fetchval(sql, "PgSleep", "%pg_sleep(598)%")
            return bool(found)

        await until(runs, DEADLINE)
        proxy.freeze()
        assert await is_over_soon(using)
