"""Transactions on a PostgreSQL that stops answering within them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from urllib.parse import urlsplit, urlunsplit

import pytest

from feedsvc.backends.postgres.own_schema import write_transaction
from feedsvc.backends.postgres.pool import Connection, Pool
from feedsvc.core.principal import Principal
from feedsvc.core.timing import Stages
from feedsvc.feeds.transaction import reading
from feedsvc.settings import Database, PoolSettings
from tests.support.proxy import proxied

DEADLINE = 60.0
CALLER = Principal("rosewood", "member", None, 0.0)


@asynccontextmanager
async def read_only(pool: Pool) -> AsyncIterator[Connection]:
    async with reading(pool, CALLER, Stages()) as (connection, _):
        yield connection


@pytest.mark.parametrize("begin", [write_transaction, read_only])
async def test_a_cancellation_on_a_frozen_server_waits_no_longer_than_a_release_may(
    world_url: str, begin: Callable[[Pool], AbstractAsyncContextManager[Connection]]
) -> None:
    parts, begun = urlsplit(world_url), asyncio.Event()
    assert parts.port is not None
    async with proxied(parts.port) as proxy:
        at = parts.netloc.replace(f":{parts.port}", f":{proxy.port}")
        given = {"url": urlunsplit(parts._replace(netloc=at)), "release_timeout": 0.1}
        patient = PoolSettings(size=1, query_timeout=600)
        pool = Pool("write", patient, Database.model_validate(given))
        await pool.open()

        async def use() -> None:
            async with begin(pool) as connection:
                begun.set()
                await connection.fetchval("SELECT pg_sleep(600)")

        using = asyncio.create_task(use())
        await asyncio.wait_for(begun.wait(), DEADLINE)
        proxy.freeze()
        using.cancel()
        done, _ = await asyncio.wait({using}, timeout=DEADLINE)
        assert done, "the rollback waits for as long as a query may take"
        assert using.cancelled()
        assert (pool.in_use, pool.leases) == (0, {})
        await pool.close(1.0)
