"""The known changes, by which a snapshot is too old for a page.

The rule that everything rests on: a page may be shown only while the service listens to PostgreSQL,
and only if its snapshot sees every transaction that was reported for one of the page's tags.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from feedsvc.backends.postgres.snapshot import Snapshot

_MOST_ITEMS: Final = 200_000
_MOST_WRITERS: Final = 256
_NEVER: Final = Snapshot(1 << 64, 1 << 64, frozenset())
"""Covered by no snapshot, for transaction numbers have 64 bits."""


class _Writers:
    """The transactions that changed what has one tag."""

    __slots__ = ("floor", "newest", "xids")

    def __init__(self) -> None:
        self.xids: set[int] = set()
        self.newest = 0
        # Sees all that were forgotten to keep this small.
        self.floor: Snapshot | None = None

    def add(self, xid: int) -> None:
        self.xids.add(xid)
        self.newest = max(self.newest, xid)

    def forget(self, snapshot: Snapshot) -> None:
        """Forget the transactions that the snapshot sees, for which it stands from now on."""
        self.xids = {xid for xid in self.xids if not snapshot.sees(xid)}
        self.floor = snapshot

    def all_seen_by(self, snapshot: Snapshot) -> bool:
        if self.floor is not None and not snapshot.covers(self.floor):
            return False
        return self.newest < snapshot.xmin or all(map(snapshot.sees, self.xids))

    def none_between(self, old: Snapshot, new: Snapshot) -> bool:
        if self.floor is not None and not old.covers(self.floor):
            return False
        return all(old.sees(xid) or not new.sees(xid) for xid in self.xids)


class Ledger:
    """The transactions that changed each item, for as long as an older page may be kept anywhere.

    Items are those of `datasets.tags`. `keep`: the greatest age of a page, in seconds. `silence`:
    the seconds without a heartbeat after which no page is fresh any more.
    """

    def __init__(
        self, *, keep: float, silence: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._keep = keep
        self._silence = silence
        self._clock = clock
        self._writers: dict[str, _Writers] = {}
        self._older: dict[str, _Writers] = {}
        # What it sees may have been missed, or has been forgotten. It outlives the listening: what
        # was too old before the connection was lost is too old after that.
        self._floor: Snapshot | None = None
        self._next_floor: Snapshot | None = None
        self._begun = False
        self._heard = self._turned = -float("inf")

    @property
    def listening(self) -> bool:
        """Whether a change that was not reported did not happen."""
        return self._begun and self._clock() - self._heard <= self._silence

    def start(self, snapshot: Snapshot) -> None:
        """Start with this snapshot: the changes that it sees may have been missed, no others.

        Those reported while the snapshot was on its way are kept: it need not see them.
        """
        self._floor = self._next_floor = snapshot
        self._begun = True
        self._heard = self._turned = self._clock()

    def disconnect(self) -> None:
        """Stop: no page is fresh until `start`."""
        self._begun = False

    def reset(self) -> None:
        """Forget everything: from here on changes are of another database, or another life of it.

        Its transactions have numbers of their own, so no page is fresh until `start`.
        """
        self._begun = False
        self._floor = self._next_floor = _NEVER
        self._writers, self._older = {}, {}

    def record(self, xid: int, items: Iterable[str]) -> None:
        """Record that a committed transaction changed rows with these items."""
        for item in items:
            writers = self._writers.get(item)
            if writers is None:
                writers = self._writers[item] = _Writers()
            writers.add(xid)

    def confirm(self, snapshot: Snapshot) -> None:
        """Confirm, at this moment, that every change that this snapshot sees was reported."""
        if not self._begun:
            return
        self._heard = self._clock()
        if len(self._writers) > _MOST_ITEMS:
            self._floor = self._next_floor = snapshot
            self._older, self._writers = {}, _unseen(self._writers, snapshot)
        elif self._heard - self._turned > self._keep:
            self._forget_the_older(snapshot)
        for writers in self._writers.values():
            if len(writers.xids) > _MOST_WRITERS:
                writers.forget(snapshot)

    def is_fresh(self, snapshot: Snapshot, items: Sequence[str]) -> bool:
        """Whether a page of this snapshot, looked up under these items, is up to date."""
        return self.listening and self.has_no_newer_change(snapshot, items)

    def unchanged(self, old: Snapshot, new: Snapshot, items: Sequence[str]) -> bool:
        """Whether a page of the old snapshot is as the new one would have it.

        To be asked once all changes that the new one sees are reported.
        """
        if not self.listening or self._floor is None or not old.covers(self._floor):
            return False
        return new.covers(old) and all(
            writers is None or writers.none_between(old, new)
            for told in (self._writers, self._older)
            for writers in map(told.get, items)
        )

    def has_no_newer_change(self, snapshot: Snapshot, items: Sequence[str]) -> bool:
        """Whether no reported change is missing from the page; later ones may not be reported."""
        return (self._floor is None or snapshot.covers(self._floor)) and all(
            writers is None or writers.all_seen_by(snapshot)
            for told in (self._writers, self._older)
            if told
            for writers in map(told.get, items)
        )

    def _forget_the_older(self, snapshot: Snapshot) -> None:
        """Whatever a forgotten transaction changed is seen by every page that is young enough."""
        self._floor, self._next_floor = self._next_floor, snapshot
        self._older, self._writers = self._writers, _unseen(self._writers, snapshot)
        self._turned = self._heard


def _unseen(told: Mapping[str, _Writers], snapshot: Snapshot) -> dict[str, _Writers]:
    """The reported changes that overtook the snapshot on its way here."""
    left = {}
    for item, writers in told.items():
        xids = [xid for xid in writers.xids if not snapshot.sees(xid)]
        if xids:
            left[item] = _Writers()
            for xid in xids:
                left[item].add(xid)
    return left
