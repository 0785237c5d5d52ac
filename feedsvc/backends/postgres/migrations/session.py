"""One connection that migrates a line, while no other can."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import asyncpg

from feedsvc.backends.postgres.migrations.errors import MigrationBusyError, MigrationError
from feedsvc.backends.postgres.migrations.lines import Territory
from feedsvc.backends.postgres.migrations.watch import MigrationWatch
from feedsvc.backends.postgres.sessions import is_direct, is_pooled_by_transaction

LOCK_MS: Final = 10_000
_CONNECT_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 0.1
_CLOSE_SECONDS: Final = 5.0
_POOLED: Final = (
    "a pooler of transactions stands between, where a migration's lock would be left to others: let"
    " MIGRATION_DATABASE_URL name PostgreSQL itself"
)


@asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection for migrating, closed at the end whatever happens.

    Raises OSError, TimeoutError or asyncpg.PostgresError where there is none to be had, and
    MigrationError where it would not last.
    """
    connection = await _open(dsn)
    try:
        await _refuse_split(connection, dsn)
        # Not as startup parameters, which poolers refuse. A login's own statement_timeout would
        # cut a long index build; a lock that isn't given soon would queue all readers behind us.
        await connection.execute(f"SET statement_timeout = 0; SET lock_timeout = {LOCK_MS}")
        await _end_with_its_client(connection)
        yield connection
    finally:
        try:
            await connection.close(timeout=_CLOSE_SECONDS)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            connection.terminate()


async def _end_with_its_client(connection: asyncpg.Connection) -> None:
    """Let the session, with its lock, end within seconds of this process, in a build as well."""
    try:
        await connection.execute("SET client_connection_check_interval = '2s'")
    except asyncpg.PostgresError:
        return  # not on that server's system: its build goes on, and the next migrator waits for it


async def _open(dsn: str) -> asyncpg.Connection:
    # Without names of statements, which would clash in a pooler that is not known of yet.
    return await asyncpg.connect(dsn, timeout=_CONNECT_SECONDS, statement_cache_size=0)


async def _refuse_split(connection: asyncpg.Connection, dsn: str) -> None:
    """Raise MigrationError if a pooler hands out another session for each transaction."""
    if await is_direct(connection):
        return
    other = await _open(dsn)
    try:
        if await is_pooled_by_transaction(connection, other):
            raise MigrationError(_POOLED)
    finally:
        other.terminate()


@asynccontextmanager
async def exclusive(
    dsn: str, territory: Territory, wait: float, watch: MigrationWatch
) -> AsyncIterator[asyncpg.Connection]:
    """The connection that holds the line's advisory lock, waited for `wait` seconds at most.

    The lock lives as long as the very connection that migrates, so it can't be lost while the
    work goes on. Raises MigrationBusyError when the lock isn't free in time.
    """
    async with connected(dsn) as connection:
        await _lock(connection, territory, wait, watch)
        yield connection


async def _lock(
    connection: asyncpg.Connection, territory: Territory, wait: float, watch: MigrationWatch
) -> None:
    # Polled: a session that waits inside pg_advisory_lock holds a snapshot, on which another's
    # CREATE INDEX CONCURRENTLY waits in its turn, for ever.
    deadline = time.monotonic() + wait
    is_shown = False
    while not await connection.fetchval("SELECT pg_try_advisory_lock($1)", territory.lock):
        if not is_shown:
            watch.waits(territory.schema)
            is_shown = True
        if time.monotonic() >= deadline:
            raise MigrationBusyError(
                f"another process has been migrating {territory.schema} for {wait:g} s; try again"
            )
        await asyncio.sleep(_POLL_SECONDS)
