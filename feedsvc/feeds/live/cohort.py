"""Readers who see the same: their events are read and encoded once."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Final, NamedTuple

from feedsvc.backends.postgres.snapshot import Snapshot
from feedsvc.changes.cursor import Cursor, feed_digest
from feedsvc.core.broadcast import Broadcast
from feedsvc.core.principal import Principal
from feedsvc.feeds.arrivals import Arrived
from feedsvc.feeds.cursors import Cursors
from feedsvc.feeds.feed_log import Place
from feedsvc.feeds.live.live_query import LiveFeed
from feedsvc.feeds.live.membership import Membership
from feedsvc.feeds.live.step import LiveStep
from streams import live

_MOST_MARKS: Final = 4_096


class Mark(NamedTuple):
    """A state, and the number of the first event behind it.

    With `exactly_from` what leads there is good from that state, and from none behind it.
    """

    number: int
    snapshot: Snapshot
    exactly_from: Snapshot | None = None


class Cohort:
    """The events of some feeds for one reader (tenant, role, client), one behind the other.

    It has a state, which the tail moves on. Before `begin` it has none, and no event.
    """

    def __init__(
        self,
        feeds: Sequence[LiveFeed],
        reader: Principal,
        broadcast: Broadcast,
        cursors: Cursors,
        address: str,
    ) -> None:
        self.feeds = feeds
        self.reader = reader
        self.broadcast = broadcast
        self.address = address
        """The address at which its subscribers get the feeds anew."""
        self.cursor: Cursor | None = None
        """The newest state, None before the first."""
        self.rules: tuple[object, ...] = ()
        """The rights and schemas of its state: what holds for one cohort with these, for all."""
        self.numbers: set[int] = set()
        """The numbers of its feeds in the log."""
        self.not_before = 0.0
        """The time before which it is not to be read again (monotonic)."""
        self.timeouts = 0
        """The number of times in a row that it could not be read in time."""
        self.left_at = time.monotonic()
        """The time at which it was last seen to have no subscriber."""
        self.is_suspect = False
        """True while it is to be read, for its rights may be former ones, or its keys lack."""
        self.looks = 0
        """The number of looks at it that have ended."""
        self.awaited = 0
        """The number of clients that wait for the next look at it."""
        self.membership = Membership()
        """The keys of its state, where other tables decide on them."""
        self._cursors = cursors
        self._places: Sequence[Place] = ()
        self._marks: list[Mark] = []
        self._pins = 0
        self._looked = asyncio.Event()
        self._sync: tuple[Mark, float, bytes] | None = None  # and until when (monotonic)

    @property
    def is_used(self) -> bool:
        """Return whether it has subscribers, or answers that are going to subscribe."""
        return self._pins > 0 or self.broadcast.count > 0

    @contextmanager
    def pinned(self) -> Iterator[None]:
        """Keep it while the block runs."""
        self._pins += 1
        try:
            yield
        finally:
            self._pins -= 1
            self.left_at = time.monotonic()

    def begin(self, step: LiveStep) -> None:
        """Take this step's state as the first. Where there is one already, change nothing."""
        if self.cursor is None:
            self._take(step)
            self._marks = [Mark(self.broadcast.next, step.cursor.snapshot)]
            self.is_suspect = any(keys.is_needed for keys in step.keys)

    def _take(self, step: LiveStep) -> None:
        """Take a step's state, and what each look asks of it."""
        self.cursor, self._places = step.cursor, step.places
        self.numbers = {place.feed for place in step.places}
        self.rules = tuple(
            (name, state.rights, state.schema)
            for name in self._names()
            if (state := step.cursor.feeds.get(name)) is not None
        )

    def is_touched(self, answer: Arrived, since: Snapshot) -> bool:
        """Return whether the log has rows for it that its state lacks."""
        return any(answer.concerns(place, since) for place in self._places)

    def pass_over(self, snapshot: Snapshot) -> None:
        """Nothing of it was written up to this snapshot."""
        if self.cursor is not None and snapshot.covers(self.cursor.snapshot):
            self.cursor = replace(self.cursor, snapshot=snapshot)
            self._announce()

    async def next_look(self) -> None:
        """Wait until it was looked at once more, or has ended."""
        self.awaited += 1
        try:
            await self._looked.wait()
        finally:
            self.awaited -= 1

    def end(self, event: bytes) -> None:
        """Publish the last event."""
        self.broadcast.end(event)
        self._announce()

    def _announce(self) -> None:
        self.looks += 1
        if self.awaited:
            looked, self._looked = self._looked, asyncio.Event()
            looked.set()

    def move(self, step: LiveStep, committed_at: float) -> None:
        """Publish a step from the present state, and take its state. Raises Busy."""
        if self.cursor is None:
            return
        self.timeouts, self.is_suspect = 0, False
        if step.batches:
            former, latter = self._cursors.text(self.cursor), self._cursors.text(step.cursor)
            for event in step.events(former, latter, syncs=False):
                self.broadcast.publish(event, committed_at)
        if step.batches or step.is_exact:
            before = self.cursor.snapshot if step.is_exact else None
            self._marks.append(Mark(self.broadcast.next, step.cursor.snapshot, before))
            self._thin_out()
        self.membership.take(step.keys)
        self._take(step)
        self._announce()

    def heartbeat(self, same_for: float) -> bytes:
        """`event: sync` with a state behind which nothing has come, the same for so many seconds.

        Many get the same one, so that they come back with few ids, each of which takes a query.
        """
        if self.cursor is None:
            return b": ping\n\n"
        mark, now = self._marks[-1], time.monotonic()
        if self._sync is None or self._sync[0] is not mark or self._sync[1] <= now:
            data = live.sync(self._cursors.text(self.cursor))
            self._sync = mark, now + same_for, data
        return self._sync[2]

    def accepts(self, cursor: Cursor) -> bool:
        """Return whether a state is of these feeds, this reader and this life of the database."""
        own = self.cursor
        return (
            own is not None
            and (cursor.origin, cursor.epoch, cursor.reader) == (own.origin, own.epoch, own.reader)
            and all(
                cursor.feeds.get(name) == own.feeds.get(name) is not None for name in self._names()
            )
        )

    def has_reached(self, snapshot: Snapshot) -> bool:
        """Return whether its state has all that this one has."""
        return self.cursor is not None and self.cursor.snapshot.covers(snapshot)

    def is_still_in(self, state: Cursor) -> bool:
        """Return whether it has published nothing behind this state, which it `has_reached`."""
        number = self.number_behind(state.snapshot) if self.accepts(state) else None
        return number == self.broadcast.next and not self.broadcast.ended

    def number_behind(self, snapshot: Snapshot) -> int | None:
        """The number of the first event for a reader that has this state, which it `has_reached`.

        None where the events from there on are not kept. An event leads from one state to the next,
        and it does so from any state between them, too: what it names was written since the former,
        and it has it as it is in the latter. Where it compares keys it does not: None for a reader
        who is behind the state that was compared.
        """
        following: Mark | None = None
        for mark in reversed(self._marks):
            if snapshot.covers(mark.snapshot):
                return mark.number if self._leads_on(mark, following, snapshot) else None
            following = mark
        return None

    def _leads_on(self, mark: Mark, following: Mark | None, snapshot: Snapshot) -> bool:
        """Return whether the events behind a mark are kept, and good from this state."""
        barrier = None if following is None else following.exactly_from
        return mark.number >= self.broadcast.first and (barrier is None or barrier.covers(snapshot))

    def state_before(self, number: int) -> Cursor | None:
        """A state that every reader has who waits for the event of this number."""
        if self.cursor is None:
            return None
        for mark in reversed(self._marks):
            if mark.number <= number:
                return replace(self.cursor, snapshot=mark.snapshot)
        return None

    def _names(self) -> Iterator[bytes]:
        return (feed_digest(feed.dataset.name) for feed in self.feeds)

    def _thin_out(self) -> None:
        """Of states whose events are not kept, keep every other: a delta begins a little earlier.

        A reader that joins must find the very last of the states that its own covers.
        """
        if len(self._marks) > _MOST_MARKS:
            first = self.broadcast.first
            old = sum(mark.number < first for mark in self._marks)
            self._marks[:old] = self._marks[:old:2]
