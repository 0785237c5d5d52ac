"""The request on whose behalf PostgreSQL is asked: in its views, its log and ours.

The present cause is a context variable, so that a task which a request starts has the request's.
Statements carry it as a comment in sqlcommenter's form (https://google.github.io/sqlcommenter/).
"""

import random
import re
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final, NamedTuple
from urllib.parse import quote, unquote_plus

from feedsvc.core import identifiers

_TRACEPARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_INVALID_VERSION: Final = "ff"
_SAMPLED: Final = 1


class Trace(NamedTuple):
    """The place of a request in a distributed trace (W3C Trace Context), in hexadecimal digits.

    `parent` is the caller's span, empty where the trace begins here; `span` is this service's own.
    """

    trace: str
    parent: str
    span: str
    flags: str

    @property
    def is_sampled(self) -> bool:
        """Return whether the trace is recorded."""
        return bool(int(self.flags, 16) & _SAMPLED)

    @property
    def traceparent(self) -> str:
        """The header's value for what this service calls."""
        return f"00-{self.trace}-{self.span}-{self.flags}"


def continued(traceparent: str | None) -> Trace | None:
    """The trace that a `traceparent` header names; None where it is missing or malformed."""
    found = _TRACEPARENT.fullmatch(traceparent) if traceparent is not None else None
    if found is None:
        return None
    version, trace, parent, flags, rest = found.groups()
    if version == _INVALID_VERSION or (version == "00" and rest) or not int(trace, 16):
        return None
    if not int(parent, 16):
        return None
    # Of the flags of later versions only the first bit is known; what follows them is not.
    return Trace(trace, parent, identifiers.new_hex()[:16], f"{int(flags, 16) & _SAMPLED:02x}")


def trace_of(traceparent: str | None, begun: float) -> Trace | None:
    """The trace that the caller continues; else, for this part of the requests, one begun here."""
    found = None if traceparent is None else continued(traceparent)
    if found is None and begun and random.random() < begun:  # noqa: S311 - a sample, no secret
        return Trace(identifiers.new_hex(), "", identifiers.new_hex()[:16], f"{_SAMPLED:02x}")
    return found


@dataclass(frozen=True, slots=True)
class Cause:
    """A request; `query` is its query string, of which only the names leave this module.

    A query that takes longer than `slow` seconds is reported, where its pool has no other bound.
    `marks_pages`: statements that PostgreSQL would otherwise keep prepared carry the comment too.
    """

    request_id: str
    query: str
    slow: float
    marks_pages: bool = False
    trace: Trace | None = None

    @property
    def comment(self) -> str:
        """The SQL comment; whatever a client named its request, nothing in it ends the comment."""
        pairs = [f"request_id='{quote(self.request_id, safe='')}'"]
        if self.trace is not None:
            pairs.append(f"traceparent='{self.trace.traceparent}'")
        return f"/* feedsvc:{','.join(pairs)} */"

    @property
    def parameters(self) -> list[str]:
        """The names of the request's parameters, without what let it in."""
        names = (unquote_plus(part.partition("=")[0]) for part in self.query.split("&") if part)
        return [name for name in names if name != "ticket"]


PRESENT: Final[ContextVar[Cause | None]] = ContextVar("cause", default=None)


def marked(sql: str) -> str:
    """The statement with the present cause behind it; for a text that is sent only once."""
    cause = PRESENT.get()
    return sql if cause is None else f"{sql} {cause.comment}"


def of_portal(name: str) -> str:
    """A portal's name with the present cause: PostgreSQL's log has it beside a slow statement.

    Unlike a statement's text it is new each time anyway, so this costs no prepared statement.
    """
    return marked(name)
