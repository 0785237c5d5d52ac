"""The proof: each query's plan, and each index taken away in a transaction that is rolled back."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import asyncpg

from feedsvc.backends.postgres.index_proof.catalogue import CatalogueQuery
from feedsvc.backends.postgres.index_proof.existing import ExistingIndex
from feedsvc.backends.postgres.index_proof.plans import Plan, explained, explained_generic, undone
from feedsvc.backends.postgres.index_proof.write_cost import write_cost

# DROP INDEX keeps readers and writers of the table out until it is rolled back.
_LOCK: Final = "500ms"
_WITHOUT: Final = "2s"


@dataclass(frozen=True, slots=True)
class QueryPlan:
    """A query with its parameters, and its plan."""

    query: CatalogueQuery
    arguments: tuple[Any, ...]
    plan: Plan


@dataclass(frozen=True, slots=True)
class Gain:
    """A query that uses an index, with it and without it."""

    query: str
    cost: float
    cost_without: float
    pages: int | None
    pages_without: int | None
    """None where it was not run, or ran for over two seconds."""


@dataclass(frozen=True, slots=True)
class IndexProof:
    """An index, the queries that use it, and its cost to writers in pages for each row."""

    index: ExistingIndex
    gains: tuple[Gain, ...]
    writes: float | None


@dataclass(frozen=True, slots=True)
class ProofSession:
    """The connection of a proof, and the part of a reader that queries of feeds are made in."""

    connection: asyncpg.Connection
    role: str | None
    """The role as SQL; None where the login stays its own."""
    settings: Mapping[str, str]
    run: bool
    """True if queries are run, for their pages; else they are only planned."""


async def drawn(
    connection: asyncpg.Connection, queries: Sequence[CatalogueQuery], tenant: str | None
) -> dict[str, tuple[Any, ...]]:
    """The parameters of each query by its name, but of those without a row to draw from."""
    found: dict[str, tuple[Any, ...]] = {}
    for query in queries:
        if query.draw is None:
            found[query.name] = ()
            continue
        row = await connection.fetchrow(query.draw, *([tenant] if "$1" in query.draw else []))
        if row is not None and all(value is not None for value in row):
            found[query.name] = tuple(row)
    return found


async def planned(
    session: ProofSession,
    queries: Sequence[CatalogueQuery],
    arguments: Mapping[str, tuple[Any, ...]],
    large: Collection[str],
) -> list[QueryPlan]:
    """The plan of each query whose parameters are known; nothing that they do is kept.

    A query that names indexes and reads a table as a whole that is not `large` is planned as if it
    were: of a few pages the planner reads all, and no index can prove itself.
    """
    plans = []
    for query in queries:
        if query.name not in arguments:
            continue
        if query.generic:
            async with undone(session.connection):
                generic = await explained_generic(session.connection, query.sql)
            if generic is not None:
                plans.append(QueryPlan(query, (), generic))
            continue
        plan = await _plan(session, query, arguments[query.name], run=session.run)
        if query.uses and plan.scanned and not plan.scanned & set(large):
            async with undone(session.connection):
                await session.connection.execute("SET LOCAL enable_seqscan = off")
                plan = await _plan(session, query, arguments[query.name], run=session.run)
        plans.append(QueryPlan(query, arguments[query.name], plan))
    return plans


async def proven(
    session: ProofSession, indexes: Sequence[ExistingIndex], plans: Sequence[QueryPlan]
) -> list[IndexProof]:
    """The proof of each index that no constraint needs.

    An index is dropped in a transaction that is rolled back, while its queries are planned (and
    run, in a session that runs); readers of its table wait for that. Raises
    asyncpg.LockNotAvailableError if the lock can't be had within half a second, three times.
    """
    proofs = []
    for index in indexes:
        if index.is_constraint:
            continue
        users = [plan for plan in plans if index.name in plan.plan.indexes]
        gains = await _gains(session, index, users) if users else ()
        proofs.append(IndexProof(index, gains, await write_cost(session.connection, index)))
    return proofs


async def _gains(
    session: ProofSession, index: ExistingIndex, users: Sequence[QueryPlan]
) -> tuple[Gain, ...]:
    connection = session.connection
    for attempt in (2, 1, 0):
        try:
            async with undone(connection):
                await connection.execute(f"SET LOCAL lock_timeout = '{_LOCK}'")
                await connection.execute(f"DROP INDEX {index.name}")
                return tuple([await _gain(session, user) for user in users])
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            if not attempt:
                raise
    raise AssertionError  # the last attempt has returned or raised


async def _gain(session: ProofSession, user: QueryPlan) -> Gain:
    pages: int | None = None
    if user.query.generic:
        async with undone(session.connection):
            generic = await explained_generic(session.connection, user.query.sql)
        without = generic or user.plan
    else:
        without = await _plan(session, user.query, user.arguments, run=False)
    if session.run and not user.query.generic:
        try:
            async with undone(session.connection):
                await session.connection.execute(f"SET LOCAL statement_timeout = '{_WITHOUT}'")
                pages = (await _plan(session, user.query, user.arguments, run=True)).pages
        except asyncpg.QueryCanceledError:
            pages = None
    plan = user.plan
    return Gain(user.query.name, plan.cost, without.cost, plan.pages, pages)


async def _plan(
    session: ProofSession, query: CatalogueQuery, arguments: tuple[Any, ...], *, run: bool
) -> Plan:
    connection = session.connection
    async with undone(connection):
        if query.actor == "feed":
            for name, value in session.settings.items():
                await connection.execute("SELECT set_config($1, $2, true)", name, value)
            if session.role is not None:
                await connection.execute(f"SET LOCAL ROLE {session.role}")
        return await explained(connection, query.sql, arguments, run=run)
