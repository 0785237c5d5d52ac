"""The revisions of a line: pairs of files, `0001_name.up.sql` and `0001_name.down.sql`."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import asyncpg

from feedsvc.backends.postgres.migrations.errors import UnknownRevisionError
from feedsvc.backends.postgres.migrations.lines import Territory

_HERE: Final = Path(__file__).parent
_MAKE_ROLE: Final = (_HERE / "make_role.sql").read_text(encoding="utf-8")
_HOLD_ROLE: Final = (_HERE / "hold_role.sql").read_text(encoding="utf-8")
_DROP_ROLE: Final = (_HERE / "drop_role.sql").read_text(encoding="utf-8")

MARK: Final = "-- concurrently\n"
_NAME: Final = "[a-z_][a-z0-9_]*"
_CREATE: Final = re.compile(
    rf"^CREATE (UNIQUE )?INDEX CONCURRENTLY ({_NAME})\s+ON ({_NAME}\.{_NAME})\s", re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class IndexStatement:
    """The one index that a revision outside a transaction builds, by its CREATE INDEX."""

    name: str
    table: str
    sql: str

    def in_transaction(self) -> str:
        """The statement that builds the index under a lock."""
        return self.sql.replace("INDEX CONCURRENTLY", "INDEX", 1)

    def on(self, table: str) -> str:
        """The statement that builds the index under a lock, on another table."""
        return self.in_transaction().replace(f"ON {self.table}", f"ON {table}", 1)


@dataclass(frozen=True)
class Revision:
    """A step of a line, and the files of its two directions."""

    number: str
    up: Path
    down: Path

    @property
    def title(self) -> str:
        """Number and name, as in the file's name."""
        return self.up.name.removesuffix(".up.sql")

    @cached_property
    def index(self) -> IndexStatement | None:
        """The index that is built outside a transaction; None for a revision inside one.

        Raises RuntimeError for a marked file that holds anything else.
        """
        text = self.up.read_text(encoding="utf-8")
        if not text.startswith(MARK):
            return None
        body = text.removeprefix(MARK)
        found = _CREATE.search(body)
        if found is None or body.count(";") != 1:
            raise RuntimeError(f"{self.up.name} is marked, but not one CREATE INDEX CONCURRENTLY")
        return IndexStatement(name=found[2], table=found[3], sql=body)


def revisions(territory: Territory) -> list[Revision]:
    """The line's revisions, the first one first."""
    ups = sorted((territory.folder / "versions").glob("*.up.sql"))
    if not ups:
        raise RuntimeError(f"{territory.folder} has no revision: the installation is incomplete")
    return [
        Revision(up.name[:4], up, up.with_name(up.name.replace(".up.", ".down."))) for up in ups
    ]


def applied(known: Sequence[Revision], current: str | None) -> int:
    """The number of revisions that are applied. Raises UnknownRevisionError."""
    numbers = [None, *(revision.number for revision in known)]
    if current not in numbers:
        raise UnknownRevisionError(
            f"the database is at revision {current}, which this release doesn't know; "
            "run the release that migrated it"
        )
    return numbers.index(current)


async def apply(connection: asyncpg.Connection, territory: Territory, revision: Revision) -> None:
    """Apply a revision in a transaction of its own. Raises asyncpg.PostgresError.

    The line's group role is made unless there is one, for migrations can't know the login's name.
    """
    async with connection.transaction():
        await _run(connection, territory, _MAKE_ROLE)
        await connection.execute(revision.up.read_text(encoding="utf-8"))
        await set_current(connection, territory, revision.number)


async def revert(
    connection: asyncpg.Connection, territory: Territory, revision: Revision, before: str | None
) -> None:
    """Revert a revision, behind which the line is at `before`. Raises asyncpg.PostgresError.

    With the first one goes the role, if a migration made it and no other database has granted
    anything to it.
    """
    async with connection.transaction():
        await _run(connection, territory, _HOLD_ROLE)
        await connection.execute(revision.down.read_text(encoding="utf-8"))
        await set_current(connection, territory, before)
        if before is None:
            await _run(connection, territory, _DROP_ROLE)


async def set_current(
    connection: asyncpg.Connection, territory: Territory, number: str | None
) -> None:
    """Record the line's revision, inside the caller's transaction."""
    table = f"{territory.schema}.{territory.version_table}"
    await connection.execute(f"DELETE FROM {table}")  # noqa: S608 - a constant of TERRITORIES
    if number is not None:
        await connection.execute(f"INSERT INTO {table} VALUES ($1)", number)  # noqa: S608 - as above


async def _run(connection: asyncpg.Connection, territory: Territory, script: str) -> None:
    # A DO block takes no parameters, so the name travels as a setting of this transaction.
    await connection.execute("SELECT set_config('feedsvc.migrated_role', $1, true)", territory.role)
    await connection.execute(script)
