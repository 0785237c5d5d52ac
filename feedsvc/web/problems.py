"""Problems as answers, and the page behind each problem's type."""

import inspect
from html import escape
from typing import Final

import orjson
from aiohttp import web

from feedsvc.errors import NotFound, Problem, problem_types
from feedsvc.web import security

CONTENT_TYPE: Final = "application/problem+json"

_STYLE: Final = """body { font: 1rem/1.5 system-ui, sans-serif; max-width: 40rem; margin: 3rem auto;
padding: 0 1rem } code { background: #8882; padding: 0 .2em }"""
_PAGE_HEADERS: Final = {"Content-Security-Policy": security.policy_with_style(_STYLE)}

_PAGE: Final = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>{style}</style>
<h1>{title}</h1>
<p><code>/problems/{name}</code>, status {status}</p>
{paragraphs}
</html>
"""


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
    text = _PAGE.format(
        style=_STYLE,
        title=escape(kind.title),
        name=kind.name,
        status=kind.status,
        paragraphs="\n".join(f"<p>{_code(escape(p))}</p>" for p in paragraphs),
    )
    return web.Response(text=text, content_type="text/html", headers=_PAGE_HEADERS)


def _code(text: str) -> str:
    pieces = text.split("`")
    return "".join(f"<code>{p}</code>" if i % 2 else p for i, p in enumerate(pieces))
