"""The one place that opens a transaction to write: into the service's own schema, nowhere else."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from feedsvc.backends.postgres.faults import as_problems
from feedsvc.backends.postgres.pool import Connection, Pool
from feedsvc.core.problems import NotSetUp


@asynccontextmanager
async def write_transaction(pool: Pool) -> AsyncIterator[Connection]:
    """A transaction that may write. Raises Problem, whatever the database does."""
    with as_problems(pool.observers):
        try:
            async with pool.lease() as connection, connection.transaction():
                await connection.execute("SET TRANSACTION READ WRITE")
                yield connection
        except (asyncpg.UndefinedTableError, asyncpg.InsufficientPrivilegeError) as error:
            what = "The service's own tables are not set up in this database."
            raise NotSetUp(what, 60) from error
