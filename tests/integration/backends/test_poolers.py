"""PgBouncer in front of PostgreSQL: a session is as it was asked for, or it is refused."""

from __future__ import annotations

import os

import asyncpg
import pytest

from feedsvc.backends.postgres.pool import Pool
from feedsvc.backends.postgres.sessions import SETTINGS
from feedsvc.core.principal import Principal
from feedsvc.core.timing import Stages
from feedsvc.feeds import transaction
from feedsvc.settings import Database, PoolSettings
from tests.support import pgbouncer
from tests.support.forked import feedsvc
from tests.support.service import KEY

pytestmark = pgbouncer.needed

ASKED = "SELECT current_setting($1)"


async def settings_of(url: str, times: int) -> list[dict[str, str]]:
    """A pool's one connection, as each of so many leases finds it."""
    pool = Pool("read", PoolSettings(size=1), Database.model_validate({"url": url}))
    await pool.open()
    found = []
    try:
        for _ in range(times):
            async with pool.lease() as connection:
                found.append({n: await connection.fetchval(ASKED, n) for n in SETTINGS})
                await connection.execute("SET timezone = 'Asia/Tokyo'")
    finally:
        await pool.close(1.0)
    return found


@pytest.mark.parametrize("ignore", [",".join(SETTINGS), ""], ids=["swallowed", "refused"])
async def test_settings_that_a_pooler_swallows_are_set_all_the_same(
    world_url: str, ignore: str
) -> None:
    (direct,) = await settings_of(world_url, 1)
    assert direct["default_transaction_read_only"] == "on"
    with pgbouncer.pooled(world_url, ignore=ignore) as url:
        assert await settings_of(url, 3) == [direct] * 3


async def test_a_session_behind_a_pooler_is_read_only(world_url: str) -> None:
    with pgbouncer.pooled(world_url, ignore=",".join(SETTINGS)) as url:
        pool = Pool("read", PoolSettings(size=1), Database.model_validate({"url": url}))
        await pool.open()
        try:
            async with pool.lease() as connection:
                with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
                    await connection.execute("CREATE TEMP TABLE kept (a int)")
            caller = Principal("rosewood", "member", None, 0.0)
            async with transaction.reading(pool, caller, Stages()) as (connection, moment):
                assert moment.origin.count("/") == 2
                assert await connection.fetchval("SELECT count(*) FROM wedding.clients") > 0
        finally:
            await pool.close(1.0)


@pytest.mark.parametrize("mode", ["transaction", "statement"])
def test_a_pooler_without_sessions_is_refused_with_a_sentence(world_url: str, mode: str) -> None:
    with pgbouncer.pooled(world_url, mode=mode, ignore=",".join(SETTINGS)) as url:
        environment = {n: v for n, v in os.environ.items() if not n.startswith("FEEDSVC_")}
        env = {**environment, "DATABASE_URL": url, "FEEDSVC_AUTH__KEY": KEY, "REDIS_URL": ""}
        done = feedsvc("check", env=env)
    assert done.returncode == 1
    assert "database.url" in done.stdout + done.stderr
    assert "pool_mode" in done.stdout + done.stderr
