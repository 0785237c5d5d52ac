"""Headers that let a browser do no more with a response than show it."""

import base64
import hashlib
from collections.abc import Mapping
from typing import Final

from aiohttp import web

_POLICY: Final = "default-src 'none'; frame-ancestors 'none'"

HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": _POLICY,
    # Also where CORS lets an origin in: browsers ask this header only about loads without CORS
    # (Fetch, "HTTP fetch"), such as images and scripts, and for those no origin was let in.
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",  # an address may hold a ticket
    "Server": "feedsvc",  # aiohttp's own tells versions
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def protect(response: web.StreamResponse) -> None:
    """Put these on the answer; a policy of its own is the answer's to keep."""
    own = response.headers.get("Content-Security-Policy", _POLICY)
    response.headers.update(HEADERS)
    response.headers["Content-Security-Policy"] = own


def policy_with_style(style: str) -> str:
    """The Content-Security-Policy of a page that has this in its one `style` element."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"{_POLICY}; style-src 'sha256-{digest}'"
