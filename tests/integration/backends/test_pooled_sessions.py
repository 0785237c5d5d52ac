"""Nothing of one caller's session can reach the next one through a pooled connection."""

from collections.abc import AsyncIterator, Mapping

import asyncpg
import pytest

from feedsvc.backends.postgres.pool import Connection, Pool
from feedsvc.core.principal import Principal
from feedsvc.core.timing import Stages
from feedsvc.feeds import transaction
from feedsvc.settings import Database, PoolSettings


@pytest.fixture
async def pool(world_url: str) -> AsyncIterator[Pool]:
    """One connection, so that whoever comes next gets what the last one left."""
    made = Pool("read", PoolSettings(size=1), Database.model_validate({"url": world_url}))
    await made.open()
    yield made
    await made.close(1.0)


async def settings_of(connection: Connection) -> Mapping[str, str | None]:
    row = await connection.fetchrow(
        "SELECT current_user::text AS user, session_user::text AS login,"
        " nullif(current_setting('feedsvc.tenant', true), '') AS tenant,"
        " nullif(current_setting('feedsvc.client', true), '') AS client,"
        " nullif(current_setting('feedsvc.role', true), '') AS role,"
        " current_setting('timezone') AS timezone, current_setting('search_path') AS path,"
        " current_setting('default_transaction_read_only') AS read_only,"
        " pg_backend_pid()::text AS backend"
    )
    assert row is not None
    return dict(row)


@pytest.mark.parametrize(
    "leftover",
    [
        "SET ROLE wedding_reader",
        "SET feedsvc.tenant = 'atelier-blanc'",
        "SELECT set_config('feedsvc.client', '7', false)",
        "SET timezone = 'Asia/Tokyo'",
        "SET search_path = wedding",
        "SET default_transaction_read_only = off",
    ],
)
async def test_what_a_session_left_is_gone_for_the_next(pool: Pool, leftover: str) -> None:
    async with pool.lease() as connection:
        before = await settings_of(connection)
        await connection.execute(leftover)
        assert await settings_of(connection) != before
    async with pool.lease() as connection:
        assert await settings_of(connection) == before


async def test_a_callers_settings_end_with_its_transaction(pool: Pool) -> None:
    async with transaction.reading(pool, Principal("rosewood", "member", "7", 0.0), Stages()) as (
        connection,
        _,
    ):
        during = await settings_of(connection)
    async with pool.lease() as connection:
        after = await settings_of(connection)
    assert (during["tenant"], during["client"], during["role"]) == ("rosewood", "7", "member")
    assert (after["tenant"], after["client"], after["role"]) == (None, None, None)
    assert during["backend"] == after["backend"], "another connection would prove nothing"


async def test_a_reader_can_not_write(pool: Pool) -> None:
    async with transaction.reading(pool, Principal("rosewood", "admin", None, 0.0), Stages()) as (
        connection,
        _,
    ):
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
            await connection.execute("CREATE TEMP TABLE kept (a int)")
