"""The limits of all connections of a server, and the answer to one too many."""

from http import HTTPStatus
from typing import Final

import orjson

from feedsvc.core.logs import Tally
from feedsvc.core.problems import Unavailable
from feedsvc.settings import Server
from feedsvc.web import problems, security
from feedsvc.web.client_address import ConnectionCounter
from feedsvc.web.record import request_id

MOST_WAITING: Final = 64  # requests that may wait in one connection
MOST_REFUSED: Final = 128  # refused connections that get to read why, at any one time
_NO_BOUND: Final = 1 << 40


class ConnectionPolicy:
    """The limits of all connections of a server, and counts of those that exceeded them."""

    def __init__(self, settings: Server) -> None:
        self.settings = settings
        self.max_head = max(settings.max_head, settings.max_header, settings.max_request_line)
        self.crowd = ConnectionCounter(settings.connections_per_address, settings.trusted_proxies)
        self.most = settings.connections or _NO_BOUND
        self.connected = 0
        self.refused = 0
        self.full = Tally("connections refused by server.connections, or for open files: %d")
        self.crowded = Tally("connections refused by server.connections_per_address: %d")
        most = f"{MOST_WAITING} requests, or server.max_pipelined bytes of them"
        self.flooded = Tally(f"connections dropped with more than {most}, waiting: %d")
        self.late = Tally("connections dropped by server.header_timeout: %d")

    def leave(self, counted_as: str | None) -> None:
        """Count out a client that was handed over, and was counted as one of this address."""
        self.connected -= 1
        if counted_as is not None:
            self.crowd.leave(counted_as)


def refusal(why: str) -> bytes:
    """An answer as bytes, for there is no request that it could be made from."""
    problem = Unavailable(why, retry_after=10)
    given = request_id(None)
    body = orjson.dumps(problem.body("/", given), option=orjson.OPT_APPEND_NEWLINE)
    status = HTTPStatus(problem.status)
    fields = {
        **security.HEADERS,
        **problem.headers,
        "Cache-Control": "no-store",
        "Connection": "close",
        "Content-Length": str(len(body)),
        "Content-Type": problems.CONTENT_TYPE,
        "X-Request-ID": given,
    }
    head = [f"HTTP/1.1 {status.value} {status.phrase}", *(f"{k}: {v}" for k, v in fields.items())]
    return "\r\n".join([*head, "", ""]).encode() + body
