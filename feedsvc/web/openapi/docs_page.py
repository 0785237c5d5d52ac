"""`GET /docs`: the contents of `/openapi.json` as a page."""

from collections.abc import Iterator, Mapping
from functools import cache
from html import escape
from typing import Final

from aiohttp import web

from feedsvc.core.json_object import Json
from feedsvc.web import html_page
from feedsvc.web.html_page import prose
from feedsvc.web.openapi.document import described

_CHAPTERS: Final[Mapping[str, str]] = {
    "/v1/": "Feeds",
    "/api/": "Operating it",
    "/": "For anyone, and for machines",
}
_INTRODUCTION: Final = (
    "{summary} Send a token as `Authorization: Bearer TOKEN`; `/v1/feeds` lists "
    "what it may read, with each feed's columns, orders and filters. A browser that can't send "
    "headers gets a ticket first. The same for machines is at "
)


async def read(_request: web.Request) -> web.Response:
    """`GET /docs`."""
    return html_page.response(_text(), Cache_Control="public, max-age=300")


@cache
def _text() -> str:
    api = described()
    left = dict(api["paths"])
    parts = [f"<p>{prose(_INTRODUCTION.format(summary=api['info']['description']))}"
             '<a href="/openapi.json"><code>/openapi.json</code></a>.</p>']  # fmt: skip
    for beginning, title in _CHAPTERS.items():
        here = [where for where in left if where.startswith(beginning)]
        parts.append(f"<h2>{title}</h2>")
        for where in here:
            parts += _path(where, left.pop(where))
    return html_page.document(f"feedsvc {api['info']['version']}", "\n".join(parts))


def _path(where: str, methods: Json) -> Iterator[str]:
    for method, operation in methods.items():
        if method != "head":
            also = ", <code>HEAD</code>" if method == "get" and "head" in methods else ""
            yield f"<h3><code>{method.upper()} {escape(where)}</code>{also}</h3>"
            yield from _operation(operation)


def _operation(operation: Json) -> Iterator[str]:
    yield f"<p>{prose(operation['summary'])}. <small>{_who(operation)}</small></p>"
    if "description" in operation:
        yield f"<p>{prose(operation['description'])}</p>"
    if operation.get("parameters"):
        yield "<table><tr><th>Parameter<th>In<th>Value<th>What it does"
        yield from map(_parameter, operation["parameters"])
        yield "</table>"
    if "requestBody" in operation:
        kinds = operation["requestBody"]["content"].items()
        sent = (f"<code>{escape(kind)}</code>: {_value(of['schema'])}" for kind, of in kinds)
        yield f"<p>Body: {'; '.join(sent)}.</p>"
    yield "<table><tr><th>Status<th>What it means<th>Body"
    refusals = []
    for status, answer in sorted(operation["responses"].items()):
        kinds = list(answer.get("content", {}))
        if kinds == ["application/problem+json"]:
            refusals.append(f"{status} ({prose(answer['description'])})")
            continue
        bodies = ", ".join(f"<code>{escape(kind)}</code>" for kind in kinds)
        yield f"<tr><td>{status}<td>{prose(answer['description'])}<td>{bodies}"
    yield "</table>"
    if refusals:
        yield f"<p><small>Refused with a problem (RFC 9457): {', '.join(refusals)}.</small></p>"


def _who(operation: Json) -> str:
    ways = [name for way in operation.get("security", ()) for name in way]
    return f"By {' or '.join(ways)}." if ways else "For anyone."


def _parameter(given: Json) -> str:
    needed = ", needed" if given.get("required") else ""
    what, value = prose(given.get("description", "")), _value(given["schema"])
    name = f"<code>{escape(given['name'])}</code>"
    return f"<tr><td>{name}<td>{given['in']}{needed}<td>{value}<td>{what}"


def _value(schema: Json) -> str:
    """The type of a value, in a few words."""
    if "enum" in schema:
        return " or ".join(f"<code>{escape(str(value))}</code>" for value in schema["enum"])
    if "properties" in schema:
        needed = schema.get("required", ())
        fields = (
            f"<code>{escape(name)}</code>{'' if name in needed else ' (if wanted)'}: {_value(of)}"
            for name, of in schema["properties"].items()
        )
        return f"an object of {', '.join(fields)}"
    if schema.get("type") == "array":
        return f"a list of {_value(schema.get('items', {}))}"
    kinds = schema.get("type", "anything")
    words = [*kinds] if isinstance(kinds, list) else [kinds]
    bounds = [schema.get("minimum"), schema.get("maximum")]
    span = " to ".join(f"{bound:,}" for bound in bounds if bound is not None)
    return escape(" or ".join(words) + (f", {span}" if span else ""))
