"""The statements that advice is on: a catalogue's, and those that the database has seen."""

import asyncpg

from feedsvc.backends.postgres.advice.model import WorkloadStatement
from feedsvc.backends.postgres.index_proof.catalogue import CatalogueQuery
from feedsvc.backends.postgres.index_proof.statements import seen


def of_catalogue(query: CatalogueQuery, role: str | None) -> WorkloadStatement:
    """A catalogue's query: one of a feed is the reader's, without a tenant. No calls are known."""
    is_feed = query.actor == "feed"
    return WorkloadStatement(
        query.name,
        query.sql,
        "pg_stat_statements" if query.generic else "catalogue",
        calls=0,
        total_ms=0.0,
        mean_ms=0.0,
        p95_ms=None,
        rows=None,
        settings={"feedsvc.tenant": "", "feedsvc.client": ""} if is_feed else {},
        role=role if is_feed else None,
    )


async def seen_workload(
    connection: asyncpg.Connection, but_of: str | None = None
) -> list[WorkloadStatement] | None:
    """Up to 200 SELECTs of pg_stat_statements; None where it is not there or may not be read.

    Those of one login may be left out.
    """
    rows = await seen(connection, but_of)
    if rows is None:
        return None
    return [
        WorkloadStatement(
            f"statement {row['id']}", row["query"], "pg_stat_statements", row["calls"],
            row["total_exec_time"], row["mean_exec_time"], None, row["rows"], login=row["login"],
        )
        for row in rows
    ]  # fmt: skip
