"""aiohttp's server with problems for what it can't even parse, and sockets of a bounded size."""

import asyncio
import logging
import socket
from typing import Final

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler
from aiohttp.web_request import BaseRequest

from feedsvc.errors import BadRequest, HeadersTooLarge, Internal, Problem, UriTooLong
from feedsvc.service import Service
from feedsvc.settings import Server
from feedsvc.web import middlewares, problems, routes
from feedsvc.web.keys import SERVICE

logger = logging.getLogger(__name__)

_BACKLOG: Final = 1_024


def application(service: Service) -> web.Application:
    """The application over these parts."""
    app = web.Application(
        middlewares=[middlewares.identify, middlewares.tell_problems],
        client_max_size=service.settings.server.max_body,
    )
    app[SERVICE] = service
    app.on_response_prepare.append(middlewares.mark)
    routes.add_to(app)
    return app


class Runner(web.AppRunner):
    """Runs an application so that a client's leaving cancels its handler."""

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
            shutdown_timeout=1.0,
        )
        self._max_request_line = settings.max_request_line

    async def answer_on(self, listener: socket.socket) -> None:
        """Begins to answer on a listening socket."""
        await web.SockSite(self, listener, backlog=_BACKLOG).start()

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return _ProblemServer(made, self._max_request_line)


class _ProblemServer(web.Server):
    """aiohttp's server as its runner made it, with another protocol for its connections."""

    def __init__(self, made: web.Server, max_request_line: int) -> None:
        super().__init__(
            made.request_handler,
            request_factory=made.request_factory,
            handler_cancellation=made.handler_cancellation,
            **made._kwargs,  # noqa: SLF001 - aiohttp has no other way to choose the protocol
        )
        self.max_request_line = max_request_line

    def __call__(self) -> RequestHandler:
        return _ProblemProtocol(self, loop=asyncio.get_running_loop(), **self._kwargs)


class _ProblemProtocol(RequestHandler):
    """One connection. What reaches `handle_error` has passed by every middleware."""

    __slots__ = ()

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
        response.force_close()
        return response

    def _problem(self, status: int, exc: BaseException | None) -> Problem:
        if isinstance(exc, LineTooLong):
            limit = exc.args[1]
            manager = self._manager
            if isinstance(manager, _ProblemServer) and limit == manager.max_request_line:
                return UriTooLong(f"The address is longer than {limit} bytes.")
            return HeadersTooLarge(f"A header is longer than {limit} bytes.")
        if status < 500:
            return BadRequest("The request is not HTTP as RFC 9112 has it.")
        return Internal("The service failed in a way that it did not foresee.")


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
