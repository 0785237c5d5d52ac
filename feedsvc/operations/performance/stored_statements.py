"""The service's own statements and repeated requests as its table has them, of all workers."""

import time
from collections.abc import Mapping
from typing import Any, cast

import asyncpg

from feedsvc.backends.postgres.advice.model import WorkloadStatement
from feedsvc.backends.postgres.index_proof.plans import undone
from feedsvc.backends.postgres.pool import Connection
from feedsvc.datasets.dataset import Dataset
from feedsvc.feeds.statement_names import sql_of
from feedsvc.operations.performance.figures import Figures
from feedsvc.operations.performance.past import merge
from feedsvc.operations.performance.plan_reader import SETTINGS
from feedsvc.operations.performance.store import Reader


async def stored_figures(connection: asyncpg.Connection, seconds: float) -> Figures | None:
    """The figures of the last so many seconds; None where there are none for this login."""
    try:
        async with undone(connection):
            reader = Reader(cast("Connection", connection))
            listed = await reader.listed(time.time() - seconds)
            packed = await reader.figures([name for name, _ in listed])
    except asyncpg.PostgresError:
        return None
    return merge(packed, packed)


def own_statement(row: Mapping[str, Any], datasets: Mapping[str, Dataset]) -> WorkloadStatement:
    """A statement of `report.statements`, with its SQL where it can be made."""
    return WorkloadStatement(
        row["name"], sql_of(row["name"], datasets) or "", "feedsvc", row["calls"],
        row["total_ms"], row["mean_ms"], row["p95_ms"], row["rows"], SETTINGS,
    )  # fmt: skip
