"""Revisions outside a transaction: one index, built and dropped while its table is written.

Whatever ends a step in the middle, the next run goes on from what it finds: an index that is
complete is recorded, one that is not is dropped and built again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import asyncpg

from feedsvc.backends.postgres.migrations.errors import MigrationError
from feedsvc.backends.postgres.migrations.index_sketch import sketched_definition
from feedsvc.backends.postgres.migrations.lines import Territory
from feedsvc.backends.postgres.migrations.revisions import IndexStatement, Revision, set_current
from feedsvc.backends.postgres.migrations.session import LOCK_MS

_HERE: Final = Path(__file__).parent
_STATE: Final = (_HERE / "index_state.sql").read_text(encoding="utf-8")
_INCOMPLETE: Final = (_HERE / "index_incomplete.sql").read_text(encoding="utf-8")

# A build waits for transactions that are older than it is, and holds up no writer meanwhile: each
# try waits for twice as long, 10 s to 21 min, since the work of the one before is lost.
_FIRST_LOCK_MS: Final = 10_000
_TRIES: Final = 8
_PAUSE_SECONDS: Final = 0.5
RETRIED: Final = (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError)


@dataclass(frozen=True, slots=True)
class IndexStep:
    """A revision's index in one database, and the connection that holds the line's lock."""

    connection: asyncpg.Connection
    territory: Territory
    revision: Revision
    index: IndexStatement
    retried: Callable[[str], None]
    """Takes a sentence for each try that failed."""

    @property
    def qualified(self) -> str:
        """The index's name with its schema."""
        return f"{self.territory.schema}.{self.index.name}"

    async def build(self) -> None:
        """Build the index and record the revision.

        Raises MigrationError where another index has its name, or no try got its lock; else
        asyncpg's errors.
        """
        state = await self._state()
        if state["valid"]:
            await self._refuse_another(state["definition"])
        else:
            await self._again_while_locked(self._build_beside_writers)
        await self._record(self.revision.number)

    async def rebuild(self) -> None:
        """Build the index of an applied revision again, since a failure has left it invalid."""
        await self._again_while_locked(self._build_beside_writers)

    async def drop(self, before: str | None) -> None:
        """Drop the index, and record `before` as the line's revision. Raises as `build` does."""
        down = self.revision.down.read_text(encoding="utf-8")
        await self._again_while_locked(lambda: self.connection.execute(down))
        await self._record(before)

    async def _build_beside_writers(self) -> None:
        # An invalid one is left by whatever was cut short: a migrator, a server, a try of ours.
        await self.connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {self.qualified}")
        await self.connection.execute(self.index.sql)

    async def _again_while_locked(self, work: Callable[[], Awaitable[object]]) -> None:
        for number in range(_TRIES):
            await self.connection.execute(f"SET lock_timeout = {_FIRST_LOCK_MS * 2**number}")
            try:
                await work()
            except RETRIED as error:
                self.retried(f"try {number + 1} of {_TRIES}: {error}")
                await asyncio.sleep(_PAUSE_SECONDS)
            else:
                await self.connection.execute(f"SET lock_timeout = {LOCK_MS}")
                return
        raise MigrationError(
            f"{self.revision.title}: {self.index.table} or an older transaction stays locked; end"
            " what holds it (pg_blocking_pids) and run this again"
        )

    async def _state(self) -> asyncpg.Record:
        names = (self.territory.schema, self.index.name)
        row = await self.connection.fetchrow(_STATE, *names)
        assert row is not None  # noqa: S101 - it is one row in any case
        return row

    async def _refuse_another(self, definition: str) -> None:
        wanted = await sketched_definition(self.connection, self.index)
        if wanted != definition:
            raise MigrationError(
                f"{self.revision.title}: there is another index {self.qualified}; rename or drop it"
            )

    async def _record(self, number: str | None) -> None:
        async with self.connection.transaction():
            await set_current(self.connection, self.territory, number)


async def incomplete_revisions(
    connection: asyncpg.Connection, territory: Territory, known: Sequence[Revision]
) -> list[Revision]:
    """The revisions among `known` whose index is not there, or can't be read."""
    named = {revision.index.name: revision for revision in known if revision.index is not None}
    if not named:
        return []
    rows = await connection.fetch(_INCOMPLETE, territory.schema, list(named))
    return [named[row["name"]] for row in rows]
