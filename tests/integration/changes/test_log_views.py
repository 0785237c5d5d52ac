"""The log of a view: its keys, from the rows of the tables that they come from."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import asyncpg
import pytest

from feedsvc.backends.postgres.migrations import runner
from feedsvc.changes import log_hash, log_triggers
from feedsvc.datasets.dataset import Declaration
from tests.support.log_world import LogRow, everyone_of, install, log_rows

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.integration.conftest import NewDatabase

SCHEMA: Final = """
    DROP SCHEMA IF EXISTS shop CASCADE; CREATE SCHEMA shop;
    CREATE TABLE shop.orders (
        id bigint PRIMARY KEY, owner text NOT NULL, status text, body text, hidden int
    );
    CREATE TABLE shop."order lines" (
        "of order" bigint PRIMARY KEY, owner text, paid bool, client bigint, hidden int
    );
    CREATE TABLE shop.labels (status text, label text);
    CREATE TABLE shop.parts (id bigint, tenant text, at int) PARTITION BY RANGE (at);
    CREATE TABLE shop.parts_1 PARTITION OF shop.parts FOR VALUES FROM (0) TO (100);
    CREATE TABLE shop.parts_2 PARTITION OF shop.parts FOR VALUES FROM (100) TO (200);
    CREATE VIEW shop.joined AS
        SELECT o.id AS "order", o.owner AS tenant, o.body, l.paid, n.label
        FROM shop.orders o
        JOIN shop."order lines" l ON l."of order" = o.id
        JOIN shop.labels n ON n.status = o.status
        WHERE o.status <> 'draft';
    CREATE VIEW shop.all_parts AS SELECT id, tenant FROM shop.parts WHERE at <> 13;
    CREATE VIEW shop.twice AS SELECT o.id, o.owner AS tenant FROM shop.orders o
        WHERE o.id >= (SELECT min(id) FROM shop.orders);
"""
LINES: Final = 'shop."order lines"'
JOINED: Final = Declaration(
    relation="shop.joined", key=("order",), tenant="tenant", not_null=("order",),
    key_from={"shop.orders": {}, LINES: {"order": "of order", "tenant": "owner"}},
    watch={"shop.labels": ()},
)  # fmt: skip
DECLARED: Final = {
    "joined": JOINED,
    "parts": Declaration(relation="shop.all_parts", key=("id",), tenant="tenant",
                         key_from={"shop.parts": {}}),
    "twice": Declaration(relation="shop.twice", key=("id",), tenant="tenant",
                         key_from={"shop.orders": {"id": "id", "tenant": "owner"}}),
}  # fmt: skip
MODES: Final = {"rows": 1 << 40, "statements": -1}


@pytest.fixture(scope="module")
async def shop(new_database: NewDatabase) -> AsyncIterator[asyncpg.Connection]:
    async with new_database() as url:
        await runner.up(url, "service")
        connection = await asyncpg.connect(url)
        yield connection
        await connection.close()


@pytest.fixture(params=MODES)
async def owner(
    shop: asyncpg.Connection, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> asyncpg.Connection:
    """The owner of new tables, with the triggers of rows alone in use, or those of statements."""
    monkeypatch.setattr(log_triggers, "FEW_ROWS", MODES[request.param])
    await shop.execute(SCHEMA)
    await install(shop, DECLARED)
    return shop


async def logged(owner: asyncpg.Connection, statement: str, feed: str = "joined") -> list[LogRow]:
    await owner.execute("TRUNCATE feedsvc.log")
    await owner.execute(statement)
    number = await owner.fetchval("SELECT feed FROM feedsvc.log_feeds WHERE dataset = $1", feed)
    return [row for row in await log_rows(owner) if row.feed == number]


def entries(rows: list[LogRow]) -> list[tuple[str, tuple[str, ...], object]]:
    """Operation, keys and former rows, in the order of the keys."""
    found = [(r.op, tuple(r.keys), None if r.old is None else json.loads(r.old)) for r in rows]
    return sorted(found, key=repr)


async def test_each_table_logs_the_views_key(owner: asyncpg.Connection) -> None:
    insert = "INSERT INTO shop.orders VALUES (1, 'a', 'new', 'x')"
    assert entries(await logged(owner, insert)) == [("u", ("1",), [[1]])]
    line = f"INSERT INTO {LINES} VALUES (1, 'a', true, 7)"
    assert entries(await logged(owner, line)) == [("u", ("1",), [[0]])]
    rows = await logged(owner, "UPDATE shop.orders SET status = 'sent'")
    assert entries(rows) == [("u", ("1",), [[1, 1, "a", "new"]])]
    assert {row.scope for row in rows} == {log_hash.scope("a", await everyone_of(owner, "joined"))}
    moved = entries(await logged(owner, f'UPDATE {LINES} SET "of order" = 2'))
    assert moved == [("g", ("1",), [[0, 1, "a"]]), ("u", ("2",), [[0]])]
    rows = await logged(owner, "UPDATE shop.orders SET owner = 'b'")
    assert entries(rows) == [("g", ("1",), [[1, 1, "a", "sent"]]), ("u", ("1",), [[1]])]
    rows = await logged(owner, "DELETE FROM shop.orders")
    assert entries(rows) == [("g", ("1",), [[1, 1, "b", "sent"]])]
    assert entries(await logged(owner, "TRUNCATE shop.orders")) == [("t", (), None)]
    label = "INSERT INTO shop.labels VALUES ('new', 'New')"
    assert [row.op for row in await logged(owner, label)] == ["w"]


async def test_what_the_view_does_not_read_is_not_logged(owner: asyncpg.Connection) -> None:
    await owner.execute(
        "INSERT INTO shop.orders VALUES (1, 'a', 'new', 'x');"
        f"INSERT INTO {LINES} VALUES (1, 'a', true, 7)"
    )
    for silent in ("UPDATE shop.orders SET hidden = 1", f"UPDATE {LINES} SET hidden = 1"):
        assert await logged(owner, silent) == []
    assert len(await logged(owner, "UPDATE shop.orders SET body = 'y'")) == 1
    assert len(await logged(owner, f"UPDATE {LINES} SET paid = false")) == 1


async def test_partitions_of_a_views_table(owner: asyncpg.Connection) -> None:
    insert = "INSERT INTO shop.parts VALUES (1, 'a', 5)"
    assert entries(await logged(owner, insert, "parts")) == [("u", ("1",), [[0]])]
    rows = entries(await logged(owner, "UPDATE shop.parts SET at = 150", "parts"))
    assert rows == [("g", ("1",), [[0, 1, "a", 5]]), ("u", ("1",), [[0]])]
    rows = entries(await logged(owner, "DELETE FROM shop.parts_2", "parts"))
    assert rows == [("g", ("1",), [[0, 1, "a", 150]])]


async def test_a_table_that_is_read_twice_concerns_all_keys(owner: asyncpg.Connection) -> None:
    insert = "INSERT INTO shop.orders VALUES (1, 'a', 'new', 'x')"
    rows = await logged(owner, insert, "twice")
    assert sorted(row.op for row in rows) == ["u", "w"]


async def test_what_can_not_be_a_source_is_logged_as_a_table_behind(
    owner: asyncpg.Connection,
) -> None:
    mistaken: tuple[dict[str, dict[str, str]], ...] = (
        {"shop.orders": {}, LINES: {}},  # which does not say what the key is called
        {"shop.orders": {"order": "body"}},  # of another type
        {"shop.orders": {}, "shop.nothing": {}},
    )
    for key_from in mistaken:
        await install(owner, {"joined": JOINED.model_copy(update={"key_from": key_from})})
        rows = await logged(owner, "INSERT INTO shop.orders VALUES (9, 'a', 'new', 'x')")
        assert [row.op for row in rows] == ["w"], key_from
        await owner.execute("DELETE FROM shop.orders")


async def test_narrow_tags_are_filled_in_or_all_pages_of_the_tenant_are_concerned(
    owner: asyncpg.Connection,
) -> None:
    tagged = JOINED.model_copy(update={"tags": ("bodies:{body}",)})
    await install(owner, {"joined": tagged})
    (row,) = await logged(owner, "INSERT INTO shop.orders VALUES (1, 'a', 'new', 'x')")
    assert (row.op, row.tags) == ("u", log_hash.tag("bodies:x"))
    (row,) = await logged(owner, f"INSERT INTO {LINES} VALUES (1, 'a', true, 7)")
    assert (row.op, row.tags) == ("m", None)
