"""The probes of an orchestrator: `/live` and `/ready`."""

from aiohttp import web

from feedsvc.web.bodies import json_response
from feedsvc.web.context import SERVICE


async def live(_request: web.Request) -> web.Response:
    """`GET /live`: 200 while the event loop turns."""
    return web.Response(text="ok\n", headers={"Cache-Control": "no-store"})


async def ready(request: web.Request) -> web.Response:
    """`GET /ready`: 200, or 503 with the reason, from what is known already."""
    fault = request.app[SERVICE].readiness.fault()
    status = 200 if fault is None else 503
    response = json_response({"ready": fault is None, "reason": fault}, status)
    if fault is not None:
        response.headers["Retry-After"] = "1"
    return response
