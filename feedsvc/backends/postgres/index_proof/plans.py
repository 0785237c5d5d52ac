"""Plans of queries, as PostgreSQL makes them, without a trace of their running."""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import asyncpg
import orjson

from feedsvc.core import identifiers

_PARAMETERS: Final = (
    "SELECT cardinality(parameter_types) FROM pg_prepared_statements WHERE name = $1"
)


@dataclass(frozen=True, slots=True)
class Plan:
    """The parts of a plan that a proof needs."""

    indexes: frozenset[str]
    """Names with their schemas."""
    scanned: frozenset[str]
    """Tables that are read as a whole."""
    cost: float
    pages: int | None
    """Pages of 8 KiB touched; None where it was planned and not run, or ran too long."""
    milliseconds: float | None


async def explained(
    connection: asyncpg.Connection, sql: str, arguments: tuple[Any, ...], *, run: bool
) -> Plan:
    """The plan of a query with these parameters, run to its end if `run`."""
    options = "ANALYZE, BUFFERS, TIMING OFF, VERBOSE" if run else "VERBOSE"
    text = f"EXPLAIN ({options}, FORMAT JSON) {sql}"
    return _plan(orjson.loads(await connection.fetchval(text, *arguments))[0], is_run=run)


async def explained_generic(connection: asyncpg.Connection, sql: str) -> Plan | None:
    """The plan of a query whatever its parameters, in a transaction; None if there is none."""
    try:
        async with undone(connection):
            return _plan(await generic(connection, sql), is_run=False)
    except (asyncpg.PostgresError, asyncpg.InterfaceError):
        return None


async def generic(connection: asyncpg.Connection, sql: str) -> Mapping[str, Any]:
    """EXPLAIN's JSON of a query whatever its parameters. Raises what asyncpg raises.

    A statement of its own in the extended protocol: no second one can hide in the text.
    Prepared, for so any release can plan it without values.
    """
    name = f"feedsvc_{identifiers.new_hex()}"  # behind a pooler another session may have one left
    await connection.fetch(f"PREPARE {name} AS {sql}")
    try:
        async with undone(connection):
            nulls = ", ".join(["NULL"] * await connection.fetchval(_PARAMETERS, name))
            call = f"{name}({nulls})" if nulls else name
            await connection.execute("SET LOCAL plan_cache_mode = force_generic_plan")
            options = "VERBOSE, SETTINGS, FORMAT JSON"
            found = await connection.fetchval(f"EXPLAIN ({options}) EXECUTE {call}")
    finally:
        await connection.execute(f"DEALLOCATE {name}")
    plan: Mapping[str, Any] = orjson.loads(found)[0]
    return plan


def _plan(found: Mapping[str, Any], *, is_run: bool) -> Plan:
    top = found["Plan"]
    indexes: set[str] = set()
    scanned: set[str] = set()
    for node, schema in _nodes(top, ""):
        if "Index Name" in node:
            indexes.add(f"{schema}.{node['Index Name']}")
        elif node["Node Type"] == "Seq Scan":
            scanned.add(f"{schema}.{node['Relation Name']}")
    pages = top["Shared Hit Blocks"] + top["Shared Read Blocks"] if is_run else None
    return Plan(
        frozenset(indexes),
        frozenset(scanned),
        top["Total Cost"],
        pages,
        found["Execution Time"] if is_run else None,
    )


def _nodes(node: Mapping[str, Any], schema: str) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Each node with its table's schema, which a bitmap of an index takes from the node above."""
    schema = node.get("Schema", schema)
    yield node, schema
    for child in node.get("Plans", ()):
        yield from _nodes(child, schema)


@asynccontextmanager
async def undone(connection: asyncpg.Connection) -> AsyncIterator[None]:
    """A transaction, or a savepoint in one, that is rolled back."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        yield
    finally:
        await transaction.rollback()
