"""The one place that opens a transaction for a caller."""

import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Final, NamedTuple, TypeAlias

import asyncpg

from feedsvc.backends.postgres.admission import Asker
from feedsvc.backends.postgres.beginning import begin
from feedsvc.backends.postgres.ending import roll_back
from feedsvc.backends.postgres.pool import Connection, Pool
from feedsvc.core.principal import Principal
from feedsvc.core.problems import Internal, NotSetUp
from feedsvc.core.timing import Stages

logger = logging.getLogger(__name__)

_WHO_READS: Final = (files("feedsvc.feeds") / "transaction.sql").read_text().rstrip()
_SHARE: Final = "SELECT pg_export_snapshot(), pg_current_snapshot()::text"
# What TRUNCATE takes from the log is no part of a snapshot, so the lock comes before it.
_LOCK_LOG: Final = "LOCK TABLE feedsvc.log IN ACCESS SHARE MODE"
_SNAPSHOT_NAME: Final = re.compile(r"[0-9A-Fa-f-]+")


class Moment(NamedTuple):
    """The state that a transaction reads: a `pg_snapshot` as text, of one life of a database.

    `origin` is `feedsvc.backends.postgres.lineage.Origin` as text.
    """

    snapshot: str
    origin: str


class Reading(NamedTuple):
    """A connection in a transaction, and the state that it reads."""

    connection: Connection
    moment: Moment


class SharedSnapshot(NamedTuple):
    """A snapshot that other transactions can read in while its own lasts: its name, itself."""

    name: str
    snapshot: str


TurnTo: TypeAlias = Callable[[Principal], Awaitable[Reading]]
"""Makes a caller the one whose rows a transaction reads from then on."""


@asynccontextmanager
async def reading(
    pool: Pool,
    principal: Principal,
    stages: Stages,
    *,
    large: bool = False,
    dataset: str | None = None,
) -> AsyncIterator[Reading]:
    """A read-only snapshot in which row-level security knows the caller.

    Raises Busy and what asyncpg raises. The caller's settings end with the transaction, so
    nothing of one caller can be left on a connection for the next. `large` is as for `Pool.lease`;
    the caller, and the dataset, take turns with others for a connection.
    """
    stages.pass_over()
    asker = Asker((*principal.scope, principal.subject), dataset)
    async with pool.lease(large=large, asker=asker) as leased:
        stages.lap("pool")
        async with _as_caller(pool, leased, principal) as begun:
            yield begun


@asynccontextmanager
async def reading_the_log(
    pool: Pool, principal: Principal, stages: Stages, dataset: str
) -> AsyncIterator[Reading]:
    """The same, of a snapshot in which nothing of the change log is trimmed away unseen."""
    stages.pass_over()
    asker = Asker((*principal.scope, principal.subject), dataset)
    async with pool.lease(asker=asker) as leased:
        stages.lap("pool")
        async with _as_caller(pool, leased, principal, is_of_log=True) as begun:
            yield begun


@asynccontextmanager
async def reading_the_log_for_many(
    pool: Pool,
) -> AsyncIterator[TurnTo]:
    """The same for several callers, one behind the other, all in one snapshot.

    Gives a function that makes its argument the one whose rows are read from then on.
    """
    async with pool.lease() as leased, _transaction(pool, leased) as connection:
        await _lock_log(connection)

        async def turn_to(principal: Principal) -> Reading:
            return Reading(connection, await _set_caller(pool, connection, principal))

        yield turn_to


@asynccontextmanager
async def reading_along(
    pool: Pool, principal: Principal, shared: SharedSnapshot
) -> AsyncIterator[Connection]:
    """A further connection in a snapshot that another of the caller's transactions shares.

    It is lent: to be given back as soon as `pool.pressed` is set. Raises what `reading` does, Busy
    at once, and Internal where it is another server's.
    """
    async with (
        pool.lease(large=True, lent=True) as leased,
        _as_caller(pool, leased, principal, shared) as (connection, moment),
    ):
        if moment.snapshot != shared.snapshot:
            raise Internal("A connection to the database leads to another server.")
        yield connection


@asynccontextmanager
async def _as_caller(
    pool: Pool,
    leased: Connection,
    principal: Principal,
    shared: SharedSnapshot | None = None,
    *,
    is_of_log: bool = False,
) -> AsyncIterator[Reading]:
    """The transaction itself, as long as the block runs."""
    async with _transaction(pool, leased) as connection:
        if is_of_log:
            await _lock_log(connection)
        if shared is not None:
            await _join(connection, shared)
        yield Reading(connection, await _set_caller(pool, connection, principal))


@asynccontextmanager
async def _transaction(pool: Pool, leased: Connection) -> AsyncIterator[Connection]:
    """The transaction as long as the block runs; gives its connection, `leased` or a new one."""
    connection, transaction = await begin(pool, leased, isolation="repeatable_read", readonly=True)
    try:
        yield connection
    finally:
        await roll_back(transaction, connection, pool.release_timeout)


async def _lock_log(connection: Connection) -> None:
    """Keep the log from being trimmed, before the snapshot is taken. Raises NotSetUp."""
    try:
        await connection.execute(_LOCK_LOG)
    except (
        asyncpg.UndefinedTableError,
        asyncpg.InvalidSchemaNameError,
        asyncpg.InsufficientPrivilegeError,
    ):
        raise NotSetUp("The change log is not in this database.", 30) from None


async def share(connection: Connection) -> SharedSnapshot:
    """The snapshot of this connection's transaction, for others to read in as well."""
    row = await connection.fetchrow(_SHARE)
    if row is None:
        raise Internal("PostgreSQL did not name a snapshot.")
    return SharedSnapshot(*row)


async def _join(connection: Connection, shared: SharedSnapshot) -> None:
    """Join a snapshot, before anything else is done in the transaction."""
    if not _SNAPSHOT_NAME.fullmatch(shared.name):  # it can be no parameter
        raise Internal("PostgreSQL names snapshots in another way than it did.")
    await connection.execute(f"SET TRANSACTION SNAPSHOT '{shared.name}'")


async def _set_caller(pool: Pool, connection: Connection, principal: Principal) -> Moment:
    """Set the caller for row-level security, and check that it was set.

    The snapshot begins with this. Raises OldPrimaryError on an old primary.

    Without a tenant no policy lets a row through, which would look like an empty feed.
    """
    kept = await connection.fetchrow(_WHO_READS, *principal.scope)
    if kept is None or tuple(kept)[:3] != principal.scope or not principal.tenant:
        logger.critical("the caller was not set for row-level security; nothing was read")
        raise Internal("The service could not set the caller in the database.")
    timeline = None if kept[4] is None else int(kept[4], 16)
    return Moment(str(kept[3]), str(pool.servers.check(connection, timeline) or ""))
