"""`/api/performance/alerts`: the alerts' states and history, for operators alone."""

from collections.abc import AsyncGenerator
from functools import partial
from typing import Any, Final, NamedTuple

from aiohttp import web

from feedsvc.core.principal import Principal
from feedsvc.core.problems import BadParameter
from feedsvc.feeds import parameters
from feedsvc.operations.alerts.desk import AlertService
from feedsvc.operations.alerts.rules import seconds
from feedsvc.web.bodies import json_object, json_response
from feedsvc.web.context import SERVICE, Answering
from feedsvc.web.operations.events import send_events, ticks
from feedsvc.web.operations.forms import form_of, interval_of
from feedsvc.web.operations.rights import only_operators
from feedsvc.web.operations.series import Event
from feedsvc.web.record import RECORD
from feedsvc.web.request_summary import stated

_PARAMETERS: Final = ("format", "interval", "ticket")
_FORMS: Final = ("json", "sse")
_SILENCE_KEYS: Final = ("alert", "for", "reason")
_TICK: Final = 1.0  # seconds between looks at whether an alert has turned
_LONGEST_REASON: Final = 500


class _SilenceRequest(NamedTuple):
    alert: str
    seconds: float
    reason: str


async def parse_alerts(request: web.Request, principal: Principal) -> Answering:
    """Judge `GET /api/performance/alerts`."""
    only_operators(principal)
    given = parameters.parse(request.rel_url.raw_query_string)
    parameters.refuse_unknown(given, _PARAMETERS)
    form = form_of(request, given, _FORMS)
    pause = interval_of(given, form)
    if request.method == "HEAD":
        return partial(_head, form)
    desk = request.app[SERVICE].observing.alerts
    if form == "sse":
        events = partial(_events, desk, pause)
        return partial(send_events, request, principal, ("alerts", pause), events)
    return partial(_answer_alerts, desk)


async def _answer_alerts(desk: AlertService) -> web.Response:
    """The alerts' states and the latest events."""
    return json_response(await desk.report(), vary="Accept")


async def parse_silence(request: web.Request, principal: Principal) -> Answering:
    """Judge `POST /api/performance/alerts/silences`: `{"alert", "for", "reason"}`."""
    only_operators(principal)
    desk = request.app[SERVICE].observing.alerts
    wanted = _silence(await json_object(request, _SILENCE_KEYS), desk)
    request[RECORD].query = stated(
        {"alert": wanted.alert, "for": f"{wanted.seconds:g}s", "reason": wanted.reason}
    )
    return partial(_answer_silence, desk, wanted, principal)


async def _answer_silence(
    desk: AlertService, wanted: _SilenceRequest, principal: Principal
) -> web.Response:
    """Silence the alert, and describe it."""
    return json_response(await desk.silence(*wanted, principal), 201, vary="Accept")


async def _events(desk: AlertService, pause: float) -> AsyncGenerator[Event, None]:
    """The states now, every `pause` seconds, and as soon as one has turned."""
    sent: Any = None
    left = 0.0
    async for _ in ticks(_TICK):
        states = desk.states()
        turned = [(each["state"], each["silenced_until"]) for each in states["alerts"]]
        if turned != sent or left <= 0:
            sent, left = turned, pause
            yield Event("alerts", states)
        left -= _TICK


def _silence(given: dict[str, Any], desk: AlertService) -> _SilenceRequest:
    """Raises BadParameter."""
    alert, reason = given.get("alert"), given.get("reason")
    if not isinstance(alert, str) or alert not in desk.rules:
        what = f"There is no alert {alert!r}."
        raise BadParameter(what, parameter="alert", allowed=list(desk.rules))
    if not isinstance(reason, str) or not 1 <= len(reason.strip()) <= _LONGEST_REASON:
        what = f"reason must be text of 1 to {_LONGEST_REASON} characters."
        raise BadParameter(what, parameter="reason")
    if "\0" in reason or not reason.isprintable():
        raise BadParameter("reason must be printable.", parameter="reason")
    return _SilenceRequest(
        alert, parameters.read("for", given.get("for", ""), seconds), reason.strip()
    )


async def _head(form: str) -> web.Response:
    kind = "text/event-stream" if form == "sse" else "application/json"
    return web.Response(headers={"Content-Type": kind, "Cache-Control": "no-store"})
