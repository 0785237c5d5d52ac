"""Connections that were lost while they lay idle, which is noticed at BEGIN."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import asyncpg
import pytest

from feedsvc.backends.postgres.own_schema import write_transaction
from feedsvc.backends.postgres.pool import Connection, Pool, is_lost
from feedsvc.core.principal import Principal
from feedsvc.core.problems import DatabaseUnavailable
from feedsvc.core.timing import Stages
from feedsvc.feeds.transaction import reading
from tests.support.pools import pool_of

SIZE = 3
CALLER = Principal("rosewood", "member", None, 0.0)
FIRST_TENANT = "SELECT min(tenant_id) FROM wedding.clients"


@pytest.fixture
async def pool(world_url: str) -> AsyncIterator[Pool]:
    async with pool_of(world_url, size=SIZE) as pool:
        yield pool


@pytest.fixture
def end(world_admin_url: str) -> Callable[..., None]:
    """Ends backends while the event loop stands still, so that it has not read of their ends."""

    async def terminate(pids: tuple[int, ...]) -> None:
        owner = await asyncpg.connect(world_admin_url)
        try:
            sql = "SELECT bool_and(pg_terminate_backend(pid, 60000)) FROM unnest($1::int[]) AS pid"
            assert await owner.fetchval(sql, pids)
        finally:
            await owner.close()

    def end(*pids: int) -> None:
        thread = threading.Thread(target=lambda: asyncio.run(terminate(pids)))
        thread.start()
        thread.join()

    return end


async def all_idle(pool: Pool) -> list[int]:
    """The backends of as many connections as the pool takes, all of which lie idle."""
    async with AsyncExitStack() as stack:
        leased = [await stack.enter_async_context(pool.lease()) for _ in range(SIZE)]
        return [connection.get_server_pid() for connection in leased]


async def read(pool: Pool) -> None:
    async with reading(pool, CALLER, Stages()) as (connection, moment):
        assert await connection.fetchval(FIRST_TENANT) == CALLER.tenant
        assert moment.snapshot == await connection.fetchval("SELECT pg_current_snapshot()::text")


async def write(pool: Pool) -> None:
    async with write_transaction(pool) as connection:
        await connection.execute("CREATE TEMPORARY TABLE written ON COMMIT DROP AS SELECT 1")
        assert await connection.fetchval("SELECT pg_current_xact_id_if_assigned() IS NOT NULL")


@pytest.mark.parametrize("use", [read, write])
async def test_one_that_was_lost_idle_costs_no_answer(
    pool: Pool, end: Callable[..., None], use: Callable[[Pool], Awaitable[None]]
) -> None:
    before = await all_idle(pool)
    end(*before)
    await asyncio.gather(*(use(pool) for _ in range(SIZE)))
    assert not {*before} & {*await all_idle(pool)}
    assert "lost a connection" in pool.statistics.troubles
    assert pool.in_use == 0
    assert pool.open_connections <= SIZE


async def test_a_database_that_ends_each_session_is_not_asked_for_ever(
    pool: Pool, end: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    exchanged: list[Connection] = []

    async def exchange(leased: Connection) -> Connection:
        assert is_lost(leased)
        exchanged.append(await Pool.exchange(pool, leased))
        end(exchanged[-1].get_server_pid())
        return exchanged[-1]

    monkeypatch.setattr(pool, "exchange", exchange)
    end(*await all_idle(pool))
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await read(pool)
    assert len(exchanged) == 2
    assert pool.in_use == 0
    monkeypatch.undo()
    await read(pool)


async def test_where_no_other_can_be_made_the_slot_is_given_back(
    pool: Pool, end: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object, **__: object) -> Connection:
        raise ConnectionRefusedError("as where PostgreSQL is down")

    for use in (read, write):
        end(*await all_idle(pool))
        with monkeypatch.context() as down:
            down.setattr(pool.servers, "connect", refuse)
            with pytest.raises((ConnectionRefusedError, DatabaseUnavailable)):
                await use(pool)
        assert pool.in_use == 0
        assert pool.leases == {}
        await use(pool)
