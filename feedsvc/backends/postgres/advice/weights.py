"""The score of a plan: 100 less what its findings take.

A finding takes its full weight where its node is all of the plan's cost, and two fifths of it where
it is a small part.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from feedsvc.backends.postgres.advice.model import FindingCode, PlanFinding, ReadPlan
from feedsvc.backends.postgres.advice.plan_nodes import NodeRun

WEIGHTS: Final[Mapping[FindingCode, float]] = {
    "sequential-scan": 40,
    "nested-loop": 30,
    "filtered-rows": 30,
    "leaky-operator": 25,
    "spilling-sort": 20,
    "spilling-hash": 15,
    "missing-statistics": 20,
    "function-not-inlined": 20,
    "misestimate": 15,
    "jit": 15,
    "heap-fetches": 10,
    "old-statistics": 10,
}
_LEAST: Final = 0.4


def weigh(code: FindingCode, each: NodeRun, plan: ReadPlan) -> float:
    """The part of the score that a finding at this node takes."""
    cost = each.node.cost * each.runs * each.fraction
    share = min(1.0, cost / plan.cost) if plan.cost > 0 else 1.0
    return round(WEIGHTS[code] * (_LEAST + (1 - _LEAST) * share), 1)


def score(findings: Iterable[PlanFinding]) -> int:
    """0 to 100."""
    return max(0, round(100 - sum(finding.weight for finding in findings)))
