"""The feeds: the catalogue, a feed's rows, one row."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final
from urllib.parse import quote, urlencode

import asyncpg
import orjson
from aiohttp import web

from feedsvc.backends.postgres.faults import as_problems
from feedsvc.core.principal import Principal
from feedsvc.core.problems import BadParameter, Forbidden, NotAcceptable, NotFound
from feedsvc.datasets.dataset import Dataset
from feedsvc.feeds import parameters, transaction
from feedsvc.feeds.delta_query import DeltaQuery
from feedsvc.feeds.live.live_query import MOST_FEEDS, LiveQuery
from feedsvc.feeds.query import FeedQuery, parse_columns, parse_key
from feedsvc.feeds.slow_queries import Stopwatch
from feedsvc.feeds.sources import opened
from feedsvc.feeds.sql import statement
from feedsvc.feeds.sql.statement import Statement
from feedsvc.feeds.trial import refuse_bad_values, refuse_what_is_no_text
from feedsvc.web import headers
from feedsvc.web.context import SERVICE, STAGES, Answering
from feedsvc.web.feeds.answers import answer_delta, answer_live, answer_page, answer_stream
from feedsvc.web.feeds.breaking_off import refuse_what_cannot_show_its_end
from feedsvc.web.feeds.delta_response import DeltaResponse
from feedsvc.web.feeds.feed_response import FeedResponse
from feedsvc.web.feeds.live_response import LiveResponse
from feedsvc.web.feeds.rendering import PageForm
from feedsvc.web.record import RECORD
from streams import negotiation
from streams.compression import CODINGS
from streams.formats import FORMATS, JSON, SSE

_CODINGS: Final = tuple(name for name in CODINGS if name != "identity")
_WHERE_IT_BEGINS: Final = frozenset({"since", "last_event_id"})
_ROW_HEADERS: Final = {"Cache-Control": "private, no-cache", "Vary": headers.VARY}


async def catalogue(request: web.Request, principal: Principal) -> Answering:
    """`GET /v1/feeds`: what the caller may read."""
    parameters.refuse_unknown(_given(request), ())
    datasets = request.app[SERVICE].datasets.values()
    readable = [d for d in datasets if d.readable_by(principal.role, principal.client)]
    return _answering(_json(orjson.dumps({"feeds": [_described(dataset) for dataset in readable]})))


async def row(request: web.Request, principal: Principal) -> Answering:
    """`GET /v1/feeds/{dataset}/{key}`: one row as a JSON object."""
    dataset = _dataset(request, principal)
    columns = parse_columns(_given(request), dataset)
    if negotiation.media_type(_accept(request), {JSON.name: JSON.media_types}) is None:
        raise NotAcceptable("One row is JSON alone.", allowed=JSON.media_types)
    try:
        # The raw path, in which a `,` inside a key differs from one between keys.
        key = parse_key(request.rel_url.raw_path.split("/", 4)[4], dataset)
    except ValueError as error:
        raise NotFound(f"No row can have this key: {error}.") from None
    if request.method == "HEAD":
        return _answering(_json(b""))
    wanted = statement.one_row(dataset, columns, key, principal)
    values = statement.values_of_key(dataset, key, principal)
    return partial(_row, request, principal, wanted, values)


async def _row(
    request: web.Request, principal: Principal, wanted: Statement, values: Statement
) -> web.Response:
    service, stages = request.app[SERVICE], request[STAGES]
    pool, dataset = service.pools["read"], request[RECORD].dataset
    name = request.match_info["dataset"]
    stopwatch = Stopwatch(pool, name, "row", f"{quote(name)} row")
    with as_problems(service.observers):
        try:
            async with transaction.reading(pool, principal, stages, dataset=dataset) as reading:
                stopwatch.on(reading.connection)
                with stopwatch.counting():
                    record = await opened.value(reading.connection, wanted, 1)
                    stopwatch.rows = int(record is not None)
                refuse_what_is_no_text(reading.connection, record or b"")
        except asyncpg.DataError:
            await refuse_bad_values(pool, values)
            raise
    stages.lap("db")
    if record is None:
        raise NotFound("There is no row with this key.")
    request[RECORD].rows, request[RECORD].size = 1, len(record)
    service.limits.charge(principal, 1, len(record))
    response = _json(record)
    response.headers["Server-Timing"] = stages.server_timing(words=principal.operator)
    return response


async def feed(request: web.Request, principal: Principal) -> Answering:
    """`GET /v1/feeds/{dataset}`: the rows."""
    service = request.app[SERVICE]
    dataset = _dataset(request, principal)
    given = _given(request)
    if given.get("live") == "0":
        del given["live"]
    if "live" in given:
        return _live(request, principal, dataset, given)
    if "since" in given:
        return _delta(request, principal, dataset, given)
    query = FeedQuery.parse(given, dataset, _accept(request), request.headers.get("Last-Event-ID"))
    request[RECORD].format = query.format.name
    form = PageForm(query, _coding(request), request.rel_url.raw_path, given)
    response = FeedResponse(request, form, partial(service.limits.charge, principal))
    if query.is_over:
        return _answering(web.Response(status=204))  # what stops an EventSource
    is_page = query.limit is not None and query.limit <= service.settings.streams.page_size
    if not is_page:
        refuse_what_cannot_show_its_end(request)
    if request.method == "HEAD":
        return _answering(response.head(is_page=is_page))
    answer = answer_page if is_page else answer_stream
    return partial(answer, request, principal, response)


def _delta(
    request: web.Request, principal: Principal, dataset: Dataset, given: Mapping[str, str]
) -> Answering:
    """The changes since a cursor."""
    seen = request.headers.get("Last-Event-ID")
    query = DeltaQuery.parse(given, dataset, _accept(request), seen)
    request[RECORD].format = query.format.name
    charge = partial(request.app[SERVICE].limits.charge, principal)
    response = DeltaResponse(request, query, _coding(request), given, charge)
    refuse_what_cannot_show_its_end(request)
    if request.method == "HEAD":
        return _answering(response.head())
    return partial(answer_delta, request, principal, query, response)


def _live(
    request: web.Request, principal: Principal, dataset: Dataset, given: Mapping[str, str]
) -> Answering:
    """The rows, then what changes."""
    seen = request.headers.get("Last-Event-ID")
    query = LiveQuery.parse(given, dataset, _accept(request), seen)
    return _answering_live(request, principal, query, given)


async def live(request: web.Request, principal: Principal) -> Answering:
    """`GET /v1/live`: several feeds in one stream, at one state."""
    names, given = _feeds_of(request)
    datasets = {name: _named(request, principal, name) for name in names}
    seen = request.headers.get("Last-Event-ID")
    query = LiveQuery.parse_several(given, datasets, _accept(request), seen)
    feeds = [("feed", name) for name in names]
    return _answering_live(request, principal, query, given, feeds)


def _answering_live(
    request: web.Request,
    principal: Principal,
    query: LiveQuery,
    given: Mapping[str, str],
    feeds: Sequence[tuple[str, str]] = (),
) -> Answering:
    request[RECORD].format = SSE.name
    if query.is_over:
        return _answering(web.Response(status=204))
    refuse_what_cannot_show_its_end(request)
    kept = [(n, value) for n, value in given.items() if n not in _WHERE_IT_BEGINS]
    address = f"{request.rel_url.raw_path}?{urlencode([*feeds, *kept])}"
    response = LiveResponse(request, query, principal, address)
    if request.method == "HEAD":
        return _answering(response.head())
    return partial(answer_live, request, principal, response)


def _feeds_of(request: web.Request) -> tuple[list[str], dict[str, str]]:
    """The feeds that are named, and all other parameters. Raises BadParameter."""
    pieces = request.rel_url.raw_query_string.split("&")
    named = [piece for piece in pieces if piece.partition("=")[0] == "feed"]
    names = [parameters.parse(piece)["feed"] for piece in named]
    given = parameters.parse("&".join(piece for piece in pieces if piece not in named))
    given.pop("ticket", None)
    allowed = [f"1 to {MOST_FEEDS} feeds of /v1/feeds, each once"]
    if not 1 <= len(names) <= MOST_FEEDS or len(set(names)) < len(names):
        what = "feed must name one of the feeds, and may stand again for another."
        raise BadParameter(what, parameter="feed", allowed=allowed)
    return names, given


def _answering(response: web.Response) -> Answering:
    async def answer() -> web.Response:
        return response

    return answer


def _given(request: web.Request) -> dict[str, str]:
    """The request's parameters, without what let it in."""
    given = parameters.parse(request.rel_url.raw_query_string)
    given.pop("ticket", None)
    return given


def _dataset(request: web.Request, principal: Principal) -> Dataset:
    return _named(request, principal, request.match_info["dataset"])


def _named(request: web.Request, principal: Principal, name: str) -> Dataset:
    dataset = request.app[SERVICE].datasets.get(name)
    if dataset is None:
        raise NotFound("There is no feed of this name; /v1/feeds lists them.")
    request[RECORD].dataset = dataset.name
    if not dataset.readable_by(principal.role, principal.client):
        raise Forbidden("This token may not read this feed.")
    if not dataset.admits(principal.tenant, principal.client):
        raise Forbidden("This token's tenant or client can't have rows in this feed.")
    return dataset


def _accept(request: web.Request) -> str:
    return ",".join(request.headers.getall("Accept", ()))


def _coding(request: web.Request) -> str:
    given = request.headers.getall("Accept-Encoding", None)
    coding = negotiation.coding(None if given is None else ",".join(given), _CODINGS)
    if coding is None:
        raise NotAcceptable("No coding matches Accept-Encoding.", allowed=list(CODINGS))
    return coding


def _json(body: bytes) -> web.Response:
    return web.Response(
        body=body + b"\n" * bool(body), content_type="application/json", headers=_ROW_HEADERS
    )


def _described(dataset: Dataset) -> dict[str, Any]:
    return {
        "name": dataset.name,
        "columns": [
            {"name": c.name, "type": c.type, "nullable": c.nullable}
            for c in dataset.columns.values()
        ],
        "key": [column.name for column in dataset.key],
        "orders": {
            name: [part.column.name for part in order] for name, order in dataset.orders.items()
        },
        "filters": {column: list(ops) for column, ops in dataset.filters.items()},
        "formats": list(FORMATS),
        "url": f"/v1/feeds/{dataset.name}",
    }
