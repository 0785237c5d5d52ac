"""The application, what runs it, and listening sockets whose connections have bounded buffers."""

import asyncio
import logging
import socket
from functools import partial
from typing import Any, Final

from aiohttp import web

from feedsvc.settings import Server
from feedsvc.web import cors, middleware, routes
from feedsvc.web.context import SERVICE, SHORTAGES, Service
from feedsvc.web.openapi import docs_page, document
from feedsvc.web.operations.series import SERIES, SeriesBoard
from feedsvc.web.protocol import aiohttp_internals
from feedsvc.web.protocol.page_answers import PageAnswers, RequestHandler, answer_first
from feedsvc.web.protocol.server import FeedServer
from feedsvc.web.routes import OpenRoute, ProtectedRoute, add

logger = logging.getLogger(__name__)

_BACKLOG: Final = 1_024
_SHUTDOWN_TIMEOUT: Final = 1.0  # seconds that handlers get to end, once they are cancelled
ROUTES: Final[tuple[OpenRoute | ProtectedRoute, ...]] = (
    *routes.ROUTES,
    OpenRoute("/openapi.json", document.describe),
    OpenRoute("/docs", docs_page.read),
)


def patterns() -> list[str]:
    """Every route's pattern as events have it, each once."""
    router = web.UrlDispatcher()
    return [router.add_resource(path).canonical for path in {route.path for route in ROUTES}]


def application(service: Service) -> web.Application:
    """The application over these parts."""
    app = web.Application(
        middlewares=[middleware.identify, middleware.render_problems, cors.preflight],
        client_max_size=service.settings.server.max_body,
    )
    app[SERVICE] = service
    app[SHORTAGES] = {}
    app[SERIES] = SeriesBoard()
    app.on_cleanup.append(app[SERIES].close)
    app.on_response_prepare.append(middleware.mark)
    for route in ROUTES:
        add(app, route)
    return app


class Runner:
    """Runs an application so that a client's leaving cancels its handler.

    The application's own runner starts and ends it. The server is another one's, for only so its
    connections are chosen by public names.
    """

    def __init__(self, app: web.Application, settings: Server) -> None:
        self._settings = settings
        self._app = web.AppRunner(app, access_log=None)
        self._service = app[SERVICE]
        self._runner: web.ServerRunner | None = None
        self._parting: asyncio.Task[None] | None = None

    @property
    def server(self) -> web.Server | None:
        """The server; None before `setup` and behind `cleanup`."""
        return None if self._runner is None else self._runner.server

    async def setup(self) -> None:
        """Prepare the server, whose requests are answered from the cache where that is possible."""
        await self._app.setup()
        made = self._app.server
        if made is None:
            raise RuntimeError("the application has no server")
        answers = PageAnswers(self._service)
        server = self._server(partial(answer_first, answers, made.request_handler), made)
        self._runner = web.ServerRunner(server, shutdown_timeout=_SHUTDOWN_TIMEOUT)
        await self._runner.setup()

    async def answer_on(self, listener: socket.socket) -> None:
        """Begin to answer on a listening socket. `setup` comes before it."""
        if self._runner is not None:
            await web.SockSite(self._runner, listener, backlog=_BACKLOG).start()

    async def stop_accepting(self) -> None:
        """Accept no more connections; other processes with the listening sockets do."""
        for site in () if self._runner is None else self._runner.sites:
            await site.stop()

    async def cleanup(self) -> None:
        """End all connections, then the application."""
        runner, self._runner = self._runner, None
        if self._parting is not None:
            self._parting.cancel()
            await asyncio.gather(self._parting, return_exceptions=True)
        if runner is not None:
            await runner.cleanup()
        await self._app.cleanup()

    def is_connected(self) -> bool:
        """Return whether a client is connected, by connections of aiohttp's own too."""
        return self.server is not None and bool(self.server.connections)

    def part(self, timeout: float) -> None:
        """End idle connections.

        A closed socket answers a request that is on its way with a reset; one that is only closed
        for writing takes it, and its client knows that it has not been answered. aiohttp's own
        connections can only be closed: behind the answer that they write, or after `timeout`.
        """
        server = self.server
        if isinstance(server, FeedServer):
            for connection in server.clients():
                connection.part()
        elif server is not None:
            server.pre_shutdown()
            self._parting = asyncio.create_task(server.shutdown(timeout))

    def is_sending(self) -> bool:
        """Return whether there are bytes of answers that the kernel has not taken yet."""
        server = self.server
        return isinstance(server, FeedServer) and any(each.unsent() for each in server.clients())

    def _server(self, answer: RequestHandler, made: web.Server) -> web.Server:
        settings, limits = self._settings, _limits(self._settings)
        plain = web.Server(
            answer, request_factory=made.request_factory, handler_cancellation=True, **limits
        )
        if (fault := aiohttp_internals.fault()) is None:
            return FeedServer(plain, settings, **limits)
        line = "%s: connections keep aiohttp's own limits and time-outs instead of server.*"
        logger.warning(line, fault)
        return plain


def _limits(settings: Server) -> dict[str, Any]:
    """The settings of aiohttp's own connections."""
    max_header = settings.max_header
    return {
        "access_log": None,  # middleware.identify logs, without raw paths
        "keepalive_timeout": settings.keepalive_timeout,
        "max_line_size": settings.max_request_line,
        # A LineTooLong tells by its limit alone which line it was, so the limits differ.
        "max_field_size": max_header + (max_header == settings.max_request_line),
        "lingering_time": settings.body_timeout,
    }


def listen(host: str, port: int, settings: Server) -> socket.socket:
    """A listening socket, whose connections inherit what is set here. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, settings.send_buffer)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        # No TCP_USER_TIMEOUT: it also ends a slow reader whose window opens by less than a
        # segment at a time. Body notices who has stalled, and keepalive_timeout who is idle.
        listener.bind((host, port))
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener
