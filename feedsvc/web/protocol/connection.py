"""Connections: who may have one, how long a request may take to arrive, and what can't be read.

All of it happens before any middleware, and for the most part before anybody has shown a token.
"""

import asyncio
import logging
from typing import Any, Final, cast

from aiohttp import web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpRequestParser
from aiohttp.http_exceptions import LineTooLong
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import RequestHandler, _ErrInfo
from aiohttp.web_request import BaseRequest

from feedsvc.core.logs import Tally
from feedsvc.core.problems import (
    BadRequest,
    HeadersTooLarge,
    Internal,
    Problem,
    Unauthorized,
    UriTooLong,
)
from feedsvc.web import problems, security
from feedsvc.web.client_address import TooManyConnectionsError
from feedsvc.web.problems import LateBodyError
from feedsvc.web.protocol import head_rules
from feedsvc.web.protocol.connection_policy import (
    MOST_REFUSED,
    MOST_WAITING,
    ConnectionPolicy,
    refusal,
)
from feedsvc.web.record import request_id

logger = logging.getLogger(__name__)

END_OF_HEAD: Final = b"\r\n\r\n"
_SILENCE: Final = 1.0  # seconds without a byte after which a refused client has sent its all
_MOST_DISCARDED: Final = 16_777_216  # bytes that are read behind a refusal, so that it is read


class ClientConnection(RequestHandler):
    """One connection. What reaches `handle_error` has passed by every middleware."""

    __slots__ = (
        "_answered",
        "_arriving",
        "_body_timer",
        "_discarded",
        "_discards",
        "_ends",
        "_head",
        "_head_size",
        "_head_timer",
        "_is_admitted",
        "_is_refused",
        "_keeper",
        "_peer",
        "_queued",
        "_token_too_long",
        "_who",
    )

    def __init__(
        self,
        server: web.Server,
        keeper: ConnectionPolicy,
        loop: asyncio.AbstractEventLoop,
        settings: Any,
    ) -> None:
        super().__init__(server, loop=loop, **settings)
        self._keeper = keeper
        self._allow_pipeline(loop)
        self._answered = 0  # requests whose answer has been written
        self._peer: str | None = None
        self._who: str | None = None
        self._is_admitted = False
        self._is_refused = False
        self._head_timer: asyncio.TimerHandle | None = None
        self._body_timer: asyncio.TimerHandle | None = None
        self._arriving: StreamReader = EMPTY_PAYLOAD  # the body of the request that came last
        self._head = bytearray()  # the end of what has come of a head that isn't whole yet
        self._head_size = 0  # bytes that have come of it
        self._queued = 0  # bytes of the requests that wait, or more
        self._ends = False  # no request is read behind the one that came last
        self._token_too_long = False
        self._discards = False  # what still comes is read and thrown away
        self._discarded = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Lets the client in, or tells it why not."""
        stream = cast("asyncio.Transport", transport)
        peer = stream.get_extra_info("peername")
        self._peer = peer[0] if peer else None
        keeper = self._keeper
        if keeper.connected >= keeper.most:
            self._refuse(stream, keeper.full, "The service has as many connections as it may.")
            return
        try:
            self._who = keeper.crowd.admit(self._peer)
        except TooManyConnectionsError:
            self._refuse(stream, keeper.crowded, "Too many connections come from this address.")
            return
        keeper.connected += 1
        self._is_admitted = True
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Counts the client out."""
        self._clear_timers()
        if self._who is not None:
            self._keeper.crowd.leave(self._who)
            self._who = None
        if self._is_admitted:
            self._keeper.connected -= 1
            self._is_admitted = False
        if self._is_refused:
            self._keeper.refused -= 1
            self._is_refused = False
        is_over = self._manager is not None and self._manager.handler_cancellation
        super().connection_lost(exc)
        self._head.clear()
        self._arriving = EMPTY_PAYLOAD
        if is_over:  # else aiohttp would look for a request that it has been promised
            # Bodies refer to their connection: what waits would wait for the cycle collector.
            self._messages.clear()

    def data_received(self, data: bytes) -> None:
        """Read on, one head at a time.

        Where the parser finds a mistake, it forgets all requests that it has read in the same go.
        """
        while True:
            if self._discards or (self._ends and self._arriving.is_eof()):
                self._discard(data)
                return
            end = self._end_of_head(data)
            self._feed(data[:end])
            if end == len(data):
                return
            data = data[end:]

    def unsent(self) -> int:
        """Bytes of answers that the kernel has not taken yet."""
        transport: Any = self.transport
        return 0 if transport is None else int(transport.get_write_buffer_size())

    def part(self) -> None:
        """End the connection if every request of it has been answered."""
        if self.transport is not None and self._has_answered_all():
            self._discards = True
            _close_when_read(self.transport)

    async def finish_response(
        self, request: BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Answers; behind what could not be read it waits until the client has read the answer."""
        if self._leaves_too_much(request) or (self._ends and not self._messages):
            self._discards = True
            self._message_tail = b""  # aiohttp would take it for the next request
            resp.force_close()
        answered = await super().finish_response(request, resp, start_time)
        self._answered += 1
        if request.content.exception() is not None or self._discards:
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
        given = request_id(None)
        logger.info("%s: %d before any handler: %s", given, problem.status, type(exc).__name__)
        response = problems.answer(problem, "/", given)
        response.headers["X-Request-ID"] = given
        security.protect(response)
        response.force_close()
        response.headers["Connection"] = "close"  # aiohttp says it for HTTP/1.1 alone
        return response

    def _has_answered_all(self) -> bool:
        """Tell whether the answer to every request that has arrived has been written.

        Both sides are counts that only rise, so no moment between two states is taken for another:
        aiohttp's `_request_in_progress` is still false for one turn of the loop after a request
        was taken from its queue (Python 3.11), and where it decided, a later request was answered
        before an earlier one of another tenant.
        """
        return self._answered == self._request_count

    def _leaves_too_much(self, request: BaseRequest) -> bool:
        """Tell whether more of the body is still to come than is worth reading."""
        if request.content.is_eof() or self._messages:
            return False
        length = request.content_length
        return length is None or length > self._keeper.settings.max_body

    def _end_of_head(self, data: bytes) -> int:
        """Where a head may end in the data; their length where none does, or a body is read."""
        end = data.find(END_OF_HEAD) if self._arriving.is_eof() else -1
        return len(data) if end < 0 else end + len(END_OF_HEAD)

    def _feed(self, data: bytes) -> None:
        """Parse what has come, and see to it that what has begun to arrive also ends."""
        before, is_body = self._request_count, not self._arriving.is_eof()
        super().data_received(data)
        if came := self._request_count - before:
            self._requests_have_come(bytes(self._head) + data, came, is_head=not is_body)
        elif data and not is_body:
            self._part_of_a_head_has_come(data)

    def _discard(self, data: bytes) -> None:
        self._discarded += len(data)
        if self._discarded > _MOST_DISCARDED:
            self._drop()

    def _problem(self, status: int, exc: BaseException | None) -> Problem:
        if isinstance(exc, Problem):
            return exc
        if isinstance(exc, LineTooLong):
            if self._token_too_long:
                return Unauthorized("it is too long")
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
        self._max_msg_queue_size = MOST_WAITING + 1
        self._parser = HttpRequestParser(
            self,
            loop,
            self._read_bufsize,
            max_line_size=self.max_line_size,
            max_field_size=self.max_field_size,
            max_headers=self.max_headers,
            payload_exception=web.RequestPayloadError,
            # A body that is refused is read as well, so none of them may be inflated.
            auto_decompress=False,
            max_msg_queue_size=self._max_msg_queue_size,
        )

    def _requests_have_come(self, data: bytes, came: int, *, is_head: bool) -> None:
        """Judge the requests that have come; their heads are whole, or could not be parsed.

        With the rest of a body there may be several of them in the data, else it is one head.
        """
        self._clear_timers()
        if isinstance(self._messages[-1][0], _ErrInfo) and not self._arriving.is_eof():
            self._body_is_wrong()
            return
        self._judge(data, came, is_head=is_head)
        self._head.clear()
        self._head_size = 0
        message, self._arriving = self._messages[-1]
        if self._is_flooded(len(data)):
            self._keeper.flooded.add()
            self._drop()
        elif isinstance(message, _ErrInfo):
            self._discards = True
            if isinstance(message.exc, LineTooLong):
                self._token_too_long = head_rules.holds_long_token(data, self.max_field_size)
        else:
            # What follows an upgrade may be another protocol's, whoever is meant to speak it.
            self._ends = message.upgrade
            if not self._arriving.is_eof():
                self._expect_body()
            elif self._arriving is EMPTY_PAYLOAD and (begun := data.rpartition(END_OF_HEAD)[2]):
                self._part_of_a_head_has_come(begun)

    def _body_is_wrong(self) -> None:
        """Let the request whose body can't be parsed be the one that is answered with that."""
        self._discards = True
        self._messages.pop()
        self._request_count -= 1
        if self._has_answered_all():
            self._arriving.feed_eof()
        else:
            self._arriving.set_exception(web.RequestPayloadError("the body is not HTTP"))

    def _judge(self, data: bytes, came: int, *, is_head: bool) -> None:
        """Put a problem in the place of the first request whose head breaks a rule, and end there.

        What came behind that one is forgotten, for its connection ends with the answer.
        """
        first = len(self._messages) - came
        for place in range(first, len(self._messages)):
            problem = self._fault(place, data, is_head=is_head and came == 1)
            if problem is not None:
                self._messages[place] = _refused(problem)
                while len(self._messages) > place + 1:
                    self._messages.pop()
                    self._request_count -= 1
                return

    def _fault(self, place: int, data: bytes, *, is_head: bool) -> Problem | None:
        """The problem of one head that has come; `is_head` where the data are nothing else."""
        message, body = self._messages[place]
        if isinstance(message, _ErrInfo):
            return None
        most, has_body = self._keeper.max_head, body is not EMPTY_PAYLOAD
        if self._head_size + len(data) > most and head_rules.size(message) > most:
            return head_rules.too_large(most)
        problem = head_rules.fault(message, self._keeper.settings, has_body=has_body)
        if problem is None and is_head and len(self._head) == self._head_size:
            return head_rules.fault_of_the_line(data)
        return problem

    def _is_flooded(self, size: int) -> bool:
        """Tell whether more waits in this connection than may; `size` bytes came last."""
        if len(self._messages) > MOST_WAITING:
            return True
        self._queued = size if len(self._messages) == 1 else self._queued + size
        most = self._keeper.settings.max_pipelined
        if self._queued > most:  # but some may have been answered meanwhile
            waiting = (
                message for message, _ in self._messages if not isinstance(message, _ErrInfo)
            )
            self._queued = sum(map(head_rules.size, waiting))
        return self._queued > most

    def _part_of_a_head_has_come(self, data: bytes) -> None:
        self._head += data
        self._head_size += len(data)
        # What is too long is noticed before it is twice as long as what is allowed.
        del self._head[: -2 * self.max_field_size]
        if self._head_size > self._keeper.max_head:
            self._refuse_head()
        elif self._head_timer is None:
            self._expect_head()

    def _refuse_head(self) -> None:
        """Answer a head that is too long before the rest of it has come."""
        self._clear_timers()
        self._head.clear()
        self._discards = True
        self._request_count += 1
        self._messages.append(_refused(head_rules.too_large(self._keeper.max_head)))
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _expect_head(self) -> None:
        timeout = self._keeper.settings.header_timeout
        self._head_timer = self._loop.call_later(timeout, self._head_is_late, self._request_count)

    def _head_is_late(self, count: int) -> None:
        self._head_timer = None
        if self._request_count != count or self.transport is None:
            return
        if not self._has_answered_all():
            self._expect_head()  # dropping the connection would break an answer off
            return
        self._keeper.late.add()
        self._drop()

    def _expect_body(self) -> None:
        timeout = self._keeper.settings.body_timeout
        self._body_timer = self._loop.call_later(timeout, self._body_is_late, self._arriving)

    def _body_is_late(self, body: StreamReader) -> None:
        self._body_timer = None
        if body.is_eof() or body.exception() is not None or self.transport is None:
            return
        if self._reading_paused or self._buffer_paused:
            self._expect_body()  # it is us who don't read
            return
        body.set_exception(LateBodyError("the body did not arrive in time"))

    def _clear_timers(self) -> None:
        for timer in (self._head_timer, self._body_timer):
            if timer is not None:
                timer.cancel()
        self._head_timer = self._body_timer = None

    def _drop(self) -> None:
        self._discards = True
        if self.transport is not None:
            self.transport.abort()

    def _refuse(self, transport: asyncio.Transport, tally: Tally, why: str) -> None:
        """Answer without having read anything."""
        tally.add()
        self._discards = True
        BaseProtocol.connection_made(self, transport)
        if self._keeper.refused >= MOST_REFUSED:
            transport.abort()
            return
        self._keeper.refused += 1
        self._is_refused = True
        transport.write(refusal(why))
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
        end = self._loop.time() + self._keeper.settings.body_timeout
        seen = -1
        while self._discarded != seen and self._loop.time() < end and self.transport is not None:
            seen = self._discarded
            await asyncio.sleep(_SILENCE)


def _refused(problem: Problem) -> tuple[_ErrInfo, StreamReader]:
    """A message that is answered with the problem."""
    return _ErrInfo(problem.status, problem, problem.title), EMPTY_PAYLOAD


def _close_when_read(transport: asyncio.Transport) -> None:
    """Says that nothing more will come, and goes on listening."""
    if not transport.is_closing() and transport.can_write_eof():
        transport.write_eof()
