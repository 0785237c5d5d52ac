"""Facts that a plan is judged by: its tables, operators and functions, as the catalog has them."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import asyncpg

from feedsvc.backends.postgres.advice.columns import compared, functions_in
from feedsvc.backends.postgres.advice.model import PlanNode, ReadPlan, WorkloadStatement
from feedsvc.backends.postgres.advice.tables import TableFacts, table_facts

_LEAKY, _FUNCTIONS = (
    (Path(__file__).parent / f"{name}.sql").read_text(encoding="utf-8")
    for name in ("leaky", "functions")
)
_MEMORY: Final = """
    SELECT ARRAY[w, w * current_setting('hash_mem_multiplier')::float8]::bigint[]
    FROM pg_size_bytes(current_setting('work_mem')) AS w
"""
_NO_FUNCTION: Final = re.compile(r"pg_catalog\.")


@dataclass(frozen=True, slots=True)
class LeakyOperator:
    """An operator of a column that row-level security keeps from beginning an index scan."""

    column: str
    operator: str
    index: str | None
    """An index that has the operator."""


@dataclass(frozen=True, slots=True)
class SqlFunction:
    """A function of users in SQL or PL/pgSQL."""

    name: str
    language: str
    reasons: tuple[str, ...]
    """Properties that keep one in SQL from being inlined."""


@dataclass(frozen=True, slots=True)
class PlanFacts:
    """A plan with all that it is judged by."""

    statement: WorkloadStatement
    plan: ReadPlan
    tables: Mapping[str, TableFacts]
    work_mem: int
    """Bytes that a sort has before it goes to disk."""
    hash_mem: int
    """Bytes that a hash table has, likewise."""
    behind_index: Mapping[str, float]
    """Rows that a node's index condition finds, by the node's path."""
    leaky: Mapping[int, tuple[LeakyOperator, ...]]
    """By the table's id."""
    functions: Mapping[str, SqlFunction]
    """By the names that plans have for them."""

    def table(self, node: PlanNode) -> TableFacts | None:
        """The node's table."""
        return None if node.relation is None else self.tables.get(node.relation)


async def gather(
    connection: asyncpg.Connection,
    statement: WorkloadStatement,
    plan: ReadPlan,
    behind_index: Mapping[str, float],
) -> PlanFacts:
    """The facts of a plan, in its transaction and as its role. Raises asyncpg's errors."""
    tables = await table_facts(connection, plan.relations)
    work_mem, hash_mem = await connection.fetchval(_MEMORY)
    return PlanFacts(
        statement,
        plan,
        tables,
        work_mem,
        hash_mem,
        behind_index,
        await _leaky(connection, plan, tables),
        await _functions(connection, plan),
    )


async def _leaky(
    connection: asyncpg.Connection, plan: ReadPlan, tables: Mapping[str, TableFacts]
) -> dict[int, tuple[LeakyOperator, ...]]:
    wanted: set[tuple[int, str, str]] = set()
    for node in plan.top.walk():
        table = tables.get(node.relation or "")
        if table is not None and table.is_secured and node.alias and "Filter" in node.conditions:
            found = compared(node.conditions["Filter"], node.alias)
            wanted |= {(table.id, c, o) for c, o in found if c not in table.policy_columns}
    if not wanted:
        return {}
    listed = sorted(wanted)
    columns = [[each[place] for each in listed] for place in range(3)]
    made: dict[int, tuple[LeakyOperator, ...]] = {}
    for row in await connection.fetch(_LEAKY, *columns):
        operator = LeakyOperator(row["column_name"], row["operator"], row["index_name"])
        made[row["id"]] = (*made.get(row["id"], ()), operator)
    return made


async def _functions(connection: asyncpg.Connection, plan: ReadPlan) -> dict[str, SqlFunction]:
    names = {name for node in plan.top.walk() for name in functions_in(_expressions(node))}
    names = {name for name in names if not _NO_FUNCTION.match(name)}
    if not names:
        return {}
    made: dict[str, SqlFunction] = {}
    for row in await connection.fetch(_FUNCTIONS, list(names)):
        reasons = [
            words
            for column, words in (
                ("is_definer", "SECURITY DEFINER"),
                ("has_settings", "SET"),
                ("is_strict", "STRICT"),
                ("is_volatile", "VOLATILE"),
                ("is_set", "RETURNS SETOF"),
            )
            if row[column]
        ]
        function = SqlFunction(row["name"], row["language"], tuple(reasons))
        made |= {row["name"]: function, row["short"]: function}
    return made


def _expressions(node: PlanNode) -> Iterable[str]:
    """Expressions in which a function would run for each row."""
    return (*node.conditions.values(), *node.output, *node.keys)
