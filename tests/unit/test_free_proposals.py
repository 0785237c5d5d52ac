"""Proposals of `/api/performance/queries`, which follow from findings."""

from feedsvc.backends.postgres.advice.model import (
    FindingCode,
    PlanFinding,
    StatementAdvice,
    WorkloadStatement,
)
from feedsvc.backends.postgres.advice.upkeep import analyses
from feedsvc.operations.performance.advisor import may_lack_index


def with_findings(*codes: FindingCode) -> StatementAdvice:
    statement = WorkloadStatement("orders page", "SELECT 1", "feedsvc", 1, 1.0, 1.0, None, 1)
    findings = (PlanFinding(code, "It is so.", "0", "shop.Big orders") for code in codes)
    return StatementAdvice(statement, None, tuple(findings), 50)


def test_a_table_is_analyzed_once_for_all_that_is_lacking_of_its_statistics() -> None:
    lacking = with_findings("missing-statistics", "old-statistics", "nested-loop")
    [found] = analyses([lacking, lacking])
    assert (found.kind, found.statement) == ("analyze", 'ANALYZE shop."Big orders"')
    assert found.helps == ("orders page",)
    assert analyses([with_findings("nested-loop", "sequential-scan")]) == []


def test_an_index_is_said_to_be_proposed_elsewhere_where_one_could_help() -> None:
    assert may_lack_index(with_findings("jit", "sequential-scan"))
    assert not may_lack_index(with_findings("jit", "old-statistics"))
