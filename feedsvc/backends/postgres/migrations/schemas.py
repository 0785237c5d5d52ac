"""A line's schema: made before its first revision, removed after its last one is reverted."""

from typing import Final

import asyncpg
from asyncpg import Connection

from feedsvc.backends.postgres.migrations.lines import Territory

_MARK: Final = "made by feedsvc migrate"


async def create(connection: Connection, territory: Territory) -> None:
    """Make the schema, marked as ours unless an operator has made it, and the version table."""
    schema = territory.schema
    async with connection.transaction():
        if not await connection.fetchval("SELECT to_regnamespace($1) IS NOT NULL", schema):
            await connection.execute(f"CREATE SCHEMA {schema}")
            await connection.execute(f"COMMENT ON SCHEMA {schema} IS '{_MARK}'")
        await connection.execute(
            f"CREATE TABLE IF NOT EXISTS {schema}.{territory.version_table}"
            " (version_num varchar(32) CONSTRAINT alembic_version_pkc PRIMARY KEY)"
        )


async def remove(connection: Connection, territory: Territory) -> None:
    """Drop the version table, and the schema where it is ours and holds nothing else."""
    schema = territory.schema
    await connection.execute(f"DROP TABLE IF EXISTS {schema}.{territory.version_table}")
    ours = await connection.fetchval(
        "SELECT obj_description(to_regnamespace($1), 'pg_namespace') = $2", schema, _MARK
    )
    if not ours:
        return
    try:
        await connection.execute(f"DROP SCHEMA {schema}")
    except asyncpg.DependentObjectsStillExistError:
        return  # others keep things of their own in it
