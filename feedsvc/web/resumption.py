"""The cookie beside a ticket, with which a browser's own EventSource comes back.

A ticket is good once, and an EventSource that was cut asks again for the very same address. The
answer to its first request therefore sets a cookie that is good for that address alone, until the
end of the token that the ticket was bought with. The address without the cookie opens nothing.
"""

import hashlib
import re
from typing import Final

from aiohttp import web

from feedsvc.core.principal import Principal
from feedsvc.web.context import RESUMES, SERVICE

_PREFIX: Final = "feedsvc-"
_MOST_COOKIES: Final = 12  # for one path: all of them are sent with each request for it
_PLAIN_PATH: Final = re.compile(r"[A-Za-z0-9/_.~%-]+")  # nothing that would end an attribute
_EVENTS: Final = "text/event-stream"


def returning(request: web.Request) -> Principal | None:
    """The principal of the cookie for this address; None where there is none."""
    target = _target(request)
    given = request.cookies.get(_name(target)) if _asks_for_events(request) else None
    return None if given is None else request.app[SERVICE].resumption.principal(target, given)


def mark(request: web.Request, response: web.StreamResponse) -> None:
    """Set the cookie on the answer to a ticket's first request, and remove the oldest ones."""
    principal, path = request.get(RESUMES), request.rel_url.raw_path
    if (
        principal is None
        or response.status != 200
        or response.content_type != _EVENTS
        or not _PLAIN_PATH.fullmatch(path)
    ):
        return
    service, target = request.app[SERVICE], _target(request)
    # Without TLS in front a browser would drop a Secure cookie. A client that makes this header up
    # does so for a cookie of its own.
    secure = "; Secure" * (request.headers.get("X-Forwarded-Proto", "").lower() == "https")
    attributes = f"Path={path}; HttpOnly; SameSite=Strict{secure}"
    known = [name for name in request.cookies if name.startswith(_PREFIX)]
    for name in known[: max(0, len(known) + 1 - _MOST_COOKIES)]:  # browsers send the oldest first
        response.headers.add("Set-Cookie", f"{name}=; Max-Age=0; {attributes}")
    value, age = service.resumption.make(target, principal), service.tokens.seconds_left(principal)
    cookie = f"{_name(target)}={value}; Max-Age={max(1, int(age))}; {attributes}"
    response.headers.add("Set-Cookie", cookie)


def _asks_for_events(request: web.Request) -> bool:
    """Return whether this may be an EventSource, by its query or its Accept."""
    accept = request.headers.get("Accept", "")
    return _EVENTS in accept or request.rel_url.query.get("format") == "sse"


def _target(request: web.Request) -> bytes:
    """The address, with its ticket and whatever else is in its query."""
    return request.raw_path.encode("utf-8", "surrogateescape")


def _name(target: bytes) -> str:
    return _PREFIX + hashlib.sha256(target).hexdigest()[:16]
