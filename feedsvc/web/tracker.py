"""`/api/performance/metrics`: what happened over the last hour, day or week, for admins alone."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from functools import partial
from typing import Final, Literal, TypeAlias

import aiocsv
import orjson
from aiohttp import web

from feedsvc import parameters
from feedsvc.auth.principal import Principal
from feedsvc.drain import Drain
from feedsvc.errors import BadParameter, NotAcceptable
from feedsvc.tracker import report
from feedsvc.tracker.tracker import RANGES, Range, Tracker
from feedsvc.web import headers
from feedsvc.web.keys import SERVICE, Work
from feedsvc.web.live import Event, send_events, ticks
from feedsvc.web.rights import only_admins
from streams import negotiation

Form: TypeAlias = Literal["json", "csv", "sse"]

FORMS: Final[Mapping[Form, tuple[str, ...]]] = {
    "json": ("application/json",),
    "csv": ("text/csv",),
    "sse": ("text/event-stream",),
}
_CSV: Final = "text/csv; charset=utf-8; header=present"
_PARAMETERS: Final = ("range", "format", "interval", "ticket")
_INTERVAL: Final = 5.0
_LEAST, _MOST = 1.0, 60.0


async def metrics(request: web.Request, principal: Principal) -> Work:
    """`GET /api/performance/metrics`."""
    only_admins(principal)
    given = parameters.parse(request.rel_url.raw_query_string)
    parameters.refuse_unknown(given, _PARAMETERS)
    wanted = parameters.choice(given, "range", {name: name for name in RANGES}, "1h")
    form = form_of(request, given, FORMS)
    pause = interval_of(given, form)
    if request.method == "HEAD":
        return partial(_head, form, wanted)
    tracker = request.app[SERVICE].observing.tracker
    match form:
        case "json":
            return partial(_json, tracker, wanted)
        case "csv":
            return partial(_csv, tracker, wanted)
        case "sse":
            events = _events(tracker, wanted, request.app[SERVICE].drain, pause)
            return partial(send_events, request, principal, events)


def form_of(
    request: web.Request, given: Mapping[str, str], forms: Mapping[Form, Sequence[str]]
) -> Form:
    """What to answer with: `format`, else what Accept likes best. Raises Problem."""
    if "format" in given:
        return parameters.choice(given, "format", {name: name for name in forms}, "json")
    accept = ",".join(request.headers.getall("Accept", ()))
    found = negotiation.media_type(accept, {str(name): types for name, types in forms.items()})
    for name in forms:
        if name == found:
            return name
    raise NotAcceptable("Nothing matches Accept.", allowed=[t for ts in forms.values() for t in ts])


def interval_of(given: Mapping[str, str], form: Form) -> float:
    """Seconds between events. Raises BadParameter."""
    if "interval" not in given:
        return _INTERVAL
    if form != "sse":
        raise BadParameter("interval is for sse alone.", parameter="interval")
    return parameters.read("interval", given["interval"], _seconds)


def _seconds(text: str) -> float:
    what = f"a number of seconds from {_LEAST:g} to {_MOST:g}"
    try:
        seconds = float(text)
    except ValueError:
        raise ValueError(what) from None
    if not _LEAST <= seconds <= _MOST:
        raise ValueError(what)
    return seconds


async def _events(
    tracker: Tracker, wanted: Range, drain: Drain, pause: float
) -> AsyncGenerator[Event, None]:
    async for _ in ticks(drain, pause):
        yield Event("metrics", await tracker.report(wanted))


async def _head(form: Form, wanted: Range) -> web.Response:
    return web.Response(headers=_fields(form, wanted))


async def _json(tracker: Tracker, wanted: Range) -> web.Response:
    body = orjson.dumps(await tracker.report(wanted), option=orjson.OPT_APPEND_NEWLINE)
    return web.Response(body=body, headers=_fields("json", wanted))


async def _csv(tracker: Tracker, wanted: Range) -> web.Response:
    found = await tracker.report(wanted)
    text = _Text()
    writer = aiocsv.AsyncWriter(text)
    await writer.writerow(report.COLUMNS)
    for row in report.csv_rows(found["endpoints"]):
        await writer.writerow(row)
    return web.Response(body="".join(text.parts).encode(), headers=_fields("csv", wanted))


class _Text:
    """What aiocsv takes for a file."""

    def __init__(self) -> None:
        self.parts: list[str] = []

    async def write(self, data: str) -> None:
        self.parts.append(data)


def _fields(form: Form, wanted: Range) -> dict[str, str]:
    kinds = {"json": "application/json", "csv": _CSV, "sse": "text/event-stream"}
    fields = {"Content-Type": kinds[form], "Cache-Control": "no-store", "Vary": "Accept"}
    if form == "csv":
        fields["Content-Disposition"] = headers.attachment(f"feedsvc-{wanted}.csv")
    return fields
