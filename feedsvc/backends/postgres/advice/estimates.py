"""Findings about estimates: wrong ones, and the statistics that they are made of."""

import re
from collections.abc import Iterator
from typing import Final

from feedsvc.backends.postgres.advice.columns import columns_of
from feedsvc.backends.postgres.advice.facts import PlanFacts
from feedsvc.backends.postgres.advice.model import PlanFinding, PlanNode
from feedsvc.backends.postgres.advice.plan_nodes import NodeRun, runs
from feedsvc.backends.postgres.advice.tables import TableFacts
from feedsvc.backends.postgres.advice.weights import weigh

_FACTOR: Final = 10
_FEWEST_CALLS: Final = 5
_FEWEST_ROWS: Final = 100
_OLD_SHARE: Final = 0.2
_OLD_ROWS: Final = 1_000
_SMALL_BYTES: Final = 128 * 8_192
_FUNCTIONS: Final = re.compile(r"Functions (\d+)")
_FUNCTION_MS: Final = {"Optimization": 2.5, "Inlining": 2.5}
_PLAIN_MS: Final = 0.3
"""Milliseconds for which a function is compiled, without what is in `_FUNCTION_MS`."""
_HURTS: Final = 0.2


def misestimates(facts: PlanFacts) -> Iterator[PlanFinding]:
    """Statements that return ten times the rows that were planned, or a tenth."""
    actual, top = facts.statement.rows_per_call, facts.plan.top
    # The number behind LIMIT is a parameter, which is planned as a tenth of all rows.
    if actual is None or facts.statement.calls < _FEWEST_CALLS or top.type == "Limit":
        return
    more, fewer = max(actual, top.rows), max(1.0, min(actual, top.rows))
    if more < fewer * _FACTOR or more - fewer < _FEWEST_ROWS:
        return
    run = next(iter(runs(facts.plan)))
    yield PlanFinding(
        "misestimate",
        f"A call returns about {actual:,.0f} rows, and {top.rows:,.0f} are planned for.",
        top.path,
        next((node.relation for node in top.walk() if node.relation is not None), None),
        (),
        weigh("misestimate", run, facts.plan),
    )


def missing_statistics(facts: PlanFacts) -> Iterator[PlanFinding]:
    """Tables that were never analyzed, and columns of conditions without statistics."""
    for each, table in _tables(facts):
        node, columns = each.node, _unknown(each.node, table)
        if table.rows < 0 and table.bytes > 0:
            what = f"{node.relation} was never analyzed."
        elif columns:
            what = f"There are no statistics on {', '.join(columns)} of {node.relation}."
        else:
            continue
        yield PlanFinding(
            "missing-statistics",
            f"{what} The planner guesses.",
            node.path,
            node.relation,
            columns,
            weigh("missing-statistics", each, facts.plan),
        )


def old_statistics(facts: PlanFacts) -> Iterator[PlanFinding]:
    """Tables of which a fifth or more was changed since they were analyzed."""
    for each, table in _tables(facts):
        if table.rows < 0 or table.bytes < _SMALL_BYTES or table.modified < _OLD_ROWS:
            continue
        share = table.modified / max(1.0, table.rows)
        if share < _OLD_SHARE:
            continue
        yield PlanFinding(
            "old-statistics",
            f"{table.modified:,} rows of {each.node.relation} were changed since it was analyzed,"
            f" {share:.0%} of those that the planner knows of.",
            each.node.path,
            each.node.relation,
            (),
            weigh("old-statistics", each, facts.plan),
        )


def compiled(facts: PlanFacts) -> Iterator[PlanFinding]:
    """Statements whose compilation takes a good part of their time."""
    jit, mean = facts.plan.jit, facts.statement.mean_ms
    numbers = [int(found[1]) for part in jit if (found := _FUNCTIONS.fullmatch(part))]
    if not numbers or mean <= 0:
        return
    each_ms = _PLAIN_MS + sum(_FUNCTION_MS.get(part, 0.0) for part in jit)
    compiling = numbers[0] * each_ms
    if compiling < mean * _HURTS:
        return
    run = next(iter(runs(facts.plan)))
    yield PlanFinding(
        "jit",
        f"{numbers[0]} functions are compiled (JIT) for about {compiling:,.0f} ms, and a call takes"
        f" {mean:,.0f} ms. Raise jit_above_cost above {facts.plan.cost:,.0f}, or turn jit off.",
        run.node.path,
        None,
        (),
        weigh("jit", run, facts.plan),
    )


def _tables(facts: PlanFacts) -> Iterator[tuple[NodeRun, TableFacts]]:
    """Each table once, with the first node that reads it."""
    seen: set[str | None] = set()
    for each in runs(facts.plan):
        table = facts.table(each.node)
        if table is not None and each.node.relation not in seen:
            seen.add(each.node.relation)
            yield each, table


def _unknown(node: PlanNode, table: TableFacts) -> tuple[str, ...]:
    """Columns of the node's conditions of which nothing is known."""
    text = " ".join(node.conditions.values())
    return tuple(c for c in columns_of(text, node.alias or "") if c in table.unknown_columns)
