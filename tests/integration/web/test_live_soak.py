"""Live feeds for twenty minutes of writers, deploys and faults: each `sync` is a state.

`FEEDSVC_SOAK_SECONDS` makes it shorter.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import random
import signal
from collections import deque
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import asyncpg
import psutil
import pytest

from feedsvc.backends.postgres.snapshot import Snapshot
from feedsvc.changes.cursor import Cursor
from tests.support.balancer import HAPROXY, balancing
from tests.support.followers import READERS, SEAL, Oracle, Reader, Writer, prepare
from tests.support.live_copy import LiveCopy, StreamEndedError
from tests.support.ports import reserved_port
from tests.support.redis_server import redis_running
from tests.support.servers import as_login
from tests.support.service import Running, bearer, serving
from tests.support.sluggish import sluggish

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.conftest import NewDatabase

logger = logging.getLogger(__name__)

SECONDS: Final = float(os.environ.get("FEEDSVC_SOAK_SECONDS", "1200"))
SUBSCRIBERS: Final = int(os.environ.get("FEEDSVC_SOAK_SUBSCRIBERS", "200"))
PATIENCE: Final = 180.0
CUT_AFTER: Final = min(60.0, SECONDS / 4)
MORE_FILES: Final = 30  # connections of pools that a fresh worker has not opened yet
MORE_MEMORY: Final = 64 << 20
KILL: Final = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1"
FORGET: Final = """
DELETE FROM shop.history h WHERE h.xid < $1::text::xid8 AND EXISTS (
    SELECT FROM shop.history n
    WHERE n.row_id = h.row_id AND n.seq > h.seq AND n.xid < $1::text::xid8)
"""
XMIN: Final = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text"


@dataclass
class Soak:
    """What runs, and what was found wrong."""

    url: str
    file: Path
    redis: Any
    services: list[Any] = field(default_factory=list)
    running: list[Running] = field(default_factory=list)
    checked: int = 0
    kills: int = 0
    faults: list[str] = field(default_factory=list)
    states: asyncio.Queue[tuple[Reader, Snapshot, str]] = field(default_factory=asyncio.Queue)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    final: Snapshot | None = None

    def start(self, port: int) -> Running:
        """An instance of two workers at this port."""
        settings = {
            "FEEDSVC_SERVER__PORT": str(port),
            "FEEDSVC_SERVER__CONNECTIONS_PER_ADDRESS": "20000",
            "FEEDSVC_LIMITS__CLIENT__STREAMS": "2000",
            "FEEDSVC_STREAMS__PING_INTERVAL": "3",
            "FEEDSVC_STREAMS__ROTATE_AFTER": "40",
            "FEEDSVC_SERVER__SHUTDOWN_DELAY": "1",  # in which the balancer looks elsewhere
            "FEEDSVC_STREAMS__DRAIN_TIMEOUT": "2",
            "FEEDSVC_REDIS__URL": self.redis.url,
        }
        made = serving(
            as_login(self.url), datasets=self.file, settings=settings, arguments=["--workers=2"]
        )
        running = made.__enter__()
        self.services.append(made)
        self.running.append(running)
        return running

    def stop(self, running: Running) -> None:
        """End an instance as a deploy does."""
        at = self.running.index(running)
        del self.running[at]
        self.services.pop(at).__exit__(None, None, None)

    def close(self) -> None:
        """End all instances."""
        for each in list(self.running):
            self.stop(each)

    def note(self, copy: LiveCopy, reader: Reader) -> None:
        """Let a state be checked that a client has at a `sync`."""
        if copy.events[-1].type == "sync":
            snapshot = Cursor.decode(copy.cursor, SEAL).snapshot
            self.states.put_nowait((reader, snapshot, json.dumps(copy.rows, sort_keys=True)))
        copy.events.clear()

    async def follow(self, http: aiohttp.ClientSession, reader: Reader) -> LiveCopy:
        """Follow to the end, through whatever happens."""
        who = bearer(reader.tenant, reader.role, reader.client, lifetime=86_400)
        given = {"live": "1", "format": "sse", **reader.given}
        copy = LiveCopy(http, "/v1/feeds/orders", who, {"": ("number",)}, given)
        copy.on_state = lambda each: self.note(each, reader)
        while not self._has_all(copy):
            kills = self.kills
            try:
                async with copy.connected():
                    while not self._has_all(copy):
                        await copy.next()
            except (StreamEndedError, aiohttp.ClientError, TimeoutError) as ended:
                if getattr(ended, "status", 200) == 502 and self.kills == kills:
                    self._find("a request was broken off though no worker was killed")
                await asyncio.sleep(random.uniform(0.1, 1.0))
        return copy

    def _find(self, fault: str) -> None:
        logger.warning("%s", fault[:2_000])
        self.faults.append(fault)

    def _has_all(self, copy: LiveCopy) -> bool:
        if self.final is None or not copy.is_synced or ":" in copy.last_id:
            return False
        return Cursor.decode(copy.cursor, SEAL).snapshot.covers(self.final)

    async def check(self) -> None:
        """Compare states with what their snapshots show."""
        owner = await asyncpg.connect(self.url)
        oracle, known = Oracle(owner), dict[tuple[Reader, Snapshot], str]()
        try:
            while not (self.over.is_set() and self.states.empty()):
                with suppress(TimeoutError):
                    reader, snapshot, rows = await asyncio.wait_for(self.states.get(), 0.5)
                    expected = known.get((reader, snapshot))
                    if expected is None:
                        found = await oracle.rows(snapshot, reader)
                        shown = {json.dumps([number]): row for number, row in found.items()}
                        expected = json.dumps(shown, sort_keys=True)
                        if len(known) > 5_000:
                            known.clear()
                        known[reader, snapshot] = expected
                    self.checked += 1
                    if rows != expected:
                        self._find(f"{reader} at {snapshot}: {rows} and not {expected}")
        finally:
            await owner.close()

    async def write(self) -> None:
        """Write at random with several connections, and forget what no client can have any more."""
        own = {"lock_timeout": "20ms"}
        connections = [await asyncpg.connect(self.url, server_settings=own) for _ in range(4)]
        writers = [Writer(c, random.randrange(1 << 30)) for c in connections]
        try:
            horizons = deque[str]()
            for step in itertools.count():
                if self.over.is_set():
                    break
                await random.choice(writers).step()
                await asyncio.sleep(random.choice([0, 0.01, 0.05, 0.2]))
                if step % 200 == 0:
                    horizons.append(await connections[0].fetchval(XMIN))
                    if len(horizons) > 12:  # minutes: longer than any client is behind
                        await self._forget(horizons.popleft())
            for writer in writers:
                await writer.close()
        finally:
            for connection in connections:
                await connection.close()

    async def _forget(self, horizon: str) -> None:
        owner = await asyncpg.connect(self.url)
        await owner.execute(FORGET, horizon)
        await owner.close()

    async def trouble(self) -> None:
        """Deploys and faults, one behind the other."""
        owner = await asyncpg.connect(self.url)
        draw = random.Random(1)
        try:
            while not self.over.is_set():
                await asyncio.sleep(draw.uniform(2, 5))
                await self._one_trouble(owner, draw.randrange(6), draw)
        finally:
            await owner.close()

    async def _one_trouble(self, owner: asyncpg.Connection, kind: int, draw: random.Random) -> None:
        victim = draw.choice(self.running)
        logger.info("trouble %d of %d", kind, victim.port)
        match kind:
            case 0:
                victim.process.send_signal(signal.SIGHUP)
            case 1:
                port = victim.port
                await asyncio.to_thread(self.stop, victim)
                await asyncio.to_thread(self.start, port)
            case 2 | 3:
                await owner.execute(KILL, draw.choice(["feedsvc live", "feedsvc read"]))
            case 4:
                with self.redis.frozen():
                    await asyncio.sleep(3)
            case _:
                workers = psutil.Process(victim.pid).children()
                if workers:
                    self.kills += 1
                    draw.choice(workers).kill()


def usage(running: Running) -> tuple[int, int]:
    """Open files and resident bytes of the fullest worker."""
    workers = psutil.Process(running.pid).children()
    return (
        max(each.num_fds() for each in workers),
        max(each.memory_info().rss for each in workers),
    )


@pytest.mark.soak
@pytest.mark.timeout(SECONDS + 3 * PATIENCE)
@pytest.mark.skipif(HAPROXY is None, reason="no haproxy here to deploy behind")
async def test_each_sync_is_a_state_whatever_happens(
    new_database: NewDatabase, tmp_path: Path
) -> None:
    file = tmp_path / "datasets.toml"
    async with new_database() as url, AsyncExitStack() as stack:
        await prepare(url, file)
        soak = Soak(url, file, stack.enter_context(redis_running("redis")))
        stack.callback(soak.close)
        steady, deployed = (soak.start(stack.enter_context(reserved_port())) for _ in range(2))
        before = usage(steady)
        ports = [steady.port, deployed.port]
        balanced = stack.enter_context(balancing(ports, tmp_path))
        port = int(balanced.rpartition(":")[2])
        holding = await stack.enter_async_context(sluggish(port, holds=1.0))
        cutting = await stack.enter_async_context(sluggish(port, cuts=CUT_AFTER))
        clients = [
            await stack.enter_async_context(
                aiohttp.ClientSession(
                    each, connector=aiohttp.TCPConnector(limit=0, force_close=True)
                )
            )
            for each in (balanced, holding, cutting)
        ]
        readers = itertools.islice(itertools.cycle(READERS), SUBSCRIBERS)
        following = [
            asyncio.create_task(soak.follow(clients[n % 3], reader))
            for n, reader in enumerate(readers)
        ]
        checking = asyncio.create_task(soak.check())
        working = [asyncio.create_task(soak.write()), asyncio.create_task(soak.trouble())]
        await asyncio.wait([checking, *working, *following], timeout=SECONDS,
                           return_when=asyncio.FIRST_EXCEPTION)  # fmt: skip
        soak.over.set()
        await asyncio.gather(*working)
        owner = await asyncpg.connect(url)
        soak.final = Snapshot.parse(await owner.fetchval("SELECT pg_current_snapshot()::text"))
        await owner.close()
        async with asyncio.timeout(PATIENCE):
            copies = await asyncio.gather(*following)
            await checking
        answers = sum(copy.connections for copy in copies)
        logger.info("%d syncs compared, %d answers", soak.checked, answers)
        assert soak.faults == []
        assert soak.checked > SUBSCRIBERS * SECONDS / 30
        assert answers > SUBSCRIBERS
        await _until_as_before(soak, before)


async def _until_as_before(soak: Soak, before: tuple[int, int]) -> None:
    """Wait until no worker has more files or memory than a fresh one."""
    files, memory = before
    async with asyncio.timeout(PATIENCE):
        while any(
            now[0] > files + MORE_FILES or now[1] > memory + MORE_MEMORY
            for now in map(usage, soak.running)
        ):
            await asyncio.sleep(0.5)
    logger.info("files and memory, first: %s, now: %s", before, [*map(usage, soak.running)])
