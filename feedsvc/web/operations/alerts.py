"""`/api/performance/alerts`: which alerts fire, and which did, for operators alone."""

from collections.abc import AsyncGenerator
from functools import partial
from typing import Any, Final, NamedTuple

import orjson
from aiohttp import web

from feedsvc.core.drain import Drain
from feedsvc.core.principal import Principal
from feedsvc.core.problems import BadParameter, BadRequest
from feedsvc.feeds import parameters
from feedsvc.operations.alerts.desk import AlertService
from feedsvc.operations.alerts.rules import seconds
from feedsvc.web.context import SERVICE, Answering
from feedsvc.web.operations.events import Event, send_events, ticks
from feedsvc.web.operations.forms import form_of, interval_of
from feedsvc.web.operations.rights import only_operators
from feedsvc.web.record import RECORD
from feedsvc.web.request_summary import stated

_PARAMETERS: Final = ("format", "interval", "ticket")
_FORMS: Final = ("json", "sse")
_TICK: Final = 1.0  # seconds between looks at whether an alert has turned
_LONGEST_REASON: Final = 500


async def alerts(request: web.Request, principal: Principal) -> Answering:
    """`GET /api/performance/alerts`."""
    only_operators(principal)
    given = parameters.parse(request.rel_url.raw_query_string)
    parameters.refuse_unknown(given, _PARAMETERS)
    form = form_of(request, given, _FORMS)
    pause = interval_of(given, form)
    if request.method == "HEAD":
        return partial(_head, form)
    desk = request.app[SERVICE].observing.alerts
    if form == "sse":
        events = _events(desk, request.app[SERVICE].drain, pause)
        return partial(send_events, request, principal, events)
    return partial(_report, desk)


async def silence(request: web.Request, principal: Principal) -> Answering:
    """`POST /api/performance/alerts/silences`: `{"alert", "for", "reason"}`."""
    only_operators(principal)
    desk = request.app[SERVICE].observing.alerts
    wanted = _wanted(await request.read(), desk)
    request[RECORD].query = stated(
        {"alert": wanted.alert, "for": f"{wanted.seconds:g}s", "reason": wanted.reason}
    )
    return partial(_silenced, desk, wanted, principal)


class _SilenceRequest(NamedTuple):
    alert: str
    seconds: float
    reason: str


async def _report(desk: AlertService) -> web.Response:
    return _json(await desk.report())


async def _silenced(
    desk: AlertService, wanted: _SilenceRequest, principal: Principal
) -> web.Response:
    return _json(await desk.silence(*wanted, principal), status=201)


async def _events(desk: AlertService, drain: Drain, pause: float) -> AsyncGenerator[Event, None]:
    """All of them now, every so many seconds, and as soon as one has turned."""
    told: Any = None
    left = 0.0
    async for _ in ticks(drain, _TICK):
        states = desk.states()
        turned = [(each["state"], each["silenced_until"]) for each in states["alerts"]]
        if turned != told or left <= 0:
            told, left = turned, pause
            yield Event("alerts", states)
        left -= _TICK


def _wanted(body: bytes, desk: AlertService) -> _SilenceRequest:
    try:
        asked = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise BadRequest("The body is not JSON.") from None
    if not isinstance(asked, dict):
        raise BadRequest("The body is not a JSON object.")
    parameters.refuse_unknown(asked, ("alert", "for", "reason"))
    alert, reason = asked.get("alert"), asked.get("reason")
    if not isinstance(alert, str) or alert not in desk.rules:
        what = f"There is no alert {alert!r}."
        raise BadParameter(what, parameter="alert", allowed=list(desk.rules))
    if not isinstance(reason, str) or not 1 <= len(reason.strip()) <= _LONGEST_REASON:
        what = f"reason must be text of 1 to {_LONGEST_REASON} characters."
        raise BadParameter(what, parameter="reason")
    if "\0" in reason or not reason.isprintable():
        raise BadParameter("reason must be printable.", parameter="reason")
    return _SilenceRequest(
        alert, parameters.read("for", asked.get("for", ""), seconds), reason.strip()
    )


async def _head(form: str) -> web.Response:
    kind = "text/event-stream" if form == "sse" else "application/json"
    return web.Response(headers={"Content-Type": kind, "Cache-Control": "no-store"})


def _json(plain: Any, status: int = 200) -> web.Response:
    return web.Response(
        status=status,
        body=orjson.dumps(plain, option=orjson.OPT_APPEND_NEWLINE),
        content_type="application/json",
        headers={"Cache-Control": "no-store", "Vary": "Accept"},
    )
