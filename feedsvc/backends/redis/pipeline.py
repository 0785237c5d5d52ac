"""One Redis over few connections that any number of questions share.

redis-py's client takes a connection out of a pool for each question, writes, waits, reads and
gives it back, which costs Python several times what Redis needs for the answer. Here questions
leave together, turn by turn of the loop, and the answers come back in their order. What a
connection is, its TLS, its handshake and the protocol stay redis-py's.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, NoPermissionError, RedisError, ResponseError

from feedsvc.backends.redis.transport import Command, settle

_PING: Final[Command] = ("PING",)
_ROLE: Final[Command] = ("ROLE",)


class PipelinedConnection:
    """One connection. It connects by itself, and is over once that or anything else fails.

    An answer is the oldest question's. A question that is given up keeps its place: the
    answer is read all the same and dropped, so that no question gets another's (CVE-2023-28858).
    """

    def __init__(self, connection: AbstractConnection, connect_timeout: float) -> None:
        self._connection = connection
        self._connect_timeout = connect_timeout
        self._loop = asyncio.get_running_loop()
        self._unsent: list[bytes] = []
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._woken: asyncio.Future[None] | None = None
        self.is_over = False
        self._living = asyncio.create_task(self._live())

    def __len__(self) -> int:
        """The number of commands that wait for an answer."""
        return len(self._waiting)

    def send(self, command: Command) -> asyncio.Future[Any]:
        """The answer to come; an error of Redis's as ResponseError, else why there is none."""
        answer: asyncio.Future[Any] = self._loop.create_future()
        self._unsent += self._connection.pack_command(*command)
        self._waiting.append(answer)
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)
        return answer

    async def close(self) -> None:
        """Close the connections; what still waits gets no answer."""
        self._living.cancel()
        await asyncio.gather(self._living, return_exceptions=True)

    async def _live(self) -> None:
        failure: Exception = RedisConnectionError("the connection was closed")
        writing: asyncio.Task[None] | None = None
        try:
            async with asyncio.timeout(self._connect_timeout):
                await self._connection.connect()  # type: ignore[no-untyped-call]
            writing = asyncio.create_task(self._write())
            writing.add_done_callback(self._stop)
            await self._read()
        except Exception as error:  # noqa: BLE001 - whatever it was, no answer comes here
            failure = error
        finally:
            self.is_over = True
            for answer in self._waiting:
                settle(answer, failure)
            if writing is not None:
                writing.cancel()
            with suppress(RedisError, OSError):
                await self._connection.disconnect()

    async def _write(self) -> None:
        while True:
            if not self._unsent:
                self._woken = self._loop.create_future()
                await self._woken
            pieces, self._unsent = self._unsent, []
            await self._connection.send_packed_command(pieces, check_health=False)

    async def _read(self) -> None:
        read, waiting = self._connection.read_response, self._waiting
        while True:
            answer: Any
            try:
                answer = await read(disconnect_on_error=False)
            except ResponseError as error:
                answer = error
            # An answer without a question is an IndexError, and the end like any other fault.
            settle(waiting.popleft(), answer)

    def _stop(self, writing: "asyncio.Task[None]") -> None:
        """A connection that can't be written to is of no use to its readers."""
        if not writing.cancelled():
            writing.exception()  # seen: the readers' own failure is reported
            self._living.cancel()


class Pipeline:
    """Connections to one server, or to whichever server is the master by its sentinels."""

    def __init__(
        self,
        connect: Callable[[], AbstractConnection],
        count: int,
        connect_timeout: float,
        *,
        only_master: bool = False,
        on_close: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        """`connect` makes a connection that is not connected yet."""
        self._connect = connect
        self._connect_timeout = connect_timeout
        self._only_master = only_master
        self._on_close = on_close
        self._lanes = [PipelinedConnection(connect(), connect_timeout) for _ in range(count)]

    def send(self, command: Command) -> asyncio.Future[Any]:
        """See `feedsvc.backends.redis.transport.Transport`."""
        return self._open(min(self._lanes, key=len)).send(command)

    async def ping(self) -> None:
        """See `feedsvc.backends.redis.transport.Transport`."""
        question = _ROLE if self._only_master else _PING
        try:
            lanes = [self._open(lane) for lane in self._lanes]
            answers = await asyncio.gather(*(lane.send(question) for lane in lanes))
        except NoPermissionError:
            return  # an answer, too
        if not all(map(_is_masters if self._only_master else _is_pong, answers)):
            raise InvalidResponse("this is no Redis, or not the master")

    async def close(self) -> None:
        """See `feedsvc.backends.redis.transport.Transport`."""
        try:
            await asyncio.gather(*(lane.close() for lane in self._lanes))
        finally:
            if self._on_close is not None:
                await self._on_close()

    def _open(self, lane: PipelinedConnection) -> PipelinedConnection:
        """The lane, or a new one in its place: servers close idle connections, which is no fault
        as long as the next one can be opened.
        """
        if lane.is_over:
            place = self._lanes.index(lane)
            lane = self._lanes[place] = PipelinedConnection(self._connect(), self._connect_timeout)
        return lane


def _is_masters(role: object) -> bool:
    return isinstance(role, list) and role[:1] == [b"master"]


def _is_pong(answer: object) -> bool:
    return answer == b"PONG"
