"""Bodies of JSON: a request's object, and an answer of plain values."""

from collections.abc import Sequence
from typing import Any

import orjson
from aiohttp import web

from feedsvc.core.problems import BadParameter, BadRequest

_LONGEST_NAME = 100  # characters of an unknown key that the problem quotes


async def json_object(request: web.Request, keys: Sequence[str] | None = None) -> dict[str, Any]:
    """The request's body, an object of these keys alone (None: of any).

    Raises BadRequest, and BadParameter for another key.
    """
    try:
        given = orjson.loads(await request.read())
    except orjson.JSONDecodeError:
        raise BadRequest("The body is not JSON.") from None
    if not isinstance(given, dict):
        raise BadRequest("The body is not a JSON object.")
    unknown = [] if keys is None else [key for key in given if key not in keys]
    if unknown:
        name = unknown[0][:_LONGEST_NAME]
        raise BadParameter("There is no such key.", parameter=name, allowed=keys)
    return given


def json_response(plain: Any, status: int = 200, *, vary: str | None = None) -> web.Response:
    """An answer that no cache keeps. `vary` names the request's fields that chose its form."""
    headers = {"Cache-Control": "no-store"} | ({} if vary is None else {"Vary": vary})
    body = orjson.dumps(plain, option=orjson.OPT_APPEND_NEWLINE)
    return web.Response(status=status, body=body, content_type="application/json", headers=headers)
