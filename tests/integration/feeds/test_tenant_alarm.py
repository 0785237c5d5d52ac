"""If row-level security has no tenant, nothing is read, and an alert fires."""

import logging
from importlib.resources import files
from typing import Any

import asyncpg
import pytest

from feedsvc.backends.postgres.pool import PoolSet
from feedsvc.core.principal import Principal
from feedsvc.core.problems import Internal
from feedsvc.core.timing import Stages
from feedsvc.feeds import transaction
from feedsvc.settings import Database, Settings

ANN = Principal("rosewood", "member", None, 0.0)


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param("select '', $2::text, $3::text, $1::text is null", id="empty"),
        pytest.param("select $2::text, $1::text, $3::text", id="mixed up"),
        pytest.param(
            "select null::text, $2::text, $3::text where $1::text is not null", id="nothing"
        ),
    ],
)
async def test_a_tenant_that_did_not_arrive_is_an_alarm(
    world_url: str,
    broken: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(transaction, "_WHO_READS", broken)
    pools = PoolSet(Settings(database=Database(url=world_url)))
    await pools.open()
    try:
        with caplog.at_level(logging.CRITICAL), pytest.raises(Internal):
            async with transaction.reading(pools["read"], ANN, Stages()):
                pytest.fail("it was read all the same")
        assert "the caller was not set" in caplog.text
        assert "rosewood" not in caplog.text
        monkeypatch.setattr(transaction, "_WHO_READS", _right())
        async with transaction.reading(pools["read"], ANN, Stages()) as (connection, _):
            assert await connection.fetchval("SELECT count(*) FROM wedding.clients") == 3_000
    finally:
        await pools.close(1.0)


@pytest.mark.parametrize("tenant", [None, "", " ", "nobody", "rosewood'; --"])
async def test_a_session_without_a_tenant_sees_no_row(world_url: str, tenant: Any) -> None:
    connection = await asyncpg.connect(world_url)
    try:
        async with connection.transaction():
            if tenant is not None:
                await connection.execute("SELECT set_config('feedsvc.tenant', $1, true)", tenant)
            for table in ("tenants", "clients", "budgets", "analytics", "tasks", "vendors"):
                assert await connection.fetchval(f"SELECT count(*) FROM wedding.{table}") == 0
    finally:
        await connection.close()


def _right() -> str:
    return (files("feedsvc.feeds") / "transaction.sql").read_text()
