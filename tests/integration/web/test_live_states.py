"""Every id of a live answer is a state: while many write, and whatever is killed meanwhile."""

from __future__ import annotations

import asyncio
import json
import random
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import asyncpg
import pytest

from feedsvc.backends.postgres.snapshot import Snapshot
from feedsvc.changes.cursor import Cursor
from tests.support.drawn import DRAWN, share
from tests.support.followers import READERS, SEAL, Oracle, Reader, Writer, prepare
from tests.support.live_copy import LiveCopy, StreamEndedError
from tests.support.servers import as_login
from tests.support.service import bearer, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.integration.conftest import NewDatabase
    from tests.support.service import Running

DEADLINE: Final = 120.0
WRITERS: Final = 4
STEPS: Final = share(480)
SMALL: Final = {
    # Several events to a snapshot, and a state of everything soon.
    "FEEDSVC_STREAMS__CHUNK_BYTES": "16384",
    "FEEDSVC_STREAMS__PING_INTERVAL": "0.3",
    "FEEDSVC_SERVER__WORKERS": "2",
}
MANY: Final = (
    "INSERT INTO shop.orders (number, tenant, level, client, status, name)"
    " SELECT n, CASE WHEN n % 2 = 0 THEN 'a' ELSE 'ä ö' END, n % 7, n % 3, 'open', repeat('x', 700)"
    " FROM generate_series(1000, 1150) AS n"
)
KILL: Final = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND application_name = $1"
)
EVER: Final = "SELECT body::text FROM shop.history WHERE body IS NOT NULL"


@pytest.fixture(scope="module")
async def world(
    new_database: NewDatabase, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[str, Running]]:
    file: Path = tmp_path_factory.mktemp("live") / "datasets.toml"
    async with new_database() as url:
        await prepare(url, file)
        with serving(as_login(url), datasets=file, settings=SMALL) as service:
            yield url, service


class Watcher:
    """A reader who follows, is cut off now and then, and notes each state that it was sent."""

    def __init__(self, reader: Reader, http: aiohttp.ClientSession, seed: int, calm: float) -> None:
        who = bearer(reader.tenant, reader.role, reader.client)
        given = {"live": "1", "format": "sse", **reader.given}
        self.reader = reader
        self.copy = LiveCopy(http, "/v1/feeds/orders", who, {"": ("number",)}, given)
        self.copy.on_state = self._note
        self.states: dict[str, str] = {}
        self.differing: list[str] = []
        self._random = random.Random(seed)
        self._calm = calm

    @property
    def snapshot(self) -> Snapshot | None:
        cursor = self.copy.cursor
        return Cursor.decode(cursor, SEAL).snapshot if len(cursor) > 20 else None

    def _note(self, copy: LiveCopy) -> None:
        rows = json.dumps(copy.rows, sort_keys=True)
        if self.states.setdefault(copy.cursor, rows) != rows:
            self.differing.append(copy.cursor)

    async def follow(self, until: asyncio.Event, final: list[Snapshot]) -> None:
        """Follow until the state has all that was written; cut the connection at random before."""
        while True:
            try:
                async with self.copy.connected():
                    while until.is_set() or self._random.random() < self._calm:
                        await self.copy.next()
                        if until.is_set() and self._has_all(final[0]):
                            return
            except (StreamEndedError, aiohttp.ClientError):
                await asyncio.sleep(0.05)

    def _has_all(self, final: Snapshot) -> bool:
        snapshot = self.snapshot
        return (
            snapshot is not None
            and self.copy.is_synced
            and ":" not in self.copy.last_id
            and snapshot.covers(final)
        )


async def write(url: str, seed: int) -> None:
    """Write with several connections that are open for a while, and kill what reads meanwhile."""
    draw = random.Random(seed)
    owner = await asyncpg.connect(url)
    own = {"lock_timeout": "20ms"}
    connections = [await asyncpg.connect(url, server_settings=own) for _ in range(WRITERS)]
    try:
        writers = [Writer(c, draw.randrange(1 << 30)) for c in connections]
        for step in range(STEPS):
            await asyncio.gather(*(writer.step() for writer in draw.sample(writers, 2)))
            await asyncio.sleep(draw.choice([0, 0, 0.01, 0.03]))
            if step % 40 == 39:
                await owner.execute(KILL, draw.choice(["feedsvc live", "feedsvc read"]))
        for writer in writers:
            await writer.close()
    finally:
        for connection in connections:
            await connection.close()
        await owner.close()


async def mistakes(owner: asyncpg.Connection, watchers: list[Watcher]) -> list[str]:
    """The states that differ from what their snapshots show, and keys out of the reader's sight."""
    oracle, found = Oracle(owner), list[str]()
    bodies: list[dict[str, Any]] = [json.loads(row[0]) for row in await owner.fetch(EVER)]
    for watcher in watchers:
        for cursor, rows in watcher.states.items():
            snapshot = Cursor.decode(cursor, SEAL).snapshot
            known = await oracle.rows(snapshot, watcher.reader)
            expected = {json.dumps([number]): row for number, row in known.items()}
            if json.loads(rows) != expected:
                found.append(f"{watcher.reader} is not in the state of {snapshot}")
        ever = {row["number"] for row in bodies if watcher.reader.may_see(row)}
        told = {json.loads(key)[0] for _, key in watcher.copy.told}
        found += [f"{watcher.reader} was told of {n}" for n in told - ever]
        found += [f"{watcher.reader}: two states of {cursor}" for cursor in watcher.differing]
    return found


@DRAWN
@pytest.mark.parametrize("seed", range(share(4)))
async def test_each_id_is_a_state_and_a_client_goes_on_from_any(
    world: tuple[str, Running], seed: int
) -> None:
    url, service = world
    owner = await asyncpg.connect(url)
    done, final = asyncio.Event(), list[Snapshot]()
    try:
        await owner.execute("DELETE FROM shop.orders")
        await owner.execute(MANY)
        async with aiohttp.ClientSession(service.url) as http:
            # Half of them are cut every few events, the others seldom.
            watchers = [
                Watcher(reader, http, seed * 100 + n, calm)
                for n, reader in enumerate(READERS)
                for calm in (0.6, 0.97)
            ]
            tasks = [asyncio.create_task(each.follow(done, final)) for each in watchers]
            try:
                async with asyncio.timeout(DEADLINE):
                    await write(url, seed)
                    text = await owner.fetchval("SELECT pg_current_snapshot()::text")
                    final.append(Snapshot.parse(text))
                    done.set()
                    await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        assert await mistakes(owner, watchers) == []
        assert sum(len(watcher.states) for watcher in watchers) > STEPS / 6
        assert all(watcher.copy.connections > STEPS // 48 for watcher in watchers[::2])
    finally:
        await owner.close()
