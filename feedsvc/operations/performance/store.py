"""Minutes in PostgreSQL: written in the background, put together into hours, trimmed.

While PostgreSQL is away they wait, up to a number; what is dropped beyond it is counted, and said
in the log.
"""

import asyncio
import itertools
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from importlib.resources import files
from typing import Any, Final, NamedTuple

from feedsvc.backends.postgres.own_schema import write_transaction
from feedsvc.backends.postgres.pool import Connection, Pool
from feedsvc.core import identifiers
from feedsvc.core.logs import redacted
from feedsvc.core.problems import NotSetUp, Problem, Timeout, Unavailable
from feedsvc.operations.performance.figures import Figures, readable
from feedsvc.operations.performance.recorder import MINUTE, Minute

logger = logging.getLogger(__name__)

HOUR: Final = 3_600
KEPT_MINUTES: Final = timedelta(hours=3)
"""After so long only the hour that they were part of is kept."""
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
_TOGETHER: Final = 1_000  # minutes at a time
_EVERY: Final = 1.0  # seconds
_LONGEST_PAUSE: Final = 30.0
_TIDY_EVERY: Final = 60.0
_SAY_EVERY: Final = 600.0  # seconds between lines about one and the same lack
_LAST_CHANCE: Final = 1.0  # seconds that the last minute gets on an orderly stop


class StoredFigures(NamedTuple):
    """Figures from `at` on, seconds since 1970, for so many seconds."""

    id: str
    at: float
    seconds: int
    figures: Figures


class Store:
    """Keeps minutes."""

    def __init__(self, pool: Pool) -> None:
        self.waiting: deque[StoredFigures] = deque()
        """What PostgreSQL does not have yet."""
        self._pool = pool
        self._dropped = 0
        self._said_at = -_SAY_EVERY
        self._set_up = True

    def keep(self, minute: Minute) -> None:
        """Takes a minute that is over; the oldest one is dropped where too many wait already."""
        if len(self.waiting) >= MOST_WAITING:
            self.waiting.popleft()
            self._dropped += 1
        self.waiting.append(
            StoredFigures(identifiers.new_uuid(), minute.at, MINUTE, minute.figures)
        )

    async def run(self) -> None:
        """Writes and tidies until it is cancelled."""
        pause, tidied = _EVERY, time.monotonic()
        while True:
            await asyncio.sleep(pause)
            well = await self.write()
            pause = _EVERY if well else min(pause * 2, _LONGEST_PAUSE)
            if well and time.monotonic() - tidied >= _TIDY_EVERY:
                tidied = time.monotonic()
                await self._tidy_quietly()

    async def close(self) -> None:
        """Writes what is left."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_CHANCE):
                for pause in itertools.repeat(_EVERY):
                    if await self.write() or not self._set_up:
                        return
                    await asyncio.sleep(pause)

    async def write(self) -> bool:
        """Writes what waits now; False where PostgreSQL does not take it."""
        while self.waiting:
            batch = list(itertools.islice(self.waiting, _BATCH))
            packed = await asyncio.to_thread(_packed, batch)
            try:
                async with write_transaction(self._pool) as connection:
                    await connection.execute(_ADD, *packed)
                self._set_up = True
            except (Unavailable, Timeout) as problem:
                self._set_up = not isinstance(problem, NotSetUp)
                self._say(problem)
                return False
            except Problem as problem:
                # It would be refused for ever, and hold up all that comes behind it.
                cause = redacted(problem.__cause__ or problem)
                logger.error("performance: %d minutes were refused: %s", len(batch), cause)  # noqa: TRY400
            written = {row.id for row in batch}
            while self.waiting and self.waiting[0].id in written:
                self.waiting.popleft()
        return True

    @asynccontextmanager
    async def reading(self) -> AsyncIterator["Reader"]:
        """What all workers everywhere have written, as of one moment. Raises Problem."""
        async with write_transaction(self._pool) as connection:
            await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            yield Reader(connection)

    async def tidy(self) -> int:
        """Puts together the minutes of one hour, and trims. How many minutes that were.

        Raises Problem. One process does it at a time; whoever finds another at it leaves it.
        """
        async with write_transaction(self._pool) as connection:
            if not await connection.fetchval(_LOCK):
                return 0
            minutes = await connection.fetch(_OLDEST_HOUR, KEPT_MINUTES, _TOGETHER)
            if minutes:
                packed = await asyncio.to_thread(_together, minutes)
                await connection.execute(_ADD, *packed)
                await connection.execute(_DELETE, [row["id"] for row in minutes])
            await connection.execute(_TRIM, KEPT_HOURS)
            return len(minutes)

    async def _tidy_quietly(self) -> None:
        try:
            while await self.tidy():
                pass
        except Problem as problem:
            self._say(problem)

    def _say(self, problem: Problem) -> None:
        if time.monotonic() - self._said_at >= _SAY_EVERY:
            self._said_at = time.monotonic()
            what = "performance: %d minutes wait and %d were dropped: %s"
            logger.warning(what, len(self.waiting), self._dropped, problem.detail)


def _packed(rows: Sequence[StoredFigures]) -> tuple[list[str], list[float], list[int], list[bytes]]:
    return (
        [row.id for row in rows],
        [row.at for row in rows],
        [row.seconds for row in rows],
        [row.figures.pack() for row in rows],
    )


class Reader:
    """Rows, within one transaction. Raises what asyncpg raises."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def listed(self, since: float) -> list[tuple[str, float]]:
        """The ids of rows from this point in time on, and when they begin."""
        return [tuple(row) for row in await self._connection.fetch(_LISTED, since)]

    async def figures(self, ids: Sequence[str]) -> dict[str, bytes]:
        """The figures of these rows, packed, by their ids."""
        found = await self._connection.fetch(_FIGURES, ids) if ids else []
        return {row["id"]: row["figures"] for row in found}


def _together(minutes: Sequence[Any]) -> tuple[list[str], list[float], list[int], list[bytes]]:
    """One row of an hour, of what can be read."""
    merged = Figures()
    for minute in minutes:
        merged.merge(readable(minute["id"], minute["figures"]))
    return _packed([StoredFigures(identifiers.new_uuid(), minutes[0]["hour"], HOUR, merged)])
