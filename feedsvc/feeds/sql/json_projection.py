"""Rows as PostgreSQL itself encodes them: JSON by `row_to_json`, and a value's text.

This is the portable path. What it gives is the definition of every value that a feed sends.
"""

from collections.abc import Iterable, Sequence
from itertools import count
from typing import Final

from feedsvc.datasets.dataset import Column, quote_identifier

_ROWS: Final = "t"  # what a statement calls the columns that it names
_SHOWN: Final = "r"  # what it calls those of them that a JSON object has

PLAIN_TEXTS: Final = frozenset({"text", "varchar"})
"""Types that are their own text, to be had without a conversion."""

_INTEGERS: Final = frozenset({"int2", "int4", "int8"})
# Types whose own text is what row_to_json writes, between its quotes where it has any.
_BARE: Final = frozenset(
    {"bool", "int2", "int4", "int8", "oid", "float4", "float8", "numeric", "date", "uuid"}
)
# row_to_json writes a T and the offset's minutes; its session's TimeZone is UTC.
_TIMESTAMP_TAILS: Final = {"timestamp": "", "timestamptz": " || ':00'"}


def named_columns(relation: str, columns: Iterable[Column]) -> str:
    """The item of a FROM clause that `reference` refers to: the relation's columns, these alone.

    PostgreSQL takes a bare name for a column where there is one, whatever else bears it, and a
    qualified one that is no column for a function of the whole row. So a relation's columns are
    named bare, once, under an alias that none of them has; and all else refers to these, qualified.
    No column of the relation's that the statement does not name is in reach, and one that is
    dropped meanwhile is an error. The planner pulls the subquery up.
    """
    names = {column.name: None for column in columns}
    alias = next(alias for n in count() if (alias := f"t{n}") not in names)
    listed = ", ".join(map(quote_identifier, names))
    return f"(SELECT {listed} FROM {relation} AS {alias}) AS {_ROWS}"


def reference(column: Column) -> str:
    """The column in a statement over `named_columns`."""
    return f"{_ROWS}.{quote_identifier(column.name)}"


def json_record(columns: Sequence[Column]) -> str:
    """A row as the bytes of a JSON object on one line; reads what `json_source` gives.

    A row is named with `.*`, for without that it would be a column of its name, if there is one
    (PostgreSQL's documentation, section 8.16.5).
    """
    record = f"pg_catalog.row_to_json({_SHOWN}.*)::text"
    if any(column.holds_json for column in columns):
        # Only as white space can a raw line break stand in JSON; a blank means the same.
        record = rf"translate({record}, E'\n\r', '  ')"
    return f"textsend({record})"


def json_source(columns: Sequence[Column]) -> str:
    """The source of the columns of `json_record`, in their order."""
    return f"CROSS JOIN LATERAL (SELECT {', '.join(map(reference, columns))}) AS {_SHOWN}"


def token_value(column: Column) -> str:
    """A value whose `str` in Python is its part of a token.

    Every row carries one and few are used, so an integer is left as it is: making its text would
    cost PostgreSQL more than the rest of the token.
    """
    return reference(column) if column.kind in _INTEGERS else scalar_text(column)


def scalar_text(column: Column) -> str:
    """The text of the JSON scalar without its quotes; of what is no scalar, the JSON itself."""
    value = reference(column)
    if column.kind in _BARE or column.kind in PLAIN_TEXTS or column.category == "E":
        return f"{value}::text"
    if column.kind in _TIMESTAMP_TAILS:
        return (
            f"CASE WHEN {value} BETWEEN '0001-01-01' AND '9999-12-31' "
            f"THEN replace({value}::text, ' ', 'T'){_TIMESTAMP_TAILS[column.kind]} "
            f"ELSE btrim(pg_catalog.to_json({value})::text, '\"') END"
        )
    if column.kind == "jsonb" and column.category == "U":
        return f"{value}::text"
    # By its schema, for a user's own `to_json` for a type would be the closer match.
    json = f"pg_catalog.to_json({value})"
    if column.holds_json:
        return rf"translate({json}::text, E'\n\r', '  ')"
    if column.category in "AC":
        return f"{json}::text"
    return f"CASE json_typeof({json}) WHEN 'string' THEN {json} #>> '{{}}' ELSE {json}::text END"
