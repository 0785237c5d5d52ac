"""What an orchestrator and an operator ask."""

import orjson
from aiohttp import web

from feedsvc.web.context import SERVICE

_HEADERS = {"Cache-Control": "no-store"}


async def live(_request: web.Request) -> web.Response:
    """`GET /live`: 200 while the event loop turns."""
    return web.Response(text="ok\n", headers=_HEADERS)


async def ready(request: web.Request) -> web.Response:
    """`GET /ready`: 200, or 503 with the reason. Nothing is asked for it, so it is quick."""
    fault = request.app[SERVICE].readiness.fault()
    body = orjson.dumps({"ready": fault is None, "reason": fault}, option=orjson.OPT_APPEND_NEWLINE)
    return web.Response(
        status=200 if fault is None else 503,
        body=body,
        content_type="application/json",
        headers=_HEADERS if fault is None else {**_HEADERS, "Retry-After": "1"},
    )
