"""aiohttp's server with this service's connections."""

import asyncio

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from feedsvc.settings import Server
from feedsvc.web.protocol.connection_policy import ConnectionPolicy
from feedsvc.web.protocol.fast_path import FastPathConnection
from feedsvc.web.protocol.page_answers import PageAnswers


class FeedServer(web.Server):
    """A server as its runner made it, with another protocol for its connections."""

    def __init__(self, made: web.Server, settings: Server, shortcut: PageAnswers) -> None:
        super().__init__(
            made.request_handler,
            request_factory=made.request_factory,
            handler_cancellation=made.handler_cancellation,
            **made._kwargs,  # noqa: SLF001 - aiohttp has no other way to choose the protocol
        )
        self._keeper = ConnectionPolicy(settings)
        self._shortcut = shortcut

    def __call__(self) -> RequestHandler:
        loop = asyncio.get_running_loop()
        return FastPathConnection(self, self._keeper, self._shortcut, loop, self._kwargs)
