"""The form and the interval of figures for operators."""

from collections.abc import Mapping, Sequence
from typing import Final

from aiohttp import web

from feedsvc.core.problems import BadParameter, NotAcceptable
from feedsvc.feeds import parameters
from streams import negotiation

_TYPES: Final = {"json": "application/json", "csv": "text/csv", "sse": "text/event-stream"}
_INTERVAL: Final = 5.0
_LEAST, _MOST = 1.0, 60.0


def form_of(request: web.Request, given: Mapping[str, str], forms: Sequence[str]) -> str:
    """json, csv or sse: `format`, else the best match of Accept. Raises Problem."""
    if "format" in given:
        return parameters.choice(given, "format", {name: name for name in forms}, forms[0])
    accept = ",".join(request.headers.getall("Accept", ()))
    found = negotiation.media_type(accept, {name: (_TYPES[name],) for name in forms})
    if found is None:
        raise NotAcceptable("Nothing matches Accept.", allowed=[_TYPES[name] for name in forms])
    return found


def interval_of(given: Mapping[str, str], form: str) -> float:
    """The seconds between events. Raises BadParameter."""
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
