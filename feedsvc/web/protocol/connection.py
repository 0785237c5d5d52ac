"""Connections of clients: their admission, their answers and their ends."""

import asyncio
import logging
from functools import partial
from typing import Any, Final, cast

from aiohttp import EMPTY_PAYLOAD, web
from aiohttp.http_exceptions import LineTooLong

from feedsvc.core.logs import Tally
from feedsvc.core.problems import BadRequest, HeadersTooLarge, Internal, Problem, UriTooLong
from feedsvc.web import problems, security
from feedsvc.web.client_address import TooManyConnectionsError
from feedsvc.web.live.connection import SUBSCRIBER
from feedsvc.web.live.subscriber import LiveSubscriber
from feedsvc.web.protocol.arrivals import RequestArrivals
from feedsvc.web.protocol.connection_policy import MOST_REFUSED, refusal
from feedsvc.web.protocol.states import ADMITTED, ReadEvent, State
from feedsvc.web.record import request_id

logger = logging.getLogger(__name__)

_HEAD: Final = State.HEAD
_SILENCE: Final = 1.0  # seconds without a byte after which a refused client has sent its all


class ClientConnection(RequestArrivals):
    """One connection. What reaches `handle_error` has passed by every middleware."""

    __slots__ = ("_counted_as",)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Admit the client, or answer why not."""
        self._counted_as: str | None = None
        stream = cast("asyncio.Transport", transport)
        peer = stream.get_extra_info("peername")
        policy = self._policy
        if policy.connected >= policy.most:
            self._refuse(stream, policy.full, "The service has as many connections as it may.")
            return
        try:
            self._counted_as = policy.crowd.admit(peer[0] if peer else None)
        except TooManyConnectionsError:
            self._refuse(stream, policy.crowded, "Too many connections come from this address.")
            return
        policy.connected += 1
        self._on(ReadEvent.ADMITTED)
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Count the client out."""
        before = self._state
        self._on(ReadEvent.LOST)
        self._clear_timers()
        if before in ADMITTED:
            self._policy.connected -= 1
        elif before is State.REFUSED:
            self._policy.refused -= 1
        if self._counted_as is not None:
            self._policy.crowd.leave(self._counted_as)
            self._counted_as = None
        super().connection_lost(exc)
        self._forget_requests()

    def unsent(self) -> int:
        """Bytes of answers that the kernel has not taken yet."""
        transport: Any = self.transport
        return 0 if transport is None else int(transport.get_write_buffer_size())

    def part(self) -> None:
        """End the connection if every request of it has been answered."""
        if self.transport is not None and self._has_answered_all():
            self._on(ReadEvent.ENDED)
            _close_when_read(self.transport)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Answer; behind what could not be read, wait until the client has read the answer."""
        if (subscriber := request.get(SUBSCRIBER)) is not None:
            self.release(subscriber)
            return resp, True  # as for a client that has left: nothing more is done here
        # The usual request has no body, and its connection goes on.
        is_usual = self._state is _HEAD and request.content is EMPTY_PAYLOAD
        if not is_usual and self._ends_with(request):
            self._on(ReadEvent.ENDED)
            self.forget_tail()
            resp.force_close()
        answered = await super().finish_response(request, resp, start_time)
        self._answered += 1
        if is_usual and self._state is _HEAD:
            return answered
        is_over = self._state is State.DISCARDING
        if request.content.exception() is not None or is_over:
            request.content.feed_eof()  # or aiohttp would read on, and log what that raises
        if is_over and not self.waiting:
            await self._discard_the_rest()
        return answered

    def release(self, subscriber: LiveSubscriber) -> None:
        """See `Releasable`. The client stays counted until the subscriber's connection closes."""
        transport, self.transport = self.transport, None
        if transport is None or transport.is_closing():
            self.transport = transport
            subscriber.abandon()
            return
        policy, counted_as = self._policy, self._counted_as
        self._counted_as = None
        policy.connected += 1  # for the subscriber; this one's is given back now
        subscriber.on_close = partial(policy.leave, counted_as)
        transport.set_protocol(subscriber)
        self.connection_lost(None)
        subscriber.connection_made(transport)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """A problem for a request that could not be parsed; nothing where a body had begun."""
        if isinstance(exc, ConnectionError) or request.writer.output_size > 0:
            raise ConnectionResetError("the connection is of no more use") from exc
        problem = self._problem(status, exc)
        given = request_id(None)
        logger.info("%s: %d before any handler: %s", given, problem.status, type(exc).__name__)
        response = problems.answer(problem, "/", given)
        response.headers["X-Request-ID"] = given
        security.protect(response)
        response.force_close()
        response.headers["Connection"] = "close"  # aiohttp says it for HTTP/1.1 alone
        return response

    def _forget_requests(self) -> None:
        """Drop what refers to this connection, or holds what a client has sent."""
        self._head.clear()
        self._arriving = EMPTY_PAYLOAD
        self.forget_waiting()

    def _ends_with(self, request: web.BaseRequest) -> bool:
        """Return whether nothing is read behind this request, the oldest that has no answer."""
        if self.waiting:
            return False
        if self._state in (State.LAST, State.LAST_BODY):
            return True
        return not request.content.is_eof() and self._is_too_much(request.content_length)

    def _is_too_much(self, length: int | None) -> bool:
        """Return whether a body is longer than is worth reading."""
        return length is None or length > self._policy.settings.max_body

    def _problem(self, status: int, exc: BaseException | None) -> Problem:
        if isinstance(exc, Problem):
            return exc
        if isinstance(exc, LineTooLong):
            limit = exc.args[1]
            if limit == self.max_line_size:
                return UriTooLong(f"The address is longer than {limit} bytes.")
            return HeadersTooLarge(f"A header is longer than {limit} bytes.")
        if status < 500:
            return BadRequest("The request is not HTTP as RFC 9112 has it.")
        return Internal("The service failed in a way that it did not foresee.")

    def _refuse(self, transport: asyncio.Transport, tally: Tally, why: str) -> None:
        """Answer without having read anything, if not too many are answered so already."""
        tally.add()
        self._on(ReadEvent.TURNED_AWAY)
        self._policy.refused += 1
        self.attach(transport)
        if self._policy.refused > MOST_REFUSED:
            transport.abort()
            return
        transport.write(refusal(why))
        _close_when_read(transport)
        self._event_loop.call_later(_SILENCE, transport.abort)

    async def _discard_the_rest(self) -> None:
        """Read on for a while.

        To close a socket with unread bytes resets the connection, and the client's system may then
        lose the answer or fail the client before it looks for one.
        """
        if self.transport is None:
            return
        _close_when_read(self.transport)
        loop = self._event_loop
        end = loop.time() + self._policy.settings.body_timeout
        seen = -1
        while self._discarded != seen and loop.time() < end and self.transport is not None:
            seen = self._discarded
            await asyncio.sleep(_SILENCE)


def _close_when_read(transport: asyncio.Transport) -> None:
    """Announce that nothing more will come, and go on listening."""
    if not transport.is_closing() and transport.can_write_eof():
        transport.write_eof()
