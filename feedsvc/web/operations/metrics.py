"""`/metrics`: with an operator's token, and on a port of its own without one."""

from functools import partial

from aiohttp import web

from feedsvc.core.principal import Principal
from feedsvc.core.problems import Problem
from feedsvc.web import problems, security
from feedsvc.web.context import SERVICE, Answering, Service
from feedsvc.web.operations.rights import only_operators, refuse_parameters
from feedsvc.web.record import request_id


async def parse_metrics(request: web.Request, principal: Principal) -> Answering:
    """Judge `GET /metrics`."""
    only_operators(principal)
    refuse_parameters(request)
    return partial(_answer_metrics, request)


def application_of(service: Service) -> web.Application:
    """The application on the port of its own: this page, without a token."""
    app = web.Application()
    app[SERVICE] = service
    app.router.add_get("/metrics", _open)
    app.on_response_prepare.append(_protect)
    return app


async def _open(request: web.Request) -> web.Response:
    try:
        return await _answer_metrics(request)
    except Problem as problem:
        return problems.answer(problem, request.rel_url.raw_path, request_id(None))


async def _protect(request: web.Request, response: web.StreamResponse) -> None:
    security.protect(response)
    if request.app[SERVICE].drain.begun:
        response.force_close()  # the next scrape is for another process


async def _answer_metrics(request: web.Request) -> web.Response:
    exposition = request.app[SERVICE].observing.exposition
    text = await exposition.text(",".join(request.headers.getall("Accept", ())))
    headers = {"Content-Type": text.content_type, "Cache-Control": "no-store", "Vary": "Accept"}
    return web.Response(body=text.body, headers=headers)
