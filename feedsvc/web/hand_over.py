"""The hand-over of a connection from its request to a subscriber."""

import asyncio
import random
from functools import partial
from typing import Final

from aiohttp import web

from feedsvc.access.limiter import Limiter
from feedsvc.core.principal import Principal
from feedsvc.core.problems import RateLimited
from feedsvc.web.context import SERVICE, Service
from feedsvc.web.live.channel import EndReason, Farewell, LiveChannel, end_event
from feedsvc.web.live.connection import SUBSCRIBER, Releasable
from feedsvc.web.live.subscriber import LiveSubscriber, SubscriberTerms
from feedsvc.web.record import RECORD

_ROTATION_SPREAD: Final = 0.2  # of `streams.rotate_after`, more and less


def prepare_head(response: web.StreamResponse) -> None:
    """Say in the head of a live answer that its connection ends with it."""
    response.force_close()
    response.headers["Connection"] = "close"


async def hand_over(
    request: web.Request,
    response: web.StreamResponse,
    channel: LiveChannel,
    farewell: Farewell = end_event,
) -> web.StreamResponse:
    """End the handler of a live answer, whose beginning was written, and keep its connection.

    The answer is chunked and not compressed. To be called last within the blocks that count the
    stream: what they count goes on until the subscriber ends. The connection is handed over when
    the request has been handled; where aiohttp's own connections serve, which can't be extended,
    the handler stays. Raises ConnectionResetError where the client is gone.
    """
    service, transport = request.app[SERVICE], request.transport
    principal = request[RECORD].principal
    if transport is None or transport.is_closing() or principal is None:
        raise ConnectionResetError("the client is gone")
    subscriber = LiveSubscriber(service.subscribers, channel, _terms(service, principal, farewell))
    if isinstance(request.protocol, Releasable):
        service.subscribers.add(subscriber, service.limits.hold(principal))
        request[SUBSCRIBER] = subscriber
    else:
        service.subscribers.add(subscriber, _count_nothing)  # the handler's blocks go on
        await _stay(request, transport, subscriber)
    return response


def _terms(service: Service, principal: Principal, farewell: Farewell) -> SubscriberTerms:
    streams, now = service.settings.streams, asyncio.get_running_loop().time()
    spread = random.uniform(-_ROTATION_SPREAD, _ROTATION_SPREAD)  # noqa: S311 - a guess gains nothing
    rotation = streams.rotate_after * (1 + spread)
    token = service.tokens.seconds_left(principal)
    then: EndReason = "token" if token <= rotation else "rotation"
    charge = partial(_charge, service.limits, principal)
    until = now + min(token, rotation)
    return SubscriberTerms(
        now, streams.ping_interval, streams.stall_timeout, until, then, farewell, charge
    )


def _charge(limits: Limiter, principal: Principal, size: int) -> bool:
    try:
        limits.charge(principal, 0, size)
    except RateLimited:
        return False
    return True


def _count_nothing() -> None:
    """Undo nothing."""


async def _stay(
    request: web.Request, transport: asyncio.Transport, subscriber: LiveSubscriber
) -> None:
    """Wait for the subscriber's end, at the price of a task and a request."""
    former, over = request.protocol, asyncio.get_running_loop().create_future()

    def close() -> None:
        if not over.done():
            over.set_result(None)
        former.connection_lost(None)  # which cancels this task

    subscriber.on_close = close
    transport.set_protocol(subscriber)
    subscriber.connection_made(transport)
    try:
        await asyncio.shield(over)
    except asyncio.CancelledError:
        if not over.done():
            subscriber.cut()
            raise
    if subscriber.reason is None:
        raise ConnectionResetError("the client is gone")
