"""Findings about operators that row-level security holds back, and functions run for each row."""

from collections.abc import Iterator
from typing import Final

from feedsvc.backends.postgres.advice.columns import compared, functions_in
from feedsvc.backends.postgres.advice.facts import PlanFacts
from feedsvc.backends.postgres.advice.model import PlanFinding
from feedsvc.backends.postgres.advice.plan_nodes import NodeRun, runs
from feedsvc.backends.postgres.advice.scans import LARGE_PAGES
from feedsvc.backends.postgres.advice.weights import weigh

_MANY_CALLS: Final = 1_000
_BY_FILTER: Final = ("Filter", "Join Filter", "Index Cond", "Hash Cond", "Merge Cond")


def leaky_operators(facts: PlanFacts) -> Iterator[PlanFinding]:
    """Conditions that no index serves, for row-level security has to come before them."""
    for each in runs(facts.plan):
        node, table = each.node, facts.table(each.node)
        if table is None or table.pages < LARGE_PAGES or "Filter" not in node.conditions:
            continue
        found = set(compared(node.conditions["Filter"], node.alias or ""))
        for leak in facts.leaky.get(table.id, ()):
            if (leak.column, leak.operator) not in found:
                continue
            index = f"{leak.index} has it, and can't" if leak.index else "no index can"
            yield PlanFinding(
                "leaky-operator",
                f"Row-level security of {node.relation} comes before {leak.operator} on"
                f" {leak.column}, which is not leakproof: {index} serve that condition.",
                node.path,
                node.relation,
                (leak.column,),
                weigh("leaky-operator", each, facts.plan),
            )


def functions_not_inlined(facts: PlanFacts) -> Iterator[PlanFinding]:
    """Functions in SQL or PL/pgSQL that run a thousand times or more."""
    seen: set[str] = set()
    for each in runs(facts.plan):
        in_filter = set(functions_in(_filters(each)))
        for name in dict.fromkeys((*in_filter, *functions_in(each.node.output))):
            function = facts.functions.get(name)
            if function is None or function.name in seen:
                continue
            calls = _rows_judged(each, facts) if name in in_filter else each.rows
            if calls < _MANY_CALLS:
                continue
            seen.add(function.name)
            yield PlanFinding(
                "function-not-inlined",
                f"{function.name} runs about {calls:,.0f} times, once a row: it is not inlined,"
                f" for it is {_why(function.language, function.reasons)}.",
                each.node.path,
                each.node.relation,
                (),
                weigh("function-not-inlined", each, facts.plan),
            )


def _filters(each: NodeRun) -> list[str]:
    return [text for name, text in each.node.conditions.items() if name in _BY_FILTER]


def _rows_judged(each: NodeRun, facts: PlanFacts) -> float:
    """Rows that a node's filter looks at."""
    table = facts.table(each.node)
    found = facts.behind_index.get(each.node.path)
    if found is not None:
        return found * each.runs
    if table is not None and each.node.type.endswith("Seq Scan"):
        return table.rows * each.fraction
    return each.rows


def _why(language: str, reasons: tuple[str, ...]) -> str:
    if language != "sql":
        return "in PL/pgSQL"
    return " and ".join(reasons) if reasons else "more than one SELECT of an expression"
