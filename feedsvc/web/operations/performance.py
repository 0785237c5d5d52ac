"""`/api/performance/metrics`: figures of the last hour, day or week, for operators alone."""

from collections.abc import AsyncGenerator
from functools import partial
from typing import Final

import aiocsv
from aiohttp import web

from feedsvc.core.principal import Principal
from feedsvc.feeds import parameters
from feedsvc.operations.performance import report
from feedsvc.operations.performance.tracker import RANGES, ReportRange, Tracker
from feedsvc.web import headers
from feedsvc.web.bodies import json_response
from feedsvc.web.context import SERVICE, Answering
from feedsvc.web.operations.events import send_events, ticks
from feedsvc.web.operations.forms import form_of, interval_of
from feedsvc.web.operations.rights import only_operators
from feedsvc.web.operations.series import Event

_FORMS: Final = ("json", "csv", "sse")
_CSV: Final = "text/csv; charset=utf-8; header=present"
_PARAMETERS: Final = ("range", "format", "interval", "ticket")


async def parse_metrics(request: web.Request, principal: Principal) -> Answering:
    """Judge `GET /api/performance/metrics`."""
    only_operators(principal)
    given = parameters.parse(request.rel_url.raw_query_string)
    parameters.refuse_unknown(given, _PARAMETERS)
    wanted = parameters.choice(given, "range", {name: name for name in RANGES}, "1h")
    form = form_of(request, given, _FORMS)
    pause = interval_of(given, form)
    if request.method == "HEAD":
        return partial(_head, form, wanted)
    tracker = request.app[SERVICE].observing.tracker
    if form == "sse":
        events = partial(_events, tracker, wanted, pause)
        return partial(send_events, request, principal, ("metrics", wanted, pause), events)
    return partial(_answer_csv if form == "csv" else _answer_json, tracker, wanted)


async def _events(
    tracker: Tracker, wanted: ReportRange, pause: float
) -> AsyncGenerator[Event, None]:
    async for _ in ticks(pause):
        yield Event("metrics", await tracker.report(wanted))


async def _head(form: str, wanted: ReportRange) -> web.Response:
    return web.Response(headers=_fields(form, wanted))


async def _answer_json(tracker: Tracker, wanted: ReportRange) -> web.Response:
    return json_response(await tracker.report(wanted), vary="Accept")


async def _answer_csv(tracker: Tracker, wanted: ReportRange) -> web.Response:
    found = await tracker.report(wanted)
    text = _CsvBuffer()
    writer = aiocsv.AsyncWriter(text)
    await writer.writerow(report.COLUMNS)
    for row in report.csv_rows(found["endpoints"]):
        await writer.writerow(row)
    return web.Response(body="".join(text.parts).encode(), headers=_fields("csv", wanted))


class _CsvBuffer:
    """A file for aiocsv, in memory."""

    def __init__(self) -> None:
        self.parts: list[str] = []

    async def write(self, data: str) -> None:
        self.parts.append(data)


def _fields(form: str, wanted: ReportRange) -> dict[str, str]:
    kinds = {"json": "application/json", "csv": _CSV, "sse": "text/event-stream"}
    fields = {"Content-Type": kinds[form], "Cache-Control": "no-store", "Vary": "Accept"}
    if form == "csv":
        fields["Content-Disposition"] = headers.attachment(f"feedsvc-{wanted}.csv")
    return fields
