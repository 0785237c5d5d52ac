"""Runs a line of migrations: up, down, status and verify."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import asyncpg

from feedsvc.backends.postgres.migrations import schemas
from feedsvc.backends.postgres.migrations.errors import UnknownRevisionError
from feedsvc.backends.postgres.migrations.findings import catalog_findings
from feedsvc.backends.postgres.migrations.lines import TERRITORIES, MigrationLine, Territory
from feedsvc.backends.postgres.migrations.revisions import (
    Revision,
    applied,
    apply,
    revert,
    revisions,
)
from feedsvc.backends.postgres.migrations.session import connected, exclusive

WAIT_SECONDS: Final = 120.0


@dataclass(frozen=True, slots=True)
class Status:
    """A database's revision on a line; `pending` is in the order in which `up` runs it."""

    line: MigrationLine
    current: str | None
    head: str
    pending: tuple[str, ...]


async def up(dsn: str, line: MigrationLine, *, wait: float = WAIT_SECONDS) -> Status:
    """Migrate to the head; wait up to `wait` seconds for another process that migrates.

    Raises MigrationBusyError, UnknownRevisionError, or asyncpg's errors where the database
    refuses; a revision that fails leaves nothing of itself behind.
    """
    territory = TERRITORIES[line]
    known = revisions(territory)
    async with exclusive(dsn, territory, wait) as connection:
        pending = known[await _applied(connection, territory, known) :]
        if pending:
            await schemas.create(connection, territory)
        for revision in pending:
            await apply(connection, territory, revision)
        return await _status(connection, line)


async def down(dsn: str, line: MigrationLine, *, wait: float = WAIT_SECONDS) -> Status:
    """Revert every revision, then the schema if `up` made it and nothing else is in it.

    `wait` is in seconds; raises what `up` raises.
    """
    territory = TERRITORIES[line]
    known = revisions(territory)
    async with exclusive(dsn, territory, wait) as connection:
        for at in reversed(range(await _applied(connection, territory, known))):
            await revert(connection, territory, known[at], known[at - 1].number if at else None)
        await schemas.remove(connection, territory)
        return await _status(connection, line)


async def status(dsn: str, line: MigrationLine) -> Status:
    """The line's current revision (None before the first), its head and what is pending.

    Raises UnknownRevisionError for a database that a newer release has migrated, and
    asyncpg.InsufficientPrivilegeError for a login that may not see the line's schema.
    """
    async with connected(dsn) as connection:
        return await _status(connection, line)


async def verify(dsn: str, line: MigrationLine) -> list[str]:
    """Faults of the line in this database, a sentence each; empty where there is none.

    Raises what `status` raises, except that an unknown revision is a finding.
    """
    async with connected(dsn) as connection:
        try:
            now = await _status(connection, line)
        except UnknownRevisionError as error:
            return [str(error)]
        if now.current is None:
            return [f"no revision applied, the head is {now.head}"]
        behind = [f"revision {revision} is pending" for revision in now.pending]
        return behind + await catalog_findings(connection, TERRITORIES[line])


async def _status(connection: asyncpg.Connection, line: MigrationLine) -> Status:
    territory = TERRITORIES[line]
    known = revisions(territory)
    numbers = [revision.number for revision in known]
    count = await _applied(connection, territory, known)
    current = numbers[count - 1] if count else None
    return Status(line, current, numbers[-1], tuple(numbers[count:]))


async def _applied(
    connection: asyncpg.Connection, territory: Territory, known: Sequence[Revision]
) -> int:
    table = f"{territory.schema}.{territory.version_table}"
    try:
        version: str | None = await connection.fetchval(f"SELECT version_num FROM {table}")  # noqa: S608 - a constant of TERRITORIES
    except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError):
        version = None
    return applied(known, version)
