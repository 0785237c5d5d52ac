"""The one place that opens a transaction for a caller."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Final, NamedTuple

from asyncpg.transaction import Transaction

from feedsvc.auth.principal import Principal
from feedsvc.errors import Internal
from feedsvc.faults import told
from feedsvc.pools import Connection, Pool, cut, is_lost
from feedsvc.statement import SETTINGS
from feedsvc.timing import Stages

logger = logging.getLogger(__name__)

_WHO_READS: Final = (files("feedsvc") / "tenancy.sql").read_text().rstrip()
_AS_TEXT: Final = {True: "::text", False: "::text[]::text"}
_NOTHING: Final[Mapping[str, str | Sequence[str]]] = {}


class Reading(NamedTuple):
    """A connection in a transaction, and its snapshot as `pg_snapshot` writes it."""

    connection: Connection
    snapshot: str


@asynccontextmanager
async def reading(
    pool: Pool,
    principal: Principal,
    stages: Stages,
    *,
    large: bool = False,
    settings: Mapping[str, str | Sequence[str]] = _NOTHING,
) -> AsyncIterator[Reading]:
    """A read-only snapshot in which row-level security knows the caller.

    Raises Busy and what asyncpg raises. The settings, those that a query needs beside the caller's
    as well, end with the transaction, so nothing of one caller can be left on a connection for the
    next. `large` is as for `Pool.lease`.
    """
    stages.pass_over()
    async with pool.lease(large=large) as connection:
        stages.lap("pool")
        transaction = connection.transaction(isolation="repeatable_read", readonly=True)
        try:
            await transaction.start()
            snapshot = await _tell_who_reads(connection, principal, settings)
            yield Reading(connection, snapshot)
        finally:
            await _end(transaction, connection, pool.release_timeout)


async def tell(connection: Connection, settings: Mapping[str, str | Sequence[str]]) -> None:
    """Settings that a query needs, until the transaction ends."""
    if settings:
        told = ", ".join(_told(settings, behind=0))
        await connection.fetchrow(f"SELECT {told}", *settings.values())


async def _tell_who_reads(
    connection: Connection, principal: Principal, settings: Mapping[str, str | Sequence[str]]
) -> str:
    """Tells row-level security who the caller is, and makes sure that it was understood.

    Gives the snapshot, which begins with this.

    Without a tenant no policy lets a row through, which would look like an empty feed.
    """
    wanted = ", ".join((_WHO_READS, *_told(settings, behind=len(principal.scope))))
    kept = await connection.fetchrow(wanted, *principal.scope, *settings.values())
    if kept is None or tuple(kept)[:3] != principal.scope or not principal.tenant:
        logger.critical("row-level security was not told who reads; nothing was read")
        raise Internal("The service could not tell the database who asks.")
    return str(kept[3])


def _told(settings: Mapping[str, str | Sequence[str]], behind: int) -> list[str]:
    """What sets each of them, by parameters behind so many others; a list as PostgreSQL has it."""
    return [
        f"set_config('{SETTINGS}.{name}', ${number}{_AS_TEXT[isinstance(value, str)]}, true)"
        for number, (name, value) in enumerate(settings.items(), behind + 1)
    ]


async def _end(transaction: Transaction, connection: Connection, timeout: float) -> None:
    """Ends a transaction that has only read; a connection that can't even do that is cut.

    A query that is still running is cancelled by asyncpg, and the rollback waits for that.
    """
    if is_lost(connection):
        return
    try:
        async with asyncio.timeout(timeout):
            await transaction.rollback()
    except Exception as error:  # noqa: BLE001 - whatever it is, the connection is not to be trusted
        logger.warning(
            "a transaction could not be ended, so its connection is cut: %s", told(error)
        )
        cut(connection)
    except asyncio.CancelledError:
        cut(connection)
        raise
