"""Repairs that only an owner of the tables can make, where the settings name such a login."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from importlib.resources import files
from typing import Final

import asyncpg

from feedsvc.operations.health.context import HealthContext
from feedsvc.operations.health.result import RepairResult

logger = logging.getLogger(__name__)

_INDEXES: Final = (files("feedsvc.operations.health") / "indexes.sql").read_text()
_STATISTICS: Final = (files("feedsvc.operations.health") / "statistics.sql").read_text()
_LOCK: Final = 0x66656564_00000004
_CONNECT: Final = 5.0  # seconds
_LONGEST: Final = 6 * 3_600.0  # seconds that all of one repair may take
_CLOSE: Final = 2.0


async def indexes(parts: HealthContext, dry: bool) -> RepairResult:
    """Rebuilds invalid indexes while they are in use, and drops what failed rebuilds left."""
    async with parts.pools["write"].lease() as connection:
        rows = [row for row in await connection.fetch(_INDEXES) if not row["at_work"]]
    # What is left over first: it may hold what the rebuilding needs.
    statements = [
        f"{'DROP' if row['left_over'] else 'REINDEX'} INDEX CONCURRENTLY {row['name']}"
        for row in sorted(rows, key=lambda row: not row["left_over"])
    ]
    if not statements:
        return RepairResult("nothing", "Every index is valid, or being built.")
    return await _have_done(parts, "indexes", statements, dry=dry)


async def statistics(parts: HealthContext, dry: bool) -> RepairResult:
    """Analyze the tables of which PostgreSQL's planner knows too little."""
    async with parts.pools["write"].lease() as connection:
        rows = await connection.fetch(_STATISTICS)
    if not rows:
        return RepairResult("nothing", "The planner's statistics are fresh enough.")
    return await _have_done(
        parts, "statistics", [f"ANALYZE {row['name']}" for row in rows], dry=dry
    )


async def _have_done(
    parts: HealthContext, name: str, statements: Sequence[str], *, dry: bool
) -> RepairResult:
    listed = "; ".join(statements)
    owner = parts.settings.database.owner_url
    if owner is None:
        what = (
            "This needs an owner's login: set database.owner_url (MIGRATION_DATABASE_URL), or run"
        )
        return RepairResult("refused", f"{what} {listed}")
    if dry:
        return RepairResult("would", f"Would run {listed}")
    return await parts.jobs.run(name, partial(_run, owner.get_secret_value(), statements))


async def _run(url: str, statements: Sequence[str]) -> RepairResult:
    async with asyncio.timeout(_LONGEST), _owning(url) as connection:
        if not await connection.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK):
            return RepairResult("nothing", "Another process is at it already.")
        for statement in statements:
            await connection.execute(statement)
    return RepairResult("done", f"Ran {'; '.join(statements)}")


@asynccontextmanager
async def _owning(url: str) -> AsyncIterator[asyncpg.Connection]:
    """A session of the owner's, without the bounds that its login may have for statements."""
    connection = await asyncpg.connect(
        url, timeout=_CONNECT, server_settings={"application_name": "feedsvc repair"}
    )
    try:
        await connection.execute("SET statement_timeout = 0; SET lock_timeout = 0")
        yield connection
    finally:
        try:
            await connection.close(timeout=_CLOSE)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            connection.terminate()
