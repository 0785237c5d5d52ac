"""The one place where sessions may write: into the service's own schema, nowhere else."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import asyncpg
from asyncpg.transaction import Transaction

from feedsvc.backends.postgres.beginning import begin
from feedsvc.backends.postgres.ending import roll_back
from feedsvc.backends.postgres.faults import as_problems
from feedsvc.backends.postgres.pool import AnyConnection, Connection, Pool
from feedsvc.backends.postgres.servers import Servers
from feedsvc.backends.postgres.sessions import Session, is_pooled
from feedsvc.core.problems import NotSetUp


@asynccontextmanager
async def write_transaction(pool: Pool) -> AsyncIterator[Connection]:
    """A transaction that may write. Raises Problem, whatever the database does."""
    with as_problems(pool.observers):
        try:
            async with pool.lease() as leased:
                connection, transaction = await begin(pool, leased)
                async with _committing(transaction, connection, pool.release_timeout):
                    yield connection
        except (asyncpg.UndefinedTableError, asyncpg.InsufficientPrivilegeError) as error:
            what = "The service's own tables are not set up in this database."
            raise NotSetUp(what, 60) from error


@asynccontextmanager
async def _committing(
    transaction: Transaction, connection: AnyConnection, timeout: float
) -> AsyncIterator[None]:
    """Let the block write in a transaction that has begun; `timeout` is for a rollback."""
    try:
        await connection.execute("SET TRANSACTION READ WRITE")
        yield
    except BaseException:
        await roll_back(transaction, connection, timeout)
        raise
    await transaction.commit()


@asynccontextmanager
async def write_session(
    servers: Servers, application_name: str, settings: Mapping[str, str] | None = None
) -> AsyncIterator["WriteSession"]:
    """A session of no pool's with these settings, which ends without a farewell.

    Raises OldPrimaryError, SessionRefusedError and what asyncpg raises.
    """
    given = {
        **(settings or {}),
        "application_name": application_name,
        "default_transaction_read_only": "off",
    }
    session = await servers.connect(given)
    try:
        yield WriteSession(session, servers.database.release_timeout)
    finally:
        session.terminate()


class WriteSession:
    """Statements that may write, each of which commits by itself.

    For those that lock: a process that is stopped between two messages would keep the locks of a
    transaction. Behind a pooler of transactions they need one.
    """

    def __init__(self, session: Session, release_timeout: float) -> None:
        self._session = session
        self._release_timeout = release_timeout

    @property
    def is_pooled(self) -> bool:
        """Return whether a pooler gives each transaction a session."""
        return is_pooled(self._session)

    async def row(self, sql: str, *values: object) -> asyncpg.Record | None:
        """The first row. Raises what asyncpg raises."""
        if not self.is_pooled:
            return await self._session.fetchrow(sql, *values)
        transaction = self._session.transaction()
        await transaction.start()
        async with _committing(transaction, self._session, self._release_timeout):
            return await self._session.fetchrow(sql, *values)
