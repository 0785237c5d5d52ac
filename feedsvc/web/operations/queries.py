"""`/api/performance/queries`: statements with plan, findings and score, for operators alone."""

from functools import partial
from typing import Final

from aiohttp import web

from feedsvc.core.principal import Principal
from feedsvc.feeds import parameters
from feedsvc.operations.performance.tracker import RANGES, ReportRange
from feedsvc.web.bodies import json_response
from feedsvc.web.context import SERVICE, Answering
from feedsvc.web.operations.rights import only_operators

_PARAMETERS: Final = ("range", "ticket")


async def parse_queries(request: web.Request, principal: Principal) -> Answering:
    """Judge `GET /api/performance/queries`."""
    only_operators(principal)
    given = parameters.parse(request.rel_url.raw_query_string)
    parameters.refuse_unknown(given, _PARAMETERS)
    wanted = parameters.choice(given, "range", {name: name for name in RANGES}, "1h")
    return partial(_answer, request, wanted)


async def _answer(request: web.Request, wanted: ReportRange) -> web.Response:
    service = request.app[SERVICE]
    tracker = service.observing.tracker
    service.observers.catch_up()
    return json_response(await service.advisor.report(tracker, wanted))
