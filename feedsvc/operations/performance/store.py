"""Minutes in PostgreSQL: written in the background, merged into hours, trimmed."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from importlib.resources import files
from typing import Any, Final, NamedTuple

from feedsvc.backends.postgres.outbox import Outbox, OutboxTable
from feedsvc.backends.postgres.own_schema import write_transaction
from feedsvc.backends.postgres.pool import Connection, Pool
from feedsvc.core import identifiers
from feedsvc.core.problems import Problem
from feedsvc.operations.performance.figures import Figures, readable
from feedsvc.operations.performance.recorder import MINUTE, Minute

HOUR: Final = 3_600
KEPT_MINUTES: Final = timedelta(hours=3)
"""The age at which minutes are merged into their hour."""
KEPT_HOURS: Final = timedelta(days=15)
MOST_WAITING: Final = 180
"""Minutes that may wait for PostgreSQL."""

_ADD, _LISTED, _FIGURES, _OLDEST_HOUR, _TRIM = (
    (files("feedsvc.operations.performance") / f"{name}.sql").read_text()
    for name in ("add", "listed", "figures", "oldest_hour", "trim")
)
_LOCK: Final = "select pg_try_advisory_xact_lock(hashtext('feedsvc.performance'))"
_DELETE: Final = "delete from feedsvc.performance where id = any($1::uuid[])"
_BATCH: Final = 60
_MOST_MERGED: Final = 1_000  # minutes at a time
_TIDY_EVERY: Final = 60.0  # seconds
_LAST_CHANCE: Final = 1.0  # seconds for the last minute on an orderly stop


class StoredFigures(NamedTuple):
    """Figures of `seconds` seconds from `at` on, in seconds since 1970."""

    id: str
    at: float
    seconds: int
    figures: Figures


class Store:
    """The table of minutes and hours."""

    def __init__(self, pool: Pool) -> None:
        self.outbox = Outbox(
            pool,
            OutboxTable("performance", "minutes", _ADD, _packed, MOST_WAITING, _BATCH, newest=True),
        )
        self._pool = pool

    def keep(self, minute: Minute) -> StoredFigures:
        """Take a minute that is over."""
        row = StoredFigures(identifiers.new_uuid(), minute.at, MINUTE, minute.figures)
        self.outbox.add(row)
        return row

    async def run_tidying(self) -> None:
        """Merge and trim once a minute, until cancelled."""
        while True:
            await asyncio.sleep(_TIDY_EVERY)
            try:
                while await self.tidy():
                    pass
            except Problem as problem:
                self.outbox.log(problem)

    async def close(self) -> None:
        """Write what is left."""
        await self.outbox.close(_LAST_CHANCE)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator["Reader"]:
        """Open a reader of one snapshot of all workers' rows. Raises Problem."""
        async with write_transaction(self._pool) as connection:
            await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            yield Reader(connection)

    async def tidy(self) -> int:
        """Merge the minutes of one hour, and trim. The number of minutes merged.

        Raises Problem. One process does it at a time, by an advisory lock; the others return 0.
        """
        async with write_transaction(self._pool) as connection:
            if not await connection.fetchval(_LOCK):
                return 0
            minutes = await connection.fetch(_OLDEST_HOUR, KEPT_MINUTES, _MOST_MERGED)
            if minutes:
                packed = await asyncio.to_thread(_merged, minutes)
                await connection.execute(_ADD, *packed)
                await connection.execute(_DELETE, [row["id"] for row in minutes])
            await connection.execute(_TRIM, KEPT_HOURS)
            return len(minutes)


def _packed(rows: Sequence[StoredFigures]) -> tuple[list[str], list[float], list[int], list[bytes]]:
    return (
        [row.id for row in rows],
        [row.at for row in rows],
        [row.seconds for row in rows],
        [row.figures.pack() for row in rows],
    )


class Reader:
    """Rows as of one transaction. Raises asyncpg's errors."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def listed(self, since: float) -> list[tuple[str, float]]:
        """The ids of rows from this point in time on, and when they begin."""
        return [tuple(row) for row in await self._connection.fetch(_LISTED, since)]

    async def figures(self, ids: Sequence[str]) -> dict[str, bytes]:
        """The figures of these rows, packed, by their ids."""
        found = await self._connection.fetch(_FIGURES, ids) if ids else []
        return {row["id"]: row["figures"] for row in found}


def _merged(minutes: Sequence[Any]) -> tuple[list[str], list[float], list[int], list[bytes]]:
    """The row of an hour, from those minutes that can be read."""
    merged = Figures()
    for minute in minutes:
        merged.merge(readable(minute["id"], minute["figures"]))
    return _packed([StoredFigures(identifiers.new_uuid(), minutes[0]["hour"], HOUR, merged)])
