"""The inputs from which the fuzzer starts."""

import re
from collections.abc import Iterator

from tests.fuzzing.build import NATIVE
from tests.support.wire import END, HEAD, copied_row, sent_row
from tests.support.wire_values import MALFORMED, WELL_FORMED

# As in target.c.
SENT, RAW_HEAD = 4, 16
IS_ARRAY = 0x80


def seeds() -> Iterator[bytes]:
    """Inputs for `target.c`: a plan of one column, then rows of it."""
    table = (NATIVE / "kinds.c").read_text()
    kinds = re.findall(r'^ +(?:FIXED\(|TEXT\(|\{)"(\w+)"', table, re.MULTILINE)
    values = [(kind, data) for kind, data, _ in WELL_FORMED] + MALFORMED
    for number, (kind, data) in enumerate(values):
        scalar = kind.removesuffix("[]")
        column = kinds.index(scalar) | (IS_ARRAY if scalar != kind else 0)
        for flags in (number % 64 & ~SENT, number % 64 | SENT):
            plan = bytes([flags, number, 0, number, column])
            yield plan + (_sent(data) if flags & SENT else _copied(data, flags))


def _copied(data: bytes, flags: int) -> bytes:
    head = HEAD if flags & RAW_HEAD else b""
    return head + copied_row([data]) + copied_row([None]) + END


def _sent(data: bytes) -> bytes:
    row = sent_row([data])
    return bytes([len(row) % 256]) + row
