"""Findings about how tables are read: as a whole, behind an index, from an index alone."""

from collections.abc import Iterator
from typing import Final

from feedsvc.backends.postgres.advice.columns import columns_of
from feedsvc.backends.postgres.advice.facts import PlanFacts
from feedsvc.backends.postgres.advice.model import PlanFinding
from feedsvc.backends.postgres.advice.plan_nodes import NodeRun, runs
from feedsvc.backends.postgres.advice.weights import weigh

LARGE_PAGES: Final = 128
"""Pages of 8 KiB below which reading a whole table is right."""
_SELECTIVE: Final = 0.05
_MANY_REMOVED: Final = 1_000
_KEPT: Final = 0.1
_HIDDEN: Final = 0.1  # of the table's pages: those that an index-only scan has to look at
_MANY_FETCHES: Final = 100


def sequential_scans(facts: PlanFacts) -> Iterator[PlanFinding]:
    """Large tables that are read as a whole for a twentieth of their rows or less."""
    for each in runs(facts.plan):
        node, table = each.node, facts.table(each.node)
        if not node.type.endswith("Seq Scan") or table is None or table.pages < LARGE_PAGES:
            continue
        condition = node.conditions.get("Filter")
        if condition is None or table.rows <= 0 or each.fraction < _SELECTIVE:
            continue
        kept = min(_rows(each), table.rows)
        if kept > table.rows * _SELECTIVE:
            continue
        columns = tuple(columns_of(condition, node.alias or ""))
        yield PlanFinding(
            "sequential-scan",
            f"All of {node.relation} is read, about {table.rows:,.0f} rows, for about"
            f" {kept:,.0f} that match {condition}.",
            node.path,
            node.relation,
            columns,
            weigh("sequential-scan", each, facts.plan),
        )


def filtered_rows(facts: PlanFacts) -> Iterator[PlanFinding]:
    """Index scans most of whose rows a filter throws away behind the index."""
    for each in runs(facts.plan):
        node = each.node
        found = _found(facts, each)
        if found is None or "Filter" not in node.conditions:
            continue
        removed = max(0.0, found - node.rows) * each.runs * each.fraction
        if node.rows > found * _KEPT or removed < _MANY_REMOVED:
            continue
        condition = node.conditions["Filter"]
        yield PlanFinding(
            "filtered-rows",
            f"Of about {found:,.0f} rows of {node.relation} that {node.index or 'an index'} finds,"
            f" {node.rows:,.0f} are left by {condition}; the index does not have that condition.",
            node.path,
            node.relation,
            tuple(columns_of(condition, node.alias or "")),
            weigh("filtered-rows", each, facts.plan),
        )


def heap_fetches(facts: PlanFacts) -> Iterator[PlanFinding]:
    """Index-only scans that have to look at the table, for its visibility map is behind."""
    for each in runs(facts.plan):
        node, table = each.node, facts.table(each.node)
        if node.type.removeprefix("Parallel ") != "Index Only Scan" or table is None:
            continue
        if table.pages < LARGE_PAGES:
            continue
        hidden = 1 - min(1.0, table.visible)
        fetches = each.rows * hidden
        if hidden <= _HIDDEN or fetches < _MANY_FETCHES:
            continue
        yield PlanFinding(
            "heap-fetches",
            f"{node.index} has all columns, but {hidden:.0%} of the pages of {node.relation} are"
            f" not known to be visible to all, so about {fetches:,.0f} rows are looked up in the"
            " table. VACUUM mends that.",
            node.path,
            node.relation,
            (),
            weigh("heap-fetches", each, facts.plan),
        )


def _found(facts: PlanFacts, each: NodeRun) -> float | None:
    """Rows that the node's index gives before its filter: all, where it is read for its order."""
    node, table = each.node, facts.table(each.node)
    is_ordered = node.type.endswith("Index Scan") and "Index Cond" not in node.conditions
    if is_ordered and node.relation is not None:
        return table.rows if table is not None and table.rows > 0 else None
    return facts.behind_index.get(node.path)


def _rows(each: NodeRun) -> float:
    """Rows of one run, of all processes together."""
    return each.node.rows * (each.runs if each.node.type.startswith("Parallel") else 1.0)
