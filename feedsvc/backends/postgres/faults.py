"""Problems of the database, as clients get them."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import asyncpg

from feedsvc.core.events import DatabaseFault, Observers
from feedsvc.core.problems import (
    DatabaseUnavailable,
    DataFault,
    DatasetLocked,
    DatasetUnavailable,
    Internal,
    NotFilled,
    Problem,
    Timeout,
)

# The first that fits counts: asyncio's TimeoutError is an OSError too, but a deadline of ours.
_PROBLEMS: Final[tuple[tuple[tuple[type[Exception], ...], Callable[[], Problem]], ...]] = (
    (
        # Parameters are judged before, and by `trial` where that was not enough. So it is a value
        # in the database, or a view's expression or function that fails on a row.
        (
            asyncpg.DataError,
            asyncpg.CardinalityViolationError,
            asyncpg.CaseNotFoundError,
            asyncpg.IntegrityConstraintViolationError,
            asyncpg.PLPGSQLError,
            asyncpg.ExternalRoutineError,
            asyncpg.ExternalRoutineInvocationError,
            asyncpg.DataCorruptedError,
            asyncpg.IndexCorruptedError,
            UnicodeDecodeError,
        ),
        lambda: DataFault("A value of the dataset can't be read or calculated."),
    ),
    (
        (asyncpg.LockNotAvailableError,),
        lambda: DatasetLocked("Another session holds a lock on what the dataset reads.", 5),
    ),
    (
        # Behind the lock's, which is one of these.
        (asyncpg.ObjectNotInPrerequisiteStateError,),
        lambda: NotFilled("A materialized view behind the dataset was never filled.", 30),
    ),
    (
        (TimeoutError, asyncpg.QueryCanceledError),
        lambda: Timeout("PostgreSQL took too long over the next rows."),
    ),
    (
        (
            asyncpg.UndefinedTableError,
            asyncpg.UndefinedColumnError,
            asyncpg.UndefinedFunctionError,
            asyncpg.UndefinedObjectError,
            asyncpg.InvalidSchemaNameError,
            asyncpg.InsufficientPrivilegeError,
            asyncpg.DatatypeMismatchError,
        ),
        lambda: DatasetUnavailable("The dataset can't be read as it is declared.", 30),
    ),
    (
        # A connection that is lost inside a transaction surfaces as any of the first four; a
        # server that is starting, stopping, full or read-only as the others.
        (
            OSError,
            asyncpg.InterfaceError,
            asyncpg.InternalClientError,
            asyncpg.PostgresConnectionError,
            asyncpg.OperatorInterventionError,
            asyncpg.InsufficientResourcesError,
            asyncpg.ReadOnlySQLTransactionError,
            asyncpg.InvalidAuthorizationSpecificationError,
        ),
        lambda: DatabaseUnavailable("The database can't be reached just now."),
    ),
)


def problem_of(error: Exception) -> Problem:
    """The problem to answer with. Nothing of the error's own text is in it."""
    if isinstance(error, Problem):
        return error
    for kinds, problem in _PROBLEMS:
        if isinstance(error, kinds):
            return problem()
    if isinstance(error, asyncpg.PostgresError) and _is_raised_by_hand(error):
        return DataFault("A function behind the dataset refuses one of its rows.")
    return Internal("The service failed in a way that it did not foresee.")


def _is_raised_by_hand(error: asyncpg.PostgresError) -> bool:
    """Return whether it is of PL/pgSQL's RAISE, which may bear a number of its author's own."""
    return getattr(error, "server_source_function", None) == "exec_stmt_raise"


@contextmanager
def as_problems(observers: Observers) -> Iterator[None]:
    """Turn what a database operation raises into problems, the cause kept for the log.

    Report those that are the database's fault.
    """
    try:
        yield
    except (Problem, asyncio.CancelledError):
        raise
    except Exception as error:
        problem = problem_of(error)
        if problem.status >= 500:
            observers.publish(DatabaseFault(problem.name))
        raise problem from error
