"""Every address: its methods, who answers, and who may ask."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler

from feedsvc.auth import Principal
from feedsvc.web import feeds, operations, problems
from feedsvc.web.keys import SERVICE, STAGES

PrincipalHandler = Callable[[web.Request, Principal], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Open:
    """A route that anyone may ask for."""

    path: str
    handler: Handler


@dataclass(frozen=True, slots=True)
class Protected:
    """A route for whoever has a valid token; the handler decides what its holder may read."""

    path: str
    handler: PrincipalHandler


ROUTES: Final[tuple[Open | Protected, ...]] = (
    Protected("/v1/feeds", feeds.catalogue),
    Protected("/v1/feeds/{dataset}", feeds.feed),
    Protected("/v1/feeds/{dataset}/{key:.*}", feeds.row),
    Open("/problems/{name}", problems.page),
    Open("/live", operations.live),
    Open("/ready", operations.ready),
)


def add_to(application: web.Application) -> None:
    """Registers every route for GET and HEAD."""
    for route in ROUTES:
        handler = route.handler if isinstance(route, Open) else _authenticated(route.handler)
        for method in ("GET", "HEAD"):
            application.router.add_route(method, route.path, handler)


def _authenticated(handler: PrincipalHandler) -> Handler:
    async def authenticate(request: web.Request) -> web.StreamResponse:
        principal = request.app[SERVICE].tokens.verify(request.headers.get("Authorization"))
        request[STAGES].lap("auth")
        return await handler(request, principal)

    return authenticate
