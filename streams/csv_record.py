"""CSV records in Python: what a header is written by, and the rule that SQL and C follow too."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

# A spreadsheet runs a cell that begins with one of these (OWASP, "CSV Injection"), or with a sign
# that no number or phone number follows. A byte order mark in front is dropped by readers.
_FORMULA: Final = re.compile(
    r"\ufeff*(?:[=@\t\r\n\uff1d\uff0b\uff0d\uff20]|[+-](?![0-9 ().,/-]*\Z))"
)
# What would begin a cell for a reader that splits at another delimiter.
_FORMULA_WITHIN: Final = re.compile(r"[,;\t|]\ufeff*[=@\t\r\n\uff1d\uff0b\uff0d\uff20+-]")


@dataclass(frozen=True, slots=True)
class CsvStyle:
    """The style of a CSV file.

    `guard` disarms formulas. With a `zone` timestamps are in it, as spreadsheets read them, and
    without are as in JSON.
    """

    delimiter: str = ","
    guard: bool = False
    quote_all: bool = False
    decimal_comma: bool = False
    zone: str | None = None


PLAIN_CSV: Final = CsvStyle()
"""RFC 4180 as it stands."""


def csv_record(fields: Sequence[str], style: CsvStyle) -> str:
    """One record without its line end, guarded and quoted as the SQL projection does it."""
    return style.delimiter.join(_csv_field(field, style) for field in fields)


def _csv_field(field: str, style: CsvStyle) -> str:
    guarded = "'" + field if style.guard and _FORMULA.match(field) else field
    if field and not _is_quoted(field, style):
        return guarded
    return '"' + guarded.replace('"', '""') + '"'


def _is_quoted(field: str, style: CsvStyle) -> bool:
    if style.quote_all or any(special in field for special in (style.delimiter, '"', "\r", "\n")):
        return True
    return style.guard and _FORMULA_WITHIN.search(field) is not None
