"""Pools of connections without a service."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from feedsvc.backends.postgres.pool import Pool
from feedsvc.settings import Database, PoolSettings


@asynccontextmanager
async def pool_of(
    url: str, name: str = "read", pooler: str = "auto", size: int = 2
) -> AsyncIterator[Pool]:
    """An open pool of so many connections to this URL."""
    database = Database.model_validate({"url": url, "pooler": pooler})
    pool = Pool(name, PoolSettings(size=size), database)  # type: ignore[arg-type]
    await pool.open()
    try:
        yield pool
    finally:
        await pool.close(1.0)
