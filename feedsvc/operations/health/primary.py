"""The primary's own figures, by one query for all checks that read them."""

import asyncio
import time
from importlib.resources import files
from typing import Final, NamedTuple

import asyncpg

from feedsvc.backends.postgres.probe import ProbeConnection
from feedsvc.backends.postgres.servers import Servers
from feedsvc.settings import Database

_QUESTION: Final = (files("feedsvc.operations.health") / "primary.sql").read_text()
_DEADLINE: Final = 0.7  # seconds
_FRESH: Final = 0.3  # seconds for which an answer does for others


class PrimaryRow(NamedTuple):
    """The row of primary.sql, when it was asked for (seconds since 1970), how long it took."""

    row: asyncpg.Record
    asked: float
    took: float


class Primary:
    """The primary, on a connection that is kept, so that it answers when no more can be made."""

    def __init__(self, database: Database | Servers) -> None:
        self._probe = ProbeConnection(database, "feedsvc health", _DEADLINE)
        self._asking: asyncio.Task[PrimaryRow] | None = None
        self._last: PrimaryRow | None = None
        self._oldest_writer: tuple[int, float] | None = None

    async def answer(self) -> PrimaryRow:
        """A row that is fresh. Raises TimeoutError, OSError and asyncpg's errors."""
        if self._last is not None and time.time() - self._last.asked <= _FRESH:
            return self._last
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask())
        # A check that stops waiting does not cancel it for the others.
        return await asyncio.shield(self._asking)

    def oldest_writer_age(self) -> float | None:
        """The seconds for which the oldest transaction that has written has been seen.

        Its session may be hidden from this login; its number is not. None where there is none.
        """
        if self._oldest_writer is None:
            return None
        return time.monotonic() - self._oldest_writer[1]

    async def close(self) -> None:
        """End the connection."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)
        self._probe.close()

    async def _ask(self) -> PrimaryRow:
        asked, began = time.time(), time.perf_counter()
        row = await self._probe.ask(_QUESTION)
        self._last = PrimaryRow(row, asked, time.perf_counter() - began)
        self._note_oldest_writer(row["oldest_writer"], row["next_writer"])
        return self._last

    def _note_oldest_writer(self, oldest: int, following: int) -> None:
        if oldest >= following:
            self._oldest_writer = None
        elif self._oldest_writer is None or self._oldest_writer[0] != oldest:
            self._oldest_writer = oldest, time.monotonic()
