"""A connection of its own, kept for one question that is asked again and again under a deadline."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import asyncpg

from feedsvc.backends.postgres import pool
from feedsvc.backends.postgres.servers import Servers
from feedsvc.settings import Database

Greeting = Callable[[asyncpg.Connection], Awaitable[None]]


class ProbeConnection:
    """Ask on one connection, and on a new one after whatever went wrong.

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
        """End the connection at once; the next question makes another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):
                connection.terminate()

    async def _connect(self) -> asyncpg.Connection:
        connection = await pool.connect(self._database, application_name=self._application_name)
        self._connection = connection
        if self._greeting is not None:
            await self._greeting(connection)
        return connection


logger = logging.getLogger(__name__)

_INTERVAL: Final = 0.5  # seconds
_DEADLINE: Final = 1.0  # seconds


class ReadinessProbe:
    """Ask PostgreSQL twice a second, on a connection of its own, whether it answers."""

    def __init__(self, database: Database | Servers) -> None:
        self.fault: str | None = "the database has not answered yet"
        """The reason for which the database is of no use, None while it answers."""
        self._database = database
        self._connection: asyncpg.Connection | None = None

    async def run(self) -> None:
        """Probe until it is cancelled."""
        try:
            while True:
                await self.probe()
                await asyncio.sleep(_INTERVAL)
        finally:
            self._drop()

    async def probe(self) -> None:
        """Ask once and keep the answer."""
        before = self.fault
        try:
            async with asyncio.timeout(_DEADLINE):
                if self._connection is None or self._connection.is_closed():
                    self._connection = await pool.connect(
                        self._database, application_name="feedsvc probe"
                    )
                await self._connection.fetchval("SELECT 1")
            self.fault = None
        except Exception as error:  # noqa: BLE001 - any failure means that it is of no use
            self.fault = f"the database does not answer ({type(error).__name__})"
            self._drop()
        if self.fault != before:
            logger.info("database: %s", self.fault or "answers")

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.terminate()
