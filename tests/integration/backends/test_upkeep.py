"""The views for upkeep find what they are named after, and explain themselves."""

from __future__ import annotations

from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import asyncpg
import pytest

from feedsvc.backends.postgres.advice.upkeep import NOT_SET_UP, upkeep_proposals
from feedsvc.backends.postgres.index_proof.plans import undone
from feedsvc.backends.postgres.migrations.runner import up
from feedsvc.operations.health.check_upkeep import upkeep
from feedsvc.settings import Health

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from feedsvc.operations.health.context import HealthContext
    from feedsvc.operations.health.result import CheckResult
    from tests.integration.conftest import NewDatabase

WORLD = """
    CREATE SCHEMA shop;
    CREATE TABLE shop.owners (id int PRIMARY KEY, region int, name text, UNIQUE (region, id));
    CREATE TABLE shop.orders (
        id int PRIMARY KEY, owner int REFERENCES shop.owners, region int, seller int, note text,
        FOREIGN KEY (region, seller) REFERENCES shop.owners (region, id),
        UNIQUE (note)
    );
    CREATE INDEX by_seller ON shop.orders (seller, region, id);
    CREATE INDEX partial ON shop.orders (owner) WHERE note IS NULL;
    CREATE INDEX note_again ON shop.orders (note);
    CREATE INDEX half ON shop.orders (seller, region);
    CREATE INDEX backwards ON shop.orders (seller DESC, region);
    CREATE INDEX id_for_notes ON shop.orders (id) INCLUDE (note);
    CREATE INDEX id_for_some ON shop.orders (id) INCLUDE (note, owner);
    CREATE INDEX "Of Regions" ON shop.owners (region);
    INSERT INTO shop.orders (id, note)
    SELECT n, repeat('x', 200) || n FROM generate_series(1, 30000) n;
    DELETE FROM shop.orders WHERE id % 10 > 0;
    ANALYZE shop.orders;
"""


@pytest.fixture(scope="module")
async def shop(new_database: NewDatabase) -> AsyncIterator[asyncpg.Connection]:
    async with new_database() as dsn:
        await up(dsn, "service")
        connection = await asyncpg.connect(dsn)
        await connection.execute(WORLD)
        yield connection
        await connection.close()


async def of_shop(
    connection: asyncpg.Connection, view: str, *columns: str
) -> list[tuple[object, ...]]:
    sql = f"SELECT {', '.join(columns)} FROM feedsvc.{view} WHERE schema = 'shop' ORDER BY 1, 2"
    return [tuple(row) for row in await connection.fetch(sql)]


async def test_foreign_keys_without_an_index(shop: asyncpg.Connection) -> None:
    found = await of_shop(shop, "unindexed_foreign_keys", '"constraint"', "columns")
    assert found == [("orders_owner_fkey", ["owner"])]


async def test_indexes_that_others_cover(shop: asyncpg.Connection) -> None:
    found = await of_shop(shop, "duplicate_indexes", "index", "covered_by", "is_duplicate")
    assert found == [
        ("Of Regions", "owners_region_id_key", False),
        ("half", "by_seller", False),
        ("id_for_notes", "id_for_some", True),
        ("note_again", "orders_note_key", True),
    ]


async def test_what_is_found_is_proposed_as_sql_that_runs(shop: asyncpg.Connection) -> None:
    found = await upkeep_proposals(shop)
    assert not isinstance(found, str)
    of_shop = {each.statement: each for each in found if "shop." in each.statement}
    assert of_shop.keys() == {
        'DROP INDEX CONCURRENTLY shop."Of Regions"',
        "DROP INDEX CONCURRENTLY shop.half",
        "DROP INDEX CONCURRENTLY shop.id_for_notes",
        "DROP INDEX CONCURRENTLY shop.note_again",
        "CREATE INDEX CONCURRENTLY ON shop.orders (owner)",
    }
    assert {each.proof for each in of_shop.values()} == {"unproven"}
    async with undone(shop):
        for statement in of_shop:
            await shop.execute(statement.replace(" CONCURRENTLY", ""))
        assert await upkeep_proposals(shop) == ()


async def test_without_the_views_it_is_said_what_to_do(new_database: NewDatabase) -> None:
    async with new_database() as dsn:
        connection = await asyncpg.connect(dsn)
        assert await upkeep_proposals(connection) == NOT_SET_UP
        await connection.close()


async def test_unused_indexes(shop: asyncpg.Connection) -> None:
    unused = {row[0]: row[1] for row in await of_shop(shop, "index_usage", "index", "is_unused")}
    assert unused["half"] is True
    assert unused["orders_note_key"] is False


async def test_bloat_is_estimated(shop: asyncpg.Connection) -> None:
    found = await of_shop(shop, "table_bloat", '"table"', "bytes", "bloat_bytes")
    size, bloat = next((row[1], row[2]) for row in found if row[0] == "orders")
    assert isinstance(size, int)
    assert isinstance(bloat, int)
    assert 0.7 < bloat / size < 0.95


async def test_a_transaction_of_over_a_minute(shop: asyncpg.Connection) -> None:
    assert await shop.fetch("SELECT * FROM feedsvc.long_transactions") == []
    definition = await shop.fetchval("SELECT pg_get_viewdef('feedsvc.long_transactions'::regclass)")
    assert "query" not in definition


async def test_all_in_one(shop: asyncpg.Connection) -> None:
    found = {tuple(row)[:2] for row in await shop.fetch("SELECT * FROM feedsvc.upkeep()")}
    assert {
        ("covered index", "shop.half"),
        ("foreign key without an index", "shop.orders"),
        ("unused index", "shop.note_again"),
    } <= found


async def test_each_explains_itself_and_the_service_may_read_it(shop: asyncpg.Connection) -> None:
    silent = """
        SELECT relname FROM pg_class WHERE relnamespace = 'feedsvc'::regnamespace AND relkind = 'v'
        AND (obj_description(oid) IS NULL
             OR NOT has_table_privilege('feedsvc_service', oid, 'SELECT'))
    """
    assert await shop.fetch(silent) == []
    assert await shop.fetchval("SELECT obj_description('feedsvc.upkeep()'::regprocedure)")
    async with shop.transaction():
        await shop.execute("SET LOCAL ROLE feedsvc_service")
        assert await shop.fetch("SELECT * FROM feedsvc.upkeep()")
        assert await shop.fetch("SELECT * FROM feedsvc.cache_ratio WHERE schema = 'shop'")


class OnePool:
    """A pool of one connection, as a check leases it."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    @asynccontextmanager
    async def lease(self) -> AsyncIterator[asyncpg.Connection]:
        yield self._connection


async def checked(shop: asyncpg.Connection, oldest: float = 300.0) -> CheckResult:
    """The health check, as the service's login may look."""
    parts = SimpleNamespace(
        settings=SimpleNamespace(health=Health(oldest_transaction=oldest)),
        pools={"write": OnePool(shop)},
    )
    async with shop.transaction():
        await shop.execute("SET LOCAL ROLE feedsvc_service")
        found = await upkeep(cast("HealthContext", parts))
        await shop.execute("RESET ROLE")
        return found


async def test_health_counts_all_and_is_degraded_by_what_costs(shop: asyncpg.Connection) -> None:
    found = await checked(shop)
    assert found.state == "degraded"
    assert "covered index shop.half: by_seller does its work" in found.what
    assert found.figures["found"]["foreign key without an index"] == 1
    async with undone(shop):
        await shop.execute(
            'DROP INDEX shop.half, shop.note_again, shop.id_for_notes, shop."Of Regions"'
        )
        assert (await checked(shop)).state == "ok"
        await shop.execute(
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'shop.partial'::regclass"
        )
        broken = await checked(shop)
        assert broken.state == "degraded"
        assert broken.what == "invalid index shop.partial: of orders."
