"""Exports that several connections read, range by range, from the beginning on."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import asyncpg
import pytest

from feedsvc.core.timing import Stages
from feedsvc.feeds.export import Export, open_export
from feedsvc.feeds.export_options import ExportOptions
from feedsvc.feeds.sources import choice, parallel, ranges
from feedsvc.feeds.sources.reader import RangeReader
from tests.support import servers
from tests.support.servers import LOGIN, as_login
from tests.support.sites import CHUNK, Site, sited

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from feedsvc.feeds.query import FeedQuery
    from feedsvc.feeds.sources.ranges import KeyRange
    from tests.integration.conftest import NewDatabase

SIZE: Final = 5  # connections of the pool
RANGES: Final = 3  # connections of an export, at most
ROWS: Final = 100  # of a range
PLENTY: Final = 6_000  # rows of a tenant's table

ITEMS: Final = f"""
INSERT INTO app.items
SELECT tenant, n, timestamptz '2024-01-01' + n % 50 * interval '1 hour', repeat(tenant, n % 40)
FROM unnest(ARRAY['rosewood', 'other']) AS tenant, generate_series(1, {PLENTY}) AS n
"""
# Row-level security alone tells the tenants apart, and their rows lie side by side.
SCHEMA: Final = f"""
CREATE SCHEMA app;
CREATE TABLE app.items (
    tenant_id text NOT NULL, id bigint NOT NULL, at timestamptz NOT NULL, word text,
    PRIMARY KEY (tenant_id, id)
);
{ITEMS};
ALTER TABLE app.items ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own_tenant ON app.items FOR SELECT TO {LOGIN} USING (
    tenant_id = (SELECT nullif(current_setting('feedsvc.tenant', true), ''))
);
CREATE TABLE app.numbers AS SELECT generate_series(1, {PLENTY}) AS n, repeat('x', 50) AS word;
ALTER TABLE app.numbers ADD PRIMARY KEY (n);
CREATE TABLE app.wide AS SELECT n, repeat('x', 2000) AS word FROM app.numbers;
ALTER TABLE app.wide ADD PRIMARY KEY (n);
CREATE VIEW app.unsteady AS SELECT n, word FROM app.numbers WHERE random() < 0.998;
GRANT USAGE ON SCHEMA app TO {LOGIN};
GRANT SELECT ON ALL TABLES IN SCHEMA app TO {LOGIN};
"""
DATASETS: Final = """
[items]
relation = "app.items"
key = ["tenant_id", "id"]
shared = true
[items.orders]
latest = ["tenant_id", "-id"]

[wide]
relation = "app.wide"
key = ["n"]
shared = true

[unsteady]
relation = "app.unsteady"
key = ["n"]
not_null = ["n"]
shared = true
"""


@dataclass
class Readings:
    """Each range that was read, by a connection of the pool's or by the export's own.

    `before` is called with each of them before it is read.
    """

    own: int = 0
    lent: int = 0
    tenants: set[str] = field(default_factory=set)
    before: Callable[[RangeReader, int], Awaitable[None]] | None = None


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> Readings:
    """Make every export be read by ranges of so many rows from the beginning on."""
    monkeypatch.setattr(choice.candidate, "__defaults__", (0,))
    monkeypatch.setattr(parallel.ParallelCopy, "_range_rows", lambda *_: ROWS)
    monkeypatch.setattr(parallel, "SURELY_LONG", 0)
    monkeypatch.setattr(parallel, "_KEEPS_UP", 0.0)
    monkeypatch.setattr(parallel, "_AGAIN", 0.0)
    monkeypatch.setattr(ranges, "AHEAD", 3 * CHUNK)
    monkeypatch.setattr("feedsvc.feeds.sources.reader.Effort.is_dear", False)
    monkeypatch.setattr("feedsvc.feeds.sources.reader.Effort.is_idle", False)
    seen, original = Readings(), RangeReader._read

    async def read(lane: RangeReader, part: KeyRange) -> None:
        seen.own += lane._own
        seen.lent += not lane._own
        reported = "SELECT current_setting('feedsvc.tenant')"
        seen.tenants.add(await lane._connection.fetchval(reported))
        if seen.before is not None:
            await seen.before(lane, seen.lent)
        await original(lane, part)

    monkeypatch.setattr(RangeReader, "_read", read)
    return seen


@pytest.fixture(scope="module")
async def world_site(world_url: str) -> AsyncIterator[Site]:
    async with sited(world_url, servers.DATASETS, SIZE) as made:
        yield replace(made, ranges=RANGES)


@pytest.fixture(scope="module")
async def url(new_database: NewDatabase) -> AsyncIterator[str]:
    """The superuser's URL of a database with the tables, whose rows a file's tests share."""
    async with new_database() as made:
        connection = await asyncpg.connect(made)
        await connection.execute(SCHEMA)
        await connection.execute("VACUUM (ANALYZE)")
        await connection.close()
        yield made


@pytest.fixture
async def owner(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url)
    yield connection
    await connection.close()


@pytest.fixture
async def writer(owner: asyncpg.Connection) -> AsyncIterator[asyncpg.Connection]:
    """One that may change the items: they are put back."""
    yield owner
    await owner.execute(f"TRUNCATE app.items; {ITEMS}")
    await owner.execute("VACUUM (ANALYZE) app.items")


@pytest.fixture
async def site(owner: asyncpg.Connection, url: str, tmp_path: Path) -> AsyncIterator[Site]:
    file = tmp_path / "datasets.toml"
    file.write_text(DATASETS)
    assert not owner.is_closed()
    async with sited(as_login(url), file, SIZE) as made:
        yield replace(made, ranges=RANGES)
        assert made.pool.in_use == 0


def opened(site: Site, query: FeedQuery) -> AbstractAsyncContextManager[Export]:
    return open_export(query, site.who, site.pool, ExportOptions(CHUNK), Stages())


async def rest_of(export: Export) -> list[bytes]:
    """The records that are still to come."""
    records: list[bytes] = []
    while (part := await export.take()) is not None:
        records += part.records()
    return records


async def read_by_several(export: Export, readings: Readings) -> list[bytes]:
    """Take rows until others than the export's own connection have read some of them."""
    records: list[bytes] = []
    while not readings.lent:
        part = await export.take()
        assert part is not None, "one connection has read them all"
        records += part.records()
    return records


async def left_by(site: Site) -> None:
    """Wait until no connection is lent any more."""
    async with asyncio.timeout(60):
        while site.pool.in_use:
            await asyncio.sleep(0.01)
