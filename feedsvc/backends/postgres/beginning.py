"""The beginning of a transaction on a leased connection, which may turn out to be lost.

A connection can be lost while it lies idle in a pool, and BEGIN is what shows it: PostgreSQL or a
pooler was restarted, or a pooler lost the server connection that it was about to lend. Until BEGIN
is answered nothing has been read or written, so that any other connection will do.
"""

from typing import Final, Literal

import asyncpg
from asyncpg.transaction import Transaction

from feedsvc.backends.postgres.pool import Connection, Pool, cut, is_lost

_TRIES: Final = 3
_ENDS_A_SESSION: Final = (
    asyncpg.PostgresConnectionError,  # a pooler's too
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
)


async def begin(
    pool: Pool,
    leased: Connection,
    *,
    isolation: Literal["repeatable_read"] | None = None,
    readonly: bool = False,
) -> tuple[Connection, Transaction]:
    """Begin a transaction on a leased connection, or on another in its place where it is lost.

    Raises what asyncpg raises, and what `Pool.exchange` does; the connection is cut then.
    """
    left, connection = _TRIES, leased
    while True:
        transaction = connection.transaction(isolation=isolation, readonly=readonly)
        left -= 1
        try:
            await transaction.start()
        except BaseException as error:
            is_over = isinstance(error, _ENDS_A_SESSION) or is_lost(connection)
            cut(connection)  # for its state is not known
            if not (left and is_over and isinstance(error, Exception)):
                raise
        else:
            return connection, transaction
        connection = await pool.exchange(connection)
