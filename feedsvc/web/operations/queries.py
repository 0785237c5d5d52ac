"""`/api/performance/queries`: statements with plan, findings and score, for operators alone."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from aiohttp import web

from feedsvc.core.principal import Principal
from feedsvc.operations.performance.tracker import ReportRange
from feedsvc.web.context import Answering, Service
from feedsvc.web.operations.range_report import RangeReport

_COLUMNS: Final = (
    "name", "source", "calls", "total_ms", "mean_ms", "p95_ms", "rows", "score", "cost",
    "findings", "proposals", "statement",
)  # fmt: skip


async def parse_queries(request: web.Request, principal: Principal) -> Answering:
    """Judge `GET /api/performance/queries`."""
    return _QUERIES.judge(request, principal)


async def _read(service: Service, wanted: ReportRange) -> dict[str, Any]:
    service.observers.catch_up()
    return await service.advisor.report(service.observing.tracker, wanted)


def _rows(found: dict[str, Any]) -> Iterator[Sequence[Any]]:
    for each in found["statements"]:
        flat = {
            **each,
            "findings": " ".join(finding["sentence"] for finding in each["findings"]),
            "proposals": "; ".join(proposal["statement"] for proposal in each["proposals"]),
        }
        yield [flat[column] for column in _COLUMNS]


_QUERIES: Final = RangeReport("queries", "feedsvc-queries", _read, _COLUMNS, _rows)
