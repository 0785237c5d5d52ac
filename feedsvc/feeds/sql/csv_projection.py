"""CSV records as PostgreSQL makes them: an expression a column, guarded and quoted in SQL.

A field costs a few function calls of PostgreSQL's, and each counts a million times over. So every
text first takes the tests that most texts pass, and only the rest takes the long way.
"""

from collections.abc import Sequence
from typing import Final

from feedsvc.datasets.dataset import Column
from feedsvc.feeds.sql.csv_values import csv_text
from feedsvc.feeds.sql.json_projection import PLAIN_TEXTS, reference
from streams.csv_record import CsvStyle

# Letters of pg_type.typcategory of values that are no free text: numbers, dates, times, booleans,
# time spans, arrays, composites, ranges, bit strings, network addresses, geometry.
_NEVER_TYPED: Final = frozenset("NDBTACRVIG")
_NEVER_TYPED_KINDS: Final = frozenset({"uuid", "json", "jsonb", "bytea"})
# Types whose text never holds a delimiter or a quote, and is never empty.
_NEVER_QUOTED: Final = frozenset(
    {"bool", "int2", "int4", "int8", "oid", "float4", "float8", "numeric", "date", "uuid"}
    | {"timestamp", "timestamptz"}
)

# First characters of what a spreadsheet runs, as code points: = @ tab CR LF and the full-width
# forms of = + - @ (OWASP, "CSV Injection").
_STARTS_A_FORMULA: Final = "61, 64, 9, 13, 10, 65309, 65291, 65293, 65312"
_SIGNS: Final = "43, 45"
_BYTE_ORDER_MARK: Final = "65279"
# The same, and what `ascii` gives for an empty text. From nine of them on PostgreSQL hashes.
_STARTS_WITH_CARE: Final = f"0, {_STARTS_A_FORMULA}, {_SIGNS}, {_BYTE_ORDER_MARK}"
# Regular expressions of PostgreSQL's. Their escapes are good in databases of any encoding.
_PHONE_NUMBER: Final = "'^[+-][0-9 ().,/-]*$'"
_PHONE_NUMBER_WITHOUT_COMMA: Final = "'^[+-][0-9 ()./-]*$'"
_FORMULA: Final = r"[=@\\t\\r\\n\\uFF1D\\uFF0B\\uFF0D\\uFF20]"
_FORMULA_BEHIND_MARKS: Final = rf"E'^\\uFEFF+({_FORMULA}|[+-].*[^0-9 ().,/-])'"
# What would begin a cell for a reader that splits at another delimiter.
_FORMULA_WITHIN: Final = rf"E'[,;\\t|]\\uFEFF*({_FORMULA}|[+-])'"

_LITERALS: Final = {",": "','", ";": "';'", "\t": r"E'\t'", "|": "'|'"}


def csv_record(columns: Sequence[Column], style: CsvStyle) -> str:
    """A row as the bytes of a CSV record without its line end."""
    separator = f" || {_LITERALS[style.delimiter]} || "
    return f"textsend({separator.join(_field(column, style) for column in columns)})"


def _field(column: Column, style: CsvStyle) -> str:
    """One field: guarded, quoted where it must be, and nothing at all for NULL."""
    value = csv_text(column, style)
    if style.quote_all:
        apostrophe = f"{_apostrophe(value)} || " if style.guard and may_run(column) else ""
        return f"'\"' || coalesce(replace({apostrophe}{value}, '\"', '\"\"'), '') || '\"'"
    if column.kind in _NEVER_QUOTED or _is_plain_enum(column):
        return f"coalesce({value}, '')"
    if column.kind in PLAIN_TEXTS:
        return _text_field(f'{value} COLLATE "C"', style)
    general = _general_field(value, style, prefixed=style.guard and may_run(column))
    if column.kind == "jsonb" and column.category == "U":
        # Of all jsonb only an object that is not empty is greater than the empty one, and as it
        # has quotes it need not be searched for any.
        return f"CASE WHEN {reference(column)} > '{{}}' THEN {_quoted(value)} ELSE {general} END"
    return general


def _text_field(value: str, style: CsvStyle) -> str:
    """A text that begins as most do needs no guard; an empty or a dangerous one may need all."""
    begins = (
        f"ascii({value}) NOT IN ({_STARTS_WITH_CARE})" if style.guard else f"ascii({value}) > 0"
    )
    return (
        f"CASE WHEN {value} IS NULL THEN '' WHEN {begins} "
        f"THEN CASE WHEN {_is_special(value, style)} THEN {_quoted(value)} ELSE {value} END "
        f"WHEN {value} ~ {_PHONE_NUMBER_WITHOUT_COMMA} THEN {value} "
        f"ELSE {_general_field(value, style, prefixed=style.guard)} END"
    )


def _general_field(value: str, style: CsvStyle, *, prefixed: bool) -> str:
    apostrophe = f"{_apostrophe(value)} || " if prefixed else ""
    return (
        f"CASE WHEN {value} = '' OR {_is_special(value, style)} "
        f"THEN {_quoted(value, apostrophe)} ELSE coalesce({apostrophe}{value}, '') END"
    )


def _is_special(value: str, style: CsvStyle) -> str:
    """Return whether a field must be quoted for what it holds: the delimiter, a quote, CR or LF.

    With the guard on also for what another delimiter would make a formula of. To search for each
    of them first takes half of the time of the regular expression, which few texts then need.
    """
    special = _holds(value, _LITERALS[style.delimiter], "'\"'", r"E'\n'", r"E'\r'")
    if not style.guard:
        return f"({special})"
    others = (literal for other, literal in _LITERALS.items() if other != style.delimiter)
    return f"({special} OR ({_holds(value, *others)}) AND {value} ~ {_FORMULA_WITHIN})"


def _holds(value: str, *characters: str) -> str:
    return " OR ".join(f"strpos({value}, {character}) > 0" for character in characters)


def _quoted(value: str, apostrophe: str = "") -> str:
    """Between quotes, those within doubled: of what must be quoted, `quote_ident` makes just that.

    It leaves bare a plain lower-case word alone, which no such value is.
    """
    return f"quote_ident({apostrophe}{value})"


def _apostrophe(value: str) -> str:
    """The `'` that keeps a spreadsheet from running a text, or nothing."""
    return (
        f"CASE WHEN ascii({value}) IN ({_STARTS_A_FORMULA}) "
        f"OR ascii({value}) IN ({_SIGNS}) AND {value} !~ {_PHONE_NUMBER} "
        f"OR ascii({value}) = {_BYTE_ORDER_MARK} AND {value} ~ {_FORMULA_BEHIND_MARKS} "
        "THEN '''' ELSE '' END"
    )


def may_run(column: Column) -> bool:
    """Return whether a spreadsheet might run a value of it: only of texts that can be typed in."""
    return column.category not in _NEVER_TYPED and column.kind not in _NEVER_TYPED_KINDS


def _is_plain_enum(column: Column) -> bool:
    """Return whether no label of an enum needs a guard or quotes, whatever the delimiter."""
    special = {*_LITERALS, '"', "\r", "\n"}
    return column.category == "E" and all(
        label[:1].isalnum() and label.isascii() and not set(label) & special
        for label in column.labels
    )
