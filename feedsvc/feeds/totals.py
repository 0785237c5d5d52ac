"""The number of rows that a stream will have, without revealing other tenants' rows.

The planner's estimates come from statistics of all tenants' rows. With conditions of the caller's
own they would answer whether another tenant has such a value; so there rows are counted, under the
caller's policies, or the number is not known.
"""

import json
import math
from typing import Any, Final, NamedTuple

import asyncpg

from feedsvc.backends.postgres.pool import Connection
from feedsvc.core.principal import Principal
from feedsvc.feeds.query import FeedQuery
from feedsvc.feeds.sources import opened
from feedsvc.feeds.sql import statement
from streams.frames import TotalKind

MOST_COUNTED: Final = 10_000
_STEPS: Final = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0, 10.0)


class Total(NamedTuple):
    """The number of rows, None where it is not known."""

    rows: int | None
    kind: TotalKind


UNKNOWN: Final = Total(None, "estimate")


async def total_of(
    connection: Connection, query: FeedQuery, principal: Principal, timeout: float
) -> Total:
    """The query's total: counted up to `MOST_COUNTED` rows, for at most so many seconds.

    Beyond that the planner's estimate of the whole feed, rounded, and none of a part of it. A row
    that can't be read is for the stream to find. Raises what asyncpg raises where the connection is
    lost.
    """
    counted = await _count(connection, query, principal, timeout)
    if counted is not None and (counted <= MOST_COUNTED or counted == query.limit):
        return Total(counted, "exact")
    if counted is None or query.filters or query.after is not None:
        return UNKNOWN
    estimated = max(counted, coarse(await _planned(connection, query, principal)))
    return Total(estimated if query.limit is None else min(estimated, query.limit), "estimate")


def coarse(rows: int) -> int:
    """The number rounded to one of six steps a power of ten.

    An estimate follows the whole table's size, so it reveals how much others write, but only in
    steps of a third or more.
    """
    if rows < 1:
        return 0
    power = 10 ** int(math.log10(rows))
    return int(min(_STEPS, key=lambda step: abs(math.log(step * power / rows))) * power)


async def _count(
    connection: Connection, query: FeedQuery, principal: Principal, timeout: float
) -> int | None:
    most = MOST_COUNTED + 1 if query.limit is None else min(query.limit, MOST_COUNTED + 1)
    wanted = statement.counted(query, principal, most)
    # The time bound, and an error of a row that this meets first, end with the savepoint.
    await connection.execute(
        f"SAVEPOINT counted; SET LOCAL statement_timeout = {max(1, int(timeout * 1000))}"
    )
    try:
        counted: int = await opened.value(connection, wanted, query.limit)
    except asyncpg.PostgresError:
        return None
    finally:
        # Released as well, for no snapshot can be exported from a subtransaction.
        await connection.execute("ROLLBACK TO SAVEPOINT counted; RELEASE SAVEPOINT counted")
    return counted


async def _planned(connection: Connection, query: FeedQuery, principal: Principal) -> int:
    wanted = statement.estimate(query, principal)
    plans: Any = json.loads(await opened.value(connection, wanted, query.limit))
    return int(plans[0]["Plan"]["Plan Rows"])
