"""What the two sources that use the native encoder have in common."""

from __future__ import annotations  # of what is not there without the encoder

from typing import Literal

from feedsvc.feeds.query import FeedQuery
from feedsvc.feeds.sources.source import Batch, batch_of
from feedsvc.feeds.sql.binary_projection import BinaryRow, binary_row
from streams import encoder
from streams.formats import CSV


def native_row(query: FeedQuery) -> tuple[BinaryRow, encoder.Plan]:
    """What is to be selected for the query, and the encoder's plan for it."""
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
    """What an encoder made, as a source gives it."""
    return None if made is None else batch_of(made, made.rows, made.last, made.records)
