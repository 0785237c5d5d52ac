"""Plans of a workload's statements, without their values and without running them."""

from collections.abc import Mapping
from typing import Any, Final

import asyncpg
import orjson

from feedsvc.backends.postgres.advice.model import WorkloadStatement
from feedsvc.backends.postgres.index_proof.plans import undone

_NAME: Final = "feedsvc_advised"
_COUNT: Final = "SELECT cardinality(parameter_types) FROM pg_prepared_statements WHERE name = $1"
# What is left then: the conditions of each table in its Filter, an order in its Sort.
BARE: Final[Mapping[str, str]] = {
    "enable_indexscan": "off",
    "enable_indexonlyscan": "off",
    "enable_bitmapscan": "off",
    "enable_tidscan": "off",
    "enable_memoize": "off",
    "max_parallel_workers_per_gather": "0",
}


async def generic_plan(
    connection: asyncpg.Connection,
    statement: WorkloadStatement,
    sql: str | None = None,
    switches: Mapping[str, str] | None = None,
) -> Mapping[str, Any] | None:
    """The topmost node of a statement's plan, in a transaction; None if there is no plan.

    `sql` stands in for the statement's text, `switches` are further settings of the planner. A
    statement of its own in the extended protocol: no second one can hide in the text.
    """
    settings = {
        "plan_cache_mode": "force_generic_plan",
        **statement.settings,
        **(switches or {}),
        **({} if statement.role is None else {"role": statement.role}),
    }
    is_prepared = False
    try:
        async with undone(connection):
            for name, value in settings.items():
                await connection.execute("SELECT set_config($1, $2, true)", name, value)
            await connection.fetch(f"PREPARE {_NAME} AS {sql or statement.sql}")
            is_prepared = True
            nulls = ", ".join(["NULL"] * await connection.fetchval(_COUNT, _NAME))
            call = f"{_NAME}({nulls})" if nulls else _NAME
            found = await connection.fetchval(f"EXPLAIN (VERBOSE, FORMAT JSON) EXECUTE {call}")
    except (asyncpg.PostgresError, asyncpg.InterfaceError):
        return None
    finally:
        if is_prepared:
            await connection.execute(f"DEALLOCATE {_NAME}")
    top: Mapping[str, Any] = orjson.loads(found)[0]["Plan"]
    return top
