"""Fills the wedding world, the same for the same seed, and remembers that it did."""

import asyncio
import hashlib
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import asyncpg

from feedsvc.commands.demo.indexes import without_indexes
from feedsvc.commands.demo.plan import MOST_ROWS, TABLES, TenantPlan, slices

_HERE: Final = Path(__file__).parent
_TENANTS: Final = (_HERE / "tenants.sql").read_text(encoding="utf-8")
_FILL: Final = {name: (_HERE / f"{name}.sql").read_text(encoding="utf-8") for name in TABLES}
_VERSION: Final = hashlib.sha256("".join([_TENANTS, *_FILL.values()]).encode()).hexdigest()[:16]

_CONNECTIONS: Final = 3  # on two cores, the third works while another waits for the disk
_CONNECT_SECONDS: Final = 10.0
_STATEMENT_SECONDS: Final = 3600.0
_LOCK: Final = 0x66656564_00000003

# ANALYZE samples 300 rows for each step of a histogram. Of a world this small that would be every
# row, words of notes too, and a fifth of all that a demo costs; a third of them plans as well.
_SMALL: Final = 50_000  # rows
_STEPS_OF_SMALL: Final = 30

_FIGURES: Final = """
    SELECT wedding.refresh_figures();
    ANALYZE wedding.month_figures_kept, wedding.vendor_figures_kept
"""

# replica: no foreign key is checked row by row, for the rows are right by their making, and no
# trigger logs a million inserts that no cursor needs.
_SESSION: Final = """
    SET session_replication_role = replica; SET synchronous_commit = off; SET timezone = 'UTC';
    SET lock_timeout = '60s'; SET maintenance_work_mem = '256MB'
"""


async def seed(admin_dsn: str, rows: int, seed: int) -> None:
    """Empty the world and fill it: `rows` clients for the first tenant, the others after it.

    The same rows and seed give the same data, whatever the day and the machine. Needs a superuser
    and the line `wedding` at its head. Raises ValueError for rows out of range, and asyncpg's
    errors, in an ExceptionGroup where several connections are at work; after a failure `is_seeded`
    is false, and seeding again starts from empty tables.
    """
    if not 0 <= rows <= MOST_ROWS:
        raise ValueError(f"rows must be 0 to {MOST_ROWS}, not {rows}")
    async with _session(admin_dsn) as connection:
        await connection.execute("SELECT pg_advisory_lock($1)", _LOCK)
        plan = await _empty(connection, rows, seed)
        await _fill(admin_dsn, plan, seed, rows)
        await _analyze(connection, "tenants")
        await connection.execute(_FIGURES)
        await connection.execute(
            "INSERT INTO wedding.seeding (rows, seed, version) VALUES ($1, $2, $3)",
            rows, seed, _VERSION,
        )  # fmt: skip


async def is_seeded(admin_dsn: str, rows: int, seed: int) -> bool:
    """Return whether the world already is what `seed` with these arguments would make of it.

    False as well where the line `wedding` isn't migrated. Raises asyncpg's errors.
    """
    async with _session(admin_dsn) as connection:
        try:
            record = await connection.fetchrow("SELECT rows, seed, version FROM wedding.seeding")
        except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError):
            return False
        return record is not None and tuple(record) == (rows, seed, _VERSION)


async def _empty(connection: asyncpg.Connection, rows: int, seed: int) -> list[TenantPlan]:
    tables = ", ".join(f"wedding.{table}" for table in (*TABLES, "tenants", "seeding"))
    async with connection.transaction():
        await connection.execute(f"TRUNCATE {tables} RESTART IDENTITY")
        return [TenantPlan(**row) for row in await connection.fetch(_TENANTS, rows, seed)]


async def _fill(dsn: str, plan: list[TenantPlan], seed: int, rows: int) -> None:
    waiting = deque(TABLES)

    async def worker() -> None:
        async with _session(dsn) as connection:
            if rows <= _SMALL:
                await connection.execute(f"SET default_statistics_target = {_STEPS_OF_SMALL}")
            while waiting:
                table = waiting.popleft()
                async with without_indexes(connection, f"wedding.{table}"):
                    await connection.execute(_FILL[table], *slices(plan, table), seed)
                await _analyze(connection, table)

    async with asyncio.TaskGroup() as group:
        for _ in range(_CONNECTIONS):
            group.create_task(worker())


async def _analyze(connection: asyncpg.Connection, table: str) -> None:
    # A session tells once a second at most how many rows it has written. Told behind the ANALYZE,
    # all of them would count as written since, and the planner as one that knows too little.
    await connection.execute("SELECT pg_stat_force_next_flush()")
    await connection.execute(f"VACUUM (ANALYZE) wedding.{table}")


@asynccontextmanager
async def _session(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(
        dsn, timeout=_CONNECT_SECONDS, command_timeout=_STATEMENT_SECONDS
    )
    try:
        await connection.execute(_SESSION)
        yield connection
    finally:
        await connection.close(timeout=_CONNECT_SECONDS)
