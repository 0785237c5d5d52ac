"""Rows as PostgreSQL itself encodes them: JSON by `row_to_json`, and a value's text.

This is the portable path. What it gives is the definition of every value that a feed sends.
"""

from collections.abc import Sequence
from typing import Final

from feedsvc.datasets import Column, quote_identifier

ALIAS: Final = "t"
"""What a statement calls the dataset's relation."""

PLAIN_TEXTS: Final = frozenset({"text", "varchar"})
"""Types that are their own text, to be had without a conversion."""

_INTEGERS: Final = frozenset({"int2", "int4", "int8"})
# Types whose own text is what row_to_json writes, between its quotes where it has any.
_BARE: Final = frozenset(
    {"bool", "int2", "int4", "int8", "oid", "float4", "float8", "numeric", "date", "uuid"}
)
# row_to_json writes a T and the offset's minutes; its session's TimeZone is UTC.
_TIMESTAMP_TAILS: Final = {"timestamp": "", "timestamptz": " || ':00'"}


def reference(column: Column) -> str:
    """The column in a statement."""
    return f"{ALIAS}.{quote_identifier(column.name)}"


def json_record(columns: Sequence[Column]) -> str:
    """A row as the bytes of a JSON object on one line; reads what `json_source` gives."""
    record = "row_to_json(r)::text"
    if any(column.holds_json for column in columns):
        # Only as white space can a raw line break stand in JSON; a blank means the same.
        record = rf"translate({record}, E'\n\r', '  ')"
    return f"textsend({record})"


def json_source(columns: Sequence[Column]) -> str:
    """What gives `json_record` its columns, in their order."""
    return f"CROSS JOIN LATERAL (SELECT {', '.join(map(reference, columns))}) AS r"


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
            f"ELSE btrim(to_json({value})::text, '\"') END"
        )
    if column.kind == "jsonb" and column.category == "U":
        return f"{value}::text"
    json = f"to_json({value})"
    if column.holds_json:
        return rf"translate({json}::text, E'\n\r', '  ')"
    if column.category in "AC":
        return f"{json}::text"
    return f"CASE json_typeof({json}) WHEN 'string' THEN {json} #>> '{{}}' ELSE {json}::text END"
