# What these do is told by the module itself: help(streams.encoder.Encoder).
from collections.abc import Sequence
from typing import Literal, final

from streams.encoder import EncodedColumn

KINDS: frozenset[str]

@final
class Plan:
    def __new__(
        cls,
        columns: Sequence[EncodedColumn],
        form: Literal["json", "csv"],
        *,
        between: bytes = b"",
        keys: Sequence[int] = (),
        delimiter: str = ",",
        guard: bool = False,
        quote_all: bool = False,
    ) -> Plan: ...

@final
class Encoder:
    rows: int
    size: int
    more: bool
    ended: bool

    def __new__(cls, plan: Plan, limit: int | None = None) -> Encoder: ...
    def feed_copy(self, chunk: bytes | bytearray | memoryview, /) -> None: ...
    def end_copy(self) -> None: ...
    def feed_records(self, rows: Sequence[bytes], /) -> None: ...
    def take(self) -> Batch | None: ...

@final
class Batch:
    rows: int
    last: tuple[str | None, ...]

    def __len__(self) -> int: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...
    def records(self) -> list[bytes]: ...
