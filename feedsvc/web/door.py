"""Connections: who may have one, how long a request may take to arrive, and what can't be read.

All of it happens before any middleware, and for the most part before anybody has shown a token.
"""

import asyncio
import logging
from http import HTTPStatus
from typing import Any, Final, cast

import orjson
from aiohttp import web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpRequestParser, RawRequestMessage
from aiohttp.http_exceptions import LineTooLong
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import RequestHandler, _ErrInfo
from aiohttp.web_request import BaseRequest

from feedsvc.errors import (
    BadRequest,
    HeadersTooLarge,
    Internal,
    Problem,
    Unauthorized,
    Unavailable,
    UriTooLong,
)
from feedsvc.settings import Server
from feedsvc.tally import Tally
from feedsvc.web import middlewares, problems, security
from feedsvc.web.address import Crowd, CrowdedError
from feedsvc.web.shortcut import Answer, Asked, Shortcut, said_by

logger = logging.getLogger(__name__)

_END_OF_HEAD: Final = b"\r\n\r\n"
_PIPELINE: Final = 64  # requests that may wait in one connection
_MOST_KEPT_BACK: Final = 1_048_576  # bytes that may arrive while Redis is asked
_SILENCE: Final = 1.0  # seconds without a byte after which a refused client has sent its all
_MOST_DISCARDED: Final = 16_777_216  # bytes that are read behind a refusal, so that it is read
_MOST_REFUSED: Final = 128  # refused connections that get to read why, at any one time


class Door(web.Server):
    """aiohttp's server as its runner made it, with another protocol for its connections."""

    def __init__(self, made: web.Server, settings: Server, shortcut: Shortcut) -> None:
        super().__init__(
            made.request_handler,
            request_factory=made.request_factory,
            handler_cancellation=made.handler_cancellation,
            **made._kwargs,  # noqa: SLF001 - aiohttp has no other way to choose the protocol
        )
        self.settings = settings
        self.shortcut = shortcut
        self.crowd = Crowd(settings.connections_per_address, settings.trusted_proxies)
        self.refused = 0
        self.crowded = Tally("connections refused by server.connections_per_address: %d")
        self.flooded = Tally(f"connections dropped with more than {_PIPELINE} requests waiting: %d")
        self.late = Tally("connections dropped by server.header_timeout: %d")

    def __call__(self) -> RequestHandler:
        return _Connection(self, asyncio.get_running_loop(), self._kwargs)


class _Connection(RequestHandler):
    """One connection. What reaches `handle_error` has passed by every middleware."""

    __slots__ = (
        "_arriving",
        "_body_timer",
        "_discarded",
        "_discards",
        "_door",
        "_head",
        "_head_timer",
        "_is_between",
        "_is_last",
        "_is_refused",
        "_kept_back",
        "_looking",
        "_peer",
        "_token_too_long",
        "_who",
    )

    def __init__(self, door: Door, loop: asyncio.AbstractEventLoop, settings: Any) -> None:
        super().__init__(door, loop=loop, **settings)
        self._door = door
        self._allow_pipeline(loop)
        self._peer: str | None = None
        self._who: str | None = None
        self._is_refused = False
        self._looking: asyncio.Task[None] | None = None  # for a page in Redis
        self._kept_back = bytearray()  # what arrived meanwhile
        self._is_last = False  # whether an answer said that the connection ends with it
        self._head_timer: asyncio.TimerHandle | None = None
        self._body_timer: asyncio.TimerHandle | None = None
        self._arriving: StreamReader = EMPTY_PAYLOAD  # the body of the request that came last
        self._is_between = True  # whether the parser would begin a request with the next byte
        self._head = bytearray()  # the end of what has come of a head that isn't whole yet
        self._token_too_long = False
        self._discards = False  # what still comes is read and thrown away
        self._discarded = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Lets the client in, or tells it why not."""
        stream = cast("asyncio.Transport", transport)
        peer = stream.get_extra_info("peername")
        self._peer = peer[0] if peer else None
        try:
            self._who = self._door.crowd.admit(self._peer)
        except CrowdedError:
            self._refuse(stream)
            return
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Counts the client out."""
        self._clear_timers()
        if self._looking is not None:
            self._looking.cancel()
        if self._who is not None:
            self._door.crowd.leave(self._who)
            self._who = None
        if self._is_refused:
            self._door.refused -= 1
            self._is_refused = False
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Reads on, and sees to it that what has begun to arrive also ends."""
        if self._discards:
            self._discard(data)
            return
        if self._looking is not None:
            self._keep_back(data)
            return
        is_free, handler = self._is_free(), self._waiter
        whole = data if is_free and self._is_between else None
        if whole is not None and self._answer_again(whole):
            return
        before, is_body = self._request_count, not self._arriving.is_eof()
        if is_free:
            self._waiter = None  # nobody is woken for what can be answered right here
        super().data_received(data)
        if is_free:
            self._waiter = handler
        if self._request_count != before:
            self._requests_have_come(bytes(self._head) + data)
        elif data and not is_body:
            self._part_of_a_head_has_come(data)
        self._is_between = (
            self._request_count != before
            and self._arriving is EMPTY_PAYLOAD
            and data.endswith(_END_OF_HEAD)
        )
        if is_free and self._messages and not self._answer_from_cache(whole):
            self._wake_handler()

    async def finish_response(
        self, request: BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Answers; behind what could not be read it waits until the client has read the answer."""
        answered = await super().finish_response(request, resp, start_time)
        self._is_last = not resp.keep_alive
        self._door.shortcut.remember(request, resp)
        if request.content.exception() is not None:
            request.content.feed_eof()  # or aiohttp would read on, and log what that raises
        if self._discards and not self._messages:
            await self._discard_the_rest()
        return answered

    def handle_error(
        self,
        request: BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """A problem for a request that could not be parsed; nothing where a body had begun."""
        if isinstance(exc, ConnectionError) or request.writer.output_size > 0:
            raise ConnectionResetError("the connection is of no more use") from exc
        problem = self._problem(status, exc)
        given = middlewares.request_id(None)
        logger.info("%s: %d before any handler: %s", given, problem.status, type(exc).__name__)
        response = problems.answer(problem, "/", given)
        response.headers["X-Request-ID"] = given
        security.protect(response)
        response.force_close()
        return response

    def _discard(self, data: bytes) -> None:
        self._discarded += len(data)
        if self._discarded > _MOST_DISCARDED:
            self._drop()

    def _keep_back(self, data: bytes) -> None:
        self._kept_back += data
        if len(self._kept_back) > _MOST_KEPT_BACK:
            self._door.flooded.add()
            self._drop()

    def _is_free(self) -> bool:
        """Whether all requests that have come are answered, and another one may come.

        Their handler need not know yet: it may be about to wait for what has come already.
        """
        return not self._messages and not self._request_in_progress and not self._is_last

    def _answer_again(self, data: bytes) -> bool:
        """Sees to a request that is known byte by byte, without parsing it.

        Only where the parser would begin with these bytes: behind the part of a head they would
        mean something else.
        """
        shortcut = self._door.shortcut
        said = shortcut.said_before(data)
        if said is None or not self._may_write() or self._upgraded or self._payload_parser:
            return False
        asked = shortcut.ask(said, self._peer)
        answer = None if asked is None else shortcut.at_once(asked)
        if answer is None:
            return False
        self._request_count += 1
        self._clear_timers()
        self._send(answer)
        return True

    def _answer_from_cache(self, whole: bytes | None) -> bool:
        """Sees to the one request that has just come, if its handler is not needed for that.

        `whole` are its bytes, where it has come in one piece.
        """
        message, payload = self._messages[0]
        if (
            len(self._messages) > 1
            or payload is not EMPTY_PAYLOAD
            or isinstance(message, _ErrInfo)
            or not self._may_write()
        ):
            return False
        shortcut, said = self._door.shortcut, said_by(message)
        asked = None if said is None else shortcut.ask(said, self._peer)
        if said is None or asked is None:
            return False
        answer = shortcut.at_once(asked)
        if answer is not None:
            if whole is not None and whole.find(_END_OF_HEAD) == len(whole) - len(_END_OF_HEAD):
                shortcut.learn(whole, said)
            self._take_message()
            self._send(answer)
        elif shortcut.may_be_in_redis(asked):
            self._messages.clear()  # the handler may get it yet
            self._stays_alive()
            looking = self._answer_from_redis(asked, message, payload)
            self._looking = self._loop.create_task(looking)
        return not self._messages

    def _may_write(self) -> bool:
        """Whether an answer that is written now leaves at once."""
        return (
            self.transport is not None
            and not self.transport.is_closing()
            and not self.transport.get_write_buffer_size()
            and not self._close
            and not self._force_close
        )

    def _take_message(self) -> None:
        """No handler gets it."""
        self._messages.clear()
        if self._parser is not None:
            self._parser.message_consumed()

    async def _answer_from_redis(
        self, asked: Asked, message: RawRequestMessage, payload: StreamReader
    ) -> None:
        """Waits for Redis. What arrives meanwhile is kept back, for answers go out in order."""
        answer = None
        try:
            answer = await self._door.shortcut.from_redis(asked)
        except Exception:
            logger.exception("a page was not found in a way that nobody foresaw")
        self._looking = None
        if answer is None:
            self._messages.append((message, payload))
            self._wake_handler()
        else:
            self._take_message()
            self._send(answer)
        kept, self._kept_back = bytes(self._kept_back), bytearray()
        if kept:
            self.data_received(kept)

    def _send(self, answer: Answer) -> None:
        """Answers, and does for the connection's life what its handler would have done."""
        self._door.requests_count += 1
        self._stays_alive()
        if self.transport is not None:
            # One piece, for writev(2) costs more here than the copy does.
            self.transport.write(b"".join(answer))

    def _stays_alive(self) -> None:
        """Puts off the end of a connection that is not idle."""
        self._keepalive = True
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout

    def _wake_handler(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _problem(self, status: int, exc: BaseException | None) -> Problem:
        if isinstance(exc, LineTooLong):
            if self._token_too_long:
                return Unauthorized()
            limit = exc.args[1]
            if limit == self.max_line_size:
                return UriTooLong(f"The address is longer than {limit} bytes.")
            return HeadersTooLarge(f"A header is longer than {limit} bytes.")
        if status < 500:
            return BadRequest("The request is not HTTP as RFC 9112 has it.")
        return Internal("The service failed in a way that it did not foresee.")

    def _allow_pipeline(self, loop: asyncio.AbstractEventLoop) -> None:
        """Makes the parser go on until a connection has too many requests to be kept.

        aiohttp's own stops below that, and then nobody learns how many more would have come.
        """
        self._max_msg_queue_size = _PIPELINE + 1
        self._parser = HttpRequestParser(
            self,
            loop,
            self._read_bufsize,
            max_line_size=self.max_line_size,
            max_field_size=self.max_field_size,
            max_headers=self.max_headers,
            payload_exception=web.RequestPayloadError,
            max_msg_queue_size=self._max_msg_queue_size,
        )

    def _requests_have_come(self, data: bytes) -> None:
        """At least one head is whole, or could not be parsed."""
        self._clear_timers()
        self._head.clear()
        message, self._arriving = self._messages[-1]
        if len(self._messages) > _PIPELINE:
            self._door.flooded.add()
            self._drop()
        elif isinstance(message, _ErrInfo):
            self._discards = True
            if isinstance(message.exc, LineTooLong):
                self._token_too_long = _holds_long_token(data, self.max_field_size)
        elif not self._arriving.is_eof():
            self._expect_body()
        elif self._arriving is EMPTY_PAYLOAD and (begun := data.rpartition(_END_OF_HEAD)[2]):
            self._part_of_a_head_has_come(begun)

    def _part_of_a_head_has_come(self, data: bytes) -> None:
        self._head += data
        # What is too long is noticed before it is twice as long as what is allowed.
        del self._head[: -2 * self.max_field_size]
        if self._head_timer is None:
            self._expect_head()

    def _expect_head(self) -> None:
        timeout = self._door.settings.header_timeout
        self._head_timer = self._loop.call_later(timeout, self._head_is_late, self._request_count)

    def _head_is_late(self, count: int) -> None:
        self._head_timer = None
        if self._request_count != count or self.transport is None:
            return
        if self._request_in_progress or self._messages:
            self._expect_head()  # dropping the connection would break an answer off
            return
        self._door.late.add()
        self._drop()

    def _expect_body(self) -> None:
        timeout = self._door.settings.body_timeout
        self._body_timer = self._loop.call_later(timeout, self._body_is_late, self._arriving)

    def _body_is_late(self, body: StreamReader) -> None:
        self._body_timer = None
        if body.is_eof() or body.exception() is not None or self.transport is None:
            return
        if self._reading_paused or self._buffer_paused:
            self._expect_body()  # it is us who don't read
            return
        body.set_exception(middlewares.LateBodyError("the body did not arrive in time"))

    def _clear_timers(self) -> None:
        for timer in (self._head_timer, self._body_timer):
            if timer is not None:
                timer.cancel()
        self._head_timer = self._body_timer = None

    def _drop(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def _refuse(self, transport: asyncio.Transport) -> None:
        """Answers without having read anything."""
        self._door.crowded.add()
        self._discards = True
        BaseProtocol.connection_made(self, transport)
        if self._door.refused >= _MOST_REFUSED:
            transport.abort()
            return
        self._door.refused += 1
        self._is_refused = True
        transport.write(_crowded())
        _close_when_read(transport)
        self._loop.call_later(_SILENCE, transport.abort)

    async def _discard_the_rest(self) -> None:
        """Reads on for a while.

        To close a socket with unread bytes resets the connection, and the client's system may then
        lose the answer or fail the client before it looks for one.
        """
        if self.transport is None:
            return
        _close_when_read(self.transport)
        end = self._loop.time() + self._door.settings.body_timeout
        seen = -1
        while self._discarded != seen and self._loop.time() < end and self.transport is not None:
            seen = self._discarded
            await asyncio.sleep(_SILENCE)


def _holds_long_token(head: bytes, limit: int) -> bool:
    """Whether the header that is longer than the limit is the one with the token.

    The exception has nothing but the beginning of the value.
    """
    for line in head.split(b"\n"):
        name, _, value = line.partition(b":")
        if len(name) + len(value.strip()) > limit:
            return name.lower() == b"authorization"
    return False


def _crowded() -> bytes:
    """An answer as bytes, for there is no request that it could be made from."""
    problem = Unavailable("Too many connections come from this address.", retry_after=10)
    given = middlewares.request_id(None)
    body = orjson.dumps(problem.body("/", given), option=orjson.OPT_APPEND_NEWLINE)
    status = HTTPStatus(problem.status)
    fields = {
        **security.HEADERS,
        **problem.headers,
        "Cache-Control": "no-store",
        "Connection": "close",
        "Content-Length": str(len(body)),
        "Content-Type": problems.CONTENT_TYPE,
        "X-Request-ID": given,
    }
    head = [f"HTTP/1.1 {status.value} {status.phrase}", *(f"{k}: {v}" for k, v in fields.items())]
    return "\r\n".join([*head, "", ""]).encode() + body


def _close_when_read(transport: asyncio.Transport) -> None:
    """Says that nothing more will come, and goes on listening."""
    if not transport.is_closing() and transport.can_write_eof():
        transport.write_eof()
