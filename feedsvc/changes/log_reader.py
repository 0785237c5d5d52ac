"""The change log, read by a worker for all of its requests, and only when one of them needs it.

A position in the log is a snapshot: a look reads what is committed now and was not then
(docs/changes.md). Requests that need one at once share a look, and without requests there is none.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from importlib.resources import files
from typing import Any, Final, NoReturn, TypeVar, cast

import asyncpg

from feedsvc.backends.postgres.servers import Servers, servers_of
from feedsvc.backends.postgres.sessions import PooledSession
from feedsvc.backends.postgres.snapshot import Snapshot
from feedsvc.changes.log_entries import LogEntry, LogSubscriber
from feedsvc.core.events import LogRead, LogTurned, Observers
from feedsvc.core.logs import redacted
from feedsvc.settings import Database

T = TypeVar("T")

logger = logging.getLogger(__name__)

APPLICATION_NAME: Final = "feedsvc changes"
DEADLINE: Final = 2.0
"""Seconds that a look may take."""
SURVEY_INTERVAL: Final = 30.0
"""Seconds between surveys, while looks are asked for."""
MOST_ROWS: Final = 50_000
"""Rows of the log that one look reads; beyond that all that was known is forgotten."""
_SURVEY_DEADLINE: Final = 10.0
_SURVEY_RETRY: Final = 5.0
_OVERDUE: Final = 2.0  # of the interval: a look waits for the survey then
_AHEAD: Final = 0.75  # of the interval, after which the next look begins before it is waited for
_TURNS: Final = 4  # of the event loop
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0
_SETTINGS: Final = {
    "application_name": APPLICATION_NAME,
    # The same statement up to fifty times a second, over partitions that are never analysed.
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "max_parallel_workers_per_gather": "0",
    "default_transaction_isolation": "read committed",
}

_SINCE: Final = (files("feedsvc.changes") / "log_reader.sql").read_text()
_LOCK: Final = "LOCK TABLE feedsvc.log IN ACCESS SHARE MODE"
_LOST: Final = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InterfaceError,
)


class _LogUnreadableError(Exception):
    """The log can't be read as it must be."""


class LogReader:
    """Reads the log for one subscriber.

    `survey` gets a connection of its own before the first look, and every 30 s while looks go on;
    it returns whether something was found by which what was read before does not count. `interval`:
    seconds for which a look is good enough.
    """

    def __init__(
        self,
        database: Database | Servers,
        subscriber: LogSubscriber,
        survey: Callable[[asyncpg.Connection], Awaitable[bool]],
        *,
        interval: float,
        observers: Observers | None = None,
    ) -> None:
        self._servers = servers_of(database)
        self._subscriber = subscriber
        self._survey = survey
        self._interval = interval
        self._observers = observers or Observers()
        self._connection: asyncpg.Connection | None = None
        self._position: Snapshot | None = None
        self._epoch: str | None = None
        self._read_at = -float("inf")  # the beginning of the last look that counts
        self._void_before = -float("inf")
        self._flight: asyncio.Task[bool] | None = None
        self._surveying: asyncio.Task[None] | None = None
        self._surveyed_at = self._next_survey = -float("inf")
        self._must_try = asyncio.Event()
        self._must_try.set()
        self._tried = asyncio.Event()
        self._is_reading = False

    @property
    def is_beginning(self) -> bool:
        """Return whether the first look is not over yet."""
        return not self._tried.is_set()

    @property
    def is_reading(self) -> bool:
        """Return whether the last look succeeded."""
        return self._is_reading

    @property
    def read_ago(self) -> float:
        """Seconds since the last look that counts."""
        return time.monotonic() - self._read_at

    def is_current(self) -> bool:
        """Return whether the log was read within the interval, the time between two looks."""
        age = time.monotonic() - self._read_at
        if age > self._interval * _AHEAD and self._is_reading and self._flight is None:
            self._begin()
        return age < self._interval

    async def current(self, within: float | None = None) -> bool:
        """Wait until the log was read within the interval; false on failure, or after `within`."""
        return await self._read_since(time.monotonic() - self._interval, within)

    async def begun(self) -> None:
        """Wait until the first look is over, as `run` makes it; it may have failed."""
        await self._tried.wait()

    async def catch_up(self) -> bool:
        """Wait until all changes that are committed now are passed on; false on failure."""
        return await self._read_since(time.monotonic(), None)

    async def run(self) -> NoReturn:
        """Read the log once, and whenever it could not be read again, until cancelled."""
        pause = _FIRST_PAUSE
        try:
            while True:
                await self._must_try.wait()
                await asyncio.wait({self._flight or self._begin()})
                if self._is_reading:
                    pause = _FIRST_PAUSE
                    continue
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
        finally:
            await self._close()

    def restart(self) -> None:
        """Begin anew on another connection, at once. Until then nothing counts as read."""
        self._drop()
        self._forget_surveys()
        self._fail()

    async def _read_since(self, moment: float, within: float | None) -> bool:
        deadline = None if within is None else time.monotonic() + within
        while self._read_at < moment:
            if not self._is_reading:
                return False  # `run` tries again, and no request has to wait for that
            flight = self._flight or self._begin()
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not await _ends_within(flight, left):
                return False
        return True

    def _begin(self) -> asyncio.Task[bool]:
        flight = self._flight = asyncio.create_task(self._look())
        flight.add_done_callback(self._ended)
        return flight

    def _ended(self, flight: asyncio.Task[bool]) -> None:
        if self._flight is flight:
            self._flight = None
        if not flight.cancelled():
            flight.exception()

    async def _look(self) -> bool:
        """Read the log once; false where it could not be read."""
        began = time.monotonic()
        try:
            rows = await self._rows_since_the_position()
        except Exception as error:  # noqa: BLE001 - after any error, begin anew
            self._drop()
            if self._is_reading or self.is_beginning:
                logger.warning(
                    "changes: the log can't be read, so nothing is cached: %s", _reason(error)
                )
            self._tried.set()
            self._fail()
            return False
        if not self._is_reading:
            logger.info("changes: the log is read")
            self._observers.publish(LogTurned(reads=True))
        self._tried.set()
        self._is_reading = True
        self._must_try.clear()
        self._observers.publish(LogRead(time.monotonic() - began, rows))
        return True

    async def _rows_since_the_position(self) -> int:
        """Pass on what was committed since the last look; the number of the log's rows.

        Raises what asyncpg raises.
        """
        if self._connection is not None and not self._connection.is_closed():
            try:
                await self._survey_in_time()
                return await self._fetch(self._connection)
            except _LOST as error:
                # Lost since the last look: a firewall forgot it, or the server was started again.
                if isinstance(error, TimeoutError):
                    raise
        self._drop()
        async with asyncio.timeout(DEADLINE):
            self._connection = await self._servers.connect(_SETTINGS)
        self._connection.add_termination_listener(self._lost)
        # It may be another server, or another life of it.
        self._forget_surveys()
        await self._survey_in_time()
        return await self._fetch(self._connection)

    async def _fetch(self, connection: asyncpg.Connection) -> int:
        began = time.monotonic()
        rows = await _answered(_written(connection, self._position))
        if rows[0]["epoch"] is None:
            await _answered(_begin_life(connection))
            rows = await _answered(_written(connection, self._position))
        if rows[0]["isolation"] != "read committed":
            raise _LogUnreadableError("a look must be READ COMMITTED, whatever the login's default")
        self._pass_on(rows, began)
        return len(rows) - 1

    def _pass_on(self, rows: Sequence[Mapping[str, Any]], began: float) -> None:
        first, written = rows[0], rows[1:]
        snapshot, floor = Snapshot.parse(first["snapshot"]), first["floor"]
        position, epoch = self._position, self._epoch
        self._position, self._epoch = snapshot, first["epoch"]
        goes_on = (
            position is not None
            and epoch == first["epoch"]
            and (floor is None or position.covers(Snapshot.parse(floor)))
            and len(written) <= MOST_ROWS
        )
        if goes_on:
            self._subscriber.on_changes([_entry(row) for row in written])
        else:
            self._subscriber.on_start()
        if began >= self._void_before:
            self._subscriber.on_read(snapshot)
            self._read_at = began

    async def _survey_in_time(self) -> None:
        """Begin a survey when it is due; wait for one that is overdue. Raises what it raises."""
        now = time.monotonic()
        if now >= self._next_survey and self._surveying is None:
            self._next_survey = now + _SURVEY_RETRY
            self._surveying = asyncio.create_task(self._survey_once())
            self._surveying.add_done_callback(self._surveyed)
        if now > self._surveyed_at + SURVEY_INTERVAL * _OVERDUE:
            survey = self._surveying
            if survey is None:
                raise _LogUnreadableError("the triggers could not be checked for a minute")
            await asyncio.wait({survey})
            if survey.cancelled():
                raise _LogUnreadableError("the reader begins anew")
            survey.result()

    def _forget_surveys(self) -> None:
        """Count none, also not one that is under way: it may read what was there before."""
        survey, self._surveying = self._surveying, None
        if survey is not None:
            survey.cancel()
        self._surveyed_at = self._next_survey = -float("inf")

    async def _survey_once(self) -> None:
        connection = None
        try:
            async with asyncio.timeout(_SURVEY_DEADLINE):
                connection = await self._servers.connect({"application_name": APPLICATION_NAME})
                is_new = await self._survey(connection)
        finally:
            if connection is not None:
                connection.terminate()
        self._surveyed_at = time.monotonic()
        self._next_survey = self._surveyed_at + SURVEY_INTERVAL
        if is_new:
            self._read_at, self._void_before = -float("inf"), self._surveyed_at

    def _surveyed(self, survey: asyncio.Task[None]) -> None:
        if survey is self._surveying:
            self._surveying = None
        if not survey.cancelled() and (error := survey.exception()) is not None:
            logger.warning("changes: the triggers could not be checked: %s", _reason(error))

    def _fail(self) -> None:
        if self._is_reading:
            self._observers.publish(LogTurned(reads=False))
        self._is_reading = False
        self._read_at = -float("inf")
        self._must_try.set()
        self._subscriber.on_failure()

    def _lost(self, connection: object) -> None:
        if connection is self._connection:
            self._connection = None
            self._fail()

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    async def _close(self) -> None:
        self._fail()  # first, so that those who wait begin no other look
        self._tried.set()
        tasks = [task for task in (self._flight, self._surveying) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._drop()


async def _written(
    connection: asyncpg.Connection, position: Snapshot | None
) -> Sequence[Mapping[str, Any]]:
    """The rows of one look. Through a pooler all of it is one message."""
    since = None if position is None else str(position)
    if not getattr(connection, "is_pooled", False):
        return [dict(row) for row in await connection.fetch(_SINCE, since, MOST_ROWS + 1)]
    literal = "NULL" if since is None else f"'{since}'"  # digits, colons and commas
    query = _SINCE.replace("$1", literal).replace("$2", str(MOST_ROWS + 1))
    found = await cast("PooledSession", connection).rows_at_once(query, _LOCK)
    for row in found:
        row["tags"] = bytes.fromhex((row["tags"] or "").removeprefix("\\x"))
    return found


async def _begin_life(connection: asyncpg.Connection) -> None:
    """Make a new epoch where a crash, a promotion or a restore has emptied its table."""
    async with connection.transaction():
        await connection.execute("SET TRANSACTION READ WRITE")
        await connection.execute("SELECT feedsvc.log_life()")


async def _answered(asked: Coroutine[Any, Any, T]) -> T:
    """The answer. Raises TimeoutError behind the deadline, and what is raised in its place."""
    task = asyncio.ensure_future(asked)
    try:
        if not await _ends_within(task, DEADLINE):
            raise TimeoutError
        return task.result()
    finally:
        task.cancel()


async def _ends_within(task: "asyncio.Future[Any]", within: float | None) -> bool:
    """Return whether a task ends in time, and some turns later: an answer may be there that a busy
    loop has not read yet.
    """
    await asyncio.wait({task}, timeout=within)
    for _ in range(_TURNS):
        if task.done():
            break
        await asyncio.sleep(0)
    return task.done()


def _entry(row: Mapping[str, Any]) -> LogEntry:
    return LogEntry(int(row["xid"]), row["scope"], row["feed"], row["op"], row["tags"] or b"")


def _reason(error: BaseException) -> str:
    if isinstance(error, asyncpg.UndefinedTableError):
        return "this database has none; run `feedsvc migrate up`"
    if isinstance(error, TimeoutError):
        return "PostgreSQL does not answer in time"
    return redacted(error)
