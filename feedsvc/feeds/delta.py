"""The changes of one feed between a cursor and the present state, as its caller sees them.

The log says which keys were written; the rows are read from the relation itself, in one snapshot
and under row-level security. So PostgreSQL decides what the caller sees of them, and a row that
changed many times is read once.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from itertools import islice
from typing import ClassVar, Final, NamedTuple, Self

import asyncpg

from feedsvc.backends.postgres.faults import as_problems
from feedsvc.backends.postgres.pool import Connection, Pool
from feedsvc.backends.postgres.snapshot import Snapshot
from feedsvc.core.principal import Principal
from feedsvc.core.timing import Stages
from feedsvc.feeds import transaction
from feedsvc.feeds.delta_query import DeltaQuery
from feedsvc.feeds.feed_log import FeedLog, LoggedKey
from feedsvc.feeds.slow_queries import Stopwatch
from feedsvc.feeds.sql import statement
from feedsvc.feeds.statement_names import StatementKind, name_of
from feedsvc.feeds.transaction import Moment, Reading
from feedsvc.feeds.trial import refuse_bad_values
from streams import tokens
from streams.deltas import ChangeBatch

_CHUNK_BYTES: Final = 256 * 1024
_FIRST_BATCH: Final = 64
_MOST_AT_ONCE: Final = 1_000
_DIGEST_BITS: Final = 64


class StateDigest(NamedTuple):
    """The number of rows that the caller sees, and the 64 bits that they add up to."""

    rows: int
    digest: int


class Delta:
    """The changes, made by `open_delta`, in batches of about 256 KiB."""

    kind: ClassVar[StatementKind] = "delta"
    """The statement that reading rows is counted as."""

    def __init__(
        self,
        query: DeltaQuery,
        principal: Principal,
        pool: Pool,
        log: FeedLog,
        begin: Callable[[], AbstractAsyncContextManager[Reading]],
    ) -> None:
        """`begin` gives the transaction in which it is read."""
        self.upserts = 0
        self.deletes = 0
        self.noted: dict[str, bool] | None = None
        """The tokens of the keys that were read, and whether there is a row; None to keep none."""
        self.digest: StateDigest | None = None
        self.moment = Moment("", "")
        """The state that the changes lead to. What is read behind a pause may be younger."""
        self._query = query
        self._principal = principal
        self._pool = pool
        self._log = log
        self._begin = begin
        self._batch = _FIRST_BATCH
        self._keys: Sequence[LoggedKey] = ()
        self._taken = 0
        self._exits = AsyncExitStack()
        self._connection: Connection | None = None
        self._stopwatch = self._watch(self.kind)

    @property
    def snapshot(self) -> Snapshot:
        """The snapshot of the state that the changes lead to."""
        return Snapshot.parse(self.moment.snapshot)

    @property
    def pressed(self) -> asyncio.Event:
        """Set while a request waits for a connection such as this delta's."""
        return self._pool.pressed

    async def begin(self) -> None:
        """Find out which keys were written. Raises Reset, Problem and what asyncpg raises."""
        connection, self.moment = await self._begin_transaction()
        with self._watch(None).timing():
            self._keys = await self._log.written(connection, self.moment)

    async def take(self) -> ChangeBatch | None:
        """The next changes, None behind the last one. Raises Problem."""
        with as_problems(self._pool.observers):
            while self._taken < len(self._keys):
                changes = await self._read()
                if changes.upserts or changes.deletes:
                    self.upserts += len(changes.upserts)
                    self.deletes += len(changes.deletes)
                    return changes
        return None

    async def park(self) -> None:
        """Release the connection; `take` goes on in a younger state, which converges.

        What is sent then is no longer one state, which a digest could be of.
        """
        if self._taken < len(self._keys):
            self.digest = None
        await self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Release the connection, and end its transaction."""
        exits, self._exits = self._exits, AsyncExitStack()
        self._connection = None
        self._stopwatch.finish()
        await exits.aclose()

    async def _begin_transaction(self) -> Reading:
        reading = await self._exits.enter_async_context(self._begin())
        self._connection = reading.connection
        self._stopwatch.on(reading.connection)
        return reading

    async def _read(self) -> ChangeBatch:
        connection = self._connection
        if connection is None:
            connection, _ = await self._begin_transaction()
        keys = list(islice(self._keys, self._taken, self._taken + self._batch))
        decoded = [tokens.decode(key.token) for key in keys]
        wanted = statement.rows_of_keys(self._query.rows, decoded, self._principal)
        with self._stopwatch.timing():
            rows = await connection.fetch(wanted.sql, *wanted.arguments)
        self._taken += len(keys)
        self._stopwatch.rows += len(rows)
        upserts = [row[0] for row in rows if row[0] is not None]
        gone = [place for place, row in enumerate(rows) if row[0] is None]
        if self.noted is not None:
            self.noted |= {
                key.token: row[0] is not None for key, row in zip(keys, rows, strict=True)
            }
        visible = await self._log.were_visible(connection, [keys[place] for place in gone])
        deletes = [rows[place][1] for at, place in enumerate(gone) if at in visible]
        self._learn(len(keys), sum(map(len, upserts)))
        return ChangeBatch(upserts, deletes)

    async def read_digest(self) -> None:
        """Find out the digest of the state, before anything is sent. Raises Problem."""
        connection = self._connection
        if connection is None:
            return
        wanted = statement.digest_of_rows(self._query.rows, self._principal)
        with as_problems(self._pool.observers), self._watch("digest").counting():
            row = await connection.fetchrow(wanted.sql, *wanted.arguments)
        rows, total = (0, "0") if row is None else tuple(row)
        self.digest = StateDigest(rows, int(total) % (1 << _DIGEST_BITS))

    def _watch(self, kind: StatementKind | None) -> Stopwatch:
        """A stopwatch of such a statement; None is the log's, which has no name."""
        name = "" if kind is None else name_of(kind, self._query.rows)
        stopwatch = Stopwatch(self._pool, self._query.dataset.name, kind or "log", name)
        if self._connection is not None:
            stopwatch.on(self._connection)
        return stopwatch

    def _learn(self, keys: int, size: int) -> None:
        """Make the next batch about as large as a chunk, at most twice the last one."""
        fitting = keys * _CHUNK_BYTES // max(1, size)
        self._batch = max(1, min(fitting, 2 * self._batch, _MOST_AT_ONCE))


@asynccontextmanager
async def open_delta(
    query: DeltaQuery,
    principal: Principal,
    pool: Pool,
    log: FeedLog,
    stages: Stages,
) -> AsyncIterator[Delta]:
    """A delta whose keys are known, so that what could fail early has not. Raises Problem."""
    name = query.dataset.name
    begin = partial(transaction.reading_the_log, pool, principal, stages, name)
    delta = Delta(query, principal, pool, log, begin)
    async with delta:
        with as_problems(pool.observers):
            try:
                await delta.begin()
            except asyncpg.DataError:
                await delta.close()
                await refuse_bad_values(pool, statement.values_of(query.rows, principal))
                raise
        stages.lap("db")
        yield delta
