"""An export that several connections read is the same as by one, whatever becomes of them."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import pytest

from feedsvc.auth.principal import Principal
from feedsvc.errors import DatabaseUnavailable
from feedsvc.export import Course, Export, open_export
from feedsvc.pools import Connection, Pool
from feedsvc.settings import Database, PoolSettings
from feedsvc.sources import choice, copied, ranged, ranges
from feedsvc.sources.lane import Lane
from feedsvc.sources.lanes import Lanes
from feedsvc.timing import Stages
from tests.support import servers
from tests.support.canaries.awaits import cancelled_at
from tests.support.encoding import needs_encoder
from tests.support.servers import LOGIN, as_login
from tests.support.sites import CHUNK, Site, sited

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from feedsvc.query import FeedQuery
    from feedsvc.sources.ranges import Range
    from streams import encoder
    from tests.integration.conftest import NewDatabase

pytestmark = needs_encoder

SIZE: Final = 5  # connections of the pool
RANGES: Final = 3  # connections of an export, at most
ROWS: Final = 100  # of a range
PLENTY: Final = 6_000  # rows of a tenant's table

# Row-level security alone tells the tenants apart, and their rows lie side by side.
SCHEMA: Final = f"""
CREATE SCHEMA app;
CREATE TABLE app.items (
    tenant_id text NOT NULL, id bigint NOT NULL, at timestamptz NOT NULL, word text,
    PRIMARY KEY (tenant_id, id)
);
INSERT INTO app.items
SELECT tenant, n, timestamptz '2024-01-01' + n % 50 * interval '1 hour', repeat(tenant, n % 40)
FROM unnest(ARRAY['rosewood', 'other']) AS tenant, generate_series(1, {PLENTY}) AS n;
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
    before: Callable[[Lane, int], Awaitable[None]] | None = None


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> Readings:
    """Makes every export be read by ranges of so many rows from the beginning on."""
    monkeypatch.setattr(choice.candidate, "__defaults__", (0,))
    monkeypatch.setattr(ranged.RangedPages, "_range_rows", lambda *_: ROWS)
    monkeypatch.setattr(ranged, "SURELY_LONG", 0)
    monkeypatch.setattr(ranged, "_KEEPS_UP", 0.0)
    monkeypatch.setattr(ranged, "_AGAIN", 0.0)
    monkeypatch.setattr(ranges, "AHEAD", 3 * CHUNK)
    monkeypatch.setattr("feedsvc.sources.lane.Effort.is_dear", False)
    monkeypatch.setattr("feedsvc.sources.lane.Effort.is_idle", False)
    seen, original = Readings(), Lane._read

    async def read(lane: Lane, part: Range) -> None:
        seen.own += lane._own
        seen.lent += not lane._own
        told = "SELECT current_setting('feedsvc.tenant')"
        seen.tenants.add(await lane._connection.fetchval(told))
        if seen.before is not None:
            await seen.before(lane, seen.lent)
        await original(lane, part)

    monkeypatch.setattr(Lane, "_read", read)
    return seen


@pytest.fixture(scope="module")
async def world_site(world_url: str) -> AsyncIterator[Site]:
    async with sited(world_url, servers.DATASETS, SIZE) as made:
        yield replace(made, ranges=RANGES)


@pytest.fixture
async def url(new_database: NewDatabase) -> AsyncIterator[str]:
    """The superuser's URL of a database of this test's own."""
    async with new_database() as made:
        yield made


@pytest.fixture
async def owner(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url)
    await connection.execute(SCHEMA)
    await connection.execute("VACUUM (ANALYZE)")
    yield connection
    await connection.close()


@pytest.fixture
async def site(owner: asyncpg.Connection, url: str, tmp_path: Path) -> AsyncIterator[Site]:
    file = tmp_path / "datasets.toml"
    file.write_text(DATASETS)
    assert not owner.is_closed()
    async with sited(as_login(url), file, SIZE) as made:
        yield replace(made, ranges=RANGES)
        assert made.pool.in_use == 0


def opened(site: Site, query: FeedQuery) -> AbstractAsyncContextManager[Export]:
    return open_export(query, site.who, site.pool, Course(CHUNK), Stages())


async def rest_of(export: Export) -> list[bytes]:
    """The records that are still to come."""
    records: list[bytes] = []
    while (part := await export.take()) is not None:
        records += part.records()
    return records


async def read_by_several(export: Export, readings: Readings) -> list[bytes]:
    """Takes rows until others than the export's own connection have read some of them."""
    records: list[bytes] = []
    while not readings.lent:
        part = await export.take()
        assert part is not None, "one connection has read them all"
        records += part.records()
    return records


async def left_by(site: Site) -> None:
    """Waits until nobody has a connection any more."""
    async with asyncio.timeout(5):
        while site.pool.in_use:
            await asyncio.sleep(0.01)


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
    monkeypatch.setattr(ranged.RangedPages, "_range_rows", lambda *_: 20)
    expected = await world_site.read(world_site.query("clients", "projection", **given))
    assert expected.records
    assert await world_site.read(world_site.query("clients", "copy", **given)) == expected
    assert readings.lent


@pytest.mark.parametrize("first", ["ranges", "pages"])
async def test_a_limit_is_kept_to_the_row_and_tells_of_more(
    site: Site, readings: Readings, first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if first == "pages":
        monkeypatch.setattr(copied, "LARGEST_PAGE", ROWS // 2)
        monkeypatch.setattr(ranged, "SURELY_LONG", 20_000)
    everything = (await site.read(site.query("items", "projection"))).records
    assert len(everything) == PLENTY
    limits = [ROWS * n + d for n in (1, 2, 3, 10) for d in (-1, 0, 1)]
    for limit in (*limits, PLENTY - ROWS, PLENTY - 1, PLENTY, PLENTY + 1):
        found = await site.read(site.query("items", "copy", limit=str(limit)))
        assert found.records == everything[:limit]
        assert found.more is (limit < PLENTY), limit
    assert readings.lent


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


async def test_nobody_sees_what_others_write_meanwhile(
    site: Site, owner: asyncpg.Connection, readings: Readings
) -> None:
    expected = (await site.read(site.query("items", "projection"))).records
    async with opened(site, site.query("items", "copy")) as export:
        taken = await read_by_several(export, readings)
        await owner.execute(WRITES)
        before = readings.lent
        assert [*taken, *await rest_of(export)] == expected
        assert export.snapshots == 1
    assert readings.lent > before


async def test_nobody_sees_what_others_wrote_before_it_came(
    site: Site, owner: asyncpg.Connection, readings: Readings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the snapshot of the export's own connection that all of them read in."""
    expected = (await site.read(site.query("items", "projection"))).records
    original = Lanes.begin

    async def begin(lanes: Lanes, connection: Connection, most: int) -> None:
        await owner.execute(WRITES)
        await original(lanes, connection, most)

    monkeypatch.setattr(Lanes, "begin", begin)
    assert (await site.read(site.query("items", "copy"))).records == expected
    assert readings.lent


async def test_every_connection_is_told_who_reads(site: Site, readings: Readings) -> None:
    for tenant in ("rosewood", "other", "nobody"):
        readings.tenants.clear()
        readings.lent = 0
        told = replace(site, who=Principal(tenant, "member", None, 0.0))
        expected = await told.read(told.query("items", "projection"))
        assert len(expected.records) == (0 if tenant == "nobody" else PLENTY)
        assert all(f'"tenant_id":"{tenant}"'.encode() in row for row in expected.records)
        assert await told.read(told.query("items", "copy")) == expected
        if expected.records:
            assert readings.tenants == {tenant}
            assert readings.lent


@pytest.mark.parametrize("kept", [0, 1])
async def test_a_connection_that_is_lost_costs_no_row(
    site: Site, owner: asyncpg.Connection, readings: Readings, kept: int
) -> None:
    """All of those that were lent, or all but one; before a range, or in the middle of it."""
    killed: list[int] = []

    async def kill(lane: Lane, lent: int) -> None:
        if not lane._own and lent > 4 + len(killed) and len(killed) < RANGES - 1 - kept:
            pid = lane._connection.get_server_pid()
            killed.append(pid)
            end = owner.execute(f"SELECT pg_terminate_backend({pid})")
            if len(killed) % 2:
                await end
            else:
                asyncio.get_running_loop().call_soon(asyncio.ensure_future, end)

    readings.before = kill
    expected = await site.read(site.query("items", "projection"))
    for _ in range(5):
        killed.clear()
        readings.lent = 0
        found = await site.read(site.query("items", "copy"))
        assert found == expected
        assert found.snapshots == 1
        assert len(killed) == RANGES - 1 - kept


async def test_a_connection_that_is_frozen_costs_no_row(site: Site, readings: Readings) -> None:
    site.pool.settings = PoolSettings(size=SIZE, query_timeout=2)
    expected = await site.read(site.query("items", "projection"))
    frozen: list[int] = []

    async def freeze(lane: Lane, lent: int) -> None:
        if not lane._own and not frozen and lent > 3:
            frozen.append(lane._connection.get_server_pid())
            os.kill(frozen[0], signal.SIGSTOP)

    readings.before = freeze
    try:
        found = await site.read(site.query("items", "copy"))
    finally:
        for pid in frozen:
            os.kill(pid, signal.SIGCONT)
    assert frozen
    assert (found, found.snapshots) == (expected, 1)


@pytest.mark.usefixtures("readings")
async def test_a_connection_that_is_lost_while_all_wait_for_its_rows_costs_none(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others, the export's own among them, are in the middle of ranges that come later."""
    expected = await site.read(site.query("wide", "projection"))
    monkeypatch.setattr(ranged.RangedPages, "_range_rows", lambda *_: 300)
    monkeypatch.setattr(ranges, "AHEAD", 1)
    original, lost = Lane._pass_on, set[Any]()

    def pass_on(lane: Lane, part: Range, making: encoder.Encoder) -> None:
        original(lane, part, making)
        first, *later = lane._ranges._line
        waiting = [each for each in later if each.is_read and each.batches]
        is_first = not lane._own and first is part and part.missing
        if is_first and len(waiting) == RANGES - 1 and lane._ranges not in lost:
            lost.add(lane._ranges)
            lane._connection.terminate()

    monkeypatch.setattr(Lane, "_pass_on", pass_on)
    async with asyncio.timeout(60):
        while len(lost) < 3:
            assert await site.read(site.query("wide", "copy")) == expected


async def test_when_its_own_connection_is_lost_an_export_fails_and_keeps_nothing(
    site: Site, owner: asyncpg.Connection, readings: Readings
) -> None:
    async with opened(site, site.query("items", "copy")) as export:
        await read_by_several(export, readings)
        leased = [connection.get_server_pid() for connection in site.pool.leases.values()]
        await owner.execute("SELECT pg_terminate_backend(pid) FROM unnest($1::int[]) pid", leased)
        with pytest.raises(DatabaseUnavailable):
            await rest_of(export)
    assert site.pool.in_use == 0


async def test_where_no_further_connection_can_be_made_one_is_enough(
    site: Site,
    owner: asyncpg.Connection,
    url: str,
    readings: Readings,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    expected = await site.read(site.query("items", "projection"))
    login, password = f"limited_{random.getrandbits(32):x}", "limited"
    await owner.execute(
        f"CREATE ROLE {login} LOGIN PASSWORD '{password}' CONNECTION LIMIT 1 IN ROLE {LOGIN}"
    )
    try:
        async with sited(as_login(url, login, password), tmp_path / "datasets.toml", SIZE) as made:
            alone = replace(made, ranges=RANGES)
            assert await alone.read(alone.query("items", "copy")) == expected
        assert "an export goes on with a connection less" in caplog.text
        assert readings.lent == 0
    finally:
        await owner.execute(f"DROP ROLE {login}")


async def test_whoever_waits_gets_a_connection_that_was_lent(
    site: Site, readings: Readings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though nobody takes the export's rows, and all are in the middle of a range."""
    monkeypatch.setattr(ranged.RangedPages, "_range_rows", lambda *_: 300)
    monkeypatch.setattr(ranges, "AHEAD", 1)
    expected = (await site.read(site.query("wide", "projection"))).records
    async with opened(site, site.query("wide", "copy")) as export:
        taken = await read_by_several(export, readings)
        assert site.pool.in_use == RANGES
        async with asyncio.timeout(10), AsyncExitStack() as stack:
            for large in (True, True, True, False):
                await stack.enter_async_context(site.pool.lease(large=large))
            assert site.pool.in_use == SIZE
            assert not site.pool.waiting
        assert [*taken, *await rest_of(export)] == expected
        assert export.snapshots == 1


async def test_it_has_no_others_where_its_pool_has_none_to_spare(
    site: Site, readings: Readings
) -> None:
    expected = (await site.read(site.query("items", "projection"))).records
    for large, others in ((True, 1), (False, SIZE - 2)):
        async with AsyncExitStack() as stack:
            for _ in range(others):
                await stack.enter_async_context(site.pool.lease(large=large))
            assert (await site.read(site.query("items", "copy"))).records == expected
        assert readings.lent == 0


async def test_a_client_that_stalls_leaves_every_connection(site: Site, readings: Readings) -> None:
    async with opened(site, site.query("items", "copy")) as export:
        taken = await read_by_several(export, readings)
        assert site.pool.in_use == RANGES
        await export.park()
        assert site.pool.in_use == 0
        expected = await site.read(site.query("items", "projection"))
        assert [*taken, *await rest_of(export)] == expected.records
        assert export.snapshots == 2


async def test_it_is_given_up_at_any_await_and_keeps_nothing(
    site: Site, owner: asyncpg.Connection, readings: Readings
) -> None:
    async def work(*, park: bool) -> None:
        async with opened(site, site.query("items", "copy", limit="2000")) as export:
            while await export.take() is not None:
                if park and readings.lent:
                    readings.lent = 0
                    await export.park()

    dice = random.Random(6)
    awaits, _ = await cancelled_at(work(park=False))
    assert readings.lent
    for _ in range(80):
        first = dice.randint(1, awaits)
        again = first + dice.randint(1, 6)
        await cancelled_at(work(park=dice.random() < 0.5), first, again)
        await left_by(site)
    backends = [connection.get_server_pid() for connection in site.pool.idle()]
    states = await owner.fetch("SELECT state FROM pg_stat_activity WHERE pid = ANY ($1)", backends)
    assert {row["state"] for row in states} <= {"idle"}
    assert len((await site.read(site.query("items", "copy"))).records) == PLENTY


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


async def test_beside_a_standby_nothing_is_read_by_several(
    site: Site, url: str, readings: Readings
) -> None:
    database = Database.model_validate({"url": as_login(url)})
    standby = Pool("bulk", site.pool.settings, database)
    await standby.open()
    site.pool.standby = lambda: standby
    query = site.query("items", "copy")
    on_standby = replace(query, dataset=replace(query.dataset, replica=True))
    expected = (await site.read(site.query("items", "projection"))).records
    async with opened(site, on_standby) as export:
        assert standby.in_use == 1
        assert await rest_of(export) == expected
    assert (readings.own, readings.lent) == (0, 0)
    await standby.close(1.0)
