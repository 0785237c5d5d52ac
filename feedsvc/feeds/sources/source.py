"""The interface through which an export reads rows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from feedsvc.backends.postgres.pool import Connection, Pool
from streams import tokens
from streams.frames import Joined, Rows

Position: TypeAlias = Sequence[str]
"""The place of a row in an order: a text for each of the order's columns."""


@dataclass(frozen=True, slots=True)
class Batch(Rows):
    """Rows of a query as they were read.

    `position` has the texts of the last row's order columns, of which `last` is the token; None
    stands for a NULL. `records` takes the rows apart again.
    """

    position: Sequence[str | None]
    records: Callable[[], Sequence[bytes]]


def batch_of(
    body: Joined, count: int, position: Sequence[str | None], records: Callable[[], Sequence[bytes]]
) -> Batch:
    """The batch whose last row stands at `position`."""
    return Batch(body, count, tokens.encode(text or "" for text in position), position, records)


@dataclass(frozen=True, slots=True)
class ReadResult:
    """The result of one read: no batch where no row was left.

    `end`: there may be `more` rows, these were the `last`, or the `limit` left rows out.
    """

    batch: Batch | None
    end: Literal["more", "last", "limit"]


class Source(Protocol):
    """A way to read the rows of one query, begun anew in each transaction of the export.

    Every source gives the same rows in the same bytes.
    """

    name: str

    async def begin(
        self,
        connection: Connection,
        position: Position | None,
        left: int | None,
        beside: Pool | None,
    ) -> None:
        """Begin behind a row, in this connection's transaction; at most `left` rows count.

        `beside` may lend further connections, in which its snapshot can be had.
        """
        ...

    async def read(self, rows: int, *, exactly: bool) -> ReadResult:
        """The next rows, about so many, and with `exactly` no more. Raises what asyncpg raises."""
        ...

    async def close(self) -> None:
        """Release what was begun, before the transaction ends."""
        ...
