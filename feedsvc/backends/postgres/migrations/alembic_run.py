"""Alembic without its ini file, its env.py and its process-wide `op`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import StaticPool

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    import asyncpg
    from alembic.script import ScriptDirectory
    from sqlalchemy import Connection

    from feedsvc.backends.postgres.migrations.lines import Territory

    Steps = Callable[[Any, MigrationContext], list[Any]]

Direction = Literal["up", "down"]
_URL: Final = "postgresql+asyncpg://"  # names the driver alone; asyncpg has parsed the real one


async def run(
    connection: asyncpg.Connection,
    territory: Territory,
    scripts: ScriptDirectory,
    direction: Direction,
) -> None:
    """Runs all steps in one direction on this connection, each in a transaction of its own."""

    async def creator() -> asyncpg.Connection:
        return connection

    engine = create_async_engine(_URL, async_creator=creator, poolclass=StaticPool)
    # The engine is never disposed: the connection belongs to the caller, with the lock on it.
    async with engine.connect() as bound:
        await bound.run_sync(_migrate, territory, _steps(scripts, direction))


def _steps(scripts: ScriptDirectory, direction: Direction) -> Steps:
    def steps(heads: Any, _: MigrationContext) -> list[Any]:
        # Alembic has no public name for these two; its own `command` module calls them so.
        if direction == "up":
            return scripts._upgrade_revs("heads", heads)  # noqa: SLF001
        return scripts._downgrade_revs("base", heads)  # noqa: SLF001

    return steps


def _migrate(connection: Connection, territory: Territory, steps: Steps) -> None:
    context = MigrationContext.configure(
        connection,
        opts={
            "fn": steps,
            "version_table_schema": territory.schema,
            "transaction_per_migration": True,
        },
    )
    # A revision gets its `op` as an argument: alembic's own is one global for the process, which
    # two databases migrated at once by one event loop would take from each other.
    with context.begin_transaction():
        context.run_migrations(op=Operations(context))
