"""A step of feeds that are followed together: what has changed from one state to the next."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import ClassVar, Final, NamedTuple, TypeAlias

from feedsvc.backends.postgres.faults import as_problems
from feedsvc.backends.postgres.pool import Pool
from feedsvc.changes.cursor import Cursor, feed_digest
from feedsvc.core.principal import Principal
from feedsvc.core.problems import Reset
from feedsvc.feeds.cursors import Cursors
from feedsvc.feeds.delta import Delta
from feedsvc.feeds.feed_log import FeedLog, Place
from feedsvc.feeds.feed_state import KnownFeeds
from feedsvc.feeds.live.event_id import EventId
from feedsvc.feeds.live.live_query import LiveFeed
from feedsvc.feeds.live.membership import FeedKeys, Membership
from feedsvc.feeds.statement_names import StatementKind
from feedsvc.feeds.transaction import Reading
from streams import live
from streams.deltas import ChangeBatch

PARAMETER: Final = "live"
MOST_BYTES: Final = 8 * 1024 * 1024
"""Bytes of changes that one step holds, for it is kept until it is whole; beyond it is a reset."""
LiveState: TypeAlias = Cursor
"""The state of some feeds that a reader has."""


class _LiveDelta(Delta):
    kind: ClassVar[StatementKind] = "live"


class FeedChanges(NamedTuple):
    """Changes of one feed, as it is named in events."""

    name: str | None
    changes: ChangeBatch


@dataclass(frozen=True, slots=True)
class LiveStep:
    """The changes that lead to the state of `cursor`, and where the log has those to come."""

    cursor: Cursor
    batches: Sequence[FeedChanges]
    places: Sequence[Place]
    keys: Sequence[FeedKeys] = ()
    is_exact: bool = False
    """True if it is good from the state alone that it was read from, and from none behind it."""

    @property
    def upserts(self) -> int:
        """The rows that are new or other than before."""
        return sum(len(batch.changes.upserts) for batch in self.batches)

    @property
    def deletes(self) -> int:
        """The keys that are gone."""
        return sum(len(batch.changes.deletes) for batch in self.batches)

    def events(self, before: str, after: str, *, syncs: bool) -> list[bytes]:
        """The step's events: only behind the last one the reader has the state of `after`.

        The ids of all others lead back to `before`: a client that comes with one gets all of the
        step. With `syncs` the last is `event: sync`, else the last change.
        """
        within = str(EventId(before, is_within_step=True))
        ids = [within] * len(self.batches)
        if ids and not syncs:
            ids[-1] = after
        made = [
            live.change(ident, changes.upserts, changes.deletes, name)
            for ident, (name, changes) in zip(ids, self.batches, strict=True)
        ]
        return [*made, live.sync(after, self.upserts, self.deletes)] if syncs else made


class ChangeReader:
    """Reads steps of these feeds for one reader.

    `membership` are the keys of the state from which it reads. Without it a change of who sees
    which rows is a reset.
    """

    def __init__(
        self,
        feeds: Sequence[LiveFeed],
        reader: Principal,
        pool: Pool,
        cursors: Cursors,
        membership: Membership | None = None,
    ) -> None:
        self.known_feeds: KnownFeeds | None = None
        """The feeds that were read in the transaction for others."""
        self._feeds = feeds
        self._reader = reader
        self._pool = pool
        self._cursors = cursors
        self._membership = membership

    async def read(self, reading: Reading, since: Cursor) -> LiveStep:
        """The step from this cursor to the state of a transaction that is the reader's.

        Raises Reset and other Problems.
        """

        @asynccontextmanager
        async def given() -> AsyncIterator[Reading]:
            yield reading

        reached, batches, places = since, list[FeedChanges](), list[Place]()
        keys, is_exact, size = list[FeedKeys](), False, 0
        for at, feed in enumerate(self._feeds):
            log = FeedLog(feed.changes, self._reader, since, self._cursors, PARAMETER)
            log.known_feeds = self.known_feeds
            delta = _LiveDelta(feed.changes, self._reader, self._pool, log, given)
            if self._membership is not None and (held := self._membership.of(at)) is not None:
                log.held, delta.noted = held, {}
            with as_problems(self._pool.observers):
                async with delta:
                    await delta.begin()
                    while (changes := await delta.take()) is not None:
                        if size > MOST_BYTES:
                            raise Reset("larger")  # a snapshot is sent as it is read
                        size += sum(map(len, changes.upserts)) + sum(map(len, changes.deletes))
                        batches.append(FeedChanges(feed.name, changes))
                keys.append(await self._keys(reading, log, delta.noted))
            is_exact |= log.is_exact
            reached = _joined(reached, log.reached, feed.dataset.name)
            places.append(log.place)
        return LiveStep(reached, batches, places, keys, is_exact)

    async def _keys(
        self, reading: Reading, log: FeedLog, noted: Mapping[str, bool] | None
    ) -> FeedKeys:
        """The keys behind the step, where they are kept, or are to be from now on."""
        is_needed, membership = log.needs_keys, self._membership
        if log.present is not None or noted is not None:
            return FeedKeys(is_needed, log.present, noted)
        if not is_needed or membership is None or membership.is_given_up:
            return FeedKeys(is_needed)
        return FeedKeys(is_needed, await log.keys(reading.connection, membership.most))


def _joined(reached: Cursor, one: Cursor, dataset: str) -> Cursor:
    """A cursor that also has what another one of the same state knows of this feed."""
    name = feed_digest(dataset)
    return reached.moved(one.snapshot, one.policies, name, one.feeds[name])
