"""PostgreSQL's snapshots as versions of pages.

A page holds the snapshot that it was read in, a change names the transaction that made it, and
whether the page has seen the change follows from the two alone (PostgreSQL's documentation,
section 9.28, "Transaction ID and Snapshot Information Functions"). No counter has to be kept in
step by any process: not between workers, nor between a load and a write that overtakes it.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Transactions below `xmin` have ended; those from `xmax` on, and `running`, are not seen."""

    xmin: int
    xmax: int
    running: frozenset[int]

    @classmethod
    def parse(cls, text: str) -> "Snapshot":
        """A `pg_snapshot` in its text form, `xmin:xmax:xip,…`. Raises ValueError."""
        xmin, xmax, running = text.split(":")
        listed = running.split(",") if running else []
        return cls(int(xmin), int(xmax), frozenset(map(int, listed)))

    def __str__(self) -> str:
        return f"{self.xmin}:{self.xmax}:{','.join(map(str, sorted(self.running)))}"

    def sees(self, xid: int) -> bool:
        """Return whether this snapshot shows the transaction, once that has committed."""
        return xid < self.xmin or (xid < self.xmax and xid not in self.running)

    def covers(self, other: "Snapshot") -> bool:
        """Return whether this one sees every transaction that the other sees."""
        return other.xmax <= self.xmin or (
            other.xmax <= self.xmax
            and all(xid >= other.xmax or xid in other.running for xid in self.running)
        )
