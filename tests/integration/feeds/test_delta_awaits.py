"""Deltas and looks that end at each of their awaits: nothing is lost, repeated, stale or held."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING, Final

import asyncpg
import pytest

from feedsvc.backends.postgres.snapshot import Snapshot
from feedsvc.cache.invalidation import Invalidation
from feedsvc.cache.ledger import Ledger
from feedsvc.cache.policy import Coverage
from feedsvc.changes import log_reader
from feedsvc.changes.log_reader import LogReader
from feedsvc.core.events import Observers
from feedsvc.core.problems import Problem
from feedsvc.datasets.dataset import declarations
from feedsvc.feeds import delta
from feedsvc.settings import Database
from tests.support.canaries.awaits import cancelled_at
from tests.support.followers import Follower, Oracle, Reader, followed, prepare
from tests.support.servers import as_login

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from feedsvc.datasets.dataset import Dataset
    from feedsvc.feeds.delta_wait import Deltas
    from tests.integration.conftest import NewDatabase

MOST_AWAITS: Final = 400
STRIDES: Final = {"survey": 9}  # of each look one that plans all triggers
READER: Final = Reader("a")
CHANGES: Final = (
    "DELETE FROM shop.orders WHERE number = {0} - 8",
    "UPDATE shop.orders SET level = 9 WHERE number = {0} - 5",
    "UPDATE shop.orders SET name = name || '+'",
    "INSERT INTO shop.orders (number, tenant, level, name) VALUES ({0}, 'a', 1, 'x')",
)
SESSIONS: Final = """
SELECT pid FROM pg_stat_activity
WHERE datname = current_database() AND application_name = $1
"""
IN_TRANSACTION: Final = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND application_name LIKE 'feedsvc %' AND state <> 'idle'
"""


@pytest.fixture(scope="module")
async def world(
    new_database: NewDatabase, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[str, Path]]:
    file = tmp_path_factory.mktemp("awaits") / "datasets.toml"
    async with new_database() as url:
        await prepare(url, file)
        yield url, file


@pytest.fixture(scope="module")
async def site(world: tuple[str, Path]) -> AsyncIterator[tuple[Dataset, Deltas]]:
    async with followed(*world) as made:
        yield made


@pytest.fixture
async def owner(world: tuple[str, Path]) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(world[0])
    yield connection
    await connection.close()


async def killer(owner: asyncpg.Connection, name: str) -> Callable[[], bool]:
    """A function that ends the server's processes of the sessions of this name, as they are now."""
    found = [row[0] for row in await owner.fetch(SESSIONS, name)]

    def kill() -> bool:
        for pid in found:
            os.kill(pid, signal.SIGTERM)
        return bool(found)

    return kill


@pytest.mark.parametrize("end", ["client", "connection"])
async def test_a_delta_that_ends_at_any_await_is_asked_for_again(
    owner: asyncpg.Connection,
    site: tuple[Dataset, Deltas],
    end: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A client applies a delta as a whole or not at all, and comes back with the cursor it has."""
    monkeypatch.setattr(delta, "_FIRST_BATCH", 3)
    monkeypatch.setattr(delta, "_MOST_AT_ONCE", 3)
    await owner.execute("DELETE FROM shop.orders")
    follower = Follower(READER, *site)
    await follower.export()
    disturbed = 0
    for at in range(1, MOST_AWAITS):
        for change in CHANGES:
            await owner.execute(change.format(at))
        act = None if end == "client" else await killer(owner, "feedsvc read")
        trial = follower.copy()
        try:
            _, done = await cancelled_at(trial.follow(digest="1"), at, act=act)
        except (Problem, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            done = 1  # it broke off, and what was applied of it is rolled back
        await follow(follower)
        assert follower.rows == await Oracle(owner).rows(follower.snapshot, READER), at
        disturbed += done
        if not done:
            break
    assert disturbed > 10
    assert at < MOST_AWAITS - 1, "it never came to its end"
    async with asyncio.timeout(60):
        while await owner.fetchval(IN_TRANSACTION):
            await asyncio.sleep(0.01)


async def follow(follower: Follower) -> None:
    """Come back until an answer is whole, as a client does."""
    for _ in range(20):
        trial = follower.copy()
        try:
            await trial.follow()
        except (Problem, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            continue  # connections that were lost are found out one by one
        follower.rows, follower.cursor = trial.rows, trial.cursor
        return
    raise AssertionError("no delta came to its end")


class Pages:
    """A worker's reader of the log, and what it admits of pages that were read before."""

    def __init__(self, url: str, file: Path, owner: asyncpg.Connection) -> None:
        self._owner = owner
        self._ledger, self._coverage = Ledger(keep=300), Coverage({})
        self._declared = declarations(file)
        watch = Invalidation(self._coverage, self._ledger, self._declared, Observers())
        database = Database.model_validate({"url": as_login(url)})
        self.reader = LogReader(database, watch, watch.survey, interval=0.0)

    async def page(self) -> Snapshot:
        """A page that is read now."""
        text = await self._owner.fetchval("SELECT pg_current_snapshot()::text")
        return Snapshot.parse(text)

    def admits(self, page: Snapshot) -> bool:
        templates = self._declared["orders"].templates("orders")
        items = self._coverage.feeds["orders"].items(templates, {"tenant": "a"})
        assert items is not None
        return self._ledger.is_fresh(page, items)

    async def look(self) -> None:
        """Look until the log could be read."""
        async with asyncio.timeout(60):
            while not await self.reader.catch_up():
                await asyncio.sleep(0.01)


@pytest.fixture
async def pages(
    world: tuple[str, Path], owner: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Pages]:
    monkeypatch.setattr(log_reader, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(log_reader, "_LONGEST_PAUSE", 0.02)
    made = Pages(*world, owner)
    running = asyncio.create_task(made.reader.run())
    await made.look()
    yield made
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize("end", ["request", "connection", "survey"])
async def test_a_look_that_ends_at_any_await_admits_no_older_page(
    owner: asyncpg.Connection, pages: Pages, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if end == "survey":
        monkeypatch.setattr(log_reader, "SURVEY_INTERVAL", 0.0)  # so that each look waits for one
        monkeypatch.setattr(log_reader, "_SURVEY_RETRY", 0.0)
    insert = "INSERT INTO shop.orders (number, tenant, level) VALUES ({}, 'a', 1)"
    await owner.execute("DELETE FROM shop.orders")
    for at in range(1, MOST_AWAITS, STRIDES.get(end, 1)):
        await pages.look()
        page = await pages.page()
        assert pages.admits(page)
        await owner.execute(insert.format(at))
        act = None if end == "request" else await killer(owner, log_reader.APPLICATION_NAME)
        _, done = await cancelled_at(pages.reader.catch_up(), at, act=act)
        await pages.look()
        assert not pages.admits(page), at
        if not done:
            break
    assert 2 < at < MOST_AWAITS - 1, "it did not wait, or it never came to its end"
