"""Proposals that follow from a plan's findings alone, for a report that must cost nothing."""

from collections.abc import Iterable
from typing import Any, Final

from feedsvc.backends.postgres.advice.documents import proposal_document
from feedsvc.backends.postgres.advice.model import Proposal, StatementAdvice
from feedsvc.datasets.dataset import quote_identifier

ELSEWHERE: Final = "Indexes are tried on a copy, and proposed by `feedsvc advise` alone."

_BY_STATISTICS: Final = frozenset({"missing-statistics", "old-statistics"})
_BY_INDEX: Final = frozenset({"sequential-scan", "filtered-rows", "spilling-sort"})


def free_proposals(found: StatementAdvice) -> list[dict[str, Any]]:
    """An ANALYZE for each table whose statistics are missing or old, JSON's values."""
    reasons = {
        each.relation: each.sentence
        for each in found.findings
        if each.code in _BY_STATISTICS and each.relation is not None
    }
    return [
        proposal_document(_analyze(found.statement.name, relation, reason))
        for relation, reason in reasons.items()
    ]


def may_lack_index(found: Iterable[StatementAdvice]) -> bool:
    """Return whether an index could cure a finding."""
    return any(each.code in _BY_INDEX for one in found for each in one.findings)


def _analyze(name: str, relation: str, reason: str) -> Proposal:
    schema, _, table = relation.partition(".")
    return Proposal(
        "analyze", f"ANALYZE {quote_identifier(schema)}.{quote_identifier(table)}", "unproven",
        {}, {}, None, None, (name,), (), reason,
    )  # fmt: skip
