"""A page of a feed: encoded records, and the snapshot that they were read from."""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from feedsvc.backends.postgres.snapshot import Snapshot

BETWEEN: Final = b"\0"
"""A separator that no record can hold: PostgreSQL has no NUL in a text."""


@dataclass(frozen=True, slots=True, eq=False)
class Page:
    """Encoded records in order, and what they were read from. `digest_of` gives its `digest`.

    `last` is the token of the last record, `more` whether there were rows behind it, `loaded`
    seconds since 1970, `cost` the seconds that reading took, `total` the number of rows of the
    whole feed as far as it was known, `prefetched` whether it was read before it was asked for,
    `origin` which database it was read from, and in which of its lives.
    """

    records: Sequence[bytes]
    digest: str
    last: str | None
    more: bool
    snapshot: Snapshot
    loaded: float
    cost: float
    total: int | None = None
    prefetched: bool = False
    origin: str = ""

    def age(self) -> float:
        """The seconds since it was read."""
        return max(0.0, time.time() - self.loaded)

    def size(self) -> int:
        """The bytes of its records."""
        return sum(map(len, self.records))


def digest_of(records: Sequence[bytes]) -> str:
    """A digest of the records and their number (BLAKE2b, 128 bits, hexadecimal)."""
    together = b"%d\n" % len(records) + BETWEEN.join(records)
    return hashlib.blake2b(together, digest_size=16).hexdigest()
