"""An index on an empty copy of its table: its definition and size, known before it is built."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import asyncpg
import orjson

from feedsvc.backends.postgres.migrations.revisions import IndexStatement

_SQL: Final = (Path(__file__).parent / "index_sketch.sql").read_text(encoding="utf-8")
_COPY: Final = "pg_temp.feedsvc_sketch"
_ENTRY_BYTES: Final = 16  # item pointer, header and alignment
_FILL: Final = 0.9
# Measured on the demo's tables, as shares of the table: a GIN or GiST index has no row's width.
_SHARES: Final = {"brin": 0.0005, "gin": 0.15, "gist": 0.2, "spgist": 0.2, "hash": 0.3}


@asynccontextmanager
async def _sketched(connection: asyncpg.Connection, index: IndexStatement) -> AsyncIterator[None]:
    """The index on an empty temporary copy of its table, gone at the end."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        await connection.execute(f"CREATE TEMP TABLE feedsvc_sketch (LIKE {index.table})")
        await connection.execute(index.on(_COPY))
        yield
    finally:
        await transaction.rollback()


async def sketched_definition(connection: asyncpg.Connection, index: IndexStatement) -> str:
    """The definition that the finished index will have, as pg_get_indexdef writes it."""
    async with _sketched(connection, index):
        name = f"pg_temp.{index.name}"
        sql = "SELECT pg_get_indexdef($1::text::regclass)"
        found = str(await connection.fetchval(sql, name))
    copied = found.partition(" ON ")[2].partition(" USING ")[0]
    return found.replace(f" ON {copied} USING ", f" ON {index.table} USING ", 1)


async def estimated_bytes(connection: asyncpg.Connection, index: IndexStatement) -> int | None:
    """The size that the finished index will have, by the table's statistics.

    None where the table is not there yet. Within a factor of two, for values of ordinary width.
    """
    if await connection.fetchval("SELECT to_regclass($1) IS NULL", index.table):
        return None
    size = 0.0
    async with _sketched(connection, index):
        row = await connection.fetchrow(_SQL, f"pg_temp.{index.name}", index.table)
        assert row is not None  # noqa: S101 - the statement above has made it
        share = 1.0
        if row["predicate"] is not None and row["rows"]:
            share = await _rows_of(connection, index.table, row["predicate"]) / row["rows"]
        if row["method"] == "btree":
            size = row["rows"] * share * (row["width"] + _ENTRY_BYTES) / _FILL
        else:
            size = row["table_bytes"] * share * _SHARES.get(row["method"], 0.3)
    return int(size)


async def _rows_of(connection: asyncpg.Connection, table: str, predicate: str) -> float:
    """The planner's estimate of the rows that fulfil an index's own predicate."""
    sql = f"EXPLAIN (FORMAT JSON) SELECT FROM {table} WHERE {predicate}"
    plan = orjson.loads(await connection.fetchval(sql))
    return float(plan[0]["Plan"]["Plan Rows"])
