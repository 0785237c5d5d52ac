"""Runs a line of migrations: up, down, status and verify."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import asyncpg
from alembic.script import ScriptDirectory
from alembic.script.revision import RevisionError
from alembic.util import CommandError

from feedsvc.backends.postgres.migrations import schemas
from feedsvc.backends.postgres.migrations.alembic_run import run
from feedsvc.backends.postgres.migrations.errors import UnknownRevisionError
from feedsvc.backends.postgres.migrations.findings import catalog_findings
from feedsvc.backends.postgres.migrations.lines import TERRITORIES, MigrationLine, Territory
from feedsvc.backends.postgres.migrations.session import connected, exclusive

if TYPE_CHECKING:
    from alembic.script.base import Script

WAIT_SECONDS: Final = 120.0


@dataclass(frozen=True, slots=True)
class Status:
    """Where a database stands on a line; `pending` is in the order in which `up` runs it."""

    line: MigrationLine
    current: str | None
    head: str
    pending: tuple[str, ...]


async def up(dsn: str, line: MigrationLine, *, wait: float = WAIT_SECONDS) -> Status:
    """Migrates to the head; waits `wait` seconds for another process that migrates.

    Raises MigrationBusyError, UnknownRevisionError, or asyncpg's and SQLAlchemy's errors where
    the database refuses; a revision that fails leaves nothing of itself behind.
    """
    territory = TERRITORIES[line]
    scripts = ScriptDirectory(str(territory.folder))
    async with exclusive(dsn, territory, wait) as connection:
        before = await _status(connection, line, scripts)
        if before.pending:
            await schemas.create(connection, territory.schema)
            await run(connection, territory, scripts, "up")
        return await _status(connection, line, scripts)


async def down(dsn: str, line: MigrationLine, *, wait: float = WAIT_SECONDS) -> Status:
    """Takes back every revision, then the schema if `up` made it and nobody else uses it.

    `wait` is in seconds; raises what `up` raises.
    """
    territory = TERRITORIES[line]
    scripts = ScriptDirectory(str(territory.folder))
    async with exclusive(dsn, territory, wait) as connection:
        before = await _status(connection, line, scripts)
        if before.current is not None:
            await run(connection, territory, scripts, "down")
        await schemas.remove(connection, territory.schema)
        return await _status(connection, line, scripts)


async def status(dsn: str, line: MigrationLine) -> Status:
    """The line's current revision (None before the first), its head and what is pending.

    Raises UnknownRevisionError for a database that a newer release has migrated, and
    asyncpg.InsufficientPrivilegeError for a login that may not see the line's schema.
    """
    async with connected(dsn) as connection:
        return await _status(connection, line, ScriptDirectory(str(TERRITORIES[line].folder)))


async def verify(dsn: str, line: MigrationLine) -> list[str]:
    """What is wrong with the line in this database, a sentence each; empty when all is well.

    Raises what `status` raises, except that an unknown revision is a finding.
    """
    territory = TERRITORIES[line]
    async with connected(dsn) as connection:
        try:
            now = await _status(connection, line, ScriptDirectory(str(territory.folder)))
        except UnknownRevisionError as error:
            return [str(error)]
        if now.current is None:
            return [f"{line}: no revision applied, the head is {now.head}"]
        behind = [f"{line}: revision {revision} is pending" for revision in now.pending]
        return behind + await catalog_findings(connection, territory)


async def _status(
    connection: asyncpg.Connection, line: MigrationLine, scripts: ScriptDirectory
) -> Status:
    current = await _current(connection, TERRITORIES[line])
    head = scripts.get_current_head()
    if head is None:
        raise RuntimeError(f"the line {line} has no revision: the installation is incomplete")
    return Status(line, current, head, tuple(s.revision for s in _pending(scripts, current)))


def _pending(scripts: ScriptDirectory, current: str | None) -> list[Script]:
    try:
        return list(scripts.iterate_revisions("heads", current or "base"))[::-1]
    except (CommandError, RevisionError):
        raise UnknownRevisionError(
            f"the database is at revision {current}, which this release doesn't know; "
            "run the release that migrated it"
        ) from None


async def _current(connection: asyncpg.Connection, territory: Territory) -> str | None:
    table = f"{territory.schema}.alembic_version"
    try:
        version: str | None = await connection.fetchval(f"SELECT version_num FROM {table}")  # noqa: S608  # a constant of TERRITORIES
    except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError):
        return None
    return version
