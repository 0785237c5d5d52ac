"""A connection of its own, kept for one question that is asked again and again under a deadline."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import asyncpg

from feedsvc import pools
from feedsvc.servers import Servers
from feedsvc.settings import Database

Greeting = Callable[[asyncpg.Connection], Awaitable[None]]


class Inquiry:
    """Asks on one connection, and on a new one after whatever went wrong.

    `greeting` gets each new connection first. One question at a time.
    """

    def __init__(
        self,
        database: Database | Servers,
        application_name: str,
        deadline: float,
        greeting: Greeting | None = None,
    ) -> None:
        self._database = database
        self._application_name = application_name
        self._deadline = deadline
        self._greeting = greeting
        self._connection: asyncpg.Connection | None = None

    async def ask(self, sql: str) -> asyncpg.Record:
        """The one row of the answer. Raises TimeoutError, OSError and what asyncpg raises."""
        try:
            async with asyncio.timeout(self._deadline):
                connection = self._connection
                if connection is None or connection.is_closed():
                    connection = await self._connect()
                row = await connection.fetchrow(sql)
        except BaseException:
            self.close()
            raise
        if row is None:
            raise asyncpg.InternalClientError("the question had no answer")
        return row

    def close(self) -> None:
        """Ends the connection at once; the next question makes another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):
                connection.terminate()

    async def _connect(self) -> asyncpg.Connection:
        connection = await pools.connect(self._database, application_name=self._application_name)
        self._connection = connection
        if self._greeting is not None:
            await self._greeting(connection)
        return connection
