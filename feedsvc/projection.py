"""Rows as PostgreSQL itself encodes them: JSON by `row_to_json`, CSV by an expression a column.

This is the portable path. What it gives is the definition of every value that a feed sends.
"""

from collections.abc import Sequence
from typing import Final

from feedsvc.datasets import Column, quote_identifier

ALIAS: Final = "t"
"""What a statement calls the dataset's relation."""

# Letters of pg_type.typcategory of what nobody typed as text: numbers, dates and times, booleans,
# time spans, arrays, composites, ranges, bit strings, network addresses, geometry.
_NEVER_TYPED: Final = frozenset("NDBTACRVIG")
_NEVER_TYPED_KINDS: Final = frozenset({"uuid", "json", "jsonb", "bytea"})
_TIMESTAMPS: Final = frozenset({"timestamp", "timestamptz"})
# Types whose own text is what row_to_json writes between its quotes, and never needs CSV's.
_BARE: Final = frozenset(
    {"bool", "int2", "int4", "int8", "oid", "float4", "float8", "numeric", "date", "uuid"}
)
_TEXTS: Final = frozenset({"text", "varchar"})

# First characters of what a spreadsheet runs, as code points: = @ tab CR LF and the full-width
# forms of = + - @ (OWASP, "CSV Injection").
_STARTS_A_FORMULA: Final = "61, 64, 9, 13, 10, 65309, 65291, 65293, 65312"
_SIGNS: Final = "43, 45"
_NO_PHONE_NUMBER: Final = "'[^0-9 ().,/-]'"

_LITERALS: Final = {",": "','", ";": "';'", "\t": r"E'\t'"}
_IN_BRACKETS: Final = {",": ",", ";": ";", "\t": r"\t"}


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


def csv_record(columns: Sequence[Column], delimiter: str, *, guard: bool) -> str:
    """A row as the bytes of a CSV record without its line end."""
    separator = f" || {_LITERALS[delimiter]} || "
    fields = separator.join(_csv_field(column, delimiter, guard=guard) for column in columns)
    return f"textsend({fields})"


def scalar_text(column: Column) -> str:
    """The text of the JSON scalar without its quotes; of what is no scalar, the JSON itself."""
    value = reference(column)
    if column.kind in _BARE or column.kind in _TEXTS or column.category == "E":
        return f"{value}::text"
    if column.kind in _TIMESTAMPS:
        return f"btrim(to_json({value})::text, '\"')"
    json = f"to_json({value})"
    if column.holds_json:
        return rf"translate({json}::text, E'\n\r', '  ')"
    if column.kind == "jsonb" or column.category in "AC":
        return f"{json}::text"
    return f"CASE json_typeof({json}) WHEN 'string' THEN {json} #>> '{{}}' ELSE {json}::text END"


def _csv_field(column: Column, delimiter: str, *, guard: bool) -> str:
    """One field: guarded, quoted where it must be, and nothing at all for NULL."""
    value = scalar_text(column)
    if column.kind in _BARE or column.kind in _TIMESTAMPS:
        return f"coalesce({value}, '')"
    apostrophe = f"{_apostrophe(value)} || " if guard and _may_run(column) else ""
    quoted = f"""'"' || {apostrophe}replace({value}, '"', '""') || '"'"""
    return (
        f"CASE WHEN {_needs_quotes(value, delimiter)} THEN {quoted} "
        f"ELSE coalesce({apostrophe}{value}, '') END"
    )


def _needs_quotes(value: str, delimiter: str) -> str:
    """Whether a field is empty or holds the delimiter, a quote, CR or LF; unknown for NULL."""
    return rf"""({value} = '' OR {value} ~ '[{_IN_BRACKETS[delimiter]}"\r\n]')"""


def _apostrophe(value: str) -> str:
    """The `'` that keeps a spreadsheet from running a text, or nothing.

    Most texts begin with a letter, which the first branch takes.
    """
    return (
        f"CASE WHEN ascii({value}) BETWEEN 65 AND 65000 THEN '' "
        f"WHEN ascii({value}) IN ({_STARTS_A_FORMULA}) THEN '''' "
        f"WHEN ascii({value}) IN ({_SIGNS}) AND substr({value}, 2) ~ {_NO_PHONE_NUMBER} "
        "THEN '''' ELSE '' END"
    )


def _may_run(column: Column) -> bool:
    return column.category not in _NEVER_TYPED and column.kind not in _NEVER_TYPED_KINDS
