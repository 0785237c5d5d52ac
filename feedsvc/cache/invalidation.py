"""The subscriber that keeps the cache's ledger, and its coverage, up to date."""

import logging
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Final

import asyncpg

from feedsvc.backends.postgres.snapshot import Snapshot
from feedsvc.cache.ledger import Ledger
from feedsvc.cache.policy import Coverage
from feedsvc.changes import triggers
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
        self._found: Mapping[str, str] | None = None
        """The datasets that are kept out from the next heartbeat on."""
        self._state: str | None = None
        self._missed = False
        """Whether something changed that no trigger reports."""

    async def look(self, connection: asyncpg.Connection) -> None:
        """Find out which datasets may be cached. Raises what asyncpg raises."""
        origin: str = await connection.fetchval(_ORIGIN)
        planned = await triggers.plan(connection, self._declarations)
        drifted = await triggers.drifted(connection, planned)
        untracked = {**drifted, **planned.impossible}
        before = self._coverage.kept_out or {}
        for name, reason in untracked.items():
            if name not in before:
                logger.warning("%s is not cached: %s", name, reason)
        if self._coverage.origin not in ("", origin):
            self._ledger.reset()
        self._coverage.origin = origin
        self._coverage.kept_out = {**before, **untracked}
        self._coverage.untold = frozenset(drifted.keys() - planned.impossible.keys())
        self._found = untracked
        # A policy, a view, a partition, or triggers that did not fire for a while.
        self._missed = self._missed or self._state not in (None, planned.state)
        self._state = planned.state

    def on_connect(self, snapshot: Snapshot) -> None:
        """See `ChangeSubscriber`."""
        self._ledger.start(snapshot)
        self._let_in()

    def on_change(self, xid: int, items: Sequence[str]) -> None:
        """See `ChangeSubscriber`."""
        self._ledger.record(xid, items)
        self._observers.tell(CacheChange(items))

    def on_heartbeat(self, snapshot: Snapshot) -> None:
        """See `ChangeSubscriber`."""
        if self._missed or (self._found is not None and self._found != self._coverage.kept_out):
            # Changes were not reported while a dataset's triggers were not as they should be.
            self._ledger.start(snapshot)
        self._let_in()
        self._ledger.confirm(snapshot)

    def on_disconnect(self) -> None:
        """See `ChangeSubscriber`."""
        self._ledger.disconnect()

    def _let_in(self) -> None:
        self._missed = False
        if self._found is not None:
            self._coverage.kept_out, self._found = self._found, None
