"""Rules that decide on the rows of a feed over a table, as a row of the catalog has them."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from feedsvc.backends.postgres.snapshot import Snapshot
from feedsvc.datasets.dataset import Dataset

ASK_THE_TIME: Final = (
    "now", "transaction_timestamp", "statement_timestamp", "clock_timestamp", "timeofday",
    "random", "age",
)  # fmt: skip
"""PostgreSQL's functions whose answer changes without a write, unless they are immutable."""
_TABLE_KINDS: Final = frozenset("rp")
_XIDS: Final = 1 << 32


class Calling(Protocol):
    """Whatever may call functions: policies, and the text of a view."""

    @property
    def asks_the_time(self) -> bool: ...

    @property
    def functions(self) -> Sequence[str]: ...


@dataclass(frozen=True, slots=True)
class FeedRules:
    """A row of `feed_rules.sql`. `policy` is SQL over `known`, columns with their types."""

    name: str
    kind: str
    is_tree: bool
    unlogged: int
    known: str
    policy: str
    is_undecided: bool
    asks_the_time: bool
    functions: Sequence[str]
    rights: str
    schema: str
    called: Sequence[int]
    called_by: Sequence[str]
    made_by: Sequence[int]
    reads_others: bool

    def fault(self, dataset: Dataset) -> str | None:
        """The reason why no deltas of the feed can be offered."""
        if self.kind not in _TABLE_KINDS or dataset.key_from:
            return "its relation is no table, or is none any more"
        if self.unlogged:
            return "some changes have no trigger: run `feedsvc migrate triggers`"
        return self.policy_fault(dataset)

    def policy_fault(self, dataset: Dataset) -> str | None:
        """The same, as far as it is a policy."""
        return policy_fault(dataset, "a policy of its table", self)

    @property
    def behind(self) -> Sequence[int]:
        """The relations that a view's rows come from: none."""
        return ()

    def depends_on_others(self, dataset: Dataset) -> bool:
        """Return whether the rows of other tables decide on those of the feed."""
        return self.reads_others or bool(dataset.watched)

    @property
    def may_doubt(self) -> bool:
        """Return whether former rows can't be decided on."""
        return self.is_undecided

    @property
    def types(self) -> Mapping[str, str]:
        """The columns that are known of a former row, with their types as SQL."""
        known: dict[str, str] = json.loads(self.known)
        return known

    def is_newer_than(self, snapshot: Snapshot, present: Snapshot) -> bool:
        """Return whether anything that the feed is made of was made behind the snapshot."""
        return is_newer(self.made_by, snapshot, present)


def policy_fault(dataset: Dataset, what: str, calling: Calling) -> str | None:
    """The reason why no deltas of the feed can be offered, as far as it is what is called."""
    if calling.asks_the_time:
        return f"{what} asks for the time, or for a random number"
    if calling.functions and not dataset.watches:
        return (
            f"{what} calls {calling.functions[0]}(), which may read what is not"
            f" logged: say in [{dataset.name}.watch] which tables it reads"
        )
    return None


def is_newer(made_by: Iterable[int], snapshot: Snapshot, present: Snapshot) -> bool:
    """Return whether one of these transactions is behind the snapshot.

    Of their numbers the lower 32 bits are known.
    """
    return any(not snapshot.sees(_widened(xid, present.xmax)) for xid in made_by)


def _widened(xid: int, present: int) -> int:
    """The number of the transaction of which `xid` are the lower 32 bits, not above `present`."""
    wide = present - present % _XIDS + xid
    return wide - _XIDS if wide > present and wide >= _XIDS else wide
