"""The description of feeds and tickets."""

from collections.abc import Mapping, Sequence
from typing import Final

from feedsvc.core.json_object import Json
from feedsvc.web.openapi.schemas import NAMES, REFUSALS, ROW, TEXT, answer, parameter

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
_COLUMNS: Final = parameter("columns", "These columns, in this order: `a,b`.", {"type": "string"})
_FEED_PARAMETERS: Final[Sequence[Json]] = (
    _DATASET,
    parameter(
        "format",
        "Else the best match of `Accept`, else JSON.",
        {"enum": ["json", "csv", "ndjson", "sse"]},
    ),
    _COLUMNS,
    parameter(
        "limit",
        "At most so many rows. Up to 500 make one page, with `ETag` and `Link`.",
        {"type": "integer", "minimum": 0, "maximum": 2**63 - 1},
    ),
    parameter("order", "One of the feed's orders.", {"type": "string"}),
    parameter(
        "after",
        "Start behind the row with these values of the order's columns and the key, as text, each "
        "percent-encoded, joined with `,`.",
        {"type": "string"},
    ),
    parameter("export", "The name of this export.", {"type": "string", "format": "uuid"}),
    parameter("frames", "With ndjson: enveloped lines.", {"enum": ["0", "1"]}),
    parameter(
        "progress",
        "Least seconds between progress frames.",
        {"type": "number", "minimum": 0.1, "maximum": 60},
    ),
    parameter("last_event_id", "With sse: resume behind this event.", {"type": "string"}),
    parameter(
        "since",
        "The cursor of an export or a delta: only what has changed since then, as ndjson or sse, "
        "ended by `sync`. Goes with `columns` and filters alone, those of the export.",
        {"type": "string", "maxLength": 4096},
    ),
    parameter(
        "wait",
        "With since: seconds to wait for a change.",
        {"type": "number", "minimum": 0, "maximum": 30},
    ),
    parameter(
        "seen",
        "With since: wait until the state contains this transaction, `pg_current_xact_id()`.",
        {"type": "string", "pattern": "^[0-9]{1,20}$"},
    ),
    parameter(
        "digest",
        "With since: count and digest of all rows in `sync`.",
        {"enum": ["0", "1"]},
    ),
    parameter(
        "live",
        "With sse: the rows, then what changes. Goes with `columns`, filters and `since` alone.",
        {"enum": ["0", "1"]},
    ),
    parameter("header", "With csv: whether the first record names columns.", {"enum": ["0", "1"]}),
    parameter("bom", "With csv: a byte order mark, for Excel.", {"enum": ["0", "1"]}),
    parameter("delimiter", "With csv.", {"enum": [",", ";", "tab"]}),
    parameter("guard", "With csv: the formula guard.", {"enum": ["on", "off"]}),
    parameter(
        "decimal",
        "With csv: what stands before decimals. A comma only with another delimiter.",
        {"enum": ["point", "comma"]},
    ),
    parameter(
        "datetime",
        "With csv: timestamps as in JSON, or as `2026-05-30 17:30:00` without an offset.",
        {"enum": ["iso", "excel"]},
    ),
    parameter(
        "tz",
        "With csv and `datetime=excel`: the time zone of timestamps, by its name in the IANA "
        "database; UTC if left out.",
        {"type": "string"},
    ),
    parameter("quote", "With csv: quote every field, NULL too.", {"enum": ["minimal", "all"]}),
    parameter("Last-Event-ID", "With sse: resume; wins.", {"type": "string"}, "header"),
    parameter("If-None-Match", "For a page: its ETag.", {"type": "string"}, "header"),
)
_LIVE_PARAMETERS: Final = (
    {
        "name": "feed",
        "in": "query",
        "required": True,
        "description": "A feed's name; again for each further one.",
        "schema": {
            "type": "array",
            "minItems": 1,
            "maxItems": 16,
            "items": {"type": "string"},
            "uniqueItems": True,
        },
    },
    parameter("since", "The id of an event, or a cursor: no snapshot.", {"type": "string"}),
    parameter("format", "Events alone.", {"enum": ["sse"]}),
    parameter("last_event_id", "As `since`, before it.", {"type": "string"}),
    parameter("Last-Event-ID", "As `since`; wins.", {"type": "string"}, "header"),
)
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
                    "key": NAMES,
                    "orders": {"type": "object", "additionalProperties": NAMES},
                    "filters": {"type": "object", "additionalProperties": NAMES},
                    "formats": NAMES,
                    "url": {"type": "string"},
                },
            },
        }
    },
}

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
        "200": answer(
            "The rows.",
            {
                "application/json": {"type": "array", "items": ROW},
                "text/csv": TEXT,
                "application/x-ndjson": TEXT,
                "text/event-stream": TEXT,
            },
            "Feed-Export",
            "Server-Timing",
            "RateLimit",
            "RateLimit-Policy",
        ),
        "204": {"description": "`Last-Event-ID: end`: there is nothing more to come."},
        "304": {"description": "The page is the one that If-None-Match names."},
    },
    "refusals": (*REFUSALS, 406, 409, 426),
}
OPERATIONS: Final[Mapping[tuple[str, str], Json]] = {
    ("GET", "/v1/feeds"): {
        "summary": "What the caller may read",
        "responses": {"200": answer("The feeds.", {"application/json": _CATALOGUE})},
    },
    ("GET", "/v1/feeds/{dataset}"): _FEED,
    ("GET", "/v1/feeds/{dataset}/{key}"): {
        "summary": "One row",
        "parameters": (_DATASET, _KEY, _COLUMNS),
        "responses": {"200": answer("The row.", {"application/json": ROW})},
        "refusals": (*REFUSALS, 406),
    },
    ("GET", "/v1/live"): {
        "summary": "Several feeds in one stream, then what changes",
        "description": (
            "Columns and filters of a feed have its name in front: `NAME.columns=a,b`, "
            "`NAME.column=value`. All feeds are at one state; each event but `sync` names its feed."
        ),
        "parameters": _LIVE_PARAMETERS,
        "responses": {
            "200": answer("The events.", {"text/event-stream": TEXT}),
            "204": {"description": "`Last-Event-ID: end`: there is nothing more to come."},
        },
        "refusals": (*REFUSALS, 406, 426),
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
                            "path": {"type": "string", "pattern": "^/v1/(feeds(/[^?]*)?|live)$"},
                        },
                    },
                    "example": {"path": "/v1/feeds/invoices"},
                }
            },
        },
        "responses": {
            "201": answer(
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
}
