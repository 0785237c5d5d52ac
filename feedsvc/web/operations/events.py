"""Live figures of the service for operators, as server-sent events."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, Final, NamedTuple, NoReturn

import orjson
from aiohttp import web
from aiohttp_sse import EventSourceResponse, sse_response

from feedsvc.backends.postgres.faults import problem_of
from feedsvc.core.drain import Drain, retry_ms
from feedsvc.core.principal import Principal
from feedsvc.core.problems import Draining, Problem, TokenExpired
from feedsvc.web.context import REQUEST_ID, SERVICE
from feedsvc.web.problems import BrokenOffError
from feedsvc.web.record import RECORD

logger = logging.getLogger(__name__)

_LOOK_EVERY: Final = 0.5  # seconds between looks at whether the process stops
_LAST_WORDS: Final = 1.0  # seconds that the reason for an end gets to be sent


class Event(NamedTuple):
    """An event whose data is sent as JSON."""

    event: str
    data: Any


async def send_events(
    request: web.Request, principal: Principal, events: AsyncGenerator[Event, None]
) -> web.StreamResponse:
    """Send events as they come, until the client leaves, its token expires or they end.

    They are to end when the process stops. What fails before the first event is a real 4xx or
    5xx; later an `error` event has the problem, and the connection breaks off.
    """
    service = request.app[SERVICE]
    timeout, ping = (
        service.settings.streams.stall_timeout,
        service.settings.streams.ping_interval,
    )
    response: EventSourceResponse | None = None
    try:
        async with (
            service.drain.running(short=False) as running,
            service.limits.stream(principal),
        ):
            running.interrupt_at(service.tokens.seconds_left(principal), TokenExpired())
            async with aclosing(events):
                first = await anext(events)
                async with sse_response(
                    request, send_timeout=timeout, ping_interval=ping
                ) as response:
                    await _send(response, first)
                    async for event in events:
                        await _send(response, event)
                    await _send_draining(request, response)
            return response
    except Exception as error:
        if response is None or not response.prepared:
            raise
        await _break_off(request, response, error)


async def ticks(drain: Drain, pause: float) -> AsyncIterator[None]:
    """Ticks: now, and every `pause` seconds, until the process stops."""
    loop = asyncio.get_running_loop()
    while not drain.begun:
        yield
        until = loop.time() + pause
        while not drain.begun and loop.time() < until:  # noqa: ASYNC110 - a drain has no event
            await asyncio.sleep(min(_LOOK_EVERY, max(0.0, until - loop.time())))


async def _send(response: EventSourceResponse, event: Event) -> None:
    await response.send(orjson.dumps(event.data).decode(), event=event.event)


async def _break_off(
    request: web.Request, response: EventSourceResponse, error: Exception
) -> NoReturn:
    """Raises BrokenOffError, which ends the connection without the final chunk."""
    if not isinstance(error, (ConnectionResetError, TimeoutError)):
        problem = problem_of(error)
        if not isinstance(error, Problem):
            logger.warning("%s: broken off", request[REQUEST_ID], exc_info=error)
        request[RECORD].problem = problem
        try:
            await _send_problem(request, response, problem)
        except (OSError, RuntimeError):
            logger.info("%s: the client is gone", request[REQUEST_ID])
    raise BrokenOffError("broken off") from error


async def _send_draining(request: web.Request, response: EventSourceResponse) -> None:
    stopping = Draining("This process is stopping; another one will answer.")
    await _send_problem(request, response, stopping)


async def _send_problem(
    request: web.Request, response: EventSourceResponse, problem: Problem
) -> None:
    data = orjson.dumps(problem.body(request.path, request[REQUEST_ID])).decode()
    async with asyncio.timeout(_LAST_WORDS):
        await response.send(data, event="error", retry=retry_ms())
