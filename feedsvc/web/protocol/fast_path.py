"""Requests that are answered where they arrive: by a shortcut, without a task or a handler."""

import asyncio
import logging
from typing import Any

from aiohttp import web
from aiohttp.http import RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import _ErrInfo
from aiohttp.web_request import BaseRequest

from feedsvc.web.protocol.connection import END_OF_HEAD, ClientConnection
from feedsvc.web.protocol.connection_policy import ConnectionPolicy
from feedsvc.web.protocol.page_answers import FastRequest, FinishedAnswer, PageAnswers, said_by

logger = logging.getLogger(__name__)


class FastPathConnection(ClientConnection):
    """A connection whose requests need no handler if the shortcut has the answer.

    Answers leave in the order of their requests: whatever is still to be answered keeps the next
    request from being answered here.
    """

    __slots__ = ("_is_between", "_is_last", "_kept_back", "_looking", "_shortcut")

    def __init__(
        self,
        server: web.Server,
        keeper: ConnectionPolicy,
        shortcut: PageAnswers,
        loop: asyncio.AbstractEventLoop,
        settings: Any,
    ) -> None:
        super().__init__(server, keeper, loop, settings)
        self._shortcut = shortcut
        self._looking: asyncio.Task[None] | None = None  # for a page in Redis
        self._kept_back = bytearray()  # what arrived meanwhile
        self._is_last = False  # whether an answer said that the connection ends with it
        self._is_between = True  # whether the parser would begin a request with the next byte

    def connection_lost(self, exc: BaseException | None) -> None:
        """Stops looking for an answer that nobody would get."""
        if self._looking is not None:
            self._looking.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Reads on, and answers what it can; a handler is woken for all else."""
        if self._looking is not None:
            self._keep_back(data)
            return
        is_free, handler = self._is_free(), self._waiter
        whole = data if is_free and self._is_between else None
        if whole is not None and self._answer_again(whole):
            return
        before = self._request_count
        if is_free:
            self._waiter = None  # nobody is woken for what can be answered right here
        super().data_received(data)
        if is_free:
            self._waiter = handler
        self._is_between = (
            self._request_count != before
            and self._arriving is EMPTY_PAYLOAD
            and data.endswith(END_OF_HEAD)
        )
        if is_free and self._messages and not self._answer_from_cache(whole):
            self._wake_handler()

    async def finish_response(
        self, request: BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Answers, and remembers what may be answered here the next time."""
        answered = await super().finish_response(request, resp, start_time)
        self._is_last = not resp.keep_alive
        self._shortcut.remember(request, resp)
        return answered

    def _keep_back(self, data: bytes) -> None:
        self._kept_back += data
        if len(self._kept_back) > self._keeper.settings.max_pipelined:
            self._keeper.flooded.add()
            self._drop()

    def _is_free(self) -> bool:
        """Tell whether every earlier request is answered, and another one may come.

        Their handler need not know yet: it may be about to wait for what has come already.
        """
        return self._has_answered_all() and not (self._is_last or self._discards)

    def _answer_again(self, data: bytes) -> bool:
        """Sees to a request that is known byte by byte, without parsing it.

        Only where the parser would begin with these bytes: behind the part of a head they would
        mean something else.
        """
        shortcut = self._shortcut
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
        shortcut, said = self._shortcut, said_by(message)
        asked = None if said is None else shortcut.ask(said, self._peer)
        if said is None or asked is None:
            return False
        answer = shortcut.at_once(asked)
        if answer is not None:
            if whole is not None and whole.find(END_OF_HEAD) == len(whole) - len(END_OF_HEAD):
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
        self, asked: FastRequest, message: RawRequestMessage, payload: StreamReader
    ) -> None:
        """Waits for Redis. What arrives meanwhile is kept back, for answers go out in order."""
        answer = None
        try:
            answer = await self._shortcut.from_redis(asked)
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

    def _send(self, answer: FinishedAnswer) -> None:
        """Answers, and does for the connection's life what its handler would have done."""
        if self._manager is None or self.transport is None:
            return  # it was lost
        self._manager.requests_count += 1
        self._answered += 1
        self._stays_alive()
        # One piece, for writev(2) costs more here than the copy does.
        self.transport.write(b"".join(answer))

    def _stays_alive(self) -> None:
        """Puts off the end of a connection that is not idle."""
        self._keepalive = True
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout

    def _wake_handler(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
