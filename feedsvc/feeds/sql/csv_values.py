"""Values as spreadsheets of other countries read them: decimal commas, timestamps without offset.

PostgreSQL makes these texts, for the native encoder too: so both ways give the same.
"""

from typing import Final

from feedsvc.datasets.dataset import Column
from feedsvc.feeds.sql.json_projection import reference, scalar_text
from feedsvc.feeds.sql.quoting import literal
from streams.csv_record import CsvStyle

_FRACTIONAL: Final = frozenset({"float4", "float8", "numeric"})
# Within these `timezone` leaves the calendar in no zone.
_FIRST, _LAST = "'4713-01-01 00:00:00+00 BC'", "'294275-12-31 00:00:00+00'"


def is_restyled(column: Column, style: CsvStyle) -> bool:
    """Return whether the column's values have another text in this style than in JSON."""
    if column.kind in _FRACTIONAL:
        return style.decimal_comma
    return style.zone is not None and column.kind in {"timestamp", "timestamptz"}


def csv_text(column: Column, style: CsvStyle) -> str:
    """The text of a value in a file of this style, before it is guarded and quoted."""
    value = reference(column)
    if not is_restyled(column, style):
        return scalar_text(column)
    if column.kind in _FRACTIONAL:
        return f"replace({value}::text, '.', ',')"
    if column.kind == "timestamp" or style.zone is None:
        return f"date_trunc('second', {value})::text"
    local = f"timezone({literal(style.zone)}::text, {value})"
    return (
        f"CASE WHEN {value} BETWEEN {_FIRST} AND {_LAST} "
        f"THEN date_trunc('second', {local})::text ELSE {scalar_text(column)} END"
    )
