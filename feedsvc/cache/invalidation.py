"""The subscriber that keeps the cache's ledger, and its coverage, up to date with the log."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Final

import asyncpg

from feedsvc.backends.postgres.snapshot import Snapshot
from feedsvc.cache.items import FollowedFeed, items_of
from feedsvc.cache.ledger import Ledger
from feedsvc.cache.policy import Coverage
from feedsvc.changes import log_hash, triggers
from feedsvc.changes.log_entries import LogEntry
from feedsvc.core.events import CacheChange, Observers
from feedsvc.datasets.dataset import Declaration

logger = logging.getLogger(__name__)

_ORIGIN: Final = (files("feedsvc.cache") / "origin.sql").read_text()


class Invalidation:
    """The subscriber that keeps the ledger, and the coverage, up to date."""

    def __init__(
        self,
        coverage: Coverage,
        ledger: Ledger,
        declarations: Mapping[str, Declaration],
        observers: Observers,
    ) -> None:
        self._coverage = coverage
        self._ledger = ledger
        self._declarations = declarations
        self._observers = observers
        self._names: Mapping[int, str] = {}
        self._found: Mapping[str, str] | None = None
        """The datasets that are kept out from the next look on."""
        self._state: str | None = None
        self._missed = False
        """True if something changed that is not in the log."""

    async def survey(self, connection: asyncpg.Connection) -> bool:
        """Find out which datasets may be cached. Raises what asyncpg raises.

        Returns whether pages that were up to date before may be out of date.
        """
        origin: str = await connection.fetchval(_ORIGIN)
        planned = await triggers.plan(connection, self._declarations)
        drifted = await triggers.drifted(connection, planned)
        untracked = {**drifted, **planned.impossible}
        followed = _followed(planned, connection.get_settings().server_encoding)
        untracked |= dict.fromkeys(
            planned.log.feeds.keys() - followed.keys() - untracked.keys(),
            "its changes can't be told apart in this encoding",
        )
        before = self._coverage.kept_out or {}
        for name, reason in untracked.items():
            if name not in before:
                logger.warning("%s is not cached: %s", name, reason)
        is_other = self._coverage.origin not in ("", origin)
        if is_other:
            self._ledger.reset()
        self._coverage.origin = origin
        self._coverage.kept_out = {**before, **untracked}
        self._coverage.incompletely_logged = frozenset(drifted.keys() - planned.impossible.keys())
        if followed != self._coverage.feeds:
            self._coverage.feeds = followed
            self._names = {f.feed.number: name for name, f in followed.items()}
        # A policy, a view, a partition, or triggers that did not fire for a while.
        is_new = self._state not in (None, planned.state) or self._coverage.kept_out != untracked
        self._missed = self._missed or is_other or is_new
        self._found, self._state = untracked, planned.state
        return self._missed

    def on_start(self) -> None:
        """See `LogSubscriber`."""
        self._ledger.disconnect()
        self._missed = True

    def on_changes(self, entries: Sequence[LogEntry]) -> None:
        """See `LogSubscriber`."""
        for entry in entries:
            self._ledger.record(entry.xid, items_of(entry))
        transactions = Counter(feed for _, feed in {(each.xid, each.feed) for each in entries})
        for feed, count in transactions.items():
            if feed in self._names:
                self._observers.publish(CacheChange(self._names[feed], count))

    def on_read(self, snapshot: Snapshot) -> None:
        """See `LogSubscriber`."""
        if self._missed:
            # Changes were passed over, or were not logged: triggers were not as they should be.
            self._ledger.start(snapshot)
            self._missed = False
        if self._found is not None:
            self._coverage.kept_out, self._found = self._found, None
        self._ledger.confirm(snapshot)

    def on_failure(self) -> None:
        """See `LogSubscriber`."""
        self._ledger.disconnect()


def _followed(planned: triggers.TriggerPlan, server_encoding: str) -> dict[str, FollowedFeed]:
    try:
        codec = log_hash.codec(server_encoding)
    except LookupError:
        return {}
    feeds = planned.log.feeds.items()
    return {name: FollowedFeed(feed, everyone, codec) for name, (feed, everyone) in feeds}
