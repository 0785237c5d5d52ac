"""The databases of the comparison, with their workloads: those of docs/advice.md."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import asyncpg

from feedsvc.backends.postgres.advice.model import WorkloadStatement
from feedsvc.backends.postgres.index_proof.plans import Plan
from tests.performance.advisers.comparison import Subject
from tests.performance.advisers.trials import without_values
from tests.support import advised, foreign_workloads
from tests.support.servers import TEMPLATE, copied_database


@asynccontextmanager
async def seeded(url: str, seed: int) -> AsyncIterator[tuple[Subject, Mapping[str, float]]]:
    """The demo's world without a third of its indexes, unless `seed` is 0, and costs before."""
    async with _copy(url, TEMPLATE) as connection:
        before = await advised.costs(connection)
        if seed:
            await advised.drop_a_third(connection, seed)

        async def with_values(statement: WorkloadStatement) -> Plan | None:
            queries = [each for each in advised.QUERIES if each.name == statement.name]
            return (await advised.plans(connection, queries)).get(statement.name)

        statements = advised.catalogue_statements()
        yield (
            Subject(connection, statements, with_values, lambda: advised.costs(connection)),
            before,
        )


@asynccontextmanager
async def foreign(url: str, name: str) -> AsyncIterator[Subject]:
    """A schema of others, with its workload."""
    valued = {each.name: each for each in foreign_workloads.statements(name, with_values=True)}
    async with _copy(url, script=foreign_workloads.schema(name)) as connection:
        plan = without_values(connection)

        async def with_values(statement: WorkloadStatement) -> Plan | None:
            return await plan(valued[statement.name])

        yield Subject(
            connection,
            foreign_workloads.statements(name),
            with_values,
            lambda: foreign_workloads.costs(connection, name),
        )


@asynccontextmanager
async def _copy(
    url: str, template: str = "template1", script: str = ""
) -> AsyncIterator[asyncpg.Connection]:
    async with copied_database(url, template, script=script) as copy:
        connection = await asyncpg.connect(copy, statement_cache_size=0)
        try:
            await foreign_workloads.vacuum(connection)
            yield connection
        finally:
            await connection.close()
