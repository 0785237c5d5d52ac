"""A line's schema: made before its first revision, removed after its last one is taken back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import asyncpg

if TYPE_CHECKING:
    from asyncpg import Connection

_MARK: Final = "made by feedsvc migrate"


async def create(connection: Connection, schema: str) -> None:
    """Makes the schema, marked as ours, unless an operator has made it already."""
    if await connection.fetchval("SELECT to_regnamespace($1) IS NOT NULL", schema):
        return
    async with connection.transaction():
        await connection.execute(f"CREATE SCHEMA {schema}")
        await connection.execute(f"COMMENT ON SCHEMA {schema} IS '{_MARK}'")


async def remove(connection: Connection, schema: str) -> None:
    """Drops the version table, and the schema where it is ours and holds nothing else."""
    await connection.execute(f"DROP TABLE IF EXISTS {schema}.alembic_version")
    ours = await connection.fetchval(
        "SELECT obj_description(to_regnamespace($1), 'pg_namespace') = $2", schema, _MARK
    )
    if not ours:
        return
    try:
        await connection.execute(f"DROP SCHEMA {schema}")
    except asyncpg.DependentObjectsStillExistError:
        return  # somebody keeps things of their own in it
