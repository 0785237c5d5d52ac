"""Whether requests would be answered, looked at in the background so that asking costs nothing."""

import asyncio
import contextlib
import logging
from typing import Final

import asyncpg

from feedsvc import pools
from feedsvc.servers import Servers
from feedsvc.settings import Database

logger = logging.getLogger(__name__)

_INTERVAL: Final = 0.5  # seconds
_DEADLINE: Final = 1.0  # seconds


class DatabaseProbe:
    """Asks PostgreSQL twice a second, on a connection of its own, whether it answers."""

    def __init__(self, database: Database | Servers) -> None:
        self.fault: str | None = "the database has not answered yet"
        """Why the database is of no use, None while it answers."""
        self._database = database
        self._connection: asyncpg.Connection | None = None

    async def run(self) -> None:
        """Probes until it is cancelled."""
        try:
            while True:
                await self.probe()
                await asyncio.sleep(_INTERVAL)
        finally:
            self._drop()

    async def probe(self) -> None:
        """Asks once and keeps the answer."""
        before = self.fault
        try:
            async with asyncio.timeout(_DEADLINE):
                if self._connection is None or self._connection.is_closed():
                    self._connection = await pools.connect(
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
