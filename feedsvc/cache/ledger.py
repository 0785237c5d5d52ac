"""The known changes, by which a snapshot is too old for a page.

The rule that everything rests on: a page may be shown only while the change log is followed, and
only if its snapshot sees every transaction that the log has for one of the page's items.
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

    Items are those of `cache.items`. `keep`: the greatest age of a page, in seconds.
    """

    def __init__(self, *, keep: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._keep = keep
        self._clock = clock
        self._writers: dict[bytes, _Writers] = {}
        self._older: dict[bytes, _Writers] = {}
        # What it sees may have been missed, or has been forgotten. It outlives a lost connection:
        # what was too old before that is too old after it.
        self._floor: Snapshot | None = None
        self._next_floor: Snapshot | None = None
        self._has_started = False
        self._turned = -float("inf")
        self.is_followed = False
        """True if a change that is not recorded was not committed when the log was last read."""

    def start(self, snapshot: Snapshot) -> None:
        """Start with this snapshot: the changes that it sees may have been missed, no others.

        Those recorded while the snapshot was on its way are kept: it need not see them.
        """
        self._floor = self._next_floor = snapshot
        self._has_started = self.is_followed = True
        self._turned = self._clock()

    def disconnect(self) -> None:
        """Stop: no page is fresh until `confirm`."""
        self.is_followed = False

    def reset(self) -> None:
        """Forget everything: from here on changes are of another database, or another life of it.

        Its transactions have numbers of their own, so no page is fresh until `start`.
        """
        self._has_started = self.is_followed = False
        self._floor = self._next_floor = _NEVER
        self._writers, self._older = {}, {}

    def record(self, xid: int, items: Iterable[bytes]) -> None:
        """Record that a committed transaction changed rows with these items."""
        for item in items:
            writers = self._writers.get(item)
            if writers is None:
                writers = self._writers[item] = _Writers()
            writers.add(xid)

    def confirm(self, snapshot: Snapshot) -> None:
        """Confirm that every change that this snapshot sees is recorded, or was before `start`."""
        if not self._has_started:
            return
        self.is_followed = True
        if len(self._writers) > _MOST_ITEMS:
            self._floor = self._next_floor = snapshot
            self._older, self._writers = {}, _unseen(self._writers, snapshot)
        elif self._clock() - self._turned > self._keep:
            self._forget_the_older(snapshot)
        for writers in self._writers.values():
            if len(writers.xids) > _MOST_WRITERS:
                writers.forget(snapshot)

    def is_fresh(self, snapshot: Snapshot, items: Sequence[bytes]) -> bool:
        """Return whether a page of this snapshot, looked up under these items, is up to date."""
        return self.is_followed and self.has_no_newer_change(snapshot, items)

    def unchanged(self, old: Snapshot, new: Snapshot, items: Sequence[bytes]) -> bool:
        """Return whether a page of the old snapshot is as the new one would have it.

        To be asked once all changes that the new one sees are recorded.
        """
        if not self.is_followed or self._floor is None or not old.covers(self._floor):
            return False
        return new.covers(old) and all(
            writers is None or writers.none_between(old, new)
            for recorded in (self._writers, self._older)
            for writers in map(recorded.get, items)
        )

    def has_no_newer_change(self, snapshot: Snapshot, items: Sequence[bytes]) -> bool:
        """Return whether the page has every recorded change; later ones may not be recorded."""
        if self._floor is not None and not snapshot.covers(self._floor):
            return False
        # Not a generator, which takes twice as long: each request for a page asks.
        for recorded in (self._writers, self._older):
            if recorded:
                for item in items:
                    writers = recorded.get(item)
                    if writers is not None and not writers.all_seen_by(snapshot):
                        return False
        return True

    def _forget_the_older(self, snapshot: Snapshot) -> None:
        """Whatever a forgotten transaction changed is seen by every page that is young enough."""
        self._floor, self._next_floor = self._next_floor, snapshot
        self._older, self._writers = self._writers, _unseen(self._writers, snapshot)
        self._turned = self._clock()


def _unseen(recorded: Mapping[bytes, _Writers], snapshot: Snapshot) -> dict[bytes, _Writers]:
    """The recorded changes that overtook the snapshot on its way here."""
    left = {}
    for item, writers in recorded.items():
        xids = [xid for xid in writers.xids if not snapshot.sees(xid)]
        if xids:
            left[item] = _Writers()
            for xid in xids:
                left[item].add(xid)
    return left
