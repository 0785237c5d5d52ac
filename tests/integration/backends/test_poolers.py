"""PgBouncer in front of PostgreSQL: what is asked of a session holds in each transaction."""

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


async def settings_of(url: str, times: int, pooler: str = "session") -> list[dict[str, str]]:
    """A pool's one connection, as each of so many leases finds it."""
    database = Database.model_validate({"url": url, "pooler": pooler})
    pool = Pool("read", PoolSettings(size=1), database)
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
        assert await settings_of(url, 3, "auto") == [direct] * 3


@pytest.mark.parametrize(("pooler", "kept"), [("session", 1), ("auto", 0), ("transaction", 0)])
async def test_statements_stay_prepared_where_sessions_are_known_to_last(
    world_url: str, pooler: str, kept: int
) -> None:
    asked = "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%to be kept%'"
    with pgbouncer.pooled(world_url) as url:
        pool = Pool("read", PoolSettings(), Database.model_validate({"url": url, "pooler": pooler}))
        await pool.open()
        try:
            async with pool.lease() as connection:
                await connection.fetchval("SELECT 'to be kept'")
                assert await connection.fetchval(asked) - (pooler == "session") == kept
        finally:
            await pool.close(1.0)


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


def checked(url: str, pooler: str = "auto") -> tuple[int, str]:
    environment = {n: v for n, v in os.environ.items() if not n.startswith("FEEDSVC_")}
    env = {**environment, "DATABASE_URL": url, "FEEDSVC_AUTH__KEY": KEY, "REDIS_URL": ""}
    env["FEEDSVC_DATABASE__POOLER"] = pooler
    done = feedsvc("check", env=env)
    return done.returncode, done.stdout + done.stderr


def test_check_names_what_a_pooler_of_transactions_takes_away(world_url: str) -> None:
    with pgbouncer.pooled_by_transaction(world_url) as url:
        code, output = checked(url)
        refused, why = checked(url, "session")
    assert refused == 1
    assert "database.pooler" in why
    assert code == 0, output
    for what in (
        "the repair of sessions",
        "stay prepared",
        "MIGRATION_DATABASE",
    ):
        assert what in output


def test_check_asks_which_pooler_it_is_where_it_cannot_find_out(world_url: str) -> None:
    with pgbouncer.pooled(world_url) as url:
        code, output = checked(url)
    assert code == 0, output
    assert "database.pooler" in output
    assert '"session"' in output


def test_a_pooler_of_statements_is_refused(world_url: str) -> None:
    with pgbouncer.pooled(world_url, mode="statement", ignore=",".join(SETTINGS)) as url:
        code, output = checked(url)
    assert code == 1
    assert "database.url" in output
