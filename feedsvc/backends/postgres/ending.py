"""The end of a transaction of which nothing is kept, on a connection that may not answer."""

import asyncio
import logging

from asyncpg.transaction import Transaction

from feedsvc.backends.postgres.pool import AnyConnection, cut, is_lost
from feedsvc.core.logs import redacted

logger = logging.getLogger(__name__)


async def roll_back(transaction: Transaction, connection: AnyConnection, timeout: float) -> None:
    """Roll back within `timeout` seconds; cut a connection that can't even do that.

    A query that is still running is cancelled by asyncpg, and the rollback waits for that. Raises
    nothing but a cancellation, so that an error which ends the transaction is not replaced.
    """
    if is_lost(connection):
        return
    try:
        async with asyncio.timeout(timeout):
            await transaction.rollback()
    except Exception as error:  # noqa: BLE001 - whatever it is, the connection is not to be trusted
        logger.warning(
            "a transaction could not be ended, so its connection is cut: %s", redacted(error)
        )
        cut(connection)
    except asyncio.CancelledError:
        cut(connection)
        raise
