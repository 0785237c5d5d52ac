"""PostgreSQL's work for readers of first pages and a writer, with the cache and without it.

Fifty tenants, nine requests for a first page to one write; the same operations in the same order.
What is counted is the service's own doing: the processor time of every backend that it has, its
listener's and its audit log's among them, and the transactions, less the writer's. Whatever the
service does by itself is in both, on both sides. In the end each page is held against PostgreSQL.
"""

import asyncio
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

import aiohttp
import asyncpg
import orjson
import psutil

from feedsvc.commands.demo.world import make_triggers
from tests.performance.table import Line, Target
from tests.performance.world import Service, World
from tests.support.service import bearer

TENANTS: Final = 50
_ROWS_EACH: Final = 400
_OPERATIONS: Final = 6_000
_WRITES: Final = 0.1
_READERS: Final = 8
_ROWS: Final = 100
_PAGE: Final = f"/v1/feeds/replayed?limit={_ROWS}"
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
# Each wake-up of a listener is a transaction to PostgreSQL, though it reads no table.
_TRANSACTIONS: Final = """
    SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()
"""
_BACKENDS: Final = """
    SELECT pid FROM pg_stat_activity
    WHERE datname = current_database() AND application_name LIKE 'feedsvc %'
"""
_ORACLE: Final = f"""
    SELECT json_agg(row_to_json(r) ORDER BY id)::text
    FROM (SELECT * FROM bench.replayed WHERE tenant_id = $1 ORDER BY id LIMIT {_ROWS}) AS r
"""


class Operation(NamedTuple):
    """One of the replay: a write to a tenant's row, or a request for its first page."""

    tenant: int
    is_write: bool
    form: str


class Load(NamedTuple):
    """PostgreSQL's cost of a replay: seconds of processor time, and transactions."""

    seconds: float
    transactions: int


def replay(world: World, _service: Service, rounds: int) -> list[Line]:
    """The load with the cache for one without it."""
    with TemporaryDirectory(prefix="feedsvc-bench-replay-") as scratch:
        datasets = Path(scratch, "datasets.toml")
        datasets.write_text(_DATASET)
        asyncio.run(_make(world.admin_url, datasets))
        own, operations = replace(world, datasets=datasets), _operations()
        loads = [
            (_replayed(own, operations, enabled=True), _replayed(own, operations, enabled=False))
            for _ in range(max(1, rounds // 2))
        ]
    cached, not_cached = loads[0]
    seconds = f"{cached.seconds:.2f} : {not_cached.seconds:.2f} s of PostgreSQL's processor time"
    counted = f"{cached.transactions:,} : {not_cached.transactions:,}"
    return [
        Line(
            "query load, cached : not", [a.seconds / b.seconds for a, b in loads], seconds, _TARGET
        ),
        Line(
            "transactions, cached : not",
            [a.transactions / b.transactions for a, b in loads],
            counted,
        ),
    ]


def _operations() -> list[Operation]:
    chance = random.Random(_SEED)
    return [
        Operation(chance.randrange(TENANTS), chance.random() < _WRITES, chance.choice(_FORMATS))
        for _ in range(_OPERATIONS)
    ]


async def _make(admin_url: str, datasets: Path) -> None:
    admin = await asyncpg.connect(admin_url)
    try:
        await admin.execute(_MAKE.format(tenants=TENANTS, rows=_ROWS_EACH))
    finally:
        await admin.close()
    await make_triggers(admin_url, datasets)


def _replayed(world: World, operations: Sequence[Operation], *, enabled: bool) -> Load:
    """The cost of one replay, less its writes."""
    with _service_with(world, enabled=enabled) as service:
        return asyncio.run(_run(world.admin_url, service.running.url, operations))


@contextmanager
def _service_with(world: World, *, enabled: bool) -> Iterator[Service]:
    settings = {
        "FEEDSVC_CACHE__ENABLED": str(enabled).lower(),
        "FEEDSVC_LIMITS__MEMBER__REQUESTS_PER_SECOND": "1000000",
    }
    with world.service(settings=settings) as service:
        yield service


async def _run(admin_url: str, url: str, operations: Sequence[Operation]) -> Load:
    admin = await asyncpg.connect(admin_url)
    try:
        async with aiohttp.ClientSession(url) as http:
            await _settle(admin, http)
            before = await _transactions(admin), await _processor_time(admin)
            await _play(admin, http, operations)
            after = await _transactions(admin), await _processor_time(admin)
            for tenant in range(TENANTS):
                await _assert_fresh(admin, http, f"tenant-{tenant}")
    finally:
        await admin.close()
    assert before[1].keys() <= after[1].keys(), "a backend of the service's has gone"
    seconds = sum(after[1].values()) - sum(before[1].values())
    writes = sum(operation.is_write for operation in operations)
    return Load(seconds, after[0] - before[0] - writes)


async def _settle(admin: asyncpg.Connection, http: aiohttp.ClientSession) -> None:
    """Until the service hears of changes, for a start is no part of what is compared."""
    await admin.execute("VACUUM ANALYZE bench.replayed")
    await asyncio.sleep(1.0)
    async with http.get("/ready") as answer:
        assert answer.status == 200
    await asyncio.sleep(1.0)


async def _transactions(admin: asyncpg.Connection) -> int:
    """PostgreSQL's own count; a session tells of its transactions up to a second later."""
    await asyncio.sleep(2.0)
    await admin.execute("SELECT pg_stat_clear_snapshot()")
    return int(await admin.fetchval(_TRANSACTIONS))


async def _processor_time(admin: asyncpg.Connection) -> dict[int, float]:
    """Seconds that each backend of the service has had so far, by its process id."""
    times = {
        row["pid"]: psutil.Process(row["pid"]).cpu_times() for row in await admin.fetch(_BACKENDS)
    }
    return {pid: each.user + each.system for pid, each in times.items()}


async def _play(
    admin: asyncpg.Connection, http: aiohttp.ClientSession, operations: Sequence[Operation]
) -> None:
    """Every operation once, by some readers and one writer."""
    left, lock = iter(operations), asyncio.Lock()

    async def work() -> None:
        for tenant, is_write, form in left:
            if is_write:
                async with lock:
                    await admin.execute(_WRITE, tenant or TENANTS)
            else:
                await _page(http, f"tenant-{tenant}", form)

    await asyncio.gather(*(work() for _ in range(_READERS)))


_TOKENS: Final = {f"tenant-{n}": bearer(f"tenant-{n}") for n in range(TENANTS)}


async def _page(http: aiohttp.ClientSession, tenant: str, form: str) -> bytes:
    async with http.get(f"{_PAGE}&format={form}", headers=_TOKENS[tenant]) as answer:
        assert answer.status == 200, await answer.text()
        return await answer.read()


async def _assert_fresh(
    admin: asyncpg.Connection, http: aiohttp.ClientSession, tenant: str
) -> None:
    expected = orjson.loads(await admin.fetchval(_ORACLE, tenant))
    assert len(expected) == _ROWS
    assert orjson.loads(await _page(http, tenant, "json")) == expected, f"{tenant}: an old page"
    lines = (await _page(http, tenant, "ndjson")).splitlines()
    assert list(map(orjson.loads, lines)) == expected, f"{tenant}: an old page"
