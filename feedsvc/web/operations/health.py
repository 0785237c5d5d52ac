"""`/api/performance/health`: how everything is, and what can be mended, for operators alone."""

from functools import partial
from typing import Any, Final

import orjson
from aiohttp import web

from feedsvc.core.principal import Principal
from feedsvc.core.problems import BadParameter, BadRequest
from feedsvc.feeds import parameters
from feedsvc.operations.health.repairs import NAMES
from feedsvc.web.context import SERVICE, Answering
from feedsvc.web.operations.rights import only_operators
from feedsvc.web.record import RECORD
from feedsvc.web.request_summary import stated

_KEYS: Final = ("repairs", "dry_run")


async def health(request: web.Request, principal: Principal) -> Answering:
    """`GET /api/performance/health`: what the last looks came to; nothing is waited for."""
    only_operators(principal)
    parameters.refuse_unknown(parameters.parse(request.rel_url.raw_query_string), ("ticket",))
    return partial(_reported, request)


async def repair(request: web.Request, principal: Principal) -> Answering:
    """`POST /api/performance/health/repair`: `{"repairs": ["listener"], "dry_run": true}`."""
    only_operators(principal)
    names, dry = _asked(await request.read())
    return partial(_repaired, request, names, dry=dry)


async def _reported(request: web.Request) -> web.Response:
    known = request.app[SERVICE].together.health
    await known.freshen()
    return _json(known.report())


async def _repaired(request: web.Request, names: list[str], *, dry: bool) -> web.Response:
    # What was asked for stands in the body, which nobody else would write down.
    request[RECORD].query = stated({"repairs": ",".join(names), "dry_run": int(dry)})
    together = request.app[SERVICE].together
    together.repairs.admit()
    return _json({"dry_run": dry, "repairs": await together.repair(names, dry=dry)})


def _asked(body: bytes) -> tuple[list[str], bool]:
    try:
        asked = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise BadRequest("The body is not JSON.") from None
    if not isinstance(asked, dict):
        raise BadRequest("The body is not a JSON object.")
    for key in asked:
        if key not in _KEYS:
            raise BadParameter("There is no such key.", parameter=str(key)[:100], allowed=_KEYS)
    names, dry = asked.get("repairs"), asked.get("dry_run", False)
    if not isinstance(names, list) or not names or not all(name in NAMES for name in names):
        raise BadParameter("repairs must list what to mend.", parameter="repairs", allowed=NAMES)
    if not isinstance(dry, bool):
        raise BadParameter("dry_run is true or false.", parameter="dry_run")
    return [name for name in NAMES if name in names], dry


def _json(plain: Any) -> web.Response:
    return web.Response(
        body=orjson.dumps(plain, option=orjson.OPT_APPEND_NEWLINE),
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )
