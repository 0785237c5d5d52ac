"""Advice as JSON's values: in reports of the service and of the command the same."""

from typing import Any

from feedsvc.backends.postgres.advice.masking import statement as masked
from feedsvc.backends.postgres.advice.model import PlanNode, Proposal, StatementAdvice


def advice_document(found: StatementAdvice) -> dict[str, Any]:
    """A statement with figures, plan, findings and score; null is what is not known."""
    given = found.statement
    return {
        "name": given.name,
        "source": given.source,
        "statement": masked(given.sql) or None,
        "calls": given.calls or None,
        "total_ms": round(given.total_ms, 3) if given.calls else None,
        "mean_ms": round(given.mean_ms, 3) if given.calls else None,
        "p95_ms": given.p95_ms,
        "rows": given.rows,
        **plan_document(found),
        "proposals": [proposal.statement for proposal in found.proposals],
    }


def plan_document(found: StatementAdvice) -> dict[str, Any]:
    """Score, cost, findings and plan; `unplanned` has the reason where there is no plan."""
    return {
        "score": found.score,
        "cost": None if found.plan is None else found.plan.cost,
        "findings": [
            {"code": each.code, "sentence": each.sentence, "node": each.node,
             "relation": each.relation, "columns": list(each.columns)}
            for each in found.findings
        ],
        "plan": None if found.plan is None else _node(found.plan.top),
        "unplanned": found.unplanned,
    }  # fmt: skip


def proposal_document(proposal: Proposal) -> dict[str, Any]:
    """A proposal with its proof, costs by statement, size in bytes and pages for each write."""
    return {
        "kind": proposal.kind,
        "statement": proposal.statement,
        "proof": proposal.proof,
        "cost_before": dict(proposal.cost_before),
        "cost_after": dict(proposal.cost_after),
        "size_bytes": proposal.size_bytes,
        "write_cost": proposal.write_cost,
        "helps": list(proposal.helps),
        "harms": list(proposal.harms),
        "reason": proposal.reason,
    }


def _node(node: PlanNode) -> dict[str, Any]:
    return {
        "node": node.path,
        "type": node.type,
        "relation": node.relation,
        "index": node.index,
        "rows": node.rows,
        "cost": node.cost,
        "conditions": dict(node.conditions),
        "children": [_node(child) for child in node.children],
    }
