"""The progress of an index that another session builds, read twice a second."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import asyncpg

_SQL: Final = (Path(__file__).parent / "index_progress.sql").read_text(encoding="utf-8")
_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class BuildProgress:
    """A phase of a build as PostgreSQL names it, and its units done of `total` (0: uncounted)."""

    phase: str
    done: int
    total: int
    blockers: str | None
    """Process ids that the build waits for."""


@asynccontextmanager
async def watched(
    dsn: str, connection: asyncpg.Connection, report: Callable[[BuildProgress], None]
) -> AsyncIterator[None]:
    """Report the progress of what `connection` builds, on a connection of its own.

    Nothing is opened for a build of under half a second, and no failure reaches the build.
    """
    pid = connection.get_server_pid()
    task = asyncio.create_task(_poll(dsn, pid, report))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _poll(dsn: str, pid: int, report: Callable[[BuildProgress], None]) -> None:
    await asyncio.sleep(_SECONDS)
    connection = await asyncpg.connect(dsn, statement_cache_size=0, timeout=10)
    try:
        while True:
            row = await connection.fetchrow(_SQL, pid)
            if row is not None:
                report(BuildProgress(row["phase"], row["done"], row["total"], row["blockers"]))
            await asyncio.sleep(_SECONDS)
    finally:
        connection.terminate()
