"""`/api/performance/health`: the state of each component, and repairs, for operators alone."""

from functools import partial
from typing import Final

from aiohttp import web

from feedsvc.core.principal import Principal
from feedsvc.core.problems import BadParameter
from feedsvc.operations.health.repairs import NAMES
from feedsvc.web.bodies import json_object, json_response
from feedsvc.web.context import SERVICE, Answering
from feedsvc.web.operations.rights import only_operators, refuse_parameters
from feedsvc.web.record import RECORD
from feedsvc.web.request_summary import stated

_KEYS: Final = ("repairs", "dry_run")


async def parse_health(request: web.Request, principal: Principal) -> Answering:
    """Judge `GET /api/performance/health`."""
    only_operators(principal)
    refuse_parameters(request)
    return partial(_answer_health, request)


async def _answer_health(request: web.Request) -> web.Response:
    """The last results of all checks, without waiting for slow ones."""
    health = request.app[SERVICE].together.health
    await health.freshen()
    return json_response(health.report())


async def parse_repair(request: web.Request, principal: Principal) -> Answering:
    """Judge `POST …/health/repair`: `{"repairs": ["log_reader"], "dry_run": true}`."""
    only_operators(principal)
    given = await json_object(request, _KEYS)
    names, dry = given.get("repairs"), given.get("dry_run", False)
    if not isinstance(names, list) or not names or not all(name in NAMES for name in names):
        raise BadParameter("repairs must list what to mend.", parameter="repairs", allowed=NAMES)
    if not isinstance(dry, bool):
        raise BadParameter("dry_run is true or false.", parameter="dry_run")
    return partial(_answer_repair, request, [name for name in NAMES if name in names], dry=dry)


async def _answer_repair(request: web.Request, names: list[str], *, dry: bool) -> web.Response:
    # The body is in no other record of the request.
    request[RECORD].query = stated({"repairs": ",".join(names), "dry_run": int(dry)})
    fleet = request.app[SERVICE].together
    fleet.repairs.admit()
    return json_response({"dry_run": dry, "repairs": await fleet.repair(names, dry=dry)})
