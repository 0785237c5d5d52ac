"""The application, what runs it, and listening sockets whose connections have bounded buffers."""

import logging
import socket
from functools import partial
from typing import Final

from aiohttp import web

from feedsvc.settings import Server
from feedsvc.web import cors, middleware, routes
from feedsvc.web.context import SERVICE, SHORTAGES, Service
from feedsvc.web.openapi import docs_page, document
from feedsvc.web.protocol import aiohttp_internals
from feedsvc.web.protocol.connection import ClientConnection
from feedsvc.web.protocol.page_answers import PageAnswers, answer_first
from feedsvc.web.protocol.server import FeedServer
from feedsvc.web.routes import OpenRoute, ProtectedRoute, add

logger = logging.getLogger(__name__)

_BACKLOG: Final = 1_024
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
        middlewares=[middleware.identify, middleware.tell_problems, cors.preflight],
        client_max_size=service.settings.server.max_body,
    )
    app[SERVICE] = service
    app[SHORTAGES] = {}
    app.on_response_prepare.append(middleware.mark)
    for route in ROUTES:
        add(app, route)
    return app


class Runner(web.AppRunner):
    """Run an application so that a client's leaving cancels its handler."""

    def __init__(self, app: web.Application, settings: Server) -> None:
        max_header = settings.max_header
        super().__init__(
            app,
            access_log=None,  # middlewares.identify logs, without raw paths
            handler_cancellation=True,
            keepalive_timeout=settings.keepalive_timeout,
            max_line_size=settings.max_request_line,
            # A LineTooLong tells by its limit alone which line it was, so the limits differ.
            max_field_size=max_header + (max_header == settings.max_request_line),
            lingering_time=settings.body_timeout,
            shutdown_timeout=1.0,
        )
        self._settings = settings

    async def setup(self) -> None:
        """Prepare the server, whose requests are answered from the cache where that is possible."""
        await super().setup()
        if self.server is not None:
            answers = PageAnswers(self.app[SERVICE])
            # Public, and copied by each connection as it is made.
            self.server.request_handler = partial(
                answer_first, answers, self.server.request_handler
            )

    async def answer_on(self, listener: socket.socket) -> None:
        """Begin to answer on a listening socket."""
        await web.SockSite(self, listener, backlog=_BACKLOG).start()

    def is_connected(self) -> bool:
        """Tell whether a client is connected, by connections of aiohttp's own too."""
        return self.server is not None and bool(self.server.connections)

    def connections(self) -> list[ClientConnection]:
        """The connections that are this service's kind; none where aiohttp's own serve."""
        server = self.server
        present = [] if server is None else server.connections
        return [each for each in present if isinstance(each, ClientConnection)]

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        if (fault := aiohttp_internals.fault(made)) is not None:
            line = "%s: connections keep aiohttp's own limits and time-outs instead of server.*"
            logger.warning(line, fault)
            return made
        return FeedServer(made, self._settings)


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
