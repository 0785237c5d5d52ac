"""The key of a page: everything that its records depend on."""

import hashlib
from typing import Final

import orjson

from feedsvc.cache.envelope import PageKey
from feedsvc.core.principal import Principal
from feedsvc.datasets.dataset import Dataset
from feedsvc.feeds.query import FeedQuery
from feedsvc.feeds.sql.csv_projection import csv_record
from feedsvc.feeds.sql.json_projection import json_record
from streams.csv_record import CsvStyle
from streams.formats import CSV

_LONGEST: Final = 512  # bytes; a filter's value may have thousands, and a key is kept many times
_READABLE: Final = 256


def page_key(
    origin: str, dataset: str, principal: Principal, query: FeedQuery, limit: int | None
) -> PageKey:
    """The key of a query's first page, in this life of the database, for who asks.

    `dataset` is its fingerprint; without a limit it is the page that a stream begins with.
    """
    form = query.layout.csv if query.format is CSV else "json"
    made = orjson.dumps(
        (
            origin,
            principal.scope,
            dataset,
            form,
            query.layout.columns,
            [(part.column.name, part.descending) for part in query.order],
            [(c.column.name, c.op, c.values) for c in query.filters],
            query.after,
            limit,
        )
    )
    if len(made) <= _LONGEST:
        return made.decode()
    return f"{made[:_READABLE].decode(errors='replace')} {hashlib.sha256(made).hexdigest()}"


def fingerprint(dataset: Dataset, page_size: int) -> str:
    """The dataset's relation, whose rows of it a caller gets, how many make a page, its encoding.

    PostgreSQL encodes them, so the SQL that does it stands for this release's way of doing it.
    """
    columns = tuple(dataset.columns.values())
    held_to = dataset.tenant, dataset.client, dataset.shared_with_clients
    styles = CsvStyle(guard=True), CsvStyle(";", decimal_comma=True, zone="UTC")
    encoders = json_record(columns), *(csv_record(columns, style) for style in styles)
    parts = dataset.name, dataset.relation, columns, held_to, dataset.tags, page_size, encoders
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
