"""`/api/performance/…`: what an operator looks at, for operators alone."""

from functools import partial
from importlib.resources import files
from typing import Any, Final

import orjson
from aiohttp import web

from feedsvc.backends.postgres import own_schema
from feedsvc.core.principal import Principal
from feedsvc.core.problems import BadParameter, BadRequest
from feedsvc.datasets.tags import all_under
from feedsvc.feeds import parameters
from feedsvc.web.context import SERVICE, Answering
from feedsvc.web.operations.rights import only_operators
from feedsvc.web.record import RECORD
from feedsvc.web.request_summary import stated

_INVALIDATE: Final = (files("feedsvc.cache") / "invalidate.sql").read_text()
_MOST_TAGS: Final = 100
_LONGEST_TAG: Final = 1_024


async def cache(request: web.Request, principal: Principal) -> Answering:
    """`GET /api/performance/cache`: this worker's figures."""
    only_operators(principal)
    parameters.refuse_unknown(parameters.parse(request.rel_url.raw_query_string), ("ticket",))
    return partial(_figures, request)


async def pools(request: web.Request, principal: Principal) -> Answering:
    """`GET /api/performance/pools`: all workers' pools, and what their sizes should be."""
    only_operators(principal)
    parameters.refuse_unknown(parameters.parse(request.rel_url.raw_query_string), ("ticket",))
    return partial(_pools, request)


async def invalidate(request: web.Request, principal: Principal) -> Answering:
    """`POST /api/performance/cache/invalidate`: `{"tags": ["clients:rosewood"]}`."""
    only_operators(principal)
    tags = _tags(await request.read())
    request[RECORD].query = stated({"tags": ",".join(tags)})
    return partial(_invalidated, request, tags)


async def _figures(request: web.Request) -> web.Response:
    service = request.app[SERVICE]
    service.observers.catch_up()
    return _json(service.cache_analytics.report(service.pages))


async def _pools(request: web.Request) -> web.Response:
    service = request.app[SERVICE]
    return _json(
        {
            "pools": await service.together.pools(),
            "replicas": [replica.figures() for replica in service.replicas.all],
        }
    )


async def _invalidated(request: web.Request, tags: list[str]) -> web.Response:
    """Every worker is told by PostgreSQL, behind whatever was committed before; so no page that
    is being read meanwhile outlives this.
    """
    service = request.app[SERVICE]
    async with own_schema.write_transaction(service.pools["write"]) as connection:
        await connection.execute(_INVALIDATE, " ".join(map(all_under, tags)))
    return _json({"tags": tags, "heard": await service.pages.catch_up()})


def _tags(body: bytes) -> list[str]:
    try:
        asked = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise BadRequest("The body is not JSON.") from None
    tags = asked.get("tags") if isinstance(asked, dict) else None
    if not isinstance(tags, list) or not 1 <= len(tags) <= _MOST_TAGS:
        raise BadParameter(f"tags must be a list of 1 to {_MOST_TAGS} tags.", parameter="tags")
    if not all(isinstance(tag, str) and 1 <= len(tag) <= _LONGEST_TAG for tag in tags):
        what = f"A tag is text of 1 to {_LONGEST_TAG} characters, such as `clients:rosewood`."
        raise BadParameter(what, parameter="tags")
    return tags


def _json(plain: Any) -> web.Response:
    return web.Response(
        body=orjson.dumps(plain) + b"\n",
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )
