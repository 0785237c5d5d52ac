"""The demo's world without a third of its indexes, and its catalogue as a workload."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

from feedsvc.backends.postgres.advice.workload import of_catalogue
from feedsvc.backends.postgres.index_proof.catalogue import read_catalogue
from feedsvc.backends.postgres.index_proof.proof import ProofSession, drawn, planned
from feedsvc.backends.postgres.migrations.lines import TERRITORIES

if TYPE_CHECKING:
    from collections.abc import Sequence

    import asyncpg

    from feedsvc.backends.postgres.advice.model import WorkloadStatement
    from feedsvc.backends.postgres.index_proof.catalogue import CatalogueQuery
    from feedsvc.backends.postgres.index_proof.plans import Plan

WEDDING: Final = TERRITORIES["wedding"]
QUERIES: Final = read_catalogue(WEDDING.catalogue)
_INDEXES: Final = """
    SELECT x.relname FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
    WHERE x.relnamespace = 'wedding'::regnamespace AND NOT i.indisunique ORDER BY 1
"""


def catalogue_statements() -> list[WorkloadStatement]:
    """The catalogue, those of feeds by the reader's role."""
    return [of_catalogue(query, WEDDING.role) for query in QUERIES]


async def drop_a_third(connection: asyncpg.Connection, seed: int) -> list[str]:
    """Drop a third of the indexes, another one for each seed."""
    names = [row["relname"] for row in await connection.fetch(_INDEXES)]
    dropped = random.Random(seed).sample(names, len(names) // 3)
    for name in dropped:
        await connection.execute(f"DROP INDEX wedding.{name}")
    return dropped


async def plans(
    connection: asyncpg.Connection, queries: Sequence[CatalogueQuery] = QUERIES
) -> dict[str, Plan]:
    """The plan of each query with the largest tenant's values, which the adviser does not see."""
    tenant = await connection.fetchval(WEDDING.largest_tenant.read_text(encoding="utf-8"))
    settings = {"feedsvc.tenant": tenant, "feedsvc.client": ""}
    session = ProofSession(connection, WEDDING.role, settings, run=False)
    arguments = await drawn(connection, queries, tenant)
    every_table = {f"wedding.{row['relname']}" for row in await connection.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = 'wedding'::regnamespace"
    )}  # fmt: skip
    found = await planned(session, queries, arguments, every_table)
    return {each.query.name: each.plan for each in found}


async def costs(connection: asyncpg.Connection) -> dict[str, float]:
    """The cost of each query with the largest tenant's values."""
    return {name: plan.cost for name, plan in (await plans(connection)).items()}
