"""The description of what operators ask for: `/api/performance/…` and `/metrics`."""

from collections.abc import Mapping
from typing import Final

from feedsvc.core.json_object import Json
from feedsvc.web.openapi.schemas import NAMES, REFUSALS, ROW, TEXT, answer, parameter

_INTERVAL: Final = parameter(
    "interval",
    "With sse: seconds between events.",
    {"type": "number", "minimum": 1, "maximum": 60},
)
_FORMAT: Final = parameter(
    "format", "Else by `Accept`, else JSON.", {"enum": ["json", "csv", "sse"]}
)
_RANGE: Final = parameter("range", "How far back.", {"enum": ["1h", "24h", "7d"], "default": "1h"})
_STATE: Final = {"enum": ["ok", "degraded", "down"]}
_REPAIR: Final = {
    "enum": ["connections", "log_reader", "breakers", "indexes", "statistics", "sessions"]
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
        "queries", "cache", "pools", "system", "now",
    ],
    "properties": {
        "range": {"enum": ["1h", "24h", "7d"]},
        "from": {"type": "number", "description": "Seconds since 1970."},
        "to": {"type": "number"},
        "lacking": {"type": ["string", "null"]},
        "totals": ROW,
        "endpoints": _OBJECTS,
        "slowest": _OBJECTS,
        **dict.fromkeys(
            ("problems", "database", "queries", "cache", "pools", "system", "now"), ROW
        ),
    },
}  # fmt: skip
OPERATIONS: Final[Mapping[tuple[str, str], Json]] = {
    ("GET", "/api/performance/cache"): {
        "summary": "What the cache is worth, by dataset; for operators",
        "responses": {"200": answer("This worker's figures.", {"application/json": ROW})},
    },
    ("POST", "/api/performance/cache/invalidate"): {
        "summary": "Throws cached pages out by tag; for operators",
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "required": ["tags"],
                        "properties": {"tags": {**NAMES, "minItems": 1, "maxItems": 100}},
                    },
                    "example": {"tags": ["invoices"]},
                }
            },
        },
        "responses": {
            "200": answer(
                "All workers are notified; `heard`: the one that answers has applied it.",
                {
                    "application/json": {
                        "type": "object",
                        "required": ["tags", "heard"],
                        "properties": {"tags": NAMES, "heard": {"type": "boolean"}},
                    }
                },
            )
        },
    },
    ("GET", "/api/performance/pools"): {
        "summary": "Connections by operation: in use, waited for, better sizes; for operators",
        "responses": {
            "200": answer(
                "All workers' pools, and the standbys as this worker sees them.",
                {
                    "application/json": {
                        "type": "object",
                        "required": ["pools", "replicas"],
                        "properties": {
                            "pools": {"type": "array", "items": ROW},
                            "replicas": {"type": "array", "items": ROW},
                        },
                    }
                },
            )
        },
    },
    ("GET", "/api/performance/health"): {
        "summary": "How each component is, as it was last looked at; for operators",
        "responses": {
            "200": answer(
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
                                        "name": TEXT,
                                        "state": _STATE,
                                        "what": TEXT,
                                        "latency_ms": {"type": "number"},
                                        "age_ms": {"type": ["integer", "null"]},
                                        "figures": ROW,
                                        "repairs": {"type": "array", "items": _REPAIR},
                                        "runbook": TEXT,
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
        "summary": "Mends what can be mended safely, by name; for operators",
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
                    "example": {"repairs": ["log_reader"], "dry_run": True},
                }
            },
        },
        "responses": {
            "200": answer(
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
                                        "what": TEXT,
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
    ("GET", "/api/performance/queries"): {
        "summary": "Statements by total time, with plan, findings and score; for operators",
        "description": (
            "The service's own statements of all workers, and those of `pg_stat_statements`, which "
            "are counted since its last reset. `repeated` has requests of one principal that "
            "one could replace, and that one. No value of a row or a parameter is in it."
        ),
        "parameters": (_RANGE, _FORMAT, _INTERVAL),
        "responses": {
            "200": answer(
                "`lacking` says what could not be looked at. As CSV the statements alone; as "
                "events all of it again and again.",
                {
                    "text/csv": TEXT,
                    "text/event-stream": TEXT,
                    "application/json": {
                        "type": "object",
                        "required": [
                            "range",
                            "from",
                            "to",
                            "lacking",
                            "statements",
                            "proposals",
                            "slow",
                            "repeated",
                        ],
                        "properties": {
                            "lacking": NAMES,
                            "statements": _OBJECTS,
                            "proposals": _OBJECTS,
                            "slow": _OBJECTS,
                            "repeated": _OBJECTS,
                        },
                    },
                },
            )
        },
        "refusals": (*REFUSALS, 406),
    },
    ("GET", "/api/performance/metrics"): {
        "summary": "What happened over the last hour, day or week, by endpoint; for operators",
        "description": (
            "Of all workers, with the range before it for comparison. Times are milliseconds, "
            "shares 0 to 1. Percentiles are right within 1 %. `lacking` says what is not in it."
        ),
        "parameters": (_RANGE, _FORMAT, _INTERVAL),
        "responses": {
            "200": answer(
                "The figures; as CSV the endpoints alone; as events all of it again and again.",
                {"application/json": _REPORT, "text/csv": TEXT, "text/event-stream": TEXT},
            )
        },
        "refusals": (*REFUSALS, 406),
    },
    ("GET", "/api/performance/alerts"): {
        "summary": "Which alerts fire, and what became of them; for operators",
        "parameters": (
            parameter("format", "Else by `Accept`, else JSON.", {"enum": ["json", "sse"]}),
            _INTERVAL,
        ),
        "responses": {
            "200": answer(
                "Every alert, and the latest events; as events the alerts, again and again, and "
                "as soon as one has turned.",
                {"application/json": _ALERTS, "text/event-stream": TEXT},
            )
        },
        "refusals": (*REFUSALS, 406),
    },
    ("POST", "/api/performance/alerts/silences"): {
        "summary": "Silences an alert's notifications for a while; for operators",
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
            "201": answer(
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
        "summary": "All workers' figures for Prometheus; for operators",
        "responses": {
            "200": answer(
                "Text in Prometheus's format, or OpenMetrics where Accept asks for it.",
                {"text/plain": TEXT, "application/openmetrics-text": TEXT},
            )
        },
    },
}
