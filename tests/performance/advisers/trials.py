"""Indexes tried for real, in a transaction that is rolled back.

The other advisers try theirs with HypoPG, which the wheel's PostgreSQL lacks; the planner costs
both alike.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Final, TypeAlias

import asyncpg

from feedsvc.backends.postgres.advice.designs import IndexDesign
from feedsvc.backends.postgres.advice.model import WorkloadStatement
from feedsvc.backends.postgres.index_proof.plans import Plan, explained_generic, undone

Planner: TypeAlias = Callable[[WorkloadStatement], Awaitable[Plan | None]]

_BUILT: Final = (Path(__file__).parent / "built.sql").read_text(encoding="utf-8")
# A type without an order, a row too long: HypoPG too refuses the one, and can't know of the other.
_REFUSED: Final = (asyncpg.UndefinedObjectError, asyncpg.ProgramLimitExceededError)


async def built(
    connection: asyncpg.Connection, designs: Iterable[IndexDesign]
) -> dict[str, IndexDesign]:
    """Build the designs that PostgreSQL takes; by the names that plans have for each.

    An index of a partitioned table is planned by the names of its partitions' ones.
    """
    found: dict[str, IndexDesign] = {}
    for design in designs:
        try:
            async with connection.transaction():
                await connection.execute(design.sql(concurrently=False))
        except _REFUSED:
            continue
        for row in await connection.fetch(_BUILT, design.qualified):
            found[row["name"]] = design
    return found


async def bytes_of(connection: asyncpg.Connection, designs: Iterable[IndexDesign]) -> int:
    """The bytes of indexes that are there, with those of partitions."""
    rows = [row for each in designs for row in await connection.fetch(_BUILT, each.qualified)]
    return sum(row["bytes"] for row in rows)


def used(plan: Plan, tried: Mapping[str, IndexDesign]) -> list[IndexDesign]:
    """The tried designs that a plan uses, in the order in which they were built."""
    return list(dict.fromkeys(tried[name] for name in tried if name in plan.indexes))


def without_values(connection: asyncpg.Connection) -> Planner:
    """A planner of statements as pg_stat_statements has them, in their reader's role."""

    async def plan(statement: WorkloadStatement) -> Plan | None:
        async with undone(connection):
            role = {} if statement.role is None else {"role": statement.role}
            for name, value in {**statement.settings, **role}.items():
                await connection.execute("SELECT set_config($1, $2, true)", name, value)
            return await explained_generic(connection, statement.sql)

    return plan
