"""Readers who follow a feed while many write, and the states that they ought to have had."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp
import asyncpg

from feedsvc.backends.postgres.snapshot import Snapshot
from feedsvc.changes.cursor import Cursor
from tests.support.followers import SEAL, Oracle, Reader, Writer
from tests.support.live_copy import LiveCopy, StreamEndedError, pause_behind
from tests.support.narrow import narrow_sockets
from tests.support.service import bearer

DEADLINE: Final = 600.0
_WRITERS: Final = 4
_KILL: Final = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND application_name = $1"
)
_EVER: Final = "SELECT body::text FROM shop.history WHERE body IS NOT NULL"


def clients(url: str, *, kernel_takes: int | None = None) -> aiohttp.ClientSession:
    """A session for any number of streams, whose kernel takes so many bytes of each, if told."""
    factory = None if kernel_takes is None else narrow_sockets(kernel_takes)
    connector = aiohttp.TCPConnector(limit=0, force_close=True, socket_factory=factory)
    return aiohttp.ClientSession(url, connector=connector, read_bufsize=kernel_takes or 1 << 16)


class Watcher:
    """A reader who follows and notes each state that it was sent.

    `calm` is the chance that it stays behind an event while it is not to come to an end.
    """

    def __init__(
        self, reader: Reader, http: aiohttp.ClientSession, seed: int = 0, calm: float = 1.0
    ) -> None:
        who = bearer(reader.tenant, reader.role, reader.client)
        given = {"live": "1", "format": "sse", **reader.given}
        self.reader = reader
        self.copy = LiveCopy(http, "/v1/feeds/orders", who, {"": ("number",)}, given)
        self.copy.on_state = self._note
        self.states: dict[str, str] = {}
        self.differing: list[str] = []
        self.pause = 0.0
        """Seconds behind each event in which it reads nothing."""
        self.in_vain = 0
        """The most answers in a row that brought no id but the last one."""
        self._random = random.Random(seed)
        self._calm = calm

    @property
    def snapshot(self) -> Snapshot | None:
        cursor = self.copy.cursor
        return Cursor.decode(cursor, SEAL).snapshot if len(cursor) > 20 else None

    def has_all(self, final: Snapshot) -> bool:
        """Return whether its state has all that this one has."""
        snapshot = self.snapshot
        return (
            snapshot is not None
            and self.copy.is_synced
            and ":" not in self.copy.last_id
            and snapshot.covers(final)
        )

    async def follow(self, final: asyncio.Future[Snapshot]) -> None:
        """Follow until the state has all that was written, once that is known."""
        in_vain = 0
        while True:
            last_id = self.copy.last_id
            try:
                async with self.copy.connected():
                    while final.done() or self._random.random() < self._calm:
                        await self.copy.next()
                        if final.done() and self.has_all(final.result()):
                            return
                        if self.pause:
                            await asyncio.sleep(self.pause)
            except (StreamEndedError, aiohttp.ClientError) as ended:
                await asyncio.sleep(pause_behind(ended))
            in_vain = in_vain + 1 if self.copy.last_id == last_id else 0
            self.in_vain = max(in_vain, self.in_vain)

    def _note(self, copy: LiveCopy) -> None:
        rows = json.dumps(copy.rows, sort_keys=True)
        if self.states.setdefault(copy.cursor, rows) != rows:
            self.differing.append(copy.cursor)


@asynccontextmanager
async def following(owner: asyncpg.Connection, watchers: Sequence[Watcher]) -> AsyncIterator[None]:
    """They follow while the block runs, and then until each has all that was written."""
    final: asyncio.Future[Snapshot] = asyncio.get_running_loop().create_future()
    tasks = [asyncio.create_task(each.follow(final)) for each in watchers]
    try:
        async with asyncio.timeout(DEADLINE):
            yield
            text = await owner.fetchval("SELECT pg_current_snapshot()::text")
            final.set_result(Snapshot.parse(text))
            await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def write(url: str, seed: int, steps: int) -> None:
    """Write with several connections that are open for a while, and kill what reads meanwhile."""
    draw = random.Random(seed)
    owner = await asyncpg.connect(url)
    own = {"lock_timeout": "20ms"}
    connections = [await asyncpg.connect(url, server_settings=own) for _ in range(_WRITERS)]
    try:
        writers = [Writer(c, draw.randrange(1 << 30)) for c in connections]
        for step in range(steps):
            await asyncio.gather(*(writer.step() for writer in draw.sample(writers, 2)))
            await asyncio.sleep(draw.choice([0, 0, 0.01, 0.03]))
            if step % 40 == 39:
                await owner.execute(_KILL, draw.choice(["feedsvc live", "feedsvc read"]))
        for writer in writers:
            await writer.close()
    finally:
        for connection in connections:
            await connection.close()
        await owner.close()


async def mistakes(owner: asyncpg.Connection, watchers: Sequence[Watcher]) -> list[str]:
    """The states that differ from what their snapshots show, and keys out of the reader's sight."""
    oracle, found = Oracle(owner), list[str]()
    bodies: list[dict[str, Any]] = [json.loads(row[0]) for row in await owner.fetch(_EVER)]
    known: dict[tuple[Snapshot, Reader], dict[int, Any]] = {}
    for watcher in watchers:
        for cursor, rows in watcher.states.items():
            state = Cursor.decode(cursor, SEAL).snapshot, watcher.reader
            if state not in known:
                known[state] = await oracle.rows(*state)
            expected = {json.dumps([number]): row for number, row in known[state].items()}
            if json.loads(rows) != expected:
                found.append(f"{watcher.reader} is not in the state of {state[0]}")
        ever = {row["number"] for row in bodies if watcher.reader.may_see(row)}
        told = {json.loads(key)[0] for _, key in watcher.copy.told}
        found += [f"{watcher.reader} was told of {n}" for n in told - ever]
        found += [f"{watcher.reader}: two states of {cursor}" for cursor in watcher.differing]
    return found
