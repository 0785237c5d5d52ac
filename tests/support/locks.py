"""A table that is locked for a while, and the readers that wait for it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

_READERS = (
    "SELECT client_port FROM pg_stat_activity WHERE datname = current_database() "
    "AND application_name = 'feedsvc read' AND wait_event_type = 'Lock'"
)


@asynccontextmanager
async def locked(admin_url: str, table: str) -> AsyncIterator[None]:
    """Lock the table, so that readers wait until the block ends.

    On a connection of its own, for a transaction sees pg_stat_activity as it first saw it.
    """
    connection = await asyncpg.connect(admin_url)
    try:
        async with connection.transaction():
            await connection.execute(f"LOCK {table} IN ACCESS EXCLUSIVE MODE")
            yield
    finally:
        await connection.close()


async def readers(world: asyncpg.Connection) -> list[int]:
    """The ports from which services wait for a lock to read a page."""
    return [row[0] for row in await world.fetch(_READERS)]


async def until_read_waits(world: asyncpg.Connection) -> None:
    """Return once a service waits for a lock. Raises TimeoutError."""
    async with asyncio.timeout(20):
        while not await readers(world):
            await asyncio.sleep(0.02)
