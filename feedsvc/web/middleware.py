"""Middleware of every handler: a request id, its time, and problems for exceptions."""

import logging
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler

from feedsvc.core import cause
from feedsvc.core.cause import Cause
from feedsvc.core.logs import Tally
from feedsvc.core.problems import (
    BadRequest,
    ContentTooLarge,
    Internal,
    MethodNotAllowed,
    NotFound,
    Problem,
    RequestTimeout,
    Unavailable,
)
from feedsvc.core.timing import Stages
from feedsvc.web import cors, problems, resumption, security
from feedsvc.web.client_address import client_address
from feedsvc.web.context import CLIENT_ADDRESS, REQUEST_ID, SERVICE, SHORTAGES, STAGES, STANDING
from feedsvc.web.live.connection import SUBSCRIBER
from feedsvc.web.problems import LateBodyError
from feedsvc.web.record import RECORD, RequestRecord, request_id

logger = logging.getLogger(__name__)

_BODILESS: Final = frozenset({"GET", "HEAD", "DELETE", "OPTIONS"})


@web.middleware
async def identify(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give the request its id, stop-watch and record, and report its end."""
    request[REQUEST_ID] = request_id(request.headers.get("X-Request-ID"))
    request[STAGES] = Stages()
    cause.PRESENT.set(_cause(request))
    resource = request.match_info.route.resource
    request[RECORD] = RequestRecord("unknown" if resource is None else resource.canonical)
    trusted = request.app[SERVICE].settings.server.trusted_proxies
    if (address := client_address(request.remote, request.headers, trusted)) is not None:
        request[CLIENT_ADDRESS] = address
    try:
        response = await handler(request)
    except BaseException as error:
        if SUBSCRIBER in request:  # what came behind `hand_over` failed
            request[SUBSCRIBER].abandon()
        _publish_end(request, error)
        raise
    if SUBSCRIBER in request:  # it reports the end of its answer, which is still to come
        request[SUBSCRIBER].ended = request[RECORD].ended(request, response)
    else:
        _publish_end(request, response)
    return response


def _cause(request: web.Request) -> Cause:
    settings = request.app[SERVICE].settings
    given = settings.queries
    trace = cause.trace_of(request.headers.get("traceparent"), settings.tracing.begun)
    # Of those that begin here only some are a caller's wish, which is worth a parsing more.
    is_followed = trace is not None and trace.is_sampled and bool(trace.parent)
    return Cause(
        request[REQUEST_ID],
        request.rel_url.raw_query_string,
        given.slow,
        given.comment_pages or is_followed,
        trace,
    )


def _publish_end(request: web.Request, outcome: web.StreamResponse | BaseException) -> None:
    request.app[SERVICE].observers.publish(request[RECORD].ended(request, outcome))


@web.middleware
async def render_problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer with a problem where the handler raised, unless a body had already begun."""
    try:
        _refuse_body(request)
        return await handler(request)
    except ConnectionResetError:
        raise  # the client is gone, or a stream was broken off: no answer can be sent
    except Problem as problem:
        if problem.status >= 500:
            _log(request, problem)
        return _answer(request, problem)
    except LateBodyError:
        return _answer(request, RequestTimeout("The body did not arrive in time."))
    except web.RequestPayloadError:
        return _answer(request, BadRequest("The body can't be read as HTTP."))
    except web.HTTPException as error:
        return _answer(request, _problem_of(error))
    except Exception:
        logger.exception("%s: unforeseen", request[REQUEST_ID])
        return _answer(request, Internal("The service failed in a way that it did not foresee."))


def _log(request: web.Request, problem: Problem) -> None:
    """Log a failure with its cause; a mere shortage, which may meet thousands, with its count."""
    if problem.__cause__ is None and isinstance(problem, Unavailable):
        line = f"%d requests were refused: {problem.detail.replace('%', '%%')}"
        request.app[SHORTAGES].setdefault(line, Tally(line)).add()
    else:
        logger.warning("%s: %s", request[REQUEST_ID], problem, exc_info=problem.__cause__)


async def mark(request: web.Request, response: web.StreamResponse) -> None:
    """Put the common headers on every response, when its head is about to leave."""
    if REQUEST_ID in request:
        response.headers["X-Request-ID"] = request[REQUEST_ID]
        request[STAGES].answered()
    for name, value in request.get(STANDING, {}).items():
        response.headers.setdefault(name, value)
    resumption.mark(request, response)
    security.protect(response)
    cors.mark(request, response)
    if request.app[SERVICE].drain.begun:
        # The next request of this client is for another process.
        response.force_close()
        response.headers["Connection"] = "close"


def _refuse_body(request: web.Request) -> None:
    # Where nothing is answered, that is what to say.
    answered = request.match_info.http_exception is None
    if answered and request.method in _BODILESS and request.can_read_body:
        raise BadRequest(f"A {request.method} request has no body.")


def _answer(request: web.Request, problem: Problem) -> web.Response:
    request[RECORD].problem = problem
    response = problems.answer(problem, request.rel_url.raw_path, request[REQUEST_ID])
    if isinstance(problem, (BadRequest, RequestTimeout)):
        response.force_close()  # an unread body is not worth reading to keep the connection
    return response


def _problem_of(error: web.HTTPException) -> Problem:
    match error:
        case web.HTTPMethodNotAllowed():
            methods = sorted(error.allowed_methods)
            what = f"{error.method} is not answered here."
            return MethodNotAllowed(what, allowed=methods, headers={"Allow": ", ".join(methods)})
        case web.HTTPNotFound():
            return NotFound("There is nothing at this address.")
        case web.HTTPRequestEntityTooLarge():
            return ContentTooLarge("The body is larger than the service reads.")
        case web.HTTPClientError():
            return BadRequest("The request can't be answered as it is.")
        case _:
            return Internal("The service failed in a way that it did not foresee.")
