"""Advice on schemas of others: each index that is proposed lowers the workload's cost, once built.

The adviser sees statements with `$1`; costs are those of the same statements with the values that
stand before them.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from feedsvc.backends.postgres.advice.proposals import AdviceOptions, proposals
from tests.support.foreign_workloads import SCHEMAS, costs, schema, statements, vacuum
from tests.support.servers import connected

if TYPE_CHECKING:
    from tests.integration.conftest import NewDatabase


@pytest.mark.parametrize(
    "name", [SCHEMAS[0], *(pytest.param(each, marks=pytest.mark.soak) for each in SCHEMAS[1:])]
)
async def test_each_index_that_is_proposed_lowers_the_cost(
    new_database: NewDatabase, name: str
) -> None:
    workload = statements(name)
    assert len(workload) == 30
    async with new_database(script=schema(name)) as url, connected(url) as connection:
        await vacuum(connection)
        found = await proposals(connection, workload, AdviceOptions())
        assert found.lacking == ()
        totals = [sum((await costs(connection, name)).values())]
        for proposal, design in found.proposals:
            assert design is not None
            assert proposal.proof == "sample"
            await connection.execute(design.sql(concurrently=False))
            await connection.execute(f"ANALYZE {design.quoted}")
            totals.append(sum((await costs(connection, name)).values()))
        lowered = [before - after for before, after in pairwise(totals)]
        kib = sum(proposal.size_bytes or 0 for proposal, _ in found.proposals) >> 10
        print(f"| {name} | {len(lowered)} | {kib} | {totals[0]:,.0f} | {totals[-1]:,.0f} |")
        texts = [proposal.statement for proposal, _ in found.proposals]
        assert [
            (text, saved) for text, saved in zip(texts, lowered, strict=True) if saved <= 0
        ] == []
        assert totals[-1] < totals[0] / 3
