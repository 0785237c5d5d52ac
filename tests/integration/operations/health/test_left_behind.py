"""Sessions and connections that repairs end, and those that they must not end."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import asyncpg
import pytest

from feedsvc.backends.postgres.pool import PoolSet
from feedsvc.operations.health import repair_worker
from feedsvc.settings import Settings
from tests.support.ailing import until
from tests.support.servers import as_login

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from feedsvc.operations.health.context import HealthContext

NewSession: TypeAlias = "Callable[[], Awaitable[asyncpg.Connection]]"
SECONDS = 60  # for what takes a second where nothing else runs


@pytest.fixture
def login_url(database: str) -> str:
    return as_login(database)


@pytest.fixture
async def pools(login_url: str) -> AsyncIterator[PoolSet]:
    """Those of this process, with times that a test can wait for."""
    times = {"idle_timeout": 0.5, "query_timeout": 0.5, "lock_timeout": 0.1}
    names = ("read", "bulk", "analytics", "write")
    given = {"database": {"url": login_url}, "pools": dict.fromkeys(names, times)}
    made = PoolSet(Settings.model_validate(given))
    await made.open()
    yield made
    await made.close(1.0)


@pytest.fixture
async def left(login_url: str) -> AsyncIterator[NewSession]:
    """Open sessions under a name of feedsvc's that no process of it has; closed at the end."""
    opened = list[asyncpg.Connection]()

    async def session() -> asyncpg.Connection:
        named = {"application_name": "feedsvc bulk", "idle_in_transaction_session_timeout": "0"}
        opened.append(await asyncpg.connect(login_url, server_settings=named))
        return opened[-1]

    yield session
    for connection in opened:
        connection.terminate()  # also of those that PostgreSQL has ended, for which close() waits


async def would_end(pools: PoolSet, connection: asyncpg.Connection) -> bool:
    return str(connection.get_server_pid()) in (await repaired(pools, dry=True))[1]


async def repaired(pools: PoolSet, *, dry: bool) -> tuple[str, str]:
    """Make the repair, as the service does. It looks at nothing but the pools."""
    return await repair_worker.sessions(cast("HealthContext", SimpleNamespace(pools=pools)), dry)


async def test_sessions_of_this_process_are_spared(pools: PoolSet, left: NewSession) -> None:
    """One that is leased is idle between two questions, for as long as its client reads slowly."""
    async with pools["bulk"].lease() as own:
        assert await own.fetchval("SELECT 1") == 1
        pid = own.get_server_pid()
        others = await left()
        await until(lambda: would_end(pools, others), SECONDS)
        # Its own has been idle for longer than that one.
        outcome, what = await repaired(pools, dry=False)
        assert (outcome, str(others.get_server_pid()) in what) == ("done", True)
        assert str(pid) not in what
        assert await own.fetchval("SELECT pg_backend_pid()") == pid


async def test_a_transaction_may_be_idle_for_two_minutes(
    pools: PoolSet, left: NewSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert 2 * repair_worker.IDLE_IN_TRANSACTION == 120.0
    in_transaction = await left()
    await in_transaction.execute("BEGIN")
    idle = await left()
    await until(lambda: would_end(pools, idle), SECONDS)
    assert not await would_end(pools, in_transaction), "only idle ones have `idle_timeout`"
    monkeypatch.setattr(repair_worker, "IDLE_IN_TRANSACTION", 0.5)
    await until(lambda: would_end(pools, in_transaction), SECONDS)
    outcome, what = await repaired(pools, dry=False)
    assert (outcome, str(in_transaction.get_server_pid()) in what) == ("done", True)
    await until(lambda: ended(in_transaction), SECONDS)


async def test_a_query_may_take_twice_the_query_timeout(
    pools: PoolSet, left: NewSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy, idle, watching = [await left() for _ in range(3)]
    query = asyncio.create_task(busy.execute("SELECT pg_sleep(600)"))
    monkeypatch.setattr(repair_worker, "GRACE", 600.0)
    await until(lambda: would_end(pools, idle), SECONDS)
    assert not await would_end(pools, busy), "what waits for an answer is not idle"
    monkeypatch.setattr(repair_worker, "GRACE", 0.0)
    await until(lambda: would_end(pools, busy), SECONDS)
    running = "SELECT clock_timestamp() - query_start FROM pg_stat_activity WHERE pid = $1"
    took = await watching.fetchval(running, busy.get_server_pid())
    assert took.total_seconds() > 2 * pools["bulk"].settings.query_timeout
    outcome, what = await repaired(pools, dry=False)
    assert (outcome, str(busy.get_server_pid()) in what) == ("done", True)
    with pytest.raises((asyncpg.AdminShutdownError, asyncpg.ConnectionDoesNotExistError)):
        await query


async def test_what_comes_into_use_while_postgresql_is_asked_is_left_alone(
    pools: PoolSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a lease that ends meanwhile is no mistake: its connection refuses every question."""
    asking = repair_worker._connected
    async with AsyncExitStack() as leases:
        for _ in range(2):
            await leases.enter_async_context(pools["bulk"].lease())
        async with pools["bulk"].lease():
            pass  # idle from now on
        used = list[Any]()

        @asynccontextmanager
        async def meanwhile(parts: HealthContext) -> AsyncIterator[tuple[asyncpg.Connection, bool]]:
            async with asking(parts) as found:
                await leases.aclose()
                for _ in range(3):
                    used.append(await leases.enter_async_context(pools["bulk"].lease()))
                yield found

        monkeypatch.setattr(repair_worker, "_connected", meanwhile)
        parts = SimpleNamespace(pools=pools, replicas=SimpleNamespace(all=[]))
        outcome, what = await repair_worker.connections(cast("HealthContext", parts), dry=False)
        assert outcome == "nothing", what
        assert [await connection.fetchval("SELECT 1") for connection in used] == [1, 1, 1]


async def ended(connection: asyncpg.Connection) -> bool:
    return connection.is_closed()
