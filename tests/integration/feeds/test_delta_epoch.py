"""A commit that was followed and then lost by a crash: the cursor begins anew."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import asyncpg
import pytest

from feedsvc.core.problems import Reset
from feedsvc.feeds.cursors import Cursors
from tests.support.followers import SEAL, Follower, Oracle, Reader, followed, prepare
from tests.support.servers import LOGIN, PASSWORD, copied_postgres

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from feedsvc.commands.demo.embedded import PostgresServer

# No commit is flushed by itself, and the WAL writer sleeps as long as it can.
FORGETFUL = {"synchronous_commit": "off", "wal_writer_delay": "10s"}
INSERT = "INSERT INTO shop.orders (number, tenant, level) VALUES"


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with copied_postgres(FORGETFUL) as server:
        yield server


@pytest.fixture(scope="module")
async def file(server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    datasets = tmp_path_factory.mktemp("crashed") / "datasets.toml"
    owner = await asyncpg.connect(server.url())
    try:
        await owner.execute(f"CREATE ROLE {LOGIN} LOGIN PASSWORD $${PASSWORD}$$")
        await prepare(server.url(), datasets)
        await owner.execute(f"GRANT feedsvc_service TO {LOGIN}")
    finally:
        await owner.close()
    return datasets


@asynccontextmanager
async def follower(server: PostgresServer, file: Path, cursor: Follower | None = None) -> (
    AsyncIterator[Follower]
):  # fmt: skip
    """A follower of the server as it is now, with a former one's copy."""
    async with followed(server.url(), file) as (dataset, deltas):
        if cursor is None:
            made = Follower(Reader("a"), dataset, deltas)
            await made.export()
            yield made
        else:
            yield replace(cursor.copy(), dataset=dataset, deltas=deltas)


async def lose_a_commit(server: PostgresServer, file: Path) -> Follower:
    """A follower that has a row which is no more: its commit is lost, its number given again."""
    for number in range(1, 6):
        owner = await asyncpg.connect(server.url())
        await owner.execute("DELETE FROM shop.orders")
        await owner.execute(f"{INSERT} ({100 + number}, 'a', 1)")
        await owner.execute("CHECKPOINT")
        async with follower(server, file) as kept:
            await owner.execute(f"{INSERT} ({number}, 'a', 1)")
            await kept.follow()
            assert number in kept.rows
            await asyncio.to_thread(server.stop, "kill")
        await owner.close()
        await asyncio.to_thread(server.start)
        owner = await asyncpg.connect(server.url())
        try:
            if await owner.fetchval("SELECT number FROM shop.orders WHERE number = $1", number):
                continue
            # Others get the numbers of the transactions that were lost.
            for _ in range(20):
                await owner.execute("BEGIN; SELECT pg_current_xact_id(); COMMIT")
            await owner.execute(f"{INSERT} ({200 + number}, 'a', 1)")
            return kept
        finally:
            await owner.close()
    pytest.fail("no commit was lost")


async def test_a_crash_begins_anew(server: PostgresServer, file: Path) -> None:
    kept = await lose_a_commit(server, file)
    async with follower(server, file, kept) as again:
        with pytest.raises(Reset) as raised:
            await again.follow()
        assert raised.value.reason == "epoch"
        await again.export()
        assert await again.follow() == 0


async def test_without_the_epoch_a_follower_would_keep_what_was_lost(
    server: PostgresServer, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def none(*_: object) -> int:
        return 0

    monkeypatch.setattr(Cursors, "epoch", none)
    kept = await lose_a_commit(server, file)
    owner = await asyncpg.connect(server.url())
    try:
        async with follower(server, file, kept) as again:
            await again.follow()
            assert again.rows != await Oracle(owner).rows(again.snapshot, again.reader)
    finally:
        await owner.close()


async def test_files_that_come_back_begin_anew(server: PostgresServer, file: Path) -> None:
    """As a copy that was made at rest does, in which the epoch is still there."""
    async with follower(server, file) as kept:
        cursor = kept.deltas.cursors.parse(kept.cursor)
        later = replace(cursor.snapshot, xmax=cursor.snapshot.xmax + 1_000)
        kept.cursor = replace(cursor, snapshot=later).encode(SEAL)
        with pytest.raises(Reset) as raised:
            await kept.follow()
        assert raised.value.reason == "epoch"
