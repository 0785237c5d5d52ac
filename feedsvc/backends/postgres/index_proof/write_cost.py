"""The cost of an index to a writer: pages touched for a row, measured on a copy."""

from typing import Final

import asyncpg
import orjson

from feedsvc.backends.postgres.index_proof.existing import ExistingIndex
from feedsvc.backends.postgres.index_proof.plans import undone

_ROWS: Final = 500
_COPY: Final = "feedsvc_written"


async def write_cost(connection: asyncpg.Connection, index: ExistingIndex) -> float | None:
    """Pages that a row's entry touches; None for a table without rows."""
    head, _, behind = index.definition.partition(" USING ")
    table = head.partition(" ON ")[2].removeprefix("ONLY ")
    return await pages_of_an_entry(connection, table, f"USING {behind}")


async def pages_of_an_entry(connection: asyncpg.Connection, table: str, body: str) -> float | None:
    """Pages that a row's entry touches, on 500 of the table's rows in an empty temporary table.

    `table` is quoted, `body` the part of CREATE INDEX behind it. None for a table without rows.
    Row-level security must not hide them from the login.
    """
    async with undone(connection):
        await connection.execute(f"CREATE TEMP TABLE {_COPY} (LIKE {table})")
        fill = f"INSERT INTO pg_temp.{_COPY} SELECT * FROM {table} LIMIT {_ROWS}"  # noqa: S608 - names of the catalog
        plain, rows = await _touched(connection, fill)
        if not rows:
            return None
        await connection.execute(f"TRUNCATE pg_temp.{_COPY}")
        await connection.execute(f"CREATE INDEX ON pg_temp.{_COPY} {body}")
        indexed, _ = await _touched(connection, fill)
        return max(indexed - plain, 0) / rows


async def _touched(connection: asyncpg.Connection, fill: str) -> tuple[int, int]:
    text = f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) {fill}"
    plan = orjson.loads(await connection.fetchval(text))[0]["Plan"]
    return plan["Local Hit Blocks"] + plan["Local Read Blocks"], plan["Plans"][0]["Actual Rows"]
