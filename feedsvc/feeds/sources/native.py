"""The use of the native encoder that two sources share."""

from __future__ import annotations  # of what is not there without the encoder

from typing import Literal

from feedsvc.feeds.query import FeedQuery
from feedsvc.feeds.sources.source import Batch, batch_of
from feedsvc.feeds.sql.binary_projection import BinaryRow, binary_row
from streams import encoder
from streams.formats import CSV


def native_row(query: FeedQuery) -> tuple[BinaryRow, encoder.Plan]:
    """The select list for the query, and the encoder's plan for it."""
    form: Literal["json", "csv"] = "csv" if query.format is CSV else "json"
    order = [part.column for part in query.order]
    style = query.layout.csv
    row = binary_row(query.columns, order, form, style)
    plan = encoder.Plan(
        row.columns,
        form,
        between=query.format.between(query.layout),
        keys=row.keys,
        delimiter=style.delimiter,
        guard=style.guard,
        quote_all=style.quote_all,
    )
    return row, plan


def native_batch(made: encoder.Batch | None) -> Batch | None:
    """A batch of the encoder's as one of a source."""
    return None if made is None else batch_of(made, made.rows, made.last, made.records)
