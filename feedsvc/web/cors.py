"""Answers for web pages of other origins, if `cors.origins` lists them (Fetch, "CORS protocol").

Never Access-Control-Allow-Credentials: a token travels in a header that the page's script sets, so
nothing that a browser adds by itself is a credential.
"""

from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler

from feedsvc.settings import Cors
from feedsvc.web.context import SERVICE

_ALLOWED_HEADERS: Final = "Authorization, Content-Type, Last-Event-ID, If-None-Match, X-Request-ID"
_EXPOSED_HEADERS: Final = (
    "ETag, Link, Retry-After, RateLimit, RateLimit-Policy, Server-Timing, Cache-Status,"
    " X-Request-ID, Content-Disposition, Feed-Export, Feed-CSV-Guard, WWW-Authenticate"
)


@web.middleware
async def preflight(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer a browser that asks what a page may send. It can't send a token with that."""
    refused = request.match_info.http_exception
    settings = request.app[SERVICE].settings.cors
    if (
        request.method != "OPTIONS"
        or "Access-Control-Request-Method" not in request.headers
        or not isinstance(refused, web.HTTPMethodNotAllowed)
        or _allowed_origin(request, settings) is None
    ):
        return await handler(request)
    return web.Response(
        status=204,
        headers={
            "Access-Control-Allow-Methods": ", ".join(sorted(refused.allowed_methods)),
            "Access-Control-Allow-Headers": _ALLOWED_HEADERS,
            "Access-Control-Max-Age": str(settings.max_age),
        },
    )


def mark(request: web.Request, response: web.StreamResponse) -> None:
    """Let the page read the answer if its origin is listed."""
    settings = request.app[SERVICE].settings.cors
    if not settings.origins:
        return
    # Also for who sends no origin or another: a cache must not give them each other's answers.
    vary = response.headers.get("Vary")
    response.headers["Vary"] = f"{vary}, Origin" if vary else "Origin"
    allowed = _allowed_origin(request, settings)
    if allowed is not None:
        response.headers["Access-Control-Allow-Origin"] = allowed
        response.headers["Access-Control-Expose-Headers"] = _EXPOSED_HEADERS


def _allowed_origin(request: web.Request, settings: Cors) -> str | None:
    """The value of Access-Control-Allow-Origin, None where the page may read nothing."""
    given = request.headers.get("Origin")
    if given is None:
        return None
    if "*" in settings.origins:
        return "*"
    return given if given in settings.origins else None
