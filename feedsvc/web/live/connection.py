"""Names by which a request's connection is handed over to its subscriber."""

from typing import Final, Protocol, runtime_checkable

from aiohttp import web

from feedsvc.web.live.subscriber import LiveSubscriber


@runtime_checkable
class Releasable(Protocol):
    """A connection that ends its handler where a request has a subscriber, and then belongs to it.

    It gives the transport away behind everything that was to be done for the request.
    """

    def release(self, subscriber: LiveSubscriber) -> None:
        """Give the transport to the subscriber, and be lost to its server."""
        ...


SUBSCRIBER: Final = web.RequestKey("subscriber", LiveSubscriber)
"""The one that a request's connection is handed over to, once the request has been handled."""
