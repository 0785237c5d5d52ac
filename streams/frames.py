"""The frames of a stream, from the first to the last.

A stream is `Open`, then any number of `Rows`, `Progress` and `Ping`, then exactly one of `End`
or `Failure`. Only `End` says that everything was sent.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias


class Joined(Protocol):
    """Any piece of memory that knows its bytes: bytes, what a native encoder made."""

    def __len__(self) -> int: ...

    def __buffer__(self, flags: int, /) -> memoryview: ...


TotalKind: TypeAlias = Literal["exact", "estimate"]


@dataclass(frozen=True, slots=True)
class Open:
    """The stream's head; `after` is the token that it starts behind, None at the beginning.

    `cursor`: the state from which changes are followed, None where they can't be.
    """

    export: str
    dataset: str
    columns: tuple[str, ...]
    total: int | None
    total_kind: TotalKind
    after: str | None
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class Rows:
    """`count` encoded records in order, at least one, and the token of the last of them.

    They are joined with what the format has between two records, and nothing at either end.
    """

    body: Joined
    count: int
    last: str


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of the stream. The encoder adds the bytes, for only it knows them."""

    rows: int
    total: int | None
    total_kind: TotalKind
    elapsed_ms: int
    after: str | None


@dataclass(frozen=True, slots=True)
class End:
    """The proper end. `more`: `limit` cut the rows; `snapshots`: how many served the export."""

    rows: int
    elapsed_ms: int
    after: str | None
    more: bool
    snapshots: int
    export: str
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """The break of a stream. `retry_ms`: the milliseconds after which an SSE client comes back."""

    problem: Mapping[str, Any]
    after: str | None
    retry_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Ping:
    """A sign of life."""


Frame: TypeAlias = Open | Rows | Progress | End | Failure | Ping
