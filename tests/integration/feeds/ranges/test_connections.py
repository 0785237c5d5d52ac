"""Whatever becomes of the connections that read an export, its rows are the same."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from feedsvc.backends.postgres.pool import Pool
from feedsvc.core.problems import DatabaseUnavailable
from feedsvc.feeds.sources import parallel, ranges
from feedsvc.feeds.sources.reader import RangeReader
from feedsvc.settings import Database, PoolSettings
from tests.support.canaries.awaits import cancelled_at
from tests.support.drawn import DRAWN, share
from tests.support.encoding import needs_encoder
from tests.support.servers import LOGIN, as_login
from tests.support.sites import Site, sited

if TYPE_CHECKING:
    from pathlib import Path

    from feedsvc.feeds.sources.ranges import KeyRange
    from streams import encoder

from tests.integration.feeds.ranges.conftest import (
    PLENTY,
    RANGES,
    SIZE,
    Readings,
    left_by,
    opened,
    read_by_several,
    rest_of,
)

pytestmark = needs_encoder


@pytest.mark.parametrize("kept", [0, 1])
async def test_a_connection_that_is_lost_costs_no_row(
    site: Site, owner: asyncpg.Connection, readings: Readings, kept: int
) -> None:
    """All of those that were lent, or all but one; before a range, or in the middle of it."""
    killed: list[int] = []

    async def kill(lane: RangeReader, lent: int) -> None:
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


async def test_a_connection_that_is_frozen_costs_no_row(
    site: Site, readings: Readings, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.pool.settings = PoolSettings(size=SIZE, query_timeout=2)
    monkeypatch.setattr(site.pool, "release_timeout", 1.0)
    expected = await site.read(site.query("items", "projection"))
    frozen: list[int] = []

    async def freeze(lane: RangeReader, lent: int) -> None:
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


@DRAWN
@pytest.mark.usefixtures("readings")
async def test_a_connection_that_is_lost_while_all_wait_for_its_rows_costs_none(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others, the export's own among them, are in the middle of ranges that come later."""
    expected = await site.read(site.query("wide", "projection"))
    monkeypatch.setattr(parallel.ParallelCopy, "_range_rows", lambda *_: 300)
    monkeypatch.setattr(ranges, "AHEAD", 1)
    original, lost = RangeReader._pass_on, set[Any]()

    def pass_on(lane: RangeReader, part: KeyRange, making: encoder.Encoder) -> None:
        original(lane, part, making)
        first, *later = lane._ranges._line
        waiting = [each for each in later if each.is_read and each.batches]
        is_first = not lane._own and first is part and part.missing
        if is_first and len(waiting) == RANGES - 1 and lane._ranges not in lost:
            lost.add(lane._ranges)
            lane._connection.terminate()

    monkeypatch.setattr(RangeReader, "_pass_on", pass_on)
    async with asyncio.timeout(240):  # it takes turns that come by chance
        while len(lost) < share(4):
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


async def test_a_waiting_request_gets_a_connection_that_was_lent(
    site: Site, readings: Readings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though nobody takes the export's rows, and all are in the middle of a range."""
    # Which is no connection's own deadline.
    site.pool.settings = PoolSettings(size=SIZE, query_timeout=60, acquire_timeout=30)
    monkeypatch.setattr(parallel.ParallelCopy, "_range_rows", lambda *_: 300)
    monkeypatch.setattr(ranges, "AHEAD", 1)
    expected = (await site.read(site.query("wide", "projection"))).records
    async with opened(site, site.query("wide", "copy")) as export:
        taken = await read_by_several(export, readings)
        assert site.pool.in_use == RANGES
        async with asyncio.timeout(25), AsyncExitStack() as stack:
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


@DRAWN
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
    for _ in range(share(80)):
        first = dice.randint(1, awaits)
        again = first + dice.randint(1, 6)
        await cancelled_at(work(park=dice.random() < 0.5), first, again)
        await left_by(site)
    backends = [connection.get_server_pid() for connection in site.pool.idle()]
    states = await owner.fetch("SELECT state FROM pg_stat_activity WHERE pid = ANY ($1)", backends)
    assert {row["state"] for row in states} <= {"idle"}
    assert len((await site.read(site.query("items", "copy"))).records) == PLENTY


async def test_beside_a_standby_nothing_is_read_by_several(
    site: Site, url: str, readings: Readings, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database.model_validate({"url": as_login(url)})
    standby = Pool("bulk", site.pool.settings, database)
    await standby.open()
    monkeypatch.setattr(site.pool, "standby", lambda: standby)
    query = site.query("items", "copy")
    on_standby = replace(query, dataset=replace(query.dataset, replica=True))
    expected = (await site.read(site.query("items", "projection"))).records
    async with opened(site, on_standby) as export:
        assert standby.in_use == 1
        assert await rest_of(export) == expected
    assert (readings.own, readings.lent) == (0, 0)
    await standby.close(1.0)
