"""One connection that migrates a line, while no other can."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import asyncpg

from feedsvc.backends.postgres.migrations.errors import MigrationBusyError
from feedsvc.backends.postgres.migrations.lines import Territory

_CONNECT_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 0.1
_CLOSE_SECONDS: Final = 5.0


@asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection for migrating, closed at the end whatever happens.

    Raises OSError, TimeoutError or asyncpg.PostgresError where there is none to be had.
    """
    connection = await asyncpg.connect(dsn, timeout=_CONNECT_SECONDS)
    try:
        # Not as startup parameters, which poolers refuse. A login's own statement_timeout would
        # cut a long index build; a lock that isn't given soon would queue all readers behind us.
        await connection.execute("SET statement_timeout = 0; SET lock_timeout = '10s'")
        yield connection
    finally:
        try:
            await connection.close(timeout=_CLOSE_SECONDS)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            connection.terminate()


@asynccontextmanager
async def exclusive(
    dsn: str, territory: Territory, wait: float
) -> AsyncIterator[asyncpg.Connection]:
    """The connection that holds the line's advisory lock, waited for `wait` seconds at most.

    The lock lives as long as the very connection that migrates, so it can't be lost while the
    work goes on. Raises MigrationBusyError when the lock isn't free in time.
    """
    async with connected(dsn) as connection:
        await _lock(connection, territory, wait)
        yield connection


async def _lock(connection: asyncpg.Connection, territory: Territory, wait: float) -> None:
    # Polled: a session that waits inside pg_advisory_lock holds a snapshot, on which another's
    # CREATE INDEX CONCURRENTLY waits in its turn, for ever.
    deadline = time.monotonic() + wait
    while not await connection.fetchval("SELECT pg_try_advisory_lock($1)", territory.lock):
        if time.monotonic() >= deadline:
            raise MigrationBusyError(
                f"another process has been migrating {territory.schema} for {wait:g} s; try again"
            )
        await asyncio.sleep(_POLL_SECONDS)
