"""The reading of statements: plan, findings and score of each."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Final, TypeAlias

import asyncpg

from feedsvc.backends.postgres.advice import calls, estimates, facts, scans, sorts_and_joins
from feedsvc.backends.postgres.advice.explaining import (
    MATCH_NOTHING,
    UnplannedError,
    become,
    explained,
    planning,
)
from feedsvc.backends.postgres.advice.facts import PlanFacts
from feedsvc.backends.postgres.advice.masking import LONGEST
from feedsvc.backends.postgres.advice.model import (
    PlanFinding,
    PlanNode,
    ReadPlan,
    StatementAdvice,
    WorkloadStatement,
)
from feedsvc.backends.postgres.advice.plan_nodes import read_plan
from feedsvc.backends.postgres.advice.weights import score
from feedsvc.backends.postgres.index_proof.plans import undone

FindFaults: TypeAlias = Callable[[PlanFacts], Iterator[PlanFinding]]

FINDERS: Final[tuple[FindFaults, ...]] = (
    scans.sequential_scans,
    scans.filtered_rows,
    scans.heap_fetches,
    sorts_and_joins.spilling_sorts,
    sorts_and_joins.spilling_hashes,
    sorts_and_joins.nested_loops,
    estimates.misestimates,
    estimates.missing_statistics,
    estimates.old_statistics,
    estimates.compiled,
    calls.leaky_operators,
    calls.functions_not_inlined,
)
_BY_BITMAP: Final = (
    "SET LOCAL enable_indexscan = off; SET LOCAL enable_indexonlyscan = off;"
    " SET LOCAL enable_seqscan = off"
)
_SCANS: Final = frozenset({"Index Scan", "Parallel Index Scan"})


async def read_statement(
    connection: asyncpg.Connection, statement: WorkloadStatement, seconds: float = 2.0
) -> StatementAdvice:
    """The statement's plan with findings and score, read-only and never run.

    Each question has so many seconds. Raises what asyncpg raises where the connection is lost.
    """
    if len(statement.sql) > LONGEST:
        return _unplanned(statement, "Its text is too long.")
    reason = "One of its values has no type that is known."
    for match in MATCH_NOTHING:
        try:
            async with planning(connection, seconds):
                await become(connection, statement, match)
                return await _read(connection, statement)
        except UnplannedError as error:
            return _unplanned(statement, str(error))
        except asyncpg.DataError:
            continue  # a policy casts the value of its setting, and this is none of the type
        except asyncpg.PostgresError:
            reason = "PostgreSQL did not show what the plan is judged by."
            break
    return _unplanned(statement, reason)


def judged(given: PlanFacts) -> tuple[PlanFinding, ...]:
    """All findings of a plan, the weightiest first."""
    found = [finding for find in FINDERS for finding in find(given)]
    return tuple(sorted(found, key=lambda finding: -finding.weight))


async def _read(connection: asyncpg.Connection, statement: WorkloadStatement) -> StatementAdvice:
    plan = read_plan(await explained(connection, statement.sql))
    behind_index = await _behind_index(connection, statement, plan)
    findings = judged(await facts.gather(connection, statement, plan, behind_index))
    return StatementAdvice(statement, plan, findings, score(findings))


async def _behind_index(
    connection: asyncpg.Connection, statement: WorkloadStatement, plan: ReadPlan
) -> dict[str, float]:
    """Rows that index conditions find before filters, by the paths of their nodes.

    A bitmap of an index shows them, so where an index is scanned otherwise the statement is planned
    once more with bitmaps alone.
    """
    filtered = [node for node in plan.top.walk() if "Filter" in node.conditions]
    found = {node.path: _of_bitmap(node) for node in filtered if node.type.endswith("Heap Scan")}
    scans_ = [node for node in filtered if node.type in _SCANS]
    if scans_:
        found |= await _by_bitmap(connection, statement, scans_)
    return {path: rows for path, rows in found.items() if rows is not None}


async def _by_bitmap(
    connection: asyncpg.Connection, statement: WorkloadStatement, nodes: list[PlanNode]
) -> Mapping[str, float | None]:
    try:
        async with undone(connection):
            await connection.execute(_BY_BITMAP)
            other = read_plan(await explained(connection, statement.sql))
    except (UnplannedError, asyncpg.DataError):
        return {}
    bitmaps = {
        (node.index, node.conditions.get("Index Cond")): node.rows
        for node in other.top.walk()
        if node.type == "Bitmap Index Scan"
    }
    return {
        node.path: bitmaps.get((node.index, node.conditions.get("Index Cond"))) for node in nodes
    }


def _of_bitmap(node: PlanNode) -> float | None:
    below = node.children[0]
    return below.rows if below.type == "Bitmap Index Scan" else None


def _unplanned(statement: WorkloadStatement, reason: str) -> StatementAdvice:
    short = replace(statement, sql=statement.sql[:LONGEST])
    return StatementAdvice(short, None, (), None, unplanned=reason)
