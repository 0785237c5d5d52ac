"""Advice on schemas of others: each index that is proposed lowers the workload's cost, once built.

The adviser sees statements with `$1`; costs are those of the same statements with the values that
stand before them.
"""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final

import asyncpg
import orjson
import pytest

from feedsvc.backends.postgres.advice.model import WorkloadStatement
from feedsvc.backends.postgres.advice.proposals import AdviceOptions, proposals
from tests.support.servers import connected

if TYPE_CHECKING:
    from tests.integration.conftest import NewDatabase

WORKLOADS: Final = Path(__file__).parent / "workloads"
SAMPLES: Final = Path(__file__).parents[1] / "feeds" / "foreign"
SCHEMAS: Final = ("pagila", "chinook", "tracker")


def schema(name: str) -> str:
    """The SQL that makes a schema, of more rows than the sample's where it is one."""
    sample = SAMPLES / f"{name}.sql"
    first = sample.read_text(encoding="utf-8") if sample.is_file() else ""
    return first + (WORKLOADS / f"{name}_grown.sql").read_text(encoding="utf-8")


def workload(name: str) -> list[tuple[str, str]]:
    """Statements with parameters, each with a statement of the same with values."""
    text = (WORKLOADS / f"{name}.sql").read_text(encoding="utf-8")
    pairs = re.findall(r"^-- ?(.*)\n(.+);$", text, re.MULTILINE)
    return [(sql, with_values(sql, values)) for values, sql in pairs]


def with_values(sql: str, values: str) -> str:
    """The statement with its values, which are constants of SQL with commas between them."""
    parts = re.findall(r"'(?:[^']|'')*'|ARRAY\[[^\]]*\]|[^,\s]+", values)
    return re.sub(r"\$(\d+)", lambda found: parts[int(found[1]) - 1], sql)


async def total(connection: asyncpg.Connection, name: str) -> float:
    """The cost of a workload with its values."""
    found = 0.0
    for _, sql in workload(name):
        plan = await connection.fetchval(f"EXPLAIN (FORMAT JSON) {sql}")
        found += orjson.loads(plan)[0]["Plan"]["Total Cost"]
    return found


@pytest.mark.parametrize(
    "name", [SCHEMAS[0], *(pytest.param(each, marks=pytest.mark.soak) for each in SCHEMAS[1:])]
)
async def test_each_index_that_is_proposed_lowers_the_cost(
    new_database: NewDatabase, name: str
) -> None:
    statements = [
        WorkloadStatement(f"q{number}", sql, "catalogue", 0, 0.0, 0.0, None, None)
        for number, (sql, _) in enumerate(workload(name))
    ]
    assert len(statements) == 30
    async with new_database(script=schema(name)) as url, connected(url) as connection:
        await connection.execute("VACUUM ANALYZE")
        found = await proposals(connection, statements, AdviceOptions())
        assert found.lacking == ()
        costs = [await total(connection, name)]
        for proposal, design in found.proposals:
            assert design is not None
            assert proposal.proof == "sample"
            await connection.execute(design.sql(concurrently=False))
            await connection.execute(f"ANALYZE {design.quoted}")
            costs.append(await total(connection, name))
        lowered = [before - after for before, after in pairwise(costs)]
        kib = sum(proposal.size_bytes or 0 for proposal, _ in found.proposals) >> 10
        print(f"| {name} | {len(lowered)} | {kib} | {costs[0]:,.0f} | {costs[-1]:,.0f} |")
        texts = [proposal.statement for proposal, _ in found.proposals]
        assert [
            (text, saved) for text, saved in zip(texts, lowered, strict=True) if saved <= 0
        ] == []
        assert costs[-1] < costs[0] / 3
