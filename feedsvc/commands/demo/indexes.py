"""A table without its indexes for as long as it is filled: built at the end, they cost a third."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from asyncpg import Connection

_SQL: Final = (Path(__file__).parent / "indexes.sql").read_text(encoding="utf-8")


@asynccontextmanager
async def without_indexes(connection: Connection, table: str) -> AsyncIterator[None]:
    """Drop the table's indexes and build the very same again, all in one transaction.

    So whatever happens in between, a crash too, the table is never without them.
    """
    async with connection.transaction():
        indexes = await connection.fetch(_SQL, table)
        for index in indexes:
            await connection.execute(index["drop"])
        yield
        for index in indexes:
            await connection.execute(index["build"])
