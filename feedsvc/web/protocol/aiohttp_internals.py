"""The names of aiohttp's inside that `connection.py` and `server.py` extend, and their check."""

from typing import Final

import aiohttp
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

VERSIONS: Final = ("3.14.",)
"""The beginnings of the versions that the names were read in."""
NAMES: Final = (
    "_buffer_paused", "_loop", "_manager", "_max_msg_queue_size", "_message_tail", "_messages",
    "_parser", "_read_bufsize", "_reading_paused", "_request_count", "_waiter",
)  # fmt: skip
"""Attributes of a connection."""


def fault(server: web.Server) -> str | None:
    """The reason why this aiohttp's connections can't be extended; None where they can."""
    if not aiohttp.__version__.startswith(VERSIONS):
        return f"aiohttp {aiohttp.__version__} is none of {', '.join(VERSIONS)}x"
    missing = [name for name in NAMES if not hasattr(RequestHandler, name)]
    missing += [] if hasattr(server, "_kwargs") else ["_kwargs"]
    return f"aiohttp {aiohttp.__version__} has no {', '.join(missing)}" if missing else None
