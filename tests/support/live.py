"""A server in this process whose one feed is a broadcast that a test publishes to.

All is the service's own but PostgreSQL: connections, middlewares, limits, the drain, the hand-over.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import uvloop
from aiohttp import web

from feedsvc.access.limiter import Limiter
from feedsvc.core.broadcast import Broadcast
from feedsvc.core.drain import Drain
from feedsvc.core.events import LiveBehind, LiveEnded, Observers, RequestEnded
from feedsvc.core.principal import Principal
from feedsvc.settings import Limits, Queries, Server, Streams, Tracing
from feedsvc.web import middleware
from feedsvc.web.context import SERVICE, SHORTAGES, Service
from feedsvc.web.hand_over import hand_over, prepare_head
from feedsvc.web.live.registry import SubscriberRegistry
from feedsvc.web.protocol.server import FeedServer
from feedsvc.web.record import RECORD

if TYPE_CHECKING:
    from feedsvc.web.live.channel import LiveChannel

LOOPS = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}
PRINCIPAL = Principal("rosewood", "member", None, 4e9)
PATHS = ("/live", "/page", "/measure", "/aiohttp-sse")
"""The paths that a world may have; those that `routes` lacks fail."""
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Channel:
    """The broadcast from its present end on; a heartbeat's id is the number of the next event."""

    def __init__(self, world: LiveWorld) -> None:
        self.world = world
        self.broadcast = world.broadcast
        self.number = world.broadcast.next

    def heartbeat(self) -> bytes:
        self.world.beats += 1
        return b"event: sync\nid: %d\ndata: {}\n\n" % self.broadcast.next

    async def catch_up(self, number: int) -> tuple[Sequence[bytes], int]:
        self.world.caught_up.append(number)
        await self.world.may_catch_up.wait()
        return await self.world.catch_up(number)


class LiveWorld:
    """The server, its broadcast, and what its observers were notified of."""

    def __init__(self, streams: Streams, limits: Limits) -> None:
        self.observers = Observers()
        self.drain = Drain()
        self.subscribers = SubscriberRegistry(streams, self.observers, self.drain)
        self.limits = Limiter(limits, None, 1)
        self.broadcast = Broadcast(self.subscribers.fan_out)
        self.token_seconds = 3_600.0
        self.ended: list[RequestEnded] = []
        self.reasons: list[str] = []
        self.behind = 0
        self.beats = 0
        self.caught_up: list[int] = []
        self.may_catch_up = asyncio.Event()
        self.may_catch_up.set()
        self.beginning = b"event: open\nid: 0\ndata: {}\n\n"
        self.before_hand_over: Callable[[web.Request], None] | None = None
        self.behind_hand_over: Callable[[], Awaitable[None]] | None = None
        self.server: web.Server | None = None
        self.url = ("127.0.0.1", 0)
        self.observers.add(RequestEnded, self.ended.append)
        self.observers.add(LiveEnded, lambda event: self.reasons.append(event.reason))
        self.observers.add(LiveBehind, self._count_behind)
        self.streams = streams
        self.routes: dict[str, Handler] = {"/live": self.answer, "/page": _page}

    def service(self) -> Service:
        """What handlers and middlewares see of the service."""
        tokens = SimpleNamespace(seconds_left=lambda _: self.token_seconds)
        server = Server(connections_per_address=100_000)
        settings = SimpleNamespace(
            streams=self.streams, server=server, queries=Queries(), tracing=Tracing()
        )
        made = SimpleNamespace(
            settings=settings, tokens=tokens, drain=self.drain, limits=self.limits,
            observers=self.observers, subscribers=self.subscribers,
        )  # fmt: skip
        return cast("Service", made)

    async def catch_up(self, number: int) -> tuple[Sequence[bytes], int]:
        """The net events of a subscriber that fell behind the ring; a test may put another here."""
        return [b"event: change\nid: net\ndata: {}\n\n"], self.broadcast.next

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """A live answer: a beginning, then the hand-over."""
        request[RECORD].principal = PRINCIPAL
        with self.subscribers.place():
            made = await self._begin(request)
        if self.behind_hand_over is not None:
            await self.behind_hand_over()
        return made

    async def _begin(self, request: web.Request) -> web.StreamResponse:
        async with self.drain.running(short=False), self.limits.stream(PRINCIPAL):
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            response.enable_chunked_encoding()
            prepare_head(response)
            await response.prepare(request)
            await response.write(self.beginning)
            if self.before_hand_over is not None:
                self.before_hand_over(request)
            return await hand_over(request, response, self.channel())

    def channel(self) -> LiveChannel:
        return Channel(self)

    @property
    def connections(self) -> int:
        """The connections that aiohttp's server knows of."""
        assert self.server is not None
        return len(self.server.connections)

    @property
    def counted(self) -> int:
        """The connections that `server.connections` bounds."""
        return self.server._policy.connected if isinstance(self.server, FeedServer) else -1

    def _count_behind(self, _: LiveBehind) -> None:
        self.behind += 1


@asynccontextmanager
async def live_world(
    *,
    is_extended: bool = True,
    limits: Limits | None = None,
    listener: socket.socket | None = None,
    **streams: Any,
) -> AsyncIterator[LiveWorld]:
    """The server, on a free port if need be.

    Without `is_extended` it has aiohttp's own connections.
    """
    world = LiveWorld(Streams(**streams), limits or Limits())
    app = web.Application(middlewares=[middleware.identify, middleware.render_problems])
    service = world.service()
    app[SERVICE], app[SHORTAGES] = service, {}

    async def answer(request: web.Request) -> web.StreamResponse:
        return await world.routes[request.path](request)

    for path in PATHS:
        app.router.add_get(path, answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    assert runner.server is not None
    plain = web.Server(
        runner.server.request_handler,
        request_factory=runner.server.request_factory,
        handler_cancellation=True,
        access_log=None,
    )
    settings = service.settings.server
    world.server = FeedServer(plain, settings, access_log=None) if is_extended else plain
    listener = listener or socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, settings.send_buffer)
    listener.listen(1_024)
    listening = await asyncio.get_running_loop().create_server(world.server, sock=listener)
    world.url = listener.getsockname()
    try:
        yield world
    finally:
        listening.close()
        await world.server.shutdown(1)
        await world.subscribers.close()
        await runner.cleanup()


async def _page(_: web.Request) -> web.Response:
    return web.Response(text="page")


class Listener:
    """A client that keeps all that it was sent behind the head, with the chunks taken apart."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.head = b""
        self.body = b""
        self.is_whole = False

    async def read_head(self) -> Listener:
        self.head = await self.reader.readuntil(b"\r\n\r\n")
        return self

    async def until(self, text: bytes) -> bytes:
        """Read until this text has come; all of the body so far."""
        async with asyncio.timeout(60):
            while text not in self.body:
                assert await self._chunk(), self.body[-500:]
        return self.body

    async def to_the_end(self) -> bytes:
        """Read until the service has closed; all of the body."""
        async with asyncio.timeout(60):
            while await self._chunk():
                pass
            if self.is_whole:
                assert await self.reader.read() == b""
        return self.body

    def close(self) -> None:
        self.writer.transport.abort()

    async def _chunk(self) -> bool:
        line = await self.reader.readline()
        if not line:
            return False
        size = int(line, 16)
        self.body += (await self.reader.readexactly(size + 2))[:-2]
        self.is_whole = size == 0
        return size > 0


async def listen(
    world: LiveWorld, *, behind: bytes = b"", receive_buffer: int | None = None
) -> Listener:
    """A client of the live answer, which has read its head and its beginning."""
    client = socket.socket()
    if receive_buffer is not None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    client.setblocking(False)
    await asyncio.get_running_loop().sock_connect(client, world.url)
    # What its StreamReader would read ahead, a slow client must not take, either.
    limit = receive_buffer or 1 << 16
    reader, writer = await asyncio.open_connection(sock=client, limit=limit)
    writer.write(b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n" + behind)
    listener = await Listener(reader, writer).read_head()
    await listener.until(b"event: open")
    return listener


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait for the condition."""
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)


def on_loop(name: str, scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run the scenario on a loop of its own."""
    with asyncio.Runner(loop_factory=LOOPS[name]) as runner:
        runner.run(scenario())
