"""What the cache spares PostgreSQL: readers of first pages and a writer, with it and without it.

Fifty tenants, nine requests for a first page to one write. The figure is the transactions that
PostgreSQL counts in the meantime, less the writes: the listener's beats, the audit log and whatever
else the service does by itself are in it, on both sides.
"""

import asyncio
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import aiohttp
import asyncpg
import orjson

from feedsvc.demo.world import make_triggers
from tests.performance.table import Line, Target
from tests.performance.world import Service, World
from tests.support.service import bearer

TENANTS: Final = 50
_ROWS_EACH: Final = 400
_OPERATIONS: Final = 6_000
_WRITES: Final = 0.1
_READERS: Final = 8
_PAGE: Final = "/v1/feeds/replayed?limit=100"
_FORMATS: Final = ("json", "ndjson")
_SEED: Final = 11
_TARGET: Final = Target(0.2)

_MAKE: Final = """
    CREATE SCHEMA IF NOT EXISTS bench;
    GRANT USAGE ON SCHEMA bench TO wedding_reader;
    DROP TABLE IF EXISTS bench.replayed;
    CREATE TABLE bench.replayed (
        tenant_id text NOT NULL, id bigint PRIMARY KEY, name text NOT NULL, changed int NOT NULL
    );
    INSERT INTO bench.replayed
    SELECT 'tenant-' || id % {tenants}, id, repeat('a name ', 20), 0
    FROM generate_series(1, {tenants} * {rows}) AS id;
    CREATE INDEX ON bench.replayed (tenant_id, id);
    ALTER TABLE bench.replayed ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
    CREATE POLICY own_tenant ON bench.replayed FOR SELECT TO wedding_reader USING (
        tenant_id = (SELECT nullif(current_setting('feedsvc.tenant', true), ''))
    );
    GRANT SELECT ON bench.replayed TO wedding_reader;
"""
_DATASET: Final = """
[replayed]
relation = "bench.replayed"
key = ["id"]
tenant = "tenant_id"
tags = ["replayed", "replayed:{tenant_id}"]
"""
_WRITE: Final = "UPDATE bench.replayed SET changed = changed + 1 WHERE id = $1"
_COUNTED: Final = """
    SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()
"""
_ORACLE: Final = """
    SELECT json_agg(row_to_json(r) ORDER BY id)::text
    FROM (SELECT * FROM bench.replayed WHERE tenant_id = $1 ORDER BY id LIMIT 100) AS r
"""


def replay(world: World, _service: Service, rounds: int) -> list[Line]:
    """Transactions with the cache for one without it."""
    with TemporaryDirectory(prefix="feedsvc-bench-replay-") as scratch:
        datasets = Path(scratch, "datasets.toml")
        datasets.write_text(_DATASET)
        asyncio.run(_make(world.admin_url, datasets))
        own = replace(world, datasets=datasets)
        counts = {
            enabled: [_replayed(own, enabled=enabled) for _ in range(max(1, rounds // 2))]
            for enabled in (True, False)
        }
    ratios = [on / off for on, off in zip(counts[True], counts[False], strict=True)]
    detail = f"{counts[True][0]:,} : {counts[False][0]:,} transactions"
    return [Line("query load, cached : not", ratios, detail, _TARGET)]


async def _make(admin_url: str, datasets: Path) -> None:
    admin = await asyncpg.connect(admin_url)
    try:
        await admin.execute(_MAKE.format(tenants=TENANTS, rows=_ROWS_EACH))
    finally:
        await admin.close()
    await make_triggers(admin_url, datasets)


def _replayed(world: World, *, enabled: bool) -> int:
    """The transactions of one replay, less its writes."""
    with _service_with(world, enabled=enabled) as service:
        return asyncio.run(_run(world.admin_url, service.running.url))


@contextmanager
def _service_with(world: World, *, enabled: bool) -> Iterator[Service]:
    settings = {
        "FEEDSVC_CACHE__ENABLED": str(enabled).lower(),
        "FEEDSVC_LIMITS__MEMBER__REQUESTS_PER_SECOND": "1000000",
    }
    with world.service(settings=settings) as service:
        yield service


async def _run(admin_url: str, url: str) -> int:
    admin = await asyncpg.connect(admin_url)
    try:
        async with aiohttp.ClientSession(url) as http:
            await _settle(admin, http)
            before = await _counted(admin)
            writes = await _play(admin, http)
            after = await _counted(admin)
            for tenant in range(TENANTS):
                await _assert_fresh(admin, http, f"tenant-{tenant}")
        return int(after - before - writes)
    finally:
        await admin.close()


async def _settle(admin: asyncpg.Connection, http: aiohttp.ClientSession) -> None:
    """Until the service hears of changes, for a start is no part of what is compared."""
    await admin.execute("VACUUM ANALYZE bench.replayed")
    await asyncio.sleep(1.0)
    async with http.get("/ready") as answer:
        assert answer.status == 200
    await asyncio.sleep(1.0)


async def _counted(admin: asyncpg.Connection) -> int:
    """PostgreSQL's own count; a session tells of its transactions up to a second later."""
    await asyncio.sleep(2.0)
    await admin.execute("SELECT pg_stat_clear_snapshot()")
    return int(await admin.fetchval(_COUNTED))


async def _play(admin: asyncpg.Connection, http: aiohttp.ClientSession) -> int:
    """Every operation once, by some readers and one writer; how many were writes."""
    chance = random.Random(_SEED)
    operations = iter([chance.random() < _WRITES for _ in range(_OPERATIONS)])
    lock, writes = asyncio.Lock(), 0

    async def work() -> None:
        nonlocal writes
        for is_write in operations:
            tenant = chance.randrange(TENANTS)
            if is_write:
                writes += 1
                async with lock:
                    await admin.execute(_WRITE, tenant or TENANTS)
            else:
                await _page(http, f"tenant-{tenant}", chance.choice(_FORMATS))

    await asyncio.gather(*(work() for _ in range(_READERS)))
    return writes


_TOKENS: Final = {f"tenant-{n}": bearer(f"tenant-{n}") for n in range(TENANTS)}


async def _page(http: aiohttp.ClientSession, tenant: str, form: str) -> bytes:
    async with http.get(f"{_PAGE}&format={form}", headers=_TOKENS[tenant]) as answer:
        assert answer.status == 200, await answer.text()
        return await answer.read()


async def _assert_fresh(
    admin: asyncpg.Connection, http: aiohttp.ClientSession, tenant: str
) -> None:
    expected = orjson.loads(await admin.fetchval(_ORACLE, tenant))
    assert orjson.loads(await _page(http, tenant, "json")) == expected, f"{tenant}: an old page"
