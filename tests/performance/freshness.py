"""Cached pages beside writers: what looking at the change log costs, and whether it is enough."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final

import aiohttp
import asyncpg

from tests.performance.clients import Feed
from tests.performance.first_pages import WITHOUT_LIMIT, seconds_a_page, service_with_page
from tests.performance.processes import ended
from tests.performance.steady_writer import WRITES_A_SECOND
from tests.performance.table import Line, Target, ratio
from tests.performance.timing import in_turn
from tests.performance.world import Service, World
from tests.support.service import REPOSITORY, bearer

READS: Final = 10_000
_AT_ONCE: Final = 16
_WORKERS: Final = 2
_INTERVAL: Final = 0.02  # `changes.interval`, seconds
_ROW_OF_ANOTHER: Final = "SELECT id FROM wedding.clients WHERE tenant_id <> $1 LIMIT 1"
_ROWS: Final = "SELECT id FROM wedding.clients WHERE tenant_id = $1 ORDER BY id DESC LIMIT $2"
_CHANGE: Final = "UPDATE wedding.clients SET notes = $1 WHERE id = $2"


def freshness(world: World, _service: Service, rounds: int) -> list[Line]:
    """A page from memory while another tenant's rows are written, and reads 20 ms after a write."""
    row = asyncio.run(_row_of_another(world))
    with service_with_page(world, {"FEEDSVC_CACHE__SHARED": "false"}) as feed:
        contenders = {
            "written": partial(_while_written, world, row, feed),
            "quiet": partial(seconds_a_page, feed),
        }
        measured = in_turn(contenders, rounds)
    subject = f"cached page, {WRITES_A_SECOND} writes a second : none"
    with world.service(WITHOUT_LIMIT, workers=_WORKERS) as service:
        stale = asyncio.run(_stale_reads(world, service))
    detail = f"of {READS:,}, {_WORKERS} workers"
    return [
        ratio(subject, measured, "written", "quiet", Target(1.15), "ms"),
        Line("stale reads 20 ms after a commit", [float(stale)], detail, Target(0.0)),
    ]


async def _row_of_another(world: World) -> int:
    connection = await asyncpg.connect(world.admin_url)
    try:
        return int(await connection.fetchval(_ROW_OF_ANOTHER, world.tenant))
    finally:
        await connection.close()


def _while_written(world: World, row: int, feed: Feed) -> float:
    with _writing(world, row):
        return seconds_a_page(feed)


@contextmanager
def _writing(world: World, row: int) -> Iterator[None]:
    command = [sys.executable, "-m", "tests.performance.steady_writer", world.admin_url, str(row)]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE)
    with ended(process):
        yield


async def _stale_reads(world: World, service: Service) -> int:
    """Reads that lack what was committed 20 ms before."""
    connections = [await asyncpg.connect(world.admin_url) for _ in range(_AT_ONCE)]
    rows = [row["id"] for row in await connections[0].fetch(_ROWS, world.tenant, _AT_ONCE)]
    async with aiohttp.ClientSession(service.running.url, headers=bearer(world.tenant)) as http:
        writers = zip(connections, rows, strict=True)
        counts = await asyncio.gather(*(_stale_of(http, *writer) for writer in writers))
    for connection in connections:
        await connection.close()
    return sum(counts)


async def _stale_of(http: aiohttp.ClientSession, connection: asyncpg.Connection, row: int) -> int:
    stale, path = 0, f"/v1/feeds/clients?id.eq={row}&limit=1&format=ndjson"
    for number in range(READS // _AT_ONCE):
        written = f"written {number}."
        await connection.execute(_CHANGE, written, row)
        await asyncio.sleep(_INTERVAL)
        async with http.get(path) as answer:
            assert answer.status == 200, await answer.text()
            stale += written.encode() not in await answer.read()
    return stale
