"""Rows that were asked for before those in front of them were taken: given up, and read again."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Final

import asyncpg
import pytest

from feedsvc.core.problems import Problem
from feedsvc.core.timing import Stages
from feedsvc.feeds import transaction
from feedsvc.feeds.export import Export, open_export
from feedsvc.feeds.export_options import ExportOptions
from feedsvc.feeds.sources.copy_pages import CopyPages
from feedsvc.feeds.sources.cursor import BinaryCursor
from tests.support.encoding import needs_encoder
from tests.support.servers import LOGIN, as_login
from tests.support.sites import CHUNK, MEMBER, Site, sited

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from tests.integration.conftest import NewDatabase

pytestmark = needs_encoder

DEADLINE: Final = 60.0  # seconds for a loaded machine, of the ten minutes of PostgreSQL's sleep
ROWS: Final = 2_000
ASLEEP: Final = 1_000  # the row at which PostgreSQL falls asleep, or fails
SCHEMA = f"""
CREATE SCHEMA ahead;
CREATE TABLE ahead.rows (n bigint PRIMARY KEY, filler text NOT NULL);
INSERT INTO ahead.rows SELECT n, repeat('x', 200) FROM generate_series(1, {ROWS}) AS n;
CREATE TABLE ahead.mood (seconds float8 NOT NULL, divisor int NOT NULL);
INSERT INTO ahead.mood VALUES (600, 1);
-- In order, or a sort would come to every row before the first one leaves.
CREATE VIEW ahead.sleepy AS
    SELECT n, filler, CASE WHEN n = {ASLEEP} THEN
        (SELECT 1 / divisor + length(pg_sleep(seconds)::text) FROM ahead.mood) END AS slept
    FROM ahead.rows ORDER BY n;
GRANT USAGE ON SCHEMA ahead TO {LOGIN};
GRANT SELECT ON ALL TABLES IN SCHEMA ahead TO {LOGIN};
ANALYZE;
"""
DATASETS = (
    '[sleepy]\nrelation = "ahead.sleepy"\nkey = ["n"]\nshared = true\nnot_null = ["n"]\n'
    'source = "cursor"\n'
)


@pytest.fixture
async def owner(new_database: NewDatabase) -> AsyncIterator[tuple[asyncpg.Connection, str]]:
    async with new_database() as url:
        connection = await asyncpg.connect(url)
        await connection.execute(SCHEMA)
        yield connection, url
        await connection.close()


@pytest.fixture
async def site(
    owner: tuple[asyncpg.Connection, str], tmp_path: Path
) -> AsyncIterator[tuple[Site, asyncpg.Connection]]:
    file = tmp_path / "datasets.toml"
    file.write_text(DATASETS)
    connection, url = owner
    async with sited(as_login(url), file, size=1) as made:
        yield made, connection


async def up_to_the_sleeper(export: Export, watcher: asyncpg.Connection) -> list[int]:
    """Take rows until PostgreSQL sleeps over those behind the ones that are ready to be taken."""
    seen = list[int]()
    async with asyncio.timeout(DEADLINE):
        while await export.wait(None) and not await falls_asleep(export, watcher):
            part = await export.take()
            assert part is not None
            seen += numbers(part.records())
    return seen


async def falls_asleep(export: Export, watcher: asyncpg.Connection) -> bool:
    """Return whether PostgreSQL sleeps over the FETCH that was sent ahead, or else answers it."""
    source = export._snapshot._source
    assert isinstance(source, BinaryCursor)
    assert source._ahead is not None
    asleep = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE wait_event = 'PgSleep' AND datname = current_database()"
    )
    while not source._ahead.records.done():
        if await watcher.fetchval(asleep):
            return True
        await asyncio.sleep(0.01)
    return False


def numbers(records: Sequence[bytes]) -> list[int]:
    return [json.loads(record)["n"] for record in records]


@pytest.mark.parametrize("in_hand", [False, True])
async def test_what_was_asked_for_ahead_is_cancelled_and_read_again(
    site: tuple[Site, asyncpg.Connection], caplog: pytest.LogCaptureFixture, in_hand: bool
) -> None:
    """The rows before those are still awaited, or wait to be taken (`in_hand`)."""
    made, owner = site
    query = made.query("sleepy", "cursor")
    async with open_export(query, MEMBER, made.pool, ExportOptions(CHUNK), Stages()) as export:
        seen = await up_to_the_sleeper(export, owner)
        assert export._ahead is not None
        assert export._ahead.done()
        if not in_hand:
            part = await export.take()
            assert part is not None
            seen += numbers(part.records())
            assert not export._ahead.done()
        async with asyncio.timeout(DEADLINE):
            await export.park()
        await owner.execute("UPDATE ahead.mood SET seconds = 0")
        while (part := await export.take()) is not None:
            seen += numbers(part.records())
    assert seen == list(range(1, ROWS + 1))
    assert not caplog.records  # as of a connection that had to be cut, for it was still reading


async def collect(site: Site, seen: list[int]) -> None:
    """All rows there are, for whoever wants to know how many came before a failure."""
    query = site.query("sleepy", "cursor")
    async with open_export(query, MEMBER, site.pool, ExportOptions(CHUNK), Stages()) as export:
        while (part := await export.take()) is not None:
            seen += numbers(part.records())


async def test_rows_before_a_failure_that_came_ahead_are_given_first(
    site: tuple[Site, asyncpg.Connection],
) -> None:
    made, owner = site
    await owner.execute("UPDATE ahead.mood SET seconds = 0, divisor = 0")
    seen = list[int]()
    with pytest.raises(Problem):
        await collect(made, seen)
    assert ASLEEP - 100 <= len(seen) < ASLEEP
    assert seen == list(range(1, len(seen) + 1))
    async with open_export(
        made.query("sleepy", "cursor", limit="10"),
        MEMBER,
        made.pool,
        ExportOptions(CHUNK),
        Stages(),
    ) as export:  # the pool's one connection is as good as new
        assert await export.take() is not None


async def test_a_copy_that_is_given_up_at_its_last_piece_leaves_its_connection_usable(
    site: tuple[Site, asyncpg.Connection],
) -> None:
    """All of it has come by then, and asyncpg would wait for the end of what it cancels."""
    made, owner = site
    await owner.execute("UPDATE ahead.mood SET seconds = 0")
    pages = CopyPages(made.query("sleepy", "copy"), MEMBER, copy_after=0)
    async with transaction.reading(made.pool, MEMBER, Stages()) as (connection, _):
        await pages.begin(connection, None, None)
        pages.rows = ROWS  # as fast as that it has been, so the first page has all of them
        for _ in range(ROWS):
            assert (await pages.read(1, exactly=False)).batch is not None
            await asyncio.sleep(0.01)  # in which the next piece comes
            if pages._encoder.ended:
                break
        assert pages._encoder.rows > 0  # which nobody has taken
        await pages.close()
        async with asyncio.timeout(DEADLINE):
            assert await connection.fetchval("SELECT 1") == 1
