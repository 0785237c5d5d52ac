"""Plans of statements whatever their values: read-only, under a timeout, never run."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg
import orjson

from feedsvc.backends.postgres.advice.model import WorkloadStatement
from feedsvc.backends.postgres.index_proof.plans import undone
from feedsvc.core import identifiers

MATCH_NOTHING: Final = ("", "00000000-0000-0000-0000-000000000000", "0")
"""Values of settings by which no policy lets a row through; a policy may cast one to its type."""

_PARAMETERS: Final = (
    "SELECT cardinality(parameter_types) FROM pg_prepared_statements WHERE name = $1"
)
_LOCK: Final = "SET LOCAL lock_timeout = '500ms'"


class UnplannedError(Exception):
    """No plan could be made; the message is a sentence without any part of the statement."""


@asynccontextmanager
async def planning(connection: asyncpg.Connection, seconds: float) -> AsyncIterator[None]:
    """A read-only transaction in which each statement has so many seconds; it is rolled back."""
    transaction = connection.transaction(readonly=True)
    await transaction.start()
    try:
        await connection.execute(
            f"SET LOCAL statement_timeout = {max(1, round(seconds * 1_000))}; {_LOCK}"
        )
        yield
    finally:
        if not connection.is_closed():
            await transaction.rollback()


async def become(connection: asyncpg.Connection, statement: WorkloadStatement, match: str) -> None:
    """Plan from here on as the statement's role and with its settings.

    Settings of row-level security without a value get `match`.
    """
    for name, value in statement.settings.items():
        await connection.execute("SELECT set_config($1, $2, true)", name, value or match)
    if statement.role is not None:
        await connection.execute(f"SET LOCAL ROLE {statement.role}")


async def explained(connection: asyncpg.Connection, sql: str) -> Mapping[str, Any]:
    """EXPLAIN's JSON of one statement, in a transaction. Raises UnplannedError, asyncpg.DataError.

    A statement of its own in the extended protocol: no second one can hide in the text.
    """
    try:
        async with undone(connection):
            found = await _prepared(connection, sql)
    except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        if isinstance(error, asyncpg.DataError):
            raise
        raise UnplannedError(_reason(error)) from None
    plan: Mapping[str, Any] = orjson.loads(found)[0]
    if "Plan" not in plan:
        raise UnplannedError("PostgreSQL plans no such statement.")
    return plan


async def _prepared(connection: asyncpg.Connection, sql: str) -> str:
    """The plan of a prepared statement, which any release can make without values."""
    name = f"feedsvc_{identifiers.new_hex()}"  # behind a pooler another session may have one left
    await connection.fetch(f"PREPARE {name} AS {sql}")
    try:
        async with undone(connection):
            nulls = ", ".join(["NULL"] * await connection.fetchval(_PARAMETERS, name))
            call = f"{name}({nulls})" if nulls else name
            await connection.execute("SET LOCAL plan_cache_mode = force_generic_plan")
            options = "VERBOSE, SETTINGS, FORMAT JSON"
            found: str = await connection.fetchval(f"EXPLAIN ({options}) EXECUTE {call}")
            return found
    finally:
        await connection.execute(f"DEALLOCATE {name}")


def _reason(error: BaseException) -> str:
    """A sentence for an error whose own words may quote a value."""
    sentences = (sentence for kinds, sentence in _REASONS if isinstance(error, kinds))
    return next(sentences, "PostgreSQL made no plan of it.")


_REASONS: Final[tuple[tuple[tuple[type[BaseException], ...], str], ...]] = (
    ((asyncpg.QueryCanceledError,), "Planning took too long."),
    ((asyncpg.LockNotAvailableError,), "A table was locked."),
    ((asyncpg.InsufficientPrivilegeError,), "The login may not read one of its tables."),
    (
        (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError),
        "A table or column of it is not there, or not in this search_path.",
    ),
    (
        (asyncpg.UndefinedFunctionError, asyncpg.UndefinedObjectError),
        "A function or type of it is not there, or not in this search_path.",
    ),
    (
        (asyncpg.IndeterminateDatatypeError, asyncpg.AmbiguousParameterError),
        "The type of one of its values is not known without the value.",
    ),
    (
        (asyncpg.PostgresSyntaxError,),
        "Its text is no whole statement once its values are left out.",
    ),
)
