"""The summary of a request in the audit log: all that selects rows, and no secret."""

import hashlib
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote, unquote_plus, urlencode

from aiohttp import web

_HEAD: Final = 2_900  # characters
_TAIL: Final = 1_000
_MOST: Final = 4_096
_SECRETS: Final = frozenset({"ticket", "token", "access_token", "jwt", "authorization", "password"})
# What a refused query may hold in any place: a JSON Web Token, or one of the service's tickets.
_TOKEN: Final = re.compile(r"eyJ[\w-]{8,}\.[\w.-]+|\b[rp][\w-]{55}\b", re.ASCII)


def asked(request: web.Request) -> str:
    """A single row's key, the query, and `Last-Event-ID`, in a query's form."""
    parts = [
        part
        for part in request.rel_url.raw_query_string.split("&")
        if part and unquote_plus(part.partition("=")[0]).lower() not in _SECRETS
    ]
    if "key" in request.match_info:
        parts.insert(0, f"key={request.rel_url.raw_path.split('/', 4)[4]}")
    if (last := request.headers.get("Last-Event-ID")) is not None:
        parts.append(f"Last-Event-ID={quote(last, safe=',', errors='surrogateescape')}")
    return bounded(_TOKEN.sub("[token]", "&".join(parts)))


def stated(body: Mapping[str, object]) -> str:
    """The fields of a body, in a query's form."""
    return bounded(urlencode(body))


def bounded(text: str) -> str:
    """The text; of a long one its head, its tail, and a digest that any guess can be held to."""
    if len(text) <= _MOST:
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
    return f"{text[:_HEAD]} [{len(text)} characters, sha256 {digest}] {text[-_TAIL:]}"
