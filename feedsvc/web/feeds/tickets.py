"""`POST /v1/tickets`."""

from functools import partial
from typing import Final

import orjson
from aiohttp import web

from feedsvc.access.tickets import LIFETIME
from feedsvc.core.principal import Principal
from feedsvc.core.problems import BadParameter, BadRequest
from feedsvc.web.context import SERVICE, Answering

_PREFIX: Final = "/v1/feeds"
_LONGEST_PATH: Final = 2_048


async def issue(request: web.Request, principal: Principal) -> Answering:
    """A ticket for one path of the caller's: `{"path": …}` gives `{"ticket", "expires_in"}`."""
    return partial(_issued, request, _path(await request.read()), principal)


async def _issued(request: web.Request, path: str, principal: Principal) -> web.Response:
    ticket = await request.app[SERVICE].tickets.issue(path, principal)
    return web.Response(
        status=201,
        body=orjson.dumps({"ticket": ticket, "expires_in": LIFETIME}),
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )


def _path(body: bytes) -> str:
    try:
        asked = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise BadRequest("The body is not JSON.") from None
    path = asked.get("path") if isinstance(asked, dict) else None
    if not isinstance(path, str) or "\0" in path or len(path) > _LONGEST_PATH:
        raise BadParameter("path must be text.", parameter="path")
    if (path != _PREFIX and not path.startswith(f"{_PREFIX}/")) or "?" in path:
        raise BadParameter(
            "path must be a feed's, without its query.", parameter="path", allowed=["/v1/feeds/…"]
        )
    return path
