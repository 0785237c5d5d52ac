"""PostgreSQL's binary rows in, JSON or CSV records out, at gigabytes a second.

A `Plan` says what the columns are and what becomes of them. An `Encoder` takes the rows of one
query, from `COPY … (FORMAT binary)` in chunks cut anywhere or as `record_send` gives them, and
gives their records in batches, joined in one piece of memory. The bytes are those that PostgreSQL's
`row_to_json` and feedsvc's CSV projection give.

The native part is not there where there was no compiler at install; `MISSING` then says so, and
`Plan`, `Encoder` and `Batch` are not to be had.
"""

from typing import NamedTuple

from streams.encoder.errors import EncoderError

__all__ = ["KINDS", "MISSING", "Batch", "EncodedColumn", "Encoder", "EncoderError", "Plan"]


class EncodedColumn(NamedTuple):
    """One column of the rows that are fed.

    A column without a name is read for a token alone and is no part of a record. `kind` is one of
    `KINDS`. `guarded` texts get a `'` in CSV where a spreadsheet would run them.
    """

    name: str | None
    kind: str
    guarded: bool = False


MISSING: str | None
"""Why there is no encoder, None where there is one."""

KINDS: frozenset[str]
"""The types of a column, by PostgreSQL's names, an array's with `[]` behind it.

`text` will do for every type that is sent as its text, `enum` for every enum, and `json` for what
PostgreSQL itself has made JSON. `interval_before_17` is what PostgreSQL 15 and 16 send.
"""

try:
    from streams.encoder._native import KINDS, Batch, Encoder, Plan
except ImportError as error:
    MISSING = str(error)
    KINDS = frozenset()
else:
    MISSING = None
