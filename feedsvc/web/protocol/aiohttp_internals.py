"""aiohttp's private names, as named operations, and their check.

No other module uses them (`tests/unit/test_private_names.py`). `fault` is called at the start;
where it finds one, aiohttp's own connections serve.
"""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import aiohttp
from aiohttp import EMPTY_PAYLOAD, StreamReader, web, web_protocol
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpRequestParser, RawRequestMessage

from feedsvc.core.problems import Problem

if TYPE_CHECKING:
    from aiohttp.web_protocol import _ErrInfo
else:  # `fault` reports it where it is absent
    _ErrInfo = getattr(web_protocol, "_ErrInfo", type(None))

ParserFault: TypeAlias = _ErrInfo
"""The reason why a request could not be parsed."""
VERSIONS: Final = ("3.14.",)
"""The beginnings of the versions that the names were read in."""
NAMES: Final = (
    "_buffer_paused", "_max_msg_queue_size", "_message_tail", "_messages", "_parser",
    "_read_bufsize", "_reading_paused", "_request_count", "_waiter",
)  # fmt: skip
"""Attributes of a connection."""

Waiting: TypeAlias = tuple[RawRequestMessage | ParserFault, StreamReader]
"""A request that has been parsed and not begun, or the reason why it can't be; and its body."""


def fault() -> str | None:
    """The reason why this aiohttp's connections can't be extended; None where they can."""
    if not aiohttp.__version__.startswith(VERSIONS):
        return f"aiohttp {aiohttp.__version__} is none of {', '.join(VERSIONS)}x"
    missing = [name for name in NAMES if not hasattr(web.RequestHandler, name)]
    missing += [] if hasattr(web_protocol, "_ErrInfo") else ["_ErrInfo"]
    return f"aiohttp {aiohttp.__version__} has no {', '.join(missing)}" if missing else None


class ExtensibleConnection(web.RequestHandler):
    """aiohttp's connection, with operations on the requests that wait in it.

    aiohttp takes them in their order; none of these operations gives an answer another place.
    """

    __slots__ = ()

    @property
    def requests_read(self) -> int:
        """The number of requests that arrived, those that could not be parsed among them."""
        return self._request_count

    @property
    def waiting(self) -> Sequence[Waiting]:
        """The requests that wait, the oldest first."""
        return self._messages

    @property
    def is_reading_paused(self) -> bool:
        """Return whether it is this side that does not read."""
        return self._reading_paused or self._buffer_paused

    def parse(self, data: bytes) -> int:
        """Parse what has come, and return how many requests have become whole by it."""
        before = self._request_count
        super().data_received(data)
        return self._request_count - before

    def parse_up_to(self, most: int, loop: asyncio.AbstractEventLoop) -> None:
        """Make the parser pause at `most` waiting requests, and inflate no body.

        aiohttp pauses at less, where a flood can't be told from a pipeline. A body that is refused
        is read as well, so it would be inflated for nothing.
        """
        self._max_msg_queue_size = most
        self._parser = HttpRequestParser(
            self,
            loop,
            self._read_bufsize,
            max_line_size=self.max_line_size,
            max_field_size=self.max_field_size,
            max_headers=self.max_headers,
            payload_exception=web.RequestPayloadError,
            auto_decompress=False,
            max_msg_queue_size=most,
        )

    def attach(self, transport: asyncio.BaseTransport) -> None:
        """Take a transport without reading requests from it."""
        BaseProtocol.connection_made(self, transport)

    def refuse_waiting(self, place: int, problem: Problem) -> None:
        """Answer one of the waiting requests with a problem, and forget those behind it."""
        self._messages[place] = _refused(problem)
        while len(self._messages) > place + 1:
            self.forget_newest()

    def refuse_next(self, problem: Problem) -> None:
        """Answer a request that has not come whole with a problem."""
        self._request_count += 1
        self._messages.append(_refused(problem))
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def forget_newest(self) -> None:
        """Forget the request that came last; it has not come, as far as can be told."""
        self._messages.pop()
        self._request_count -= 1

    def forget_waiting(self) -> None:
        """Forget all requests of a lost connection.

        Their bodies refer to it, so that all of it would wait for the cycle collector.
        """
        self._messages.clear()

    def forget_tail(self) -> None:
        """Forget what came behind an upgrade, which aiohttp would take for the next request."""
        self._message_tail = b""


def _refused(problem: Problem) -> Any:
    return ParserFault(problem.status, problem, problem.title), EMPTY_PAYLOAD
