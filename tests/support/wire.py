"""Rows in PostgreSQL's binary form, made by hand (its documentation, COPY, "Binary Format")."""

import struct
from collections.abc import Iterable, Sequence

Value = bytes | None

SIGNATURE = b"PGCOPY\n\xff\r\n\0"
HEAD = SIGNATURE + bytes(8)
END = b"\xff\xff"


def copied_row(values: Sequence[Value]) -> bytes:
    """A row within a COPY stream."""
    return struct.pack(">h", len(values)) + b"".join(map(_sized, values))


def copy_stream(rows: Iterable[Sequence[Value]]) -> bytes:
    """A whole stream."""
    return HEAD + b"".join(map(copied_row, rows)) + END


def sent_row(values: Sequence[Value], oid: int = 25) -> bytes:
    """A row as record_send gives it."""
    fields = (struct.pack(">I", oid) + _sized(value) for value in values)
    return struct.pack(">i", len(values)) + b"".join(fields)


def array(*items: Value, sizes: Sequence[int] | None = None, oid: int = 23) -> bytes:
    """An array as array_send gives it."""
    dimensions = [len(items)] if sizes is None else sizes
    head = struct.pack(">iiI", len(dimensions), int(None in items), oid)
    bounds = b"".join(struct.pack(">ii", size, 1) for size in dimensions)
    return head + bounds + b"".join(map(_sized, items))


def numeric(words: Sequence[int], weight: int, sign: int = 0, scale: int = 0) -> bytes:
    """A numeric as numeric_send gives it: words of four digits."""
    return struct.pack(f">HhHH{len(words)}H", len(words), weight, sign, scale, *words)


def int4(value: int) -> bytes:
    return struct.pack(">i", value)


def int8(value: int) -> bytes:
    return struct.pack(">q", value)


def _sized(value: Value) -> bytes:
    return struct.pack(">i", -1) if value is None else struct.pack(">i", len(value)) + value
