"""Statements that the server has seen, of other logins, from pg_stat_statements."""

from pathlib import Path
from typing import Final, NamedTuple

import asyncpg

from feedsvc.backends.postgres.advice.extensions import extension_schema
from feedsvc.backends.postgres.advice.masking import statement as masked
from feedsvc.backends.postgres.advice.model import WorkloadStatement
from feedsvc.backends.postgres.index_proof.plans import undone

ABSENT: Final = "pg_stat_statements is not installed in this database."
NOT_LOADED: Final = (
    "pg_stat_statements is installed, but the server does not load it (shared_preload_libraries)."
)
BUSY: Final = "PostgreSQL did not show pg_stat_statements in time."
FORBIDDEN: Final = (
    "Others' statements need pg_read_all_stats for the service's login, or database.owner_url."
)

_SQL: Final = (Path(__file__).parent / "seen.sql").read_text(encoding="utf-8")
_TIMEOUT: Final = "SET LOCAL statement_timeout = '2s'"


class SeenStatements(NamedTuple):
    """Statements of other logins, masked, by total time; and a sentence on what is lacking."""

    statements: tuple[WorkloadStatement, ...]
    lacking: str | None


async def seen_statements(connection: asyncpg.Connection, login: str) -> SeenStatements:
    """Up to 50 statements of this database that are not the login's, planned with no setting.

    Raises asyncpg's errors where the connection is lost.
    """
    try:
        async with undone(connection):
            await connection.execute(_TIMEOUT)
            schema = await extension_schema(connection, "pg_stat_statements")
            if schema is None:
                return SeenStatements((), ABSENT)
            rows = await connection.fetch(_SQL.replace("{schema}", schema), login)
    except asyncpg.ObjectNotInPrerequisiteStateError:
        return SeenStatements((), NOT_LOADED)
    except (asyncpg.InsufficientPrivilegeError, asyncpg.UndefinedTableError):
        return SeenStatements((), FORBIDDEN)
    except asyncpg.QueryCanceledError:
        return SeenStatements((), BUSY)
    shown = tuple(_statement(row) for row in rows if row["id"] is not None)
    return SeenStatements(shown, None if len(shown) == len(rows) else FORBIDDEN)


def _statement(row: asyncpg.Record) -> WorkloadStatement:
    calls, total = row["calls"], row["total_ms"]
    return WorkloadStatement(
        f"statement {row['id']}", masked(row["query"]), "pg_stat_statements", calls, total,
        total / calls if calls else 0.0, None, row["rows"],
        {"feedsvc.tenant": "", "feedsvc.role": "", "feedsvc.client": ""}, login=row["login"],
    )  # fmt: skip
