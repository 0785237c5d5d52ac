"""`GET /openapi.json`: the API's description (OpenAPI 3.1), for anyone.

It is made of the routes and the problems that there are, and says nothing of the operator's own
datasets: those are in `/v1/feeds`, for whoever has a token.
"""

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import version
from typing import Any, Final

import orjson
from aiohttp import web

from feedsvc.errors import problem_types
from feedsvc.web import headers

Json = dict[str, Any]

# What any guarded request may be answered with, beside what its operation lists.
_REFUSALS: Final = (400, 401, 403, 404, 405, 408, 413, 414, 429, 431, 500, 503, 504)

_DATASET: Final = {
    "name": "dataset",
    "in": "path",
    "required": True,
    "description": "A feed's name, as `/v1/feeds` lists it.",
    "schema": {"type": "string", "minLength": 1},
    "example": "invoices",
}
_KEY: Final = {
    "name": "key",
    "in": "path",
    "required": True,
    "description": "The row's key: its values, each percent-encoded, joined with `,`.",
    "schema": {"type": "string", "minLength": 1},
    "example": "1042",
}
_TICKET: Final = {"type": "apiKey", "in": "query", "name": "ticket"}
_BEARER: Final = {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}


def _parameter(name: str, description: str, schema: Json, place: str = "query") -> Json:
    return {"name": name, "in": place, "description": description, "schema": schema}


_COLUMNS: Final = _parameter("columns", "These columns, in this order: `a,b`.", {"type": "string"})
_FEED_PARAMETERS: Final[Sequence[Json]] = (
    _DATASET,
    _parameter(
        "format",
        "Else the best match of `Accept`, else JSON.",
        {"enum": ["json", "csv", "ndjson", "sse"]},
    ),
    _COLUMNS,
    _parameter(
        "limit",
        "At most so many rows. Up to 500 make one page, with `ETag` and `Link`.",
        {"type": "integer", "minimum": 0, "maximum": 2**63 - 1},
    ),
    _parameter("order", "One of the feed's orders.", {"type": "string"}),
    _parameter(
        "after",
        "Start behind the row with these values of the order's columns and the key, as text, each "
        "percent-encoded, joined with `,`.",
        {"type": "string"},
    ),
    _parameter("export", "The name of this export.", {"type": "string", "format": "uuid"}),
    _parameter("frames", "With ndjson: enveloped lines.", {"enum": ["0", "1"]}),
    _parameter(
        "progress",
        "Least seconds between progress frames.",
        {"type": "number", "minimum": 0.1, "maximum": 60},
    ),
    _parameter("last_event_id", "With sse: resume behind this event.", {"type": "string"}),
    _parameter("header", "With csv: whether the first record names columns.", {"enum": ["0", "1"]}),
    _parameter("bom", "With csv: a byte order mark, for Excel.", {"enum": ["0", "1"]}),
    _parameter("delimiter", "With csv.", {"enum": [",", ";", "tab"]}),
    _parameter("guard", "With csv: the formula guard.", {"enum": ["on", "off"]}),
    _parameter("Last-Event-ID", "With sse: resume; wins.", {"type": "string"}, "header"),
    _parameter("If-None-Match", "For a page: its ETag.", {"type": "string"}, "header"),
)
_NAMES: Final = {"type": "array", "items": {"type": "string"}}
_CATALOGUE: Final[Json] = {
    "type": "object",
    "required": ["feeds"],
    "properties": {
        "feeds": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name", "columns", "key", "orders", "filters", "formats", "url"],
                "properties": {
                    "name": {"type": "string"},
                    "columns": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "required": ["name", "type", "nullable"],
                            "properties": {
                                "name": {"type": "string"},
                                "type": {"type": "string"},
                                "nullable": {"type": "boolean"},
                            },
                        },
                    },
                    "key": _NAMES,
                    "orders": {"type": "object", "additionalProperties": _NAMES},
                    "filters": {"type": "object", "additionalProperties": _NAMES},
                    "formats": _NAMES,
                    "url": {"type": "string"},
                },
            },
        }
    },
}
_ROW: Final = {"type": "object"}
_TEXT: Final = {"type": "string"}
_INTERVAL: Final = _parameter(
    "interval",
    "With sse: seconds between events.",
    {"type": "number", "minimum": 1, "maximum": 60},
)
_STATE: Final = {"enum": ["ok", "degraded", "down"]}
_REPAIR: Final = {
    "enum": ["connections", "listener", "breakers", "indexes", "statistics", "sessions"]
}
_OBJECTS: Final = {"type": "array", "items": {"type": "object"}}
_ALERTS: Final[Json] = {
    "type": "object",
    "required": ["instance", "evaluated_at", "undelivered", "alerts", "history", "lacking"],
    "properties": {
        "instance": {"type": "string"},
        "evaluated_at": {"type": ["number", "null"], "description": "Seconds since 1970."},
        "undelivered": {"type": "integer", "description": "Messages that the webhook lacks."},
        "alerts": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name", "state", "since", "value", "severity", "todo"],
                "properties": {"state": {"enum": ["ok", "pending", "firing"]}},
            },
        },
        "history": _OBJECTS,
        "lacking": {"type": ["string", "null"]},
    },
}
_REPORT: Final[Json] = {
    "type": "object",
    "required": [
        "range", "from", "to", "lacking", "totals", "endpoints", "slowest", "problems", "database",
        "cache", "pools", "system", "now",
    ],
    "properties": {
        "range": {"enum": ["1h", "24h", "7d"]},
        "from": {"type": "number", "description": "Seconds since 1970."},
        "to": {"type": "number"},
        "lacking": {"type": ["string", "null"]},
        "totals": _ROW,
        "endpoints": _OBJECTS,
        "slowest": _OBJECTS,
        **dict.fromkeys(("problems", "database", "cache", "pools", "system", "now"), _ROW),
    },
}  # fmt: skip


def _answer(what: str, media: Mapping[str, Json], *names: str) -> Json:
    described = {name: {"schema": {"type": "string"}} for name in ("X-Request-ID", *names)}
    return {"description": what, "headers": described, "content": _content(media)}


def _content(media: Mapping[str, Json]) -> Json:
    return {kind: {"schema": schema} for kind, schema in media.items()}


_FEED: Final[Json] = {
    "summary": "A feed's rows, streamed",
    "description": (
        "Beside the parameters below each column that the feed lists in its `filters` is one: "
        "`column=value` or `column.OP=value`, with OP one of eq ne lt lte gt gte in prefix is. A "
        "body that ends properly is whole; on any failure the connection breaks off without the "
        "final chunk, and is continued with `after`."
    ),
    "parameters": _FEED_PARAMETERS,
    "responses": {
        "200": _answer(
            "The rows.",
            {
                "application/json": {"type": "array", "items": _ROW},
                "text/csv": _TEXT,
                "application/x-ndjson": _TEXT,
                "text/event-stream": _TEXT,
            },
            "Feed-Export",
            "Server-Timing",
            "RateLimit",
            "RateLimit-Policy",
        ),
        "204": {"description": "`Last-Event-ID: end`: there is nothing more to come."},
        "304": {"description": "The page is the one that If-None-Match names."},
    },
    "refusals": (*_REFUSALS, 406, 426),
}
_OPERATIONS: Final[Mapping[tuple[str, str], Json]] = {
    ("GET", "/v1/feeds"): {
        "summary": "What the caller may read",
        "responses": {"200": _answer("The feeds.", {"application/json": _CATALOGUE})},
    },
    ("GET", "/v1/feeds/{dataset}"): _FEED,
    ("GET", "/v1/feeds/{dataset}/{key}"): {
        "summary": "One row",
        "parameters": (_DATASET, _KEY, _COLUMNS),
        "responses": {"200": _answer("The row.", {"application/json": _ROW})},
        "refusals": (*_REFUSALS, 406),
    },
    ("POST", "/v1/tickets"): {
        "summary": "A ticket: good once, for half a minute, for one path",
        "description": "For an EventSource and for plain links, which can't send a header.",
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "required": ["path"],
                        "properties": {
                            "path": {"type": "string", "pattern": "^/v1/feeds(/[^?]*)?$"},
                        },
                    },
                    "example": {"path": "/v1/feeds/invoices"},
                }
            },
        },
        "responses": {
            "201": _answer(
                "The ticket, for `?ticket=`.",
                {
                    "application/json": {
                        "type": "object",
                        "required": ["ticket", "expires_in"],
                        "properties": {
                            "ticket": {"type": "string"},
                            "expires_in": {"type": "integer"},
                        },
                    }
                },
            )
        },
    },
    ("GET", "/api/performance/cache"): {
        "summary": "What the cache is worth, by dataset; for admins",
        "responses": {"200": _answer("This worker's figures.", {"application/json": _ROW})},
    },
    ("POST", "/api/performance/cache/invalidate"): {
        "summary": "Throws cached pages out by tag; for admins",
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "required": ["tags"],
                        "properties": {"tags": {**_NAMES, "minItems": 1, "maxItems": 100}},
                    },
                    "example": {"tags": ["invoices"]},
                }
            },
        },
        "responses": {
            "200": _answer(
                "Every worker has been told; `heard`: the one that answers has heard it.",
                {
                    "application/json": {
                        "type": "object",
                        "required": ["tags", "heard"],
                        "properties": {"tags": _NAMES, "heard": {"type": "boolean"}},
                    }
                },
            )
        },
    },
    ("GET", "/api/performance/pools"): {
        "summary": "Connections by operation: in use, waited for, which sizes would do; for admins",
        "responses": {
            "200": _answer(
                "All workers' pools, and the standbys as this worker sees them.",
                {
                    "application/json": {
                        "type": "object",
                        "required": ["pools", "replicas"],
                        "properties": {
                            "pools": {"type": "array", "items": _ROW},
                            "replicas": {"type": "array", "items": _ROW},
                        },
                    }
                },
            )
        },
    },
    ("GET", "/api/performance/health"): {
        "summary": "How each component is, as it was last looked at; for admins",
        "responses": {
            "200": _answer(
                "The state of the worker that answers, and of all that it needs.",
                {
                    "application/json": {
                        "type": "object",
                        "required": ["state", "worker", "checks"],
                        "properties": {
                            "state": _STATE,
                            "worker": {"type": "integer"},
                            "checks": {
                                "type": "array",
                                "items": {
                                    "type": "object",
                                    "required": [
                                        "name",
                                        "state",
                                        "what",
                                        "latency_ms",
                                        "age_ms",
                                        "figures",
                                        "repairs",
                                        "runbook",
                                    ],
                                    "properties": {
                                        "name": _TEXT,
                                        "state": _STATE,
                                        "what": _TEXT,
                                        "latency_ms": {"type": "number"},
                                        "age_ms": {"type": ["integer", "null"]},
                                        "figures": _ROW,
                                        "repairs": {"type": "array", "items": _REPAIR},
                                        "runbook": _TEXT,
                                    },
                                },
                            },
                        },
                    }
                },
            )
        },
    },
    ("POST", "/api/performance/health/repair"): {
        "summary": "Mends what can be mended safely, by name; for admins",
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "required": ["repairs"],
                        "additionalProperties": False,
                        "properties": {
                            "repairs": {"type": "array", "items": _REPAIR, "minItems": 1},
                            "dry_run": {"type": "boolean", "default": False},
                        },
                    },
                    "example": {"repairs": ["listener"], "dry_run": True},
                }
            },
        },
        "responses": {
            "200": _answer(
                "What came of each.",
                {
                    "application/json": {
                        "type": "object",
                        "required": ["dry_run", "repairs"],
                        "properties": {
                            "dry_run": {"type": "boolean"},
                            "repairs": {
                                "type": "array",
                                "items": {
                                    "type": "object",
                                    "required": ["name", "outcome", "what", "worker"],
                                    "properties": {
                                        "name": _REPAIR,
                                        "outcome": {
                                            "enum": [
                                                "done",
                                                "nothing",
                                                "started",
                                                "would",
                                                "refused",
                                                "failed",
                                            ]
                                        },
                                        "what": _TEXT,
                                        "worker": {"type": "integer"},
                                    },
                                },
                            },
                        },
                    }
                },
            )
        },
    },
    ("GET", "/api/performance/metrics"): {
        "summary": "What happened over the last hour, day or week, by endpoint; for admins",
        "description": (
            "Of all workers, with the range before it for comparison. Times are milliseconds, "
            "shares 0 to 1. Percentiles are right within 1 %. `lacking` says what is not in it."
        ),
        "parameters": (
            _parameter("range", "How far back.", {"enum": ["1h", "24h", "7d"], "default": "1h"}),
            _parameter("format", "Else by `Accept`, else JSON.", {"enum": ["json", "csv", "sse"]}),
            _INTERVAL,
        ),
        "responses": {
            "200": _answer(
                "The figures; as CSV the endpoints alone; as events all of it again and again.",
                {"application/json": _REPORT, "text/csv": _TEXT, "text/event-stream": _TEXT},
            )
        },
        "refusals": (*_REFUSALS, 406),
    },
    ("GET", "/api/performance/alerts"): {
        "summary": "Which alerts fire, and what became of them; for admins",
        "parameters": (
            _parameter("format", "Else by `Accept`, else JSON.", {"enum": ["json", "sse"]}),
            _INTERVAL,
        ),
        "responses": {
            "200": _answer(
                "Every alert, and the latest events; as events the alerts, again and again, and "
                "as soon as one has turned.",
                {"application/json": _ALERTS, "text/event-stream": _TEXT},
            )
        },
        "refusals": (*_REFUSALS, 406),
    },
    ("POST", "/api/performance/alerts/silences"): {
        "summary": "Lets nobody be told of an alert for a while; for admins",
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "required": ["alert", "for", "reason"],
                        "properties": {
                            "alert": {"type": "string"},
                            "for": {
                                "type": "string",
                                "pattern": "^[0-9]{1,6}[smhd]$",
                                "description": "How long, up to 30d; `0s` ends it.",
                            },
                            "reason": {"type": "string", "minLength": 1, "maxLength": 500},
                        },
                    },
                    "example": {"alert": "slow", "for": "2h", "reason": "the nightly import"},
                }
            },
        },
        "responses": {
            "201": _answer(
                "It is silenced, on every instance within seconds.",
                {
                    "application/json": {
                        "type": "object",
                        "required": ["alert", "until", "reason"],
                        "properties": {
                            "alert": {"type": "string"},
                            "until": {"type": "number", "description": "Seconds since 1970."},
                            "reason": {"type": "string"},
                        },
                    }
                },
            )
        },
    },
    ("GET", "/metrics"): {
        "summary": "All workers' figures for Prometheus; for admins",
        "responses": {
            "200": _answer(
                "Text in Prometheus's format, or OpenMetrics where Accept asks for it.",
                {"text/plain": _TEXT, "application/openmetrics-text": _TEXT},
            )
        },
    },
    ("GET", "/problems/{name}"): {
        "summary": "What a problem means, and what to do",
        "parameters": (
            {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}},
        ),
        "responses": {"200": _answer("A page.", {"text/html": _TEXT})},
    },
    ("GET", "/live"): {
        "summary": "Whether the process turns",
        "responses": {"200": _answer("It does.", {"text/plain": _TEXT})},
    },
    ("GET", "/ready"): {
        "summary": "Whether it should get requests",
        "responses": {
            status: _answer(
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
            "200": _answer("OpenAPI 3.1.", {"application/json": {"type": "object"}}, "ETag"),
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
    from feedsvc.web.routes import ROUTES, Protected  # noqa: PLC0415 - they list this page too

    guarded = {path(route.path): isinstance(route, Protected) for route in ROUTES}
    wanted = [(method, path(route.path)) for route in ROUTES for method in route.methods]
    return orjson.dumps(document(wanted, guarded))


def path(pattern: str) -> str:
    """A route's pattern as OpenAPI writes it."""
    return pattern.replace("{key:(?s:.*)}", "{key}")


def document(routes: Sequence[tuple[str, str]], guarded: Mapping[str, bool]) -> Json:
    """The description of these methods and paths. Raises KeyError for one that nobody described."""
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
    refusals = described.get("refusals", _REFUSALS if guarded else (400, 404, 405, 414, 431, 500))
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
