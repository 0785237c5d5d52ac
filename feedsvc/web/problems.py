"""Problems as answers, and the page behind each problem's type."""

import inspect
from typing import Final

import orjson
from aiohttp import web

from feedsvc.core.problems import NotFound, Problem, problem_types
from feedsvc.web import html_page as pages
from feedsvc.web.html_page import prose

CONTENT_TYPE: Final = "application/problem+json"


class BrokenOffError(ConnectionResetError):
    """A body was broken off behind its head; nothing more may be sent for the request."""


class LateBodyError(TimeoutError):
    """A request's body has not arrived in time; what reading it raises."""


def answer(problem: Problem, instance: str, request_id: str) -> web.Response:
    """The problem as a response."""
    return web.Response(
        status=problem.status,
        body=orjson.dumps(problem.body(instance, request_id), option=orjson.OPT_APPEND_NEWLINE),
        content_type=CONTENT_TYPE,
        headers={**problem.headers, "Cache-Control": "no-store"},
    )


async def page(request: web.Request) -> web.Response:
    """`GET /problems/{name}`: what the problem means and what to do."""
    kind = problem_types().get(request.match_info["name"])
    if kind is None:
        raise NotFound("There is no problem of this name.")
    paragraphs = inspect.cleandoc(kind.__doc__ or "").split("\n\n")
    where = f"<p><code>/problems/{kind.name}</code>, status {kind.status}</p>"
    body = "\n".join([where, *(f"<p>{prose(text)}</p>" for text in paragraphs)])
    return pages.response(pages.document(kind.title, body))
