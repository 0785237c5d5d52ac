"""The workload that a server has seen, from pg_stat_statements, as part of a catalogue."""

from pathlib import Path
from typing import Final

import asyncpg

from feedsvc.backends.postgres.index_proof.catalogue import CatalogueQuery
from feedsvc.backends.postgres.index_proof.plans import undone

_SQL: Final = (Path(__file__).parent / "statements.sql").read_text(encoding="utf-8")


async def seen_statements(connection: asyncpg.Connection) -> list[CatalogueQuery] | None:
    """Up to 200 SELECTs that took the most time, planned without their values.

    None where the extension is not there or may not be read.
    """
    rows = await seen(connection)
    if rows is None:
        return None
    return [
        CatalogueQuery(
            name=f"statement {row['id']}",
            about=row["query"][:200],
            tier="analytics",
            actor="office",
            uses=(),
            draw=None,
            sql=row["query"],
            generic=True,
        )
        for row in rows
    ]


async def seen(
    connection: asyncpg.Connection, but_of: str | None = None
) -> list[asyncpg.Record] | None:
    """Up to 200 SELECTs that took the most time, each with its login; times are in ms.

    Those of one login may be left out. None where the extension is not there or may not be read.
    """
    try:
        async with undone(connection):
            rows: list[asyncpg.Record] = await connection.fetch(_SQL, but_of)
            return rows
    except asyncpg.PostgresError:
        return None
