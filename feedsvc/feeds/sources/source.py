"""What an export asks for its rows, whichever way they come."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from feedsvc.backends.postgres.pool import Connection, Pool
from streams.frames import Joined

Position: TypeAlias = Sequence[str]
"""A text for each column of the order: where a row stands."""


@dataclass(frozen=True, slots=True)
class Batch:
    """`count` records in order, joined for their format; `last` is where the last of them stands.

    `records` takes them apart again.
    """

    body: Joined
    count: int
    last: Sequence[str | None]
    records: Callable[[], Sequence[bytes]]


@dataclass(frozen=True, slots=True)
class ReadResult:
    """What a read gave: no batch where there was none left. `is_over`: there are no more.

    `more`: the limit left rows out.
    """

    batch: Batch | None
    is_over: bool
    more: bool


class Source(Protocol):
    """The rows of one query. It is begun anew in each transaction that the export comes to.

    Each is the same rows in the same bytes.
    """

    name: str

    async def begin(
        self,
        connection: Connection,
        position: Position | None,
        left: int | None,
        beside: Pool | None,
    ) -> None:
        """Goes on behind a row, in this connection's transaction; at most `left` rows count.

        `beside` may lend further connections, in which its snapshot can be had.
        """
        ...

    async def read(self, rows: int, *, exactly: bool) -> ReadResult:
        """The next rows, about so many, and with `exactly` no more. Raises what asyncpg raises."""
        ...

    async def close(self) -> None:
        """Gives up what it has begun, before the transaction ends."""
        ...
