"""Deltas: what the log's size and an open writer cost them, and whether an idle service asks."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import aiohttp
import asyncpg

from tests.performance.first_pages import WITHOUT_LIMIT
from tests.performance.processor import seconds_of
from tests.performance.table import Line, Target, ratio
from tests.performance.timing import Round, in_turn
from tests.performance.world import Service, World

SMALL: Final = 50_000
LARGE: Final = 5_000_000
CHANGES: Final = 100
_QUICK: Final = 100_000  # clients of the tenant; with fewer the large log is a tenth
_FOLLOWED: Final = 2_000
_ASKED: Final = 30
_TIMES: Final = 4
_CHUNK: Final = 50_000
_TENANTS: Final = 200
_IDLE: Final = 30.0  # seconds
_IDLE_BEFORE: Final = 12.0  # seconds, behind which health takes the log for idle
_IDLE_DETAIL: Final = f"in {_IDLE:.0f} s; health reads the log once a minute"
_SETTINGS: Final = {**WITHOUT_LIMIT, "FEEDSVC_CHANGES__MAX_BYTES": str(64 << 30)}
# By the scopes of many tenants, of which the reader's is one, as writers would have left it.
_FILL: Final = """
INSERT INTO feedsvc.log (xid, scope, feed, slot, op, key)
SELECT pg_current_xact_id(),
    hashtextextended(CASE n % $2::int WHEN 0 THEN $3::text ELSE 'filled ' || n % $2::int END
        COLLATE "C", f.everyone),
    f.feed, feedsvc.log_slot(), 'u', n::text
FROM generate_series(1, $1::int) AS n, feedsvc.log_feeds f WHERE f.dataset = 'clients'
"""
_IDS: Final = "SELECT id FROM wedding.clients WHERE tenant_id = $1 ORDER BY id DESC LIMIT $2"
_CHANGE: Final = "UPDATE wedding.clients SET notes = $2 WHERE id = ANY ($1::bigint[])"
_OTHERS: Final = """
UPDATE wedding.clients SET notes = 'open' WHERE id = (
    SELECT id FROM wedding.clients WHERE tenant_id <> $1 LIMIT 1)
"""
_ASKING: Final = """
SELECT pid, query_start FROM pg_stat_activity
WHERE datname = current_database() AND application_name IN ('feedsvc changes', 'feedsvc read')
"""


def deltas(world: World, _service: Service, rounds: int) -> list[Line]:
    """Processor time of the service and PostgreSQL, which a loaded machine hardly changes."""
    large = LARGE if world.sizes.clients >= _QUICK else LARGE // 10
    with world.service(_SETTINGS) as service:
        asyncio.run(_filled(world, SMALL))
        idle = asyncio.run(_questions_of_an_idle_service(world))
        quiet = partial(_seconds, world, service)
        held = partial(_seconds, world, service, is_held=True)
        beside = in_turn({"open": held, "none": quiet}, rounds)
        small = [round_["none"] for round_ in beside]
        asyncio.run(_filled(world, large))
        quiet()
        sized: list[Round] = [{"large": quiet(), "small": least} for least in small]
        asyncio.run(_filled(world, 0))
    subject = f"delta of {CHANGES} changes, log of {large:,} rows : {SMALL:,}"
    return [
        ratio(subject, sized, "large", "small", Target(1.2), "ms"),
        ratio("the same, a writer open : none", beside, "open", "none", Target(1.1), "ms"),
        Line("questions of an idle service a second", [idle / _IDLE], _IDLE_DETAIL, Target(0.1)),
    ]


async def _filled(world: World, rows: int) -> None:
    """Fill the log anew, by some transactions, and have its pages written."""
    connection = await asyncpg.connect(world.admin_url)
    try:
        await connection.execute("TRUNCATE feedsvc.log")
        for begun in range(0, rows, _CHUNK):
            await connection.execute(_FILL, min(_CHUNK, rows - begun), _TENANTS, world.tenant)
        await connection.execute("VACUUM feedsvc.log")
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()


def _seconds(world: World, service: Service, *, is_held: bool = False) -> float:
    return asyncio.run(_least_seconds(world, service, is_held=is_held))


async def _least_seconds(world: World, service: Service, *, is_held: bool) -> float:
    """The processor's seconds of a delta of `CHANGES` rows, the least of some turns."""
    url = f"{service.running.url}/v1/feeds/clients"
    async with _writers(world, is_held=is_held) as writer:
        ids = [row["id"] for row in await writer.fetch(_IDS, world.tenant, _FOLLOWED)]
        given = {"id.gt": str(ids[-1] - 1)}
        async with aiohttp.ClientSession(headers=service.headers) as http:
            export = {**given, "format": "ndjson", "frames": "1"}
            *_, end = await _lines(http, url, export)
            cursor = str(json.loads(end)["end"]["cursor"])
            await writer.execute(_CHANGE, ids[:CHANGES], f"at {time.time()}")
        asking = partial(_ask, service, url, {**given, "since": cursor})
        parents = (service.running.pid, world.postmaster)
        measured = [await asyncio.to_thread(seconds_of, parents, asking) for _ in range(_TIMES)]
    return min(measured) / _ASKED


def _ask(service: Service, url: str, given: dict[str, str]) -> None:
    async def ask() -> None:
        async with aiohttp.ClientSession(headers=service.headers) as http:
            for _ in range(_ASKED):
                *changes, _ = await _lines(http, url, given)
                assert len(changes) == CHANGES

    asyncio.run(ask())


async def _lines(http: aiohttp.ClientSession, url: str, given: dict[str, str]) -> list[bytes]:
    async with http.get(url, params=given) as answer:
        body = await answer.read()
        assert answer.status == 200, body
    return body.splitlines()


@asynccontextmanager
async def _writers(world: World, *, is_held: bool) -> AsyncIterator[asyncpg.Connection]:
    """A writer, and beside it one that has written and is open for as long as the block runs."""
    writer = await asyncpg.connect(world.admin_url)
    holder = await asyncpg.connect(world.admin_url)
    try:
        if is_held:
            await holder.execute("BEGIN")
            await holder.execute(_OTHERS, world.tenant)
        yield writer
    finally:
        await holder.close()
        await writer.close()


async def _questions_of_an_idle_service(world: World) -> float:
    """The statements that its readers of the log and its requests' pool have begun."""
    connection = await asyncpg.connect(world.admin_url)
    try:
        await asyncio.sleep(_IDLE_BEFORE)
        last = {tuple(row) for row in await connection.fetch(_ASKING)}
        asked, end = 0, time.monotonic() + _IDLE
        while time.monotonic() < end:
            await asyncio.sleep(0.05)
            found = {tuple(row) for row in await connection.fetch(_ASKING)}
            asked += len(found - last)
            last |= found
        return float(asked)
    finally:
        await connection.close()
