"""`POST /v1/tickets`."""

from functools import partial
from typing import Any, Final

from aiohttp import web

from feedsvc.access.tickets import LIFETIME
from feedsvc.core.principal import Principal
from feedsvc.core.problems import BadParameter
from feedsvc.web.bodies import json_object, json_response
from feedsvc.web.context import SERVICE, Answering

_PREFIX: Final = "/v1/feeds"
_PATHS: Final = (_PREFIX, "/v1/live")
_LONGEST_PATH: Final = 2_048


async def parse_ticket(request: web.Request, principal: Principal) -> Answering:
    """Judge `{"path": …}`, a path of the caller's."""
    path = _path((await json_object(request)).get("path"))
    return partial(_answer_ticket, request, path, principal)


async def _answer_ticket(request: web.Request, path: str, principal: Principal) -> web.Response:
    """`{"ticket", "expires_in"}`, a text and seconds."""
    ticket = await request.app[SERVICE].tickets.issue(path, principal)
    return json_response({"ticket": ticket, "expires_in": LIFETIME}, 201)


def _path(path: Any) -> str:
    if not isinstance(path, str) or "\0" in path or len(path) > _LONGEST_PATH:
        raise BadParameter("path must be text.", parameter="path")
    if (path not in _PATHS and not path.startswith(f"{_PREFIX}/")) or "?" in path:
        allowed = [f"{_PREFIX}/…", "/v1/live"]
        what = "path must be a feed's, without its query."
        raise BadParameter(what, parameter="path", allowed=allowed)
    return path
