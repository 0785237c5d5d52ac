"""The rule of Supabase's index_advisor (0.2.0): an index of every column, and those that are used.

It is asked for one statement at a time, without values. It keeps what the plan uses, whatever that
saves; a workload's advice is that of all its statements together.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import asyncpg

from feedsvc.backends.postgres.advice.designs import IndexDesign
from feedsvc.backends.postgres.advice.model import WorkloadStatement
from feedsvc.backends.postgres.index_proof.plans import undone
from tests.performance.advisers.trials import built, used, without_values

_COLUMNS: Final = (Path(__file__).parent / "index_advisor.sql").read_text(encoding="utf-8")


async def index_advisor(
    connection: asyncpg.Connection, statements: Sequence[WorkloadStatement]
) -> list[IndexDesign]:
    """The indexes of single columns that plans of these statements use."""
    plan = without_values(connection)
    async with undone(connection):
        rows = await connection.fetch(_COLUMNS)
        tried = await built(
            connection,
            (
                IndexDesign(row["table_name"], row["quoted"], "btree", (row["column_name"],))
                for row in rows
            ),
        )
        plans = [await plan(each) for each in statements]
    return list(
        dict.fromkeys(each for top in plans if top is not None for each in used(top, tried))
    )
