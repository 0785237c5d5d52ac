"""The feeds: the catalogue, a feed's rows, one row."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

import orjson
from aiohttp import web

from feedsvc import parameters, statement, tenancy
from feedsvc.auth.principal import Principal
from feedsvc.datasets import Dataset
from feedsvc.errors import Forbidden, NotAcceptable, NotFound, TokenExpired
from feedsvc.export import Export, open_export
from feedsvc.faults import as_problems
from feedsvc.query import FeedQuery, parse_columns, parse_key
from feedsvc.statement import Statement
from feedsvc.web import headers
from feedsvc.web.delivery import Delivery, refuse_what_cannot_show_its_end
from feedsvc.web.keys import SERVICE, STAGES, Work
from feedsvc.web.particulars import PARTICULARS
from streams import negotiation
from streams.compression import CODINGS
from streams.formats import FORMATS, JSON, SSE
from streams.frames import Rows

_CODINGS: Final = tuple(name for name in CODINGS if name != "identity")
_ROW_HEADERS: Final = {"Cache-Control": "private, no-cache", "Vary": headers.VARY}


async def catalogue(request: web.Request, principal: Principal) -> Work:
    """`GET /v1/feeds`: what the caller may read."""
    parameters.refuse_unknown(_given(request), ())
    datasets = request.app[SERVICE].datasets.values()
    readable = [d for d in datasets if d.readable_by(principal.role, principal.client)]
    return _answering(_json(orjson.dumps({"feeds": [_described(dataset) for dataset in readable]})))


async def row(request: web.Request, principal: Principal) -> Work:
    """`GET /v1/feeds/{dataset}/{key}`: one row as a JSON object."""
    dataset = _dataset(request, principal)
    columns = parse_columns(_given(request), dataset)
    if negotiation.media_type(_accept(request), {JSON.name: JSON.media_types}) is None:
        raise NotAcceptable("One row is JSON alone.", allowed=JSON.media_types)
    try:
        # The raw path, for in it a `,` inside a key is told from one between keys.
        key = parse_key(request.rel_url.raw_path.split("/", 4)[4], dataset)
    except ValueError as error:
        raise NotFound(f"No row can have this key: {error}.") from None
    if request.method == "HEAD":
        return _answering(_json(b""))
    return partial(_row, request, principal, statement.one_row(dataset, columns, key, principal))


async def _row(request: web.Request, principal: Principal, wanted: Statement) -> web.Response:
    service, stages = request.app[SERVICE], request[STAGES]
    with as_problems():
        async with tenancy.reading(service.pools["read"], principal, stages) as connection:
            record = await connection.fetchval(wanted.sql, *wanted.arguments)
    stages.lap("db")
    if record is None:
        raise NotFound("There is no row with this key.")
    request[PARTICULARS].rows, request[PARTICULARS].size = 1, len(record)
    service.limits.charge(principal, 1, len(record))
    response = _json(record)
    response.headers["Server-Timing"] = stages.server_timing()
    return response


async def feed(request: web.Request, principal: Principal) -> Work:
    """`GET /v1/feeds/{dataset}`: the rows."""
    service = request.app[SERVICE]
    dataset = _dataset(request, principal)
    given = _given(request)
    query = FeedQuery.parse(given, dataset, _accept(request), request.headers.get("Last-Event-ID"))
    request[PARTICULARS].format = query.format.name
    charge = partial(service.limits.charge, principal)
    delivery = Delivery(request, query, _coding(request), service.settings.streams, charge)
    if query.is_over:
        return _answering(web.Response(status=204))  # what stops an EventSource
    if query.limit is not None and query.limit <= service.settings.streams.page_size:
        work = partial(_page, request, principal, query, delivery, given)
    else:
        refuse_what_cannot_show_its_end(request)
        work = partial(_stream, request, principal, query, delivery)
    return _answering(delivery.head()) if request.method == "HEAD" else work


async def _page(
    request: web.Request,
    principal: Principal,
    query: FeedQuery,
    delivery: Delivery,
    given: Mapping[str, str],
) -> web.StreamResponse:
    service = request.app[SERVICE]
    settings = service.settings.streams
    export = open_export(
        query, principal, service.pools["read"], settings.chunk_bytes, request[STAGES]
    )
    try:
        async with service.drain.running(short=True), export as rows:
            begun: list[Rows] = []
            if await _read_page(rows, begun, settings.page_bytes):
                return delivery.page(rows, begun, given)
            return await delivery.stream(rows, begun)
    except Exception as error:  # noqa: BLE001 - what no list foresaw must not look like an end
        await delivery.break_off(error)


async def _stream(
    request: web.Request, principal: Principal, query: FeedQuery, delivery: Delivery
) -> web.StreamResponse:
    service = request.app[SERVICE]
    pool, chunk_bytes = service.pools[query.dataset.pool], service.settings.streams.chunk_bytes
    try:
        async with (
            service.drain.running(short=False) as running,
            service.limits.stream(principal),
            open_export(query, principal, pool, chunk_bytes, request[STAGES]) as export,
        ):
            if query.format is SSE:
                running.interrupt_at(service.tokens.seconds_left(principal), TokenExpired())
            return await delivery.stream(export, ())
    except Exception as error:  # noqa: BLE001 - as above
        await delivery.break_off(error)


def _answering(response: web.Response) -> Work:
    async def answer() -> web.Response:
        return response

    return answer


async def _read_page(export: Export, rows: list[Rows], most_bytes: int) -> bool:
    """Reads a page into the list. False where it grew too large and has more to come."""
    size = 0
    while size <= most_bytes:
        taken = await export.take()
        if taken is None:
            return True
        rows.append(taken)
        size += sum(map(len, taken.records))
    return False


def _given(request: web.Request) -> dict[str, str]:
    """The request's parameters, without what let it in."""
    given = parameters.parse(request.rel_url.raw_query_string)
    given.pop("ticket", None)
    return given


def _dataset(request: web.Request, principal: Principal) -> Dataset:
    name = request.match_info["dataset"]
    dataset = request.app[SERVICE].datasets.get(name)
    if dataset is None:
        raise NotFound("There is no feed of this name; /v1/feeds lists them.")
    request[PARTICULARS].dataset = dataset.name
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
