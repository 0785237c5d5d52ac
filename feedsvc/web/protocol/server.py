"""aiohttp's server with this service's connections."""

import asyncio
from typing import Any

from aiohttp import web

from feedsvc.settings import Server
from feedsvc.web.protocol.connection import ClientConnection
from feedsvc.web.protocol.connection_policy import ConnectionPolicy


class FeedServer(web.Server):
    """A server that answers as `made` does, with another protocol for its connections.

    A client's leaving cancels its handler, which the connections rely on. `limits` are those of
    aiohttp's own connections.
    """

    def __init__(self, made: web.Server, settings: Server, **limits: Any) -> None:
        super().__init__(
            made.request_handler, request_factory=made.request_factory, handler_cancellation=True
        )
        self._limits = limits
        self._policy = ConnectionPolicy(settings)

    def clients(self) -> list[ClientConnection]:
        """The present connections."""
        return [each for each in self.connections if isinstance(each, ClientConnection)]

    def __call__(self) -> ClientConnection:
        loop = asyncio.get_running_loop()
        return ClientConnection(self, self._policy, loop, **self._limits)
