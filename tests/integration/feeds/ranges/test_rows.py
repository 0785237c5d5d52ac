"""An export that several connections read is the same as by one."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import asyncpg
import pytest

from feedsvc.backends.postgres.pool import Connection, Pool
from feedsvc.core.principal import Principal
from feedsvc.feeds.sources import copy_pages, parallel
from feedsvc.feeds.sources.reader import RangeReader
from feedsvc.feeds.sources.readers import RangeReaders
from tests.support.encoding import needs_encoder
from tests.support.sites import Site

if TYPE_CHECKING:
    pass

from tests.integration.feeds.ranges.conftest import (
    PLENTY,
    ROWS,
    Readings,
    opened,
    read_by_several,
    rest_of,
)

pytestmark = needs_encoder


@pytest.mark.parametrize("form", ["ndjson", "csv", "json", "sse"])
async def test_a_feed_is_the_same_by_several_connections(
    world_site: Site, readings: Readings, form: str
) -> None:
    for name, dataset in world_site.datasets.items():
        for order in dataset.orders:
            given = {"format": form, "order": order}
            expected = await world_site.read(world_site.query(name, "projection", **given))
            found = await world_site.read(world_site.query(name, "copy", **given))
            if form == "sse":  # which has an event for each part
                expected, found = replace(expected, body=b""), replace(found, body=b"")
            assert found == expected, (name, order)
            assert (found.source, found.snapshots) == ("copy", 1)
    assert readings.lent > 10
    assert readings.own > 10


@pytest.mark.parametrize(
    "given",
    [
        {"status.ne": "enquiry"},
        {"id.gt": "700", "order": "key"},
        {"partner_one.prefix": "A", "order": "newest"},
        {"venue.is": "notnull", "order": "name", "columns": "venue,id"},
    ],
)
async def test_a_filtered_feed_is_the_same_by_several_connections(
    world_site: Site, readings: Readings, given: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel.ParallelCopy, "_range_rows", lambda *_: 20)
    expected = await world_site.read(world_site.query("clients", "projection", **given))
    assert expected.records
    assert await world_site.read(world_site.query("clients", "copy", **given)) == expected
    assert readings.lent


@pytest.mark.parametrize("first", ["ranges", "pages"])
async def test_a_limit_is_kept_to_the_row_and_shows_that_there_is_more(
    site: Site, readings: Readings, first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if first == "pages":
        monkeypatch.setattr(copy_pages, "LARGEST_PAGE", ROWS // 2)
        monkeypatch.setattr(parallel, "SURELY_LONG", 20_000)
    everything = (await site.read(site.query("items", "projection"))).records
    assert len(everything) == PLENTY
    limits = [ROWS * n + d for n in (1, 2, 3, 10) for d in (-1, 0, 1)]
    for limit in (*limits, PLENTY - ROWS, PLENTY - 1, PLENTY, PLENTY + 1):
        found = await site.read(site.query("items", "copy", limit=str(limit)))
        assert found.records == everything[:limit]
        assert found.more is (limit < PLENTY), limit
    assert readings.lent


async def test_a_limit_is_kept_where_pages_come_before_ranges_and_behind_them(
    site: Site, readings: Readings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of rows that ranges gave between them, a page's encoder knows nothing."""
    monkeypatch.setattr(copy_pages, "LARGEST_PAGE", ROWS // 2)
    everything = (await site.read(site.query("items", "projection"))).records
    spare, looks = Pool.__dict__["spare"].fget, 0

    def none_at_first(pool: Pool) -> int:
        nonlocal looks
        looks += 1
        return 0 if looks <= 4 else int(spare(pool))

    async def behind_a_lent_one(lane: RangeReader, _: int) -> None:
        while lane._own and not readings.lent:
            await asyncio.sleep(0.001)

    monkeypatch.setattr(Pool, "spare", property(none_at_first))
    readings.before = behind_a_lent_one  # else it may have read all before one is there
    for limit in (ROWS * 8 + 37, ROWS * 9 - 1, ROWS * 9 + 1):
        looks, readings.lent = 0, 0
        async with asyncio.timeout(60):  # a mistake here is a page without rows, without end
            found = await site.read(site.query("items", "copy", limit=str(limit)))
        assert found.records == everything[:limit]
        assert found.more
        assert readings.lent
        assert looks > 4


@pytest.mark.parametrize("order", ["key", "latest"])
async def test_a_feed_is_the_same_however_often_it_is_parked(
    site: Site, readings: Readings, order: str
) -> None:
    expected = await site.read(site.query("items", "projection", order=order))
    for seed in range(3):
        query = site.query("items", "copy", order=order)
        assert await site.read(query, park=random.Random(seed)) == expected
    assert readings.lent


async def test_it_goes_on_behind_a_token(site: Site, readings: Readings) -> None:
    half = await site.read(site.query("items", "projection", limit=str(PLENTY // 2)))
    assert half.after is not None
    rest = await site.read(site.query("items", "copy", after=half.after))
    assert [*half.records, *rest.records] == (
        await site.read(site.query("items", "projection"))
    ).records
    assert readings.lent


WRITES: Final = (
    "DELETE FROM app.items WHERE id % 7 = 0;"
    "UPDATE app.items SET word = 'changed' WHERE id % 7 = 1;"
    "UPDATE app.items SET id = -id WHERE id % 7 = 2;"
    "INSERT INTO app.items SELECT 'rosewood', 100000 + n, now(), 'new'"
    " FROM generate_series(1, 500) AS n"
)


async def test_no_reader_sees_rows_written_meanwhile(
    site: Site, writer: asyncpg.Connection, readings: Readings
) -> None:
    expected = (await site.read(site.query("items", "projection"))).records
    async with opened(site, site.query("items", "copy")) as export:
        taken = await read_by_several(export, readings)
        await writer.execute(WRITES)
        before = readings.lent
        assert [*taken, *await rest_of(export)] == expected
        assert export.snapshots == 1
    assert readings.lent > before


async def test_no_reader_sees_rows_written_before_it_came(
    site: Site, writer: asyncpg.Connection, readings: Readings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the snapshot of the export's own connection that all of them read in."""
    expected = (await site.read(site.query("items", "projection"))).records
    original = RangeReaders.begin

    async def begin(lanes: RangeReaders, connection: Connection, most: int) -> None:
        await writer.execute(WRITES)
        await original(lanes, connection, most)

    monkeypatch.setattr(RangeReaders, "begin", begin)
    assert (await site.read(site.query("items", "copy"))).records == expected
    assert readings.lent


async def test_every_connection_knows_the_reader(site: Site, readings: Readings) -> None:
    for tenant in ("rosewood", "other", "nobody"):
        readings.tenants.clear()
        readings.lent = 0
        reported = replace(site, who=Principal(tenant, "member", None, 0.0))
        expected = await reported.read(reported.query("items", "projection"))
        assert len(expected.records) == (0 if tenant == "nobody" else PLENTY)
        assert all(f'"tenant_id":"{tenant}"'.encode() in row for row in expected.records)
        assert await reported.read(reported.query("items", "copy")) == expected
        if expected.records:
            assert readings.tenants == {tenant}
            assert readings.lent


async def test_rows_that_change_within_a_snapshot_stay_in_order_and_come_once(
    site: Site, readings: Readings
) -> None:
    """As those of a view that throws dice: nobody can say which they are, but where they go."""
    for _ in range(10):
        found = await site.read(site.query("unsteady", "copy", columns="n"))
        numbers = [int(record[5:-1]) for record in found.records]
        assert all(before < after for before, after in pairwise(numbers))
        assert len(numbers) > PLENTY * 0.98
    assert readings.lent
