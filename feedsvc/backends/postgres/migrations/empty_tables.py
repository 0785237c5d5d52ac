"""Indexes of tables without rows, built or dropped together under a lock for a moment.

There is no writer to hold up, and building beside writers takes three transactions for each index
with waits between them.
"""

from collections.abc import Sequence
from typing import Final

import asyncpg

from feedsvc.backends.postgres.migrations.index_steps import RETRIED
from feedsvc.backends.postgres.migrations.lines import Territory
from feedsvc.backends.postgres.migrations.revisions import Revision, set_current

_EMPTY: Final = """
    SELECT name FROM unnest($1::text[]) AS name
    WHERE pg_relation_size(to_regclass(name)) = 0
"""
_LOCKED_MS: Final = 100


async def built_on_empty(
    connection: asyncpg.Connection, territory: Territory, revisions: Sequence[Revision]
) -> int:
    """Build the indexes of the first of these revisions, and record them; how many it were."""
    first = await _of_empty_tables(connection, revisions)
    statements = [
        f"DROP INDEX IF EXISTS {territory.schema}.{each.index.name}; {each.index.in_transaction()}"
        for each in first
        if each.index is not None
    ]
    after = first[-1].number if first else None
    return await _together(connection, territory, first, statements, after)


async def dropped_on_empty(
    connection: asyncpg.Connection,
    territory: Territory,
    revisions: Sequence[Revision],
    before: Sequence[str | None],
) -> int:
    """Drop the indexes of the first of these revisions, given with what each is behind."""
    first = await _of_empty_tables(connection, revisions)
    statements = [
        f"DROP INDEX IF EXISTS {territory.schema}.{each.index.name};"
        for each in first
        if each.index is not None
    ]
    after = before[len(first) - 1] if first else None
    return await _together(connection, territory, first, statements, after)


async def _of_empty_tables(
    connection: asyncpg.Connection, revisions: Sequence[Revision]
) -> list[Revision]:
    """The revisions up to the first that is no index, or whose table may have rows."""
    tables = sorted({each.index.table for each in revisions if each.index is not None})
    empty = {row["name"] for row in await connection.fetch(_EMPTY, tables)} if tables else set()
    first: list[Revision] = []
    for revision in revisions:
        if revision.index is None or revision.index.table not in empty:
            break
        first.append(revision)
    return first


async def _together(
    connection: asyncpg.Connection,
    territory: Territory,
    first: Sequence[Revision],
    statements: Sequence[str],
    after: str | None,
) -> int:
    if not first:
        return 0
    tables = ", ".join(sorted({each.index.table for each in first if each.index is not None}))
    try:
        async with connection.transaction():
            await connection.execute(
                f"SET LOCAL lock_timeout = {_LOCKED_MS}; LOCK {tables} IN ACCESS EXCLUSIVE MODE"
            )
            if len(await _of_empty_tables(connection, first)) < len(first):
                return 0
            await connection.execute("\n".join(statements))
            await set_current(connection, territory, after)
    except RETRIED:
        return 0
    return len(first)
