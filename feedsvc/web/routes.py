"""Routes: the methods of each address, its handler, and the rights that it needs.

The description's own, which lists these, is added by the application.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeAlias
from urllib.parse import parse_qs

from aiohttp import web
from aiohttp.typedefs import Handler

from feedsvc.access.limiter import RouteClass
from feedsvc.core.principal import Principal
from feedsvc.core.problems import TokenExpired
from feedsvc.web import problems, resumption
from feedsvc.web.context import RESUMES, SERVICE, STAGES, STANDING, Answering
from feedsvc.web.feeds import handlers, tickets
from feedsvc.web.operations import alerts, cache_and_pools, health, metrics, probes, queries
from feedsvc.web.operations import performance as tracker
from feedsvc.web.record import RECORD
from feedsvc.web.request_summary import asked

PrincipalHandler: TypeAlias = Callable[[web.Request, Principal], Awaitable[Answering]]
"""Judges a request that the limits have admitted; what it gives back does the work."""

READ: Final = ("GET", "HEAD")


@dataclass(frozen=True, slots=True)
class OpenRoute:
    """A route that anyone may ask for."""

    path: str
    handler: Handler
    methods: tuple[str, ...] = READ


@dataclass(frozen=True, slots=True)
class ProtectedRoute:
    """A route that needs a valid token; the handler decides what its holder may read."""

    path: str
    handler: PrincipalHandler
    methods: tuple[str, ...] = READ
    # Whether a ticket will do in a token's place.
    tickets: bool = True
    limit: RouteClass = "requests"


ROUTES: Final[tuple[OpenRoute | ProtectedRoute, ...]] = (
    ProtectedRoute("/v1/feeds", handlers.catalogue),
    ProtectedRoute("/v1/feeds/{dataset}", handlers.feed),
    ProtectedRoute("/v1/feeds/{dataset}/{key:(?s:.*)}", handlers.row),
    ProtectedRoute("/v1/live", handlers.live),
    ProtectedRoute("/v1/tickets", tickets.parse_ticket, ("POST",), tickets=False, limit="tickets"),
    ProtectedRoute("/api/performance/cache", cache_and_pools.parse_cache),
    ProtectedRoute(
        "/api/performance/cache/invalidate",
        cache_and_pools.parse_invalidation,
        ("POST",),
        tickets=False,
    ),
    ProtectedRoute("/api/performance/pools", cache_and_pools.parse_pools),
    ProtectedRoute("/api/performance/health", health.parse_health),
    ProtectedRoute("/api/performance/health/repair", health.parse_repair, ("POST",), tickets=False),
    ProtectedRoute("/api/performance/metrics", tracker.parse_metrics),
    ProtectedRoute("/api/performance/queries", queries.parse_queries),
    ProtectedRoute("/api/performance/alerts", alerts.parse_alerts),
    ProtectedRoute(
        "/api/performance/alerts/silences", alerts.parse_silence, ("POST",), tickets=False
    ),
    ProtectedRoute("/metrics", metrics.parse_metrics),
    OpenRoute("/problems/{name}", problems.page),
    OpenRoute("/live", probes.live),
    OpenRoute("/ready", probes.ready),
)


def add(application: web.Application, route: OpenRoute | ProtectedRoute) -> None:
    """Register the route for its methods."""
    handler = route.handler if isinstance(route, OpenRoute) else _authenticated(route)
    for method in route.methods:
        application.router.add_route(method, route.path, handler)


def _authenticated(route: ProtectedRoute) -> Handler:
    """Authenticate, check the limits, parse the request, and only then do the work."""

    async def admit(request: web.Request) -> web.StreamResponse:
        known = request[RECORD]
        known.guarded = True
        known.principal = principal = await _principal(request, tickets_will_do=route.tickets)
        known.query = asked(request)
        request[STAGES].lap("auth")
        # Before anything is judged, so that what is refused costs its sender as much.
        request[STANDING] = await request.app[SERVICE].limits.admit(principal, route.limit)
        request[STAGES].lap("limits")
        work = await route.handler(request, principal)
        return await work()

    return admit


async def _principal(request: web.Request, *, tickets_will_do: bool) -> Principal:
    """The principal, by token or else by ticket. Raises Unauthorized."""
    service = request.app[SERVICE]
    authorization = request.headers.get("Authorization")
    if authorization is None and tickets_will_do and "ticket=" in request.rel_url.raw_query_string:
        principal = await _ticket_holder(request)
        if service.tokens.seconds_left(principal) <= 0:
            raise TokenExpired
        return principal
    return await service.tokens.authenticate(authorization)


async def _ticket_holder(request: web.Request) -> Principal:
    """The holder of the ticket, or of the cookie that came with it. Raises Unauthorized."""
    service = request.app[SERVICE]
    returning = resumption.returning(request)
    if returning is not None:
        return returning
    given = parse_qs(request.rel_url.raw_query_string, errors="surrogateescape")
    ticket = given.get("ticket", [""])[0]
    principal = await service.tickets.redeem(ticket, request.rel_url.raw_path)
    request[RESUMES] = principal
    return principal
