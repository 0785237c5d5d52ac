"""Live figures of the service for operators, as server-sent events."""

import asyncio
from collections.abc import AsyncIterator, Hashable
from functools import partial
from typing import Final, NoReturn

from aiohttp import web
from aiohttp_sse import EventSourceResponse

from feedsvc.core.principal import Principal
from feedsvc.core.problems import Draining, Problem, TokenExpired
from feedsvc.web.context import REQUEST_ID, SERVICE
from feedsvc.web.hand_over import hand_over, prepare_head
from feedsvc.web.live.channel import EndReason, LastWords, end_event
from feedsvc.web.operations.series import SERIES, EventSeries, MakeEvents, SentEvent, error_event
from feedsvc.web.problems import BrokenOffError

_NEVER: Final = 86_400.0  # seconds: the pings are the subscriber's


async def send_events(
    request: web.Request, principal: Principal, key: Hashable, events: MakeEvents
) -> web.StreamResponse:
    """Send the series of this key: its newest event now, and the others as they come.

    `events` makes it where it is not computed for another already. It ends with the client, its
    token or the process. An error before the first event is a real 4xx or 5xx; later an `error`
    event has the problem, and the connection breaks off.
    """
    service = request.app[SERVICE]
    with service.subscribers.place():
        async with service.drain.running(short=False), service.limits.stream(principal):
            return await _follow(request, key, events)


async def _follow(request: web.Request, key: Hashable, events: MakeEvents) -> web.StreamResponse:
    service = request.app[SERVICE]
    series = request.app[SERIES].series(key, service.subscribers.fan_out, events)
    with series.joined():
        newest = await series.newest()
        response = await _begin(request, newest, service.settings.streams.stall_timeout)
        farewell = partial(_last_words, request.path, request[REQUEST_ID])
        return await hand_over(request, response, _Joined(series, newest), farewell)


async def ticks(pause: float) -> AsyncIterator[None]:
    """Ticks: now, and every `pause` seconds."""
    while True:
        yield
        await asyncio.sleep(pause)


class _Joined:
    """The series from the event behind one on."""

    __slots__ = ("broadcast", "catch_up", "heartbeat", "number")

    def __init__(self, series: EventSeries, newest: SentEvent) -> None:
        self.broadcast = series.broadcast
        self.number = newest.number + 1
        self.heartbeat, self.catch_up = series.heartbeat, series.catch_up


async def _begin(request: web.Request, newest: SentEvent, timeout: float) -> EventSourceResponse:
    """Send the head and the newest event.

    Without the library's own timeout, which would stay on the socket (TCP_USER_TIMEOUT), and end
    slow readers.
    """
    response = EventSourceResponse(send_timeout=None, ping_interval=_NEVER)
    prepare_head(response)
    try:
        async with asyncio.timeout(timeout):
            await response.prepare(request)
            async with response:
                await response.send(newest.text, event=newest.event)
    except TimeoutError as error:
        _cut(request, error)
    return response


def _cut(request: web.Request, error: TimeoutError) -> NoReturn:
    if request.transport is not None:
        request.transport.abort()
    raise BrokenOffError("the client has stopped reading") from error


def _last_words(path: str, request_id: str, reason: EndReason, retry_ms: int) -> LastWords:
    problem: Problem
    if reason == "token":
        problem = TokenExpired()
        return LastWords(error_event(problem, path, request_id, retry_ms), problem.name)
    if reason == "draining":
        problem = Draining("This process is stopping; another one will answer.")
        return LastWords(error_event(problem, path, request_id, retry_ms))
    return end_event(reason, retry_ms)
