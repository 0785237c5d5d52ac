"""Proposed indexes made one by one beside writers, and taken back where no plan uses them."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import asyncpg

from feedsvc.backends.postgres.advice.designs import IndexDesign
from feedsvc.backends.postgres.advice.explaining import generic_plan
from feedsvc.backends.postgres.advice.model import WorkloadStatement
from feedsvc.backends.postgres.advice.proposals import Workload
from feedsvc.backends.postgres.index_proof.plans import undone
from feedsvc.backends.postgres.migrations.index_progress import BuildProgress, watched

_LOCK: Final = "30s"


@dataclass(frozen=True, slots=True)
class Created:
    """An index that was made; `fault` tells why it is not there, None where it is."""

    statement: str
    fault: str | None


async def create(
    dsn: str,
    found: Workload,
    statements: Sequence[WorkloadStatement],
    report: Callable[[BuildProgress], None],
) -> AsyncIterator[Created]:
    """Make each proven index, and drop it again if none of the statements that it is for uses it.

    Each waits at most half a minute for a lock; what a failure leaves is dropped. No failure of
    one keeps the next from being made.
    """
    connection = await asyncpg.connect(dsn, statement_cache_size=0)
    try:
        await connection.execute(f"SET lock_timeout = '{_LOCK}'")
        for proposal, design in found.proposals:
            if design is None or proposal.proof == "unproven":
                continue
            users = [each for each in statements if each.name in proposal.helps]
            try:
                async with watched(dsn, connection, report):
                    await connection.execute(design.sql())
                await connection.execute(f"ANALYZE {design.quoted}")
                is_used = await _is_used(connection, design, users)
                fault = None if is_used else "no plan uses it: taken back"
            except asyncpg.PostgresError as error:
                fault = f"it could not be made: {type(error).__name__}"
            if fault is not None:
                await connection.execute(design.drop)
            yield Created(design.sql(), fault)
    finally:
        await connection.close(timeout=1.0)


async def _is_used(
    connection: asyncpg.Connection, design: IndexDesign, users: Sequence[WorkloadStatement]
) -> bool:
    async with undone(connection):
        for statement in users:
            top = await generic_plan(connection, statement)
            if top is not None and design.name in _indexes(top):
                return True
    return False


def _indexes(node: Mapping[str, Any]) -> set[str]:
    names = {node["Index Name"]} if "Index Name" in node else set()
    return names.union(*(_indexes(child) for child in node.get("Plans", ())))
