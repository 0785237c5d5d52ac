"""`GET /openapi.json`: the API's description (OpenAPI 3.1), for anyone.

It is generated from the routes and the problems, and leaves out the operator's own datasets,
which `/v1/feeds` lists for the holder of a token.
"""

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import version
from typing import Final

import orjson
from aiohttp import web

from feedsvc.core.json_object import Json
from feedsvc.core.problems import problem_types
from feedsvc.web import headers
from feedsvc.web.openapi import feeds, operations
from feedsvc.web.openapi.schemas import REFUSALS, TEXT, answer
from feedsvc.web.routes import READ, ROUTES, ProtectedRoute

_OWN_PAGES: Final = ("/openapi.json", "/docs")
_TICKET: Final = {"type": "apiKey", "in": "query", "name": "ticket"}
_BEARER: Final = {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
_OPERATIONS: Final[Mapping[tuple[str, str], Json]] = {
    **feeds.OPERATIONS,
    **operations.OPERATIONS,
    ("GET", "/docs"): {
        "summary": "This description as a page",
        "responses": {"200": answer("A page without scripts.", {"text/html": TEXT})},
    },
    ("GET", "/problems/{name}"): {
        "summary": "What a problem means, and what to do",
        "parameters": (
            {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}},
        ),
        "responses": {"200": answer("A page.", {"text/html": TEXT})},
    },
    ("GET", "/live"): {
        "summary": "Whether the process turns",
        "responses": {"200": answer("It does.", {"text/plain": TEXT})},
    },
    ("GET", "/ready"): {
        "summary": "Whether it should get requests",
        "responses": {
            status: answer(
                what,
                {
                    "application/json": {
                        "type": "object",
                        "required": ["ready", "reason"],
                        "properties": {
                            "ready": {"type": "boolean"},
                            "reason": {"type": ["string", "null"]},
                        },
                    }
                },
            )
            for status, what in (("200", "It should."), ("503", "It should not, and why."))
        },
    },
    ("GET", "/openapi.json"): {
        "summary": "This description",
        "responses": {
            "200": answer("OpenAPI 3.1.", {"application/json": {"type": "object"}}, "ETag"),
            "304": {"description": "It is the one that If-None-Match names."},
        },
    },
}
_PROBLEM: Final[Json] = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "instance", "request_id"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string"},
        "request_id": {"type": "string"},
        "parameter": {"type": "string"},
        "allowed": {"type": "array", "items": {"type": "string"}},
    },
}


async def describe(request: web.Request) -> web.Response:
    """`GET /openapi.json`."""
    body = _document_bytes()
    tag = f'"{hashlib.blake2b(body, digest_size=16).hexdigest()}"'
    fields = {"ETag": tag, "Cache-Control": "public, max-age=300"}
    if headers.matches(request.headers.get("If-None-Match"), tag):
        return web.Response(status=304, headers=fields)
    return web.Response(body=body, content_type="application/json", headers=fields)


@cache
def _document_bytes() -> bytes:
    return orjson.dumps(described())


def described() -> Json:
    """The description of all that is served."""
    guarded = {path(route.path): isinstance(route, ProtectedRoute) for route in ROUTES}
    wanted = [(method, path(route.path)) for route in ROUTES for method in route.methods]
    wanted += [(method, page) for page in _OWN_PAGES for method in READ]
    return document(wanted, guarded | dict.fromkeys(_OWN_PAGES, False))


def path(pattern: str) -> str:
    """A route's pattern as OpenAPI writes it."""
    return pattern.replace("{key:(?s:.*)}", "{key}")


def document(routes: Sequence[tuple[str, str]], guarded: Mapping[str, bool]) -> Json:
    """The description of these methods and paths. Raises KeyError for one without a description."""
    paths: dict[str, Json] = {}
    for method, where in routes:
        described = _OPERATIONS["GET" if method == "HEAD" else method, where]
        operation = _operation(method, described, guarded[where])
        paths.setdefault(where, {})[method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "feedsvc",
            "version": version("feedsvc"),
            "description": "PostgreSQL's rows as JSON, CSV, NDJSON or server-sent events.",
        },
        "paths": paths,
        "components": {
            "schemas": {"Problem": _PROBLEM},
            "securitySchemes": {"token": _BEARER, "ticket": _TICKET},
        },
    }


def _operation(method: str, described: Json, guarded: bool) -> Json:
    own = described["responses"]
    if method == "HEAD":
        own = {status: {k: v for k, v in a.items() if k != "content"} for status, a in own.items()}
    refusals = described.get("refusals", REFUSALS if guarded else (400, 404, 405, 414, 431, 500))
    operation = {
        "summary": described["summary"] + (", its headers alone" if method == "HEAD" else ""),
        "responses": {**{str(s): _refusal(method, s) for s in refusals}, **own},
    }
    for name in ("description", "parameters", "requestBody"):
        if name in described:
            operation[name] = described[name]
    if guarded:
        operation["security"] = [{"token": []}, *([] if method == "POST" else [{"ticket": []}])]
    return operation


def _refusal(method: str, status: int) -> Json:
    kinds = sorted(kind.title for kind in problem_types().values() if kind.status == status)
    refusal: Json = {"description": " or ".join(kinds)}
    if method != "HEAD":
        refusal["content"] = {
            "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
        }
    return refusal
