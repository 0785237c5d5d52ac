"""Plans of statements whatever their values: read-only, under a timeout, never run."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Final

import asyncpg

from feedsvc.backends.postgres.advice.model import WorkloadStatement
from feedsvc.backends.postgres.index_proof.plans import generic, undone

MATCH_NOTHING: Final = ("", "00000000-0000-0000-0000-000000000000", "0")
"""Values of settings by which no policy lets a row through; a policy may cast one to its type."""

BARE: Final[Mapping[str, str]] = {
    "enable_indexscan": "off",
    "enable_indexonlyscan": "off",
    "enable_bitmapscan": "off",
    "enable_tidscan": "off",
    "enable_memoize": "off",
    "max_parallel_workers_per_gather": "0",
}
"""Settings without indexes: conditions of a table are in its Filter, an order is in its Sort."""
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
    """EXPLAIN's JSON of one statement. Raises UnplannedError, asyncpg.DataError.

    In a transaction, which has failed then.
    """
    try:
        plan = await generic(connection, sql)
    except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        if isinstance(error, asyncpg.DataError):
            raise
        raise UnplannedError(_reason(error)) from None
    if "Plan" not in plan:
        raise UnplannedError("PostgreSQL plans no such statement.")
    return plan


async def generic_plan(
    connection: asyncpg.Connection,
    statement: WorkloadStatement,
    sql: str | None = None,
    switches: Mapping[str, str] | None = None,
) -> Mapping[str, Any] | None:
    """The topmost node of a statement's plan, in a transaction; None if there is no plan.

    `sql` stands in for the statement's text, `switches` are further settings of the planner.
    """
    switched = replace(statement, settings={**statement.settings, **(switches or {})})
    for match in MATCH_NOTHING:
        try:
            async with undone(connection):
                await become(connection, switched, match)
                top: Mapping[str, Any] = (await explained(connection, sql or statement.sql))["Plan"]
                return top
        except asyncpg.DataError:
            continue  # a policy casts the value of its setting, and this is none of the type
        except (UnplannedError, asyncpg.PostgresError):
            break
    return None


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
