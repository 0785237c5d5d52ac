"""The examples of clients that keep a copy, against a service that is killed under them."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import pytest

from feedsvc.backends.postgres.snapshot import Snapshot
from tests.support.drawn import DRAWN, share
from tests.support.followers import Oracle, Reader, Writer, prepare
from tests.support.ports import reserved_port
from tests.support.servers import as_login, copied_database
from tests.support.service import REPOSITORY, serving, token

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from tests.support.service import Running

psutil = importlib.import_module("psutil")  # it has no type stubs

DEADLINE: Final = 120.0
KILLS: Final = share(2, 2)
NODE: Final = shutil.which("node")
Copied = dict[int, dict[str, Any]]


def of_sqlite(file: Path) -> Copied:
    """The rows of the Python example's copy; none while it has no table yet."""
    try:
        with closing(sqlite3.connect(file)) as copy:
            rows = [json.loads(row) for (row,) in copy.execute("SELECT row FROM rows")]
    except sqlite3.OperationalError:
        return {}
    return {row["number"]: row for row in rows}


def of_file(file: Path) -> Copied:
    """The rows of the other example's copy."""
    return {row["number"]: row for _, row in json.loads(file.read_text())["rows"]}


EXAMPLES: Final = [
    pytest.param([sys.executable, "sync.py"], of_sqlite, id="python"),
    pytest.param(
        [NODE, "sync.mjs"],
        of_file,
        id="node",
        marks=pytest.mark.skipif(NODE is None, reason="there is no node on PATH to run it with"),
    ),
]


@pytest.fixture
async def world(admin_url: str, tmp_path: Path) -> AsyncIterator[tuple[str, Path]]:
    async with copied_database(admin_url) as url:
        await prepare(url, tmp_path / "datasets.toml")
        yield url, tmp_path / "datasets.toml"


@contextmanager
def syncing(command: list[str], url: str, file: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The example at work on its copy."""
    environment = {**os.environ, "FEEDSVC_TOKEN": token("a")}
    script = str(REPOSITORY / "examples" / command[1])
    process = subprocess.Popen([command[0], script, url, str(file), "number"], env=environment)
    try:
        yield process
    finally:
        process.kill()
        process.wait(DEADLINE)


class Site:
    """A service that is killed and comes back at its address, and the writer of its table."""

    def __init__(
        self, url: str, datasets: Path, port: int, owner: asyncpg.Connection, writer: Writer
    ) -> None:
        self._url = url
        self._datasets = datasets
        self._owner = owner
        self._writer = writer
        self._port = port
        self._running: Running | None = None

    @property
    def feed(self) -> str:
        """The address of the feed, whether there is a service or not."""
        return f"http://127.0.0.1:{self._port}/v1/feeds/orders"

    @contextmanager
    def serving(self) -> Iterator[None]:
        """The service."""
        port = {"FEEDSVC_SERVER__PORT": str(self._port)}
        with serving(as_login(self._url), datasets=self._datasets, settings=port) as running:
            self._running = running
            yield

    def kill(self) -> None:
        """End the service with its workers, as a machine that loses power does."""
        assert self._running is not None
        parent = psutil.Process(self._running.pid)
        for process in (parent, *parent.children(recursive=True)):
            process.kill()

    async def write(self) -> None:
        """Many rows in one statement, then one or the other."""
        await self._owner.execute(
            "INSERT INTO shop.orders (number, tenant, level, name)"
            " SELECT n, 'a', 1, repeat('x', 99) FROM generate_series(1000, 1300) n"
            " ON CONFLICT (number) DO UPDATE SET status = coalesce(orders.status, '') || 'x'"
        )
        for _ in range(12):
            await self._writer.step()
        await self._writer.close()

    async def truncate(self) -> None:
        """A change that no delta can show, and rows after it."""
        await self._owner.execute("TRUNCATE shop.orders; DELETE FROM shop.history")
        await self.write()

    async def agree(self, copied: Callable[[], Copied]) -> None:
        """Wait until the copy is what its reader sees."""
        present = await self._owner.fetchval("SELECT pg_current_snapshot()::text")
        wanted = await Oracle(self._owner).rows(Snapshot.parse(present), Reader("a"))
        assert wanted
        async with asyncio.timeout(DEADLINE):
            while copied() != wanted:
                await asyncio.sleep(0.1)


@pytest.fixture
async def site(world: tuple[str, Path]) -> AsyncIterator[Site]:
    url, datasets = world
    owner, writing = await asyncpg.connect(url), await asyncpg.connect(url)
    try:
        with reserved_port() as port:
            yield Site(url, datasets, port, owner, Writer(writing, 5))
    finally:
        await writing.close()
        await owner.close()


@DRAWN
@pytest.mark.parametrize(("command", "rows_of"), EXAMPLES)
async def test_a_copy_is_the_feed_again_whatever_is_killed(
    site: Site, tmp_path: Path, command: list[str], rows_of: Callable[[Path], Copied]
) -> None:
    copy = tmp_path / "copy"

    def copied() -> Copied:
        return rows_of(copy) if copy.exists() else {}

    await site.write()
    with syncing(command, site.feed, copy):
        for _ in range(KILLS):
            with site.serving():
                await site.agree(copied)
                # Killed while it sends, now and then: what had not ended is not applied.
                await site.write()
                site.kill()
            await site.write()
        with site.serving():
            await site.agree(copied)
    await site.write()
    with site.serving(), syncing(command, site.feed, copy):
        await site.agree(copied)
        await site.truncate()
        await site.agree(copied)
