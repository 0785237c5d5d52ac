"""aiohttp's server with this service's connections."""

import asyncio

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from feedsvc.settings import Server
from feedsvc.web.protocol.connection import ClientConnection
from feedsvc.web.protocol.connection_policy import ConnectionPolicy


class FeedServer(web.Server):
    """A server as its runner made it, with another protocol for its connections."""

    def __init__(self, made: web.Server, settings: Server) -> None:
        super().__init__(
            made.request_handler,
            request_factory=made.request_factory,
            handler_cancellation=made.handler_cancellation,
            **made._kwargs,  # noqa: SLF001 - aiohttp has no other way to choose the protocol
        )
        self._keeper = ConnectionPolicy(settings)

    def __call__(self) -> RequestHandler:
        loop = asyncio.get_running_loop()
        return ClientConnection(self, self._keeper, loop, self._kwargs)
