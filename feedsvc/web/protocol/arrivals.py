"""Requests as they arrive: rules for their heads, bounds on their number, size and time.

All of it comes before any middleware, and before a token has been verified.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from aiohttp import EMPTY_PAYLOAD, StreamReader, web
from aiohttp.http import RawRequestMessage
from aiohttp.http_exceptions import LineTooLong

from feedsvc.core.problems import Problem, Unauthorized
from feedsvc.web.problems import LateBodyError
from feedsvc.web.protocol import head_rules
from feedsvc.web.protocol.aiohttp_internals import ExtensibleConnection, ParserFault, Waiting
from feedsvc.web.protocol.connection_policy import MOST_WAITING, ConnectionPolicy
from feedsvc.web.protocol.states import PARSES, READS_BODY, ReadEvent, State, after

# An attribute of an Enum's class takes five times as long as a module's.
_HEAD: Final = State.HEAD
_LAST: Final = State.LAST
_REQUEST_READ: Final = ReadEvent.REQUEST_READ
END_OF_HEAD: Final = b"\r\n\r\n"
_MOST_DISCARDED: Final = 16_777_216  # bytes that are read behind a refusal, so that it is read


class RequestArrivals(ExtensibleConnection):
    """The reading side of a connection. Its base puts what arrives into the order of answers."""

    __slots__ = (
        "_answered",
        "_arriving",
        "_body_timer",
        "_discarded",
        "_event_loop",
        "_head",
        "_head_size",
        "_head_timer",
        "_policy",
        "_queued",
        "_state",
    )

    def __init__(
        self,
        server: web.Server,
        policy: ConnectionPolicy,
        loop: asyncio.AbstractEventLoop,
        **limits: Any,
    ) -> None:
        """`limits` are those of aiohttp's own connections."""
        super().__init__(server, loop=loop, **limits)
        self.parse_up_to(MOST_WAITING + 1, loop)
        self._event_loop = loop
        self._policy = policy
        self._state = State.NEW
        self._answered = 0  # requests whose answer has been written
        self._head_timer: asyncio.TimerHandle | None = None
        self._body_timer: asyncio.TimerHandle | None = None
        self._arriving: StreamReader = EMPTY_PAYLOAD  # the body of the request that came last
        self._head = bytearray()  # the end of what has come of a head that isn't whole yet
        self._head_size = 0  # bytes that have come of it
        self._queued = 0  # bytes of the requests that wait, or more
        self._discarded = 0  # bytes

    @property
    def state(self) -> State:
        """The treatment of the next bytes."""
        return self._state

    def data_received(self, data: bytes) -> None:
        """Read on, one head at a time.

        Where the parser finds a mistake, it forgets all requests that it has read in the same go.
        """
        while True:
            if self._state is not _HEAD:  # as it is for nearly all requests
                if self._state in READS_BODY and self._arriving.is_eof():
                    self._on(ReadEvent.BODY_ENDED)
                if self._state not in PARSES:
                    self._discard(data)
                    return
            end = data.find(END_OF_HEAD) if self._state is _HEAD else -1
            end = len(data) if end < 0 else end + len(END_OF_HEAD)
            self._feed(data[:end])
            if end == len(data):
                return
            data = data[end:]

    def _on(self, event: ReadEvent) -> None:
        self._state = after(self._state, event)

    def _has_answered_all(self) -> bool:
        """Return whether the answer to every request that has arrived has been written.

        Both sides are counts that only rise, so no moment between two states is taken for another:
        aiohttp's `_request_in_progress` is still false for one turn of the loop after a request
        was taken from its queue (Python 3.11), and where it decided, a later request was answered
        before an earlier one of another tenant.
        """
        return self._answered == self.requests_read

    def _feed(self, data: bytes) -> None:
        """Parse what has come, and bound the time that the rest of it may take."""
        is_head = self._state is _HEAD
        if came := self.parse(data):
            whole = bytes(self._head) + data if self._head else data
            self._requests_have_come(whole, came, is_head=is_head)
        elif data and is_head:
            self._part_of_a_head_has_come(data)

    def _discard(self, data: bytes) -> None:
        self._discarded += len(data)
        if self._discarded > _MOST_DISCARDED:
            self._drop()

    def _requests_have_come(self, data: bytes, came: int, *, is_head: bool) -> None:
        """Judge the requests that have come; their heads are whole, or could not be parsed.

        With the rest of a body there may be several of them in the data, else it is one head.
        """
        self._clear_timers()
        if not is_head and not self._body_has_ended(came):
            return
        waiting = self.waiting
        self._judge(waiting, data, came, is_head=is_head)
        if self._head_size:
            self._head.clear()
            self._head_size = 0
        message, self._arriving = waiting[-1]
        if self._is_flooded(waiting, len(data)):
            self._policy.flooded.add()
            self._drop()
        elif isinstance(message, ParserFault):
            self._head_is_wrong(message, data)
        else:
            self._request_has_come(message, data)

    def _request_has_come(self, message: RawRequestMessage, data: bytes) -> None:
        """Expect what comes behind a head that breaks no rule."""
        # What follows an upgrade may be another protocol's, whatever is meant to speak it.
        is_last, body = message.upgrade, self._arriving
        if body is not EMPTY_PAYLOAD and not body.is_eof():
            self._on(ReadEvent.LAST_BODY_BEGUN if is_last else ReadEvent.BODY_BEGUN)
            self._expect_body()
            return
        self._on(ReadEvent.LAST_REQUEST_READ if is_last else _REQUEST_READ)
        if body is EMPTY_PAYLOAD and not data.endswith(END_OF_HEAD):
            self._part_of_a_head_has_come(data.rpartition(END_OF_HEAD)[2])

    def _body_has_ended(self, came: int) -> bool:
        """Return whether the requests that came behind a body, or with its end, are to be read."""
        if isinstance(self.waiting[-1][0], ParserFault) and not self._arriving.is_eof():
            self._body_is_wrong()
            return False
        self._on(ReadEvent.BODY_ENDED)
        if self._state is _LAST:
            self._forget_newest(came)
            return False
        return True

    def _forget_newest(self, came: int) -> None:
        for _ in range(came):
            self.forget_newest()

    def _head_is_wrong(self, message: ParserFault, data: bytes) -> None:
        """Read no further; a token that is too long is answered as one that is not known."""
        self._on(ReadEvent.ENDED)
        if isinstance(message.exc, LineTooLong) and head_rules.holds_long_token(
            data, self.max_field_size
        ):
            self.refuse_waiting(len(self.waiting) - 1, Unauthorized("it is too long"))

    def _body_is_wrong(self) -> None:
        """Answer the request whose body can't be parsed with that, and none behind it."""
        self._on(ReadEvent.ENDED)
        self.forget_newest()
        if self._has_answered_all():
            self._arriving.feed_eof()
        else:
            self._arriving.set_exception(web.RequestPayloadError("the body is not HTTP"))

    def _judge(self, waiting: Sequence[Waiting], data: bytes, came: int, *, is_head: bool) -> None:
        """Put a problem in the place of the first request whose head breaks a rule, and end there.

        What came behind that one is forgotten, for its connection ends with the answer.
        """
        for place in range(len(waiting) - came, len(waiting)):
            problem = self._fault(waiting[place], data, is_head=is_head and came == 1)
            if problem is not None:
                self.refuse_waiting(place, problem)
                return

    def _fault(self, came: Waiting, data: bytes, *, is_head: bool) -> Problem | None:
        """The problem of one head that has come; `is_head` where the data are nothing else."""
        message, body = came
        if isinstance(message, ParserFault):
            return None
        policy, has_body = self._policy, body is not EMPTY_PAYLOAD
        most = policy.max_head
        if self._head_size + len(data) > most and head_rules.size(message) > most:
            return head_rules.too_large(most)
        problem = head_rules.fault(message, policy.settings, has_body=has_body)
        if problem is None and is_head and len(self._head) == self._head_size:
            return head_rules.fault_of_the_line(data)
        return problem

    def _is_flooded(self, waiting: Sequence[Waiting], size: int) -> bool:
        """Return whether more waits in this connection than may; `size` bytes came last."""
        if len(waiting) > MOST_WAITING:
            return True
        self._queued = size if len(waiting) == 1 else self._queued + size
        most = self._policy.settings.max_pipelined
        if self._queued > most:  # but some may have been answered meanwhile
            heads = (message for message, _ in waiting if not isinstance(message, ParserFault))
            self._queued = sum(map(head_rules.size, heads))
        return self._queued > most

    def _part_of_a_head_has_come(self, data: bytes) -> None:
        self._head += data
        self._head_size += len(data)
        # What is too long is noticed before it is twice as long as what is allowed.
        del self._head[: -2 * self.max_field_size]
        if self._head_size > self._policy.max_head:
            self._refuse_head()
        elif self._head_timer is None:
            self._expect_head()

    def _refuse_head(self) -> None:
        """Answer a head that is too long before the rest of it has come."""
        self._clear_timers()
        self._head.clear()
        self._on(ReadEvent.ENDED)
        self.refuse_next(head_rules.too_large(self._policy.max_head))

    def _expect_head(self) -> None:
        timeout = self._policy.settings.header_timeout
        count = self.requests_read
        self._head_timer = self._event_loop.call_later(timeout, self._head_is_late, count)

    def _head_is_late(self, count: int) -> None:
        self._head_timer = None
        if self.requests_read != count or self.transport is None:
            return
        if not self._has_answered_all():
            self._expect_head()  # dropping the connection would break an answer off
            return
        self._policy.late.add()
        self._drop()

    def _expect_body(self) -> None:
        timeout, body = self._policy.settings.body_timeout, self._arriving
        self._body_timer = self._event_loop.call_later(timeout, self._body_is_late, body)

    def _body_is_late(self, body: StreamReader) -> None:
        self._body_timer = None
        if body.is_eof() or body.exception() is not None or self.transport is None:
            return
        if self.is_reading_paused:
            self._expect_body()
            return
        body.set_exception(LateBodyError("the body did not arrive in time"))

    def _clear_timers(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        if self._body_timer is not None:
            self._body_timer.cancel()
            self._body_timer = None

    def _drop(self) -> None:
        self._on(ReadEvent.ENDED)
        if self.transport is not None:
            self.transport.abort()
