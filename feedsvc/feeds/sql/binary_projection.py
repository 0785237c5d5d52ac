"""Rows in PostgreSQL's binary form, for the native encoder to make records of.

What the encoder has no kind for, and what a CSV file has in another style, comes as JSON or as text
that PostgreSQL makes, in the same row. So
the records are those of `projection` and `csv_projection`, byte for byte.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from feedsvc.datasets.dataset import Column
from feedsvc.feeds.sql.csv_projection import may_run
from feedsvc.feeds.sql.csv_values import csv_text, is_restyled
from feedsvc.feeds.sql.json_projection import reference, scalar_text
from streams import encoder
from streams.csv_record import PLAIN_CSV, CsvStyle


@dataclass(frozen=True, slots=True)
class BinaryRow:
    """A select list, with the columns of the encoder's plan for it."""

    selected: tuple[str, ...]
    columns: tuple[encoder.EncodedColumn, ...]
    keys: tuple[int, ...]

    @property
    def select_list(self) -> str:
        """The text behind SELECT."""
        return ", ".join(self.selected)


@dataclass(slots=True)
class _Row:
    """The row while it is put together; `native` are the columns that can be keys as they are."""

    selected: list[str] = field(default_factory=list)
    columns: list[encoder.EncodedColumn] = field(default_factory=list)
    native: dict[str, int] = field(default_factory=dict)

    def add(self, expression: str, shape: encoder.EncodedColumn) -> int:
        self.selected.append(expression)
        self.columns.append(shape)
        return len(self.selected) - 1

    def add_native(self, column: Column, shape: encoder.EncodedColumn) -> int:
        # The cast costs nothing, and makes sure of the type if the table is altered.
        index = self.add(f"{reference(column)}::{column.base}", shape)
        self.native[column.name] = index
        return index


def binary_row(
    columns: Sequence[Column],
    order: Iterable[Column],
    form: Literal["json", "csv"],
    style: CsvStyle = PLAIN_CSV,
) -> BinaryRow:
    """A row of these columns, with what else the tokens of this order take."""
    row = _Row()
    for column in columns:
        guarded = style.guard and may_run(column)
        if is_restyled(column, style):
            row.add(csv_text(column, style), encoder.EncodedColumn(column.name, "text"))
        elif column.sent_as in encoder.KINDS:
            row.add_native(column, encoder.EncodedColumn(column.name, column.sent_as, guarded))
        elif form == "json":
            row.add(
                f"pg_catalog.to_json({reference(column)})",
                encoder.EncodedColumn(column.name, "json"),
            )
        else:
            row.add(scalar_text(column), encoder.EncodedColumn(column.name, "text", guarded))
    keys = tuple(_key(row, column) for column in order)
    return BinaryRow(tuple(row.selected), tuple(row.columns), keys)


def _key(row: _Row, column: Column) -> int:
    """The index of the column's text in the row, for a token."""
    if column.name in row.native:
        return row.native[column.name]
    if column.sent_as in encoder.KINDS:
        return row.add_native(column, encoder.EncodedColumn(None, column.sent_as))
    return row.add(scalar_text(column), encoder.EncodedColumn(None, "text"))
