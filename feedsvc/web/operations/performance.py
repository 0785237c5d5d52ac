"""`/api/performance/metrics`: figures of the last hour, day or week, for operators alone."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from aiohttp import web

from feedsvc.core.principal import Principal
from feedsvc.operations.performance import report
from feedsvc.operations.performance.tracker import ReportRange
from feedsvc.web.context import Answering, Service
from feedsvc.web.operations.range_report import RangeReport


async def parse_metrics(request: web.Request, principal: Principal) -> Answering:
    """Judge `GET /api/performance/metrics`."""
    return _METRICS.judge(request, principal)


async def _read(service: Service, wanted: ReportRange) -> dict[str, Any]:
    return await service.observing.tracker.report(wanted)


def _rows(found: dict[str, Any]) -> Iterable[Sequence[Any]]:
    return report.csv_rows(found["endpoints"])


_METRICS: Final = RangeReport("metrics", "feedsvc", _read, report.COLUMNS, _rows)
