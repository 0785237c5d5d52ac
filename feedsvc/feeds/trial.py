"""A request's values held against PostgreSQL alone, once a statement with them has failed.

Parameters are judged before a connection is taken, but a database of another encoding has no place
for some characters, and then the request is at fault. Everything else is the data's.
"""

import asyncpg

from feedsvc.backends.postgres.pool import Connection, Pool
from feedsvc.core.problems import BadParameter
from feedsvc.feeds.sql.statement import Statement


async def refuse_bad_values(pool: Pool, values: Statement) -> None:
    """Refuse values that PostgreSQL can't take. Raises BadParameter, and what asyncpg raises."""
    if not values.arguments:
        return
    async with pool.lease() as connection:
        try:
            await connection.fetchrow(values.sql, *values.arguments)
        except asyncpg.DataError:
            what = "PostgreSQL can't take one of the values of the request."
            raise BadParameter(what) from None


def refuse_what_is_no_text(connection: Connection, record: memoryview | bytes) -> None:
    """Refuse bytes that are no UTF-8. Raises UnicodeDecodeError.

    PostgreSQL makes sure of them, but in a database of SQL_ASCII.
    """
    if connection.get_settings().server_encoding == "SQL_ASCII":
        str(record, "utf-8")
