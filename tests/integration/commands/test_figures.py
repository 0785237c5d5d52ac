"""The dashboard's figures: kept, each tenant's own, refreshed beside their readers."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import asyncpg
import pytest

from feedsvc.backends.postgres.migrations.runner import up
from feedsvc.commands.demo.seeding import seed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.integration.conftest import NewDatabase

VIEWS = ("month_figures", "vendor_figures")


@pytest.fixture(scope="module")
async def figures(new_database: NewDatabase) -> AsyncIterator[str]:
    async with new_database() as dsn:
        await up(dsn, "wedding")
        await seed(dsn, 100, 7)
        yield dsn


@asynccontextmanager
async def reading(
    dsn: str, tenant: str = "", client: str = ""
) -> AsyncIterator[asyncpg.Connection]:
    """A session whose only right is to be in wedding_reader; rolled back at the end."""
    connection = await asyncpg.connect(dsn)
    transaction = connection.transaction()
    await transaction.start()
    try:
        login = f"reader_{secrets.token_hex(6)}"
        await connection.execute(f"CREATE ROLE {login} LOGIN NOBYPASSRLS IN ROLE wedding_reader")
        await connection.execute(f"SET LOCAL SESSION AUTHORIZATION {login}")
        for name, value in {"tenant": tenant, "client": client}.items():
            await connection.execute("SELECT set_config($1, $2, true)", f"feedsvc.{name}", value)
        yield connection
    finally:
        await transaction.rollback()
        await connection.close()


async def test_a_tenant_sees_its_own_figures_alone(figures: str) -> None:
    for tenant in ("rosewood", "zephyr"):
        async with reading(figures, tenant) as reader:
            for view in VIEWS:
                rows = await reader.fetch(f"SELECT tenant_id, as_of FROM wedding.{view}")
                assert {row["tenant_id"] for row in rows} == {tenant}
                assert all(row["as_of"] is not None for row in rows)
    async with reading(figures) as reader:
        for view in VIEWS:
            assert await reader.fetch(f"SELECT * FROM wedding.{view}") == []


async def test_a_couple_sees_no_figure_of_the_business(figures: str) -> None:
    async with reading(figures, "rosewood", "100000001") as reader:
        assert await reader.fetch("SELECT * FROM wedding.month_figures") == []
        assert await reader.fetch("SELECT * FROM wedding.vendor_figures")


@pytest.mark.parametrize("view", VIEWS)
async def test_what_is_kept_can_not_be_read_itself(figures: str, view: str) -> None:
    async with reading(figures, "rosewood") as reader:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await reader.fetch(f"SELECT * FROM wedding.{view}_kept")


async def test_a_callers_function_is_not_asked_before_the_tenant(figures: str) -> None:
    async with reading(figures, "zephyr") as reader:
        await reader.execute(
            "CREATE FUNCTION pg_temp.seen(text) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS"
            " $$ BEGIN IF $1 <> 'zephyr' THEN RAISE 'leaked %', $1; END IF; RETURN true; END $$"
        )
        assert await reader.fetch(
            "SELECT * FROM wedding.month_figures WHERE pg_temp.seen(tenant_id)"
        )


async def test_the_reader_refreshes_and_sees_the_change(figures: str) -> None:
    count = "SELECT sum(leads) FROM wedding.month_figures"
    admin = await asyncpg.connect(figures)
    async with reading(figures, "rosewood") as reader:
        before = await reader.fetchval(count)
        await admin.execute(
            "INSERT INTO wedding.leads (tenant_id, email, name, source, score)"
            " VALUES ('rosewood', 'a@example.org', 'A', 'web', 1)"
        )
        assert await reader.fetchval(count) == before
        assert await reader.fetchval("SELECT wedding.refresh_figures()") is True
        assert await reader.fetchval(count) == before + 1
        taken = asyncio.create_task(admin.fetchval("SELECT wedding.refresh_figures()"))
        assert await taken is False
    await admin.close()
