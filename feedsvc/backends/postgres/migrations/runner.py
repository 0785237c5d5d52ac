"""Runs a line of migrations: up, down, status and verify."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import asyncpg

from feedsvc.backends.postgres.migrations import schemas
from feedsvc.backends.postgres.migrations.empty_tables import built_on_empty, dropped_on_empty
from feedsvc.backends.postgres.migrations.errors import UnknownRevisionError
from feedsvc.backends.postgres.migrations.findings import catalog_findings
from feedsvc.backends.postgres.migrations.index_progress import watched
from feedsvc.backends.postgres.migrations.index_sketch import estimated_bytes
from feedsvc.backends.postgres.migrations.index_steps import IndexStep, incomplete_revisions
from feedsvc.backends.postgres.migrations.lines import TERRITORIES, MigrationLine, Territory
from feedsvc.backends.postgres.migrations.revisions import (
    Revision,
    applied,
    apply,
    revert,
    revisions,
)
from feedsvc.backends.postgres.migrations.session import connected, exclusive
from feedsvc.backends.postgres.migrations.watch import MigrationWatch

WAIT_SECONDS: Final = 120.0


@dataclass(frozen=True, slots=True)
class Status:
    """A database's revision on a line; `pending` is in the order in which `up` runs it."""

    line: MigrationLine
    current: str | None
    head: str
    pending: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """A revision that `up` would apply; for an index its table and estimated size in bytes.

    The size is None where the table is not there yet.
    """

    title: str
    table: str | None
    size: int | None


async def up(
    dsn: str,
    line: MigrationLine,
    *,
    wait: float = WAIT_SECONDS,
    watch: MigrationWatch | None = None,
) -> Status:
    """Migrate to the head; wait up to `wait` seconds for another process that migrates.

    Indexes that a failure has left invalid, or dropped, are built again first. Raises
    MigrationBusyError, UnknownRevisionError, MigrationError for an index that can't be built, or
    asyncpg's errors where the database refuses; a revision that fails is finished by the next `up`.
    """
    territory, watch = TERRITORIES[line], watch or MigrationWatch()
    known = revisions(territory)
    async with exclusive(dsn, territory, wait, watch) as connection:
        count = await _applied(connection, territory, known)
        pending = known[count:]
        if pending:
            await schemas.create(connection, territory)
        for revision in await incomplete_revisions(connection, territory, known[:count]):
            watch.begins(f"rebuild {revision.title}")
            async with watched(dsn, connection, watch.progress):
                await _index_step(connection, territory, revision, watch).rebuild()
            watch.ends()
        while pending:
            if count := await built_on_empty(connection, territory, pending):
                watch.begins(f"applied {pending[0].title} to {pending[count - 1].number}")
            else:
                count, revision = 1, pending[0]
                watch.begins(f"apply {revision.title}")
                if revision.index is None:
                    await apply(connection, territory, revision)
                else:
                    async with watched(dsn, connection, watch.progress):
                        await _index_step(connection, territory, revision, watch).build()
            watch.ends()
            pending = pending[count:]
        return await _status(connection, line)


async def down(
    dsn: str,
    line: MigrationLine,
    *,
    to: str | None = None,
    wait: float = WAIT_SECONDS,
    watch: MigrationWatch | None = None,
) -> Status:
    """Revert the revisions behind `to`: all by default, and then the schema that `up` made.

    The schema stays while anything else is in it. `wait` is in seconds; raises what `up` raises,
    and UnknownRevisionError for a `to` that is no revision.
    """
    territory, watch = TERRITORIES[line], watch or MigrationWatch()
    known = revisions(territory)
    kept = applied(known, to) if to else 0
    async with exclusive(dsn, territory, wait, watch) as connection:
        left = known[kept : await _applied(connection, territory, known)][::-1]
        while left:
            before = [each.number for each in known[: known.index(left[0])]][::-1]
            befores = [*before, None]
            if count := await dropped_on_empty(connection, territory, left, befores):
                watch.begins(f"reverted {left[0].title} to {left[count - 1].number}")
            else:
                count, revision = 1, left[0]
                watch.begins(f"revert {revision.title}")
                if revision.index is None:
                    await revert(connection, territory, revision, befores[0])
                else:
                    await _index_step(connection, territory, revision, watch).drop(befores[0])
            watch.ends()
            left = left[count:]
        if not kept:
            await schemas.remove(connection, territory)
        return await _status(connection, line)


async def planned(dsn: str, line: MigrationLine) -> list[PlannedStep]:
    """The steps of `up` in this database, in their order. Raises what `status` raises."""
    known = revisions(TERRITORIES[line])
    async with connected(dsn) as connection:
        count = await _applied(connection, TERRITORIES[line], known)
        broken = await incomplete_revisions(connection, TERRITORIES[line], known[:count])
        return [
            PlannedStep(
                revision.title,
                None if revision.index is None else revision.index.table,
                None if revision.index is None
                else await estimated_bytes(connection, revision.index),
            )
            for revision in (*broken, *known[count:])
        ]  # fmt: skip


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


def _index_step(
    connection: asyncpg.Connection, territory: Territory, revision: Revision, watch: MigrationWatch
) -> IndexStep:
    assert revision.index is not None  # noqa: S101 - the callers' own condition
    return IndexStep(connection, territory, revision, revision.index, watch.retried)


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
