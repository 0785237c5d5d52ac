"""`/api/performance/cache` and `/pools`, for operators alone."""

from functools import partial
from importlib.resources import files
from typing import Final

from aiohttp import web

from feedsvc.backends.postgres import own_schema
from feedsvc.cache.items import as_logged
from feedsvc.core.principal import Principal
from feedsvc.core.problems import BadParameter
from feedsvc.web.bodies import json_object, json_response
from feedsvc.web.context import SERVICE, Answering
from feedsvc.web.operations.rights import only_operators, refuse_parameters
from feedsvc.web.record import RECORD
from feedsvc.web.request_summary import stated

_INVALIDATE: Final = (files("feedsvc.cache") / "invalidate.sql").read_text()
_MOST_TAGS: Final = 100
_LONGEST_TAG: Final = 1_024


async def parse_cache(request: web.Request, principal: Principal) -> Answering:
    """Judge `GET /api/performance/cache`."""
    only_operators(principal)
    refuse_parameters(request)
    return partial(_answer_cache, request)


async def _answer_cache(request: web.Request) -> web.Response:
    """This worker's figures."""
    service = request.app[SERVICE]
    await service.pages.catch_up()  # so that `log_read` says how it is now
    service.observers.catch_up()
    return json_response(service.cache_analytics.report(service.pages))


async def parse_pools(request: web.Request, principal: Principal) -> Answering:
    """Judge `GET /api/performance/pools`."""
    only_operators(principal)
    refuse_parameters(request)
    return partial(_answer_pools, request)


async def _answer_pools(request: web.Request) -> web.Response:
    """All workers' pools, the sizes that they need, and the standbys."""
    service = request.app[SERVICE]
    pools = await service.together.pools()
    replicas = [replica.figures() for replica in service.replicas.all]
    return json_response({"pools": pools, "replicas": replicas})


async def parse_invalidation(request: web.Request, principal: Principal) -> Answering:
    """Judge `POST /api/performance/cache/invalidate`: `{"tags": ["clients:rosewood"]}`."""
    only_operators(principal)
    tags = (await json_object(request)).get("tags")
    if not isinstance(tags, list) or not 1 <= len(tags) <= _MOST_TAGS:
        raise BadParameter(f"tags must be a list of 1 to {_MOST_TAGS} tags.", parameter="tags")
    if not all(isinstance(tag, str) and 1 <= len(tag) <= _LONGEST_TAG for tag in tags):
        what = f"A tag is text of 1 to {_LONGEST_TAG} characters, such as `clients:rosewood`."
        raise BadParameter(what, parameter="tags")
    request[RECORD].query = stated({"tags": ",".join(tags)})
    return partial(_answer_invalidation, request, tags)


async def _answer_invalidation(request: web.Request, tags: list[str]) -> web.Response:
    """Log the word for all workers, behind all changes that were committed before.

    So no page that is being read meanwhile outlives it.
    """
    service = request.app[SERVICE]
    async with own_schema.write_transaction(service.pools["write"]) as connection:
        encoding = connection.get_settings().server_encoding
        await connection.execute(_INVALIDATE, as_logged(tags, encoding))
    return json_response({"tags": tags, "heard": await service.pages.catch_up()})
