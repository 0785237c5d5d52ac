"""Reports of a range of time, for operators alone: as JSON, as CSV, or as live events."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import aiocsv
from aiohttp import web

from feedsvc.core.principal import Principal
from feedsvc.feeds import parameters
from feedsvc.operations.performance.tracker import RANGES, ReportRange
from feedsvc.web import headers
from feedsvc.web.bodies import json_response
from feedsvc.web.context import SERVICE, Answering, Service
from feedsvc.web.operations.events import send_events, ticks
from feedsvc.web.operations.forms import form_of, interval_of
from feedsvc.web.operations.rights import only_operators
from feedsvc.web.operations.series import Event

_FORMS: Final = ("json", "csv", "sse")
_CSV: Final = "text/csv; charset=utf-8; header=present"
_PARAMETERS: Final = ("range", "format", "interval", "ticket")


@dataclass(frozen=True, slots=True)
class RangeReport:
    """A report: its name in events, the beginning of its file's name, and its figures."""

    name: str
    file: str
    read: Callable[[Service, ReportRange], Awaitable[dict[str, Any]]]
    columns: Sequence[str]
    rows: Callable[[dict[str, Any]], Iterable[Sequence[Any]]]
    """Records of CSV, each with `columns`."""

    def judge(self, request: web.Request, principal: Principal) -> Answering:
        """Judge a GET of it."""
        only_operators(principal)
        given = parameters.parse(request.rel_url.raw_query_string)
        parameters.refuse_unknown(given, _PARAMETERS)
        wanted = parameters.choice(given, "range", {name: name for name in RANGES}, "1h")
        form = form_of(request, given, _FORMS)
        pause = interval_of(given, form)
        if request.method == "HEAD":
            return partial(self._head, form, wanted)
        service = request.app[SERVICE]
        if form == "sse":
            events = partial(self._events, service, wanted, pause)
            return partial(send_events, request, principal, (self.name, wanted, pause), events)
        return partial(self._csv if form == "csv" else self._json, service, wanted)

    async def _events(
        self, service: Service, wanted: ReportRange, pause: float
    ) -> AsyncGenerator[Event, None]:
        async for _ in ticks(pause):
            yield Event(self.name, await self.read(service, wanted))

    async def _head(self, form: str, wanted: ReportRange) -> web.Response:
        return web.Response(headers=self._fields(form, wanted))

    async def _json(self, service: Service, wanted: ReportRange) -> web.Response:
        return json_response(await self.read(service, wanted), vary="Accept")

    async def _csv(self, service: Service, wanted: ReportRange) -> web.Response:
        found = await self.read(service, wanted)
        text = _CsvBuffer()
        writer = aiocsv.AsyncWriter(text)
        await writer.writerow(self.columns)
        for row in self.rows(found):
            await writer.writerow(row)
        return web.Response(body="".join(text.parts).encode(), headers=self._fields("csv", wanted))

    def _fields(self, form: str, wanted: ReportRange) -> dict[str, str]:
        kinds = {"json": "application/json", "csv": _CSV, "sse": "text/event-stream"}
        fields = {"Content-Type": kinds[form], "Cache-Control": "no-store", "Vary": "Accept"}
        if form == "csv":
            fields["Content-Disposition"] = headers.attachment(f"{self.file}-{wanted}.csv")
        return fields


class _CsvBuffer:
    """A file for aiocsv, in memory."""

    def __init__(self) -> None:
        self.parts: list[str] = []

    async def write(self, data: str) -> None:
        self.parts.append(data)
